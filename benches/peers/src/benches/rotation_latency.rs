//! What a commit takes where segments end, beside a log whose segment does not end in the time.

use std::thread;
use std::time::{Duration, Instant};

use super::{Setting, VALUE, append_puts};
use crate::Failure;
use crate::contenders::{Log, Ours, Reference};
use crate::fdatasync::Probe;
use crate::machine::written_bytes;
use crate::measure::{Durations, Entrant, Rounds, median, race};
use crate::report::{Better, Comparison, Figure, rounds_line, spread};
use crate::tally::Tally;

const FIGURES: [Figure; 4] = [
    Figure { title: "p50, µs", better: Better::Less },
    Figure { title: "p99, µs", better: Better::Less },
    Figure { title: "p99.9, µs", better: Better::Less },
    Figure { title: "greatest, µs", better: Better::Less },
];

/// The place of the figure that the project promises something about.
const P99_9: usize = 2;

/// Where a sample of ours goes on, behind the figures: how often a commit waited for a segment.
const SEGMENT_WAITS: usize = FIGURES.len();

/// What a record takes on the disk, and a batch beside its records.
const RECORD_BYTES: u64 = 192;
const MARK_BYTES: u64 = 24;

/// A log of ours whose segments end in the time.
#[derive(Debug, Clone, Copy)]
struct Rotating {
    name: &'static str,
    segment_bytes: u64,
    /// A checkpoint each time that as much was appended as a segment holds gives back what lies
    /// behind it, and the next segments are made of that.
    recycles: bool,
}

const SMALLEST: Rotating = Rotating {
    name: "laminar-wal, segments of 128 KiB",
    segment_bytes: 128 << 10,
    recycles: false,
};
const SMALLEST_RECYCLED: Rotating =
    Rotating { name: "laminar-wal, recycled segments of 128 KiB", recycles: true, ..SMALLEST };
const SMALL: Rotating =
    Rotating { name: "laminar-wal, segments of 4 MiB", segment_bytes: 4 << 20, recycles: false };
const SMALL_RECYCLED: Rotating =
    Rotating { name: "laminar-wal, recycled segments of 4 MiB", recycles: true, ..SMALL };
const LARGE: &str = "laminar-wal, one segment";

/// Slow enough that the next segment is always ready before it is asked for.
const PACE: Duration = Duration::from_millis(1);

/// So many fill the files that are kept to be recycled.
const RECYCLED_WARMING_SEGMENTS: u64 = 4;

/// Segments grow to their full size in so many bytes; those are written in pieces of 64 KiB.
const WARMING_RECORDS: u64 = 64 * 1024 / RECORD_BYTES;

pub(crate) fn run(setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
    let batches = Load {
        records: 64 * 1024 / RECORD_BYTES,
        commits: setting.sizes.rotation_batches,
        every: Duration::ZERO,
    };
    let paced = Load { commits: batches.commits.div_ceil(3), every: PACE, ..batches };
    let single =
        Load { records: 1, commits: setting.sizes.rotation_commits, every: Duration::ZERO };
    let loads = [
        // Such commits are many per segment of 4 MiB: one of the smallest has 500.
        ("1 record", single, [SMALLEST, SMALLEST_RECYCLED, SMALL, SMALL_RECYCLED].as_slice()),
        ("64 KiB", batches, [SMALL, SMALL_RECYCLED].as_slice()),
        ("64 KiB each ms", paced, [SMALL, SMALL_RECYCLED].as_slice()),
    ];
    let mut comparison = Comparison::new(Some("commit"), &FIGURES);
    let mut notes = String::new();
    for (axis, load, segments) in loads {
        let mut entrants: Vec<_> = segments
            .iter()
            .map(|&log| Entrant::new(log.name, move || load.sample_ours(setting, log)))
            .collect();
        let one = Rotating { name: LARGE, segment_bytes: load.large_bytes(), recycles: false };
        entrants.push(Entrant::new(LARGE, move || load.sample_ours(setting, one)));
        entrants.push(Entrant::new(Reference::NAME, move || load.sample_reference(setting)));
        let rounds = race(&setting.pace, Some(probe), &mut entrants)?;
        comparison.add(axis, &rounds);
        notes += &rounds_line(&format!("{axis}, {} commits", load.commits), &rounds);
        notes += &rotations_lines(load, segments, &rounds);
    }
    Ok(format!("{comparison}\n{notes}"))
}

