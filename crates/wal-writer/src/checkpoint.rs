//! Checkpoints: an epoch is closed on every core, the application makes its snapshot durable, and the
//! manifest says so. Only then is the log below it worth nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use wal_entry::{Offsets, OperationRef};
use wal_format::{Checkpoint, CheckpointCore, Manifest, Release, SourceOffset};
use wal_recovery::Committed;
use wal_storage::{Result, WalError};

use crate::bell::BellKey;
use crate::block_on::block_on;
use crate::core_log::{CoreLog, LogShared};
use crate::lead::lead_all_to;
use crate::observer::Observer;
use crate::open_batch::{OpenBatch, record_bytes};
use crate::queue::{Goal, Wanted};
use crate::shared_writer::SharedWriter;
use crate::sync::{Instant, Mutex, MutexGuard};
use crate::writer::CoreWalWriter;
use crate::writers::CoreWriters;

/// A checkpoint that is being made: an epoch that every core is about to leave.
///
/// [`arrival`](Self::arrival) goes to each core's thread, which arrives; [`wait`](Self::wait) returns
/// when all barriers are durable; the application then makes its snapshot durable, and
/// [`complete`](Self::complete) says so in the manifest and gives back the space below.
///
/// Dropped before that, it is as if there had been none, but for the barriers in the log.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let storage = std::sync::Arc::new(wal_storage::OsStorage::create(directory.path().join("log"))?);
/// use wal_writer::{CheckpointDetails, CoreSelection, LogOptions, Wal};
///
/// let (wal, _) = Wal::open(storage, LogOptions::default(), CoreSelection::First(1))?;
/// let mut writer = wal.writer(0)?;
/// writer.append_put(b"key", b"value")?;
///
/// let pending = wal.begin_checkpoint(7)?;
/// pending.arrival().arrive(&mut writer)?; // in the core's thread
/// pending.wait()?;
/// // Now the application's own snapshot, durably.
/// pending.complete(CheckpointDetails::default())?;
/// assert_eq!(wal.last_checkpoint().map(|checkpoint| checkpoint.id), Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a checkpoint counts only when it is completed"]
pub struct PendingCheckpoint {
    pending: Arc<Pending>,
}

/// What a core's thread arrives at the barrier with; clone it for each of them.
#[derive(Clone)]
pub struct CheckpointArrival {
    pending: Arc<Pending>,
}

/// What a checkpoint says of the application's inputs. By default it is gathered: from the last
/// checkpoint, and from the commits that each core logged between that and its barrier. Of two
/// commits that name one source, the later one in replay order counts; the watermark is the lowest
/// of the cores' last ones, and does not fall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckpointDetails {
    /// How far each source has been read, if not what the commits say.
    pub source_offsets: Option<Offsets>,
    /// The event time reached, if not what the commits say.
    pub watermark: Option<i64>,
}

