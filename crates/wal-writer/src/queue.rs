//! What lies between the appender and the leader: closed batches, free buffers, the first cause.
//!
//! One short mutex, touched per batch and never per append, and two words that are read without
//! it: how far the core's log is durable, and whether it is poisoned.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use wal_entry::RecordBuffer;
use wal_storage::{Result, WalError};

use crate::batch::Batch;

#[derive(Debug)]
pub(crate) struct Queue {
    core: u16,
    /// Everything below is durable. Written by the leader alone, and by a cut, which holds the
    /// device side and is the only one to take it back.
    durable_position: AtomicU64,
    poisoned: AtomicBool,
    inner: Mutex<Inner>,
    /// A buffer came back, the device side became free, or the log was poisoned.
    buffer_may_be_had: Condvar,
}

#[derive(Debug)]
struct Inner {
    closed: VecDeque<Batch>,
    /// The end of the last batch that was ever closed.
    closed_position: u64,
    free: Vec<RecordBuffer>,
    /// Buffers that were made and not given up: free, being filled, or in flight.
    buffers: usize,
    buffers_max: usize,
    batch_bytes: usize,
    /// Somebody waits until everything below is durable.
    wanted_position: u64,
    first_cause: Option<Arc<WalError>>,
    /// How often an appender found no free buffer.
    stalls: u64,
    /// How often the device side became free.
    turn: Turn,
    /// An appender waits for a buffer.
    has_waiter: bool,
}

/// Counts who had the device side, so that an appender who saw it taken knows whether that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(u64);

/// What a leader took, and what it is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// Somebody waits until everything below is durable.
    pub(crate) wanted_position: u64,
    /// No closed batch was left behind.
    pub(crate) are_all: bool,
    /// What was left behind, if anything, begins behind the wanted position: a sync need not wait
    /// for an appender that closes one batch after the other.
    pub(crate) cover_wanted: bool,
}

/// One to be filled, one to be written.
const KEPT_BUFFERS: usize = 2;

/// What a leader takes at once: so much that the device is used well, and so little that the first
/// buffers are free again before the last are written.
const TAKEN_BYTES: usize = 1024 * 1024;

/// No more batches, so that the list of what to write fits on the stack.
pub(crate) const TAKEN_BATCHES_MAX: usize = 30;

impl Queue {
    pub(crate) fn new(
        core: u16,
        durable_position: u64,
        buffers_max: usize,
        batch_bytes: usize,
    ) -> Self {
        Self {
            core,
            durable_position: AtomicU64::new(durable_position),
            poisoned: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                closed: VecDeque::new(),
                closed_position: durable_position,
                free: Vec::new(),
                buffers: 0,
                buffers_max,
                batch_bytes,
                wanted_position: durable_position,
                first_cause: None,
                stalls: 0,
                turn: Turn(0),
                has_waiter: false,
            }),
            buffer_may_be_had: Condvar::new(),
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

    /// Waits until a buffer is free, or the turn is over in which the device side was taken.
    pub(crate) fn wait_for_buffer(&self, turn: Turn) {
        let mut inner = self.lock();
        inner.has_waiter = true;
        while inner.free.is_empty() && inner.turn == turn && !self.is_poisoned() {
            inner = self.buffer_may_be_had.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.has_waiter = false;
    }

    pub(crate) fn count_stall(&self) {
        self.lock().stalls += 1;
    }

    pub(crate) fn push(&self, batch: Batch) {
        let mut inner = self.lock();
        inner.closed_position = batch.end_position;
        inner.closed.push_back(batch);
    }

    /// Asks for everything below `position` to be durable. What is not there, or not any more,
    /// cannot be asked for.
    pub(crate) fn want(&self, position: u64) {
        let mut inner = self.lock();
        let position = position.min(inner.closed_position);
        inner.wanted_position = inner.wanted_position.max(position);
    }

    // ---- for the leader ----

    /// Moves closed batches, oldest first, into `batches`, which is empty.
    pub(crate) fn take_closed(&self, batches: &mut VecDeque<Batch>) -> Taken {
        let mut inner = self.lock();
        let mut bytes = 0;
        while bytes < TAKEN_BYTES
            && batches.len() < TAKEN_BATCHES_MAX
            && let Some(batch) = inner.closed.pop_front()
        {
            bytes += batch.buffer.len();
            batches.push_back(batch);
        }
        let wanted_position = inner.wanted_position;
        let left = inner.closed.front();
        Taken {
            wanted_position,
            are_all: left.is_none(),
            cover_wanted: left.is_none_or(|batch| batch.start_position >= wanted_position),
        }
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
        self.wake_waiter(&inner);
    }

    /// Ends a turn; the device side has been let go.
    pub(crate) fn end_turn(&self) {
        let mut inner = self.lock();
        inner.turn.0 = inner.turn.0.wrapping_add(1);
        self.wake_waiter(&inner);
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

    /// Everything below `position` is durable now.
    pub(crate) fn publish_durable(&self, position: u64) {
        self.durable_position.store(position, Ordering::Release);
    }

    /// After a cut: `position` is the end of the log, and it is durable.
    pub(crate) fn restart_at(&self, position: u64) {
        let mut inner = self.lock();
        inner.closed_position = position;
        inner.wanted_position = position;
        drop(inner);
        self.publish_durable(position);
    }

    /// Makes `cause` the log's first cause, unless it has one; drops what was not written, and
    /// gives the memory back.
    pub(crate) fn poison(&self, cause: WalError) {
        let mut inner = self.lock();
        inner.first_cause.get_or_insert_with(|| Arc::new(cause));
        inner.closed.clear();
        inner.free = Vec::new();
        self.poisoned.store(true, Ordering::Release);
        self.wake_waiter(&inner);
    }

    // ---- for everybody ----

    pub(crate) fn durable_position(&self) -> u64 {
        self.durable_position.load(Ordering::Acquire)
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
        match &self.lock().first_cause {
            None => Ok(()),
            Some(first) => Err(WalError::Poisoned { core: self.core, first: Arc::clone(first) }),
        }
    }

    pub(crate) fn stalls(&self) -> u64 {
        self.lock().stalls
    }

    fn wake_waiter(&self, inner: &Inner) {
        if inner.has_waiter {
            self.buffer_may_be_had.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is whole at each step, so a panic elsewhere harms nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