/// How often segments ended, and what that did to the slowest commits.
fn rotations_lines(load: Load, logs: &[Rotating], rounds: &Rounds) -> String {
    let mut lines = String::new();
    for (entrant, log) in logs.iter().enumerate() {
        // The one with a single segment comes behind them.
        if let Some(ratio) = rounds.ratio(P99_9, entrant, logs.len()) {
            lines += &format!(
                "  - {}: about {:.1} of them end in a round, and in the median round {:.0} \
                 commits waited for the next; p99.9 is {} times that of one segment.\n",
                log.name,
                load.timed_bytes() as f64 / log.segment_bytes as f64,
                median(&rounds.figure(entrant, SEGMENT_WAITS)),
                spread(&ratio)
            );
        }
    }
    lines
}

#[derive(Debug, Clone, Copy)]
struct Load {
    /// In each commit.
    records: u64,
    commits: u64,
    /// How long after the one before a commit begins at the earliest.
    every: Duration,
}

impl Load {
    fn sample_ours(self, setting: &Setting<'_>, of: Rotating) -> Result<Vec<f64>, Failure> {
        let directory = setting.workdir.fresh()?;
        let mut log = Ours::with_segment_bytes(directory.path(), of.segment_bytes)?;
        let mut warmed = 0;
        // The first segments of a log are smaller; together they have the size of a full one.
        let full_segments = if of.recycles { RECYCLED_WARMING_SEGMENTS } else { 1 };
        while log.position() < full_segments * of.segment_bytes {
            append_puts(&mut log, warmed..warmed + WARMING_RECORDS, &VALUE)?;
            log.sync()?;
            warmed += WARMING_RECORDS;
        }
        if of.recycles {
            log.checkpoint()?;
        }
        until_nothing_is_written()?;
        setting.workdir.settle()?;
        let waits_before = log.stalls().segments;
        let (mut checkpointed_at, mut first_kept) = (log.position(), warmed);
        let mut sample = self.sample(&mut log, warmed, |log, number| {
            if of.recycles && log.position() - checkpointed_at >= of.segment_bytes {
                log.checkpoint()?;
                (checkpointed_at, first_kept) = (log.position(), number);
            }
            Ok(())
        })?;
        sample.push((log.stalls().segments - waits_before) as f64);
        log.close()?;
        let first_kept = if of.recycles { first_kept } else { 0 };
        let expected = Tally::between(first_kept, self.end(warmed), VALUE.len() as u64);
        Ours::read_back(directory.path())?.check(&expected)?;
        Ok(sample)
    }

    fn sample_reference(self, setting: &Setting<'_>) -> Result<Vec<f64>, Failure> {
        let directory = setting.workdir.fresh()?;
        let mut log = Reference::create(directory.path())?;
        append_puts(&mut log, 0..WARMING_RECORDS, &VALUE)?;
        log.sync()?;
        let sample = self.sample(&mut log, WARMING_RECORDS, |_, _| Ok(()))?;
        log.close()?;
        Reference::read_back(directory.path())?
            .check(&Tally::of(self.end(WARMING_RECORDS), VALUE.len() as u64))?;
        Ok(sample)
    }

    /// `between` is called between two commits, outside the time, with the number of the next record.
    fn sample<L: Log>(
        self,
        log: &mut L,
        mut number: u64,
        mut between: impl FnMut(&mut L, u64) -> Result<(), Failure>,
    ) -> Result<Vec<f64>, Failure> {
        let mut durations = Durations::with_capacity(usize::try_from(self.commits)?);
        for _ in 0..self.commits {
            let start = Instant::now();
            append_puts(log, number..number + self.records, &VALUE)?;
            log.sync()?;
            let took = start.elapsed();
            durations.push(took);
            number += self.records;
            between(log, number)?;
            thread::sleep(self.every.saturating_sub(took));
        }
        Ok([0.5, 0.99, 0.999, 1.0].map(|q| durations.quantile_us(q)).to_vec())
    }

    /// How many records there are in the end.
    const fn end(self, warmed: u64) -> u64 {
        warmed + self.commits * self.records
    }

    const fn timed_bytes(self) -> u64 {
        self.commits * (self.records * RECORD_BYTES + MARK_BYTES)
    }

    /// A segment that all commits fit into, behind the end of those that came before.
    fn large_bytes(self) -> u64 {
        (self.timed_bytes() * 5 / 4).next_power_of_two().max(16 << 20)
    }
}

/// Waits until the next segment has been made ready in the background: nobody says when.
fn until_nothing_is_written() -> Result<(), Failure> {
    const STEP: Duration = Duration::from_millis(100);
    const STEPS_MAX: u32 = 300;
    for _ in 0..STEPS_MAX {
        let before = written_bytes()?;
        thread::sleep(STEP);
        if written_bytes()? == before {
            return Ok(());
        }
    }
    Err("the log does not stop writing in the background".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_commits_fit_into_a_large_segment() {
        for records in [1, 341] {
            let load = Load { records, commits: 3000, every: Duration::ZERO };
            assert!(load.large_bytes() > load.timed_bytes() + 1024 * 1024);
        }
    }
}
