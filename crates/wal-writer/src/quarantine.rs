//! Copies of what is dropped though it was there.

use wal_format::{CoreDirectory, SegmentFile};
use wal_recovery::{QUARANTINE_DIRECTORY, quarantine_name};
use wal_storage::{Access, Result, Storage, WriteSync};

/// How much is copied at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Copies segment files, named by core and number, to quarantine; all copies are durable when this
/// returns.
///
/// # Errors
///
/// [`WalError::StorageFull`](wal_storage::WalError::StorageFull); whatever the storage says. Copies
/// that were made stay, and are made anew by the next attempt.
pub(crate) fn copy(storage: &dyn Storage, segments: &[(u16, u64)]) -> Result<()> {
    if segments.is_empty() {
        return Ok(());
    }
    storage.create_directory(QUARANTINE_DIRECTORY)?;
    storage.sync_directory("")?;
    for &(core, segment_id) in segments {
        copy_one(storage, core, segment_id)?;
    }
    storage.sync_directory(QUARANTINE_DIRECTORY)
}

fn copy_one(storage: &dyn Storage, core: u16, segment_id: u64) -> Result<()> {
    let name = quarantine_name(core, segment_id);
    let unfinished = format!("{name}.tmp");
    match storage.remove(&unfinished) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let original = format!("{}/{}", CoreDirectory(core), SegmentFile(segment_id));
    let source = storage.open(&original, Access::Read)?;
    let size_bytes = source.size_bytes()?;
    let target = storage.create_reserved(&unfinished, size_bytes, Access::ReadWrite)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let read_bytes = source.read_at(&mut piece, at)?;
        let Some(read) = piece.get(..read_bytes).filter(|read| !read.is_empty()) else { break };
        if read.iter().any(|&byte| byte != 0) {
            target.write_at(&[read], at, WriteSync::None)?;
        }
        at += read_bytes as u64;
    }
    target.sync()?;
    // A copy that was made when more of the same segment was kept is there until then.
    storage.rename(&unfinished, &name)
}
