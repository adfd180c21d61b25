//! `laminar-storage`'s `per_core_wal`, the log that this one began from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use laminar_storage::incremental::RecoveryConfig;
use laminar_storage::per_core_wal::{
    CoreWalWriter, PerCoreRecoveryManager, PerCoreWalConfig, PerCoreWalEntry, PerCoreWalManager,
    PerCoreWalReader,
};

use super::{Log, Recovered};
use crate::Failure;
use crate::tally::{Tally, key};

pub(crate) struct Reference(CoreWalWriter);

impl Reference {
    /// What tables call its recovery manager.
    pub(crate) const MANAGER: &str = "laminar-storage, recovery manager";

    /// Reads and sorts all entries without opening the log for writing: all of it counts as visit.
    pub(crate) fn recover_by_manager(directory: &Path, cores: u16) -> Result<Recovered, Failure> {
        let start = Instant::now();
        let no_checkpoint = RecoveryConfig::new(directory, &segment(directory));
        let manager = PerCoreRecoveryManager::new(config(directory, cores), no_checkpoint);
        let tally = tally_of(&manager.recover_wal_only()?);
        Ok(Recovered { open: Duration::ZERO, visit: start.elapsed(), tally })
    }
}

impl Log for Reference {
    const NAME: &'static str = "laminar-storage";

    fn create(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory)?;
        Ok(Self(CoreWalWriter::new(0, &segment(directory))?))
    }

    #[inline]
    fn append_put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.append_put(key, value)?;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        Ok(self.0.sync()?)
    }

    fn close(mut self) -> Result<(), Failure> {
        self.sync()
    }

    fn read_back(directory: &Path) -> Result<Tally, Failure> {
        let mut reader = PerCoreWalReader::open(0, &segment(directory))?;
        Ok(tally_of(&reader.read_all()?))
    }

    fn fill(directory: &Path, cores: u16, records: u64, value: &[u8]) -> Result<(), Failure> {
        let mut manager = PerCoreWalManager::new(config(directory, cores))?;
        for number in 0..records {
            let core = usize::try_from(number % u64::from(cores))?;
            manager.writer(core).append_put(&key(number), value)?;
        }
        Ok(manager.sync_all()?)
    }

    fn recover(directory: &Path, cores: u16) -> Result<Recovered, Failure> {
        let start = Instant::now();
        let manager = PerCoreWalManager::open(config(directory, cores))?;
        let open = start.elapsed();
        let tally = tally_of(&manager.merge_segments()?);
        Ok(Recovered { open, visit: start.elapsed() - open, tally })
    }
}

fn tally_of(entries: &[PerCoreWalEntry]) -> Tally {
    let mut tally = Tally::default();
    for entry in entries {
        if let (Some(key), Some(value)) = (entry.key(), entry.value()) {
            tally.add(key, value);
        }
    }
    tally
}

fn config(directory: &Path, cores: u16) -> PerCoreWalConfig {
    PerCoreWalConfig::new(directory, usize::from(cores))
}

fn segment(directory: &Path) -> PathBuf {
    config(directory, 1).segment_path(0)
}
