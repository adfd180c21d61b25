//! The commit protocol in every interleaving of a few threads.
//!
//! What runs is [`Queue`] itself, down to the futex under its waiting places. Around it stands as
//! much of a core's log as the protocol needs: an open batch behind a lock, a device that is
//! written in two steps and notices when two threads are at it, a background thread with a bell.
//! Each model ends when all of its threads do; one that sleeps for ever is a deadlock, and the
//! checker says so.
//!
//! A model of three threads has too many interleavings to walk through all of them; those are
//! bounded in how often a thread is stopped where it could have gone on. `LOOM_MAX_PREEMPTIONS`
//! sets another bound.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say so and stop"
)]

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use loom::thread;
use wal_entry::RecordBuffer;
use wal_sim::SimStorage;
use wal_storage::{Access, Result, Storage, WalError};

use crate::batch::Batch;
use crate::options::LogOptions;
use crate::queue::{Awaited, Goal, Queue, Wanted};
use crate::segments::Segment;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};

#[test]
fn two_threads_lead_in_turn_and_each_is_served() {
    explore("two threads", 4, || {
        let log = Log::new();
        let other = log.spawn(Log::append_and_wait);
        log.append_and_wait();
        other.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn of_three_threads_one_leads_for_the_others() {
    explore("three threads", 3, || {
        let log = Log::new();
        let others = [log.spawn(Log::append_and_wait), log.spawn(Log::append_and_wait)];
        log.append_and_wait();
        join(others);
        log.ends_well();
    });
}

#[test]
fn who_comes_back_for_the_next_turn_is_served_by_it() {
    explore("two threads, twice", 3, || {
        let log = Log::new();
        let twice = |log: &Log| {
            log.append_and_wait();
            log.append_and_wait();
        };
        let other = log.spawn(twice);
        twice(&log);
        other.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn what_is_closed_behind_the_leaders_back_is_acked_by_a_later_turn() {
    explore("closed by its appender", 4, || {
        let log = Log::new();
        let other = log.spawn(Log::append_close_and_wait);
        log.append_close_and_wait();
        other.join().unwrap();
        log.ends_well();
    });
}

/// A wake-up that was meant for one of those would be lost on it.
#[test]
fn who_was_served_before_asking_does_not_sleep_among_those_who_were_not() {
    explore("closed, but not asked for", 2, || {
        let log = Log::with(3, Device::default());
        let goals = [log.append_and_close(), log.append_and_close()];
        let waiting = goals.map(|goal| log.spawn(move |log| log.lead_to(goal).unwrap()));
        let late = log.spawn(Log::append_close_and_wait);
        join(waiting);
        late.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn a_future_beside_a_thread_that_leads_is_woken() {
    explore("a future and a thread", 3, || {
        let log = Log::new();
        let background = log.spawn(Log::work_in_background);
        let leader = log.spawn(Log::append_and_wait);
        log.append_and_await();
        leader.join().unwrap();
        log.bell.end();
        background.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn futures_alone_are_served_by_the_background() {
    explore("two futures", 3, || {
        let log = Log::new();
        let background = log.spawn(Log::work_in_background);
        let other = log.spawn(Log::append_and_await);
        log.append_and_await();
        other.join().unwrap();
        log.bell.end();
        background.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn what_a_dropped_ticket_spoke_of_is_written_all_the_same() {
    explore("a dropped ticket", 3, || {
        let log = Log::new();
        let background = log.spawn(Log::work_in_background);
        let leader = log.spawn(Log::append_and_wait);
        let dropped = log.append();
        log.hand_over(dropped);
        leader.join().unwrap();
        log.bell.end();
        background.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn who_has_no_time_to_wait_hands_over_what_another_does_not_serve() {
    explore("a limit of no time", 4, || {
        let log = Log::new();
        let background = log.spawn(Log::work_in_background);
        let leader = log.spawn(Log::append_and_wait);
        let goal = log.append();
        if log.lead_within(goal, Some(Instant::now())).is_none() {
            log.hand_over(goal);
        }
        leader.join().unwrap();
        log.bell.end();
        background.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn a_full_buffer_is_written_though_nobody_waits_for_it() {
    explore("a full buffer", 4, || {
        let log = Log::new();
        let background = log.spawn(Log::work_in_background);
        let waiting = log.append();
        log.close_batch(false);
        let leader = log.spawn(move |log| log.lead_to(waiting).unwrap());
        log.append();
        log.close_full_batch();
        leader.join().unwrap();
        log.bell.end();
        background.join().unwrap();
        assert!(log.queue.lock().closed.is_empty());
    });
}

#[test]
fn a_failed_write_is_told_to_every_thread_that_waits() {
    explore("a failed write", 2, || {
        let log = Log::with(2, Device { fails: true, ..Device::default() });
        let others = [log.spawn(Log::append_and_fail), log.spawn(Log::append_and_fail)];
        log.append_and_fail();
        join(others);
        assert_eq!(log.queue.durable_position(), 0);
    });
}

#[test]
fn a_failed_write_is_told_to_every_future_and_appender_that_waits() {
    explore("a failed write beside others", 3, || {
        let log = Log::with(2, Device { fails: true, ..Device::default() });
        log.append_full_batch();
        log.append_full_batch();
        let leader = log.spawn(|log| {
            if log.queue.try_claim() {
                log.lead();
            }
        });
        let awaiting = log.spawn(|log| {
            let goal = log.queue.closed();
            assert!(log.await_until_settled(goal).is_err());
        });
        if let Err(turn) = log.queue.free_buffer() {
            log.queue.wait_for_buffer(turn);
        }
        leader.join().unwrap();
        awaiting.join().unwrap();
    });
}

#[test]
fn a_watch_beyond_the_end_of_the_log_hears_that_it_is_closed() {
    explore("a watch", 4, || {
        let log = Log::new();
        let close = log.spawn(|log| {
            log.append_and_wait();
            log.queue.close();
        });
        let watched = log.spawn(|log| log.watch(ENTRY_BYTES));
        assert!(!log.watch(2 * ENTRY_BYTES));
        assert!(watched.join().unwrap());
        close.join().unwrap();
    });
}

#[test]
fn who_claims_the_device_for_something_else_does_not_keep_anybody_waiting() {
    explore("a claim", 3, || {
        let log = Log::new();
        let other = log.spawn(Log::append_and_wait);
        let claim = log.spawn(Log::claim_for_a_moment);
        log.append_and_wait();
        other.join().unwrap();
        claim.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn two_who_claim_have_the_device_one_after_the_other() {
    explore("two claims", 3, || {
        let log = Log::new();
        let claims = [log.spawn(Log::claim_for_a_moment), log.spawn(Log::claim_for_a_moment)];
        log.append_and_wait();
        join(claims);
        log.ends_well();
    });
}

#[test]
fn a_cut_completes_what_was_submitted_before_it() {
    explore("a cut", 3, || {
        let log = Log::new();
        let goal = log.append();
        log.close_batch(false);
        let waiting = log.spawn(move |log| log.lead_to(goal).unwrap());
        let vouching = log.spawn(|log| {
            if log.queue.try_claim() {
                log.hold_device();
            }
        });
        log.lead_to(goal).unwrap();
        log.is_durable(goal);
        log.cut_to_nothing();
        log.append_and_wait();
        waiting.join().unwrap();
        vouching.join().unwrap();
        log.ends_well();
    });
}

#[test]
fn an_appender_without_a_buffer_gets_one_when_the_turn_ends() {
    explore("an appender", 4, || {
        let log = Log::new();
        log.append_full_batch();
        let goal = log.append_full_batch();
        let leader = log.spawn(move |log| log.lead_to(goal).unwrap());
        for _ in 0..3 {
            log.append_full_batch();
        }
        leader.join().unwrap();
    });
}

/// The first one to wake up said that nobody waited for a buffer any more.
#[test]
fn of_appenders_without_a_buffer_none_is_forgotten() {
    explore("two appenders", 3, || {
        let log = Log::new();
        log.append_full_batch();
        log.append_full_batch();
        join([
            log.spawn(|log| {
                for _ in 0..2 {
                    if log.queue.try_claim() {
                        log.lead();
                    }
                }
            }),
            log.spawn(|log| {
                log.append_full_batch();
            }),
            log.spawn(|log| {
                for _ in 0..3 {
                    log.append_full_batch();
                }
            }),
        ]);
    });
}

/// A task may be kept alive by its waker alone, and may hold further tickets.
#[test]
fn a_waker_that_is_replaced_may_hold_what_uses_the_queue() {
    explore("a waker that is replaced", 4, || {
        let log = Log::new();
        let goal = log.append();
        let mut key = None;
        let task = Arc::new(TaskWithTicket(Arc::clone(&log)));
        assert!(log.queue.register(goal, &mut key, &Waker::from(task)).is_none());
        assert!(log.queue.register(goal, &mut key, Waker::noop()).is_none());
        log.queue.deregister(key.unwrap());
    });
}

// ---- the log around the queue ----

/// Walks through the interleavings of a model, and says how many there were.
fn explore(name: &'static str, preemptions_max: usize, model: fn()) {
    let mut builder = loom::model::Builder::new();
    let preemptions = builder.preemption_bound.unwrap_or(preemptions_max);
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = BRANCHES_MAX;
    let count = Arc::new(Count { name, preemptions, begin: Instant::now(), count: 0.into() });
    let counted = Arc::clone(&count);
    builder.check(move || {
        counted.count.fetch_add(1, Ordering::Relaxed);
        model();
    });
}

/// Longer models than loom expects, and yet none that goes on for ever.
const BRANCHES_MAX: usize = 10_000;

/// Also says after how many interleavings a model failed.
struct Count {
    name: &'static str,
    preemptions: usize,
    begin: Instant,
    count: std::sync::atomic::AtomicU64,
}

impl Drop for Count {
    fn drop(&mut self) {
        let Self { name, preemptions, count, .. } = self;
        let (count, time) = (count.get_mut(), self.begin.elapsed().as_secs_f32());
        println!("{name}: {count} interleavings, {preemptions} preemptions at most, {time:.1} s");
    }
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// How long an entry is.
const ENTRY_BYTES: u64 = 8;

const LIFE: u64 = 1;

struct Log {
    queue: Queue,
    seat: Mutex<Seat>,
    device: Mutex<Device>,
    /// How far a power loss would leave the log. Relaxed: who is told that something is durable
    /// must see it by the queue's ordering alone.
    on_disk: AtomicU64,
    bell: Bell,
}

/// What a future does that is not settled.
enum Pending {
    Sleep,
    AskAgain,
    Never,
}

/// The appender's half: entries up to `end`, those from the last closed batch on in an open one.
struct Seat {
    end: u64,
    is_open: bool,
    life: u64,
}

#[derive(Default)]
struct Device {
    written: u64,
    fails: bool,
}

impl Log {
    fn new() -> Arc<Self> {
        Self::with(2, Device::default())
    }

    fn with(buffers: usize, device: Device) -> Arc<Self> {
        let batch_bytes = wal_format::BLOCK_BYTES;
        let options = LogOptions {
            batch_bytes,
            in_flight_bytes: buffers * batch_bytes,
            ..LogOptions::default()
        };
        Arc::new(Self {
            queue: Queue::new(0, Goal { position: 0, sequence: 0, life: LIFE }, &options),
            seat: Mutex::new(Seat { end: 0, is_open: false, life: LIFE }),
            device: Mutex::new(device),
            on_disk: AtomicU64::new(0),
            bell: Bell::new(),
        })
    }

    fn spawn<T: 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + 'static,
    ) -> thread::JoinHandle<T> {
        let log = Arc::clone(self);
        thread::spawn(move || work(&log))
    }

    // ---- appending ----

    /// Appends an entry to the open batch, as a shared writer does.
    fn append(&self) -> Goal {
        let mut seat = self.seat.lock().unwrap();
        seat.end += ENTRY_BYTES;
        seat.is_open = true;
        Goal { position: seat.end, sequence: seat.end / ENTRY_BYTES, life: seat.life }
    }

    /// Hands the open batch to the queue, if there is one.
    fn close_batch(&self, is_full: bool) {
        let mut seat = self.seat.lock().unwrap();
        if std::mem::take(&mut seat.is_open) {
            let buffer = self.queue.free_buffer().expect("a buffer for each batch");
            self.push(&seat, buffer, is_full);
        }
    }

    fn close_full_batch(&self) {
        self.close_batch(true);
        self.ring_if_needed();
    }

    /// Fills a buffer of its own and hands it to the queue, as an appender does that does not wait.
    fn append_full_batch(&self) -> Goal {
        let buffer = self.take_buffer();
        let mut seat = self.seat.lock().unwrap();
        seat.end += ENTRY_BYTES;
        self.push(&seat, buffer, true);
        Goal { position: seat.end, sequence: seat.end / ENTRY_BYTES, life: seat.life }
    }

    fn push(&self, seat: &Seat, buffer: RecordBuffer, is_full: bool) {
        let start = self.queue.closed().position;
        let mut batch = Batch::open(buffer, Arc::clone(&SEGMENT), start, 0, 0);
        batch.end_position = seat.end;
        batch.end_sequence = seat.end / ENTRY_BYTES;
        self.queue.push(batch, is_full);
    }

    fn take_buffer(&self) -> RecordBuffer {
        loop {
            match self.queue.free_buffer() {
                Ok(buffer) => return buffer,
                Err(_) if self.queue.try_claim() => self.lead(),
                Err(turn) => self.queue.wait_for_buffer(turn),
            }
        }
    }

    fn append_and_wait(&self) {
        let goal = self.append();
        self.lead_to(goal).unwrap();
        self.is_durable(goal);
    }

    fn append_and_close(&self) -> Goal {
        let goal = self.append();
        self.close_batch(false);
        goal
    }

    fn append_close_and_wait(&self) {
        let goal = self.append_and_close();
        self.lead_to(goal).unwrap();
        self.is_durable(goal);
    }

    fn append_and_fail(&self) {
        let goal = self.append();
        let poisoned = self.lead_to(goal).unwrap_err();
        assert!(matches!(poisoned, WalError::Poisoned { core: 0, .. }));
    }

    // ---- waiting: as in `lead.rs` ----

    fn lead_to(&self, goal: Goal) -> Result<()> {
        self.lead_within(goal, None).expect("nobody set a limit")
    }

    fn lead_within(&self, goal: Goal, deadline: Option<Instant>) -> Option<Result<()>> {
        if let Some(settled) = self.queue.settled(goal) {
            return Some(settled);
        }
        self.queue.want(goal, Wanted::Now, now);
        loop {
            match self.queue.await_turn(goal, deadline, now) {
                Awaited::Settled(settled) => return Some(settled),
                Awaited::TimedOut => return None,
                Awaited::Lead => self.lead(),
            }
        }
    }

    /// A turn of the thread that has claimed the device side.
    fn lead(&self) {
        let mut device = self.device.try_lock().expect("nobody else is at the device");
        if self.queue.wants_more_than_closed() {
            self.close_batch(false);
        }
        let mut batches = VecDeque::new();
        let sync = self.queue.take_closed(&mut batches, now).sync;
        if let Some(last) = batches.back() {
            device.written = last.end_position;
        }
        if device.fails {
            batches.clear();
            self.queue.poison(WalError::InvalidArgument { what: "the disk is broken".into() });
        } else if sync {
            self.on_disk.store(device.written, Ordering::Relaxed);
            self.queue.publish_durable(device.written);
        }
        self.queue.give_back(batches);
        drop(device);
        self.end_turn();
    }

    fn end_turn(&self) {
        if self.queue.end_turn(now).is_some() {
            self.bell.ring();
        }
    }

    fn claim_for_a_moment(&self) {
        self.queue.claim();
        self.hold_device();
    }

    fn hold_device(&self) {
        drop(self.device.try_lock().expect("nobody else is at the device"));
        self.end_turn();
    }

    /// As in `cut.rs`.
    fn cut_to_nothing(&self) {
        self.queue.claim();
        let mut device = self.device.try_lock().expect("nobody else is at the device");
        let mut seat = self.seat.lock().unwrap();
        (seat.end, seat.life) = (0, LIFE + 1);
        device.written = 0;
        self.on_disk.store(0, Ordering::Relaxed);
        self.queue.restart_at(Goal { position: 0, sequence: 0, life: seat.life });
        drop(seat);
        drop(device);
        self.end_turn();
    }

    // ---- the background: as in `committer.rs` ----

    fn hand_over(&self, goal: Goal) {
        if self.queue.settled(goal).is_none() {
            self.queue.want(goal, Wanted::HandedOver, now);
            self.ring_if_needed();
        }
    }

    fn ring_if_needed(&self) {
        if self.queue.background_work(now).is_some() {
            self.bell.ring();
        }
    }

    fn work_in_background(&self) {
        while self.bell.wait() {
            if self.queue.background_work(now).is_some() && self.queue.try_claim() {
                self.lead();
            }
        }
    }

    // ---- futures: as in `ticket.rs` and `watch.rs` ----

    fn append_and_await(&self) {
        let goal = self.append();
        let mut is_handed_over = false;
        let settled = self.block_on(goal, || {
            if !std::mem::replace(&mut is_handed_over, true) {
                self.hand_over(goal);
            }
            Pending::Sleep
        });
        settled.unwrap().unwrap();
        self.is_durable(goal);
    }

    /// Waits for what others see to.
    fn await_until_settled(&self, goal: Goal) -> Result<()> {
        self.block_on(goal, || Pending::Sleep).unwrap()
    }

    /// Whether the position is reached before the log is closed.
    fn watch(&self, position: u64) -> bool {
        let goal = Goal { position, sequence: 0, life: self.queue.life() };
        let mut was_closed = false;
        let reached = self.block_on(goal, || match (was_closed, self.queue.is_closed()) {
            (false, true) => {
                was_closed = true;
                Pending::AskAgain
            }
            (true, _) => Pending::Never,
            (false, false) => Pending::Sleep,
        });
        reached.is_some_and(|reached| reached.is_ok())
    }

    fn block_on(&self, goal: Goal, mut if_pending: impl FnMut() -> Pending) -> Option<Result<()>> {
        let alarm = Arc::new(Bell::new());
        let waker = Waker::from(Arc::clone(&alarm));
        let mut key = None;
        loop {
            let settled = self.queue.settled(goal);
            let settled = settled.or_else(|| self.queue.register(goal, &mut key, &waker));
            let pending = if settled.is_none() { if_pending() } else { Pending::Never };
            match pending {
                Pending::Sleep => drop(alarm.wait()),
                Pending::AskAgain => {}
                Pending::Never => {
                    key.into_iter().for_each(|key| self.queue.deregister(key));
                    return settled;
                }
            }
        }
    }

    // ---- what must hold ----

    fn is_durable(&self, goal: Goal) {
        let on_disk = self.on_disk.load(Ordering::Relaxed);
        assert!(on_disk >= goal.position, "{goal:?} was acked with {on_disk} on the disk");
    }

    /// Once no thread is left.
    fn ends_well(&self) {
        let end = self.seat.lock().unwrap().end;
        assert_eq!(self.queue.durable_position(), end);
        assert_eq!(self.on_disk.load(Ordering::Relaxed), end);
        let inner = self.queue.lock();
        assert!(!inner.leading && inner.wakers.is_empty() && inner.closed.is_empty());
    }
}

/// Nothing is ever written to its file.
static SEGMENT: LazyLock<Arc<Segment>> = LazyLock::new(|| {
    let file = SimStorage::new(1).create("segment", 4096, Access::ReadWrite).unwrap();
    Arc::new(Segment::for_test(file))
});

fn now() -> Duration {
    Duration::ZERO
}

/// What the background waits for, and a task that nobody else runs.
struct Bell {
    state: Mutex<Rung>,
    changed: Condvar,
}

#[derive(Default)]
struct Rung {
    is_rung: bool,
    is_over: bool,
}

impl Bell {
    fn new() -> Self {
        Self { state: Mutex::new(Rung::default()), changed: Condvar::new() }
    }

    fn ring(&self) {
        self.state.lock().unwrap().is_rung = true;
        self.changed.notify_one();
    }

    fn end(&self) {
        self.state.lock().unwrap().is_over = true;
        self.changed.notify_one();
    }

    /// Whether it was rung; `false` if it never will be again.
    fn wait(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        while !state.is_rung && !state.is_over {
            state = self.changed.wait(state).unwrap();
        }
        std::mem::take(&mut state.is_rung)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// What is dropped with its last waker.
struct TaskWithTicket(Arc<Log>);

impl Wake for TaskWithTicket {
    fn wake(self: Arc<Self>) {}
}

impl Drop for TaskWithTicket {
    fn drop(&mut self) {
        self.0.queue.deregister((1, 1));
    }
}
