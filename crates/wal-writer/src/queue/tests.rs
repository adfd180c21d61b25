//! What the queue itself promises, one thread at a time: limits, what a leader takes, when a commit
//! is due, who is woken. That nobody sleeps for ever is for the models.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::atomic::AtomicUsize;
use std::task::Wake;
use std::thread;

use wal_sim::SimStorage;
use wal_storage::{Access, Storage};

use crate::segments::Segment;

use super::*;

const BATCH_BYTES: usize = 8192;
const BUFFERS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);

fn queue_with(group_commit: GroupCommit) -> Queue {
    let options = LogOptions {
        batch_bytes: BATCH_BYTES,
        in_flight_bytes: BUFFERS * BATCH_BYTES,
        group_commit,
        ..LogOptions::default()
    };
    Queue::new(0, goal(0), &options)
}

fn queue() -> Queue {
    queue_with(GroupCommit::default())
}

/// Entries of 8 bytes each, up to `position`.
fn goal(position: u64) -> Goal {
    Goal { position, sequence: position / 8, life: 0 }
}

fn segment() -> Arc<Segment> {
    let file = SimStorage::new(1).create("file", 4096, Access::ReadWrite).unwrap();
    Arc::new(Segment::for_test(file))
}

fn batch(segment: &Arc<Segment>, buffer: RecordBuffer, start: u64, end: u64) -> Batch {
    let mut batch = Batch::open(buffer, Arc::clone(segment), start, start / 8, 0);
    batch.end_position = end;
    batch.end_sequence = end / 8;
    batch
}

/// Closes so many batches of 80 bytes.
fn push(queue: &Queue, batches: u64) {
    let segment = segment();
    for _ in 0..batches {
        let start = queue.closed().position;
        queue.push(batch(&segment, RecordBuffer::default(), start, start + 80), false);
    }
}

/// A turn: what its leader took, how much of it, and what is left for the background.
fn turn(queue: &Queue, now: Duration) -> (Taken, usize, Option<Duration>) {
    let mut batches = VecDeque::new();
    assert!(queue.try_claim());
    let taken = queue.take_closed(&mut batches, || now);
    if taken.sync {
        let committed_position = queue.lock().committed_position;
        queue.publish_durable(committed_position);
    }
    (taken, batches.len(), queue.end_turn(|| now))
}

fn want(queue: &Queue, position: u64, wanted: Wanted) {
    queue.want(goal(position), wanted, || Duration::ZERO);
}

fn cause() -> WalError {
    WalError::InvalidArgument { what: "a test".into() }
}

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// ---- buffers ----

#[test]
fn buffers_are_made_up_to_the_limit_and_had_again_when_they_come_back() {
    let queue = queue();
    assert!(queue.has_buffers(BUFFERS).is_ok() && queue.has_buffers(BUFFERS + 1).is_err());
    let first = queue.free_buffer().unwrap();
    assert!(queue.has_buffers(BUFFERS - 1).is_ok() && queue.has_buffers(BUFFERS).is_err());
    let _others = [queue.free_buffer().unwrap(), queue.free_buffer().unwrap()];
    queue.free_buffer().unwrap_err();
    assert!(queue.has_buffers(0).is_ok() && queue.has_buffers(1).is_err());
    queue.give_back([batch(&segment(), first, 0, 80)]);
    assert!(queue.has_buffers(1).is_ok() && queue.has_buffers(2).is_err());
    queue.free_buffer().unwrap();
}

#[test]
fn a_buffer_that_one_large_record_needed_is_not_kept() {
    let largest_kept = 2 * BATCH_BYTES + wal_format::BLOCK_BYTES;
    for (capacity, is_kept) in [(largest_kept, true), (largest_kept + 4096, false)] {
        let queue = queue();
        let _others = [queue.free_buffer().unwrap(), queue.free_buffer().unwrap()];
        let grown = RecordBuffer::with_capacity(capacity);
        assert_eq!(grown.capacity(), capacity);
        queue.give_back([batch(&segment(), grown, 0, 80)]);
        let inner = queue.lock();
        assert_eq!(inner.free.len(), usize::from(is_kept));
        assert_eq!(inner.buffers, 1 + usize::from(is_kept));
    }
}

