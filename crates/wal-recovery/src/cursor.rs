//! Reading records from a file through one buffer of at most 256 KiB.
//!
//! No length is trusted before its checksum: a record longer than the buffer is summed up in
//! pieces first, and only then gets memory of its own.

use std::ops::Range;

use wal_entry::RecordBuffer;
use wal_format::{
    BLOCK_BYTES, RECORD_HEADER_BYTES, RecordHeader, RecordKind, Unreadable, crc32c_append,
    decode_record,
};
use wal_storage::{Result, StorageFile};

/// The size of the buffer, unless the file is smaller.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;

/// Reads begin at multiples of this, so that what stands at a multiple of 8 in the file stands at
/// one in memory too, as archives want it.
const READ_ALIGNMENT_BYTES: usize = BLOCK_BYTES;

/// What the buffer holds of any record, wherever in a block it begins.
const WINDOW_RECORD_BYTES_MAX: usize = BUFFER_BYTES - READ_ALIGNMENT_BYTES;

/// The memory of a cursor; it goes from one segment's cursor to the next one's.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    window: RecordBuffer,
    large: RecordBuffer,
}

impl Buffers {
    pub(crate) fn window(&self) -> &[u8] {
        &self.window
    }

    pub(crate) fn large(&self) -> &[u8] {
        &self.large
    }

    pub(crate) fn take_large(&mut self) -> RecordBuffer {
        std::mem::take(&mut self.large)
    }

    pub(crate) fn set_large(&mut self, buffer: RecordBuffer) {
        self.large = buffer;
    }

    /// The bytes of a payload that stands here.
    #[inline]
    pub(crate) fn bytes(&self, payload: &Payload) -> &[u8] {
        let (buffer, range) = match payload {
            Payload::Window(range) => (&self.window, range),
            Payload::Large(range) => (&self.large, range),
        };
        buffer.get(range.clone()).unwrap_or_default()
    }
}

/// A place in one file, and the bytes around it.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: Box<dyn StorageFile>,
    /// What stands in the file from here on does not count.
    end_offset: u64,
    buffers: Buffers,
    /// Where the window's first byte stands in the file.
    window_offset: u64,
    /// How many bytes of the window are filled.
    window_bytes: usize,
}

/// A record whose checksum fits.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) kind: RecordKind,
    /// Header and payload.
    pub(crate) record_bytes: u64,
    /// Empty for a large record of a kind that nobody reads.
    pub(crate) payload: Payload,
}

/// Where the cursor keeps a payload; good until it reads on.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Window(Range<usize>),
    Large(Range<usize>),
}

impl Payload {
    /// A part of this payload.
    pub(crate) fn part(&self, from: usize, bytes: usize) -> Self {
        let part = |range: &Range<usize>| {
            let start = range.start.saturating_add(from).min(range.end);
            start..start.saturating_add(bytes).min(range.end)
        };
        match self {
            Self::Window(range) => Self::Window(part(range)),
            Self::Large(range) => Self::Large(part(range)),
        }
    }
}

impl Cursor {
    pub(crate) const fn new(file: Box<dyn StorageFile>, end_offset: u64, buffers: Buffers) -> Self {
        Self { file, end_offset, buffers, window_offset: 0, window_bytes: 0 }
    }

    /// Gives the memory back for another cursor.
    pub(crate) fn into_buffers(self) -> Buffers {
        self.buffers
    }

    pub(crate) const fn end_offset(&self) -> u64 {
        self.end_offset
    }

    /// The record at `offset`, which has `position` in the core's log.
    #[inline]
    pub(crate) fn locate(
        &mut self,
        offset: u64,
        salt: u64,
        position: u64,
        max_record_bytes: u32,
    ) -> Result<Result<Located, Unreadable>> {
        let mut needed = RECORD_HEADER_BYTES;
        loop {
            let range = self.fill(offset, needed)?;
            let bytes = self.buffers.window.get(range.clone()).unwrap_or_default();
            match decode_record(bytes, salt, position, max_record_bytes) {
                Ok(record) => {
                    let payload_start = range.start + RECORD_HEADER_BYTES;
                    return Ok(Ok(Located {
                        kind: record.kind,
                        record_bytes: record.record_bytes() as u64,
                        payload: Payload::Window(
                            payload_start..payload_start + record.payload.len(),
                        ),
                    }));
                }
                Err(Unreadable::Incomplete { needed: wanted, .. })
                    if wanted > needed && self.has(offset, wanted) =>
                {
                    if wanted > WINDOW_RECORD_BYTES_MAX {
                        return self.locate_large(offset, salt, position, max_record_bytes);
                    }
                    // At most one more round: a file that became shorter gives the same answer
                    // for the same `needed`.
                    needed = wanted;
                }
                Err(unreadable) => return Ok(Err(unreadable)),
            }
        }
    }

    /// The bytes of a payload that was just located.
    #[inline]
    pub(crate) fn bytes(&self, payload: &Payload) -> &[u8] {
        self.buffers.bytes(payload)
    }

    /// Goes on with other memory, and gives up what it held: for who keeps the payloads that were
    /// located, with the memory that they stand in.
    pub(crate) fn swap_buffers(&mut self, buffers: &mut Buffers) {
        std::mem::swap(&mut self.buffers, buffers);
        self.window_bytes = 0;
    }

    /// As many bytes from `offset` on as are at hand: at least `needed`, if the file has them and
    /// the buffer holds them. Empty at the end.
    pub(crate) fn window(&mut self, offset: u64, needed: usize) -> Result<&[u8]> {
        let range = self.fill(offset, needed)?;
        Ok(self.buffers.window.get(range).unwrap_or_default())
    }

