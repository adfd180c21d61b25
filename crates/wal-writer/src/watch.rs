//! How far a core's log is durable, seen from anywhere.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use wal_storage::Result;

use crate::block_on::block_on;
use crate::core_log::CoreLog;
use crate::queue::{Goal, WakerKey};
use crate::sync::Instant;

/// Watches how far a core's log is durable, from any thread, and makes nothing durable itself.
///
/// One thread with many logical clients needs nothing else: it appends for all of them, submits
/// once, and answers those whose position has been reached when it looks the next time.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("log");
/// use wal_writer::CoreWalWriter;
///
/// let mut writer = CoreWalWriter::new(0, &path)?;
/// let watch = writer.watch();
/// writer.append_put(b"key", b"value")?;
/// let ticket = writer.submit()?;
/// watch.wait_for(ticket.position())?;
/// assert!(watch.position() >= ticket.position());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SyncedWatch {
    log: Arc<CoreLog>,
}

impl SyncedWatch {
    pub(crate) fn new(log: &Arc<CoreLog>) -> Self {
        Self { log: Arc::clone(log) }
    }

    /// The core whose log it is.
    #[must_use]
    pub fn core_id(&self) -> u16 {
        self.log.core
    }

    /// Everything below this position is durable. One atomic read; only a cut takes it back.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.log.queue.durable_position()
    }

    /// Becomes ready when everything below `position` is durable, whoever sees to that.
    pub fn reached(&self, position: u64) -> Reached {
        Reached { log: Arc::clone(&self.log), position, waker: None }
    }

    /// Waits until everything below `position` is durable, whoever sees to that.
    ///
    /// # Errors
    ///
    /// As [`Reached`].
    pub fn wait_for(&self, position: u64) -> Result<()> {
        self.wait_until(position, None).map(|_| ())
    }

    /// As [`wait_for`](Self::wait_for), but returns `false` after `at_most`.
    ///
    /// # Errors
    ///
    /// As [`Reached`].
    pub fn wait_for_timeout(&self, position: u64, at_most: Duration) -> Result<bool> {
        self.wait_until(position, Instant::now().checked_add(at_most))
    }

    fn wait_until(&self, position: u64, deadline: Option<Instant>) -> Result<bool> {
        let settled = block_on(&mut self.reached(position), deadline);
        settled.map_or(Ok(false), |settled| settled.map(|()| true))
    }
}

impl fmt::Debug for SyncedWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncedWatch")
            .field("core_id", &self.core_id())
            .field("position", &self.position())
            .finish()
    }
}

/// Ready when everything below a position is durable; made by [`SyncedWatch::reached`].
///
/// # Errors
///
/// [`WalError::Poisoned`](wal_storage::WalError::Poisoned), and
/// [`WalError::Closed`](wal_storage::WalError::Closed) if the log ends below the position.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Reached {
    log: Arc<CoreLog>,
    position: u64,
    waker: Option<WakerKey>,
}

impl Future for Reached {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reached = &mut *self;
        let queue = &reached.log.queue;
        let mut was_closed = false;
        loop {
            let life = queue.life();
            let goal = Goal { position: reached.position, sequence: 0, life };
            match queue.register(goal, &mut reached.waker, context.waker()) {
                // The log was cut in between: what counts is how it goes on.
                Some(Ok(())) if queue.life() != life => {}
                Some(settled) => {
                    reached.forget_waker();
                    return Poll::Ready(settled);
                }
                // It may have been reached since, and before the log was closed.
                None if !was_closed && queue.is_closed() => was_closed = true,
                None if was_closed => {
                    reached.forget_waker();
                    return Poll::Ready(Err(reached.log.shared.closed()));
                }
                None => return Poll::Pending,
            }
        }
    }
}

impl Reached {
    fn forget_waker(&mut self) {
        if let Some(key) = self.waker.take() {
            self.log.queue.deregister(key);
        }
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        self.forget_waker();
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reached")
            .field("core_id", &self.log.core)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
