//! In which log a sample is taken: a new one, or one that has been in use for long.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::append_puts;
use crate::Failure;
use crate::contenders::{Log, Ours};
use crate::tally::Tally;
use crate::workdir::Workdir;

/// What tables call [`Recycling`].
pub(crate) const RECYCLED: &str = "laminar-wal, recycled segments";

/// Two full segments are kept for recycling: so much fits into them, with some room to spare.
pub(crate) const RECYCLED_BYTES: u64 = 112 * 1024 * 1024;

/// Enough to fill several segments of full size, which come after smaller ones.
const WARMING_PUTS: u64 = 450_000;

/// After a log was emptied its files are made ready in the background; nobody says when.
pub(crate) const PREPARING: Duration = Duration::from_millis(200);

/// Takes a sample in a new log, which is closed, read back and removed afterwards. `expected` is
/// what it must hold then.
pub(crate) fn in_new_log<L: Log>(
    workdir: &Workdir,
    expected: &Tally,
    sample: impl FnOnce(&mut L) -> Result<Vec<f64>, Failure>,
) -> Result<Vec<f64>, Failure> {
    let directory = workdir.fresh()?;
    let mut log = L::create(directory.path())?;
    let sample = sample(&mut log)?;
    log.close()?;
    L::read_back(directory.path())?.check(expected)?;
    Ok(sample)
}

/// A log of ours that is emptied before each sample, so that it goes on in files that it wrote
/// through long ago: what a log does all the time whose space is given back and used again.
pub(crate) struct Recycling<'a> {
    workdir: &'a Workdir,
    directory: TempDir,
    log: Ours,
}

impl<'a> Recycling<'a> {
    pub(crate) fn make(workdir: &'a Workdir) -> Result<Self, Failure> {
        let directory = workdir.fresh()?;
        let log = warmed(directory.path())?;
        Ok(Self { workdir, directory, log })
    }

    /// Takes a sample in the emptied log; everything must be synced at its end.
    pub(crate) fn sample(
        &mut self,
        expected: &Tally,
        sample: impl FnOnce(&mut Ours) -> Result<Vec<f64>, Failure>,
    ) -> Result<Vec<f64>, Failure> {
        self.log.reset()?;
        thread::sleep(PREPARING);
        self.workdir.settle()?;
        let sample = sample(&mut self.log)?;
        Ours::read_back(self.directory.path())?.check(expected)?;
        Ok(sample)
    }

    pub(crate) fn close(self) -> Result<(), Failure> {
        self.log.close()
    }
}

/// A log of ours that has several segments of full size.
pub(crate) fn warmed(directory: &Path) -> Result<Ours, Failure> {
    let mut log = Ours::create(directory)?;
    append_puts(&mut log, 0..WARMING_PUTS, &[0xab; 1024])?;
    log.sync()?;
    Ok(log)
}
