//! Background jobs: one thread for each kind, there while there is something to do.
//!
//! The thread of a kind is started by the first job and ends after [`IDLE`] without any. All
//! decisions are taken under one mutex per kind, which is never held while a job runs, is dropped
//! or panics.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::storage::{Job, JobKind};

/// How long a thread waits for another job before it ends. Starting one takes some tens of
/// microseconds, so this only has to be long against a busy log's pauses.
const IDLE: Duration = Duration::from_secs(5);

/// The longest single wait, for the systems that cannot wait for centuries at once.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// The background threads of one directory.
pub(crate) struct Jobs {
    lead: Arc<Queue>,
    prepare: Arc<Queue>,
}

impl Jobs {
    pub(crate) fn new(clock: Clock) -> Self {
        Self::with_idle(clock, IDLE)
    }

    fn with_idle(clock: Clock, idle: Duration) -> Self {
        let queue = |thread_name| Arc::new(Queue::new(thread_name, clock, idle));
        Self { lead: queue("wal-lead"), prepare: queue("wal-prepare") }
    }

    /// Runs `job` on the thread of its kind when `delay` has passed, after all jobs of this kind
    /// that are due earlier, or at the same moment and came earlier.
    pub(crate) fn spawn(&self, kind: JobKind, delay: Duration, job: Job) -> io::Result<()> {
        let queue = match kind {
            JobKind::Lead => &self.lead,
            JobKind::Prepare => &self.prepare,
        };
        Queue::push(queue, delay, job)
    }
}

impl Drop for Jobs {
    /// Drops what has not begun and tells the threads to end. Does not wait for them: a segment
    /// being prepared may take long, and the last owner may be a job on one of these threads.
    fn drop(&mut self) {
        self.lead.close();
        self.prepare.close();
    }
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs")
            .field("lead_waiting", &self.lead.state().waiting.len())
            .field("prepare_waiting", &self.prepare.state().waiting.len())
            .finish()
    }
}

struct Queue {
    thread_name: &'static str,
    clock: Clock,
    idle: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// By the moment at which they are due, then by arrival.
    waiting: BTreeMap<(Duration, u64), Job>,
    arrivals: u64,
    /// A thread is in [`Queue::work`], and will look at `waiting` before it leaves.
    has_thread: bool,
    closed: bool,
}

