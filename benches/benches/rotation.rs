//! What going on in the next segment costs: commits of about 100 KiB, with segments in which two of
//! them fit, nine, and some six hundred.
//!
//! Answers are checked: what was appended is read back from the disk, and counted.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use laminar_wal_benches::{ChangeOptions, Failure, SteadyLog, append_puts, or_stop};

const ENTRIES_PER_COMMIT: u64 = 100;

const SEGMENTS: [(&str, ChangeOptions); 3] = [
    ("segment=256KiB", |options| options.segment_bytes(256 * 1024)),
    ("segment=1MiB", |options| options.segment_bytes(1024 * 1024)),
    ("segment=64MiB", |options| options),
];

fn rotation(c: &mut Criterion) {
    let mut group = c.benchmark_group("rotation");
    for (name, options) in SEGMENTS {
        let mut log = or_stop(SteadyLog::new(1024, options));
        group.throughput(Throughput::Elements(ENTRIES_PER_COMMIT));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter_custom(|count| or_stop(timed_commits(&mut log, count)));
        });
        or_stop(log.close_and_check());
    }
    group.finish();
}

fn timed_commits(log: &mut SteadyLog, count: u64) -> Result<Duration, Failure> {
    log.time(count * ENTRIES_PER_COMMIT, |writer, value| {
        for _ in 0..count {
            append_puts(writer, ENTRIES_PER_COMMIT, black_box(value))?;
            writer.sync()?;
        }
        Ok(())
    })
}

criterion_group!(benches, rotation);
criterion_main!(benches);
