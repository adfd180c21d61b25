//! The writer of one core's log: what a core's thread holds and appends with.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use wal_entry::{Offsets, OperationRef, WalEntry, WalOperation};
use wal_recovery::Recovery;
use wal_storage::{OsStorage, Result, Storage, WalError};

use crate::core_log::CoreLog;
use crate::cut::{self, PlannedCut};
use crate::external_sync::{SyncRequest, Synced};
use crate::open_batch::{OpenBatch, Room, epoch_behind};
use crate::options::LogOptions;
use crate::queue::{Goal, Wanted};
use crate::shared_writer::SharedWriter;
use crate::ticket::SyncTicket;
use crate::wal::{CoreSelection, Wal};
use crate::watch::SyncedWatch;
use crate::write_batch::WriteBatch;

/// Appends to one core's log. `Send`, but made for one thread at a time: an append takes no lock.
///
/// What is appended is in memory until [`sync`](Self::sync), or a buffer is full. Dropping the
/// writer hands everything appended over to be written; it becomes durable soon after, or when
/// the log is closed, but nobody is told.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("log");
/// use wal_writer::CoreWalWriter;
///
/// let mut writer = CoreWalWriter::new(0, &path)?;
/// let position = writer.append_put(b"key", b"value")?;
/// assert_eq!((position, writer.synced_position()), (0, 0));
/// writer.sync()?; // durable from here on
/// assert_eq!(writer.synced_position(), writer.position());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CoreWalWriter {
    log: Arc<CoreLog>,
    open_batch: OpenBatch,
    is_given_back: bool,
    synced_position: u64,
    synced_sequence: u64,
}

impl CoreWalWriter {
    /// Opens the log of one core in the directory `path`, or makes it, and goes on behind what is
    /// valid there. For several cores in one directory there is `Wal` in the crate `laminar-wal`.
    ///
    /// What is found is durable when this returns, and counts as synced. Position, epoch and
    /// sequence go on from it; all three are 0 only in an empty log.
    ///
    /// # Errors
    ///
    /// [`WalError::Locked`]; everything that [recovery](wal_recovery::recover) reports;
    /// [`WalError::InvalidArgument`] if the directory holds a log of other cores.
    pub fn new(core_id: u16, path: &Path) -> Result<Self> {
        let storage = Arc::new(OsStorage::create(path)?);
        Self::with_storage(core_id, storage, LogOptions::default()).map(|(writer, _)| writer)
    }

    /// As [`new`](Self::new), on a storage of the caller's and with options, and with what was
    /// recovered.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), and [`WalError::InvalidArgument`] for unusable options.
    pub fn with_storage(
        core_id: u16,
        storage: Arc<dyn Storage>,
        options: LogOptions,
    ) -> Result<(Self, Recovery)> {
        let (log, recovery) = Wal::open(storage, options, CoreSelection::One(core_id))?;
        let writer = log.writer(core_id)?;
        Ok((writer, recovery))
    }

    /// Opens the log as [`new`](Self::new) does and cuts it back to `position`, a record
    /// boundary: what follows is gone for good, durably, when this returns.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new) and [`truncate`](Self::truncate); nothing has been cut then.
    pub fn open_at(core_id: u16, path: &Path, position: u64) -> Result<Self> {
        // A mistyped path must not become a log.
        let storage = if position == 0 { OsStorage::create(path) } else { OsStorage::open(path) };
        let options = LogOptions::default();
        let (mut writer, _) = Self::with_storage(core_id, Arc::new(storage?), options)?;
        writer.truncate(position)?;
        Ok(writer)
    }

    /// Takes the core's writer; what an earlier one left is durable when this returns.
    pub(crate) fn take(log: &Arc<CoreLog>) -> Result<Self> {
        let open_batch = log.take_seat()?;
        let mut writer = Self {
            log: Arc::clone(log),
            synced_position: 0,
            synced_sequence: 0,
            open_batch,
            is_given_back: false,
        };
        writer.sync()?;
        Ok(writer)
    }

    // ---- appending ----

    /// Appends "`key` has `value` now" and returns the record's position.
    ///
    /// The entry is in the writer's buffer; it survives a crash only after [`sync`](Self::sync).
    /// Neither allocates nor touches the disk, unless a buffer or a segment is full.
    ///
    /// # Errors
    ///
    /// [`WalError::RecordTooLarge`]; [`WalError::StorageFull`], or another error of the storage, if
    /// the next segment cannot be had; [`WalError::Poisoned`]. Nothing was appended then, position and sequence are as they were.
    #[inline]
    pub fn append_put(&mut self, key: &[u8], value: &[u8]) -> Result<u64> {
        self.append_operation(OperationRef::Put { key, value })
    }

