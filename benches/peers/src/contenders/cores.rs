//! Logs of several cores that one thread appends to, and that become durable all at once.

use std::path::Path;
use std::time::{Duration, Instant};

use laminar_storage::incremental::CheckpointConfig;
use laminar_storage::per_core_wal::{
    PerCoreCheckpointCoordinator, PerCoreWalConfig, PerCoreWalManager,
};
use laminar_wal::{
    CheckpointDetails, CoreWalWriter, CoreWriters, SharedWriter, SyncTicket, Wal, WalOptions,
};

use super::{Log, Ours, Reference};
use crate::Failure;
use crate::tally::{Tally, key};

pub(crate) trait CoresLog: Sized {
    /// What tables call it.
    const NAME: &'static str;

    /// Makes an empty log in `directory`, which exists.
    fn create(directory: &Path, cores: u16) -> Result<Self, Failure>;

    fn append_put(&mut self, core: u16, key: &[u8], value: &[u8]) -> Result<(), Failure>;

    /// Makes everything appended on every core durable.
    fn sync_all(&mut self) -> Result<(), Failure>;

    /// Closes the log as its documentation asks.
    fn close(self) -> Result<(), Failure>;

    /// Opens the log, and counts what all cores have.
    fn read_back(directory: &Path, cores: u16) -> Result<Tally, Failure>;
}

/// A log that can be emptied, so that it goes on in files that it wrote through long ago.
pub(crate) trait RecycledCoresLog: CoresLog {
    /// What tables call it then.
    const RECYCLED: &'static str;

    /// Makes a log that has two segments of full size on each core.
    fn warmed(directory: &Path, cores: u16) -> Result<Self, Failure>;

    /// Empties the log; its full segments are kept to be used again.
    fn reset(&mut self) -> Result<(), Failure>;
}

/// A log that can be checkpointed: the log's part of it, without the state of whoever writes it.
pub(crate) trait CheckpointedCoresLog: CoresLog {
    /// Makes a checkpoint of everything so far, and says for how long nothing could be appended.
    fn checkpoint(&mut self) -> Result<Duration, Failure>;
}

/// laminar-wal, with the writers of all cores in one hand.
pub(crate) struct OursInOneHand {
    wal: Wal,
    writers: CoreWriters,
}

/// A full segment where many cores are warmed: what a sample writes fits into two.
const RECYCLED_SEGMENT_BYTES: u64 = 16 << 20;

/// Segments become large one after the other; so much, in puts of 1 KiB, fills two of full size.
const WARMING_PUTS: u64 = 64 << 10;
const WARMING_PUTS_PER_SYNC: u64 = 60;

impl OursInOneHand {
    fn open(options: WalOptions, cores: u16) -> Result<Self, Failure> {
        let (wal, _) = options.cores(cores).open()?;
        let writers = wal.writers()?;
        Ok(Self { wal, writers })
    }
}

impl CoresLog for OursInOneHand {
    const NAME: &'static str = "laminar-wal, `CoreWriters::sync`";

    fn create(directory: &Path, cores: u16) -> Result<Self, Failure> {
        Self::open(WalOptions::new(directory), cores)
    }

    fn append_put(&mut self, core: u16, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.writers.writer(core)?.append_put(key, value)?;
        Ok(())
    }

    fn sync_all(&mut self) -> Result<(), Failure> {
        Ok(self.writers.sync()?)
    }

    fn close(self) -> Result<(), Failure> {
        for writer in self.writers.into_writers() {
            writer.close()?;
        }
        Ok(self.wal.close()?)
    }

    fn read_back(directory: &Path, _cores: u16) -> Result<Tally, Failure> {
        Ours::read_back(directory)
    }
}

impl CheckpointedCoresLog for OursInOneHand {
    fn checkpoint(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        let pending = self.wal.begin_checkpoint(1)?;
        pending.arrival().arrive_all(&mut self.writers)?;
        let stood_still = start.elapsed();
        pending.complete(CheckpointDetails::default())?;
        Ok(stood_still)
    }
}

impl RecycledCoresLog for OursInOneHand {
    const RECYCLED: &'static str = "laminar-wal, recycled segments, `CoreWriters::sync`";

    fn warmed(directory: &Path, cores: u16) -> Result<Self, Failure> {
        let options = WalOptions::new(directory).segment_bytes(RECYCLED_SEGMENT_BYTES);
        let mut log = Self::open(options, cores)?;
        for writer in log.writers.iter_mut() {
            for number in 0..WARMING_PUTS {
                writer.append_put(&key(number), &[0xab; 1024])?;
                if number % WARMING_PUTS_PER_SYNC == 0 {
                    writer.sync()?;
                }
            }
        }
        log.writers.sync()?;
        Ok(log)
    }