#[test]
fn what_a_burst_needed_is_given_up_all_but_a_few() {
    let queue = queue();
    let segment = segment();
    let buffers: Vec<_> = (0..BUFFERS).map(|_| queue.free_buffer().unwrap()).collect();
    queue.give_back(buffers.into_iter().map(|buffer| batch(&segment, buffer, 0, 80)));
    queue.trim();
    assert_eq!(queue.lock().free.len(), KEPT_BUFFERS);
    assert_eq!(queue.lock().buffers, KEPT_BUFFERS);
    assert!(queue.has_buffers(BUFFERS).is_ok(), "to be made again");
}

#[test]
fn an_appender_without_a_buffer_sleeps_until_the_turn_is_over() {
    let queue = queue();
    let _buffers: Vec<_> = (0..BUFFERS).map(|_| queue.free_buffer().unwrap()).collect();
    let over = AtomicBool::new(false);
    assert!(queue.try_claim());
    thread::scope(|scope| {
        let appender = scope.spawn(|| {
            queue.wait_for_buffer(queue.free_buffer().unwrap_err());
            over.load(Ordering::SeqCst)
        });
        while !queue.lock().has_buffer_waiter && !appender.is_finished() {
            thread::yield_now();
        }
        over.store(true, Ordering::SeqCst);
        queue.end_turn(|| Duration::ZERO);
        assert!(appender.join().unwrap(), "it woke up before");
    });
}

#[test]
fn nobody_waits_for_a_buffer_where_none_is_on_its_way() {
    // Each of these would sleep for ever.
    let idle = queue();
    idle.wait_for_buffer(Turn(0));
    let later_turn = queue();
    turn(&later_turn, Duration::ZERO);
    assert!(later_turn.try_claim());
    later_turn.wait_for_buffer(Turn(0));
    let poisoned = queue();
    assert!(poisoned.try_claim());
    poisoned.poison(cause());
    poisoned.wait_for_buffer(Turn(0));
}

// ---- what a leader takes ----

#[test]
fn a_leader_takes_so_many_batches_at_most() {
    let queue = queue();
    let all = TAKEN_BATCHES_MAX as u64 + 5;
    push(&queue, all);
    want(&queue, all * 80, Wanted::Now);
    let (taken, batches, _) = turn(&queue, Duration::ZERO);
    assert_eq!((taken.sync, batches), (false, TAKEN_BATCHES_MAX), "a sync would not cover it all");
    let (taken, batches, _) = turn(&queue, Duration::ZERO);
    assert_eq!((taken.sync, taken.entries, batches), (true, all * 10, 5));
}

#[test]
fn a_leader_takes_so_many_bytes_and_the_batch_that_reaches_them() {
    let queue = queue();
    let segment = segment();
    for n in 0..3 {
        let mut batch = batch(&segment, RecordBuffer::default(), n * 80, (n + 1) * 80);
        batch.buffer.resize(TAKEN_BYTES / 2, 0);
        queue.push(batch, true);
    }
    assert_eq!(queue.background_work(|| Duration::ZERO), Some(Duration::ZERO), "one is full");
    let (_, batches, left) = turn(&queue, Duration::ZERO);
    assert_eq!((batches, left), (2, Some(Duration::ZERO)), "another full one is left");
    let (_, batches, left) = turn(&queue, Duration::ZERO);
    assert_eq!((batches, left), (1, None));
}

#[test]
fn a_sync_is_worth_it_as_soon_as_it_covers_what_is_wanted() {
    let queue = queue();
    let taken_at_once = TAKEN_BATCHES_MAX as u64;
    push(&queue, taken_at_once + 1);
    want(&queue, taken_at_once * 80, Wanted::Now);
    let (taken, ..) = turn(&queue, Duration::ZERO);
    assert!(taken.sync, "though one more batch is closed");
    assert_eq!(taken.entries, taken_at_once * 10);
    let (taken, ..) = turn(&queue, Duration::ZERO);
    assert!(!taken.sync, "nobody wants the last one");
}

