//! Many workloads on several threads, and what is said about them at the end.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::arguments::{Arguments, Mode};
use crate::damage::{self, DamageTally};
use crate::explorer::{self, Effort, Failure};
use crate::minimise::minimise;
use crate::tally::Tally;
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
            match explorer::replay(&workload, path) {
                Ok(()) => writeln!(out, "nothing is wrong there\n0 failures")?,
                Err(failure) => {
                    writeln!(out, "{}\n1 failures", failure.what)?;
                    return Ok(1);
                }
            }
            Ok(0)
        }
        Mode::Damage => explore_damage(arguments, out),
        Mode::Crashes => explore_crashes(arguments, out),
    }
}

fn explore_crashes(arguments: &Arguments, out: &mut dyn Write) -> std::io::Result<usize> {
    let first = arguments.seed.unwrap_or_else(fresh_seed);
    writeln!(out, "seeds from {first} on")?;
    let began = Instant::now();
    let seconds = arguments.seconds.or(match arguments.states {
        None => Some(Duration::from_secs(60)),
        Some(_) => None,
    });
    let effort = Effort {
        // A schedule of faults is looked at briefly, so that there are many.
        plans: if arguments.faults { 2 } else { PLANS },
        lives_per_10_000: LIVES_PER_10_000,
        deadline: seconds.map(|seconds| began + seconds),
        states_max: u64::MAX,
    };
    let shared = Shared {
        next: AtomicU64::new(0),
        first,
        states_max: arguments.states.unwrap_or(u64::MAX),
        faults: arguments.faults,
        found: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| shared.work(effort));
        }
    });
    let Found { tally, failures } =
        shared.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let time = began.elapsed();
    for (workload, failure) in &failures {
        let (shortest, shortened) = minimise(workload.clone(), failure.clone(), effort);
        let faults = if arguments.faults { "--faults " } else { "" };
        tell(out, faults, workload, failure, &shortest, &shortened)?;
    }
    if arguments.faults {
        let (failing, all) = (tally.failing, tally.workloads);
        writeln!(out, "{failing} schedules of faults that came to pass, of {all}")?;
    }
    writeln!(out, "{}\n{} failures", tally.told(time), failures.len())?;
    Ok(failures.len())
}

fn explore_damage(arguments: &Arguments, out: &mut dyn Write) -> std::io::Result<usize> {
    let first = arguments.seed.unwrap_or_else(fresh_seed);
    writeln!(out, "seeds from {first} on")?;
    let until = Instant::now() + arguments.seconds.unwrap_or(Duration::from_secs(60));
    let cases_max = arguments.states.unwrap_or(u64::MAX);
    let next = AtomicU64::new(first);
    let found: Mutex<(DamageTally, Vec<(u64, String)>)> = Mutex::default();
    let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let is_enough = {
                let (tally, failures) = &*lock();
                tally.cases() >= cases_max || failures.len() >= FAILURES_MAX
            };
            if is_enough || Instant::now() >= until {
                return;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let mut tally = DamageTally::default();
            let done = damage::damage(&Workload::draw(seed), &mut tally);
            let (all, failures) = &mut *lock();
            all.add(&tally);
            failures.extend(done.err().map(|what| (seed, what)));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(work);
        }
    });
    let (tally, failures) = &*lock();
    for (seed, what) in failures {
        writeln!(out, "\nFAILED: seed {seed}: {what}\n{}", Workload::draw(*seed))?;
        writeln!(
            out,
            "replay: cargo run --release -p wal-sim --example explore -- --damage --seed {seed} \
             --states 1 --threads 1"
        )?;
    }
    writeln!(out, "{tally}\n{} failures", failures.len())?;
    Ok(failures.len())
}

/// A failure, as it is to be read and replayed.
fn tell(
    out: &mut dyn Write,
    faults: &str,
    workload: &Workload,
    failure: &Failure,
    shortest: &Workload,
    shortened: &Failure,
) -> std::io::Result<()> {
    let seed = workload.seed;
    writeln!(out, "\nFAILED: seed {seed}: {}", failure.what)?;
    let (of, all) = (shortest.operations.len(), workload.operations.len());
    writeln!(out, "of its {all} operations these {of} are enough:\n{shortest}")?;
    writeln!(out, "  crashes, each as (moment, plan): {:?}", shortened.path)?;
    writeln!(out, "  {}", shortened.what)?;
    write!(
        out,
        "replay: cargo run --release -p wal-sim --example explore -- {faults}--replay {seed}"
    )?;
    for (moment, plan) in &failure.path {
        write!(out, ":{moment}.{plan}")?;
    }
    writeln!(out, "\n")
}

struct Shared {
    next: AtomicU64,
    first: u64,
    states_max: u64,
    faults: bool,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    tally: Tally,
    failures: Vec<(Workload, Failure)>,
}

impl Shared {
    fn work(&self, effort: Effort) {
        let once_failed: Vec<u64> = once_failed().collect();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let old = usize::try_from(number).ok().and_then(|number| once_failed.get(number));
            let seed = match old {
                Some(seed) => *seed,
                None => self.first.wrapping_add(number - once_failed.len() as u64),
            };
            let so_far = {
                let found = self.found();
                if found.failures.len() >= FAILURES_MAX {
                    return;
                }
                found.tally.states()
            };
            let is_late = effort.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if so_far >= self.states_max || (is_late && number > 0) {
                return;
            }
            let workload = drawn(seed, self.faults);
            let mut tally = Tally::default();
            let explored = explorer::explore(&workload, effort, &mut tally);
            let mut found = self.found();
            found.tally.add(&tally);
            if let Err(failure) = explored {
                found.failures.push((workload, failure));
            }
        }
    }

    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drawn(seed: u64, faults: bool) -> Workload {
    let workload = Workload::draw(seed);
    if faults { workload.with_faults() } else { workload }
}

fn once_failed() -> impl Iterator<Item = u64> {
    let lines = ONCE_FAILED.lines();
    lines.filter_map(|line| line.split('#').next()?.trim().parse().ok())
}

/// Another one each time, short enough to be typed.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000_000_000
}
