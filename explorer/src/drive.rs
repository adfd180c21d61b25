//! Many workloads on several threads, and what is said about them at the end.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::arguments::{Arguments, Mode};
use crate::damage::{self, DamageTally};
use crate::directory;
use crate::explorer::{self, Effort, Failure, FailureKind};
use crate::minimise;
use crate::tally::Tally;
use crate::watchdog::{At, PATIENCE, Pulse, watch};
use crate::workload::Workload;

/// Seeds that once failed, one a line; what stands behind `#` is a comment.
const ONCE_FAILED: &str = include_str!("../seeds.txt");

const PLANS: usize = 12;
const LIVES_PER_10_000: u64 = 150;

/// More are not looked for: the first ones are to be read.
const FAILURES_MAX: usize = 3;

/// Does what the arguments ask for, and returns how many failures it found; all that it has to say
/// goes to `out`.
///
/// # Errors
///
/// If `out` cannot be written to.
pub fn explore(arguments: &Arguments, out: &mut dyn Write) -> std::io::Result<usize> {
    match &arguments.mode {
        Mode::Replay { seed, path } => {
            let workload = drawn(*seed, arguments.faults);
            write!(out, "seed {seed}:\n{workload}")?;
            let (path, is_damage) = (path.clone(), arguments.damage);
            let directory = arguments.directory.clone();
            let replayed = alone(move |pulse| {
                if is_damage {
                    damage::damage(
                        &workload,
                        path.first().copied(),
                        &mut DamageTally::default(),
                        pulse,
                    )
                } else if let Some(parent) = &directory {
                    directory::explore(&workload, parent, pulse)
                } else {
                    explorer::replay(&workload, &path, pulse)
                }
            });
            match replayed.unwrap_or_else(|stalled| Err(Failure::of_stall(stalled))) {
                Ok(()) => writeln!(out, "nothing is wrong there\n0 failures")?,
                Err(failure) => {
                    writeln!(out, "{}\n1 failures", failure.what)?;
                    return Ok(1);
                }
            }
            Ok(0)
        }
        Mode::Explore if arguments.damage => explore_damage(arguments, out),
        Mode::Explore => match &arguments.directory {
            Some(parent) => explore_directory(arguments, parent, out),
            None => explore_crashes(arguments, out),
        },
    }
}

fn explore_crashes(arguments: &Arguments, out: &mut dyn Write) -> std::io::Result<usize> {
    let began = Instant::now();
    let effort = Effort {
        // A schedule of faults is looked at briefly, so that there are many.
        plans: if arguments.faults { 2 } else { PLANS },
        lives_per_10_000: LIVES_PER_10_000,
        deadline: deadline(arguments, began),
        states_max: u64::MAX,
    };
    let (faults, states_max) = (arguments.faults, arguments.states.unwrap_or(u64::MAX));
    let shared = Arc::new(Shared::new(arguments, out)?);
    let found: Arc<Mutex<Tally>> = Arc::default();
    let tally_of_all = Arc::clone(&found);
    let failures = shared.run(arguments.threads, move |shared, pulse| {
        let lock = || tally_of_all.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(seed) = shared.next_seed(effort.deadline) {
            if lock().states() >= states_max {
                return;
            }
            let mut tally = Tally::default();
            let explored = explorer::explore(&drawn(seed, faults), effort, &mut tally, pulse);
            let states = {
                let mut all = lock();
                all.add(&tally);
                all.states()
            };
            shared.add(seed, explored, pulse, states);
        }
    });
    let time = began.elapsed();
    for failure in &failures {
        let workload = drawn(failure.seed, faults);
        let shortest = match arguments.first {
            true => None,
            false => minimise::crashes(&workload, &failure.failure, effort),
        };
        tell(out, if faults { "--faults " } else { "" }, &workload, failure, shortest)?;
    }
    let tally = found.lock().unwrap_or_else(PoisonError::into_inner);
    if faults {
        writeln!(
            out,
            "{} schedules of faults that came to pass, of {}; and in {} of {} lives after a crash",
            tally.failing, tally.workloads, tally.failing_lives, tally.lives
        )?;
    }
    shared.tell_first(out, "states")?;
    writeln!(out, "{}\n{}", tally.told(time), Counted(&failures))?;
    Ok(failures.len())
}

