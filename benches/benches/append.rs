//! Appending: the call alone, and with the sync that makes it durable. Axes stand in the names.
//!
//! Answers are checked: what was appended is read back from the disk, and counted.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use laminar_wal_benches::{Failure, SteadyLog, append_puts, or_stop};

/// Appends, buffer-full writes included, and no sync.
fn append_put(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_put");
    for value_bytes in [16, 100, 1024] {
        let mut log = or_stop(SteadyLog::new(value_bytes, |options| options));
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(format!("value={value_bytes}B")), |b| {
            b.iter_custom(|count| or_stop(timed_appends(&mut log, count)));
        });
        or_stop(log.close_and_check());
    }
    group.finish();
}

/// One record and the sync that makes it durable.
fn sync_each(c: &mut Criterion) {
    let mut group = c.benchmark_group("sync_each");
    let mut log = or_stop(SteadyLog::new(100, |options| options));
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::from_parameter("value=100B"), |b| {
        b.iter_custom(|count| or_stop(timed_syncs(&mut log, count, 1)));
    });
    or_stop(log.close_and_check());
    group.finish();
}

/// Many records and one sync; the time is that of the whole.
fn sync(c: &mut Criterion) {
    let mut group = c.benchmark_group("sync");
    let batch = 1000;
    let mut log = or_stop(SteadyLog::new(100, |options| options));
    group.throughput(Throughput::Elements(batch));
    group.bench_function(BenchmarkId::from_parameter(format!("batch={batch}")), |b| {
        b.iter_custom(|count| or_stop(timed_syncs(&mut log, count, batch)));
    });
    or_stop(log.close_and_check());
    group.finish();
}

fn timed_appends(log: &mut SteadyLog, count: u64) -> Result<Duration, Failure> {
    log.time(count, |writer, value| append_puts(writer, black_box(count), black_box(value)))
}

fn timed_syncs(log: &mut SteadyLog, count: u64, batch: u64) -> Result<Duration, Failure> {
    log.time(count * batch, |writer, value| {
        for _ in 0..count {
            append_puts(writer, batch, black_box(value))?;
            writer.sync()?;
        }
        Ok(())
    })
}

criterion_group!(benches, append_put, sync_each, sync);
criterion_main!(benches);
