//! One open file: whole reads and writes out of short and interrupted ones.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::direct::{self, DIRECT_BLOCK_BYTES, ZERO_PIECE_BYTES, ZEROES};
use crate::error::{Result, WalError};
use crate::storage::{Access, IoMode, StorageFile, WriteSync};
use crate::system;

pub(crate) struct OsFile {
    file: File,
    path: PathBuf,
    mode: IoMode,
    /// `RWF_DSYNC` was refused once: from then on, write and sync in two calls.
    syncs_apart: AtomicBool,
}

impl OsFile {
    /// The file behind `file`, if it is one of ours.
    pub(crate) fn behind(file: &dyn StorageFile) -> Option<&Arc<Self>> {
        let file: &dyn Any = file;
        file.downcast_ref()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file that was there already.
    pub(crate) fn existing(file: File, path: PathBuf, access: Access) -> Result<Self> {
        let size_bytes = match file.metadata() {
            Ok(metadata) => metadata.len(),
            Err(source) => return Err(WalError::io(path, "reading its size", source)),
        };
        let mode = choose_mode(&file, access, size_bytes)
            .map_err(|source| WalError::io(&path, "choosing how to write it", source))?;
        Ok(Self { file, path, mode, syncs_apart: AtomicBool::new(false) })
    }

    /// A file just made: reserves `size_bytes` and writes zeroes over all of it.
    ///
    /// Reserved blocks that were never written count as unwritten to the file system, so that
    /// the first write to each changes metadata; having written them is what makes later writes
    /// cheap, and what proves that the space is there.
    pub(crate) fn zeroed(
        file: File,
        path: PathBuf,
        access: Access,
        size_bytes: u64,
    ) -> Result<Self> {
        reserve(&file, &path, size_bytes)?;
        Self::with_zeroes(file, path, access, size_bytes, size_bytes)
    }

    /// A file just made: reserves `size_bytes`, and writes zeroes over all of it only if the file
    /// system cannot reserve.
    pub(crate) fn reserved(
        file: File,
        path: PathBuf,
        access: Access,
        size_bytes: u64,
    ) -> Result<Self> {
        let is_reserved = reserve(&file, &path, size_bytes)?;
        // The first block in any case: whether direct writes work is known after the first one.
        let zeroed_bytes =
            if is_reserved { size_bytes.min(DIRECT_BLOCK_BYTES as u64) } else { size_bytes };
        Self::with_zeroes(file, path, access, size_bytes, zeroed_bytes)
    }

    fn with_zeroes(
        file: File,
        path: PathBuf,
        access: Access,
        size_bytes: u64,
        zeroed_bytes: u64,
    ) -> Result<Self> {
        let failed = |operation, source| failure(&path, operation, size_bytes, source);
        let mut mode = choose_mode(&file, access, size_bytes)
            .map_err(|source| failed("choosing how to write it", source))?;
        let mut zeroed = write_zeroes(&file, mode, zeroed_bytes);
        if mode == IoMode::Direct
            && zeroed.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidInput)
        {
            // The read probe went through, the first real write is refused: not direct after all.
            mode = IoMode::Buffered;
            zeroed = direct::turn_off(&file).and_then(|()| write_zeroes(&file, mode, zeroed_bytes));
        }
        zeroed.map_err(|source| failed("writing zeroes", source))?;
        Ok(Self { file, path, mode, syncs_apart: AtomicBool::new(false) })
    }

    fn write_through(&self, slices: &[&[u8]], offset: u64) -> io::Result<()> {
        if !self.syncs_apart.load(Ordering::Relaxed) {
            let written = write_all(slices, offset, self.mode, |slices, offset| {
                system::write_through(&self.file, slices, offset)
            });
            match written {
                Err(error) if system::cannot_write_through(&error) => {
                    self.syncs_apart.store(true, Ordering::Relaxed);
                }
                outcome => return outcome,
            }
        }
        // A sync of the whole file covers more than was asked for, never less; and the bytes are
        // handed over anew, so that whatever made the first try fail is not taken for success.
        self.write(slices, offset)?;
        system::sync_data(&self.file)
    }

    fn write(&self, slices: &[&[u8]], offset: u64) -> io::Result<()> {
        write_all(slices, offset, self.mode, |slices, offset| {
            system::write(&self.file, slices, offset)
        })
    }

    /// Refuses a write that [`check`](Self::check) refuses; otherwise, its length in bytes.
    pub(crate) fn check_write(&self, slices: &[&[u8]], offset: u64) -> Result<u64> {
        let length = slices.iter().map(|slice| slice.len() as u64).fold(0, u64::saturating_add);
        let aligned = slices.iter().all(|slice| direct::is_aligned(slice));
        self.check("a write", offset, length, aligned)?;
        Ok(length)
    }

