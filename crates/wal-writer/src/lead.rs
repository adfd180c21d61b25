//! Leading: a turn at the device side of one core's log, or of several at once.
//!
//! A leader takes what is closed, writes it, syncs if somebody waits, frees the device side, and
//! only then wakes whom it served: in this order, or nobody would ever lead again.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use wal_storage::{Request, Result, Storage, WalError};

use crate::core_log::{CoreLog, LogShared};
use crate::device::{Device, Slices, Step};
use crate::directory_hold::Held;
use crate::observer::Observer;
use crate::queue::{Awaited, Goal, Wanted};
use crate::sync::{Instant, MutexGuard, yield_now};

/// How long a leader waits for those whom the last commit served to come again.
const GATHER_TIME: Duration = Duration::from_micros(30);

/// The same, where time stands still.
const GATHER_YIELDS_MAX: usize = 200;

impl CoreLog {
    /// Makes `goal` durable, in this thread or by waiting for the one that leads. `false` if the
    /// deadline came first; a sync that was begun is finished before.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`], [`WalError::Closed`].
    pub(crate) fn lead_to(
        self: &Arc<Self>,
        goal: Goal,
        wanted: Wanted,
        deadline: Option<Instant>,
    ) -> Result<bool> {
        if let Some(settled) = self.queue.settled(goal) {
            return settled.map(|()| true);
        }
        let now = || self.shared.storage.now();
        self.queue.want(goal, wanted, now);
        loop {
            match self.queue.await_turn(goal, deadline, now) {
                Awaited::Settled(settled) => return settled.map(|()| true),
                Awaited::TimedOut => return Ok(false),
                Awaited::Lead => {
                    if let Err(error) = self.lead_claimed() {
                        return self.queue.settled(goal).unwrap_or(Err(error)).map(|()| true);
                    }
                }
            }
        }
    }

    /// A turn of this core alone, whose device side this thread has claimed.
    fn lead_claimed(self: &Arc<Self>) -> Result<()> {
        let mut side = DeviceSide::of_claimed(self)?;
        side.gather();
        side.lead()
    }

    /// Takes the device side, after whoever has it.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`], also if a leader panicked and left who knows what half done;
    /// [`WalError::Closed`].
    pub(crate) fn device(self: &Arc<Self>) -> Result<DeviceSide<'_>> {
        self.queue.claim();
        DeviceSide::of_claimed(self)
    }

    /// Takes the device side, if nobody has it.
    ///
    /// # Errors
    ///
    /// As [`device`](Self::device).
    pub(crate) fn try_device(self: &Arc<Self>) -> Result<Option<DeviceSide<'_>>> {
        if self.queue.try_claim() { DeviceSide::of_claimed(self).map(Some) } else { Ok(None) }
    }
}

/// Makes the goals of several cores durable, side by side as far as nobody else leads there.
///
/// # Errors
///
/// The first core's that fails; the others are led in any case.
pub(crate) fn lead_all_to(log: &LogShared, goals: &[(&Arc<CoreLog>, Goal)]) -> Result<()> {
    let is_open = |(core, goal): &&(&Arc<CoreLog>, Goal)| core.queue.settled(*goal).is_none();
    for (core, goal) in goals.iter().filter(is_open) {
        core.queue.want(*goal, Wanted::Now, || log.storage.now());
    }
    loop {
        let open = goals.iter().filter(is_open);
        // An error is in the poison.
        let sides = open.filter_map(|(core, _)| core.try_device().ok().flatten());
        let mut sides: Vec<DeviceSide<'_>> = sides.collect();
        if sides.is_empty() {
            break;
        }
        if lead_together(&*log.storage, &mut sides).is_err() {
            break;
        }
    }
    let mut result = Ok(());
    for (core, goal) in goals {
        let led = core.lead_to(*goal, Wanted::Now, None).map(|_| ());
        result = result.and(led);
    }
    result
}

/// A turn of several cores at once: their writes go to the device side by side.
///
/// # Errors
///
/// The first core's that failed, which is poisoned; the others are led in any case.
pub(crate) fn lead_together(storage: &dyn Storage, sides: &mut [DeviceSide<'_>]) -> Result<()> {
    if let [side] = sides {
        return side.lead();
    }
    sides.iter_mut().for_each(DeviceSide::take);
    let mut result = Ok(());
    loop {
        let steps: Vec<Option<Step>> = sides.iter_mut().map(|side| side.next_step()).collect();
        if steps.iter().all(Option::is_none) {
            break;
        }
        let mut lists: Vec<Slices<'_>> = vec![[&[]; _]; sides.len()];
        let of_each = sides.iter().zip(&steps).zip(&mut lists);
        let requests: Vec<Request<'_>> =
            of_each.filter_map(|((side, step), slices)| side.request((*step)?, slices)).collect();
        let mut results = storage.perform(&requests).into_iter();
        for (side, step) in sides.iter_mut().zip(steps) {
            if let Some(step) = step {
                let done = results.next().unwrap_or_else(|| Err(no_result()));
                let done = side.step_done(step, done);
                result = result.and(done);
            }
        }
    }
    sides.iter_mut().for_each(DeviceSide::finish);
    result
}

/// The device side of a core's log, taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct DeviceSide<'a> {
    log: &'a Arc<CoreLog>,
    // These are dropped in this order: who is woken by the end of the turn finds the device free.
    device: MutexGuard<'a, Device>,
    _held: Held<'a>,
    _turn: EndTurn<'a>,
}

