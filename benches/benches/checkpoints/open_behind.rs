//! Opening a log behind its checkpoint: how much was there before must not matter.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use laminar_wal::{Recovery, RecoveryMode, Wal, WalOptions};
use laminar_wal_benches::Failure;
use laminar_wal_benches::measure::{Entrant, Rounds, Spread, race};
use laminar_wal_benches::report::{Table, count, number, rounds_line, spread};
use laminar_wal_benches::workdir::{disk_usage, warm};
use tempfile::TempDir;

use crate::Setting;
use crate::logs::{Seen, append_in_turn, checkpoint};

const CORES: u16 = 4;

/// Puts before the checkpoint, in millions; and their names.
const BEFORE: [(u64, &str); 3] = [(1, "1 million"), (4, "4 million"), (16, "16 million")];

/// Puts behind it, in each of the logs.
const BEHIND_THOUSANDS: u64 = 1000;

/// With small segments, little of what lies before the checkpoint shares one with what lies behind.
const SEGMENT_BYTES: [(&str, u64); 2] =
    [("segments of 4 MiB", 4 << 20), ("segments of 64 MiB", 64 << 20)];

pub(crate) fn run(setting: &Setting<'_>) -> Result<String, Failure> {
    let mut table = Table::new(&[
        "log",
        "before the checkpoint",
        "files, MiB",
        "open, ms",
        "time / that of 1 million",
        "replay, ms",
    ]);
    let mut notes = String::new();
    for (segments, segment_bytes) in SEGMENT_BYTES {
        for kept in [Kept::Released, Kept::Pinned] {
            let name = format!("{segments}, {}", kept.name());
            let logs = Logs::fill(setting, segment_bytes, kept)?;
            let rounds = logs.measure(setting)?;
            logs.add_rows(&mut table, &name, &rounds)?;
            notes += &rounds_line(&name, &rounds);
            if kept == Kept::Pinned {
                notes += &logs.first_opens()?;
            }
        }
    }
    Ok(format!("{table}\n{notes}"))
}

/// What became of the segments before the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// They were given back.
    Released,
    /// The process pinned them, and ended. An opening for writing gives them back, so what is
    /// measured opens them for reading alone.
    Pinned,
}

impl Kept {
    const fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Pinned => "pinned to the end, `read`",
        }
    }
}

#[derive(Debug)]
struct Logs {
    logs: Vec<Log>,
    kept: Kept,
    behind: u64,
}

#[derive(Debug)]
struct Log {
    before: &'static str,
    directory: TempDir,
    segment_bytes: u64,
}

impl Logs {
    fn fill(setting: &Setting<'_>, segment_bytes: u64, kept: Kept) -> Result<Self, Failure> {
        let part = if setting.is_quick { 100 } else { 1 };
        let behind = BEHIND_THOUSANDS * 1000 / part;
        let mut logs = Vec::new();
        for (millions, before) in BEFORE {
            let directory = setting.workdir.fresh()?;
            let log = Log { before, directory, segment_bytes };
            log.fill(millions * 1_000_000 / part, behind, kept)?;
            logs.push(log);
        }
        setting.workdir.settle()?;
        Ok(Self { logs, kept, behind })
    }

    /// Milliseconds of opening and of replaying, log by log.
    fn measure(&self, setting: &Setting<'_>) -> Result<Rounds, Failure> {
        for log in &self.logs {
            warm(log.path())?;
        }
        let mut entrants: Vec<_> = self
            .logs
            .iter()
            .map(|log| Entrant::new(log.before, || log.sample(self.kept, self.behind)))
            .collect();
        race(&setting.pace, None, &mut entrants)
    }

    fn add_rows(&self, table: &mut Table, name: &str, rounds: &Rounds) -> Result<(), Failure> {
        let cell = |spread_of: Option<Spread>| spread_of.map_or_else(String::new, |s| spread(&s));
        for (entrant, log) in self.logs.iter().enumerate() {
            table.add(vec![
                name.to_string(),
                log.before.to_string(),
                number(disk_usage(log.path())? as f64 / f64::from(1 << 20)),
                cell(Spread::of(&rounds.figure(entrant, 0))),
                cell(rounds.ratio(0, entrant, 0)),
                cell(Spread::of(&rounds.figure(entrant, 1))),
            ]);
        }
        Ok(())
    }

    /// The first opening for writing gives back what was pinned: measured once.
    fn first_opens(&self) -> Result<String, Failure> {
        let mut line =
            format!("  - The first opening for writing, {} puts behind:", count(self.behind));
        for (index, log) in self.logs.iter().enumerate() {
            let [open_ms, _] = log.open(Kept::Released, self.behind)?;
            let comma = if index == 0 { "" } else { "," };
            line += &format!("{comma} {} ms ({} before)", number(open_ms), log.before);
        }
        Ok(line + ".\n")
    }
}

impl Log {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn options(&self) -> WalOptions {
        WalOptions::new(self.log()).cores(CORES).segment_bytes(self.segment_bytes)
    }

    fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    fn fill(&self, before: u64, behind: u64, kept: Kept) -> Result<(), Failure> {
        let (wal, recovery) = self.options().open()?;
        drop(recovery);
        let pin = (kept == Kept::Pinned).then(|| wal.pin("a backup"));
        let mut writers = wal.writers()?;
        append_in_turn(&mut writers, before)?;
        checkpoint(&wal, &mut writers, 1)?;
        append_in_turn(&mut writers, behind)?;
        if kept == Kept::Released {
            until_given_back(&wal)?;
        }
        drop(writers);
        wal.close()?;
        drop(pin);
        Ok(())
    }

    fn sample(&self, kept: Kept, behind: u64) -> Result<Vec<f64>, Failure> {
        Ok(self.open(kept, behind)?.to_vec())
    }

    /// Milliseconds of opening, and of replaying what lies behind the checkpoint.
    fn open(&self, kept: Kept, behind: u64) -> Result<[f64; 2], Failure> {
        let start = Instant::now();
        let (wal, recovery) = match kept {
            Kept::Released => self.options().open().map(|(wal, recovery)| (Some(wal), recovery))?,
            Kept::Pinned => (None, laminar_wal::read(self.log(), RecoveryMode::TornTail)?),
        };
        let open = start.elapsed();
        let replay = replay(&recovery, behind)?;
        wal.map_or(Ok(()), |wal| wal.close())?;
        Ok([open.as_secs_f64() * 1e3, replay])
    }
}

/// Waits until the background has removed what it does not keep: one file per core that is prepared,
/// two to be recycled.
fn until_given_back(wal: &Wal) -> Result<(), Failure> {
    const STEP: Duration = Duration::from_millis(50);
    const STEPS_MAX: u32 = 2000;
    for _ in 0..STEPS_MAX {
        if wal.disk_usage()?.cores.iter().all(|core| core.other_files <= 3) {
            return Ok(());
        }
        thread::sleep(STEP);
    }
    Err("the background does not give back what was released".into())
}

fn replay(recovery: &Recovery, behind: u64) -> Result<f64, Failure> {
    let start = Instant::now();
    let seen = Seen::per_core(recovery)?;
    let elapsed = start.elapsed();
    seen.check(behind)?;
    Ok(elapsed.as_secs_f64() * 1e3)
}
