//! The work that `benches/instructions.sh` counts the instructions of, under callgrind.
//!
//! Callgrind collects only inside [`counted`], in the thread that is in it: neither start-up nor
//! the background threads are in the numbers. Each case is counted twice, for fewer and for more
//! operations; the difference, divided, is what one operation costs.
//!
//! One line per count goes to standard output, in the order of the dumps that callgrind writes:
//! the name of the case and how many operations it did.
//!
//! With an argument, only the cases whose names begin with it: for looking at one of them function
//! by function, as `benches/instructions.sh` shows.

use std::hint::black_box;
use std::io::Write;

use laminar_wal::{CoreWalWriter, RecoveryMode};
use laminar_wal_benches::{
    BenchLog, Failure, Runs, SimulatedDisk, SimulatedWork, WARM_UP_BYTES, append_puts, visit,
};

fn main() -> Result<(), Failure> {
    let cases = Cases { prefix: std::env::args().nth(1).unwrap_or_default() };
    count_appends_and_syncs(&cases)?;
    count_recovery(&cases)?;
    count_merge(&cases)?;
    count_simulated_disk(&cases)
}

struct Cases {
    prefix: String,
}

impl Cases {
    /// Counts one case, unless it is not wanted.
    fn count(
        &self,
        name: &str,
        operations: u64,
        work: &mut dyn FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.want(name) {
            writeln!(std::io::stdout(), "{name} {operations}")?;
            counted(work)?;
        }
        Ok(())
    }

    fn want(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }
}

/// Callgrind collects from the entry of this function to its return, and then writes a dump.
#[inline(never)]
fn counted(work: &mut dyn FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    // Without the black box the call would be a jump, and this function would never return.
    black_box(work())
}

fn count_appends_and_syncs(cases: &Cases) -> Result<(), Failure> {
    let log = BenchLog::new()?;
    let wal = log.open(1)?;
    let mut writer = wal.writer(0)?;
    // There is room for everything below in the segment that this ends in: a change of segments
    // costs more or less, depending on how far the background got.
    while writer.position() < WARM_UP_BYTES {
        append_puts(&mut writer, 1, &[0; 128 * 1024])?;
    }
    for (value_bytes, fewer) in [(16, 20_000), (100, 20_000), (1024, 5_000)] {
        let name = format!("append_put/value={value_bytes}B");
        let value = vec![0xab; value_bytes];
        for appends in [fewer, 3 * fewer] {
            // So that the buffers' turns are the same whatever was counted before.
            writer.sync()?;
            cases.count(&name, appends, &mut || {
                append_puts(&mut writer, appends, black_box(&value))
            })?;
        }
    }
    for syncs in [100, 300] {
        cases.count("sync_each/value=100B", syncs, &mut || sync_each(&mut writer, syncs))?;
    }
    writer.close()?;
    Ok(wal.close()?)
}

fn sync_each(writer: &mut CoreWalWriter, syncs: u64) -> Result<(), Failure> {
    for _ in 0..syncs {
        append_puts(writer, 1, black_box(&[0xab; 100]))?;
        writer.sync()?;
    }
    Ok(())
}

/// Opening and the merged visit behind it, per entry.
fn count_recovery(cases: &Cases) -> Result<(), Failure> {
    for entries in [10_000, 30_000] {
        let log = BenchLog::new()?;
        log.fill(1, entries, 100, Runs::Short)?;
        cases.count("recovery/cores=1", entries, &mut || {
            let recovery = laminar_wal::read(log.path(), RecoveryMode::TornTail)?;
            visit(&recovery, entries, 100)
        })?;
    }
    Ok(())
}

/// The merged visit alone, per entry, of a log in which the cores took turns.
fn count_merge(cases: &Cases) -> Result<(), Failure> {
    for cores in [4, 16] {
        let name = format!("merge/cores={cores},runs=short");
        for entries_per_core in [2_500, 7_500] {
            let log = BenchLog::new()?;
            log.fill(cores, entries_per_core, 100, Runs::Short)?;
            let recovery = laminar_wal::read(log.path(), RecoveryMode::TornTail)?;
            let entries = u64::from(cores) * entries_per_core;
            cases.count(&name, entries, &mut || visit(&recovery, entries, 100))?;
        }
    }
    Ok(())
}

/// What an operation of the simulated disk costs the tests that run on it.
fn count_simulated_disk(cases: &Cases) -> Result<(), Failure> {
    for (name, work) in SimulatedWork::ALL {
        let name = format!("simulated_disk/{name}");
        if !cases.want(&name) {
            continue;
        }
        let mut disk = SimulatedDisk::new()?;
        disk.work(work, 640)?;
        for times in [640, 3 * 640] {
            cases.count(&name, times, &mut || disk.work(work, times))?;
        }
    }
    Ok(())
}
