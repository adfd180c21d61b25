//! What lies between the appender and the leader: closed batches, free buffers, the first cause.
//!
//! One short mutex, touched per batch and never per append, and two words that are read without
//! it: how far the core's log is durable, and whether it is poisoned.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

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
            }),
        }
    }

    // ---- for the appender ----

    /// An empty buffer, or `None` if all are in flight: the appender must lead then.
    pub(crate) fn free_buffer(&self) -> Option<RecordBuffer> {
        let mut inner = self.lock();
        if let Some(buffer) = inner.free.pop() {
            return Some(buffer);
        }
        if inner.buffers >= inner.buffers_max {
            inner.stalls += 1;
            return None;
        }
        inner.buffers += 1;
        // A seal may come behind the last record that fits, and the block is filled up.
        Some(RecordBuffer::with_capacity(inner.batch_bytes + wal_format::BLOCK_BYTES))
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

    /// Every closed batch, oldest first, and how far somebody wants durability.
    pub(crate) fn take_closed(&self) -> (VecDeque<Batch>, u64) {
        let mut inner = self.lock();
        (std::mem::take(&mut inner.closed), inner.wanted_position)
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is whole at each step, so a panic elsewhere harms nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
