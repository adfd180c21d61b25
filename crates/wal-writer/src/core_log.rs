//! One core's log while it is open: what its writers, its tickets and its background jobs share.
//!
//! Lock order: device side, seat, queue; the locks of segments and manifest are taken below these
//! and hold no other.

use std::sync::{Arc, LockResult, PoisonError, Weak};
use std::time::Duration;

use wal_entry::RecordBuffer;
use wal_format::{CoreDirectory, LogId, Manifest, SegmentFile};
use wal_recovery::ReplayPin;
use wal_storage::{DirectoryLock, JobKind, Result, Storage, WalError};

use crate::bell::Bell;
use crate::checkpoint::OpenCheckpoint;
use crate::committer::Committer;
use crate::device::Device;
use crate::directory_hold::{DirectoryHold, Held};
use crate::epochs::{Barriers, HighestEpoch};
use crate::manifest_store::ManifestStore;
use crate::observer::{LogObserver, Observer, Stall};
use crate::open_batch::OpenBatch;
use crate::options::LogOptions;
use crate::queue::{Goal, Queue, Turn, Wanted};
use crate::release::{Pins, RetiredCore};
use crate::segments::{Filling, Prepared, Segments};
use crate::spans::Spans;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// How long a core must be quiet before its vouch block says how far it is durable.
const QUIET_BEFORE_VOUCH: Duration = Duration::from_secs(1);

/// So many released files are recycled or removed before the background does what else there is.
const GIVEN_BACK_AT_ONCE: usize = 4;

/// What all cores of a log share.
#[derive(Debug)]
pub(crate) struct LogShared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: LogOptions,
    pub(crate) log_id: LogId,
    pub(crate) observer: LogObserver,
    pub(crate) committer: Committer,
    manifest: ManifestStore,
    /// Held while what was recovered may still be replayed from its files.
    pub(crate) replay_pin: ReplayPin,
    pub(crate) pins: Pins,
    pub(crate) highest_epoch: HighestEpoch,
    pub(crate) open_checkpoint: OpenCheckpoint,
    /// Rings for barriers, arrivals, and the ends of cores' logs.
    pub(crate) bell: Bell,
    /// Cores that have a log here, and no part in this opening.
    pub(crate) retired: Vec<RetiredCore>,
    cores: Mutex<Vec<Weak<CoreLog>>>,
}

/// One core's log.
#[derive(Debug)]
pub(crate) struct CoreLog {
    pub(crate) core: u16,
    pub(crate) shared: Arc<LogShared>,
    pub(crate) observer: Arc<Observer>,
    pub(crate) queue: Queue,
    pub(crate) segments: Segments,
    pub(crate) spans: Arc<Spans>,
    pub(crate) barriers: Barriers,
    /// Locked by the thread that [claimed](Queue::claim) it, so that nobody ever waits here.
    device: Mutex<Device>,
    seat: Mutex<Seat>,
    /// Held while this core's log may touch the disk: closing and poison let go of it.
    hold: DirectoryHold,
    vouch_is_scheduled: AtomicBool,
}

/// Where the appender's half stays while no writer holds it.
#[derive(Debug)]
struct Seat {
    open_batch: Option<OpenBatch>,
    /// How many handles use the open batch where it is.
    shared_writers: usize,
    /// No handle to the whole log is left: the writer's return closes the core's log.
    log_is_gone: bool,
}

impl LogShared {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        options: LogOptions,
        log_id: LogId,
        manifest: ManifestStore,
        replay_pin: ReplayPin,
        epoch: u64,
        retired: Vec<RetiredCore>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|log| Self {
            storage,
            options,
            log_id,
            observer: LogObserver::new(),
            committer: Committer::new(log.clone()),
            manifest,
            replay_pin,
            pins: Pins::default(),
            highest_epoch: HighestEpoch::new(epoch),
            open_checkpoint: OpenCheckpoint::default(),
            bell: Bell::new(),
            retired,
            cores: Mutex::new(Vec::new()),
        })
    }

    pub(crate) fn manifest(&self) -> Manifest {
        self.manifest.manifest()
    }

    pub(crate) fn manifest_number(&self) -> u64 {
        self.manifest.number()
    }

    /// Replaces the manifest, durably.
    ///
    /// # Errors
    ///
    /// What `change` says, or [`WalError::StorageFull`], with nothing changed; after anything else
    /// every core of the log is poisoned.
    pub(crate) fn replace_manifest(
        &self,
        change: impl FnOnce(&mut Manifest) -> Result<()>,
    ) -> Result<()> {
        self.manifest.replace(change).inspect_err(|_| {
            if let Some(cause) = self.manifest.failure() {
                for core in self.cores() {
                    core.poison(cause.clone());
                }
            }
        })
    }

    pub(crate) fn cores(&self) -> Vec<Arc<CoreLog>> {
        let cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        cores.iter().filter_map(Weak::upgrade).collect()
    }

    /// Has the background lead when `delay` has passed. If it cannot, whoever can be woken leads
    /// by himself, and the rest is done by the next one who syncs, or closes.
    pub(crate) fn ring(&self, delay: Duration) {
        if !self.committer.ring(self, delay) {
            for core in self.cores() {
                core.queue.wake_futures();
            }
        }
    }

    pub(crate) fn closed(&self) -> WalError {
        WalError::Closed { path: self.storage.path().to_path_buf() }
    }
}