fn explore_damage(arguments: &Arguments, out: &mut dyn Write) -> std::io::Result<usize> {
    let began = Instant::now();
    let deadline = deadline(arguments, began);
    let cases_max = arguments.states.unwrap_or(u64::MAX);
    let shared = Arc::new(Shared::new(arguments, out)?);
    let found: Arc<Mutex<DamageTally>> = Arc::default();
    let tally_of_all = Arc::clone(&found);
    let failures = shared.run(arguments.threads, move |shared, pulse| {
        let lock = || tally_of_all.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(seed) = shared.next_seed(deadline) {
            if lock().cases() >= cases_max {
                return;
            }
            let mut tally = DamageTally::default();
            let done = damage::damage(&Workload::draw(seed), None, &mut tally, pulse);
            let cases = {
                let mut all = lock();
                all.add(&tally);
                all.cases()
            };
            shared.add(seed, done, pulse, cases);
        }
    });
    let time = began.elapsed();
    for failure in &failures {
        let workload = Workload::draw(failure.seed);
        let shortest = match arguments.first {
            true => None,
            false => minimise::damage(&workload, &failure.failure),
        };
        tell(out, "--damage ", &workload, failure, shortest)?;
    }
    let tally = found.lock().unwrap_or_else(PoisonError::into_inner);
    shared.tell_first(out, "damages")?;
    writeln!(out, "{}\n{}", tally.told(time), Counted(&failures))?;
    Ok(failures.len())
}

fn explore_directory(
    arguments: &Arguments,
    parent: &Path,
    out: &mut dyn Write,
) -> std::io::Result<usize> {
    let began = Instant::now();
    let deadline = deadline(arguments, began);
    let logs_max = arguments.states.unwrap_or(u64::MAX);
    let shared = Arc::new(Shared::new(arguments, out)?);
    let logs: Arc<AtomicU64> = Arc::default();
    let (made, path) = (Arc::clone(&logs), parent.to_owned());
    let failures = shared.run(arguments.threads, move |shared, pulse| {
        while let Some(seed) = shared.next_seed(deadline) {
            let number = made.fetch_add(1, Ordering::Relaxed);
            if number >= logs_max {
                return;
            }
            let explored = directory::explore(&Workload::draw(seed), &path, pulse);
            shared.add(seed, explored, pulse, number + 1);
        }
    });
    let mode = format!("--directory {} ", parent.display());
    for failure in &failures {
        let workload = Workload::draw(failure.seed);
        let shortest = minimise::in_directory(&workload, &failure.failure, parent.to_owned());
        tell(out, &mode, &workload, failure, shortest)?;
    }
    let (logs, seconds) =
        (logs.load(Ordering::Relaxed).min(logs_max), began.elapsed().as_secs_f64());
    writeln!(out, "{logs} logs in real directories in {seconds:.1} s\n{}", Counted(&failures))?;
    Ok(failures.len())
}

/// When it is enough: a minute, unless something else was asked for.
fn deadline(arguments: &Arguments, began: Instant) -> Option<Instant> {
    let seconds = arguments.seconds.or(match arguments.states {
        None => Some(Duration::from_secs(60)),
        Some(_) => None,
    });
    seconds.map(|seconds| began + seconds)
}

/// A failure, as it is to be read and replayed.
fn tell(
    out: &mut dyn Write,
    mode: &str,
    workload: &Workload,
    FailedSeed { seed, failure }: &FailedSeed,
    shortest: Option<(Workload, Failure)>,
) -> std::io::Result<()> {
    writeln!(out, "\nFAILED: seed {seed}: {}", failure.what)?;
    match shortest {
        Some((shortest, shortened)) => {
            let (of, all) = (shortest.operations.len(), workload.operations.len());
            writeln!(out, "of its {all} operations these {of} are enough:\n{shortest}")?;
            writeln!(out, "  crashes, each as (moment, plan): {:?}", shortened.path)?;
            writeln!(out, "  {}", shortened.what)?;
        }
        None => write!(out, "its operations:\n{workload}")?,
    }
    write!(
        out,
        "replay: cargo run --release -p wal-sim --example explore -- {mode}--replay {seed}"
    )?;
    for (moment, plan) in &failure.path {
        write!(out, ":{moment}.{plan}")?;
    }
    writeln!(out, "\n")
}

/// What all threads of a run share: which seed is next, and what failed so far.
struct Shared {
    once_failed: Vec<u64>,
    first: u64,
    next: AtomicU64,
    began: Instant,
    failures_max: usize,
    failures: Mutex<Vec<FailedSeed>>,
    /// When the first one was found, and how much had been looked at by then.
    first_after: Mutex<Option<(Duration, u64)>>,
}

struct FailedSeed {
    seed: u64,
    failure: Failure,
}