    /// Refuses what the kernel would call invalid without a reason, and what it would silently
    /// take for something else.
    fn check(&self, operation: &str, offset: u64, length: u64, aligned: bool) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        if end.is_none() {
            return Err(self.invalid(&format!(
                "{operation} of {length} bytes at offset {offset} goes beyond any file's end"
            )));
        }
        if self.mode == IoMode::Direct && !(aligned && direct::is_aligned_offset(offset)) {
            return Err(self.invalid(&format!(
                "{operation} of {length} bytes at offset {offset}: this file is open for direct \
                 I/O, where every buffer's address and length and the offset must be multiples \
                 of {DIRECT_BLOCK_BYTES}"
            )));
        }
        Ok(())
    }

    pub(crate) fn write_failed(&self, length: u64, source: io::Error) -> WalError {
        failure(&self.path, "writing", length, source)
    }

    /// Also a full disk is an `Io` error here: what the sync was to save may be gone, which is not
    /// the "nothing was accepted" of `StorageFull`.
    pub(crate) fn sync_failed(&self, source: io::Error) -> WalError {
        WalError::io(&self.path, "syncing", source)
    }

    fn invalid(&self, what: &str) -> WalError {
        WalError::InvalidArgument { what: format!("{}: {what}", self.path.display()) }
    }
}

/// Shared, so that another thread can have a hand in it while the owner waits.
impl StorageFile for Arc<OsFile> {
    fn mode(&self) -> IoMode {
        self.mode
    }

    fn size_bytes(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        let metadata =
            metadata.map_err(|source| WalError::io(&self.path, "reading its size", source))?;
        Ok(metadata.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.check("a read", offset, buffer.len() as u64, direct::is_aligned(buffer))?;
        let size_bytes = || self.file.metadata().map(|metadata| metadata.len());
        read_full(buffer, offset, self.mode, size_bytes, |buffer, offset| {
            system::read(&self.file, buffer, offset)
        })
        .map_err(|source| WalError::io(&self.path, "reading", source))
    }

    fn write_at(&self, slices: &[&[u8]], offset: u64, sync: WriteSync) -> Result<()> {
        let length = self.check_write(slices, offset)?;
        let written = match sync {
            WriteSync::None => self.write(slices, offset),
            WriteSync::Through => self.write_through(slices, offset),
        };
        written.map_err(|source| self.write_failed(length, source))
    }

    fn sync(&self) -> Result<()> {
        system::sync_data(&self.file).map_err(|source| self.sync_failed(source))
    }
}

impl fmt::Debug for OsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsFile")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// The error for a call that may need space: `StorageFull` if that is what was missing.
pub(crate) fn failure(
    path: impl Into<PathBuf>,
    operation: &'static str,
    needed_bytes: u64,
    source: io::Error,
) -> WalError {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            WalError::StorageFull { path: path.into(), operation, needed_bytes }
        }
        _ => WalError::io(path, operation, source),
    }
}

/// Sets `size_bytes` aside; says whether the file system could.
fn reserve(file: &File, path: &Path, size_bytes: u64) -> Result<bool> {
    if size_bytes == 0 {
        return Ok(true);
    }
    system::reserve(file, size_bytes)
        .map_err(|source| failure(path, "reserving its space", size_bytes, source))
}

/// Direct only if asked for, possible, and the file consists of whole blocks: the last, partial
/// one of any other file could not be written without making the file longer.
fn choose_mode(file: &File, access: Access, size_bytes: u64) -> io::Result<IoMode> {
    let wanted = access == Access::ReadWriteDirect && direct::is_aligned_offset(size_bytes);
    Ok(if wanted && direct::turn_on(file)? { IoMode::Direct } else { IoMode::Buffered })
}

fn write_zeroes(file: &File, mode: IoMode, size_bytes: u64) -> io::Result<()> {
    let mut offset = 0;
    while offset < size_bytes {
        let piece = usize::try_from(size_bytes - offset)
            .ok()
            .and_then(|rest| ZEROES.0.get(..rest))
            .unwrap_or(&ZEROES.0);
        write_all(&[piece], offset, mode, |slices, offset| system::write(file, slices, offset))?;
        offset = offset.saturating_add(piece.len() as u64);
    }
    Ok(())
}

/// How many slices go into one call: some systems take no more than 1024, and this many live on
/// the stack.
pub(crate) const SLICES_PER_CALL: usize = 64;

