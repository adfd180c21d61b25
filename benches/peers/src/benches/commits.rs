//! Some records and one sync, again and again, on one thread.

use std::time::Instant;

use super::logs::{RECYCLED, Recycling, in_new_log};
use super::{Setting, VALUE, append_puts};
use crate::Failure;
use crate::contenders::{Log, OpenWal, Ours, Reference};
use crate::fdatasync::Probe;
use crate::measure::{Durations, Entrant, race};
use crate::report::{Better, Comparison, Figure, rounds_line};
use crate::tally::Tally;

/// What is appended before each sync, and how often.
#[derive(Clone, Copy)]
struct Commits {
    records: u64,
    /// Before the time begins: the first commits of a file are not like the others.
    warming: u64,
    timed: u64,
}

/// One record, one sync.
pub(crate) fn sync_each(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let figures = [
        Figure { title: "commits/s", better: Better::More },
        Figure { title: "p50, µs", better: Better::Less },
        Figure { title: "p99, µs", better: Better::Less },
    ];
    let commits = Commits { records: 1, warming: 20, timed: setting.sizes.commits };
    commits.run(setting, probe, &figures, "commits")
}

/// A thousand records, one sync.
pub(crate) fn batch(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let figures = [
        Figure { title: "records/s", better: Better::More },
        Figure { title: "batch p50, µs", better: Better::Less },
        Figure { title: "batch p99, µs", better: Better::Less },
    ];
    let commits = Commits { records: 1000, warming: 5, timed: setting.sizes.batches };
    commits.run(setting, probe, &figures, "batches")
}

impl Commits {
    fn run(
        self,
        setting: &Setting<'_>,
        probe: &mut Probe,
        figures: &[Figure],
        unit: &str,
    ) -> Result<String, Failure> {
        let workdir = setting.workdir;
        let records = (self.warming + self.timed) * self.records;
        let expected = Tally::of(records, VALUE.len() as u64);
        let mut recycling = Recycling::make(workdir)?;
        let rounds = race(
            &setting.pace,
            Some(probe),
            &mut [
                Entrant::new(Ours::NAME, || {
                    in_new_log::<Ours>(workdir, &expected, |log| self.sample(log))
                }),
                Entrant::new(RECYCLED, || recycling.sample(&expected, |log| self.sample(log))),
                Entrant::new(Reference::NAME, || {
                    in_new_log::<Reference>(workdir, &expected, |log| self.sample(log))
                }),
                Entrant::new(OpenWal::NAME, || {
                    in_new_log::<OpenWal>(workdir, &expected, |log| self.sample(log))
                }),
            ],
        )?;
        recycling.close()?;
        let mut comparison = Comparison::new(None, figures);
        comparison.add("", &rounds);
        let line = rounds_line(&format!("{} {unit} a round", self.timed), &rounds);
        Ok(format!("{comparison}\n{line}"))
    }

    fn sample<L: Log>(self, log: &mut L) -> Result<Vec<f64>, Failure> {
        let mut durations = Durations::with_capacity(usize::try_from(self.timed)?);
        for commit in 0..self.warming + self.timed {
            let first = commit * self.records;
            let start = Instant::now();
            append_puts(log, first..first + self.records, &VALUE)?;
            log.sync()?;
            if commit >= self.warming {
                durations.push(start.elapsed());
            }
        }
        let records_per_s = (self.timed * self.records) as f64 / durations.total().as_secs_f64();
        Ok(vec![records_per_s, durations.quantile_us(0.5), durations.quantile_us(0.99)])
    }
}
