//! One core's log while it is open: what its writer, its sync requests and its background jobs
//! share.
//!
//! Lock order: seat, device side, queue; the locks of segments and manifest are taken below
//! these and hold no other.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use wal_entry::RecordBuffer;
use wal_format::{LogId, Manifest};
use wal_recovery::ReplayPin;
use wal_storage::{DirectoryLock, Job, JobKind, Result, Storage, WalError};

use crate::device::Device;
use crate::directory_hold::{DirectoryHold, Held};
use crate::manifest_store::ManifestStore;
use crate::open_batch::OpenBatch;
use crate::options::LogOptions;
use crate::queue::Queue;
use crate::segments::{Filling, Prepared, Segments};

/// How long a core must be quiet before its vouch block says how far it is durable.
const QUIET_BEFORE_VOUCH: Duration = Duration::from_secs(1);

/// What all cores of a log share.
#[derive(Debug)]
pub(crate) struct LogShared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: LogOptions,
    pub(crate) log_id: LogId,
    manifest: ManifestStore,
    /// Held while what was recovered may still be replayed from its files.
    replay_pin: ReplayPin,
    cores: Mutex<Vec<Weak<CoreLog>>>,
}

/// One core's log.
#[derive(Debug)]
pub(crate) struct CoreLog {
    pub(crate) core: u16,
    pub(crate) shared: Arc<LogShared>,
    pub(crate) queue: Queue,
    pub(crate) segments: Segments,
    device: Mutex<Device>,
    write_job: WriteJob,
    write_is_scheduled: AtomicBool,
    seat: Mutex<Seat>,
    /// Held while this core's log may touch the disk: closing and poison let go of it.
    hold: DirectoryHold,
    /// Counts openings and cuts, so that a proof of a sync from before one is known.
    life: AtomicU64,
    vouch_is_scheduled: AtomicBool,
}

/// Where the appender's half stays while no writer is out.
#[derive(Debug)]
struct Seat {
    open_batch: Option<OpenBatch>,
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
    ) -> Arc<Self> {
        Arc::new(Self { storage, options, log_id, manifest, replay_pin, cores: Mutex::default() })
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
    /// [`WalError::StorageFull`] with nothing changed; after anything else every core of the log
    /// is poisoned.
    pub(crate) fn replace_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Result<()> {
        self.manifest.replace(change).inspect_err(|cause| {
            if !cause.is_storage_full() {
                for core in self.cores() {
                    core.poison(cause.clone());
                }
            }
        })
    }

    fn cores(&self) -> Vec<Arc<CoreLog>> {
        let cores = self.cores.lock().unwrap_or_else(PoisonError::into_inner);
        cores.iter().filter_map(Weak::upgrade).collect()
    }

    fn closed(&self) -> WalError {
        WalError::Closed { path: self.storage.path().to_path_buf() }
    }
}

