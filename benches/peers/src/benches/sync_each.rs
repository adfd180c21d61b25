//! One record, one sync, on one thread.

use std::time::Instant;

use super::logs::{RECYCLED, Recycling, in_new_log};
use super::{Setting, VALUE, append_puts};
use crate::Failure;
use crate::contenders::{Log, OpenWal, Ours, Reference};
use crate::fdatasync::Probe;
use crate::measure::{Durations, Entrant, race};
use crate::report::{Better, Comparison, Figure, rounds_line};
use crate::tally::Tally;

const FIGURES: [Figure; 3] = [
    Figure { title: "commits/s", better: Better::More },
    Figure { title: "p50, µs", better: Better::Less },
    Figure { title: "p99, µs", better: Better::Less },
];

/// Before the time begins: the first commits of a file are not like the others.
const WARMING_COMMITS: u64 = 20;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let workdir = setting.workdir;
    let commits = setting.sizes.commits;
    let expected = Tally::of(WARMING_COMMITS + commits, VALUE.len() as u64);
    let mut recycling = Recycling::make(workdir)?;
    let rounds = race(
        &setting.pace,
        Some(probe),
        &mut [
            Entrant::new(Ours::NAME, || {
                in_new_log::<Ours>(workdir, &expected, |log| sample(log, commits))
            }),
            Entrant::new(RECYCLED, || recycling.sample(&expected, |log| sample(log, commits))),
            Entrant::new(Reference::NAME, || {
                in_new_log::<Reference>(workdir, &expected, |log| sample(log, commits))
            }),
            Entrant::new(OpenWal::NAME, || {
                in_new_log::<OpenWal>(workdir, &expected, |log| sample(log, commits))
            }),
        ],
    )?;
    recycling.close()?;
    let mut comparison = Comparison::new(None, &FIGURES);
    comparison.add("", &rounds);
    let line = rounds_line(&format!("{commits} commits a round"), &rounds);
    Ok(format!("{comparison}\n{line}"))
}

fn sample<L: Log>(log: &mut L, commits: u64) -> Result<Vec<f64>, Failure> {
    let mut durations = Durations::with_capacity(usize::try_from(commits)?);
    for number in 0..WARMING_COMMITS + commits {
        let start = Instant::now();
        append_puts(log, number..number + 1, &VALUE)?;
        log.sync()?;
        if number >= WARMING_COMMITS {
            durations.push(start.elapsed());
        }
    }
    let commits_per_s = commits as f64 / durations.total().as_secs_f64();
    Ok(vec![commits_per_s, durations.quantile_us(0.5), durations.quantile_us(0.99)])
}