#[test]
fn a_leader_waits_for_as_many_as_the_last_commit_served() {
    let queue = queue();
    assert_eq!(queue.arrivals_expected(), None);
    for (clients, expected) in [(3, Some(3 + 3)), (2, Some(5 + 2)), (1, None)] {
        push(&queue, 1);
        for _ in 0..clients {
            want(&queue, queue.closed().position, Wanted::Now);
        }
        assert!(turn(&queue, Duration::ZERO).0.sync);
        assert_eq!(queue.arrivals_expected(), expected, "{clients} clients");
    }
    assert_eq!(queue.arrivals(), 6);
}

// ---- when it is due ----

#[test]
fn more_is_wanted_than_closed_only_while_a_batch_is_open() {
    let queue = queue();
    assert!(!queue.wants_more_than_closed());
    want(&queue, 80, Wanted::Now);
    assert!(queue.wants_more_than_closed());
    push(&queue, 1);
    assert!(!queue.wants_more_than_closed());
    push(&queue, 1);
    assert!(!queue.wants_more_than_closed());
}

#[test]
fn a_commit_begins_at_its_time_or_when_there_is_company_enough() {
    let policy = GroupCommit { max_delay: SECOND, max_bytes: 800, max_entries: 50 };
    let due_for = |position: u64, sequence: u64| {
        let queue = queue_with(policy);
        let goal = Goal { position, sequence, life: 0 };
        queue.want(goal, Wanted::HandedOver, || SECOND);
        queue.background_work(|| SECOND).unwrap()
    };
    assert_eq!(due_for(792, 49), SECOND);
    assert_eq!(due_for(800, 49), Duration::ZERO);
    assert_eq!(due_for(792, 50), Duration::ZERO);

    let queue = queue_with(policy);
    push(&queue, 1);
    want(&queue, 80, Wanted::HandedOver);
    assert_eq!(queue.background_work(|| SECOND / 4), Some(SECOND * 3 / 4));
    let (taken, _, left) = turn(&queue, SECOND / 2);
    assert_eq!((taken.sync, left), (false, Some(SECOND / 2)));
    let (taken, _, left) = turn(&queue, SECOND);
    assert_eq!((taken.sync, left), (true, None));
}

#[test]
fn the_background_has_nothing_to_do_while_somebody_leads_or_the_log_is_poisoned() {
    let queue = queue();
    want(&queue, 80, Wanted::HandedOver);
    assert!(queue.background_work(|| Duration::ZERO).is_some());
    assert!(queue.try_claim() && !queue.try_claim());
    assert_eq!(queue.background_work(|| Duration::ZERO), None);
    assert!(queue.end_turn(|| Duration::ZERO).is_some());
    assert!(queue.poison(cause()) && !queue.poison(cause()));
    assert_eq!(queue.background_work(|| Duration::ZERO), None);
}

#[test]
fn what_is_durable_or_was_cut_away_is_not_asked_for() {
    let queue = queue();
    push(&queue, 1);
    queue.publish_durable(80);
    want(&queue, 80, Wanted::Now);
    assert_eq!(queue.lock().due, None);

    queue.restart_at(Goal { life: 1, ..goal(0) });
    want(&queue, 80, Wanted::HandedOver);
    assert_eq!(queue.background_work(|| Duration::ZERO), None);
}

// ---- waiting ----

#[test]
fn the_device_side_is_claimed_by_one_at_a_time() {
    let queue = queue();
    queue.claim();
    assert!(!queue.try_claim());
    queue.end_turn(|| Duration::ZERO);
    assert!(queue.try_claim() && !queue.try_claim());
}