impl PendingCheckpoint {
    /// The caller's name for it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.pending.id
    }

    /// The epoch that it closes.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.pending.epoch
    }

    /// What each core's thread arrives with.
    #[must_use]
    pub fn arrival(&self) -> CheckpointArrival {
        CheckpointArrival { pending: Arc::clone(&self.pending) }
    }

    /// The cores whose barrier is not durable yet, ascending.
    #[must_use]
    pub fn missing(&self) -> Vec<u16> {
        let state = self.pending.state();
        let is_missing = |core: &&Arc<CoreLog>| {
            let place = state.arrived.get(&core.core);
            !place.is_some_and(|place| matches!(core.queue.settled(place.goal), Some(Ok(()))))
        };
        self.pending.members.iter().filter(is_missing).map(|core| core.core).collect()
    }

    /// Waits until every core has arrived and its barrier is durable.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`] or [`WalError::Closed`] if that cannot be any more.
    pub fn wait(&self) -> Result<()> {
        self.wait_until(None)
    }

    /// As [`wait`](Self::wait), for at most this long. The checkpoint stays open.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait); [`WalError::CheckpointIncomplete`] names the cores that are missing.
    pub fn wait_timeout(&self, at_most: Duration) -> Result<()> {
        self.wait_until(Instant::now().checked_add(at_most))
    }

    /// Makes the checkpoint count: waits for all barriers, then writes it to the manifest, both
    /// slots, and gives back the space below it, but for what is [pinned](crate::Pin). What it
    /// stands for must be durable before this is called: after it, the log below is gone.
    ///
    /// Works on a full disk: the manifest's space is reserved. Only the offsets of thousands of
    /// sources may need more.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait); [`WalError::CheckpointRefused`] if a core's log was cut since it
    /// arrived; [`WalError::StorageFull`]: in these cases the checkpoint before counts, and another
    /// one can be begun. [`WalError::Poisoned`] if the manifest could not be written: which of the
    /// two counts, the next opening finds out.
    pub fn complete(self, details: CheckpointDetails) -> Result<()> {
        self.wait()?;
        let pending = &*self.pending;
        // A log that is closed meanwhile may be somebody else's by now.
        let holds: Result<Vec<_>> =
            pending.members.iter().map(|core| core.directory_lock()).collect();
        let _holds = holds?;
        #[cfg(wal_fault = "release_before_manifest")]
        pending.release_too_early();
        pending.shared.replace_manifest(|manifest| pending.change(manifest, &details))?;
        for core in &pending.members {
            core.barriers.checkpointed(pending.epoch);
        }
        pending.shared.bell.ring();
        pending.shared.release_segments();
        if let Some(began) = pending.began {
            let took = pending.shared.storage.now().saturating_sub(began);
            pending.shared.observer.checkpointed(pending.id, pending.epoch, took);
        }
        Ok(())
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<()> {
        let pending = &*self.pending;
        pending.arrive_for_absent();
        let mut all_arrived = AllArrived { pending, key: None };
        match block_on(&mut all_arrived, deadline) {
            Some(arrived) => arrived?,
            None => return Err(self.incomplete()),
        }
        let goals = pending.goals();
        let Some(deadline) = deadline else {
            return lead_all_to(&pending.shared, &goals);
        };
        for (core, goal) in goals {
            if !core.lead_to(goal, Wanted::Now, Some(deadline))? {
                return Err(self.incomplete());
            }
        }
        Ok(())
    }

    fn incomplete(&self) -> WalError {
        let (id, epoch) = (self.id(), self.epoch());
        WalError::CheckpointIncomplete { id, epoch, cores: self.missing() }
    }
}

impl Drop for PendingCheckpoint {
    fn drop(&mut self) {
        self.pending.state().is_over = true;
    }
}

impl fmt::Debug for PendingCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCheckpoint")
            .field("id", &self.id())
            .field("epoch", &self.epoch())
            .field("missing", &self.missing())
            .finish()
    }
}

impl CheckpointArrival {
    /// Logs the core's barrier and submits it: everything that the writer has appended is part of
    /// the checkpoint, and what it appends from now on is of the next epoch, and is not. Waits for
    /// nothing but, as any append, for a buffer.
    ///
    /// Returns the position behind the barrier. Who has arrived already gets it again.
    ///
    /// # Errors
    ///
    /// [`WalError::CheckpointRefused`] if the checkpoint was completed or dropped;
    /// [`WalError::InvalidArgument`] if the writer is of another log;
    /// [`WalError::EpochRegressed`] if it is beyond the epoch: since the checkpoint was begun,
    /// nobody may raise one above it. Otherwise as
    /// [`append_put`](CoreWalWriter::append_put), but that behind [`WalError::Poisoned`] the barrier
    /// may have been logged.
    pub fn arrive(&self, writer: &mut CoreWalWriter) -> Result<u64> {
        let (log, open_batch) = writer.parts();
        self.pending.check_is_of(log)?;
        if let Some(position) = self.pending.position_of(log.core)? {
            return Ok(position);
        }
        let place = self.pending.log_barrier(log, open_batch)?;
        let position = self.pending.has_arrived(log, place);
        log.shared.bell.ring();
        // It is known by the goal.
        drop(writer.submit()?);
        Ok(position)
    }

