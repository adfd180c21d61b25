//! A hundred checkpoints over a long log: what it takes of the disk, and of memory.

use std::time::Instant;

use laminar_wal::{CoreWriters, DiskUsage, Wal, WalOptions};
use laminar_wal_benches::machine::{peak_memory_kib, reset_peak_memory};
use laminar_wal_benches::report::{Table, number};
use laminar_wal_benches::{Failure, key};

use crate::Setting;
use crate::logs::checkpoint;

const CORES: u16 = 4;
const CHECKPOINTS: u64 = 100;
const VALUE_BYTES: usize = 1024;
const TOTAL_BYTES: u64 = 10 << 30;

/// How often disk usage is looked at between two checkpoints.
const LOOKS: u64 = 4;

/// From here on the log is in its steady state: segments have their full size, and are recycled.
const WARMING_CHECKPOINTS: u64 = 10;

pub(crate) fn run(setting: &Setting<'_>) -> Result<String, Failure> {
    let (total_bytes, segment_bytes) =
        if setting.is_quick { (TOTAL_BYTES / 100, 1 << 20) } else { (TOTAL_BYTES, 64 << 20) };
    let directory = setting.workdir.fresh()?;
    let options = WalOptions::new(directory.path().join("log"));
    let (wal, recovery) = options.cores(CORES).segment_bytes(segment_bytes).open()?;
    // A replay that may still come pins the log.
    drop(recovery);
    let mut log = Log { writers: wal.writers()?, wal, highest: Highest::default() };
    reset_peak_memory()?;
    let start = Instant::now();
    let mut warm_peak_kib = 0;
    for id in 0..CHECKPOINTS {
        if id == WARMING_CHECKPOINTS {
            warm_peak_kib = peak_memory_kib()?;
            reset_peak_memory()?;
            log.highest = Highest::default();
        }
        log.append_and_look(total_bytes / CHECKPOINTS)?;
        checkpoint(&log.wal, &mut log.writers, id)?;
    }
    let elapsed = start.elapsed();
    let peak_kib = peak_memory_kib()?;
    let written: u64 = log.writers.iter_mut().map(|writer| writer.position()).sum();
    let table = log.highest.table(segment_bytes, [warm_peak_kib, peak_kib]);
    drop(log.writers);
    log.wal.close()?;
    Ok(format!(
        "{table}\n- {CHECKPOINTS} checkpoints over {} GiB on {CORES} cores, segments of {} MiB, in \
         {} s. Looked at {LOOKS} times before each checkpoint; the first {WARMING_CHECKPOINTS} \
         count only where it says so.\n",
        number(written as f64 / f64::from(1 << 30)),
        segment_bytes >> 20,
        number(elapsed.as_secs_f64()),
    ))
}

struct Log {
    wal: Wal,
    writers: CoreWriters,
    highest: Highest,
}

impl Log {
    fn append_and_look(&mut self, bytes: u64) -> Result<(), Failure> {
        for _ in 0..LOOKS {
            self.look()?;
            for _ in 0..bytes / LOOKS / u64::from(CORES) / VALUE_BYTES as u64 {
                for writer in self.writers.iter_mut() {
                    writer.append_put(&key(0), &[0xab; VALUE_BYTES])?;
                }
            }
        }
        self.writers.sync()?;
        self.look()
    }

    fn look(&mut self) -> Result<(), Failure> {
        let checkpoint = self.wal.last_checkpoint();
        let released: u64 =
            checkpoint.iter().flat_map(|known| &known.cores).map(|core| core.position).sum();
        let end: u64 = self.writers.iter_mut().map(|writer| writer.position()).sum();
        self.highest.add(&self.wal.disk_usage()?, end - released);
        Ok(())
    }
}

/// The largest values seen, in bytes.
#[derive(Debug, Default)]
struct Highest {
    total: u64,
    beyond_live_files: u64,
    beyond_live_records: u64,
}

impl Highest {
    fn add(&mut self, usage: &DiskUsage, live_record_bytes: u64) {
        let total = usage.total_bytes();
        let live_files: u64 = usage.cores.iter().map(|core| core.live_bytes).sum();
        self.total = self.total.max(total);
        self.beyond_live_files = self.beyond_live_files.max(total - live_files);
        self.beyond_live_records =
            self.beyond_live_records.max(total.saturating_sub(live_record_bytes));
    }

    fn table(&self, segment_bytes: u64, [warm_peak_kib, peak_kib]: [u64; 2]) -> Table {
        let segments = |bytes: u64| bytes as f64 / segment_bytes as f64 / f64::from(CORES);
        let mut table = Table::new(&["highest", "MiB", "segments per core"]);
        let disk = [
            ("disk", self.total),
            ("disk beyond the files that hold live entries", self.beyond_live_files),
            ("disk beyond the records behind the last checkpoint", self.beyond_live_records),
        ];
        for (what, bytes) in disk {
            let mib = bytes as f64 / f64::from(1 << 20);
            table.add(vec![what.to_string(), number(mib), number(segments(bytes))]);
        }
        let memory =
            [("memory, the first checkpoints", warm_peak_kib), ("memory, all others", peak_kib)];
        for (what, kib) in memory {
            table.add(vec![what.to_string(), number(kib as f64 / 1024.0), "–".to_string()]);
        }
        table
    }
}