    /// Appends "`key` is gone" and returns the record's position.
    ///
    /// # Errors
    ///
    /// As [`append_put`](Self::append_put).
    #[inline]
    pub fn append_delete(&mut self, key: &[u8]) -> Result<u64> {
        self.append_operation(OperationRef::Delete { key })
    }

    /// Appends a marker for the checkpoint `id` and returns the record's position.
    ///
    /// # Errors
    ///
    /// As [`append_put`](Self::append_put).
    pub fn append_checkpoint(&mut self, id: u64) -> Result<u64> {
        self.append_operation(OperationRef::Checkpoint { id })
    }

    /// Appends how far each source has been read, and the event time reached, and returns the
    /// record's position. The first commit that names a source keeps its name, for
    /// [checkpoints](crate::CheckpointDetails).
    ///
    /// # Errors
    ///
    /// As [`append_put`](Self::append_put).
    pub fn append_commit(&mut self, offsets: &Offsets, watermark: Option<i64>) -> Result<u64> {
        self.append_operation(OperationRef::Commit { offsets, watermark })
    }

    /// Appends the barrier of the current epoch, the last entry of that epoch on this core, and
    /// leaves the epoch: [`epoch`](Self::epoch) is one higher afterwards. Returns the record's
    /// position.
    ///
    /// On a full disk a barrier may use space that is kept free for it.
    ///
    /// # Errors
    ///
    /// As [`append_put`](Self::append_put).
    pub fn append_epoch_barrier(&mut self) -> Result<u64> {
        let position = self.open_batch.append_epoch_barrier(&self.log)?;
        self.log.shared.bell.ring();
        Ok(position)
    }

    /// Appends all operations of `batch` in one record and returns its position: after a crash all
    /// of them are there, or none. An empty batch appends nothing.
    ///
    /// # Errors
    ///
    /// As [`append_put`](Self::append_put); [`WalError::RecordTooLarge`] speaks of all of them
    /// together.
    pub fn append_batch(&mut self, batch: &WriteBatch) -> Result<u64> {
        self.open_batch.append_batch(&self.log, batch)
    }

    /// Appends a ready-made entry as it is, and returns the record's position. The writer's epoch
    /// rises to the entry's; behind a barrier, to the next one.
    ///
    /// # Errors
    ///
    /// [`WalError::EntryOutOfOrder`] if the entry is not the next one of this core: it must have
    /// this core's id and [`sequence`](Self::sequence), an epoch not below
    /// [`epoch`](Self::epoch), a timestamp not below the last entry's, and a barrier must name
    /// its entry's epoch. Otherwise as [`append_put`](Self::append_put).
    pub fn append(&mut self, entry: &WalEntry) -> Result<u64> {
        self.check_order(entry)?;
        let barrier = matches!(entry.operation, WalOperation::EpochBarrier { .. });
        let epoch = if barrier { epoch_behind(self.log.core, entry.epoch)? } else { entry.epoch };
        let room = if barrier { Room::Reserve } else { Room::Ordinary };
        let before = self.epoch();
        let position = self.open_batch.append(
            &self.log,
            entry.epoch,
            Some(entry.timestamp_ns),
            entry.operation.borrowed(),
            room,
        )?;
        if barrier {
            self.open_batch.leave_epoch(&self.log, entry.epoch, epoch);
            self.log.shared.bell.ring();
        } else if epoch > before {
            self.open_batch.set_epoch(&self.log, epoch)?;
        }
        Ok(position)
    }

    // ---- durability ----

    /// Makes every appended entry durable.
    ///
    /// Writes out what is in memory and syncs once, however many entries wait. When this returns
    /// `Ok`, [`synced_position`](Self::synced_position) equals [`position`](Self::position), and
    /// those entries survive power loss, under the assumptions in `docs/durability.md`.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`] if a write or a sync failed, now or earlier. What reached the disk
    /// is unknown then, and this writer refuses further work; reopen the log to go on.
    pub fn sync(&mut self) -> Result<()> {
        self.log.queue.check()?;
        let goal = self.close_batch();
        self.log.lead_to(goal, Wanted::Now, None)?;
        self.is_synced_to(goal.position, goal.sequence);
        Ok(())
    }

    /// Hands everything appended over to be made durable in the background, and returns the ticket
    /// that tells when it is. Appending can go on at once, and the disk is at work meanwhile.
    ///
    /// The next batch needs a buffer: if all are in flight
    /// ([`LogOptions::in_flight_bytes`]), this waits for one first.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`].
    pub fn submit(&mut self) -> Result<SyncTicket> {
        self.log.queue.check()?;
        if self.open_batch.is_open() {
            self.log.await_buffers(1)?;
        }
        self.submit_now()
    }