impl<'a> DeviceSide<'a> {
    /// For the thread that has claimed it. Ends the turn also if this fails.
    ///
    /// # Errors
    ///
    /// As [`CoreLog::device`].
    pub(crate) fn of_claimed(log: &'a Arc<CoreLog>) -> Result<Self> {
        let turn = EndTurn { log, was_panicking: std::thread::panicking() };
        let held = log.directory_lock()?;
        let device = log.lock_device().map_err(|_| leader_panicked(log))?;
        Ok(Self { log, device, _held: held, _turn: turn })
    }

    /// Lets those come whom the last commit served: they are about to wait for the next one, and
    /// a commit serves many for the price of one.
    pub(crate) fn gather(&self) {
        let queue = &self.log.queue;
        let Some(expected) = queue.arrivals_expected() else {
            return;
        };
        let storage = &self.log.shared.storage;
        let until = storage.now().saturating_add(GATHER_TIME);
        for _ in 0..GATHER_YIELDS_MAX {
            if queue.arrivals() >= expected || storage.now() >= until {
                return;
            }
            yield_now();
        }
    }

    /// Writes closed batches, and makes them durable if somebody waits for that.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`], if the device failed.
    pub(crate) fn lead(&mut self) -> Result<()> {
        self.take();
        let mut result = Ok(());
        while let Some(step) = self.next_step() {
            let mut slices: Slices<'_> = [&[]; _];
            let request = self.request(step, &mut slices);
            let done = request.map_or_else(|| Err(no_result()), |request| request.perform());
            let done = self.step_done(step, done);
            result = result.and(done);
        }
        self.finish();
        result
    }

    fn take(&mut self) {
        self.log.close_shared_batch();
        let now = || self.log.shared.storage.now();
        let device = &mut *self.device;
        let taken = self.log.queue.take_closed(&mut device.batches, now);
        device.sync = taken.sync;
        device.entries = taken.entries;
        device.began = Observer::IS_ON.then(now);
    }

    fn step_done(&mut self, step: Step, result: Result<()>) -> Result<()> {
        match self.device.done(step, result) {
            Ok(()) => {
                self.log.queue.publish_durable(self.device.durable_position());
                Ok(())
            }
            Err(cause) => {
                // No further step.
                self.device.batches.clear();
                self.device.sync = false;
                Err(self.log.poison(cause))
            }
        }
    }

    fn finish(&mut self) {
        let now = self.log.shared.storage.now();
        self.device.last_used = now;
        for batch in &self.device.written {
            let entries = batch.end_sequence - batch.start_sequence;
            self.log.observer.wrote(entries, batch.end_position - batch.start_position);
        }
        self.log.queue.give_back(self.device.written.drain(..));
        if cfg!(wal_fault = "late_capture") && self.device.sync {
            // Breaks promise 1: what was closed while the device was busy, no sync has covered.
            self.log.queue.publish_durable(self.log.queue.closed().position);
        }
        if self.device.sync {
            if let Some(began) = self.device.began {
                self.log.observer.committed(self.device.entries, now.saturating_sub(began));
            }
            self.log.schedule_vouch();
        }
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

/// Ends the turn of the thread that claimed the device side.
#[derive(Debug)]
struct EndTurn<'a> {
    log: &'a Arc<CoreLog>,
    was_panicking: bool,
}

impl Drop for EndTurn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            leader_panicked(self.log);
        }
        let log = self.log;
        if let Some(delay) = log.queue.end_turn(|| log.shared.storage.now()) {
            log.shared.ring(delay);
        }
    }
}

#[cold]
fn leader_panicked(log: &CoreLog) -> WalError {
    log.poison(WalError::InvalidArgument {
        what: "a thread panicked while it wrote to the log".into(),
    })
}

/// What only a storage that breaks its contract brings about.
#[cold]
fn no_result() -> WalError {
    WalError::InvalidArgument { what: "the storage did not say how a write ended".into() }
}
