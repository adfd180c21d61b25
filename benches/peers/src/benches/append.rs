//! Appends: the call alone, in bulk without a sync, and in bulk with one sync at the end.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use super::logs::{RECYCLED, RECYCLED_BYTES, Recycling, in_new_log};
use super::{Setting, append_puts};
use crate::Failure;
use crate::contenders::{Log, OpenWal, Ours, Reference};
use crate::fdatasync::Probe;
use crate::machine::cpu_time;
use crate::measure::{Entrant, Rounds, median, race};
use crate::report::{Better, Comparison, Figure, count, rounds_line};
use crate::tally::{KEY_BYTES, Tally};
use crate::workdir::Workdir;

const FIGURES: [Figure; 4] = [
    Figure { title: "call, ns", better: Better::Less },
    Figure { title: "bulk, ns", better: Better::Less },
    Figure { title: "bulk + sync, ns", better: Better::Less },
    Figure { title: "CPU of bulk + sync, ns", better: Better::Less },
];

/// Where a sample of ours goes on, behind the figures: how often an append in bulk waited.
const BUFFER_WAITS: usize = FIGURES.len();
const SEGMENT_WAITS: usize = FIGURES.len() + 1;

const BARE_WRITE: &str = "bare write";
const BARE_WRITE_BYTES: u64 = 256 * 1024;

/// So much is appended between two syncs when the call alone is timed: less than any buffer of
/// ours, so that neither we nor open-wal write during the time.
const CALL_BYTES: u64 = 200_000;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let mut comparison = Comparison::new(Some("value"), &FIGURES);
    let mut notes = String::new();
    for value_bytes in [16, 100, 1024] {
        let kib = value_bytes == 1024;
        let records = if kib { setting.sizes.kib_appends } else { setting.sizes.small_appends };
        let rounds = measure(setting, probe, Work { records, value_bytes })?;
        let axis = format!("{value_bytes} B");
        comparison.add(&axis, &rounds);
        notes += &rounds_line(&format!("{axis}, {} records", count(records)), &rounds);
        notes += &waits_line(&rounds);
    }
    Ok(format!("{comparison}\n{notes}"))
}

fn measure(setting: &Setting<'_>, probe: &mut Probe, work: Work) -> Result<Rounds, Failure> {
    let workdir = setting.workdir;
    let mut recycling = Recycling::make(workdir)?;
    let rounds = race(
        &setting.pace,
        Some(probe),
        &mut [
            Entrant::new(Ours::NAME, || work.sample::<Ours>(workdir, sample_waits)),
            Entrant::new(RECYCLED, || work.sample_recycled(&mut recycling)),
            Entrant::new(Reference::NAME, || work.sample::<Reference>(workdir, Work::bulk)),
            Entrant::new(OpenWal::NAME, || work.sample::<OpenWal>(workdir, Work::bulk)),
            Entrant::new(BARE_WRITE, || bare_write(workdir, work)),
        ],
    )?;
    recycling.close()?;
    Ok(rounds)
}

#[derive(Debug, Clone, Copy)]
struct Work {
    records: u64,
    value_bytes: usize,
}

impl Work {
    /// Both kinds of figures, each in a log of its own.
    fn sample<L: Log>(
        self,
        workdir: &Workdir,
        bulk: impl FnOnce(Self, &mut L) -> Result<Vec<f64>, Failure>,
    ) -> Result<Vec<f64>, Failure> {
        let calls = self.calls();
        let mut sample = in_new_log::<L>(workdir, &calls.tally(), |log| calls.call(log))?;
        sample.extend(in_new_log::<L>(workdir, &self.tally(), |log| bulk(self, log))?);
        Ok(sample)
    }

    fn sample_recycled(self, recycling: &mut Recycling<'_>) -> Result<Vec<f64>, Failure> {
        let calls = self.calls();
        let fitting =
            Self { records: self.records.min(RECYCLED_BYTES / self.record_bytes()), ..self };
        let mut sample = recycling.sample(&calls.tally(), |log| calls.call(log))?;
        sample.extend(recycling.sample(&fitting.tally(), |log| sample_waits(fitting, log))?);
        Ok(sample)
    }

