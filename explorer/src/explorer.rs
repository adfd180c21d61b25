//! Visiting every moment of a life at which it could end, and many of the ways in which it could.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use wal_sim::SimStorage;

use crate::Checked;
use crate::crash::{Crash, FIXED_PLANS};
use crate::life::{Beginning, Life, Moment, Visitor};
use crate::look::{look, look_at_what_fails, look_strictly};
use crate::oracle::Oracle;
use crate::random::{Random, mix};
use crate::tally::{Phase, Tally};
use crate::watchdog::{At, Doing, Pulse};
use crate::workload::{Workload, seed_behind};

/// A crash within a life: the number of the moment, of those that were visited, and of the plan.
pub(crate) type Step = (u64, u64);

/// A state that is not what was promised.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// Each step is a crash, and the life that it ended; the last one is the state itself. Empty if
    /// a call said what it must not.
    pub(crate) path: Vec<Step>,
    pub(crate) what: String,
    pub(crate) kind: FailureKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    BrokenPromise,
    Panic,
    Hang,
}

impl Failure {
    /// A thread did not come to an end.
    pub(crate) fn of_stall(at: At) -> Self {
        let what = format!("it does not come to an end, {at}");
        Self { path: at.path, what, kind: FailureKind::Hang }
    }
}

/// How much is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// How many drawn plans are tried at each moment of a first life, and a third of that later.
    pub(crate) plans: usize,
    /// How many in ten thousand states are gone on from.
    pub(crate) lives_per_10_000: u64,
    pub(crate) deadline: Option<Instant>,
    /// So many states are enough.
    pub(crate) states_max: u64,
}

/// Drawn plans that give only disks that were seen before, at one moment, before it is left.
const PLANS_IN_VAIN_MAX: u64 = 3;

/// How often a life may end and another begin.
const DEPTH_MAX: usize = 3;

/// Explores one workload.
///
/// # Errors
///
/// The first state that is not what was promised.
pub(crate) fn explore(
    workload: &Workload,
    effort: Effort,
    tally: &mut Tally,
    pulse: &Pulse,
) -> Result<(), Failure> {
    run(workload, effort, tally, pulse, None)
}

/// Visits one state alone.
///
/// # Errors
///
/// If it is not what was promised, or if the path does not lead to one.
pub(crate) fn replay(workload: &Workload, path: &[Step], pulse: &Pulse) -> Result<(), Failure> {
    let effort = Effort { plans: 0, lives_per_10_000: 0, deadline: None, states_max: u64::MAX };
    let mut tally = Tally::default();
    run(workload, effort, &mut tally, pulse, Some(path))?;
    // Each step was gone on from.
    if tally.lives == path.len() as u64 {
        return Ok(());
    }
    let what = "this workload never comes to such a state".to_owned();
    Err(Failure { path: path.to_vec(), what, kind: FailureKind::BrokenPromise })
}

fn run(
    workload: &Workload,
    effort: Effort,
    tally: &mut Tally,
    pulse: &Pulse,
    only: Option<&[Step]>,
) -> Result<(), Failure> {
    let mut seen = Seen::default();
    let mut failed_at = Vec::new();
    let machine = machine_of(workload.seed);
    pulse.explores(workload);
    let mut explorer = Explorer {
        seed: workload.seed,
        path: Vec::new(),
        moments: 0,
        disk_fails: workload.disk_fails,
        effort,
        only,
        tally,
        pulse,
        seen: &mut seen,
        failed_at: &mut failed_at,
    };
    let lived = caught(pulse, || {
        let mut life = Life::new(machine.clone(), Oracle::default(), workload.seed, &mut explorer);
        life.set_closing_at_end(workload.disk_fails);
        life.live(workload, &Beginning::OfALog)
    });
    tally.workloads += 1;
    tally.failing += u64::from(machine.faults_hit() > 0);
    match lived {
        Ok(lived) => {
            let kind = FailureKind::BrokenPromise;
            lived.map_err(|what| Failure { path: failed_at, what, kind })
        }
        Err(panicked) => Err(panicked),
    }
}

/// A panic is a failure of what the thread was at.
pub(crate) fn caught<T>(pulse: &Pulse, act: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let at = pulse.at();
        let what = format!("a panic: {}, {at}", text.unwrap_or_default());
        Failure { path: at.path, what, kind: FailureKind::Panic }
    })
}

pub(crate) fn machine_of(seed: u64) -> SimStorage {
    let machine = SimStorage::new(seed);
    if seed.is_multiple_of(3) {
        machine.set_mode(wal_storage::IoMode::Buffered);
    }
    machine
}

#[derive(Debug, Default)]
struct Seen {
    disks: HashSet<u64>,
    /// Disks with what the oracle demanded of them.
    checked: HashSet<u64>,
}

struct Explorer<'a> {
    seed: u64,
    path: Vec<Step>,
    /// How many moments were visited.
    moments: u64,
    /// Operations of the disk fail in this life and in those after it.
    disk_fails: bool,
    effort: Effort,
    only: Option<&'a [Step]>,
    tally: &'a mut Tally,
    pulse: &'a Pulse,
    seen: &'a mut Seen,
    failed_at: &'a mut Vec<Step>,
}

