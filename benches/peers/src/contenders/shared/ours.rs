//! laminar-wal: one core, whose writer is shared by all clients.

use std::path::Path;

use laminar_wal::{GroupCommit, SharedWriter, Wal, WalOptions};

use super::{Client, Found, SharedLog};
use crate::Failure;
use crate::contenders::{Log, Ours};

pub(crate) struct SharedOurs {
    wal: Wal,
    writer: SharedWriter,
}

impl SharedOurs {
    /// Makes an empty log that commits by this policy.
    pub(crate) fn with_policy(directory: &Path, policy: GroupCommit) -> Result<Self, Failure> {
        Self::open(WalOptions::new(directory).group_commit(policy))
    }

    fn open(options: WalOptions) -> Result<Self, Failure> {
        let (wal, _) = options.cores(1).open()?;
        let writer = wal.shared_writer(0)?;
        Ok(Self { wal, writer })
    }
}

impl SharedLog for SharedOurs {
    const NAME: &'static str = Ours::NAME;

    type Client = SharedWriter;

    fn create(directory: &Path, _clients: u16) -> Result<Self, Failure> {
        Self::open(WalOptions::new(directory))
    }

    fn client(&mut self, _index: u16) -> Result<SharedWriter, Failure> {
        Ok(self.writer.clone())
    }

    fn reopen_and_count(self, directory: &Path) -> Result<Found, Failure> {
        drop(self.writer);
        self.wal.close()?;
        Ok(Found::Everything(Ours::read_back(directory)?))
    }
}

impl Client for SharedWriter {
    fn commit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(self.append_put(key, value)?.wait()?)
    }
}
