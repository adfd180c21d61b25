//! Reading a log without opening it for writing: no lock is taken and nothing is changed.

use std::path::Path;
use std::sync::Arc;

use wal_recovery::{Recovery, RecoveryMode, VerifyReport};
use wal_storage::{OsStorage, Result, Storage};

/// Recovers the log in `directory` to be replayed, as opening it would, and changes nothing.
///
/// With [`RecoveryMode::PointInTime`] or [`Salvage`](RecoveryMode::Salvage) that is what is left in
/// spite of damage; the [report](Recovery::report) names what is not.
///
/// Beside a running writer this may fail where the writer is at work; to follow a live log is
/// not what it is for.
///
/// # Errors
///
/// As [`WalOptions::open`](crate::WalOptions::open), but for locks and options; a directory
/// that is not there is an [`Io`](crate::WalError::Io) error.
pub fn read(directory: impl AsRef<Path>, mode: RecoveryMode) -> Result<Recovery> {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::open(directory)?);
    Ok(wal_recovery::recover(&storage, mode)?.replay(&storage))
}

/// Reads every byte of the log in `directory` that counts, and reports all damage, not just the
/// first. Changes nothing.
///
/// # Errors
///
/// If the directory cannot be read at all. Damage is not an error here: it is the report.
pub fn verify(directory: impl AsRef<Path>) -> Result<VerifyReport> {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::open(directory)?);
    wal_recovery::verify(&storage)
}
