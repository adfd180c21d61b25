//! What the kernel promises of a futex, for shuttle: also that who waits long enough wakes up.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test that called it")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::rand::Rng;

use crate::sync::atomic::AtomicU32;
use crate::sync::{Instant, Thread, current, model_time, park};

#[derive(Debug)]
pub(super) struct Futex {
    value: AtomicU32,
    /// Std's lock: no other thread runs between comparing the word and falling asleep.
    asleep: Mutex<Vec<Arc<Sleeper>>>,
}

#[derive(Debug)]
struct Sleeper {
    thread: Thread,
    is_awake: AtomicBool,
}

impl Futex {
    pub(super) fn new() -> Self {
        Self { value: AtomicU32::new(0), asleep: Mutex::new(Vec::new()) }
    }

    pub(super) fn value(&self) -> u32 {
        self.value.load(Ordering::SeqCst)
    }

    pub(super) fn count_up(&self) {
        self.value.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn wait(&self, seen: u32, at_most: Option<Duration>) {
        if self.value() != seen {
            return;
        }
        let sleeper = Arc::new(Sleeper { thread: current(), is_awake: AtomicBool::new(false) });
        self.asleep.lock().unwrap().push(Arc::clone(&sleeper));
        if let Some(time) = at_most {
            let until = Instant::now() + time;
            let sleeper = Arc::clone(&sleeper);
            shuttle::thread::spawn(move || {
                // The later, the longer nobody else wants to run.
                shuttle::thread::yield_now();
                if !sleeper.is_awake.load(Ordering::SeqCst) {
                    model_time::pass_until(until);
                    sleeper.wake();
                }
            });
        }
        while !sleeper.is_awake.load(Ordering::SeqCst) {
            park();
        }
        // Who woke up because of the time is still there.
        self.asleep.lock().unwrap().retain(|asleep| !Arc::ptr_eq(asleep, &sleeper));
    }

    /// Which threads the kernel wakes is not promised.
    pub(super) fn wake(&self, threads: u32) {
        // Others may run before this call to the kernel.
        let _ = self.value();
        for _ in 0..threads {
            let mut asleep = self.asleep.lock().unwrap();
            asleep.retain(|sleeper| !sleeper.is_awake.load(Ordering::SeqCst));
            if asleep.is_empty() {
                return;
            }
            let chosen = shuttle::rand::thread_rng().gen_range(0..asleep.len());
            let sleeper = asleep.swap_remove(chosen);
            drop(asleep);
            sleeper.wake();
        }
    }
}

impl Sleeper {
    fn wake(&self) {
        self.is_awake.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}
