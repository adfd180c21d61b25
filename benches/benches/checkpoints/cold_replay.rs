//! Replay when nothing of the log is in the page cache, beside `cat` of the same files.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use laminar_wal::{Recovery, RecoveryMode, WalOptions};
use laminar_wal_benches::Failure;
use laminar_wal_benches::machine::read_bytes;
use laminar_wal_benches::measure::{Entrant, Rounds, Spread, race};
use laminar_wal_benches::report::{Table, count, rounds_line, spread};
use laminar_wal_benches::workdir::{cool, files_below, warm};

use crate::Setting;
use crate::logs::{Seen, append_in_turn};

const CORES: u16 = 4;

const CAT: &str = "`cat`";

type Visit = fn(&Recovery) -> Result<Seen, Failure>;

const VISITS: [(&str, &str, Visit); 2] = [
    ("`for_each`, the log is open", "open and `for_each`", Seen::merged),
    ("`for_each_per_core`, the log is open", "open and `for_each_per_core`", Seen::per_core),
];

pub(crate) fn run(setting: &Setting<'_>) -> Result<String, Failure> {
    let puts = if setting.is_quick { 100_000 } else { 4_000_000 };
    let directory = setting.workdir.fresh()?;
    let log = &Log { directory: directory.path().to_path_buf(), puts };
    log.fill()?;
    setting.workdir.settle()?;
    let files_mib = mib(log
        .files()?
        .iter()
        .try_fold(0, |sum, file| fs::metadata(file).map(|metadata| sum + metadata.len()))?);

    let mut entrants = vec![Entrant::new(CAT, || log.sample(|| log.cat()))];
    for (replay, whole, visit) in VISITS {
        entrants.push(Entrant::new(replay, move || log.replay(visit)));
        entrants.push(Entrant::new(whole, move || log.open_and_replay(visit)));
    }
    let rounds = race(&setting.pace, None, &mut entrants)?;
    let label = format!("{} puts on {CORES} cores, files of {files_mib:.0} MiB", count(puts));
    Ok(format!("{}\n{}", table(&rounds), rounds_line(&label, &rounds)))
}

/// The places of the figures of one sample.
const SECONDS: usize = 0;
const FROM_DEVICE_MIB: usize = 1;

fn table(rounds: &Rounds) -> Table {
    let mut table =
        Table::new(&["cold", "ms, median (min–max)", "read from the device, MiB", "time / `cat`"]);
    for (entrant, name) in rounds.names.iter().enumerate() {
        let milliseconds: Vec<f64> =
            rounds.figure(entrant, SECONDS).iter().map(|seconds| seconds * 1e3).collect();
        let cell = |spread_of: Option<Spread>| spread_of.map_or_else(String::new, |s| spread(&s));
        table.add(vec![
            (*name).to_string(),
            cell(Spread::of(&milliseconds)),
            cell(Spread::of(&rounds.figure(entrant, FROM_DEVICE_MIB))),
            cell(rounds.ratio(SECONDS, entrant, 0)),
        ]);
    }
    table
}

#[derive(Debug)]
struct Log {
    directory: PathBuf,
    puts: u64,
}

impl Log {
    fn fill(&self) -> Result<(), Failure> {
        let (wal, _) = WalOptions::new(&self.directory).cores(CORES).open()?;
        let mut writers = wal.writers()?;
        append_in_turn(&mut writers, self.puts)?;
        drop(writers);
        Ok(wal.close()?)
    }

    fn files(&self) -> Result<Vec<PathBuf>, Failure> {
        let is_segment = |file: &PathBuf| file.extension().is_some_and(|ending| ending == "wal");
        Ok(files_below(&self.directory)?.into_iter().filter(is_segment).collect())
    }

    /// Seconds of `work` with nothing of the log in the page cache, and what this process, or the
    /// one that it waited for, read from the device, in MiB.
    fn sample(
        &self,
        work: impl FnOnce() -> Result<Duration, Failure>,
    ) -> Result<Vec<f64>, Failure> {
        cool(&self.directory)?;
        let before = read_bytes()?;
        let elapsed = work()?;
        let from_device = read_bytes()? - before;
        Ok(vec![elapsed.as_secs_f64(), mib(from_device)])
    }

    fn cat(&self) -> Result<Duration, Failure> {
        let files = self.files()?;
        let start = Instant::now();
        let status = Command::new("cat").args(files).stdout(File::create("/dev/null")?).status()?;
        let elapsed = start.elapsed();
        if !status.success() {
            return Err(format!("cat: {status}").into());
        }
        Ok(elapsed)
    }

    /// The log was opened before its files left the page cache.
    fn replay(&self, visit: Visit) -> Result<Vec<f64>, Failure> {
        warm(&self.directory)?;
        let recovery = laminar_wal::read(&self.directory, RecoveryMode::Strict)?;
        self.sample(|| {
            let start = Instant::now();
            let seen = visit(&recovery)?;
            let elapsed = start.elapsed();
            seen.check(self.puts)?;
            Ok(elapsed)
        })
    }

    fn open_and_replay(&self, visit: Visit) -> Result<Vec<f64>, Failure> {
        self.sample(|| {
            let start = Instant::now();
            let (wal, recovery) = WalOptions::new(&self.directory).cores(CORES).open()?;
            let seen = visit(&recovery)?;
            let elapsed = start.elapsed();
            wal.close()?;
            seen.check(self.puts)?;
            Ok(elapsed)
        })
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
