//! Leading in the background: for whoever cannot lead, and for full buffers that nobody waits for.
//!
//! One job for all cores of a log. Each of its runs is one turn of all cores that have something
//! to do, side by side; a core that still has something to do then rings again, behind whoever
//! else waits for the background.

use std::fmt;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use wal_storage::{Job, JobKind, Storage};

use crate::core_log::LogShared;
use crate::lead::{DeviceSide, lead_together};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, yield_now};

/// How long the background waits for more to do before its thread goes to sleep.
const LINGER_TIME: Duration = Duration::from_micros(50);

pub(crate) struct Committer {
    job: Job,
    /// For when the job's next run is ordered, by the storage's clock.
    ordered_for: Mutex<Option<Duration>>,
    /// The last order found no thread to run it.
    has_no_thread: AtomicBool,
}

impl Committer {
    pub(crate) fn new(log: Weak<LogShared>) -> Self {
        let job: Job = Arc::new(move || {
            if let Some(log) = log.upgrade() {
                commit(&log);
            }
        });
        Self { job, ordered_for: Mutex::new(None), has_no_thread: AtomicBool::new(false) }
    }

    /// Orders a run for when `delay` has passed, unless one is ordered for then or earlier.
    /// `false` if the storage has no thread to run it.
    pub(crate) fn ring(&self, log: &LogShared, delay: Duration) -> bool {
        let at = if delay.is_zero() { delay } else { log.storage.now().saturating_add(delay) };
        let mut ordered_for = self.ordered_for.lock().unwrap_or_else(PoisonError::into_inner);
        if ordered_for.is_some_and(|ordered| ordered <= at) {
            return true;
        }
        // Under the lock: nobody may rely on an order that then finds no thread.
        let ordered = log.storage.spawn(JobKind::Lead, delay, Arc::clone(&self.job)).is_ok();
        *ordered_for = ordered.then_some(at);
        self.has_no_thread.store(!ordered, Ordering::Relaxed);
        ordered
    }

    /// Whether, as far as is known, the storage has a thread to run what is ordered. Who was
    /// promised to be served, and is woken although he was not, asks this.
    pub(crate) fn has_thread(&self) -> bool {
        !self.has_no_thread.load(Ordering::Relaxed)
    }

    /// Stays awake for a moment, in case those who were just served come again: to fall asleep and
    /// be woken takes as long as a commit. Not where time stands still.
    fn linger(&self, storage: &dyn Storage) {
        let begin = storage.now();
        loop {
            yield_now();
            let passed = storage.now().saturating_sub(begin);
            if passed.is_zero() || passed >= LINGER_TIME || self.is_ordered() {
                return;
            }
        }
    }

    fn is_ordered(&self) -> bool {
        self.ordered_for.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn forget_order(&self) {
        *self.ordered_for.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer").field("ordered_for", &self.ordered_for).finish_non_exhaustive()
    }
}

fn commit(log: &LogShared) {
    // First of all: what is asked for from now on needs another run.
    log.committer.forget_order();
    let cores = log.cores();
    let mut sides: Vec<DeviceSide<'_>> = Vec::with_capacity(cores.len());
    let mut later: Option<Duration> = None;
    for core in &cores {
        match core.queue.background_work(|| log.storage.now()) {
            None => {}
            Some(delay) if delay.is_zero() => {
                // An error is in the poison, for those who wait.
                sides.extend(core.try_device().ok().flatten());
            }
            Some(delay) => later = Some(later.map_or(delay, |earlier| earlier.min(delay))),
        }
    }
    if let [side] = &sides[..] {
        side.gather();
    }
    let _ = lead_together(&*log.storage, &mut sides);
    let has_led = !sides.is_empty();
    drop(sides);
    if let Some(delay) = later {
        log.ring(delay);
    }
    if has_led {
        log.committer.linger(&*log.storage);
    }
}
