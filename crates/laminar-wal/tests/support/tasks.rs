//! Futures without a runtime: wakers that count, an executor of a few lines, and a clock that ends
//! a test that hangs.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// Counts how often it is woken, and knows who still holds a waker of it.
#[derive(Debug, Default)]
pub(crate) struct WakeCount {
    times: AtomicUsize,
}

impl WakeCount {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn times(&self) -> usize {
        self.times.load(Ordering::SeqCst)
    }

    /// How many wakers are registered somewhere.
    pub(crate) fn registered(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }

    /// Polls a future with a waker that counts here.
    pub(crate) fn poll<F: Future + Unpin>(self: &Arc<Self>, future: &mut F) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(self));
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    }
}

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::SeqCst);
    }
}

/// Awaits one future in this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs tasks in one thread. A task that is not woken is not polled again, so that a wake-up that
/// was forgotten is a test that ends unfinished.
#[derive(Default)]
pub(crate) struct Executor {
    tasks: BTreeMap<usize, Pin<Box<dyn Future<Output = ()>>>>,
    spawned: usize,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken {
    tasks: Mutex<VecDeque<usize>>,
    thread: Mutex<Option<Thread>>,
}

struct TaskWaker {
    task: usize,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        lock(&self.woken.tasks).push_back(self.task);
        if let Some(thread) = &*lock(&self.woken.thread) {
            thread.unpark();
        }
    }
}

impl Executor {
    pub(crate) fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        lock(&self.woken.tasks).push_back(self.spawned);
        self.tasks.insert(self.spawned, Box::pin(future));
        self.spawned += 1;
    }

    /// Polls every task that was woken, and those that these wake, and returns how many tasks are
    /// not finished.
    pub(crate) fn run_woken(&mut self) -> usize {
        loop {
            let Some(task) = lock(&self.woken.tasks).pop_front() else {
                return self.tasks.len();
            };
            let Some(future) = self.tasks.get_mut(&task) else { continue };
            let waker = Waker::from(Arc::new(TaskWaker { task, woken: Arc::clone(&self.woken) }));
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.tasks.remove(&task);
            }
        }
    }

    /// Runs until every task is finished.
    pub(crate) fn run(&mut self) {
        *lock(&self.woken.thread) = Some(thread::current());
        while self.run_woken() > 0 {
            thread::park();
        }
    }
}

/// Ends the whole test program, with a word about what it was doing, if that takes so long that it
/// must hang. A check that failed while other threads were held up comes to this too: it is seen
/// with `--nocapture`.
pub(crate) struct Watchdog {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Nothing here takes a hundredth of it.
const HANGS_AFTER: Duration = Duration::from_secs(60);

impl Watchdog {
    pub(crate) fn over(what: impl Into<String>) -> Self {
        let what = what.into();
        let (done, is_done) = channel();
        let watch = move || {
            if is_done.recv_timeout(HANGS_AFTER) == Err(RecvTimeoutError::Timeout) {
                super::say(&format!("it hangs: {what}"));
                std::process::abort();
            }
        };
        Self { done: Some(done), thread: Some(thread::spawn(watch)) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
