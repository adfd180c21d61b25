//! What lies between those who append, those who wait and the leader: closed batches, free
//! buffers, what is wanted durable and by whom, the first cause.
//!
//! One short mutex, touched per batch and per wait and never per append, and a few words that are
//! read without it: how far the core's log is durable, and whether it is poisoned.
//!
//! # Who leads
//!
//! The device side belongs to whoever *claimed* it, for one turn. What keeps a waiter from hanging
//! is one rule: **a thread that is not served sleeps only while somebody leads** (or until its
//! commit is due, by its own clock), **and every turn's end wakes one of those who were not
//! served.** Who cannot sleep, a future or a ticket that was dropped, hands its wish over, and the
//! end of a turn rings the background for as long as such wishes are open.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::Duration;

use wal_entry::RecordBuffer;
use wal_storage::{Result, WalError};

use crate::batch::Batch;
use crate::group_commit::GroupCommit;
use crate::options::LogOptions;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};
use crate::wait::WaitingPlace;

#[derive(Debug)]
pub(crate) struct Queue {
    core: u16,
    /// Everything below is durable. Written by the leader alone, and by a cut, which has claimed
    /// the device side and is the only one to take it back.
    durable_position: AtomicU64,
    /// Tells this opening, and the time since its last cut, from every other.
    life: AtomicU64,
    poisoned: AtomicBool,
    /// How often somebody asked for durability: by this a leader gathers.
    arrivals: AtomicU64,
    inner: Mutex<Inner>,
    /// A buffer came back, the device side became free, or the log was poisoned.
    buffer_may_be_had: Condvar,
    /// Where threads sleep: at one place those whom the present turn serves, at the other those
    /// who came too late for it. The next turn serves them, so the places swap with every turn.
    places: [WaitingPlace; 2],
}

#[derive(Debug)]
struct Inner {
    closed: VecDeque<Batch>,
    /// The end of the last batch that was ever closed.
    closed_position: u64,
    closed_sequence: u64,
    /// A full buffer is among the closed ones: it is to be written, whether anybody waits or not.
    has_full: bool,
    free: Vec<RecordBuffer>,
    /// Buffers that were made and not given up: free, being filled, or in flight.
    buffers: usize,
    buffers_max: usize,
    batch_bytes: usize,

    policy: GroupCommit,
    /// Somebody waits until everything below is durable.
    wanted_position: u64,
    wanted_sequence: u64,
    /// As far as this, nobody may be asleep who could lead.
    handed_over_position: u64,
    /// When, by the storage's clock, the commit that is wanted is to begin; `None` if none is.
    due: Option<Duration>,
    /// What was wanted in the first turn of a commit that takes several: the commit ends there,
    /// however much is wanted by then.
    commit_until: u64,
    /// How far the last commit went.
    committed_position: u64,
    committed_sequence: u64,

    /// The device side has been claimed.
    leading: bool,
    /// How often the device side became free.
    turn: Turn,
    /// How far exactly the log is going to be durable by the end of this turn, once its leader has
    /// taken what there was. While it is not known, everybody waits for this turn: who slept for
    /// the next one and yet was served could be the only one woken to lead it.
    covering: Option<u64>,
    /// What the last commit but the next served: its leader waited for as many.
    gathered: u64,
    /// How many had arrived when the last commit was taken.
    arrived_before: u64,
    /// Futures to be woken, by the position that they wait for and their number.
    wakers: BTreeMap<WakerKey, Waker>,
    waker_numbers: u64,

    first_cause: Option<Arc<WalError>>,
    is_closed: bool,
    /// How often an appender found no free buffer.
    stalls: u64,
    /// An appender waits for a buffer, until this turn is over. There may be others, so it is for
    /// the end of the turn to say that none does any more.
    has_buffer_waiter: bool,
}

/// Counts who had the device side, so that an appender who saw it taken knows whether that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(u64);

