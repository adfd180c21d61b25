//! What a record and a recovery cost as the log of one core grows a hundredfold.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::recovery::Recovered;
use super::{Setting, VALUE, append_puts};
use crate::Failure;
use crate::child::Task;
use crate::contenders::{Contender, Log, OpenWal, Ours, Reference};
use crate::fdatasync::Probe;
use crate::machine::memory_kib;
use crate::report::{Table, count, number};
use crate::tally::Tally;
use crate::workdir::warm;

/// Looked at when the log has this part of all records, in hundredths.
const MARKS: [u64; 5] = [1, 3, 10, 30, 100];

/// The logs that are recovered, by the same measure: each is filled by a process of its own, and
/// the largest tells what appending cost.
const SIZES: [u64; 3] = [1, 10, 100];

/// Reading it all into memory takes what it takes; the reference is not asked for more.
const REFERENCE_RECORDS_MAX: u64 = 10_000_000;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let fdatasync_before = probe.p50_us()?;
    let mut appending = Table::new(&["log", "records, from – to", "ns per record", "memory, MiB"]);
    let mut recovering =
        Table::new(&["log", "records", "recovery, records/s", "peak memory of it, MiB"]);

    for contender in [Contender::Ours, Contender::Reference] {
        let mut largest = Vec::new();
        for size in SIZES {
            let records = size * hundredth(setting);
            if contender == Contender::Reference && records > REFERENCE_RECORDS_MAX {
                continue;
            }
            eprintln!("   {}, {records} records", contender.name());
            let (steps, recovered) = grow_and_recover(setting, contender, records)?;
            largest = steps;
            recovering.add(vec![
                contender.name().to_string(),
                count(records),
                number(records as f64 / (recovered.open_s + recovered.visit_s)),
                number(recovered.peak_memory_mib()),
            ]);
        }
        add_steps(&mut appending, contender, &largest);
    }
    let fdatasync_after = probe.p50_us()?;
    Ok(format!(
        "{appending}\n{recovering}\n- One run of each; bare `fdatasync` {} µs before, {} µs after.\n",
        number(fdatasync_before),
        number(fdatasync_after)
    ))
}

fn hundredth(setting: &Setting<'_>) -> u64 {
    (setting.sizes.growth_records / 100).max(1)
}

/// What appending cost between two marks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    from: u64,
    to: u64,
    ns_per_record: f64,
    memory_kib: u64,
}

fn grow_and_recover(
    setting: &Setting<'_>,
    contender: Contender,
    records: u64,
) -> Result<(Vec<Step>, Recovered), Failure> {
    let directory = setting.workdir.fresh()?;
    let log: PathBuf = directory.path().join("log");
    let sync_every = hundredth(setting);
    let steps = Task::Grow { contender, directory: log.clone(), records, sync_every }.delegate()?;
    setting.workdir.settle()?;
    warm(&log)?;
    let reading = match contender {
        Contender::Ours => Task::Read { directory: log },
        other => Task::recover(other, &log, 1),
    };
    let recovered: Recovered = reading.delegate()?;
    recovered.tally.check(&Tally::of(records, VALUE.len() as u64))?;
    Ok((steps, recovered))
}

/// In the child: fills a new log, and looks at time and memory at each mark.
pub(crate) fn grow(
    contender: Contender,
    directory: &Path,
    records: u64,
    sync_every: u64,
) -> Result<Vec<Step>, Failure> {
    match contender {
        Contender::Ours => grow_log::<Ours>(directory, records, sync_every),
        Contender::Reference => grow_log::<Reference>(directory, records, sync_every),
        Contender::OpenWal => grow_log::<OpenWal>(directory, records, sync_every),
    }
}

fn grow_log<L: Log>(directory: &Path, records: u64, sync_every: u64) -> Result<Vec<Step>, Failure> {
    let mut log = L::create(directory)?;
    let mut steps = Vec::with_capacity(MARKS.len());
    let mut number = 0;
    for mark in MARKS {
        let (from, to) = (number, records * mark / 100);
        let start = Instant::now();
        while number < to {
            let end = to.min(number + sync_every);
            append_puts(&mut log, number..end, &VALUE)?;
            log.sync()?;
            number = end;
        }
        let ns_per_record = start.elapsed().as_secs_f64() * 1e9 / (to - from) as f64;
        steps.push(Step { from, to, ns_per_record, memory_kib: memory_kib()? });
    }
    log.close()?;
    Ok(steps)
}

fn add_steps(table: &mut Table, contender: Contender, steps: &[Step]) {
    for step in steps {
        table.add(vec![
            contender.name().to_string(),
            format!("{} – {}", count(step.from), count(step.to)),
            number(step.ns_per_record),
            number(step.memory_kib as f64 / 1024.0),
        ]);
    }
}
