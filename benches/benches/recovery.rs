//! Recovery: reading and checking everything, then visiting it merged; and the merge alone.
//!
//! Answers are checked: entries are counted and the bytes of their values summed up.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use laminar_wal::{Recovery, RecoveryMode};
use laminar_wal_benches::{BenchLog, Failure, Runs, or_stop, visit};

const VALUE_BYTES: usize = 100;

/// As a start of a program: open, with everything checked, and visit in order.
fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("recovery");
    group.sample_size(10);
    let entries_per_core = 50_000;
    for cores in [1_u16, 4] {
        let entries = u64::from(cores) * entries_per_core;
        let log = or_stop(filled(cores, entries_per_core, Runs::Long));
        group.throughput(Throughput::Elements(entries));
        group.bench_function(BenchmarkId::from_parameter(format!("cores={cores}")), |b| {
            b.iter(|| or_stop(read(&log).and_then(|found| visit(&found, entries, VALUE_BYTES))));
        });
    }
    group.finish();
}

/// The visit of a log that is open already: its cores one after the other, or in turns.
fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    group.sample_size(10);
    let entries = 200_000;
    for cores in [4_u16, 16] {
        for (name, runs) in [("long", Runs::Long), ("short", Runs::Short)] {
            let log = or_stop(filled(cores, entries / u64::from(cores), runs));
            let recovery = or_stop(read(&log));
            group.throughput(Throughput::Elements(entries));
            let id = BenchmarkId::from_parameter(format!("cores={cores},runs={name}"));
            group.bench_function(id, |b| {
                b.iter(|| or_stop(visit(&recovery, entries, VALUE_BYTES)));
            });
        }
    }
    group.finish();
}

fn filled(cores: u16, entries_per_core: u64, runs: Runs) -> Result<BenchLog, Failure> {
    let log = BenchLog::new()?;
    log.fill(cores, entries_per_core, VALUE_BYTES, runs)?;
    Ok(log)
}

fn read(log: &BenchLog) -> Result<Recovery, Failure> {
    Ok(laminar_wal::read(log.path(), RecoveryMode::TornTail)?)
}

criterion_group!(benches, recovery, merge);
criterion_main!(benches);