    /// As [`arrive`](Self::arrive), for a core that many threads append to: what any of them
    /// appended before is part of the checkpoint.
    ///
    /// # Errors
    ///
    /// As [`arrive`](Self::arrive).
    pub fn arrive_shared(&self, writer: &SharedWriter) -> Result<u64> {
        self.pending.check_is_of(writer.log())?;
        self.pending.arrive_in_seat(writer.log())
    }

    /// As [`arrive`](Self::arrive), for a program that has the writers of all cores in one hand.
    /// Nothing is missing then but the durability of the barriers, for which
    /// [`complete`](PendingCheckpoint::complete) waits, all cores side by side.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let storage = std::sync::Arc::new(wal_storage::OsStorage::create(directory.path().join("log"))?);
    /// # use wal_writer::{CheckpointDetails, CoreSelection, LogOptions, Wal};
    /// # let (wal, _) = Wal::open(storage, LogOptions::default(), CoreSelection::First(4))?;
    /// let mut writers = wal.writers()?;
    /// writers.writer(3)?.append_put(b"key", b"value")?;
    ///
    /// let pending = wal.begin_checkpoint(7)?;
    /// pending.arrival().arrive_all(&mut writers)?;
    /// // Now the application's own snapshot, durably, while the barriers are on their way.
    /// pending.complete(CheckpointDetails::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`arrive`](Self::arrive), of the first core that fails; the others have arrived in any
    /// case. Where a core could not for want of space, this may be called again when there is some.
    pub fn arrive_all(&self, writers: &mut CoreWriters) -> Result<()> {
        writers.on_each(|writer| self.arrive(writer).map(|_| ()))
    }

    /// The epoch that is closed.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.pending.epoch
    }
}

impl fmt::Debug for CheckpointArrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointArrival")
            .field("id", &self.pending.id)
            .field("epoch", &self.pending.epoch)
            .finish()
    }
}

/// Begins a checkpoint, and arrives for cores whose writer nobody has.
///
/// # Errors
///
/// [`WalError::CheckpointOpen`], [`WalError::CheckpointRefused`], [`WalError::Poisoned`],
/// [`WalError::Closed`].
pub(crate) fn begin(
    shared: &Arc<LogShared>,
    members: &[Arc<CoreLog>],
    id: u64,
) -> Result<PendingCheckpoint> {
    members.iter().try_for_each(|core| core.check_open())?;
    let mut open = shared.open_checkpoint.lock();
    if let Some(pending) = open.upgrade().filter(|pending| !pending.state().is_over) {
        return Err(WalError::CheckpointOpen { id: pending.id, epoch: pending.epoch });
    }
    let pending = Arc::new(Pending {
        id,
        epoch: shared.highest_epoch.get(),
        began: Observer::IS_ON.then(|| shared.storage.now()),
        shared: Arc::clone(shared),
        members: members.to_vec(),
        state: Mutex::new(State { is_over: false, arrived: BTreeMap::new() }),
    });
    pending.check_is_newer(&shared.manifest())?;
    *open = Arc::downgrade(&pending);
    drop(open);
    pending.arrive_for_absent();
    Ok(PendingCheckpoint { pending })
}

/// The checkpoint that is open, if there is one: for cores whose writer goes while it is.
#[derive(Debug, Default)]
pub(crate) struct OpenCheckpoint(Mutex<Weak<Pending>>);

impl OpenCheckpoint {
    /// A core's writer is being given back: it arrives first.
    pub(crate) fn before_return(&self, log: &Arc<CoreLog>, open_batch: &mut OpenBatch) {
        let Some(pending) = self.lock().upgrade() else { return };
        if matches!(pending.position_of(log.core), Ok(None))
            && let Ok(place) = pending.log_barrier(log, open_batch)
        {
            pending.has_arrived(log, place);
            pending.shared.bell.ring();
        }
    }