impl CoreLog {
    /// `life` tells this opening from every other.
    pub(crate) fn new(
        shared: &Arc<LogShared>,
        core: u16,
        open_batch: OpenBatch,
        segments: Segments,
        lock: DirectoryLock,
        life: u64,
    ) -> Arc<Self> {
        let (end, epoch) = (open_batch.position(), open_batch.last_epoch());
        let options = &shared.options;
        let log = Arc::new_cyclic(|log| Self {
            core,
            shared: Arc::clone(shared),
            queue: Queue::new(core, end, options.buffers(), options.batch_bytes),
            segments,
            device: Mutex::new(Device::new(end, epoch)),
            seat: Mutex::new(Seat { open_batch: Some(open_batch), log_is_gone: false }),
            hold: DirectoryHold::new(lock),
            life: AtomicU64::new(life),
            write_job: WriteJob(job(log.clone(), |log| {
                // First of all: what is closed from now on needs another run.
                log.write_is_scheduled.store(false, Ordering::Release);
                // One turn, then whoever else waits for the background: an appender that never
                // stops must not keep it from other cores.
                let turn = log.device().and_then(|device| log.lead(device));
                if let Ok(false) = turn {
                    log.write_behind();
                }
            })),
            write_is_scheduled: AtomicBool::new(false),
            vouch_is_scheduled: AtomicBool::new(false),
        });
        shared.cores.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&log));
        log
    }

    // ---- making durable ----

    /// Makes everything that was closed before durable up to `position` at least, in this thread
    /// or by waiting for the one that leads.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`].
    pub(crate) fn lead_to(self: &Arc<Self>, position: u64) -> Result<()> {
        if self.queue.durable_position() >= position {
            return Ok(());
        }
        self.queue.want(position);
        // Whoever led while this thread waited for its turn has covered it, if it was closed by then.
        while self.queue.durable_position() < position && !self.lead(self.device()?)? {}
        self.schedule_vouch();
        Ok(())
    }

    /// Has the background hand what is closed to the kernel, while the appender fills the next
    /// buffer. Syncs only what somebody waits for.
    pub(crate) fn write_behind(self: &Arc<Self>) {
        if self.write_is_scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let job = Arc::clone(&self.write_job.0);
        if self.shared.storage.spawn(JobKind::Lead, Duration::ZERO, job).is_err() {
            // There is no thread to be had: the appender writes when it is out of buffers.
            self.write_is_scheduled.store(false, Ordering::Release);
        }
    }

    /// A buffer for the next batch. If all are in flight, this thread writes some out, or waits for
    /// the one that does.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`].
    pub(crate) fn take_buffer(&self) -> Result<RecordBuffer> {
        let mut has_stalled = false;
        loop {
            self.queue.check()?;
            let turn = match self.queue.free_buffer() {
                Ok(buffer) => return Ok(buffer),
                Err(turn) => turn,
            };
            if !has_stalled {
                has_stalled = true;
                self.queue.count_stall();
            }
            match self.device.try_lock() {
                Ok(device) => {
                    self.lead(DeviceSide::new(device, &self.queue))?;
                }
                Err(TryLockError::WouldBlock) => self.queue.wait_for_buffer(turn),
                Err(TryLockError::Poisoned(_)) => return Err(self.leader_panicked()),
            }
        }
    }

    /// Has the background make everything closed durable.
    pub(crate) fn ring_committer(self: &Arc<Self>, position: u64) {
        self.queue.want(position);
        // If there is no thread to be had, the next one who syncs, or closes, does it.
        let _ = self.spawn(JobKind::Lead, Duration::ZERO, move |log| {
            let _ = log.lead_to(position);
        });
    }

    /// One turn at the device side: writes closed batches, and syncs if somebody waits for that and
    /// they are all that is waited for. Returns whether no closed batch is left.
    fn lead(&self, mut device: DeviceSide<'_>) -> Result<bool> {
        let _held = self.directory_lock()?;
        let mut batches = std::mem::take(&mut device.batches);
        let taken = self.queue.take_closed(&mut batches);
        let sync = taken.cover_wanted && taken.wanted_position > self.queue.durable_position();
        let written =
            device.write(&mut batches, sync, &mut |position| self.queue.publish_durable(position));
        device.last_used = self.shared.storage.now();
        match written {
            Ok(()) => {
                self.queue.give_back(batches.drain(..));
                device.batches = batches;
                Ok(taken.are_all)
            }
            Err(cause) => Err(self.poison(cause)),
        }
    }

    /// Takes the device side: the thread that holds it is the leader.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`], also if a leader panicked and left who knows what half done.
    pub(crate) fn device(&self) -> Result<DeviceSide<'_>> {
        let device = self.device.lock().map_err(|_| self.leader_panicked())?;
        let device = DeviceSide::new(device, &self.queue);
        self.queue.check()?;
        Ok(device)
    }

    #[cold]
    fn leader_panicked(&self) -> WalError {
        self.poison(WalError::InvalidArgument {
            what: "a thread panicked while it wrote to the log".into(),
        })
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
        // If there is no thread to be had, the next opening removes them.
        let _ = self.spawn(JobKind::Prepare, Duration::ZERO, move |log| {
            if let Ok(_held) = log.directory_lock() {
                log.segments.recycle(&segment_ids);
            }
        });
    }

    // ---- vouching ----

    /// Has the background vouch for what is durable once the core has been quiet for a second.
    fn schedule_vouch(self: &Arc<Self>) {
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
        let Ok(_held) = self.directory_lock() else {
            return;
        };
        let mut device = match self.device.try_lock() {
            Ok(device) => DeviceSide::new(device, &self.queue),
            // Somebody leads, so it is not quiet; and other cores' jobs must not wait for that.
            Err(TryLockError::WouldBlock) => return self.vouch_after(QUIET_BEFORE_VOUCH),
            Err(TryLockError::Poisoned(_)) => return,
        };
        let quiet = self.shared.storage.now().saturating_sub(device.last_used);
        if let Some(rest) = QUIET_BEFORE_VOUCH.checked_sub(quiet).filter(|rest| !rest.is_zero()) {
            drop(device);
            return self.vouch_after(rest);
        }
        self.vouch_is_scheduled.store(false, Ordering::Relaxed);
        self.queue.trim();
        if let Err(cause) = device.vouch(self.shared.manifest_number(), false) {
            self.poison(cause);
        }
    }

    // ---- lives and ends ----

    /// Tells this opening, and the time since its last cut, from every other.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    pub(crate) fn begin_new_life(&self) {
        self.life.fetch_add(1, Ordering::AcqRel);
    }

    /// Makes `cause` final for this core's log, and gives what to tell the caller.
    pub(crate) fn poison(&self, cause: WalError) -> WalError {
        self.queue.poison(cause.clone());
        self.segments.stop();
        // The caller itself may be at work, so nobody can be waited for.
        self.hold.let_go();
        self.queue.check().err().unwrap_or(cause)
    }

    /// Takes the appender's half for a writer.
    pub(crate) fn take_seat(&self) -> Result<OpenBatch> {
        self.seat().open_batch.take().ok_or(WalError::WriterTaken { core: self.core })
    }

    /// Takes the appender's half back. Everything appended will be written; if no handle to the
    /// log is left, it is written now and the core's log is closed.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close), if that is what happened.
    pub(crate) fn return_seat(self: &Arc<Self>, mut open_batch: OpenBatch) -> Result<()> {
        open_batch.close_to_be_synced(self);
        let position = open_batch.position();
        let mut seat = self.seat();
        if seat.log_is_gone {
            drop(seat);
            return self.finish(&mut open_batch);
        }
        seat.open_batch = Some(open_batch);
        drop(seat);
        if position > self.queue.durable_position() {
            self.ring_committer(position);
        }
        Ok(())
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
        let Some(mut open_batch) = seat.open_batch.take() else {
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
        closed
    }

    fn lead_everything_and_vouch(self: &Arc<Self>, open_batch: &mut OpenBatch) -> Result<()> {
        let _held = self.directory_lock()?;
        self.lead_to(open_batch.position())?;
        match open_batch.start_segment_to_vouch_in(self) {
            // What was recovered stays unproven: a pity, but nothing is lost.
            Err(error) if error.is_storage_full() => return Ok(()),
            started => started?,
        }
        let mut device = self.device()?;
        device.vouch(self.shared.manifest_number(), true).map_err(|cause| self.poison(cause))
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
        self.shared.storage.spawn(kind, delay, job(Arc::downgrade(self), work))
    }

    fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that does `work` on a core's log, if it is still there.
fn job(log: Weak<CoreLog>, work: impl Fn(&Arc<CoreLog>) + Send + Sync + 'static) -> Job {
    Arc::new(move || {
        if let Some(log) = log.upgrade() {
            work(&log);
        }
    })
}

/// Writes behind the appender.
struct WriteJob(Job);

impl fmt::Debug for WriteJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteJob").finish_non_exhaustive()
    }
}

/// The device side, taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct DeviceSide<'a> {
    // Fields are dropped in this order: who is woken by the end of the turn finds the device free.
    device: MutexGuard<'a, Device>,
    _turn: EndTurn<'a>,
}

impl<'a> DeviceSide<'a> {
    const fn new(device: MutexGuard<'a, Device>, queue: &'a Queue) -> Self {
        Self { device, _turn: EndTurn(queue) }
    }
}

impl Deref for DeviceSide<'_> {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

impl DerefMut for DeviceSide<'_> {
    fn deref_mut(&mut self) -> &mut Device {
        &mut self.device
    }
}

#[derive(Debug)]
struct EndTurn<'a>(&'a Queue);

impl Drop for EndTurn<'_> {
    fn drop(&mut self) {
        self.0.end_turn();
    }
}