    /// A part of the records is enough to time the call alone.
    const fn calls(self) -> Self {
        Self { records: self.records.div_ceil(4), ..self }
    }

    /// Appends with a sync now and then; the syncs are taken out of the time.
    fn call<L: Log>(self, log: &mut L) -> Result<Vec<f64>, Failure> {
        let value = self.value();
        let appends_per_sync = (CALL_BYTES / self.record_bytes()).clamp(1, 1000);
        let mut appending = Duration::ZERO;
        let mut number = 0;
        while number < self.records {
            let end = self.records.min(number + appends_per_sync);
            let start = Instant::now();
            append_puts(log, number..end, &value)?;
            appending += start.elapsed();
            log.sync()?;
            number = end;
        }
        Ok(vec![self.per_record_ns(appending)])
    }

    /// Appends everything, then syncs once.
    fn bulk<L: Log>(self, log: &mut L) -> Result<Vec<f64>, Failure> {
        let value = self.value();
        let cpu_before = cpu_time()?;
        let start = Instant::now();
        append_puts(log, 0..self.records, &value)?;
        let appended = start.elapsed();
        log.sync()?;
        let synced = start.elapsed();
        let cpu = cpu_time()? - cpu_before;
        Ok([appended, synced, cpu].map(|duration| self.per_record_ns(duration)).to_vec())
    }

    fn value(self) -> Vec<u8> {
        vec![0xab; self.value_bytes]
    }

    const fn tally(self) -> Tally {
        Tally::of(self.records, self.value_bytes as u64)
    }

    /// What a record takes on the disk, ours and the reference's: they are the same.
    const fn record_bytes(self) -> u64 {
        8 + ((KEY_BYTES + self.value_bytes) as u64).next_multiple_of(8) + 64
    }

    fn per_record_ns(self, duration: Duration) -> f64 {
        duration.as_secs_f64() * 1e9 / self.records as f64
    }
}

/// In bulk, and how often an append waited.
fn sample_waits(work: Work, log: &mut Ours) -> Result<Vec<f64>, Failure> {
    let before = log.stalls();
    let mut sample = work.bulk(log)?;
    let after = log.stalls();
    sample.push((after.buffers - before.buffers) as f64);
    sample.push((after.segments - before.segments) as f64);
    Ok(sample)
}

/// As many bytes written to a growing file in large pieces, and synced: what the disk asks.
fn bare_write(workdir: &Workdir, work: Work) -> Result<Vec<f64>, Failure> {
    let directory = workdir.fresh()?;
    let mut file = File::create_new(directory.path().join("file"))?;
    let piece = vec![0xab; usize::try_from(BARE_WRITE_BYTES)?];
    let pieces = (work.records * work.record_bytes()).div_ceil(BARE_WRITE_BYTES);
    let cpu_before = cpu_time()?;
    let start = Instant::now();
    for _ in 0..pieces {
        file.write_all(&piece)?;
    }
    let written = start.elapsed();
    file.sync_data()?;
    let synced = start.elapsed();
    let cpu = cpu_time()? - cpu_before;
    if file.metadata()?.len() != pieces * BARE_WRITE_BYTES {
        return Err("the file does not hold what was written".into());
    }
    let per_record = [written, synced, cpu].map(|duration| work.per_record_ns(duration));
    Ok([vec![f64::NAN], per_record.to_vec()].concat())
}

fn waits_line(rounds: &Rounds) -> String {
    let mut line = String::new();
    for (entrant, name) in rounds.names.iter().enumerate() {
        if *name == Ours::NAME || *name == RECYCLED {
            let waits = |figure| median(&rounds.figure(entrant, figure));
            line += &format!(
                "  - {name}: in the median round {:.0} appends waited for a buffer, {:.0} for a \
                 segment.\n",
                waits(BUFFER_WAITS),
                waits(SEGMENT_WAITS)
            );
        }
    }
    line
}
