//! What targets ask of the simulated disk.

use std::sync::Arc;

use wal_sim::{OperationKind, SimStorage};
use wal_storage::Storage;

/// The disk as programs see it.
pub(crate) fn storage(disk: &SimStorage) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

/// How many operations have begun that could change something, syncs included: equal before and
/// after something means that it did not even try.
pub(crate) fn changes(disk: &SimStorage) -> u64 {
    let kinds = OperationKind::ALL.into_iter().filter(|kind| kind.is_change());
    kinds.map(|kind| disk.operations_of(kind)).sum()
}

/// How many bytes all files hold together.
pub(crate) fn file_bytes(disk: &SimStorage) -> u64 {
    let files = disk.names().into_iter().filter_map(|name| disk.read_file(&name).ok());
    files.map(|bytes| bytes.len() as u64).sum()
}