    /// Nobody has a core's writer any more: it is arrived for.
    pub(crate) fn after_return(&self, log: &Arc<CoreLog>) {
        if let Some(pending) = self.lock().upgrade() {
            // Whoever waits for the checkpoint tries again, and is told what is wrong.
            let _ = pending.arrive_in_seat(log);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Weak<Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open checkpoint, as everybody who has a part in it sees it.
#[derive(Debug)]
pub(crate) struct Pending {
    id: u64,
    epoch: u64,
    /// If somebody wants to know how long it takes.
    began: Option<Duration>,
    shared: Arc<LogShared>,
    members: Vec<Arc<CoreLog>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Completed or dropped: nobody arrives any more.
    is_over: bool,
    arrived: BTreeMap<u16, Place>,
}

/// Where a core stands behind its barrier.
#[derive(Debug)]
struct Place {
    goal: Goal,
    timestamp_ns: i64,
    committed: Committed,
    /// The core's newest cut at that time.
    dead_segment_id: Option<u64>,
}

impl Pending {
    fn check_is_of(&self, log: &CoreLog) -> Result<()> {
        if Arc::ptr_eq(&self.shared, &log.shared) {
            return Ok(());
        }
        Err(WalError::InvalidArgument {
            what: format!(
                "core {}: its writer is of the log in {}, checkpoint {} of that in {}",
                log.core,
                log.shared.storage.path().display(),
                self.id,
                self.shared.storage.path().display()
            ),
        })
    }

    fn check_is_newer(&self, manifest: &Manifest) -> Result<()> {
        match &manifest.checkpoint {
            Some(durable) if durable.epoch >= self.epoch => {
                let Checkpoint { id, epoch, .. } = durable;
                Err(self.refused(format!("checkpoint {id} of epoch {epoch} counts already")))
            }
            _ => Ok(()),
        }
    }

    fn refused(&self, reason: String) -> WalError {
        WalError::CheckpointRefused { id: self.id, epoch: self.epoch, reason }
    }

    /// Behind its barrier, if the core has arrived.
    fn position_of(&self, core: u16) -> Result<Option<u64>> {
        let state = self.state();
        if let Some(place) = state.arrived.get(&core) {
            return Ok(Some(place.goal.position));
        }
        if state.is_over {
            return Err(self.refused("it was completed or dropped".to_owned()));
        }
        Ok(None)
    }

    /// Logs the barrier in the hands of whoever has the open batch.
    fn log_barrier(&self, log: &Arc<CoreLog>, open_batch: &mut OpenBatch) -> Result<Place> {
        open_batch.set_epoch(log, self.epoch)?;
        open_batch.append_epoch_barrier(log)?;
        Ok(Place {
            goal: log.goal(open_batch),
            timestamp_ns: open_batch.clock().last().unwrap_or(i64::MIN),
            committed: open_batch.committed().clone(),
            dead_segment_id: newest_cut(&self.shared.manifest(), log.core),
        })
    }

    /// The bell is to be rung when no lock is held any more.
    fn has_arrived(&self, log: &CoreLog, place: Place) -> u64 {
        let position = place.goal.position;
        self.state().arrived.insert(log.core, place);
        position
    }

    /// Arrives for a core whose open batch is in its seat.
    fn arrive_in_seat(&self, log: &Arc<CoreLog>) -> Result<u64> {
        let barrier = OperationRef::EpochBarrier { epoch: self.epoch };
        let (goal, position) = log.append_in_seat(record_bytes(barrier), |open_batch, log| {
            // Of two who arrive for a core, one does.
            if let Some(position) = self.position_of(log.core)? {
                return Ok(position);
            }
            let place = self.log_barrier(log, open_batch)?;
            open_batch.close_to_be_synced(log);
            Ok(self.has_arrived(log, place))
        })?;
        self.shared.bell.ring();
        if !log.hand_over(goal) {
            log.lead_to(goal, Wanted::Now, None)?;
        }
        Ok(position)
    }

    /// Arrives for the cores whose writer nobody has.
    fn arrive_for_absent(&self) {
        for core in &self.members {
            if matches!(self.position_of(core.core), Ok(None)) && core.is_unused() {
                // What fails is met again by whoever waits: the core is missing.
                let _ = self.arrive_in_seat(core);
            }
        }
    }

    fn goals(&self) -> Vec<(&Arc<CoreLog>, Goal)> {
        let state = self.state();
        let goal = |core: &Arc<CoreLog>| state.arrived.get(&core.core).map(|place| place.goal);
        self.members.iter().filter_map(|core| Some((core, goal(core)?))).collect()
    }

    /// Breaks promise 7.
    #[cfg(wal_fault = "release_before_manifest")]
    fn release_too_early(&self) {
        for (core, goal) in self.goals() {
            core.segments.recycle(&core.spans.release_below(goal.position, u64::MAX));
        }
    }

    /// What completing it changes.
    fn change(&self, manifest: &mut Manifest, details: &CheckpointDetails) -> Result<()> {
        self.check_is_newer(manifest)?;
        let state = self.state();
        let mut cores = self.shared.retired_places();
        let mut committed = self.shared.committed_by_retired();
        for (&core, place) in &state.arrived {
            if newest_cut(manifest, core) != place.dead_segment_id {
                return Err(self.refused(format!("core {core} was cut since it arrived")));
            }
            cores.push(CheckpointCore {
                core,
                position: place.goal.position,
                sequence: place.goal.sequence,
                timestamp_ns: place.timestamp_ns,
            });
            committed.merge(&place.committed);
        }
        cores.sort_unstable_by_key(|place| place.core);
        let (source_offsets, watermark) =
            details.or_gathered(manifest.checkpoint.as_ref(), committed);
        manifest.releases.retain(|release| cores.iter().all(|place| place.core != release.core));
        manifest.releases.extend(cores.iter().map(|place| Release {
            core: place.core,
            position: place.position,
            last_epoch: self.epoch,
            last_timestamp_ns: place.timestamp_ns,
        }));
        manifest.releases.sort_unstable_by_key(|release| release.core);
        let (id, epoch) = (self.id, self.epoch);
        manifest.checkpoint = Some(Checkpoint { id, epoch, cores, source_offsets, watermark });
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole at each step, so a panic elsewhere harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CheckpointDetails {
    fn or_gathered(
        &self,
        before: Option<&Checkpoint>,
        mut committed: Committed,
    ) -> (Vec<SourceOffset>, Option<i64>) {
        // What a core had logged before the last checkpoint, that one knew.
        committed.retain(|order| {
            let place = before.and_then(|before| before.place(order.core_id));
            place.is_none_or(|place| order.sequence >= place.sequence)
        });
        let mut offsets = Offsets::new();
        match &self.source_offsets {
            Some(given) => offsets = given.clone(),
            None => {
                for known in before.map_or(&[][..], |before| &before.source_offsets) {
                    offsets.set(&known.source, known.offset);
                }
                for (source, offset) in committed.offsets() {
                    offsets.set(source, offset);
                }
            }
        }
        let watermark_before = before.and_then(|before| before.watermark);
        let watermark = self.watermark.or_else(|| committed.watermark().max(watermark_before));
        let source_offsets = offsets
            .iter()
            .map(|(source, offset)| SourceOffset { source: source.to_owned(), offset })
            .collect();
        (source_offsets, watermark)
    }
}

/// Ready when every core has arrived.
struct AllArrived<'a> {
    pending: &'a Pending,
    key: Option<BellKey>,
}

impl Future for AllArrived<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let pending = self.pending;
        pending.shared.bell.register(&mut self.key, context.waker());
        for core in &pending.members {
            if pending.state().arrived.contains_key(&core.core) {
                continue;
            }
            return match core.check_open() {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for AllArrived<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.pending.shared.bell.deregister(key);
        }
    }
}

fn newest_cut(manifest: &Manifest, core: u16) -> Option<u64> {
    let cuts = manifest.cuts.iter().filter(|cut| cut.core == core);
    cuts.map(|cut| cut.dead_segment_id).max()
}
