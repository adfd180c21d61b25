//! The operating system as laminar-wal sees it: files, syncs, locks, jobs, time.
//!
//! You probably want the facade crate `laminar-wal`; this crate is for those who bring a disk of
//! their own, real or simulated.
//!
//! - [`Storage`] is a directory that holds one log, [`StorageFile`] one file in it. Both are used
//!   through `dyn`, once per batch and never per append.
//! - [`OsStorage`] is the real one. `wal-sim` has one that loses power on request.
//! - [`WalError`] is the one error type of all laminar-wal crates that use `std`.
//!
//! What this crate knows nothing of: records, entries, segments. It moves bytes.
//!
//! # Example
//!
//! ```
//! use wal_storage::{Access, OsStorage, Storage, WriteSync};
//!
//! # let scratch = tempfile::tempdir()?;
//! # let directory = scratch.path().join("log");
//! let storage = OsStorage::create(directory)?;
//! let _lock = storage.lock()?;
//! let file = storage.create("hello.tmp", 4096, Access::ReadWrite)?;
//! file.write_at(&[b"hello"], 0, WriteSync::Through)?;
//! storage.rename("hello.tmp", "hello")?;
//! storage.sync_directory("")?; // only now does the name survive power loss
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod direct;
mod directory;
mod errand;
mod error;
mod file;
mod helpers;
mod jobs;
mod lock;
mod name;
mod os;
mod storage;
mod system;

pub use direct::DIRECT_BLOCK_BYTES;
pub use error::{Corruption, ProvenBy, Result, WalError};
pub use os::{OsStorage, OsStorageOptions};
pub use storage::{
    Access, DirectoryLock, IoMode, Job, JobKind, Listed, ListedKind, LockGuard, Request, Storage,
    StorageFile, WriteSync,
};
