//! Appending: the call alone, and with the sync that makes it durable. Axes stand in the names.
//!
//! Answers are checked: what was appended is read back from the disk, and counted.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use laminar_wal::RecoveryMode;
use laminar_wal_benches::{BenchLog, Failure, append_puts};

/// Appends, buffer-full writes included, and no sync.
fn append_put(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_put");
    for value_bytes in [16, 100, 1024] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(format!("value={value_bytes}B")), |b| {
            b.iter_custom(|count| or_stop(timed_appends(count, value_bytes)));
        });
    }
    group.finish();
}

/// So many appends, then one sync; the time is that of the whole.
fn append_and_sync(c: &mut Criterion) {
    let mut group = c.benchmark_group("append_and_sync");
    for batch in [1_u64, 1000] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(format!("batch={batch}")), |b| {
            b.iter_custom(|count| or_stop(timed_syncs(count, batch)));
        });
    }
    group.finish();
}

fn timed_appends(count: u64, value_bytes: usize) -> Result<Duration, Failure> {
    let log = BenchLog::new()?;
    let wal = log.open(1)?;
    let mut writer = wal.writer(0)?;
    let value = vec![0xab; value_bytes];
    let start = Instant::now();
    append_puts(&mut writer, black_box(count), black_box(&value))?;
    let elapsed = start.elapsed();
    writer.close()?;
    wal.close()?;
    check_entries(&log, count)?;
    Ok(elapsed)
}

fn timed_syncs(count: u64, batch: u64) -> Result<Duration, Failure> {
    let log = BenchLog::new()?;
    let wal = log.open(1)?;
    let mut writer = wal.writer(0)?;
    let value = [0xab; 100];
    let start = Instant::now();
    for _ in 0..count {
        append_puts(&mut writer, batch, black_box(&value))?;
        writer.sync()?;
    }
    let elapsed = start.elapsed();
    writer.close()?;
    wal.close()?;
    check_entries(&log, count * batch)?;
    Ok(elapsed)
}

fn check_entries(log: &BenchLog, expected: u64) -> Result<(), Failure> {
    let recovery = laminar_wal::read(log.path(), RecoveryMode::Strict)?;
    let found: u64 = recovery.report().cores.iter().map(|core| core.entries).sum();
    if found == expected { Ok(()) } else { Err(format!("{found} entries of {expected}").into()) }
}

#[expect(clippy::panic, reason = "criterion's closures return no errors")]
fn or_stop<T>(result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

criterion_group!(benches, append_put, append_and_sync);
criterion_main!(benches);
