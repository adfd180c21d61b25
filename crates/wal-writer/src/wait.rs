//! A place where threads wait for something that changes under a mutex.
//!
//! On Linux it is one futex word: waking many threads is one system call, and a woken thread does
//! not queue up for the mutex before it has looked at what it waited for. Elsewhere, and for the
//! model checkers, it is a condition variable.

use std::time::Duration;

use crate::sync::MutexGuard;

/// Threads that wait, and may be woken all at once or one at a time.
///
/// Who wakes has changed what they wait for before, under the mutex that they looked at it under;
/// the mutex need not be held any more. Wake-ups without a cause happen.
#[derive(Debug)]
pub(crate) struct WaitingPlace(imp::Place);

impl WaitingPlace {
    pub(crate) fn new() -> Self {
        Self(imp::Place::new())
    }

    /// Lets go of the mutex and sleeps until woken, or until `at_most` has passed.
    pub(crate) fn wait<T>(&self, guard: MutexGuard<'_, T>, at_most: Option<Duration>) {
        self.0.wait(guard, at_most);
    }

    /// Wakes one thread at least, if any sleeps here.
    pub(crate) fn wake_one(&self) {
        self.0.wake_one();
    }

    pub(crate) fn wake_all(&self) {
        self.0.wake_all();
    }
}

#[cfg(all(target_os = "linux", not(any(loom, shuttle))))]
mod imp {
    use std::sync::MutexGuard;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::thread::futex::{self, Flags};

    #[derive(Debug)]
    pub(super) struct Place {
        /// Counts wake-ups: who saw it change does not go to sleep.
        wake_ups: AtomicU32,
        /// How many threads sleep, or are about to, or have not yet noticed that they woke up.
        sleepers: AtomicU32,
    }

    impl Place {
        pub(super) const fn new() -> Self {
            Self { wake_ups: AtomicU32::new(0), sleepers: AtomicU32::new(0) }
        }

        pub(super) fn wait<T>(&self, guard: MutexGuard<'_, T>, at_most: Option<Duration>) {
            // Both under the mutex: who changes something under it later sees the sleeper, and
            // counts the wake-up after this.
            let seen = self.wake_ups.load(Ordering::Relaxed);
            self.sleepers.fetch_add(1, Ordering::Relaxed);
            drop(guard);
            // A length of time that is not one is as good as none.
            let at_most = at_most.and_then(|time| time.try_into().ok());
            // Whatever it returns, who waits looks for itself.
            let _ = futex::wait(&self.wake_ups, Flags::PRIVATE, seen, at_most.as_ref());
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
        }

        pub(super) fn wake_one(&self) {
            self.wake(1);
        }

        pub(super) fn wake_all(&self) {
            self.wake(i32::MAX.unsigned_abs());
        }

        fn wake(&self, threads: u32) {
            if self.sleepers.load(Ordering::Relaxed) == 0 {
                return;
            }
            self.wake_ups.fetch_add(1, Ordering::Relaxed);
            let _ = futex::wake(&self.wake_ups, Flags::PRIVATE, threads);
        }
    }
}

#[cfg(not(all(target_os = "linux", not(any(loom, shuttle)))))]
mod imp {
    use std::sync::PoisonError;
    use std::time::Duration;

    use crate::sync::{Condvar, MutexGuard};

    #[derive(Debug)]
    pub(super) struct Place(Condvar);

    impl Place {
        pub(super) fn new() -> Self {
            Self(Condvar::new())
        }

        pub(super) fn wait<T>(&self, guard: MutexGuard<'_, T>, at_most: Option<Duration>) {
            match at_most {
                None => drop(self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)),
                Some(time) => drop(self.0.wait_timeout(guard, time)),
            }
        }

        pub(super) fn wake_one(&self) {
            self.0.notify_one();
        }

        pub(super) fn wake_all(&self) {
            self.0.notify_all();
        }
    }
}
