//! Making what was recovered durable before anything is built on it.

use wal_entry::RecordBuffer;
use wal_format::{BLOCK_BYTES, CoreDirectory, SEGMENT_HEADER_BYTES, START_OFFSET, SegmentFile};
use wal_recovery::RecoveredCore;
use wal_storage::{Access, Result, Storage, StorageFile, WriteSync};

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
    let Some(adoption) = &core.adoption else {
        return Ok(());
    };
    let Some(span) = core.spans.iter().find(|span| span.segment_id == adoption.segment_id) else {
        return Ok(());
    };
    let place = |position: u64| SEGMENT_HEADER_BYTES + (position - span.base_position);
    let name = format!("{}/{}", CoreDirectory(core.core), SegmentFile(adoption.segment_id));
    let file = storage.open(&name, Access::ReadWriteDirect)?;
    let mut buffer = RecordBuffer::new();
    rewrite(&*file, &mut buffer, START_OFFSET, SEGMENT_HEADER_BYTES)?;
    rewrite(&*file, &mut buffer, place(adoption.from_position), place(adoption.to_position))?;
    file.sync()
}

/// How much is read and written again at once.
const PIECE_BYTES: u64 = 256 * 1024;

/// Writes the blocks that hold the bytes `from..to` of the file again.
fn rewrite(file: &dyn StorageFile, buffer: &mut RecordBuffer, from: u64, to: u64) -> Result<()> {
    let block_bytes = BLOCK_BYTES as u64;
    let mut at = from - from % block_bytes;
    let end = to.next_multiple_of(block_bytes);
    while at < end {
        let piece = (end - at).min(PIECE_BYTES);
        buffer.clear();
        buffer.resize(usize::try_from(piece).unwrap_or(0), 0);
        let read = file.read_at(buffer, at)?;
        // A segment's file is whole blocks, so only its end cuts a piece short.
        let whole = read - read % BLOCK_BYTES;
        let bytes = buffer.get(..whole).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        file.write_at(&[bytes], at, WriteSync::None)?;
        at += whole as u64;
    }
    Ok(())
}
