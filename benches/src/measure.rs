//! Rounds in which every contender runs once, and what is made of their figures.

use std::thread;
use std::time::Duration;

use crate::Failure;
use crate::fdatasync::Probe;

/// How many rounds, and which of them count.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How many rounds are wanted.
    pub rounds: u64,
    /// For what takes long.
    pub large_rounds: u64,
    /// A round is dropped if a bare `fdatasync` beside it took longer, in microseconds.
    pub fdatasync_limit_us: f64,
}

/// Above this a round counts, but is called unquiet.
const FDATASYNC_QUIET_US: f64 = 150.0;

/// How many attempts there are at least, beyond those that are wanted and as many again.
const MORE_ATTEMPTS: usize = 3;

/// After a dropped round: what disturbed it may pass.
const PAUSE: Duration = Duration::from_secs(1);

/// One contender of a race: each call of `run` gives one sample, one value per figure.
pub struct Entrant<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> Result<Vec<f64>, Failure> + 'a>,
}

impl std::fmt::Debug for Entrant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrant").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Entrant<'a> {
    /// One that is called `name`.
    pub fn new(name: &'static str, run: impl FnMut() -> Result<Vec<f64>, Failure> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Runs the entrants round by round, each time in another order, until enough rounds were quiet.
///
/// With a probe, a bare `fdatasync` is timed before and after each round; where the slower of
/// the two is above the limit, the round is dropped and repeated after a pause. That is done a
/// few times more than there are rounds, and then those that were quiet must do.
///
/// # Errors
///
/// The first error of an entrant or the probe; or that not one round was quiet.
pub fn race(
    pace: &Pace,
    mut probe: Option<&mut Probe>,
    entrants: &mut [Entrant<'_>],
) -> Result<Rounds, Failure> {
    let mut rounds = Rounds::new(entrants.iter().map(|entrant| entrant.name).collect());
    for attempt in 0..usize::try_from(2 * pace.rounds)? + MORE_ATTEMPTS {
        if rounds.kept() as u64 == pace.rounds {
            break;
        }
        if rounds.last_was_dropped {
            thread::sleep(PAUSE);
        }
        let before = probe.as_mut().map(|probe| probe.p50_us()).transpose()?;
        let samples = run_round(entrants, attempt)?;
        let after = probe.as_mut().map(|probe| probe.p50_us()).transpose()?;
        rounds.admit(samples, before.zip(after).map(|(a, b)| a.max(b)), pace.fdatasync_limit_us);
    }
    if rounds.kept() == 0 {
        let limit_us = pace.fdatasync_limit_us;
        return Err(format!("no round was quiet: a bare fdatasync took over {limit_us} µs").into());
    }
    Ok(rounds)
}

/// One sample of each entrant, in the entrants' order, whichever of them ran first.
fn run_round(entrants: &mut [Entrant<'_>], attempt: usize) -> Result<Vec<Vec<f64>>, Failure> {
    let count = entrants.len();
    let mut samples = vec![Vec::new(); count];
    for step in 0..count {
        let index = (attempt + step) % count;
        samples[index] = (entrants[index].run)()
            .map_err(|error| format!("{}: {error}", entrants[index].name))?;
        eprintln!("   round {}, {}: {:.2?}", attempt + 1, entrants[index].name, samples[index]);
    }
    Ok(samples)
}

/// The rounds of one race that counted, and how many did not.
#[derive(Debug)]
pub struct Rounds {
    /// What the entrants are called, in their order.
    pub names: Vec<&'static str>,
    /// By round, entrant, figure.
    samples: Vec<Vec<Vec<f64>>>,
    /// Rounds that did not count, because the disk was not quiet.
    pub dropped: usize,
    /// Rounds that counted though the disk was not quite quiet.
    pub unquiet: usize,
    last_was_dropped: bool,
    /// The slower of the two medians beside each round that counted.
    fdatasync_us: Vec<f64>,
}

impl Rounds {
    const fn new(names: Vec<&'static str>) -> Self {
        Self {
            names,
            samples: Vec::new(),
            dropped: 0,
            unquiet: 0,
            last_was_dropped: false,
            fdatasync_us: Vec::new(),
        }
    }

    /// For tests: one round, whose samples these are.
    #[must_use]
    pub fn of_one(entrants: &[(&'static str, Vec<f64>)]) -> Self {
        let mut rounds = Self::new(entrants.iter().map(|(name, _)| *name).collect());
        rounds.admit(entrants.iter().map(|(_, sample)| sample.clone()).collect(), None, 0.0);
        rounds
    }

    fn admit(&mut self, samples: Vec<Vec<f64>>, fdatasync_us: Option<f64>, limit_us: f64) {
        if let Some(fdatasync_us) = fdatasync_us {
            self.last_was_dropped = fdatasync_us > limit_us;
            if self.last_was_dropped {
                self.dropped += 1;
                eprintln!("   dropped: a bare fdatasync took {fdatasync_us:.0} us");
                return;
            }
            self.unquiet += usize::from(fdatasync_us > FDATASYNC_QUIET_US);
            self.fdatasync_us.push(fdatasync_us);
        }
        self.samples.push(samples);
    }

    /// How many rounds counted.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.samples.len()
    }

    /// What a bare `fdatasync` took beside the rounds that counted; none if nobody asked.
    #[must_use]
    pub fn fdatasync_us(&self) -> Option<Spread> {
        Spread::of(&self.fdatasync_us)
    }

    /// One figure of one entrant, by round.
    #[must_use]
    pub fn figure(&self, entrant: usize, figure: usize) -> Vec<f64> {
        self.samples.iter().map(|round| round[entrant][figure]).collect()
    }

    /// In each round, one entrant's figure divided by another's.
    #[must_use]
    pub fn ratio(&self, figure: usize, dividend: usize, divisor: usize) -> Option<Spread> {
        let dividends = self.figure(dividend, figure);
        let divisors = self.figure(divisor, figure);
        let ratios: Vec<f64> = dividends.iter().zip(divisors).map(|(a, b)| a / b).collect();
        Spread::of(&ratios)
    }

    /// In each round, one entrant's figure divided by the greatest that any of some others had.
    #[must_use]
    pub fn ratio_to_greatest(
        &self,
        figure: usize,
        dividend: usize,
        divisors: &[usize],
    ) -> Option<Spread> {
        let ratio = |round: &Vec<Vec<f64>>| {
            let others = divisors.iter().map(|&entrant| round[entrant][figure]);
            round[dividend][figure] / others.fold(f64::NAN, f64::max)
        };
        Spread::of(&self.samples.iter().map(ratio).collect::<Vec<_>>())
    }
}

/// A median and what it lies between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The value in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// None of nothing.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Self {
            median: median(values),
            min: quantile(values, 0.0),
            max: quantile(values, 1.0),
        })
    }
}