impl Queue {
    fn new(thread_name: &'static str, clock: Clock, idle: Duration) -> Self {
        let state =
            State { waiting: BTreeMap::new(), arrivals: 0, has_thread: false, closed: false };
        Self { thread_name, clock, idle, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn push(queue: &Arc<Self>, delay: Duration, job: Job) -> io::Result<()> {
        let mut state = queue.state();
        let key = (queue.clock.now().saturating_add(delay), state.arrivals);
        state.arrivals = state.arrivals.wrapping_add(1);
        state.waiting.insert(key, job);
        if state.has_thread {
            drop(state);
            queue.changed.notify_one();
            return Ok(());
        }

        let worker = Arc::clone(queue);
        let started =
            thread::Builder::new().name(queue.thread_name.to_owned()).spawn(move || worker.work());
        match started {
            Ok(_detached) => {
                state.has_thread = true;
                Ok(())
            }
            Err(error) => {
                let refused = state.waiting.remove(&key);
                drop(state);
                contain_panic(|| drop(refused));
                Err(error)
            }
        }
    }

    fn work(&self) {
        let mut state = self.state();
        while !state.closed {
            let now = self.clock.now();
            match state.waiting.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let job = first.remove();
                    drop(state);
                    contain_panic(move || job());
                    state = self.state();
                }
                Some(first) => {
                    let until_due = first.key().0.saturating_sub(now);
                    state = self.wait(state, until_due).0;
                }
                None => {
                    let (woken, timed_out) = self.wait(state, self.idle);
                    state = woken;
                    if timed_out && state.waiting.is_empty() {
                        break;
                    }
                }
            }
        }
        // Under the same lock as the last look at `waiting`: a job pushed from now on starts a
        // thread of its own.
        state.has_thread = false;
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        at_most: Duration,
    ) -> (MutexGuard<'a, State>, bool) {
        let (state, result) = self
            .changed
            .wait_timeout(state, at_most.min(LONGEST_WAIT))
            .unwrap_or_else(PoisonError::into_inner);
        (state, result.timed_out())
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let abandoned = mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        for job in abandoned.into_values() {
            contain_panic(|| drop(job));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock, and a half-done change of the map is not
        // among what a panic elsewhere could leave: the state is good whatever the flag says.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work`; a panic ends here (the panic hook has reported it by then).
fn contain_panic(work: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
        // What was thrown may panic once more when it is dropped. What that throws is leaked:
        // there is no end to it otherwise.
        if let Err(thrown_by_drop) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(thrown_by_drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};
    use std::time::Instant;

    use super::*;

    /// Far above what any machine needs, far below anybody's patience.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn jobs_with_idle(idle: Duration) -> Jobs {
        Jobs::with_idle(Clock::new(), idle)
    }

    fn eventually(what: &str, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn next<T>(receiver: &Receiver<T>) -> T {
        receiver.recv_timeout(PATIENCE).expect("a job should have run by now")
    }

    #[test]
    fn an_idle_thread_ends_and_a_later_job_starts_a_new_one() {
        let jobs = jobs_with_idle(Duration::from_millis(10));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..3 {
            let sender = sender.clone();
            jobs.spawn(
                JobKind::Lead,
                Duration::ZERO,
                Arc::new(move || {
                    sender.send(thread::current().id()).unwrap();
                }),
            )
            .unwrap();
            next(&receiver);
            eventually("the thread ends", || !jobs.lead.state().has_thread);
            eventually("it lets go of the queue", || Arc::strong_count(&jobs.lead) == 1);
        }
    }

    #[test]
    fn a_thread_that_waits_ends_with_its_owner_and_not_when_it_gets_bored() {
        let jobs = jobs_with_idle(100 * PATIENCE);
        let (sender, receiver) = mpsc::channel();
        jobs.spawn(JobKind::Lead, Duration::ZERO, Arc::new(move || sender.send(()).unwrap()))
            .unwrap();
        jobs.spawn(JobKind::Prepare, 100 * PATIENCE, Arc::new(|| {})).unwrap();
        next(&receiver);
        let queues = [Arc::clone(&jobs.lead), Arc::clone(&jobs.prepare)];
        drop(jobs);
        for queue in queues {
            eventually("the thread lets go of the queue", || Arc::strong_count(&queue) == 1);
        }
    }

    #[test]
    fn jobs_due_at_the_same_moment_stand_in_the_order_they_came_in() {
        let jobs = jobs_with_idle(PATIENCE);
        let (sender, receiver) = mpsc::channel();
        for number in 0..20 {
            let sender = sender.clone();
            // All due at the end of time.
            jobs.spawn(
                JobKind::Lead,
                Duration::MAX,
                Arc::new(move || sender.send(number).unwrap()),
            )
            .unwrap();
        }
        let waiting = mem::take(&mut jobs.lead.state().waiting);
        for (job, number) in waiting.into_values().zip(0..20) {
            job();
            assert_eq!(next(&receiver), number);
        }
    }

    #[test]
    fn a_thread_with_a_delayed_job_is_not_idle() {
        let jobs = jobs_with_idle(Duration::from_millis(1));
        let (sender, receiver) = mpsc::channel();
        let started = Instant::now();
        let delay = Duration::from_millis(60);
        jobs.spawn(JobKind::Prepare, delay, Arc::new(move || sender.send(()).unwrap())).unwrap();
        next(&receiver);
        assert!(started.elapsed() >= delay);
    }

    #[test]
    fn a_delay_longer_than_time_itself_is_kept() {
        let jobs = jobs_with_idle(Duration::from_millis(1));
        let (sender, receiver) = mpsc::channel();
        let never = sender.clone();
        jobs.spawn(JobKind::Lead, Duration::MAX, Arc::new(move || never.send("never").unwrap()))
            .unwrap();
        jobs.spawn(JobKind::Lead, Duration::ZERO, Arc::new(move || sender.send("now").unwrap()))
            .unwrap();
        assert_eq!(next(&receiver), "now");
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    }

    #[test]
    fn a_payload_that_panics_when_dropped_harms_nobody() {
        struct Spiteful;
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic!("thrown by a dropped payload");
            }
        }

        let jobs = jobs_with_idle(PATIENCE);
        let (sender, receiver) = mpsc::channel();
        jobs.spawn(JobKind::Lead, Duration::ZERO, Arc::new(|| std::panic::panic_any(Spiteful)))
            .unwrap();
        jobs.spawn(JobKind::Lead, Duration::ZERO, Arc::new(move || sender.send(()).unwrap()))
            .unwrap();
        next(&receiver);
    }
}
