//! A bell for those who wait until something has happened that happens seldom: a barrier, an arrival,
//! the end of a log.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::task::Waker;

use crate::sync::{Mutex, MutexGuard};

/// Whoever waits registers first and looks then; whoever changes something rings afterwards. So
/// nobody sleeps through a change.
#[derive(Debug)]
pub(crate) struct Bell(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    wakers: BTreeMap<u64, Waker>,
    next_key: u64,
}

/// Under which a waker is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BellKey(u64);

impl Bell {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Waiting::default()))
    }

    /// Has `waker` woken when the bell rings next. One of these per key: a new one replaces it.
    pub(crate) fn register(&self, key: &mut Option<BellKey>, waker: &Waker) {
        let mut waiting = self.lock();
        let BellKey(number) = *key.get_or_insert_with(|| {
            waiting.next_key += 1;
            BellKey(waiting.next_key)
        });
        let replaced = waiting.wakers.insert(number, waker.clone());
        drop(waiting);
        // Not under the lock: a waker may hold anything, also what rings this bell when dropped.
        drop(replaced);
    }

    pub(crate) fn deregister(&self, key: BellKey) {
        let removed = self.lock().wakers.remove(&key.0);
        drop(removed);
    }

    /// Wakes everybody who is registered.
    pub(crate) fn ring(&self) {
        let wakers = std::mem::take(&mut self.lock().wakers);
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is whole at each step, so a panic elsewhere harms nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_ring_wakes_each_who_is_registered_once_and_nobody_who_is_not() {
        let bell = Bell::new();
        let counts: [Arc<Count>; 3] = Default::default();
        let mut keys = [None; 3];
        for (count, key) in counts.iter().zip(&mut keys) {
            bell.register(key, &Waker::from(Arc::clone(count)));
        }
        // Registering anew replaces the waker.
        let other = Arc::new(Count::default());
        bell.register(&mut keys[0], &Waker::from(Arc::clone(&other)));
        bell.deregister(keys[1].unwrap());
        bell.ring();
        bell.ring();
        let woken = counts.each_ref().map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!((woken, other.0.load(Ordering::Relaxed)), ([0, 0, 1], 1));
    }
}