/// The value in the middle; not a number if there are none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which the part `q` of the values lies, between two of them if need be; not a
/// number if there are none.
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = q * last as f64;
    // Counted up to, because a float does not index.
    let below = (0..last).take_while(|&index| (index + 1) as f64 <= place).count();
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// How long each of many calls took.
#[derive(Debug, Default)]
pub struct Durations(Vec<Duration>);

impl Durations {
    /// None yet, and room for so many.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Takes note of one.
    pub fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    /// Adds what another thread took note of.
    pub fn absorb(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// The part `q` of them took no longer than this, in microseconds.
    #[must_use]
    pub fn quantile_us(&self, q: f64) -> f64 {
        let micros: Vec<f64> = self.0.iter().map(|duration| duration.as_secs_f64() * 1e6).collect();
        quantile(&micros, q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle_or_between_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn quantiles_reach_from_the_least_to_the_greatest() {
        let values: Vec<f64> = (0..=10).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.0), 0.0);
        assert_eq!(quantile(&values, 0.1), 1.0);
        assert_eq!(quantile(&values, 0.25), 2.5);
        assert_eq!(quantile(&values, 1.0), 10.0);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let mut rounds = Rounds::new(vec!["ours", "theirs"]);
        // The second round was slow for both; the ratio does not care.
        for (ours, theirs) in [(10.0, 30.0), (100.0, 400.0), (10.0, 20.0)] {
            rounds.admit(vec![vec![ours], vec![theirs]], None, 0.0);
        }
        let ratio = rounds.ratio(0, 1, 0).unwrap();
        assert_eq!(ratio, Spread { median: 3.0, min: 2.0, max: 4.0 });
        assert_eq!(rounds.fdatasync_us(), None);
    }

    #[test]
    fn rounds_beside_a_slow_disk_are_dropped_and_counted() {
        let mut rounds = Rounds::new(vec!["ours"]);
        for fdatasync_us in [100.0, 4000.0, 200.0] {
            rounds.admit(vec![vec![1.0]], Some(fdatasync_us), 1000.0);
        }
        assert_eq!((rounds.kept(), rounds.dropped, rounds.unquiet), (2, 1, 1));
        assert_eq!(rounds.fdatasync_us(), Spread::of(&[100.0, 200.0]));
    }

    #[test]
    fn every_entrant_runs_once_a_round_and_each_begins_in_turn() {
        let order = &std::cell::RefCell::new(Vec::new());
        let mut entrants = ["a", "b"].map(|name| {
            Entrant::new(name, move || {
                order.borrow_mut().push(name);
                Ok(vec![1.0])
            })
        });
        let pace = Pace { rounds: 3, large_rounds: 1, fdatasync_limit_us: 1.0 };
        assert_eq!(race(&pace, None, &mut entrants).unwrap().kept(), 3);
        drop(entrants);
        assert_eq!(*order.borrow(), ["a", "b", "b", "a", "a", "b"]);
    }
}
