//! Time that passes only when told to.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// What the wall clock of a new machine shows: a moment in 2026, so that dates look like dates.
const WALL_CLOCK_AT_START_NS: i64 = 1_780_000_000_000_000_000;

/// The two clocks of a machine. Between two calls that move them, both stand still: whoever needs
/// time to pass between two readings must cope with a coarse clock.
#[derive(Debug)]
pub(crate) struct Clock {
    monotonic_ns: AtomicU64,
    wall_ns: AtomicI64,
}

impl Clock {
    pub(crate) const fn new() -> Self {
        Self { monotonic_ns: AtomicU64::new(0), wall_ns: AtomicI64::new(WALL_CLOCK_AT_START_NS) }
    }

    /// The clocks of the same machine after a process ended: both go on.
    pub(crate) fn after_kill(&self) -> Self {
        Self {
            monotonic_ns: AtomicU64::new(self.monotonic_ns.load(Ordering::SeqCst)),
            wall_ns: AtomicI64::new(self.wall_ns.load(Ordering::SeqCst)),
        }
    }

    /// The clocks after power loss: the monotonic one starts again at zero.
    pub(crate) fn after_crash(&self) -> Self {
        Self { monotonic_ns: AtomicU64::new(0), ..self.after_kill() }
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }

    pub(crate) fn wall_clock_ns(&self) -> i64 {
        self.wall_ns.load(Ordering::SeqCst)
    }

    pub(crate) fn advance(&self, time: Duration) {
        let ns = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.monotonic_ns.fetch_add(ns.unsigned_abs(), Ordering::SeqCst);
        self.step_wall_clock(ns);
    }

    pub(crate) fn set_wall_clock_ns(&self, ns: i64) {
        self.wall_ns.store(ns, Ordering::SeqCst);
    }

    pub(crate) fn step_wall_clock(&self, ns: i64) {
        self.wall_ns.fetch_add(ns, Ordering::SeqCst);
    }
}
