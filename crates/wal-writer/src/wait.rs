//! A place where threads wait for something that changes under a mutex.
//!
//! On Linux it is one futex word: waking many threads is one system call, and a woken thread does
//! not queue up for the mutex before it has looked at what it waited for. Elsewhere it is a
//! condition variable.

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

#[cfg(any(target_os = "linux", all(test, any(loom, shuttle))))]
mod imp {
    use std::time::Duration;

    use super::futex::Futex;
    use crate::sync::MutexGuard;
    use crate::sync::atomic::{AtomicU32, Ordering};

    #[derive(Debug)]
    pub(super) struct Place {
        /// Counts wake-ups: who saw it change does not go to sleep.
        wake_ups: Futex,
        /// How many threads sleep, or are about to, or have not yet noticed that they woke up.
        sleepers: AtomicU32,
    }

    impl Place {
        pub(super) fn new() -> Self {
            Self { wake_ups: Futex::new(), sleepers: AtomicU32::new(0) }
        }

        pub(super) fn wait<T>(&self, guard: MutexGuard<'_, T>, at_most: Option<Duration>) {
            // Both under the mutex: who changes something under it later sees the sleeper, and
            // counts the wake-up after this.
            let seen = self.wake_ups.value();
            self.sleepers.fetch_add(1, Ordering::Relaxed);
            drop(guard);
            self.wake_ups.wait(seen, at_most);
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
            self.wake_ups.count_up();
            self.wake_ups.wake(threads);
        }
    }
}

#[cfg(all(target_os = "linux", not(all(test, any(loom, shuttle)))))]
mod futex {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::thread::futex::{self, Flags};

    /// A word that threads sleep at for as long as it has the value that they saw.
    #[derive(Debug)]
    pub(super) struct Futex(AtomicU32);

    impl Futex {
        pub(super) const fn new() -> Self {
            Self(AtomicU32::new(0))
        }

        pub(super) fn value(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }

        pub(super) fn count_up(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        pub(super) fn wait(&self, seen: u32, at_most: Option<Duration>) {
            // A length of time that is not one is as good as none.
            let at_most = at_most.and_then(|time| time.try_into().ok());
            // Whatever it returns, who waits looks for itself.
            let _ = futex::wait(&self.0, Flags::PRIVATE, seen, at_most.as_ref());
        }

        pub(super) fn wake(&self, threads: u32) {
            let _ = futex::wake(&self.0, Flags::PRIVATE, threads);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_futex;
#[cfg(all(test, loom))]
use loom_futex as futex;

#[cfg(all(test, shuttle))]
mod shuttle_futex;
#[cfg(all(test, shuttle))]
use shuttle_futex as futex;

#[cfg(not(any(target_os = "linux", all(test, any(loom, shuttle)))))]
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
