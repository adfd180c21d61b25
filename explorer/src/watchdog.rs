//! Threads that are watched: who does not come to an end is given up, and what it was at is known.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::explorer::Step;
use crate::workload::Workload;

/// A thread that does nothing new for so long stands still. No call takes a hundredth of it on a
/// machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether a thread does something new.
const LOOKS_APART: Duration = Duration::from_millis(100);

/// What an exploring thread is at, told by itself before each thing that it does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Beating>);

#[derive(Debug, Default)]
struct Beating {
    beats: AtomicU64,
    is_given_up: AtomicBool,
    at: Mutex<At>,
}

/// A place in the exploration of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) seed: u64,
    pub(crate) disk_fails: bool,
    /// The crashes that led there.
    pub(crate) path: Vec<Step>,
    pub(crate) doing: Doing,
}

/// What is done there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Doing {
    /// The log is opened.
    #[default]
    Opening,
    /// So many operations of the workload are done, and the next one is under way.
    Operation(usize),
    /// The last crash's state is recovered and compared.
    Looking,
}

impl Pulse {
    /// From here on it is about this workload, and those that go on behind its crashes.
    pub(crate) fn explores(&self, workload: &Workload) {
        let (seed, disk_fails) = (workload.seed, workload.disk_fails);
        self.is_at(|at| *at = At { seed, disk_fails, ..At::default() });
    }

    /// The state that a crash left, behind all those before it, is looked at.
    pub(crate) fn looks(&self, path: &[Step], step: Step) {
        self.is_at(|at| {
            at.path.clear();
            at.path.extend_from_slice(path);
            at.path.push(step);
            at.doing = Doing::Looking;
        });
    }

    /// The life that follows all of these crashes goes on.
    pub(crate) fn lives(&self, path: &[Step], doing: Doing) {
        self.is_at(|at| {
            at.path.clear();
            at.path.extend_from_slice(path);
            at.doing = doing;
        });
    }

    pub(crate) fn at(&self) -> At {
        self.0.at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether nobody waits any more for what this thread finds.
    pub(crate) fn is_given_up(&self) -> bool {
        self.0.is_given_up.load(Ordering::Relaxed)
    }

    fn is_at(&self, change: impl FnOnce(&mut At)) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
        change(&mut self.0.at.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.doing {
            Doing::Opening => write!(f, "in the first opening")?,
            Doing::Operation(done) => write!(f, "in operation {}", done + 1)?,
            Doing::Looking => return write!(f, "while the state was recovered"),
        }
        match self.path.is_empty() {
            true => Ok(()),
            false => write!(
                f,
                ", going on with\n{}",
                Workload::behind(self.seed, &self.path, self.disk_fails)
            ),
        }
    }
}

/// Has several threads do the same, and returns what those were at that stand still: they are left
/// behind as they are.
///
/// A panic ends its thread alone; who minds it catches it.
pub(crate) fn watch(
    threads: usize,
    patience: Duration,
    work: impl Fn(&Pulse) + Send + Sync + 'static,
) -> Vec<At> {
    let work = Arc::new(work);
    let (ended, ends) = channel();
    let mut watched: Vec<Watched> = Vec::new();
    for number in 0..threads {
        let pulse = Pulse::default();
        watched.push(Watched { number, pulse: pulse.clone(), beats: 0, since: Instant::now() });
        let (work, end) = (Arc::clone(&work), SendAtEnd { number, ended: ended.clone() });
        std::thread::spawn(move || {
            let _end = end;
            work(&pulse);
        });
    }
    let mut stalled = Vec::new();
    while !watched.is_empty() {
        match ends.recv_timeout(LOOKS_APART) {
            Ok(number) => watched.retain(|watched| watched.number != number),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        watched.retain_mut(|watched| {
            let is_still = watched.is_still(patience);
            if is_still {
                watched.pulse.0.is_given_up.store(true, Ordering::Relaxed);
                stalled.push(watched.pulse.at());
            }
            !is_still
        });
    }
    stalled
}

/// A thread, and when its pulse was last felt.
struct Watched {
    number: usize,
    pulse: Pulse,
    beats: u64,
    since: Instant,
}

impl Watched {
    fn is_still(&mut self, patience: Duration) -> bool {
        let beats = self.pulse.beats();
        if beats != self.beats {
            (self.beats, self.since) = (beats, Instant::now());
        }
        self.since.elapsed() >= patience
    }
}

/// Tells that a thread has ended, also by a panic.
struct SendAtEnd {
    number: usize,
    ended: std::sync::mpsc::Sender<usize>,
}

impl Drop for SendAtEnd {
    fn drop(&mut self) {
        let _ = self.ended.send(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stands_still_is_given_up_and_what_it_was_at_is_known() {
        let workload = Workload::draw(7);
        let stalled = watch(1, Duration::from_millis(300), move |pulse| {
            pulse.explores(&workload);
            pulse.lives(&[(3, 1)], Doing::Operation(4));
            while !pulse.is_given_up() {
                std::thread::yield_now();
            }
        });
        let (path, doing) = (vec![(3, 1)], Doing::Operation(4));
        assert_eq!(stalled, [At { seed: 7, disk_fails: false, path, doing }]);
    }

    #[test]
    fn threads_that_end_or_panic_are_waited_for_and_not_given_up() {
        let stalled = watch(3, PATIENCE, |pulse| pulse.explores(&Workload::draw(1)));
        assert_eq!(stalled, []);
        let stalled = watch(1, PATIENCE, |_| std::panic::resume_unwind(Box::new("on purpose")));
        assert_eq!(stalled, []);
    }
}