/// What somebody wants to be durable: everything up to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
    /// The [life](Queue::life) of the log that it speaks of. What was submitted in an earlier one
    /// was durable before the log was cut.
    pub(crate) life: u64,
}

/// How a goal is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// At once, by a thread that will wait.
    Now,
    /// When the policy says, by a thread that will wait.
    ByPolicy,
    /// When the policy says, by somebody who cannot lead.
    HandedOver,
}

/// How waiting ended.
#[derive(Debug)]
pub(crate) enum Awaited {
    /// It is durable, or never will be.
    Settled(Result<()>),
    /// This thread has claimed the device side, and must lead.
    Lead,
    TimedOut,
}

/// Names a registered waker.
pub(crate) type WakerKey = (u64, u64);

/// What a leader took, and what it is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Somebody waits for some of it, and it is time.
    pub(crate) sync: bool,
    /// How many entries the sync makes durable.
    pub(crate) entries: u64,
}

/// One to be filled, one to be written.
const KEPT_BUFFERS: usize = 2;

/// What a leader takes at once: so much that the device is used well, and so little that the first
/// buffers are free again before the last are written.
const TAKEN_BYTES: usize = 1024 * 1024;

/// No more batches, so that the list of what to write fits on the stack.
pub(crate) const TAKEN_BATCHES_MAX: usize = 30;

