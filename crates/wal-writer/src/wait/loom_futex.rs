//! What the kernel promises of a futex, out of parts that loom knows.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test that called it")]

use std::time::Duration;

use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Condvar, Mutex};

#[derive(Debug)]
pub(super) struct Futex {
    value: AtomicU32,
    /// Held while the kernel compares the word, puts a thread to sleep, or wakes some.
    kernel: Mutex<()>,
    asleep: Condvar,
}

impl Futex {
    pub(super) fn new() -> Self {
        Self { value: AtomicU32::new(0), kernel: Mutex::new(()), asleep: Condvar::new() }
    }

    pub(super) fn value(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }

    pub(super) fn count_up(&self) {
        self.value.fetch_add(1, Ordering::Relaxed);
    }

    /// Time does not pass: models set no limits.
    pub(super) fn wait(&self, seen: u32, _at_most: Option<Duration>) {
        let in_kernel = self.kernel.lock().unwrap();
        if self.value() == seen {
            drop(self.asleep.wait(in_kernel).unwrap());
        }
    }

    pub(super) fn wake(&self, threads: u32) {
        let _in_kernel = self.kernel.lock().unwrap();
        if threads == 1 { self.asleep.notify_one() } else { self.asleep.notify_all() }
    }
}
