//! A thousand records, one sync.

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
    Figure { title: "records/s", better: Better::More },
    Figure { title: "batch p50, µs", better: Better::Less },
    Figure { title: "batch p99, µs", better: Better::Less },
];

const BATCH_RECORDS: u64 = 1000;
const WARMING_BATCHES: u64 = 5;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let workdir = setting.workdir;
    let batches = setting.sizes.batches;
    let expected = Tally::of((WARMING_BATCHES + batches) * BATCH_RECORDS, VALUE.len() as u64);
    let mut recycling = Recycling::make(workdir)?;
    let rounds = race(
        &setting.pace,
        Some(probe),
        &mut [
            Entrant::new(Ours::NAME, || {
                in_new_log::<Ours>(workdir, &expected, |log| sample(log, batches))
            }),
            Entrant::new(RECYCLED, || recycling.sample(&expected, |log| sample(log, batches))),
            Entrant::new(Reference::NAME, || {
                in_new_log::<Reference>(workdir, &expected, |log| sample(log, batches))
            }),
            Entrant::new(OpenWal::NAME, || {
                in_new_log::<OpenWal>(workdir, &expected, |log| sample(log, batches))
            }),
        ],
    )?;
    recycling.close()?;
    let mut comparison = Comparison::new(None, &FIGURES);
    comparison.add("", &rounds);
    let line = rounds_line(&format!("{batches} batches a round"), &rounds);
    Ok(format!("{comparison}\n{line}"))
}

fn sample<L: Log>(log: &mut L, batches: u64) -> Result<Vec<f64>, Failure> {
    let mut durations = Durations::with_capacity(usize::try_from(batches)?);
    for batch in 0..WARMING_BATCHES + batches {
        let first = batch * BATCH_RECORDS;
        let start = Instant::now();
        append_puts(log, first..first + BATCH_RECORDS, &VALUE)?;
        log.sync()?;
        if batch >= WARMING_BATCHES {
            durations.push(start.elapsed());
        }
    }
    let records_per_s = (batches * BATCH_RECORDS) as f64 / durations.total().as_secs_f64();
    Ok(vec![records_per_s, durations.quantile_us(0.5), durations.quantile_us(0.99)])
}
