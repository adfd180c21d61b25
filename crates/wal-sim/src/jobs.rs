//! Background work that waits until the test says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wal_storage::{Job, JobKind};

use crate::random::Random;

/// The jobs of one machine. Its lock is never held while a job runs, so jobs may spawn jobs.
pub(crate) struct Jobs {
    queue: Mutex<Queue>,
}

struct Queue {
    random: Random,
    waiting: Vec<Waiting>,
    /// Kinds of which a job runs at this moment, here or on another thread: jobs of one kind run
    /// one after the other.
    running: Vec<JobKind>,
    spawned: u64,
    panicked: u64,
}

struct Waiting {
    kind: JobKind,
    due: Duration,
    /// Breaks ties of `due`: first come, first served.
    number: u64,
    job: Job,
}

impl Jobs {
    pub(crate) const fn new(random: Random) -> Self {
        let queue =
            Queue { random, waiting: Vec::new(), running: Vec::new(), spawned: 0, panicked: 0 };
        Self { queue: Mutex::new(queue) }
    }

    pub(crate) fn spawn(&self, kind: JobKind, due: Duration, job: Job) {
        let mut queue = self.queue();
        let number = queue.spawned;
        queue.spawned += 1;
        queue.waiting.push(Waiting { kind, due, number, job });
    }

    /// Runs one job that is due at `now`, if there is one that may run.
    pub(crate) fn run_one(&self, now: Duration) -> bool {
        let Some(Waiting { kind, job, .. }) = self.queue().take(now) else {
            return false;
        };
        let ended = catch_unwind(AssertUnwindSafe(move || job()));
        let mut queue = self.queue();
        queue.running.retain(|running| *running != kind);
        queue.panicked += u64::from(ended.is_err());
        true
    }

    pub(crate) fn pending(&self) -> usize {
        self.queue().waiting.len()
    }

    pub(crate) fn pending_of(&self, kind: JobKind) -> usize {
        self.queue().waiting.iter().filter(|waiting| waiting.kind == kind).count()
    }

    pub(crate) fn panicked(&self) -> u64 {
        self.queue().panicked
    }

    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.queue().waiting.iter().map(|waiting| waiting.due).min()
    }

    pub(crate) fn forget_all(&self) -> usize {
        // Dropped outside the lock: a job may own something whose drop spawns a job.
        let forgotten = std::mem::take(&mut self.queue().waiting);
        forgotten.len()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Takes the first due job of a kind that the seed chooses.
    fn take(&mut self, now: Duration) -> Option<Waiting> {
        let mut kinds: Vec<JobKind> = Vec::new();
        for waiting in self.waiting.iter().filter(|waiting| waiting.due <= now) {
            if !kinds.contains(&waiting.kind) && !self.running.contains(&waiting.kind) {
                kinds.push(waiting.kind);
            }
        }
        if kinds.is_empty() {
            return None;
        }
        let kind = kinds[self.random.index(kinds.len())];
        let of_kind = self.waiting.iter().enumerate().filter(|(_, waiting)| waiting.kind == kind);
        let (index, _) = of_kind.min_by_key(|(_, waiting)| (waiting.due, waiting.number))?;
        self.running.push(kind);
        Some(self.waiting.remove(index))
    }
}