    /// What the buffer happens to hold from `offset` on, and where in it that stands.
    #[inline]
    pub(crate) fn at_hand(&self, offset: u64) -> (usize, &[u8]) {
        let start = self.index_of(offset).unwrap_or(self.window_bytes);
        (start, self.buffers.window.get(start..self.window_bytes).unwrap_or_default())
    }

    fn has(&self, offset: u64, bytes: usize) -> bool {
        let end = offset.checked_add(bytes as u64);
        end.is_some_and(|end| end <= self.end_offset)
    }

    /// Makes the window hold at least `needed` bytes from `offset` on, as far as the file has
    /// them, and returns where in the window everything from `offset` on stands.
    #[inline]
    fn fill(&mut self, offset: u64, needed: usize) -> Result<Range<usize>> {
        if let Some(start) = self.index_of(offset)
            && self.window_bytes - start >= needed
        {
            return Ok(start..self.window_bytes);
        }
        self.refill(offset)?;
        let start = self.index_of(offset).unwrap_or(self.window_bytes);
        Ok(start..self.window_bytes)
    }

    /// Where `offset` stands in the window, if it is in there or right behind.
    #[inline]
    fn index_of(&self, offset: u64) -> Option<usize> {
        let index = usize::try_from(offset.checked_sub(self.window_offset)?).ok()?;
        (index <= self.window_bytes).then_some(index)
    }

    /// Moves the window so that it begins with the block that `offset` stands in, and fills it.
    fn refill(&mut self, offset: u64) -> Result<()> {
        let window_offset = offset - offset % READ_ALIGNMENT_BYTES as u64;
        // No more than the file has: memory that is never read into still costs its zeroes. What
        // comes from another cursor mostly has the size already.
        let bytes_ahead = self.end_offset.saturating_sub(window_offset);
        let bytes_ahead = usize::try_from(bytes_ahead).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        if self.buffers.window.len() < bytes_ahead {
            self.buffers.window.resize(bytes_ahead, 0);
        }
        let kept_bytes = match self.index_of(window_offset) {
            Some(start) => {
                let kept = start..self.window_bytes;
                let kept_bytes = kept.len();
                self.buffers.window.copy_within(kept, 0);
                kept_bytes
            }
            None => 0,
        };
        // Nothing counts as filled until the read succeeds.
        self.window_offset = window_offset;
        self.window_bytes = 0;
        let kept_end = window_offset.saturating_add(kept_bytes as u64);
        let rest_bytes = self.end_offset.saturating_sub(kept_end);
        let rest_bytes = usize::try_from(rest_bytes).unwrap_or(usize::MAX);
        let unfilled = self.buffers.window.get_mut(kept_bytes..).unwrap_or_default();
        let read_bytes = unfilled.len().min(rest_bytes);
        let unfilled = unfilled.get_mut(..read_bytes).unwrap_or_default();
        let read_bytes =
            if unfilled.is_empty() { 0 } else { self.file.read_at(unfilled, kept_end)? };
        self.window_bytes = kept_bytes + read_bytes;
        Ok(())
    }

    /// A record that the window cannot hold: summed up in pieces, then allocated, then read and
    /// summed up once more, since the file is read twice.
    #[cold]
    fn locate_large(
        &mut self,
        offset: u64,
        salt: u64,
        position: u64,
        max_record_bytes: u32,
    ) -> Result<Result<Located, Unreadable>> {
        let header_bytes = self.window(offset, RECORD_HEADER_BYTES)?;
        let header = header_bytes.first_chunk().copied().unwrap_or_default();
        let header = match RecordHeader::decode(header, max_record_bytes) {
            Ok(header) => header,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        let seed = header.checksum_seed(salt, position);
        let payload_bytes = header.payload_bytes as usize;
        let payload_offset = offset.saturating_add(RECORD_HEADER_BYTES as u64);
        let checksum = |computed| Unreadable::Checksum {
            payload_bytes: header.payload_bytes,
            computed,
            stored: header.stored_checksum,
        };
        let computed = self.checksum_in_pieces(seed, payload_offset, payload_bytes)?;
        if computed != header.stored_checksum {
            return Ok(Err(checksum(computed)));
        }
        let located = |payload| Located {
            kind: header.kind,
            record_bytes: (RECORD_HEADER_BYTES + payload_bytes) as u64,
            payload,
        };
        if !matches!(header.kind, RecordKind::Entry | RecordKind::Batch) {
            return Ok(Ok(located(Payload::Large(0..0))));
        }
        let large = &mut self.buffers.large;
        large.clear();
        large.reserve_exact(payload_bytes);
        large.resize(payload_bytes, 0);
        self.file.read_at(large, payload_offset)?;
        let computed = crc32c_append(seed, large);
        if computed != header.stored_checksum {
            return Ok(Err(checksum(computed)));
        }
        Ok(Ok(located(Payload::Large(0..payload_bytes))))
    }

    fn checksum_in_pieces(&mut self, seed: u32, offset: u64, bytes: usize) -> Result<u32> {
        let mut checksum = seed;
        let mut at = offset;
        let mut rest_bytes = bytes;
        while rest_bytes > 0 {
            let window = self.window(at, 1)?;
            let piece = window.get(..rest_bytes).unwrap_or(window);
            if piece.is_empty() {
                break; // the file became shorter: the sum will not fit
            }
            checksum = crc32c_append(checksum, piece);
            at = at.saturating_add(piece.len() as u64);
            rest_bytes -= piece.len();
        }
        Ok(checksum)
    }
}