/// Calls `write` until all of `slices` is written.
///
/// An interrupted call is repeated, a short one continued, in direct mode from the last whole
/// block that it wrote. That is safe for writes that sync, too: the bytes are handed over anew,
/// so the call that returns `Ok` is one that wrote *and* synced them, whatever became of those
/// before.
fn write_all(
    slices: &[&[u8]],
    offset: u64,
    mode: IoMode,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut rest = slices;
    let mut offset = offset;
    // Bytes of `rest` that are written already.
    let mut written = 0;
    loop {
        while let Some((first, others)) = rest.split_first()
            && written >= first.len()
        {
            written -= first.len();
            rest = others;
        }
        if rest.is_empty() {
            return Ok(());
        }

        let mut call = [IoSlice::new(&[]); SLICES_PER_CALL];
        let mut count = 0;
        let mut asked = 0;
        for (place, slice) in call.iter_mut().zip(rest) {
            let skipped = if count == 0 { written } else { 0 };
            let slice = slice.get(skipped..).unwrap_or_default();
            *place = IoSlice::new(slice);
            count += 1;
            asked += slice.len();
        }
        let done = match write(call.get(..count).unwrap_or_default(), offset) {
            Ok(done) if done >= asked || mode == IoMode::Buffered => done,
            Ok(done) => whole_blocks(done),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if done == 0 {
            return Err(io::Error::new(
                ErrorKind::WriteZero,
                format!("the system wrote nothing of {asked} bytes at offset {offset}"),
            ));
        }
        written += done;
        offset = offset.saturating_add(done as u64);
    }
}

/// Calls `read` until `buffer` is full or the file ends; returns how much was read.
fn read_full(
    buffer: &mut [u8],
    offset: u64,
    mode: IoMode,
    size_bytes: impl Fn() -> io::Result<u64>,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        let rest = buffer.get_mut(filled..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(filled);
        }
        let place = offset.saturating_add(filled as u64);
        let count = match read(rest, place) {
            Ok(0) => return Ok(filled),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if mode == IoMode::Buffered || count.is_multiple_of(DIRECT_BLOCK_BYTES) {
            filled += count;
            continue;
        }
        // A direct read ended inside a block: that is the end of the file, or a short read that
        // can only be continued from the block's start.
        if place.saturating_add(count as u64) >= size_bytes()? {
            return Ok(filled + count);
        }
        if count < DIRECT_BLOCK_BYTES {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("the system read {count} bytes of a block at offset {place}"),
            ));
        }
        filled += whole_blocks(count);
    }
}

const fn whole_blocks(bytes: usize) -> usize {
    bytes - bytes % DIRECT_BLOCK_BYTES
}

