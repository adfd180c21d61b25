//! Epochs over all cores: the highest that any has reached, and the highest that all have left,
//! durably.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use wal_storage::Result;

use crate::bell::BellKey;
use crate::block_on::block_on;
use crate::core_log::{CoreLog, LogShared};
use crate::queue::{Goal, Queue};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Instant, Mutex, MutexGuard};
use crate::watch::{Reached, SyncedWatch};

/// Watches which epochs are complete, from any thread, and makes nothing durable itself.
///
/// An epoch is complete when every core has left it and the barrier that says so is durable: then
/// all entries of it, and of the epochs before, survive on all cores. A core that goes from one
/// epoch to a later one by [`set_epoch`](crate::CoreWalWriter::set_epoch) leaves those between with
/// its next barrier.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let storage = std::sync::Arc::new(wal_storage::OsStorage::create(directory.path().join("log"))?);
/// use wal_writer::{CoreSelection, LogOptions, Wal};
///
/// let (wal, _) = Wal::open(storage, LogOptions::default(), CoreSelection::First(2))?;
/// let epochs = wal.watch_epochs();
/// let mut writers = wal.writers()?;
/// writers.append_epoch_barrier()?;
/// assert_eq!(epochs.complete(), None);
/// writers.sync()?;
/// assert_eq!(epochs.complete(), Some(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct EpochWatch {
    shared: Arc<LogShared>,
    cores: Vec<Arc<CoreLog>>,
}

impl EpochWatch {
    pub(crate) fn new(shared: &Arc<LogShared>, cores: &[Arc<CoreLog>]) -> Self {
        Self { shared: Arc::clone(shared), cores: cores.to_vec() }
    }

    /// The highest complete epoch; `None` before the first. A cut takes it back, at most to the
    /// last checkpoint's.
    #[must_use]
    pub fn complete(&self) -> Option<u64> {
        // `None` is less than any epoch.
        self.cores.iter().map(|core| core.barriers.durable(&core.queue)).min().flatten()
    }

    /// Becomes ready when `epoch` is complete, whoever sees to that.
    pub fn reached(&self, epoch: u64) -> EpochReached {
        EpochReached { watch: self.clone(), epoch, key: None, barriers: BTreeMap::new() }
    }

    /// Waits until `epoch` is complete, whoever sees to that.
    ///
    /// # Errors
    ///
    /// As [`EpochReached`].
    pub fn wait_for(&self, epoch: u64) -> Result<()> {
        block_on(&mut self.reached(epoch), None).unwrap_or(Ok(()))
    }

    /// As [`wait_for`](Self::wait_for), but returns `false` after `at_most`.
    ///
    /// # Errors
    ///
    /// As [`EpochReached`].
    pub fn wait_for_timeout(&self, epoch: u64, at_most: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(at_most);
        block_on(&mut self.reached(epoch), deadline)
            .map_or(Ok(false), |reached| reached.map(|()| true))
    }
}

impl fmt::Debug for EpochWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochWatch").field("complete", &self.complete()).finish_non_exhaustive()
    }
}

/// Ready when an epoch is complete; made by [`EpochWatch::reached`].
///
/// # Errors
///
/// [`WalError::Poisoned`](wal_storage::WalError::Poisoned) if a core that is still missing failed,
/// and [`WalError::Closed`](wal_storage::WalError::Closed) if it ends before.
#[must_use = "a future does nothing unless it is awaited"]
pub struct EpochReached {
    watch: EpochWatch,
    epoch: u64,
    key: Option<BellKey>,
    /// Of cores whose barrier was appended: ready when it is durable.
    barriers: BTreeMap<u16, Reached>,
}