impl Shared {
    fn new(arguments: &Arguments, out: &mut dyn Write) -> std::io::Result<Self> {
        let first = arguments.seed.unwrap_or_else(fresh_seed);
        let once_failed: Vec<u64> = seeds_in(ONCE_FAILED).collect();
        writeln!(out, "{} seeds that once failed, then seeds from {first} on", once_failed.len())?;
        Ok(Self {
            once_failed,
            first,
            next: AtomicU64::new(0),
            began: Instant::now(),
            failures_max: if arguments.first { 1 } else { FAILURES_MAX },
            failures: Mutex::default(),
            first_after: Mutex::default(),
        })
    }

    /// Has so many threads work, and returns what failed, and who did not come to an end.
    fn run(
        self: &Arc<Self>,
        threads: usize,
        work: impl Fn(&Self, &Pulse) + Send + Sync + 'static,
    ) -> Vec<FailedSeed> {
        let shared = Arc::clone(self);
        let stalled = watch(threads, PATIENCE, move |pulse| work(&shared, pulse));
        let stalled = stalled
            .into_iter()
            .map(|at| FailedSeed { seed: at.seed, failure: Failure::of_stall(at) });
        let mut failures = std::mem::take(&mut *self.failures());
        failures.extend(stalled);
        failures
    }

    /// The seeds that once failed come first, whatever else is asked for.
    fn next_seed(&self, deadline: Option<Instant>) -> Option<u64> {
        if self.failures().len() >= self.failures_max {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let old = usize::try_from(number).ok().and_then(|number| self.once_failed.get(number));
        let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match old {
            Some(seed) => Some(*seed),
            None if is_late && number > 0 => None,
            None => Some(self.first.wrapping_add(number - self.once_failed.len() as u64)),
        }
    }

    /// `looked_at` is how many states or the like all threads have looked at by now.
    fn add(&self, seed: u64, explored: Result<(), Failure>, pulse: &Pulse, looked_at: u64) {
        // A thread that was given up has failed already.
        if let Err(failure) = explored
            && !pulse.is_given_up()
        {
            let first_after = &mut *self.first_after();
            first_after.get_or_insert((self.began.elapsed(), looked_at));
            self.failures().push(FailedSeed { seed, failure });
        }
    }

    fn tell_first(&self, out: &mut dyn Write, what: &str) -> std::io::Result<()> {
        let Some((time, looked_at)) = *self.first_after() else {
            return Ok(());
        };
        let seconds = time.as_secs_f64();
        writeln!(out, "the first failure came after {seconds:.1} s and {looked_at} {what}")
    }

    fn first_after(&self) -> MutexGuard<'_, Option<(Duration, u64)>> {
        self.first_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, Vec<FailedSeed>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last line of a run.
struct Counted<'a>(&'a [FailedSeed]);

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |kind| self.0.iter().filter(|failed| failed.failure.kind == kind).count();
        let broken = count(FailureKind::BrokenPromise);
        let (panics, hangs) = (count(FailureKind::Panic), count(FailureKind::Hang));
        writeln!(f, "{broken} broken promises, {panics} panics, {hangs} hangs")?;
        write!(f, "{} failures", self.0.len())
    }
}

/// Does something in one thread that is watched; an error if it stands still.
pub(crate) fn alone<T: Send + 'static>(
    act: impl Fn(&Pulse) -> T + Send + Sync + 'static,
) -> Result<T, At> {
    let done: Arc<Mutex<Option<T>>> = Arc::default();
    let slot = Arc::clone(&done);
    let stalled = watch(1, PATIENCE, move |pulse| {
        let result = act(pulse);
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    });
    let done = done.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.ok_or_else(|| stalled.into_iter().next().unwrap_or_default())
}

fn drawn(seed: u64, faults: bool) -> Workload {
    let workload = Workload::draw(seed);
    if faults { workload.with_faults() } else { workload }
}

fn seeds_in(text: &str) -> impl Iterator<Item = u64> {
    text.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok())
}

/// Another one each time, short enough to be typed.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_begins_with_the_seeds_that_once_failed_however_short_it_is() {
        let shared = Shared {
            once_failed: vec![7, 3],
            first: 100,
            next: AtomicU64::new(0),
            began: Instant::now(),
            failures_max: FAILURES_MAX,
            failures: Mutex::default(),
            first_after: Mutex::default(),
        };
        let (now, later) = (Some(Instant::now()), None);
        let seeds = [now, now, later, later].map(|deadline| shared.next_seed(deadline));
        assert_eq!(seeds, [Some(7), Some(3), Some(100), Some(101)]);
        assert_eq!(shared.next_seed(now), None);
    }

    #[test]
    fn a_seed_that_once_failed_stands_before_its_comment() {
        assert_eq!(seeds_in("# comment\n12 # what it found\n\n 7\n").collect::<Vec<_>>(), [12, 7]);
    }
}