impl Queue {
    pub(crate) fn new(core: u16, end: Goal, options: &LogOptions) -> Self {
        let Goal { position, sequence, life } = end;
        Self {
            core,
            durable_position: AtomicU64::new(position),
            life: AtomicU64::new(life),
            poisoned: AtomicBool::new(false),
            arrivals: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                closed: VecDeque::new(),
                closed_position: position,
                closed_sequence: sequence,
                has_full: false,
                free: Vec::new(),
                buffers: 0,
                buffers_max: options.buffers(),
                batch_bytes: options.batch_bytes,
                policy: options.group_commit,
                wanted_position: position,
                wanted_sequence: sequence,
                handed_over_position: position,
                due: None,
                commit_until: position,
                committed_position: position,
                committed_sequence: sequence,
                leading: false,
                turn: Turn(0),
                covering: None,
                gathered: 0,
                arrived_before: 0,
                wakers: BTreeMap::new(),
                waker_numbers: 0,
                first_cause: None,
                is_closed: false,
                stalls: 0,
                has_buffer_waiter: false,
            }),
            buffer_may_be_had: Condvar::new(),
            places: [WaitingPlace::new(), WaitingPlace::new()],
        }
    }

    // ---- for the appender ----

    /// An empty buffer. If all are in flight, whose turn at the device side it was meanwhile.
    pub(crate) fn free_buffer(&self) -> Result<RecordBuffer, Turn> {
        let mut inner = self.lock();
        if let Some(buffer) = inner.free.pop() {
            return Ok(buffer);
        }
        if inner.buffers >= inner.buffers_max {
            return Err(inner.turn);
        }
        inner.buffers += 1;
        // A seal may come behind the last record that fits, and the block is filled up.
        Ok(RecordBuffer::with_capacity(inner.batch_bytes + wal_format::BLOCK_BYTES))
    }

    /// Whether so many buffers can be had without waiting; if not, whose turn it was meanwhile.
    pub(crate) fn has_buffers(&self, count: usize) -> Result<(), Turn> {
        let inner = self.lock();
        let to_be_had = inner.free.len() + inner.buffers_max.saturating_sub(inner.buffers);
        if to_be_had >= count { Ok(()) } else { Err(inner.turn) }
    }

    /// Waits until a buffer may have come back: until the turn is over in which there was none.
    pub(crate) fn wait_for_buffer(&self, turn: Turn) {
        let mut inner = self.lock();
        while inner.turn == turn && inner.leading && !self.is_poisoned() {
            inner.has_buffer_waiter = true;
            inner = self.buffer_may_be_had.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn count_stall(&self) {
        self.lock().stalls += 1;
    }

    /// Takes a closed batch. One that `is_full` is to be written, whether anybody waits or not.
    pub(crate) fn push(&self, batch: Batch, is_full: bool) {
        let mut inner = self.lock();
        if self.is_poisoned() {
            return;
        }
        inner.closed_position = batch.end_position;
        inner.closed_sequence = batch.end_sequence;
        inner.closed.push_back(batch);
        inner.has_full |= is_full;
    }

    // ---- for those who wait ----

    /// Whether it is clear what becomes of `goal`: it is durable, or never will be.
    pub(crate) fn settled(&self, goal: Goal) -> Option<Result<()>> {
        // In this order: a cut takes the durable position back, but first it begins a new life.
        if self.durable_position() >= goal.position || self.life() != goal.life {
            return Some(Ok(()));
        }
        self.poisoned.load(Ordering::Acquire).then(|| self.check())
    }

    /// Asks for `goal` to be durable. Threads must then [wait](Self::await_turn); for whom it is
    /// handed over, the background must be rung if it has [something to do](Self::background_work).
    ///
    /// What is not there any more cannot be asked for.
    pub(crate) fn want(&self, goal: Goal, wanted: Wanted, now: impl FnOnce() -> Duration) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        if self.life() != goal.life || self.durable_position() >= goal.position {
            return;
        }
        inner.wanted_position = inner.wanted_position.max(goal.position);
        inner.wanted_sequence = inner.wanted_sequence.max(goal.sequence);
        if wanted == Wanted::HandedOver {
            inner.handed_over_position = inner.handed_over_position.max(goal.position);
        }
        if wanted == Wanted::Now || inner.has_company() {
            inner.due = Some(Duration::ZERO);
        } else if inner.due.is_none() {
            inner.due = Some(now().saturating_add(inner.policy.max_delay));
        }
    }

    /// Waits until `goal`, which must have been [wanted](Self::want), is settled, or it is this
    /// thread's turn to lead.
    pub(crate) fn await_turn(
        &self,
        goal: Goal,
        deadline: Option<Instant>,
        now: impl Fn() -> Duration,
    ) -> Awaited {
        let mut due_at_last = None;
        loop {
            let mut inner = self.lock();
            if let Some(settled) = self.settled_under(&inner, goal) {
                return Awaited::Settled(settled);
            }
            let until_due = inner.until_due(&now);
            // The storage's clock may stand still. A thread that slept long enough does not care.
            let is_due = until_due.is_zero() || due_at_last.is_some_and(|at| Instant::now() >= at);
            if !inner.leading && is_due {
                inner.due = Some(Duration::ZERO);
                inner.leading = true;
                return Awaited::Lead;
            }
            let nobody_leads = !inner.leading;
            let place = &self.places[inner.place_for(goal.position)];
            let until_deadline = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if until_deadline.is_some_and(|time| time.is_zero()) {
                drop(inner);
                // If this was the one to begin when it is due, it must be another now.
                if nobody_leads {
                    place.wake_one();
                }
                return Awaited::TimedOut;
            }
            let mut at_most = until_deadline;
            if nobody_leads {
                let at = *due_at_last.get_or_insert_with(|| Instant::now() + until_due);
                let until_due = at.saturating_duration_since(Instant::now());
                at_most = Some(at_most.map_or(until_due, |time| time.min(until_due)));
            }
            place.wait(inner, at_most);
            // Most of those who wake up need not queue up for the lock to know why.
            if let Some(settled) = self.settled(goal) {
                return Awaited::Settled(settled);
            }
        }
    }

    /// Has `waker` woken when `goal` is settled, in place of the waker registered under `key`.
    /// If it is settled, says how.
    pub(crate) fn register(
        &self,
        goal: Goal,
        key: &mut Option<WakerKey>,
        waker: &Waker,
    ) -> Option<Result<()>> {
        let mut inner = self.lock();
        if let Some(settled) = self.settled_under(&inner, goal) {
            return Some(settled);
        }
        let numbers = &mut inner.waker_numbers;
        let key = *key.get_or_insert_with(|| {
            *numbers += 1;
            (goal.position, *numbers)
        });
        let is_registered = inner.wakers.get(&key).is_some_and(|known| known.will_wake(waker));
        let replaced = if is_registered { None } else { inner.wakers.insert(key, waker.clone()) };
        // Dropped outside the lock: a waker may hold anything, another ticket of this log too.
        drop(inner);
        drop(replaced);
        None
    }

    /// Forgets a registered waker.
    pub(crate) fn deregister(&self, key: WakerKey) {
        // Dropped outside the lock: a waker may hold anything.
        let waker = self.lock().wakers.remove(&key);
        drop(waker);
    }

    /// Wakes all futures, so that they look for themselves: nobody else will serve them.
    pub(crate) fn wake_futures(&self) {
        let wakers = std::mem::take(&mut self.lock().wakers);
        wake(wakers);
    }

    /// Everything that was ever closed.
    pub(crate) fn closed(&self) -> Goal {
        let inner = self.lock();
        let (position, sequence) = (inner.closed_position, inner.closed_sequence);
        Goal { position, sequence, life: self.life() }
    }

    /// Whether more is wanted than was closed: the rest is in a batch that is still open.
    pub(crate) fn wants_more_than_closed(&self) -> bool {
        let inner = self.lock();
        inner.wanted_position > inner.closed_position
    }

    /// When the background has something to do on this core: nothing, or after so much time.
    pub(crate) fn background_work(&self, now: impl Fn() -> Duration) -> Option<Duration> {
        let inner = self.lock();
        if inner.leading || self.is_poisoned() {
            // The turn's end asks again.
            return None;
        }
        self.work_left(&inner, now)
    }

    // ---- for the leader ----

    /// Claims the device side, if nobody has.
    pub(crate) fn try_claim(&self) -> bool {
        let mut inner = self.lock();
        !std::mem::replace(&mut inner.leading, true)
    }

    /// Claims the device side, after whoever has it.
    pub(crate) fn claim(&self) {
        loop {
            let mut inner = self.lock();
            if !std::mem::replace(&mut inner.leading, true) {
                return;
            }
            self.places[inner.turn.next_place()].wait(inner, None);
        }
    }

    /// How many are to be waited for a moment before the commit is taken, because as many came for
    /// the last one: the number that [`arrivals`](Self::arrivals) is to reach. `None` if it is not
    /// worth waiting.
    pub(crate) fn arrivals_expected(&self) -> Option<u64> {
        let inner = self.lock();
        (inner.gathered > 1).then_some(inner.arrived_before + inner.gathered)
    }

    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// Moves closed batches, oldest first, into `batches`, which is empty.
    pub(crate) fn take_closed(
        &self,
        batches: &mut VecDeque<Batch>,
        now: impl Fn() -> Duration,
    ) -> Taken {
        let mut inner = self.lock();
        let mut bytes = 0;
        while bytes < TAKEN_BYTES
            && batches.len() < TAKEN_BATCHES_MAX
            && let Some(batch) = inner.closed.pop_front()
        {
            bytes += batch.buffer.len();
            batches.push_back(batch);
        }
        inner.has_full &= !inner.closed.is_empty();
        let durable = self.durable_position();
        let is_due = inner.wanted_position > durable && inner.until_due(now).is_zero();
        // A sync is worth it only if it covers all that was waited for when its commit began. What
        // is wanted since then goes with it or not: an appender that submits one batch after the
        // other, faster than they are written, must not put it off.
        let left = inner.closed.front().map(|batch| batch.start_position);
        let sync = is_due && left.is_none_or(|left| left >= inner.commit_until(durable));
        let mut entries = 0;
        if sync {
            let (position, sequence) = match batches.back() {
                Some(last) => (last.end_position, last.end_sequence),
                // All that was ever closed is written.
                None => (inner.closed_position, inner.closed_sequence),
            };
            inner.covering = Some(position);
            entries = sequence.saturating_sub(inner.committed_sequence);
            inner.committed_position = position;
            inner.committed_sequence = sequence;
            if inner.wanted_position <= position {
                inner.due = None;
            }
            let arrivals = self.arrivals();
            inner.gathered = arrivals - inner.arrived_before;
            inner.arrived_before = arrivals;
        }
        Taken { sync, entries }
    }

    /// Gives written batches' buffers back.
    pub(crate) fn give_back(&self, batches: impl IntoIterator<Item = Batch>) {
        let mut inner = self.lock();
        for batch in batches {
            // One large record must not leave a large buffer behind for ever.
            if batch.buffer.capacity() > 2 * inner.batch_bytes + wal_format::BLOCK_BYTES {
                inner.buffers -= 1;
            } else {
                inner.free.push(batch.buffer);
            }
        }
    }

    /// Everything below `position` is durable now.
    pub(crate) fn publish_durable(&self, position: u64) {
        self.durable_position.store(position, Ordering::Release);
    }

    /// Ends a turn: whoever is woken finds the device side free. Says after how much time the
    /// background has something to do, if it has.
    ///
    /// First comes the one who may lead next, so that the disk is soon at work again while all the
    /// others wake up.
    pub(crate) fn end_turn(&self, now: impl Fn() -> Duration) -> Option<Duration> {
        let mut inner = self.lock();
        inner.leading = false;
        if cfg!(wal_fault = "wakes_before_it_frees") {
            // Breaks what promise 1 lives by: who is woken sleeps again, and nobody leads any more.
            inner.leading = true;
        }
        inner.covering = None;
        let served = inner.turn.place();
        inner.turn = Turn(inner.turn.0.wrapping_add(1));
        let not_served = inner.turn.place();
        let wakers = self.wakers_served(&mut inner);
        let work_left = self.work_left(&inner, now);
        let has_buffer_waiter = std::mem::take(&mut inner.has_buffer_waiter);
        drop(inner);
        self.places[not_served].wake_one();
        self.places[served].wake_all();
        if has_buffer_waiter {
            self.buffer_may_be_had.notify_all();
        }
        wake(wakers);
        if cfg!(wal_fault = "wakes_before_it_frees") {
            self.lock().leading = false;
        }
        work_left
    }

    /// Gives up the memory of buffers that a burst needed, all but a few.
    pub(crate) fn trim(&self) {
        let mut inner = self.lock();
        let surplus = inner.free.len().saturating_sub(KEPT_BUFFERS);
        inner.buffers -= surplus;
        let kept = inner.free.len() - surplus;
        let surplus = inner.free.split_off(kept);
        drop(inner);
        drop(surplus);
    }

    /// After a cut: `end` is the end of the log, in a new life, and it is durable.
    pub(crate) fn restart_at(&self, end: Goal) {
        let mut inner = self.lock();
        self.life.store(end.life, Ordering::Release);
        inner.closed_position = end.position;
        inner.closed_sequence = end.sequence;
        inner.wanted_position = end.position;
        inner.wanted_sequence = end.sequence;
        inner.handed_over_position = end.position;
        inner.committed_position = end.position;
        inner.committed_sequence = end.sequence;
        inner.due = None;
        inner.commit_until = end.position;
        self.publish_durable(end.position);
        // Whoever still waits is of the life before, or waits for what may never come.
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        self.wake_everybody(wakers);
    }

    /// Makes `cause` the log's first cause, unless it has one; drops what was not written, and
    /// gives the memory back. Returns whether it is the first.
    pub(crate) fn poison(&self, cause: WalError) -> bool {
        let mut inner = self.lock();
        let is_first = inner.first_cause.is_none();
        inner.first_cause.get_or_insert_with(|| Arc::new(cause));
        let closed = std::mem::take(&mut inner.closed);
        let free = std::mem::take(&mut inner.free);
        let wakers = std::mem::take(&mut inner.wakers);
        self.poisoned.store(true, Ordering::Release);
        drop(inner);
        drop((closed, free));
        self.wake_everybody(wakers);
        is_first
    }

    /// Nothing will ever be appended again: whoever waits for more need not wait longer.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        self.wake_everybody(wakers);
    }

    // ---- for everybody ----

    pub(crate) fn durable_position(&self) -> u64 {
        self.durable_position.load(Ordering::Acquire)
    }

    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// # Errors
    ///
    /// [`WalError::Poisoned`] with the first cause.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.poisoned.load(Ordering::Acquire) {
            return Ok(());
        }
        self.check_under(&self.lock())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    pub(crate) fn stalls(&self) -> u64 {
        self.lock().stalls
    }

    fn settled_under(&self, inner: &Inner, goal: Goal) -> Option<Result<()>> {
        if self.durable_position() >= goal.position || self.life() != goal.life {
            return Some(Ok(()));
        }
        self.is_poisoned().then(|| self.check_under(inner))
    }

    fn check_under(&self, inner: &Inner) -> Result<()> {
        match &inner.first_cause {
            None => Ok(()),
            Some(first) => Err(WalError::Poisoned { core: self.core, first: Arc::clone(first) }),
        }
    }

    fn work_left(&self, inner: &Inner, now: impl Fn() -> Duration) -> Option<Duration> {
        if inner.has_full {
            return Some(Duration::ZERO);
        }
        let is_wanted = inner.handed_over_position > self.durable_position();
        is_wanted.then(|| inner.until_due(now))
    }

    fn wakers_served(&self, inner: &mut Inner) -> BTreeMap<WakerKey, Waker> {
        if inner.wakers.is_empty() {
            return BTreeMap::new();
        }
        let not_served = inner.wakers.split_off(&(self.durable_position() + 1, 0));
        std::mem::replace(&mut inner.wakers, not_served)
    }

    fn wake_everybody(&self, wakers: BTreeMap<WakerKey, Waker>) {
        for place in &self.places {
            place.wake_all();
        }
        self.buffer_may_be_had.notify_all();
        wake(wakers);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is whole at each step, so a panic elsewhere harms nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether so much waits that the commit needs no more company.
    const fn has_company(&self) -> bool {
        let bytes = self.wanted_position.saturating_sub(self.committed_position);
        let entries = self.wanted_sequence.saturating_sub(self.committed_sequence);
        self.policy.max_delay.is_zero()
            || bytes >= self.policy.max_bytes
            || entries >= self.policy.max_entries
    }

    /// How far a commit is to go that one turn does not finish.
    const fn commit_until(&mut self, durable: u64) -> u64 {
        if self.commit_until <= durable {
            self.commit_until = self.wanted_position;
        }
        self.commit_until
    }

    /// How long it is until the wanted commit is to begin.
    fn until_due(&self, now: impl FnOnce() -> Duration) -> Duration {
        match self.due {
            Some(due) if !due.is_zero() => due.saturating_sub(now()),
            _ => Duration::ZERO,
        }
    }

    /// Where somebody who waits for `position` is to sleep.
    fn place_for(&self, position: u64) -> usize {
        let is_too_late = self.covering.is_some_and(|covering| position > covering);
        if is_too_late { self.turn.next_place() } else { self.turn.place() }
    }
}

impl Turn {
    /// Where those sleep whom this turn serves.
    const fn place(self) -> usize {
        (self.0 % 2) as usize
    }

    /// Where those sleep whom the next turn serves.
    const fn next_place(self) -> usize {
        ((self.0 + 1) % 2) as usize
    }
}

fn wake(wakers: BTreeMap<WakerKey, Waker>) {
    for waker in wakers.into_values() {
        waker.wake();
    }
}

#[cfg(all(test, loom))]
mod model;

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;
