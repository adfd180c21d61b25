//! One writing process per directory.
//!
//! On Unix the directory itself is locked (`flock` on a descriptor of its own), so that no file
//! is needed, none can be left behind, and none can be deleted under the holder. Locks of two
//! descriptors exclude each other also inside one process. The operating system frees the lock of
//! a process that ends, however it ends.
//!
//! Elsewhere directories cannot be locked, and a file named `LOCK` is: one that holds nothing
//! else, because a lock of Windows also keeps everybody else from *reading* the locked file, and
//! readers of a log need no lock. Never run by us.

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;

use crate::directory::Directory;
use crate::error::{Result, WalError};
use crate::storage::{DirectoryLock, LockGuard};

pub(crate) fn take(directory: &Directory) -> Result<DirectoryLock> {
    let held = directory.open_for_lock()?;
    let path = directory.path().to_path_buf();
    match held.try_lock() {
        Ok(()) => Ok(Arc::new(HeldLock { held, path })),
        Err(TryLockError::WouldBlock) => Err(WalError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(WalError::io(path, "locking", source)),
    }
}

struct HeldLock {
    held: File,
    path: PathBuf,
}

impl LockGuard for HeldLock {}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // Closing the descriptor would do, but for a child process that another thread is just
        // starting: until it executes its program it has a copy of the descriptor, and with it
        // the lock. Unlocking frees it whoever has copies. If it fails, closing is what is left.
        let _ = self.held.unlock();
    }
}

impl fmt::Debug for HeldLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldLock").field("path", &self.path).finish_non_exhaustive()
    }
}