    fn reset(&mut self) -> Result<(), Failure> {
        Ok(self.writers.reset()?)
    }
}

/// laminar-wal, with writers that others could share, synced by the log.
pub(crate) struct OursShared {
    wal: Wal,
    writers: Vec<SharedWriter>,
    /// Those since the last sync: one that is dropped before asks the background for another.
    tickets: Vec<SyncTicket>,
}

impl OursShared {
    fn of(log: OursInOneHand) -> Self {
        let OursInOneHand { wal, writers } = log;
        Self { wal, writers: shared(writers), tickets: Vec::new() }
    }
}

fn shared(writers: CoreWriters) -> Vec<SharedWriter> {
    writers.into_writers().into_iter().map(CoreWalWriter::into_shared).collect()
}

impl CoresLog for OursShared {
    const NAME: &'static str = "laminar-wal, `Wal::sync_all`";

    fn create(directory: &Path, cores: u16) -> Result<Self, Failure> {
        OursInOneHand::create(directory, cores).map(Self::of)
    }

    fn append_put(&mut self, core: u16, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.tickets.push(self.writers[usize::from(core)].append_put(key, value)?);
        Ok(())
    }

    fn sync_all(&mut self) -> Result<(), Failure> {
        self.wal.sync_all()?;
        self.tickets.clear();
        Ok(())
    }

    fn close(self) -> Result<(), Failure> {
        drop(self.writers);
        Ok(self.wal.close()?)
    }

    fn read_back(directory: &Path, _cores: u16) -> Result<Tally, Failure> {
        Ours::read_back(directory)
    }
}

impl RecycledCoresLog for OursShared {
    const RECYCLED: &'static str = "laminar-wal, recycled segments, `Wal::sync_all`";

    fn warmed(directory: &Path, cores: u16) -> Result<Self, Failure> {
        OursInOneHand::warmed(directory, cores).map(Self::of)
    }

    fn reset(&mut self) -> Result<(), Failure> {
        self.writers.clear();
        let mut writers = self.wal.writers()?;
        writers.reset()?;
        self.writers = shared(writers);
        Ok(())
    }
}

/// `laminar-storage`, whose manager syncs one file after the other.
pub(crate) struct CoresOfReference(PerCoreWalManager);

impl CoresLog for CoresOfReference {
    const NAME: &'static str = Reference::NAME;

    fn create(directory: &Path, cores: u16) -> Result<Self, Failure> {
        Ok(Self(PerCoreWalManager::new(config(directory, cores))?))
    }

    fn append_put(&mut self, core: u16, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.writer(usize::from(core)).append_put(key, value)?;
        Ok(())
    }

    fn sync_all(&mut self) -> Result<(), Failure> {
        Ok(self.0.sync_all()?)
    }

    fn close(mut self) -> Result<(), Failure> {
        self.sync_all()
    }

    fn read_back(directory: &Path, cores: u16) -> Result<Tally, Failure> {
        Ok(Reference::recover(directory, cores)?.tally)
    }
}

/// `laminar-storage`, whose coordinator owns the manager while it makes a checkpoint.
pub(crate) struct Coordinated(PerCoreCheckpointCoordinator);

impl CoresLog for Coordinated {
    const NAME: &'static str = "laminar-storage, checkpoint coordinator";

    fn create(directory: &Path, cores: u16) -> Result<Self, Failure> {
        let manager = PerCoreWalManager::new(config(directory, cores))?;
        let checkpoints = CheckpointConfig::new(&directory.join("checkpoints"));
        Ok(Self(PerCoreCheckpointCoordinator::new(manager, checkpoints)?))
    }

    fn append_put(&mut self, core: u16, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.0.wal_manager_mut().writer(usize::from(core)).append_put(key, value)?;
        Ok(())
    }

    fn sync_all(&mut self) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }

    fn close(mut self) -> Result<(), Failure> {
        self.sync_all()
    }

    fn read_back(directory: &Path, cores: u16) -> Result<Tally, Failure> {
        CoresOfReference::read_back(directory, cores)
    }
}

impl CheckpointedCoresLog for Coordinated {
    fn checkpoint(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        self.0.create_checkpoint(1)?;
        Ok(start.elapsed())
    }
}

fn config(directory: &Path, cores: u16) -> PerCoreWalConfig {
    PerCoreWalConfig::new(directory, usize::from(cores))
}
