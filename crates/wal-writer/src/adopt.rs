//! Making what was recovered durable before anything is built on it.

use std::io;
use std::path::PathBuf;

use wal_entry::RecordBuffer;
use wal_format::{BLOCK_BYTES, CoreDirectory, SEGMENT_HEADER_BYTES, START_OFFSET, SegmentFile};
use wal_recovery::RecoveredCore;
use wal_storage::{Access, Result, Storage, StorageFile, WalError, WriteSync};

/// Writes the entries that nothing proves durable again, in place, as they are, with the start
/// and vouch blocks of their segment, and syncs.
///
/// After a crash of the process alone, or a failed sync, they may be in the page cache only, and
/// a sync without a write would not bring them to the disk.
///
/// # Errors
///
/// Whatever the storage says; the log must not be opened then.
pub(crate) fn adopt(storage: &dyn Storage, core: &RecoveredCore) -> Result<()> {
    let (Some(adoption), Some(span)) = (&core.adoption, core.spans.last()) else {
        return Ok(());
    };
    let place = |position: u64| SEGMENT_HEADER_BYTES + (position - span.segment_base_position);
    let name = format!("{}/{}", CoreDirectory(core.core), SegmentFile(adoption.segment_id));
    let rewriting = Rewriting {
        path: storage.path().join(&name),
        // Read as recovery read it: after a sync that failed, the disk may hold other bytes than
        // the page cache, and it is those of the cache that were judged.
        source: storage.open(&name, Access::Read)?,
        target: storage.open(&name, Access::ReadWriteDirect)?,
    };
    if cfg!(wal_fault = "adopting_without_rewriting") {
        // Breaks promise 1: after a sync that failed, this one has nothing to bring to the disk.
        return rewriting.target.sync();
    }
    let mut buffer = RecordBuffer::new();
    rewriting.rewrite(&mut buffer, START_OFFSET, SEGMENT_HEADER_BYTES)?;
    let (from, to) = (place(adoption.from_position), place(adoption.to_position));
    rewriting.rewrite(&mut buffer, from, to)?;
    rewriting.target.sync()
}

/// How much is read and written again at once.
const PIECE_BYTES: u64 = 256 * 1024;

/// One file, open twice.
struct Rewriting {
    path: PathBuf,
    source: Box<dyn StorageFile>,
    target: Box<dyn StorageFile>,
}

impl Rewriting {
    /// Writes the blocks that hold the bytes `from..to` of the file again.
    fn rewrite(&self, buffer: &mut RecordBuffer, from: u64, to: u64) -> Result<()> {
        let block_bytes = BLOCK_BYTES as u64;
        let mut at = from - from % block_bytes;
        let end = to.next_multiple_of(block_bytes);
        while at < end {
            let piece = (end - at).min(PIECE_BYTES);
            buffer.clear();
            buffer.resize(usize::try_from(piece).unwrap_or(0), 0);
            let read = self.source.read_at(buffer, at)?;
            if read as u64 != piece {
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(WalError::io(&self.path, "reading what is to be adopted", source));
            }
            self.target.write_at(&[buffer], at, WriteSync::None)?;
            at += piece;
        }
        Ok(())
    }
}
