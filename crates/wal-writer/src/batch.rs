//! A batch of records on its way from the appender to the disk: moved, never shared.

use std::sync::Arc;

use wal_entry::RecordBuffer;
use wal_format::{BLOCK_BYTES, MARK_RECORD_BYTES, Mark, SEAL_RECORD_BYTES, Seal};

use crate::segments::Segment;

/// Records of one segment that are written together.
///
/// The buffer begins at the start of the block that the batch's first record lies in. The bytes
/// of earlier batches in that block, and the batch's mark, are filled in by the leader when it
/// writes: only then is it known what they say.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) buffer: RecordBuffer,
    pub(crate) segment: Arc<Segment>,
    /// Where the buffer goes in the segment's file; a multiple of [`BLOCK_BYTES`].
    pub(crate) file_offset: u64,
    /// Bytes at the front of the buffer that belong to earlier batches.
    pub(crate) carried_bytes: usize,
    /// Whether the first record is a mark. Only the log's very first batch has none.
    pub(crate) has_mark: bool,
    pub(crate) start_position: u64,
    pub(crate) end_position: u64,
    /// The epoch of the last entry up to the end of the batch.
    pub(crate) end_epoch: u64,
    pub(crate) start_sequence: u64,
    /// The sequence of the first entry behind the batch, once it is closed.
    pub(crate) end_sequence: u64,
    /// Whether the last block, as completed, has room that the next batch will use.
    has_open_block: bool,
}

impl Batch {
    /// An empty batch that begins at `position` of `segment`, in a buffer that need not be empty.
    pub(crate) fn open(
        mut buffer: RecordBuffer,
        segment: Arc<Segment>,
        position: u64,
        sequence: u64,
        last_epoch: u64,
    ) -> Self {
        let place = segment.file_offset(position);
        let within_block = place % BLOCK_BYTES as u64;
        let carried_bytes = usize::try_from(within_block).unwrap_or(0);
        let has_mark = position != 0;
        let mark_bytes = if has_mark { MARK_RECORD_BYTES } else { 0 };
        buffer.clear();
        buffer.resize(carried_bytes + mark_bytes, 0);
        Self {
            buffer,
            segment,
            file_offset: place - within_block,
            carried_bytes,
            has_mark,
            start_position: position,
            end_position: position + mark_bytes as u64,
            end_epoch: last_epoch,
            start_sequence: sequence,
            end_sequence: sequence,
            has_open_block: false,
        }
    }

    /// Ends the segment behind this batch.
    pub(crate) fn seal(&mut self, next_sequence: u64) {
        let seal: [u8; SEAL_RECORD_BYTES] =
            Seal { next_sequence }.encode(self.segment.salt(), self.end_position);
        self.buffer.extend_from_slice(&seal);
    }

    /// Makes the buffer what is to be on disk: `tail` is the half-filled block that earlier
    /// batches left, `durable` what the mark says. Leaves in `tail` what a later batch will have
    /// to carry.
    ///
    /// Behind the last record come zeroes up to the end of its block, at least one: where records
    /// end with their block, a whole block of them, as far as the file goes. So what follows the
    /// end of a log is never taken for a torn write, though the file may have had an earlier life.
    pub(crate) fn complete(&mut self, tail: &mut Tail, durable: Mark) {
        let front = self.buffer.get_mut(..self.carried_bytes);
        debug_assert_eq!(tail.length, self.carried_bytes, "a block is carried from batch to batch");
        if let (Some(front), Some(carried)) = (front, tail.bytes.get(..self.carried_bytes)) {
            front.copy_from_slice(carried);
        }
        let behind_carried = self.buffer.get_mut(self.carried_bytes..);
        if self.has_mark
            && let Some(mark) = behind_carried.and_then(|bytes| bytes.first_chunk_mut())
        {
            *mark = durable.encode(self.segment.salt(), self.start_position);
        }
        let length = self.buffer.len();
        let whole_blocks = length - length % BLOCK_BYTES;
        tail.take(self.buffer.get(whole_blocks..).unwrap_or_default());
        let room = self.segment.size_bytes().saturating_sub(self.file_offset);
        self.has_open_block = (whole_blocks + BLOCK_BYTES) as u64 <= room;
        let blocks = if self.has_open_block { whole_blocks + BLOCK_BYTES } else { whole_blocks };
        self.buffer.resize(blocks, 0);
    }

    /// The completed batch's bytes. If another batch of the segment `follows`, it begins in the
    /// open block, which is left out here.
    pub(crate) fn bytes(&self, follows: bool) -> &[u8] {
        let written_by_next = if follows && self.has_open_block { BLOCK_BYTES } else { 0 };
        self.buffer.get(..self.buffer.len() - written_by_next).unwrap_or_default()
    }
}

/// What the last block written holds, as far as it is filled.
#[derive(Debug)]
pub(crate) struct Tail {
    bytes: [u8; BLOCK_BYTES],
    length: usize,
}

impl Tail {
    pub(crate) const EMPTY: Self = Self { bytes: [0; BLOCK_BYTES], length: 0 };

    fn take(&mut self, rest: &[u8]) {
        self.length = 0;
        if let Some(place) = self.bytes.get_mut(..rest.len()) {
            place.copy_from_slice(rest);
            self.length = rest.len();
        }
    }
}
