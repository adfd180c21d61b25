//! What an operation of the simulated disk costs. Tests do millions of them, so 5 µs each is the
//! bar.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use laminar_wal_benches::{Failure, SimulatedDisk, SimulatedWork, or_stop};

fn simulated_disk(c: &mut Criterion) {
    let mut group = c.benchmark_group("simulated_disk");
    group.throughput(Throughput::Elements(1));
    for (name, work) in SimulatedWork::ALL {
        group.bench_function(name, |b| b.iter_custom(|count| or_stop(time(work, count))));
    }
    group.finish();
}

fn time(work: SimulatedWork, count: u64) -> Result<Duration, Failure> {
    let mut disk = SimulatedDisk::new()?;
    let start = Instant::now();
    disk.work(work, count)?;
    Ok(start.elapsed())
}

criterion_group!(benches, simulated_disk);
criterion_main!(benches);
