//! A write-ahead log for thread-per-core Rust programs.
//!
//! Every core appends to its own segments without a lock, one sync makes many entries durable,
//! and recovery gives back exactly what was promised, in order, with a report of what it found.
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("log");
//! use laminar_wal::WalOptions;
//!
//! // Open, or make, a log for one core.
//! let (wal, _) = WalOptions::new(&path).cores(1).open()?;
//! let mut writer = wal.writer(0)?; // move it to its core's thread
//! writer.append_put(b"key", b"value")?; // in memory
//! writer.sync()?; // durable
//! drop(writer);
//! wal.close()?;
//!
//! // After a crash, or a clean close as here: everything that was synced comes back.
//! let (_wal, recovery) = WalOptions::new(&path).cores(1).open()?;
//! let mut values = Vec::new();
//! recovery.for_each(|entry| values.extend(entry.value().map(<[u8]>::to_vec)))?;
//! assert_eq!(values, [b"value"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to read on
//!
//! - [`WalOptions`] opens a log, [`Wal`] hands out its writers, [`CoreWalWriter`] appends.
//! - [`Wal::begin_checkpoint`] begins a [`PendingCheckpoint`]: completed, it gives space back.
//! - [`Recovery`] replays, [`RecoveryReport`] says what was found.
//! - [`read()`] and [`verify`] look at a log without touching it.
//! - [`WalError`] is every way in which any of it can fail.
//! - In the repository: `docs/ARCHITECTURE.md` for the promises, `docs/durability.md` for what
//!   survives what, `docs/format.md` for the bytes, `docs/operations.md` for who operates a log; and
//!   `examples/stream_engine` for an engine that makes checkpoints and comes back from them.

mod options;
mod reading;

pub use options::WalOptions;
pub use reading::{read, verify};
pub use wal_entry::{
    DuplicateSource, EntryView, Offsets, OffsetsView, OperationView, ReplayOrder, WalEntry,
    WalOperation,
};
pub use wal_format::{Checkpoint, CheckpointCore, LogId, SourceOffset};
pub use wal_recovery::{
    CheckpointReport, Committed, CoreReport, Ending, EndingKind, Entries, Label, Loss,
    RecoveredState, Recovery, RecoveryMode, RecoveryReport, RecoveryTarget, ReplayPin,
    ReplayProgress, SegmentEnd, SegmentReader, VerifyReport,
};
pub use wal_storage::{
    Corruption, OsStorage, OsStorageOptions, ProvenBy, Result, Storage, WalError,
};
pub use wal_writer::{
    CheckpointArrival, CheckpointDetails, CoreDiskUsage, CoreSelection, CoreWalWriter, CoreWriters,
    DiskUsage, EpochReached, EpochWatch, GroupCommit, LogOptions, PendingCheckpoint,
    PendingRecovery, Pin, PinReport, Reached, SharedWriter, Stalls, SyncRequest, SyncTicket,
    Synced, SyncedWatch, Wal, WriteBatch,
};

/// Compiles and runs the examples of both READMEs and of the documents that have some.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../docs/migrating-from-laminardb.md")]
struct DocumentDoctests;