impl Visitor for Explorer<'_> {
    fn begins(&mut self, what: Doing) {
        self.pulse.lives(&self.path, what);
    }

    fn visit(&mut self, moment: &Moment<'_>) -> Checked {
        let number = self.moments;
        self.moments += 1;
        if let Some(only) = self.only {
            return match only.split_first() {
                Some((step, rest)) if step.0 == number => {
                    self.visit_one(*step, moment, rest).map(|_| ())
                }
                _ => Ok(()),
            };
        }
        if self.is_enough() {
            return Ok(());
        }
        self.tally.boundaries += 1;
        let [nothing_kept, everything_kept, killed] = FIXED_PLANS;
        // A killed process leaves the same bytes as a machine whose caches were written out. Which of
        // the two they are counted for is left to turns.
        let [kept, kept_too] = if number.is_multiple_of(2) {
            [everything_kept, killed]
        } else {
            [killed, everything_kept]
        };
        let lost = self.visit_one((number, nothing_kept), moment, &[])?;
        let kept = self.visit_one((number, kept), moment, &[])?;
        self.visit_one((number, kept_too), moment, &[])?;
        if lost == kept {
            // Nothing is pending.
            return Ok(());
        }
        let plans =
            if self.path.is_empty() { self.effort.plans } else { self.effort.plans.div_ceil(3) };
        let mut in_vain = 0;
        for plan in (FIXED_PLANS.len() as u64..).take(plans) {
            let known = self.seen.disks.len();
            self.visit_one((number, plan), moment, &[])?;
            in_vain = if self.seen.disks.len() > known { 0 } else { in_vain + 1 };
            if in_vain == PLANS_IN_VAIN_MAX {
                break;
            }
        }
        Ok(())
    }
}

impl Explorer<'_> {
    /// Lets a life end in one way, and returns what tells the disk from others.
    fn visit_one(&mut self, step: Step, moment: &Moment<'_>, rest: &[Step]) -> Checked<u64> {
        let crash = Crash::plan(self.seed, step);
        let after = crash.of(moment.machine);
        let settled = crash.settles_everything();
        let disk = after.content_fingerprint();
        if self.seen.disks.insert(disk) {
            let phase = match (self.path.len(), moment.is_opening) {
                (0, _) => Phase::First,
                (_, true) => Phase::Nested,
                (_, false) => Phase::GoneOn,
            };
            self.tally.count(crash.kind, phase);
        } else {
            self.tally.same_again += 1;
        }
        let demand = moment.oracle.demand(moment.cuts);
        if !self.seen.checked.insert(mix(mix(disk, u64::from(settled)), demand))
            && self.only.is_none()
        {
            return Ok(disk);
        }
        self.pulse.looks(&self.path, step);
        let mut random = Random::new(seed_behind(self.seed, step));
        let found = look(&after, moment.oracle, moment.cuts).and_then(|found| {
            if after.content_fingerprint() != disk {
                return Err("recovery changed bytes or names".to_owned());
            }
            if self.disk_fails {
                look_at_what_fails(&after, &found, random.next())?;
            }
            Ok(found)
        });
        let found =
            found.map_err(|what| self.failed(step, format!("after {}: {what}", crash.kind)))?;
        let goes_on = match self.only {
            // What is wrong may show only when the log is opened again, and gone on with.
            Some(_) => true,
            None => {
                self.path.len() < DEPTH_MAX && random.below(10_000) < self.effort.lives_per_10_000
            }
        };
        if !goes_on {
            return Ok(disk);
        }
        look_strictly(&after, &found).map_err(|what| self.failed(step, what))?;
        let mut oracle = moment.oracle.within_the_call();
        if !settled {
            // Only when the log is open again is it decided.
            oracle.doubtful_cuts.extend_from_slice(moment.cuts);
        }
        let disk_is_full = moment.disk_is_full;
        let beginning = Beginning::After { found: Box::new(found), settled, disk_is_full };
        self.go_on(step, after, &beginning, oracle, rest)?;
        Ok(disk)
    }

    /// Lives on from a crash: recovers, appends, and is crashed again, at every moment of that too.
    fn go_on(
        &mut self,
        step: Step,
        after: SimStorage,
        beginning: &Beginning,
        oracle: Oracle,
        rest: &[Step],
    ) -> Checked {
        self.tally.lives += 1;
        let workload = Workload::behind(self.seed, &[step], self.disk_fails);
        let seed = workload.seed;
        let mut path = self.path.clone();
        path.push(step);
        let machine = after.clone();
        let mut explorer = Explorer {
            seed,
            path: path.clone(),
            moments: 0,
            disk_fails: self.disk_fails,
            effort: self.effort,
            only: self.only.map(|_| rest),
            tally: self.tally,
            pulse: self.pulse,
            seen: self.seen,
            failed_at: self.failed_at,
        };
        let lived = {
            let mut life = Life::new(after, oracle, seed, &mut explorer);
            life.live(&workload, beginning)
        };
        self.tally.failing_lives += u64::from(machine.faults_hit() > 0);
        lived.map_err(|what| {
            if self.failed_at.is_empty() {
                *self.failed_at = path;
            }
            format!("after crash {step:?}, going on with\n{workload}  {what}")
        })
    }

    fn failed(&mut self, step: Step, what: String) -> String {
        self.failed_at.clone_from(&self.path);
        self.failed_at.push(step);
        what
    }

    fn is_enough(&self) -> bool {
        self.tally.states() >= self.effort.states_max
            || self.effort.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
