//! What a record and a recovery cost as the log of one core grows a hundredfold.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::recovery::Recovered;
use super::{Setting, VALUE, append_puts};
use crate::Failure;
use crate::child::Task;
use crate::contenders::{Contender, Log, OpenWal, Ours, Reference};
use crate::fdatasync::Probe;
use crate::machine::{cpu_time, memory_kib};
use crate::report::{Table, count, number};
use crate::tally::Tally;
use crate::workdir::warm;

/// Looked at when the log has this part of all records, in hundredths.
const MARKS: [u64; 5] = [1, 3, 10, 30, 100];

/// The logs that are recovered, by the same measure: each is filled by a process of its own, and
/// the largest tells what appending cost.
const SIZES: [u64; 3] = [1, 10, 100];

/// What a record takes on the disk, and what is written at once where there is no log.
const RECORD_BYTES: u64 = 192;
const PIECE_BYTES: usize = 256 * 1024;

/// Reading it all into memory takes what it takes; the reference is not asked for more.
const REFERENCE_RECORDS_MAX: u64 = 10_000_000;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let fdatasync_before = probe.p50_us()?;
    let mut appending =
        Table::new(&["log", "records, from – to", "ns per record", "of processors", "memory, MiB"]);
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
        add_steps(&mut appending, contender.name(), &largest);
        if contender == Contender::Ours {
            eprintln!("   bare write");
            let directory = setting.workdir.fresh()?;
            let file = directory.path().join("bare");
            let steps = write_bare(&file, SIZES[2] * hundredth(setting), hundredth(setting))?;
            add_steps(&mut appending, "bare write", &steps);
        }
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
    cpu_ns_per_record: f64,
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
    let steps = in_steps(records, sync_every, |range| {
        append_puts(&mut log, range, &VALUE)?;
        log.sync()
    })?;
    log.close()?;
    Ok(steps)
}

/// No log: as many bytes through the page cache, to see what of it is the disk's.
fn write_bare(file: &Path, records: u64, sync_every: u64) -> Result<Vec<Step>, Failure> {
    let mut file = File::create(file)?;
    let piece = vec![0xab; PIECE_BYTES];
    in_steps(records, sync_every, |range| {
        let mut left = (range.end - range.start) * RECORD_BYTES;
        while left > 0 {
            let bytes = left.min(PIECE_BYTES as u64);
            file.write_all(&piece[..usize::try_from(bytes)?])?;
            left -= bytes;
        }
        Ok(file.sync_data()?)
    })
}

fn in_steps(
    records: u64,
    sync_every: u64,
    mut append_and_sync: impl FnMut(Range<u64>) -> Result<(), Failure>,
) -> Result<Vec<Step>, Failure> {
    let mut steps = Vec::with_capacity(MARKS.len());
    let mut number = 0;
    for mark in MARKS {
        let (from, to) = (number, records * mark / 100);
        let (start, cpu_before) = (Instant::now(), cpu_time()?);
        while number < to {
            let end = to.min(number + sync_every);
            append_and_sync(number..end)?;
            number = end;
        }
        let per_record = |time: Duration| time.as_secs_f64() * 1e9 / (to - from) as f64;
        steps.push(Step {
            from,
            to,
            ns_per_record: per_record(start.elapsed()),
            cpu_ns_per_record: per_record(cpu_time()? - cpu_before),
            memory_kib: memory_kib()?,
        });
    }
    Ok(steps)
}

fn add_steps(table: &mut Table, name: &str, steps: &[Step]) {
    for step in steps {
        table.add(vec![
            name.to_string(),
            format!("{} – {}", count(step.from), count(step.to)),
            number(step.ns_per_record),
            number(step.cpu_ns_per_record),
            number(step.memory_kib as f64 / 1024.0),
        ]);
    }
}
