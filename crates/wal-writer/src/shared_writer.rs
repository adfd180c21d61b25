//! One core's log for many threads and tasks.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use wal_entry::{Offsets, OperationRef};
use wal_storage::Result;

use crate::core_log::CoreLog;
use crate::open_batch::{OpenBatch, Room, record_bytes};
use crate::queue::Wanted;
use crate::ticket::SyncTicket;
use crate::watch::SyncedWatch;
use crate::write_batch::WriteBatch;
use crate::writer::Stalls;

/// Appends to one core's log from any number of threads and tasks: clone it for each of them.
///
/// Each append returns a ticket for its own entry, and all that came before it. Whoever waits for
/// one makes durable whatever has been appended by then, by everybody: the more clients, the more
/// entries share a sync.
///
/// Order and promises are those of [`CoreWalWriter`](crate::CoreWalWriter). An append takes a short
/// lock; it waits for the disk only if all buffers are in flight, or for a segment that is not
/// ready. Dropping the last clone is as dropping a `CoreWalWriter`.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("log");
/// use wal_writer::CoreWalWriter;
///
/// let writer = CoreWalWriter::new(0, &path)?.into_shared();
/// std::thread::scope(|scope| {
///     for client in 0..8_u8 {
///         let writer = writer.clone();
///         scope.spawn(move || writer.append_put(&[client], b"value")?.wait());
///     }
/// });
/// assert_eq!(writer.sequence(), 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedWriter {
    log: Arc<CoreLog>,
}

impl SharedWriter {
    /// For a seat that is shared already, this handle counted.
    pub(crate) const fn of_shared_seat(log: Arc<CoreLog>) -> Self {
        Self { log }
    }

    // ---- appending ----

    /// Appends "`key` has `value` now".
    ///
    /// # Errors
    ///
    /// As [`CoreWalWriter::append_put`](crate::CoreWalWriter::append_put).
    pub fn append_put(&self, key: &[u8], value: &[u8]) -> Result<SyncTicket> {
        self.append_operation(OperationRef::Put { key, value })
    }

    /// Appends "`key` is gone".
    ///
    /// # Errors
    ///
    /// As [`CoreWalWriter::append_put`](crate::CoreWalWriter::append_put).
    pub fn append_delete(&self, key: &[u8]) -> Result<SyncTicket> {
        self.append_operation(OperationRef::Delete { key })
    }

    /// Appends a marker for the checkpoint `id`.
    ///
    /// # Errors
    ///
    /// As [`CoreWalWriter::append_put`](crate::CoreWalWriter::append_put).
    pub fn append_checkpoint(&self, id: u64) -> Result<SyncTicket> {
        self.append_operation(OperationRef::Checkpoint { id })
    }

    /// Appends how far each source has been read, and the event time reached.
    ///
    /// # Errors
    ///
    /// As [`CoreWalWriter::append_put`](crate::CoreWalWriter::append_put).
    pub fn append_commit(&self, offsets: &Offsets, watermark: Option<i64>) -> Result<SyncTicket> {
        self.append_operation(OperationRef::Commit { offsets, watermark })
    }

    /// Appends the barrier of the current epoch and leaves the epoch, as
    /// [`CoreWalWriter::append_epoch_barrier`](crate::CoreWalWriter::append_epoch_barrier) does.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn append_epoch_barrier(&self) -> Result<SyncTicket> {
        let record_bytes = record_bytes(OperationRef::EpochBarrier { epoch: 0 });
        let ticket = self.append_with(record_bytes, OpenBatch::append_epoch_barrier)?;
        self.log.shared.bell.ring();
        Ok(ticket)
    }

    /// Appends all operations of `batch` in one record: after a crash all of them are there, or
    /// none. An empty batch appends nothing.
    ///
    /// # Errors
    ///
    /// As [`CoreWalWriter::append_put`](crate::CoreWalWriter::append_put).
    pub fn append_batch(&self, batch: &WriteBatch) -> Result<SyncTicket> {
        self.append_with(batch.record_bytes(), |open_batch, log| {
            open_batch.append_batch(log, batch)
        })
    }

    // ---- durability ----

    /// Makes everything appended so far durable, by whomever.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`](wal_storage::WalError::Poisoned).
    pub fn sync(&self) -> Result<()> {
        self.log.queue.check()?;
        let goal = self.log.with_batch_in_seat(|open_batch| Ok(self.log.goal(open_batch)))?;
        self.log.lead_to(goal, Wanted::Now, None).map(|_| ())
    }

    /// How far the core's log is durable, to be looked at from anywhere.
    #[must_use]
    pub fn watch(&self) -> SyncedWatch {
        SyncedWatch::new(&self.log)
    }

    // ---- looking ----

    /// The core whose log this is.
    #[must_use]
    pub fn core_id(&self) -> u16 {
        self.log.core
    }

    /// The log's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.log.shared.storage.path()
    }

    /// Where the next record went at the moment of asking.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.look(OpenBatch::position)
    }

    /// The sequence that the next entry had at the moment of asking.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.look(OpenBatch::sequence)
    }

    /// The epoch that entries get.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.look(OpenBatch::epoch)
    }

    /// Raises the epoch that later entries get, from whichever clone.
    ///
    /// # Errors
    ///
    /// [`WalError::EpochRegressed`](wal_storage::WalError::EpochRegressed) if `epoch` is below the current one.
    pub fn set_epoch(&self, epoch: u64) -> Result<()> {
        self.log.with_batch_in_seat(|open_batch| open_batch.set_epoch(&self.log, epoch))
    }

    /// How often an append had to wait: for a buffer, and for a segment that was not ready.
    #[must_use]
    pub fn stalls(&self) -> Stalls {
        Stalls::of(&self.log)
    }

    fn append_operation(&self, operation: OperationRef<'_>) -> Result<SyncTicket> {
        self.append_with(record_bytes(operation), |open_batch, log| {
            let epoch = open_batch.epoch();
            open_batch.append(log, epoch, None, operation, Room::Ordinary)
        })
    }

    pub(crate) const fn log(&self) -> &Arc<CoreLog> {
        &self.log
    }

    fn append_with(
        &self,
        record_bytes: usize,
        append: impl Fn(&mut OpenBatch, &Arc<CoreLog>) -> Result<u64>,
    ) -> Result<SyncTicket> {
        let (goal, _) = self.log.append_in_seat(record_bytes, append)?;
        Ok(SyncTicket::new(&self.log, goal))
    }

    /// What the open batch says of itself.
    fn look(&self, look: impl FnOnce(&OpenBatch) -> u64) -> u64 {
        // It is there for as long as there is a handle.
        self.log.with_batch_in_seat(|open_batch| Ok(look(open_batch))).unwrap_or_default()
    }
}

impl Clone for SharedWriter {
    fn clone(&self) -> Self {
        self.log.share_seat_again();
        Self { log: Arc::clone(&self.log) }
    }
}

impl Drop for SharedWriter {
    fn drop(&mut self) {
        self.log.unshare_seat();
    }
}

impl fmt::Debug for SharedWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWriter")
            .field("core_id", &self.core_id())
            .field("path", &self.path())
            .field("position", &self.position())
            .field("epoch", &self.epoch())
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}
