//! The receipt for what was submitted: waited for, awaited or polled.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use wal_storage::Result;

use crate::core_log::CoreLog;
use crate::queue::{Goal, WakerKey, Wanted};
use crate::sync::Instant;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The receipt for submitted entries: says once and for all whether they, and everything before
/// them on their core, are durable.
///
/// Wait for it in a thread, await it in any executor, or ask it now and then. What was submitted
/// is written whatever becomes of the ticket: a ticket that is dropped, and a future that is
/// cancelled, only do not hear of it.
///
/// A log that is closed or poisoned completes all its tickets. One that is cut completed them
/// before: what was submitted was durable, and was then cut.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("log");
/// use wal_writer::CoreWalWriter;
///
/// let mut writer = CoreWalWriter::new(0, &path)?;
/// writer.append_put(b"key", b"value")?;
/// let ticket = writer.submit()?;
/// writer.append_put(b"key", b"newer value")?; // goes on meanwhile
/// ticket.wait()?;
/// assert!(ticket.is_durable()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a ticket says whether the entries are durable; a sync makes sure here and now"]
pub struct SyncTicket {
    log: Arc<CoreLog>,
    goal: Goal,
    /// The wish has been handed over to whoever leads: asking again changes nothing.
    is_handed_over: AtomicBool,
    /// The one waker that is registered for this ticket.
    waker: Option<WakerKey>,
}

impl SyncTicket {
    /// For what nobody has been asked yet to make durable.
    pub(crate) fn new(log: &Arc<CoreLog>, goal: Goal) -> Self {
        Self::with(log, goal, false)
    }

    /// For what the background has been asked to make durable.
    pub(crate) fn handed_over(log: &Arc<CoreLog>, goal: Goal) -> Self {
        Self::with(log, goal, true)
    }

    fn with(log: &Arc<CoreLog>, goal: Goal, is_handed_over: bool) -> Self {
        let is_handed_over = AtomicBool::new(is_handed_over);
        Self { log: Arc::clone(log), goal, is_handed_over, waker: None }
    }

    /// Everything of the core's log below this position is durable once the ticket says so.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.goal.position
    }

    /// The core whose log it is.
    #[must_use]
    pub fn core_id(&self) -> u16 {
        self.log.core
    }

    /// Whether the entries are durable by now. Never waits for the disk; the first time that it
    /// says no, it sees to it that they will be.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`](wal_storage::WalError::Poisoned): whether they are on the disk is
    /// unknown.
    pub fn is_durable(&self) -> Result<bool> {
        if let Some(settled) = self.log.queue.settled(self.goal) {
            return settled.map(|()| true);
        }
        self.hand_over();
        Ok(false)
    }

    /// Waits until the entries are durable; makes them so in this thread if no other is at it.
    ///
    /// Blocks: in asynchronous code, await the ticket instead.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`](wal_storage::WalError::Poisoned): whether they are on the disk is
    /// unknown.
    pub fn wait(&self) -> Result<()> {
        self.log.lead_to(self.goal, Wanted::ByPolicy, None).map(|_| ())
    }

    /// As [`wait`](Self::wait), but returns `false` if they are not durable after `at_most`. They
    /// will be, all the same.
    ///
    /// If this thread has begun to make them durable by then, it finishes that first: others may
    /// wait for it.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, at_most: Duration) -> Result<bool> {
        // A time that ends beyond all times is no limit.
        let deadline = Instant::now().checked_add(at_most);
        let is_durable = self.log.lead_to(self.goal, Wanted::ByPolicy, deadline)?;
        if !is_durable {
            self.hand_over();
        }
        Ok(is_durable)
    }

    /// Has the background see to it, unless it does already. Returns whether somebody will.
    fn hand_over(&self) -> bool {
        if self.is_handed_over.swap(true, Ordering::Relaxed) {
            return true;
        }
        let will_be_led = self.log.hand_over(self.goal);
        if !will_be_led {
            self.is_handed_over.store(false, Ordering::Relaxed);
        }
        will_be_led
    }

    fn forget_waker(&mut self) {
        if let Some(key) = self.waker.take() {
            self.log.queue.deregister(key);
        }
    }
}

impl Future for SyncTicket {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = &mut *self;
        let queue = &ticket.log.queue;
        let settled = queue.settled(ticket.goal);
        let settled =
            settled.or_else(|| queue.register(ticket.goal, &mut ticket.waker, context.waker()));
        if let Some(settled) = settled {
            ticket.forget_waker();
            return Poll::Ready(settled);
        }
        if ticket.hand_over() && ticket.log.shared.committer.has_thread() {
            return Poll::Pending;
        }
        // There is no thread to be had for it. Late is better than never.
        let led = ticket.wait();
        ticket.forget_waker();
        Poll::Ready(led)
    }
}

/// The clone is polled, awaited and dropped for itself.
impl Clone for SyncTicket {
    fn clone(&self) -> Self {
        let is_handed_over = self.is_handed_over.load(Ordering::Relaxed);
        Self::with(&self.log, self.goal, is_handed_over)
    }
}

impl Drop for SyncTicket {
    fn drop(&mut self) {
        self.forget_waker();
        if self.log.queue.settled(self.goal).is_none() {
            self.hand_over();
        }
    }
}

impl fmt::Debug for SyncTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncTicket")
            .field("core_id", &self.core_id())
            .field("position", &self.position())
            .field("is_settled", &self.log.queue.settled(self.goal).is_some())
            .finish_non_exhaustive()
    }
}