impl CoreLog {
    /// `life` tells this opening from every other.
    pub(crate) fn new(
        shared: &Arc<LogShared>,
        core: u16,
        open_batch: OpenBatch,
        barriers: Barriers,
        segments: Segments,
        lock: DirectoryLock,
        life: u64,
    ) -> Arc<Self> {
        let (position, sequence) = (open_batch.position(), open_batch.sequence());
        let observer = Arc::clone(segments.observer());
        let device = Device::new(position, open_batch.last_epoch());
        let queue = Queue::new(core, Goal { position, sequence, life }, &shared.options);
        let spans = Arc::clone(open_batch.spans());
        let seat = Seat { open_batch: Some(open_batch), shared_writers: 0, log_is_gone: false };
        let log = Arc::new(Self {
            core,
            shared: Arc::clone(shared),
            observer,
            queue,
            segments,
            spans,
            barriers,
            device: Mutex::new(device),
            seat: Mutex::new(seat),
            hold: DirectoryHold::new(lock),
            vouch_is_scheduled: AtomicBool::new(false),
        });
        shared.cores.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&log));
        log.observe_live();
        log
    }

    // ---- buffers ----

    /// A buffer for the next batch. If all are in flight, this thread writes some out, or waits for
    /// the one that does.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`].
    pub(crate) fn take_buffer(self: &Arc<Self>) -> Result<RecordBuffer> {
        let mut has_stalled = false;
        loop {
            self.queue.check()?;
            match self.queue.free_buffer() {
                Ok(buffer) => return Ok(buffer),
                Err(turn) => {
                    let stalls_now = !std::mem::replace(&mut has_stalled, true);
                    self.free_buffers(turn, stalls_now)?;
                }
            }
        }
    }

    /// Waits until so many buffers can be had, as [`take_buffer`](Self::take_buffer) does. The
    /// calling thread must not hold the seat: the leader may want to close the open batch.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`].
    pub(crate) fn await_buffers(self: &Arc<Self>, count: usize) -> Result<()> {
        let mut has_stalled = false;
        loop {
            self.queue.check()?;
            match self.queue.has_buffers(count) {
                Ok(()) => return Ok(()),
                Err(turn) => {
                    let stalls_now = !std::mem::replace(&mut has_stalled, true);
                    self.free_buffers(turn, stalls_now)?;
                }
            }
        }
    }

    fn free_buffers(self: &Arc<Self>, turn: Turn, stalls_now: bool) -> Result<()> {
        if stalls_now {
            self.queue.count_stall();
            self.observer.stalled(Stall::Buffer);
        }
        match self.try_device()? {
            Some(mut side) => side.lead(),
            None => {
                self.queue.wait_for_buffer(turn);
                Ok(())
            }
        }
    }

    // ---- the background ----

    /// Has the background do what there is to do on this core, if there is anything. `false` if
    /// there is, and no thread to do it.
    pub(crate) fn ring_if_needed(&self) -> bool {
        let work = self.queue.background_work(|| self.shared.storage.now());
        work.is_none_or(|delay| self.shared.committer.ring(&self.shared, delay))
    }

    /// Hands the making durable of `goal` to whoever leads next. `false` if there is nobody.
    pub(crate) fn hand_over(&self, goal: Goal) -> bool {
        if self.queue.settled(goal).is_some() {
            return true;
        }
        self.queue.want(goal, Wanted::HandedOver, || self.shared.storage.now());
        self.ring_if_needed()
    }

    /// What has been submitted so far: everything appended, but for what the batch of a writer
    /// that is out still holds.
    pub(crate) fn submitted(&self) -> Goal {
        match &self.seat().open_batch {
            Some(open_batch) => self.goal(open_batch),
            None => self.queue.closed(),
        }
    }

    pub(crate) fn lock_device(&self) -> LockResult<MutexGuard<'_, Device>> {
        self.device.lock()
    }

    /// If more is wanted durable than was closed, it is in the open batch of shared writers, and
    /// the leader closes that.
    pub(crate) fn close_shared_batch(&self) {
        if !self.queue.wants_more_than_closed() {
            return;
        }
        let mut seat = self.seat();
        if seat.shared_writers > 0
            && let Some(open_batch) = &mut seat.open_batch
        {
            open_batch.close_to_be_synced(self);
        }
    }

    // ---- segments ----

    /// Takes the next segment and has the one behind it prepared.
    ///
    /// # Errors
    ///
    /// As [`Segments::take`].
    pub(crate) fn take_segment(
        self: &Arc<Self>,
        record_bytes: u64,
        filling: Filling,
    ) -> Result<Prepared> {
        let _held = self.directory_lock()?;
        let prepared = self.segments.take(record_bytes, filling)?;
        self.prepare_ahead();
        Ok(prepared)
    }

    /// Takes the segment in which the log goes on behind a cut, and begins with small ones again:
    /// who cuts often must not fill the disk with large segments that hold next to nothing.
    ///
    /// # Errors
    ///
    /// As [`Segments::take`].
    pub(crate) fn take_segment_behind_cut(self: &Arc<Self>) -> Result<Prepared> {
        let _held = self.directory_lock()?;
        let prepared = self.segments.take(0, Filling::Synced)?;
        self.segments.restart_growth();
        self.prepare_ahead();
        Ok(prepared)
    }

    /// The segments that hold the log are others now.
    pub(crate) fn observe_live(&self) {
        if Observer::IS_ON {
            self.spans.with_live(|segments, bytes| self.observer.live(segments, bytes));
        }
    }

    /// Has the background get the next segment ready.
    pub(crate) fn prepare_ahead(self: &Arc<Self>) {
        // If there is no thread to be had, the appender who needs the segment prepares it.
        let _ = self.spawn(JobKind::Prepare, Duration::ZERO, |log| {
            if let Ok(_held) = log.directory_lock() {
                log.segments.prepare_ahead();
            }
        });
    }

    /// Has the background recycle or remove segments that are not part of the log any more. While
    /// what was recovered may still be replayed from them, they stay for the next opening.
    pub(crate) fn recycle(self: &Arc<Self>, segment_ids: Vec<u64>) {
        if self.shared.replay_pin.is_held() {
            return;
        }
        self.give_back(segment_ids, |log, ids| log.segments.recycle(ids));
    }

    /// Has the background remove segments of any core, one that has no log in this opening too.
    pub(crate) fn remove_segments_of(self: &Arc<Self>, core: u16, segment_ids: Vec<u64>) {
        self.give_back(segment_ids, move |log, ids| {
            for &segment_id in ids {
                let name = format!("{}/{}", CoreDirectory(core), SegmentFile(segment_id));
                let _ = log.shared.storage.remove(&name);
            }
        });
    }

    /// Has the background do `work` with a few of these at a time: removing a file takes
    /// milliseconds, and whoever waits for a segment to be prepared must not wait for many.
    fn give_back(
        self: &Arc<Self>,
        segment_ids: Vec<u64>,
        work: impl Fn(&Self, &[u64]) + Clone + Send + Sync + 'static,
    ) {
        // If there is no thread to be had, the next opening removes them.
        let _ = self.spawn(JobKind::Prepare, Duration::ZERO, move |log| {
            let (now, later) =
                segment_ids.split_at_checked(GIVEN_BACK_AT_ONCE).unwrap_or((&segment_ids, &[]));
            let Ok(_held) = log.directory_lock() else { return };
            work(log, now);
            if !later.is_empty() {
                log.give_back(later.to_vec(), work.clone());
            }
        });
    }

    // ---- vouching ----

    /// Has the background vouch for what is durable once the core has been quiet for a second.
    pub(crate) fn schedule_vouch(self: &Arc<Self>) {
        if !self.vouch_is_scheduled.swap(true, Ordering::Relaxed) {
            self.vouch_after(QUIET_BEFORE_VOUCH);
        }
    }

    fn vouch_after(self: &Arc<Self>, delay: Duration) {
        let spawned = self.spawn(JobKind::Lead, delay, Self::vouch_if_quiet);
        if spawned.is_err() {
            self.vouch_is_scheduled.store(false, Ordering::Relaxed);
        }
    }

    fn vouch_if_quiet(self: &Arc<Self>) {
        let mut side = match self.try_device() {
            Ok(Some(side)) => side,
            // Somebody leads, so it is not quiet; and other cores' jobs must not wait for that.
            Ok(None) => return self.vouch_after(QUIET_BEFORE_VOUCH),
            Err(_) => return,
        };
        let quiet = self.shared.storage.now().saturating_sub(side.last_used);
        if let Some(rest) = QUIET_BEFORE_VOUCH.checked_sub(quiet).filter(|rest| !rest.is_zero()) {
            drop(side);
            return self.vouch_after(rest);
        }
        self.vouch_is_scheduled.store(false, Ordering::Relaxed);
        self.queue.trim();
        if let Err(cause) = side.vouch(self.shared.manifest_number(), false) {
            self.poison(cause);
        }
    }

    // ---- lives and ends ----

    /// Everything up to here, in the present life.
    pub(crate) fn goal(&self, open_batch: &OpenBatch) -> Goal {
        let (position, sequence) = (open_batch.position(), open_batch.sequence());
        Goal { position, sequence, life: self.queue.life() }
    }

    /// Makes `cause` final for this core's log, and gives what to tell the caller.
    pub(crate) fn poison(&self, cause: WalError) -> WalError {
        if self.queue.poison(cause.clone()) {
            self.observer.poisoned(&cause);
        }
        self.segments.stop();
        self.shared.bell.ring();
        // The caller itself may be at work, so nobody can be waited for.
        self.hold.let_go();
        self.queue.check().err().unwrap_or(cause)
    }

    /// Takes the appender's half for a writer.
    ///
    /// # Errors
    ///
    /// [`WalError::WriterTaken`].
    pub(crate) fn take_seat(&self) -> Result<OpenBatch> {
        let mut seat = self.seat();
        let taken = if seat.shared_writers == 0 { seat.open_batch.take() } else { None };
        taken.ok_or(WalError::WriterTaken { core: self.core })
    }

    /// Takes the appender's half back. Everything appended will be written; if no handle to the
    /// log is left, it is written now and the core's log is closed.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close), if that is what happened.
    pub(crate) fn return_seat(self: &Arc<Self>, mut open_batch: OpenBatch) -> Result<()> {
        self.shared.open_checkpoint.before_return(self, &mut open_batch);
        let mut seat = self.seat();
        seat.open_batch = Some(open_batch);
        self.leave_seat(seat)
    }

    /// Lets one more handle use the open batch where it is.
    ///
    /// # Errors
    ///
    /// [`WalError::WriterTaken`] if a writer holds it.
    pub(crate) fn share_seat(&self) -> Result<()> {
        let mut seat = self.seat();
        if seat.open_batch.is_none() {
            return Err(WalError::WriterTaken { core: self.core });
        }
        seat.shared_writers += 1;
        Ok(())
    }

    /// As [`share_seat`](Self::share_seat), for a handle made from another.
    pub(crate) fn share_seat_again(&self) {
        self.seat().shared_writers += 1;
    }

    /// Takes the appender's half back from a writer, to be shared by one handle at first.
    pub(crate) fn return_seat_shared(&self, open_batch: OpenBatch) {
        let mut seat = self.seat();
        seat.open_batch = Some(open_batch);
        seat.shared_writers = 1;
    }

    /// The end of one handle's use. The last one's is as [`return_seat`](Self::return_seat).
    pub(crate) fn unshare_seat(self: &Arc<Self>) {
        let mut seat = self.seat();
        seat.shared_writers = seat.shared_writers.saturating_sub(1);
        if seat.shared_writers == 0 {
            let log_is_gone = seat.log_is_gone;
            // An error is in the poison, for whoever still holds a part of the log.
            let _ = self.leave_seat(seat);
            if !log_is_gone {
                self.shared.open_checkpoint.after_return(self);
            }
        }
    }

    /// Whether nobody has the appender's half.
    pub(crate) fn is_unused(&self) -> bool {
        let seat = self.seat();
        seat.open_batch.is_some() && seat.shared_writers == 0
    }

    /// The open batch is closed where it is, before anybody else gets at the seat: whoever asks
    /// from now on for everything that was submitted means this too.
    fn leave_seat(self: &Arc<Self>, mut seat: MutexGuard<'_, Seat>) -> Result<()> {
        let Some(open_batch) = &mut seat.open_batch else {
            return Ok(());
        };
        open_batch.close_to_be_synced(self);
        let goal = self.goal(open_batch);
        let to_be_closed = if seat.log_is_gone { seat.open_batch.take() } else { None };
        drop(seat);
        if let Some(mut open_batch) = to_be_closed {
            return self.finish(&mut open_batch);
        }
        if !self.hand_over(goal) {
            self.lead_to(goal, Wanted::Now, None)?;
        }
        Ok(())
    }

    /// Appends to the open batch where it is, once no buffer need be waited for, and returns what
    /// covers that, and what `append` did. For the wait the open batch is given up: whoever leads
    /// may want to close it.
    ///
    /// # Errors
    ///
    /// [`WalError::WriterTaken`] if a writer holds it; what `append` returns.
    pub(crate) fn append_in_seat<T>(
        self: &Arc<Self>,
        record_bytes: usize,
        append: impl Fn(&mut OpenBatch, &Arc<Self>) -> Result<T>,
    ) -> Result<(Goal, T)> {
        loop {
            let tried = self.with_batch_in_seat(|open_batch| {
                let buffers = open_batch.buffers_needed(self, record_bytes);
                if buffers > 0 && self.queue.has_buffers(buffers).is_err() {
                    return Ok(Err(buffers));
                }
                let appended = append(open_batch, self)?;
                Ok(Ok((self.goal(open_batch), appended)))
            })?;
            match tried {
                Ok(appended) => return Ok(appended),
                Err(buffers) => self.await_buffers(buffers)?,
            }
        }
    }

    /// Uses the open batch where it is. Whatever `work` does, it must not wait for a leader.
    ///
    /// # Errors
    ///
    /// What `work` returns.
    pub(crate) fn with_batch_in_seat<T>(
        &self,
        work: impl FnOnce(&mut OpenBatch) -> Result<T>,
    ) -> Result<T> {
        match &mut self.seat().open_batch {
            Some(open_batch) => work(open_batch),
            None => Err(WalError::WriterTaken { core: self.core }),
        }
    }

    /// Closes the core's log: everything appended is durable, and the vouch block says that
    /// nothing follows. If its writer is still out, the writer's return does it.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`]; [`WalError::WriterTaken`] if the writer is still out.
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        let mut seat = self.seat();
        if seat.log_is_gone {
            return Ok(());
        }
        seat.log_is_gone = true;
        let is_shared = seat.shared_writers > 0;
        let Some(mut open_batch) = seat.open_batch.take_if(|_| !is_shared) else {
            return Err(WalError::WriterTaken { core: self.core });
        };
        drop(seat);
        self.finish(&mut open_batch)
    }

    fn finish(self: &Arc<Self>, open_batch: &mut OpenBatch) -> Result<()> {
        let closed = self.lead_everything_and_vouch(open_batch);
        // Jobs that are at work still hold the directory: whoever is told that the log is closed
        // may open it at once.
        self.segments.close();
        self.hold.let_go_and_wait();
        self.queue.close();
        self.shared.bell.ring();
        closed
    }

    fn lead_everything_and_vouch(self: &Arc<Self>, open_batch: &mut OpenBatch) -> Result<()> {
        self.lead_to(self.goal(open_batch), Wanted::Now, None)?;
        match open_batch.start_segment_to_vouch_in(self) {
            // What was recovered stays unproven: a pity, but nothing is lost.
            Err(error) if error.is_storage_full() => return Ok(()),
            started => started?,
        }
        let mut side = self.device()?;
        side.vouch(self.shared.manifest_number(), true).map_err(|cause| self.poison(cause))
    }

    /// # Errors
    ///
    /// [`WalError::Poisoned`] or [`WalError::Closed`].
    pub(crate) fn check_open(&self) -> Result<()> {
        self.queue.check()?;
        if self.queue.is_closed() { Err(self.shared.closed()) } else { Ok(()) }
    }

    /// Holds the directory for a piece of work.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`] or [`WalError::Closed`].
    pub(crate) fn directory_lock(&self) -> Result<Held<'_>> {
        self.queue.check()?;
        self.hold.hold().ok_or_else(|| self.shared.closed())
    }

    fn spawn(
        self: &Arc<Self>,
        kind: JobKind,
        delay: Duration,
        work: impl Fn(&Arc<Self>) + Send + Sync + 'static,
    ) -> Result<()> {
        let log = Arc::downgrade(self);
        let job = move || {
            if let Some(log) = log.upgrade() {
                work(&log);
            }
        };
        self.shared.storage.spawn(kind, delay, Arc::new(job))
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
