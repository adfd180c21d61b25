//! What the benches of laminar-wal share: logs in directories of their own, filled with known
//! entries, and the check that they all come back.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use laminar_wal::{CoreWalWriter, Recovery, RecoveryMode, Wal, WalEntry, WalOptions};
use tempfile::TempDir;

pub mod fdatasync;
pub mod machine;
pub mod measure;
pub mod program;
pub mod report;
mod simulated_disk;
mod steady_log;
pub mod workdir;

pub use simulated_disk::{SimulatedDisk, SimulatedWork};
pub use steady_log::{ChangeOptions, SteadyLog, WARM_UP_BYTES};

/// What a bench cannot go on after.
pub type Failure = Box<dyn Error>;

/// A log on the file system of the target directory, which is a real disk where the one for
/// temporary files may be memory.
#[derive(Debug)]
pub struct BenchLog {
    directory: TempDir,
}

/// How the entries of several cores follow each other in time, and so in the merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Each core's entries are older than those of the next core.
    Long,
    /// The cores take turns: no two neighbours in the merge are of one core.
    Short,
}

/// Where a segment says that it was started; see `docs/format.md`.
const START_BLOCK_OFFSET: u64 = 4096;

impl BenchLog {
    /// An empty directory.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    pub fn new() -> Result<Self, Failure> {
        let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/benches");
        std::fs::create_dir_all(&target)?;
        Ok(Self { directory: tempfile::tempdir_in(target)? })
    }

    /// Where the log lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Opens it for so many cores.
    ///
    /// # Errors
    ///
    /// Whatever opening says.
    pub fn open(&self, cores: u16) -> Result<Wal, Failure> {
        Ok(WalOptions::new(self.path()).cores(cores).open()?.0)
    }

    /// Fills it with `entries_per_core` puts of `value_bytes` on each core, and closes it. The
    /// timestamps are given, not the clock's, so that the merge has the same to do in every run.
    ///
    /// # Errors
    ///
    /// Whatever the log says.
    pub fn fill(
        &self,
        cores: u16,
        entries_per_core: u64,
        value_bytes: usize,
        runs: Runs,
    ) -> Result<(), Failure> {
        let wal = self.open(cores)?;
        for core in 0..cores {
            let mut writer = wal.writer(core)?;
            for entry in 0..entries_per_core {
                let timestamp_ns = match runs {
                    Runs::Long => u64::from(core) * entries_per_core + entry,
                    Runs::Short => entry * u64::from(cores) + u64::from(core),
                };
                writer.append(&WalEntry::put(
                    core,
                    writer.epoch(),
                    writer.sequence(),
                    key(entry).to_vec(),
                    vec![0xab; value_bytes],
                    i64::try_from(timestamp_ns)?,
                ))?;
            }
            writer.close()?;
        }
        Ok(wal.close()?)
    }

    /// Waits until core 0's next segment is ready: while the background writes it full of zeroes,
    /// everything else on the disk is slow. Everything appended must have been synced.
    ///
    /// # Errors
    ///
    /// If it takes too long, and whatever the file system says.
    pub fn wait_for_prepared_segment(&self) -> Result<(), Failure> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let mut newest = PathBuf::new();
            for listed in std::fs::read_dir(self.path().join("core-0000"))? {
                let path = listed?.path();
                if path.extension().is_some_and(|extension| extension == "wal") {
                    newest = newest.max(path);
                }
            }
            let mut file = File::open(newest)?;
            file.seek(SeekFrom::Start(START_BLOCK_OFFSET))?;
            let mut start_block = [0; 4096];
            file.read_exact(&mut start_block)?;
            // A segment is ready when it has its name, and it has a start when it is in use.
            if start_block == [0; 4096] {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("the background does not get the next segment ready".into())
    }

    /// Reads it back: it must hold `entries` puts of `value_bytes`, and nothing else.
    ///
    /// # Errors
    ///
    /// If it does not, and whatever recovery says.
    pub fn check(&self, entries: u64, value_bytes: usize) -> Result<(), Failure> {
        visit(&laminar_wal::read(self.path(), RecoveryMode::Strict)?, entries, value_bytes)
    }
}

/// Appends puts with keys of 16 bytes, each another one.
///
/// # Errors
///
/// Whatever the log says.
pub fn append_puts(writer: &mut CoreWalWriter, count: u64, value: &[u8]) -> Result<(), Failure> {
    for entry in 0..count {
        writer.append_put(&key(entry), value)?;
    }
    Ok(())
}

/// Visits everything in replay order: it must be `entries` puts of `value_bytes`.
///
/// # Errors
///
/// If it is not, and whatever the replay says.
pub fn visit(recovery: &Recovery, entries: u64, value_bytes: usize) -> Result<(), Failure> {
    let mut found_entries = 0;
    let mut found_bytes = 0;
    recovery.for_each(|entry| {
        found_entries += 1;
        found_bytes += entry.value().map_or(0, <[u8]>::len) as u64;
    })?;
    let expected_bytes = entries * value_bytes as u64;
    if (found_entries, found_bytes) == (entries, expected_bytes) {
        return Ok(());
    }
    Err(format!(
        "{found_entries} entries with {found_bytes} bytes of values came back; \
         {entries} with {expected_bytes} were appended"
    )
    .into())
}

/// Ends the bench with the failure's message: criterion's closures return no errors.
///
/// # Panics
///
/// On a failure.
#[expect(clippy::panic, reason = "there is nobody to return it to")]
pub fn or_stop<T>(result: Result<T, Failure>) -> T {
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

/// The key of 16 bytes with this number.
#[must_use]
pub fn key(entry: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let (number, _) = key.split_at_mut(8);
    number.copy_from_slice(&entry.to_le_bytes());
    key
}