impl Future for EpochReached {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { watch, epoch, key, barriers } = &mut *self;
        watch.shared.bell.register(key, context.waker());
        let mut is_complete = true;
        for core in &watch.cores {
            match core.barriers.state(*epoch, &core.queue) {
                BarrierState::Durable => {}
                BarrierState::Appended(goal) => {
                    let reached = barriers
                        .entry(core.core)
                        .or_insert_with(|| SyncedWatch::new(core).reached(goal.position));
                    match Pin::new(reached).poll(context) {
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        // The state is looked at again when something has changed.
                        Poll::Ready(Ok(())) => {
                            barriers.remove(&core.core);
                            let state = core.barriers.state(*epoch, &core.queue);
                            is_complete &= matches!(state, BarrierState::Durable);
                        }
                        Poll::Pending => is_complete = false,
                    }
                }
                BarrierState::Missing => {
                    if let Err(error) = core.check_open() {
                        return Poll::Ready(Err(error));
                    }
                    is_complete = false;
                }
            }
        }
        if is_complete { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Drop for EpochReached {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.watch.shared.bell.deregister(key);
        }
    }
}

impl fmt::Debug for EpochReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochReached").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The highest epoch that any core has reached.
#[derive(Debug)]
pub(crate) struct HighestEpoch(AtomicU64);

impl HighestEpoch {
    pub(crate) fn new(epoch: u64) -> Self {
        Self(AtomicU64::new(epoch))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self, epoch: u64) {
        self.0.fetch_max(epoch, Ordering::AcqRel);
    }
}

/// The barriers of one core: which was the last that is durable, and those behind it.
#[derive(Debug)]
pub(crate) struct Barriers(Mutex<Known>);

#[derive(Debug)]
struct Known {
    durable: Option<u64>,
    /// The last checkpoint's epoch: no cut reaches below.
    checkpoint: Option<u64>,
    appended: VecDeque<(u64, Goal)>,
}

/// More barriers that are not durable are not told apart.
const APPENDED_MAX: usize = 64;

enum BarrierState {
    Durable,
    Appended(Goal),
    Missing,
}

impl Barriers {
    pub(crate) fn new(found: Option<u64>, checkpoint: Option<u64>) -> Self {
        let durable = found.max(checkpoint);
        let appended = VecDeque::with_capacity(APPENDED_MAX);
        Self(Mutex::new(Known { durable, checkpoint, appended }))
    }

    /// The barrier of `epoch` was appended, and `goal` covers it.
    pub(crate) fn appended(&self, epoch: u64, goal: Goal, queue: &Queue) {
        let mut known = self.lock();
        known.take_note_of_durable(queue);
        if known.appended.len() == APPENDED_MAX {
            // The new one speaks for it too, and no sooner.
            known.appended.pop_back();
        }
        known.appended.push_back((epoch, goal));
    }

    /// The checkpoint of `epoch` is durable.
    pub(crate) fn checkpointed(&self, epoch: u64) {
        let mut known = self.lock();
        known.checkpoint = known.checkpoint.max(Some(epoch));
        known.durable = known.durable.max(Some(epoch));
    }

    /// The log was cut: barriers behind the checkpoint may be gone. A reset takes the checkpoint
    /// away too.
    pub(crate) fn cut(&self, empties: bool) {
        let mut known = self.lock();
        if empties {
            known.checkpoint = None;
        }
        known.durable = known.checkpoint;
        known.appended.clear();
    }

    pub(crate) fn durable(&self, queue: &Queue) -> Option<u64> {
        let mut known = self.lock();
        known.take_note_of_durable(queue);
        known.durable
    }

    fn state(&self, epoch: u64, queue: &Queue) -> BarrierState {
        let mut known = self.lock();
        known.take_note_of_durable(queue);
        if known.durable.is_some_and(|durable| durable >= epoch) {
            return BarrierState::Durable;
        }
        let appended = known.appended.iter().find(|(barrier, _)| *barrier >= epoch);
        appended.map_or(BarrierState::Missing, |(_, goal)| BarrierState::Appended(*goal))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is whole at each step, so a panic elsewhere harms nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn take_note_of_durable(&mut self, queue: &Queue) {
        while let Some((epoch, goal)) = self.appended.front()
            && matches!(queue.settled(*goal), Some(Ok(())))
        {
            self.durable = self.durable.max(Some(*epoch));
            self.appended.pop_front();
        }
    }
}
