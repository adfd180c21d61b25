//! What was explored, counted.

use std::fmt;
use std::time::Duration;

use crate::crash::CrashKind;

/// Where in a life a state was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first life of a log, from the making of its directory on.
    First,
    /// While a log was opened that a crash had left.
    Nested,
    /// After a log that a crash had left was gone on with.
    GoneOn,
}

/// Distinct states of the disk that were recovered and compared, and what else was done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    states: [[u64; 3]; CrashKind::ALL.len()],
    pub(crate) same_again: u64,
    pub(crate) workloads: u64,
    /// Of them, those in which an operation of the disk failed.
    pub(crate) failing: u64,
    pub(crate) boundaries: u64,
    /// Those that began after a crash, and of them those in which an operation of the disk failed.
    pub(crate) lives: u64,
    pub(crate) failing_lives: u64,
}

impl Tally {
    pub(crate) const fn count(&mut self, kind: CrashKind, phase: Phase) {
        self.states[kind as usize][phase as usize] += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (states, more) in self.states.iter_mut().zip(other.states) {
            states.iter_mut().zip(more).for_each(|(states, more)| *states += more);
        }
        self.same_again += other.same_again;
        self.workloads += other.workloads;
        self.failing += other.failing;
        self.boundaries += other.boundaries;
        self.lives += other.lives;
        self.failing_lives += other.failing_lives;
    }

    pub(crate) fn states(&self) -> u64 {
        self.states.iter().flatten().sum()
    }

    pub(crate) fn told(&self, time: Duration) -> impl fmt::Display {
        Told { tally: self.clone(), time }
    }

    fn in_phase(&self, phase: Phase) -> u64 {
        self.states.iter().map(|states| states[phase as usize]).sum()
    }
}

struct Told {
    tally: Tally,
    time: Duration,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, time } = self;
        writeln!(
            f,
            "{:<32}{:>12}{:>12}{:>12}{:>12}",
            "distinct crash states", "first life", "nested", "gone on", "together"
        )?;
        for kind in CrashKind::ALL {
            let states = tally.states[kind as usize];
            let [first, nested, gone_on] = states;
            let together: u64 = states.iter().sum();
            writeln!(f, "{kind:<32}{first:>12}{nested:>12}{gone_on:>12}{together:>12}")?;
        }
        let (first, nested) = (tally.in_phase(Phase::First), tally.in_phase(Phase::Nested));
        let (gone_on, states) = (tally.in_phase(Phase::GoneOn), tally.states());
        writeln!(f, "{:<32}{first:>12}{nested:>12}{gone_on:>12}{states:>12}", "together")?;
        let seconds = time.as_secs_f64();
        writeln!(
            f,
            "{} workloads, {} lives after a crash, {} moments at which power failed; {} more states \
             were the same again",
            tally.workloads, tally.lives, tally.boundaries, tally.same_again
        )?;
        write!(f, "{states} states in {seconds:.1} s: {:.0} a second", states as f64 / seconds)
    }
}
