//! A deterministic simulated disk for testing code that embeds laminar-wal: crashes, faults, time.
//!
//! [`SimStorage`] stands in for the directory that a log lives in. It does what a file system may
//! do and a friendly one hardly ever does: it forgets un-synced bytes sector by sector, brings
//! back names without their bytes, fails one sync and says `Ok` to the next, runs full in the
//! middle of a write. All of it comes from a seed, so that a failing test fails again.
//!
//! New here, with a program to test? [`guide`] has a crash test of twenty lines and all that
//! follows from it. What follows here is the disk by itself.
//!
//! # Write, crash, look
//!
//! ```
//! use wal_sim::{CrashPlan, SimStorage};
//! use wal_storage::{Access, Result, Storage, WriteSync};
//!
//! fn main() -> Result<()> {
//!     let storage = SimStorage::new(42);
//!     let file = storage.create("notes", 8192, Access::ReadWrite)?;
//!     file.write_at(&[b"kept"], 0, WriteSync::None)?;
//!     file.sync()?;
//!     storage.sync_directory("")?; // without this the name itself could be lost
//!     file.write_at(&[b"lost?"], 4096, WriteSync::None)?;
//!
//!     // The worst case: nothing survives but what was synced.
//!     let after = storage.crash(CrashPlan::lose_everything_unsynced());
//!     assert_eq!(after.read_file("notes")?[..4], *b"kept");
//!     assert_eq!(after.read_file("notes")?[4096..4101], [0; 5]);
//!
//!     // Many crashes from one moment: each state is one that power loss could leave.
//!     for seed in 0..100 {
//!         let after = storage.crash(CrashPlan::random(seed));
//!         assert_eq!(after.read_file("notes")?[..4], *b"kept");
//!         // ... open your program's log on `after` and check what it promised ...
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # A crash at every operation
//!
//! Run a workload once to count its operations, then once for each of them with
//! [`halt_at`](SimStorage::halt_at), and recover from what [`crash`](SimStorage::crash) leaves:
//!
//! ```
//! # use wal_sim::{CrashPlan, SimStorage};
//! # use wal_storage::{Access, Result, Storage, WriteSync};
//! fn workload(storage: &SimStorage) -> Result<()> {
//!     let file = storage.create("new", 4096, Access::ReadWrite)?;
//!     file.write_at(&[b"complete"], 0, WriteSync::None)?;
//!     file.sync()?;
//!     storage.rename("new", "current")?;
//!     storage.sync_directory("")
//! }
//!
//! let counted = SimStorage::new(1);
//! workload(&counted).unwrap();
//! for n in 0..counted.operations() {
//!     let storage = SimStorage::new(1);
//!     storage.halt_at(n);
//!     workload(&storage).unwrap_err();
//!     for seed in 0..20 {
//!         let after = storage.crash(CrashPlan::random(seed));
//!         if let Ok(bytes) = after.read_file("current") {
//!             assert_eq!(bytes[..8], *b"complete");
//!         }
//!     }
//! }
//! ```
//!
//! # The parts
//!
//! - [`crash`]: what power loss may leave and what it may not; [`kill`](SimStorage::kill) ends
//!   the process only and keeps the page cache.
//! - [`Fault`]: the n-th sync fails, the disk is broken from now on, a write stops halfway;
//!   [`set_free_bytes`](SimStorage::set_free_bytes) makes the disk full.
//! - [Damage](SimStorage::flip_bit): bits flip, blocks go astray or stay as they were, files
//!   vanish. And the other way round: [`content_fingerprint`](SimStorage::content_fingerprint) proves that nothing
//!   changed.
//! - [Jobs](SimStorage::run_jobs) and [time](SimStorage::advance): nothing runs and no time
//!   passes unless the test says so.
//!
//! What this crate knows nothing of: records, entries, segments. It simulates a machine, and
//! never a log.

mod clock;
mod content;
pub mod crash;
mod damage;
mod disk;
mod fault;
mod file;
pub mod fixture;
#[doc = include_str!("../docs/guide.md")]
pub mod guide {}
mod jobs;
mod machine;
mod names;
mod operations;
mod random;
mod state;

pub use crash::{CrashPlan, Granularity, Model};
pub use fault::{Fault, Operation, OperationKind, Part};
pub use machine::SimStorage;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