#[test]
fn what_is_durable_or_of_an_earlier_life_is_settled_and_all_else_by_the_first_cause() {
    let queue = queue();
    let is_ok = |goal| matches!(queue.settled(goal), Some(Ok(())));
    assert!(is_ok(goal(0)) && queue.settled(goal(80)).is_none());
    queue.publish_durable(80);
    assert!(is_ok(goal(80)) && queue.settled(goal(88)).is_none());
    queue.restart_at(Goal { life: 1, ..goal(0) });
    assert!(is_ok(goal(88)), "it was durable, and then cut");
    assert!(queue.settled(Goal { life: 1, ..goal(80) }).is_none());
    queue.poison(cause());
    assert!(matches!(queue.settled(Goal { life: 1, ..goal(80) }), Some(Err(_))));
    assert!(is_ok(Goal { life: 1, ..goal(0) }) && is_ok(goal(88)));
}

#[test]
fn a_thread_leads_when_its_commit_is_due_and_nobody_else_does() {
    let still = || Duration::ZERO;
    let at_once = Some(Instant::now());
    let leads = queue();
    want(&leads, 80, Wanted::Now);
    assert!(matches!(leads.await_turn(goal(80), at_once, still), Awaited::Lead));
    // Somebody does now.
    assert!(matches!(leads.await_turn(goal(80), at_once, still), Awaited::TimedOut));

    let patient = GroupCommit { max_delay: 60 * SECOND, ..GroupCommit::default() };
    let waits = queue_with(patient);
    want(&waits, 80, Wanted::ByPolicy);
    let soon = Instant::now() + Duration::from_millis(5);
    assert!(matches!(waits.await_turn(goal(80), Some(soon), still), Awaited::TimedOut));

    // Where the clock stands still, a thread goes by how long it slept.
    let short = GroupCommit { max_delay: Duration::from_millis(1), ..GroupCommit::default() };
    let sleeps = queue_with(short);
    want(&sleeps, 80, Wanted::ByPolicy);
    assert!(matches!(sleeps.await_turn(goal(80), None, still), Awaited::Lead));
}

#[test]
fn each_stall_is_counted() {
    let queue = queue();
    queue.count_stall();
    queue.count_stall();
    assert_eq!(queue.stalls(), 2);
}

// ---- who is woken ----

fn register(queue: &Queue, position: u64, key: &mut Option<WakerKey>) -> Arc<CountWakes> {
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(queue.register(goal(position), key, &waker).is_none());
    wakes
}

fn times<const WAKERS: usize>(wakes: [Arc<CountWakes>; WAKERS]) -> [usize; WAKERS] {
    wakes.map(|wakes| wakes.0.load(Ordering::SeqCst))
}

#[test]
fn a_turn_wakes_the_futures_that_it_served_and_no_other() {
    let queue = queue();
    push(&queue, 2);
    let wakes = [80, 80, 88].map(|position| register(&queue, position, &mut None));
    assert!(queue.try_claim());
    queue.publish_durable(80);
    queue.end_turn(|| Duration::ZERO);
    assert_eq!(times(wakes), [1, 1, 0]);
}

#[test]
fn a_waker_that_is_replaced_or_forgotten_is_not_woken() {
    let queue = queue();
    let (mut replaced, mut forgotten) = (None, None);
    let first = register(&queue, 80, &mut replaced);
    let second = register(&queue, 80, &mut replaced);
    let third = register(&queue, 80, &mut forgotten);
    queue.deregister(forgotten.unwrap());
    queue.wake_futures();
    assert_eq!(times([first, second, third]), [0, 1, 0]);
}

#[test]
fn a_log_that_is_closed_says_so_and_wakes_everybody() {
    let queue = queue();
    let wakes = register(&queue, 80, &mut None);
    assert!(!queue.is_closed());
    queue.close();
    assert!(queue.is_closed());
    assert_eq!(times([wakes]), [1]);
}

#[test]
fn who_comes_too_late_for_a_turn_sleeps_where_the_next_one_wakes() {
    let queue = queue();
    let mut inner = queue.lock();
    inner.covering = Some(80);
    assert_eq!([80, 81].map(|position| inner.place_for(position)), [0, 1]);
    inner.turn = Turn(1);
    assert_eq!([80, 81].map(|position| inner.place_for(position)), [1, 0]);
    inner.covering = None;
    assert_eq!([80, 81].map(|position| inner.place_for(position)), [1, 1]);
}
