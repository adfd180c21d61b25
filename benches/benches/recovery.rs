//! Recovery: reading and checking everything, then visiting it merged.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use laminar_wal::RecoveryMode;
use laminar_wal_benches::{BenchLog, Failure};

const ENTRIES_PER_CORE: u64 = 50_000;

fn recover_and_visit(c: &mut Criterion) {
    let mut group = c.benchmark_group("recover_and_visit");
    group.sample_size(10);
    for cores in [1_u16, 4] {
        let entries = u64::from(cores) * ENTRIES_PER_CORE;
        let log = or_stop(filled(cores));
        group.throughput(Throughput::Elements(entries));
        group.bench_function(BenchmarkId::from_parameter(format!("cores={cores}")), |b| {
            b.iter(|| or_stop(visit(&log, entries)));
        });
    }
    group.finish();
}

fn filled(cores: u16) -> Result<BenchLog, Failure> {
    let log = BenchLog::new()?;
    log.fill(cores, ENTRIES_PER_CORE, 100)?;
    Ok(log)
}

fn visit(log: &BenchLog, expected: u64) -> Result<(), Failure> {
    let recovery = laminar_wal::read(log.path(), RecoveryMode::TornTail)?;
    let mut entries = 0;
    let mut value_bytes = 0;
    recovery.for_each(|entry| {
        entries += 1;
        value_bytes += entry.value().map_or(0, <[u8]>::len);
    })?;
    let right = entries == expected && value_bytes as u64 == expected * 100;
    if right { Ok(()) } else { Err(format!("{entries} entries of {expected}").into()) }
}

#[expect(clippy::panic, reason = "criterion's closures return no errors")]
fn or_stop<T>(result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

criterion_group!(benches, recover_and_visit);
criterion_main!(benches);