    /// As [`submit`](Self::submit), but where that would wait for the disk, this submits nothing
    /// and returns `None`. What was appended stays in the open batch: to be tried again later, and
    /// not to be added to without end, because an append waits when the batch is full.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`].
    pub fn try_submit(&mut self) -> Result<Option<SyncTicket>> {
        self.log.queue.check()?;
        if self.open_batch.is_open() && self.log.queue.has_buffers(1).is_err() {
            return Ok(None);
        }
        self.submit_now().map(Some)
    }

    /// Hands over what was appended so far to be synced elsewhere: by [`SyncRequest::run`] in
    /// another thread, whose proof is then given to [`mark_synced`](Self::mark_synced). Appending
    /// can go on meanwhile.
    ///
    /// A request that is dropped un-run takes nothing with it: its entries become durable with
    /// the next sync.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`].
    pub fn start_sync(&mut self) -> Result<SyncRequest> {
        self.log.queue.check()?;
        let goal = self.close_batch();
        Ok(SyncRequest::new(&self.log, goal))
    }

    /// Takes note of a sync that another thread did: brings
    /// [`synced_position`](Self::synced_position) and
    /// [`entries_since_sync`](Self::entries_since_sync) up to date. A proof older than what is
    /// known changes nothing.
    ///
    /// # Errors
    ///
    /// [`WalError::ProofRejected`] if the proof is of another log or core, or from before an
    /// opening or a cut.
    pub fn mark_synced(&mut self, proof: Synced) -> Result<()> {
        proof.check(&self.log)?;
        if proof.position() > self.synced_position {
            self.is_synced_to(proof.position(), proof.sequence());
        }
        Ok(())
    }

    /// Makes the writer one that many threads and tasks can append with.
    #[must_use]
    pub fn into_shared(mut self) -> SharedWriter {
        self.is_given_back = true;
        let open_batch = std::mem::replace(&mut self.open_batch, OpenBatch::empty());
        self.log.return_seat_shared(open_batch);
        SharedWriter::of_shared_seat(Arc::clone(&self.log))
    }

    /// Gives the writer back, everything appended durable. Returns what dropping it would
    /// swallow: where no handle to the log is left, as behind [`new`](Self::new), this closes it.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`].
    pub fn close(mut self) -> Result<()> {
        let synced = self.sync();
        let given_back = self.give_back();
        synced.and(given_back)
    }

    // ---- cutting ----

    /// Cuts the log back: keeps `[0, position)`, drops everything behind, durably, when this
    /// returns. `position` must be a record boundary. Epoch and timestamps are not taken back.
    ///
    /// # Errors
    ///
    /// [`WalError::NotARecordBoundary`]; [`WalError::InvalidArgument`] if `position` lies outside
    /// the log; [`WalError::BelowCheckpoint`]; [`WalError::StorageFull`], or another error of the
    /// storage, if the segment that must be started cannot be had: nothing has been cut in all of
    /// these cases. [`WalError::Poisoned`].
    pub fn truncate(&mut self, position: u64) -> Result<()> {
        let planned = self.plan_truncate(position)?;
        cut::carry_out(planned.into_iter().collect())?;
        self.is_cut();
        Ok(())
    }

    /// Empties the log, durably, when this returns: position and sequence are 0, and a checkpoint
    /// is forgotten. Epoch and timestamps are not taken back.
    ///
    /// # Errors
    ///
    /// [`WalError::StorageFull`], or another error of the storage, if the segment that must be
    /// started cannot be had, with nothing changed; [`WalError::Poisoned`].
    pub fn reset(&mut self) -> Result<()> {
        let planned = self.plan_reset()?;
        cut::carry_out(planned.into_iter().collect())?;
        self.is_cut();
        Ok(())
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

    /// Where the next record goes, in bytes from the start of this core's log. The first append
    /// after a sync goes 24 bytes further, behind the mark of its batch.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.open_batch.position()
    }

    /// Everything below this is durable: no byte is claimed that no sync covered. Moved by
    /// [`sync`](Self::sync) and [`mark_synced`](Self::mark_synced) alone.
    #[must_use]
    pub const fn synced_position(&self) -> u64 {
        self.synced_position
    }

