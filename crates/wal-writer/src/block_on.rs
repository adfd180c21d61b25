//! Waiting for a future in a thread that has nothing else to do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::sync::{Instant, Thread, current, park, park_timeout};

/// What the future gives; `None` if the deadline comes first.
pub(crate) fn block_on<T>(
    future: &mut (impl Future<Output = T> + Unpin),
    deadline: Option<Instant>,
) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(given) = Pin::new(&mut *future).poll(&mut context) {
            return Some(given);
        }
        match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
            None => park(),
            Some(Duration::ZERO) => return None,
            Some(rest) => park_timeout(rest),
        }
    }
}

/// Wakes a thread that parks.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
