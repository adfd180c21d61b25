//! Writing laminar-wal: per-core writers, the leader, segments, cuts.
//!
//! You probably want the facade crate `laminar-wal`. Here is how a batch of entries travels:
//!
//! 1. [`CoreWalWriter`] serializes entries straight into the *open batch*, which it owns alone.
//! 2. A sync, or a full buffer, closes the batch: it moves to the *queue*. Full ones are written by
//!    the background while the appender goes on.
//! 3. Whoever takes the *device side* is the leader: it writes closed batches with one call, syncs
//!    if somebody waits, and says how far the log is durable.
//!
//! Around it: segments are prepared ahead and recycled, a new opening adopts what was recovered
//! and starts a new segment, cuts go through the manifest.

mod adopt;
mod batch;
mod bell;
mod block_on;
mod checkpoint;
mod committer;
mod core_log;
mod cut;
mod device;
mod directory_hold;
mod disk_usage;
mod epochs;
mod external_sync;
mod group_commit;
mod header_blocks;
mod lead;
mod manifest_store;
mod observer;
mod open_batch;
mod options;
mod pending_recovery;
mod quarantine;
mod queue;
mod release;
#[cfg(all(test, shuttle))]
mod schedules;
mod segments;
mod shared_writer;
mod spans;
mod sync;
mod ticket;
mod wait;
mod wal;
mod watch;
mod write_batch;
mod writer;
mod writers;

pub use checkpoint::{CheckpointArrival, CheckpointDetails, PendingCheckpoint};
pub use disk_usage::{CoreDiskUsage, DiskUsage};
pub use epochs::{EpochReached, EpochWatch};
pub use external_sync::{SyncRequest, Synced};
pub use group_commit::GroupCommit;
pub use options::LogOptions;
pub use pending_recovery::PendingRecovery;
pub use release::{Pin, PinReport};
pub use shared_writer::SharedWriter;
pub use ticket::SyncTicket;
pub use wal::{CoreSelection, Wal};
pub use watch::{Reached, SyncedWatch};
pub use write_batch::WriteBatch;
pub use writer::{CoreWalWriter, Stalls};
pub use writers::CoreWriters;
