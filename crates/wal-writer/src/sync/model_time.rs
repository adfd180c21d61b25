//! Time under shuttle: it passes when a thread has slept to the end of its limit, and only then.

use std::cell::Cell;
use std::ops::Add;
use std::time::Duration;

thread_local! {
    /// All threads of a schedule are one to the operating system.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(NOW.get())
    }

    pub(crate) fn checked_add(self, time: Duration) -> Option<Self> {
        self.0.checked_add(time).map(Self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

pub(crate) fn pass_until(at: Instant) {
    NOW.set(NOW.get().max(at.0));
}

/// Wakes up without a cause while others have something to do, and in the end on time.
pub(crate) fn park_timeout(at_most: Duration) {
    let until = Instant::now() + at_most;
    shuttle::thread::yield_now();
    pass_until(until);
}
