//! The locks, atomics and clocks that threads meet at: std's, or their twins under the model
//! checkers that walk through the interleavings of this crate's unit tests.

#[cfg(not(all(test, any(loom, shuttle))))]
mod imp {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use std::thread::{Thread, current, park, park_timeout, yield_now};
    pub(crate) use std::time::Instant;
}

#[cfg(all(test, loom))]
mod imp {
    pub(crate) use std::time::Instant;

    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use loom::thread::{Thread, current, park, yield_now};

    /// For loom no time ever passes.
    pub(crate) fn park_timeout(_at_most: std::time::Duration) {
        park();
    }
}

#[cfg(all(test, shuttle))]
mod imp {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use shuttle::thread::{Thread, current, park, yield_now};

    pub(crate) use super::model_time::{Instant, park_timeout};
}

#[cfg(all(test, shuttle))]
pub(crate) mod model_time;

pub(crate) use imp::*;