    /// The epoch that the next entry gets.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.open_batch.epoch()
    }

    /// Raises the epoch that later entries get.
    ///
    /// # Errors
    ///
    /// [`WalError::EpochRegressed`] if `epoch` is below the current one.
    pub fn set_epoch(&mut self, epoch: u64) -> Result<()> {
        self.open_batch.set_epoch(&self.log, epoch)
    }

    /// The sequence that the next entry gets: how many entries the log has had.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.open_batch.sequence()
    }

    /// How many entries lie behind [`synced_position`](Self::synced_position).
    #[must_use]
    pub const fn entries_since_sync(&self) -> u64 {
        self.open_batch.sequence().saturating_sub(self.synced_sequence)
    }

    /// How often an append had to wait: for a buffer, and for a segment that was not ready.
    #[must_use]
    pub fn stalls(&self) -> Stalls {
        Stalls::of(&self.log)
    }

    /// How far the core's log is durable, to be looked at from anywhere.
    #[must_use]
    pub fn watch(&self) -> SyncedWatch {
        SyncedWatch::new(&self.log)
    }

    /// Everything appended, no batch open any more.
    pub(crate) fn close_batch(&mut self) -> Goal {
        self.open_batch.close_to_be_synced(&self.log);
        self.log.goal(&self.open_batch)
    }

    /// Takes note of a sync that somebody else led, if it made `goal` durable.
    pub(crate) fn take_note_of(&mut self, goal: Goal) {
        if matches!(self.log.queue.settled(goal), Some(Ok(()))) {
            self.is_synced_to(goal.position, goal.sequence);
        }
    }

    pub(crate) const fn log(&self) -> &Arc<CoreLog> {
        &self.log
    }

    pub(crate) const fn parts(&mut self) -> (&Arc<CoreLog>, &mut OpenBatch) {
        (&self.log, &mut self.open_batch)
    }

    fn submit_now(&mut self) -> Result<SyncTicket> {
        let goal = self.close_batch();
        if !self.log.hand_over(goal) {
            // There is no thread to be had for it.
            self.log.lead_to(goal, Wanted::Now, None)?;
        }
        Ok(SyncTicket::handed_over(&self.log, goal))
    }

    fn give_back(&mut self) -> Result<()> {
        if self.is_given_back {
            return Ok(());
        }
        self.is_given_back = true;
        self.log.return_seat(std::mem::replace(&mut self.open_batch, OpenBatch::empty()))
    }

    #[inline(always)]
    fn append_operation(&mut self, operation: OperationRef<'_>) -> Result<u64> {
        let epoch = self.open_batch.epoch();
        self.open_batch.append(&self.log, epoch, None, operation, Room::Ordinary)
    }

    fn is_synced_to(&mut self, position: u64, sequence: u64) {
        self.synced_position = position;
        self.synced_sequence = sequence;
    }

    pub(crate) fn plan_truncate(&mut self, position: u64) -> Result<Option<PlannedCut<'_>>> {
        self.sync()?;
        cut::plan_truncate(&self.log, &mut self.open_batch, position)
    }

    pub(crate) fn plan_reset(&mut self) -> Result<Option<PlannedCut<'_>>> {
        self.sync()?;
        cut::plan_reset(&self.log, &mut self.open_batch)
    }

    /// After a planned cut was carried out.
    pub(crate) fn is_cut(&mut self) {
        self.is_synced_to(self.open_batch.position(), self.open_batch.sequence());
    }

    fn check_order(&self, entry: &WalEntry) -> Result<()> {
        let core = self.log.core;
        let out_of_order = |field, given: i128, expected: i128| {
            Err(WalError::EntryOutOfOrder { core, field, given, expected })
        };
        if entry.core_id != core {
            return out_of_order("core_id", entry.core_id.into(), core.into());
        }
        if entry.sequence != self.sequence() {
            return out_of_order("sequence", entry.sequence.into(), self.sequence().into());
        }
        if entry.epoch < self.epoch() {
            return out_of_order("epoch", entry.epoch.into(), self.epoch().into());
        }
        if let Err(regressed) = self.open_batch.clock().check(entry.timestamp_ns) {
            let (given, last) = (regressed.given_ns, regressed.last_ns);
            return out_of_order("timestamp_ns", given.into(), last.into());
        }
        if let WalOperation::EpochBarrier { epoch } = entry.operation
            && epoch != entry.epoch
        {
            return out_of_order("barrier epoch", epoch.into(), entry.epoch.into());
        }
        Ok(())
    }
}

/// How often an append had to wait, since the log was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stalls {
    /// All buffers were in flight.
    pub buffers: u64,
    /// The next segment was not ready.
    pub segments: u64,
}

impl Stalls {
    pub(crate) fn of(log: &CoreLog) -> Self {
        Self { buffers: log.queue.stalls(), segments: log.segments.stalls() }
    }
}

impl Drop for CoreWalWriter {
    fn drop(&mut self) {
        // An error is in the poison, for whoever still holds a part of the log.
        let _ = self.give_back();
    }
}

impl fmt::Debug for CoreWalWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoreWalWriter")
            .field("core_id", &self.core_id())
            .field("path", &self.path())
            .field("position", &self.position())
            .field("synced_position", &self.synced_position())
            .field("epoch", &self.epoch())
            .field("sequence", &self.sequence())
            .field("entries_since_sync", &self.entries_since_sync())
            .finish_non_exhaustive()
    }
}
