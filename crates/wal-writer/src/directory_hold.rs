//! The lock on the directory, as one core's log holds it: for as long as anything of it may touch
//! the disk.

use std::sync::PoisonError;

use wal_storage::DirectoryLock;

use crate::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct DirectoryHold {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// `None` once the log let go of it.
    lock: Option<DirectoryLock>,
    /// How many pieces of work hold it by themselves.
    at_work: usize,
}

/// Holds the directory for a piece of work, also if the log lets go of it meanwhile.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    hold: &'a DirectoryHold,
    lock: Option<DirectoryLock>,
}

impl DirectoryHold {
    pub(crate) fn new(lock: DirectoryLock) -> Self {
        let state = State { lock: Some(lock), at_work: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// `None` if the log let go of the directory: nothing may be done there any more.
    pub(crate) fn hold(&self) -> Option<Held<'_>> {
        let mut state = self.state();
        let lock = state.lock.clone()?;
        state.at_work += 1;
        Some(Held { hold: self, lock: Some(lock) })
    }

    /// Lets nobody begin to work any more. Whoever is at work keeps the directory until the end.
    pub(crate) fn let_go(&self) {
        self.state().lock = None;
    }

    /// As [`let_go`](Self::let_go), and waits for the end of all work. Not to be called by work.
    pub(crate) fn let_go_and_wait(&self) {
        let mut state = self.state();
        state.lock = None;
        while state.at_work > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole at each step, so a panic elsewhere harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // First the lock itself: who waits may want to take it.
        self.lock = None;
        self.hold.state().at_work -= 1;
        self.hold.changed.notify_all();
    }
}