/// Zero pieces are whole blocks, so that all but the last piece of a file end between blocks.
const _: () = assert!(whole_blocks(ZERO_PIECE_BYTES) == ZERO_PIECE_BYTES);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const BLOCK: usize = DIRECT_BLOCK_BYTES;

    /// A file in memory whose every call does as much as the script says.
    struct Scripted {
        bytes: Vec<u8>,
        /// Most bytes that each call moves, in turn; `None` is an interruption. Afterwards calls
        /// do all that is asked.
        script: Vec<Option<usize>>,
        /// Offset and length of each call.
        calls: Vec<(u64, usize)>,
    }

    impl Scripted {
        fn new(size: usize, script: &[Option<usize>]) -> Self {
            let script = script.iter().rev().copied().collect();
            Self { bytes: vec![0; size], script, calls: Vec::new() }
        }

        fn next(&mut self, offset: u64, asked: usize) -> io::Result<usize> {
            self.calls.push((offset, asked));
            match self.script.pop() {
                None => Ok(asked),
                Some(Some(limit)) => Ok(asked.min(limit)),
                Some(None) => Err(ErrorKind::Interrupted.into()),
            }
        }

        fn write(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let done = self.next(offset, all.len())?;
            let start = usize::try_from(offset).unwrap();
            self.bytes[start..start + done].copy_from_slice(&all[..done]);
            Ok(done)
        }

        fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let start = usize::try_from(offset).unwrap().min(self.bytes.len());
            let there = buffer.len().min(self.bytes.len() - start);
            let done = self.next(offset, there)?;
            buffer[..done].copy_from_slice(&self.bytes[start..start + done]);
            Ok(done)
        }
    }

    fn patterned(length: usize) -> Vec<u8> {
        (0..length).map(|index| u8::try_from(index % 251).unwrap() + 1).collect()
    }

    #[test]
    fn a_short_or_interrupted_write_is_continued_where_it_ended() {
        let bytes = patterned(1000);
        let script = [Some(1), None, Some(299), Some(2), None, None];
        let mut file = Scripted::new(1005, &script);
        let slices = [&bytes[..300], &[], &bytes[300..301], &bytes[301..]];
        write_all(&slices, 5, IoMode::Buffered, |slices, offset| file.write(slices, offset))
            .unwrap();
        assert_eq!(file.bytes[5..], bytes);
        assert_eq!(
            file.calls,
            [(5, 1000), (6, 999), (6, 999), (305, 700), (307, 698), (307, 698), (307, 698)]
        );
    }

    #[test]
    fn a_direct_write_that_ends_inside_a_block_goes_on_from_the_blocks_start() {
        let bytes = patterned(4 * BLOCK);
        let mut file = Scripted::new(5 * BLOCK, &[Some(BLOCK + 512), None, Some(2 * BLOCK)]);
        let slices = [&bytes[..BLOCK], &bytes[BLOCK..]];
        let offset = BLOCK as u64;
        write_all(&slices, offset, IoMode::Direct, |slices, offset| file.write(slices, offset))
            .unwrap();
        assert_eq!(file.bytes[BLOCK..], bytes);
        for (offset, asked) in file.calls {
            assert!(direct::is_aligned_offset(offset));
            assert!(asked.is_multiple_of(BLOCK));
        }
    }

    #[test]
    fn a_write_that_gets_nowhere_ends_in_an_error() {
        for (mode, limit) in [(IoMode::Buffered, 0), (IoMode::Direct, 512)] {
            let bytes = patterned(BLOCK);
            let mut file = Scripted::new(BLOCK, &[Some(limit); 3]);
            let error = write_all(&[&bytes], 0, mode, |slices, offset| file.write(slices, offset))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WriteZero);
            assert_eq!(file.calls.len(), 1);
        }
    }

    #[test]
    fn a_failed_write_is_not_tried_again() {
        let mut calls = 0;
        let error = write_all(&[b"bytes"], 0, IoMode::Buffered, |_, _| {
            calls += 1;
            Err(io::Error::other("the device is gone"))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "the device is gone");
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_short_or_interrupted_read_is_continued_where_it_ended() {
        let mut file = Scripted::new(1000, &[Some(1), None, Some(700)]);
        file.bytes = patterned(1000);
        let expected = file.bytes[10..].to_vec();
        let mut buffer = [0; 1200];
        let count =
            read_full(&mut buffer, 10, IoMode::Buffered, || unreachable!(), |b, o| file.read(b, o))
                .unwrap();
        assert_eq!(buffer[..count], expected);
        assert_eq!(count, 990);
    }

    #[test]
    fn a_short_direct_read_goes_on_from_the_blocks_start() {
        let size = 3 * BLOCK + 100;
        let file = RefCell::new(Scripted::new(size, &[Some(BLOCK + 512), None, Some(BLOCK)]));
        file.borrow_mut().bytes = patterned(size);
        let mut buffer = vec![0; 6 * BLOCK];
        let count = read_full(
            &mut buffer,
            0,
            IoMode::Direct,
            || Ok(size as u64),
            |buffer, offset| {
                assert!(direct::is_aligned_offset(offset));
                file.borrow_mut().read(buffer, offset)
            },
        )
        .unwrap();
        assert_eq!(count, size);
        assert_eq!(buffer[..count], file.borrow().bytes);
    }

    #[test]
    fn a_direct_read_that_gets_nowhere_ends_in_an_error() {
        let mut file = Scripted::new(2 * BLOCK, &[Some(512)]);
        let mut buffer = vec![0; BLOCK];
        let size = || Ok(2 * BLOCK as u64);
        let error =
            read_full(&mut buffer, 0, IoMode::Direct, size, |b, o| file.read(b, o)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_whose_system_cannot_write_through_writes_and_syncs_apart() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let file = Arc::new(OsFile::zeroed(file, path, Access::ReadWrite, 100).unwrap());
        file.syncs_apart.store(true, Ordering::Relaxed);
        file.write_at(&[b"by", b"tes"], 7, WriteSync::Through).unwrap();
        let mut buffer = [0; 5];
        assert_eq!(file.read_at(&mut buffer, 7).unwrap(), 5);
        assert_eq!(&buffer, b"bytes");
    }

    #[test]
    fn a_full_disk_and_a_full_quota_are_both_storage_full() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = failure("/log/file", "writing", 17, kind.into());
            assert!(error.is_storage_full(), "{error}");
        }
        let error = failure("/log/file", "writing", 17, ErrorKind::PermissionDenied.into());
        assert!(matches!(error, WalError::Io { .. }));
    }
}
