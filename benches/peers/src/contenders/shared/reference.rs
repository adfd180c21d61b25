//! `laminar-storage`, whose writers belong to one thread each: one of them behind a mutex, and one
//! for each client in a file of its own, which is another task.

use std::path::Path;
use std::sync::{Arc, Mutex};

use laminar_storage::per_core_wal::{CoreWalWriter, PerCoreWalConfig, PerCoreWalReader};

use super::{Client, Found, SharedLog};
use crate::Failure;
use crate::tally::Tally;

/// Whoever holds the mutex appends and syncs.
pub(crate) struct ReferenceUnderMutex(Arc<Mutex<CoreWalWriter>>);

impl SharedLog for ReferenceUnderMutex {
    const NAME: &'static str = "laminar-storage, one mutex";

    type Client = Arc<Mutex<CoreWalWriter>>;

    fn create(directory: &Path, _clients: u16) -> Result<Self, Failure> {
        Ok(Self(Arc::new(Mutex::new(writer(directory, 0)?))))
    }

    fn client(&mut self, _index: u16) -> Result<Self::Client, Failure> {
        Ok(Arc::clone(&self.0))
    }

    fn reopen_and_count(self, directory: &Path) -> Result<Found, Failure> {
        drop(self);
        count(directory, 1)
    }
}

impl Client for Arc<Mutex<CoreWalWriter>> {
    fn commit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        let mut writer = self.lock().map_err(|_| "a client panicked")?;
        writer.commit(key, value)
    }
}

/// As many logs as there are clients; none waits for another, but for the disk.
pub(crate) struct ReferencePerThread {
    /// Those that no client has yet, the last first.
    writers: Vec<CoreWalWriter>,
    clients: u16,
}

impl SharedLog for ReferencePerThread {
    const NAME: &'static str = "laminar-storage, a file per thread";

    type Client = CoreWalWriter;

    fn create(directory: &Path, clients: u16) -> Result<Self, Failure> {
        let writers: Result<_, _> =
            (0..clients).rev().map(|core| writer(directory, core)).collect();
        Ok(Self { writers: writers?, clients })
    }

    fn client(&mut self, _index: u16) -> Result<CoreWalWriter, Failure> {
        self.writers.pop().ok_or_else(|| "more clients than files".into())
    }

    fn reopen_and_count(self, directory: &Path) -> Result<Found, Failure> {
        count(directory, self.clients)
    }
}

impl Client for CoreWalWriter {
    fn commit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.append_put(key, value)?;
        Ok(self.sync()?)
    }
}

fn writer(directory: &Path, core: u16) -> Result<CoreWalWriter, Failure> {
    let core = usize::from(core);
    Ok(CoreWalWriter::new(core, &config(directory).segment_path(core))?)
}

fn count(directory: &Path, files: u16) -> Result<Found, Failure> {
    let mut tally = Tally::default();
    for core in 0..usize::from(files) {
        let mut reader = PerCoreWalReader::open(core, &config(directory).segment_path(core))?;
        for entry in &reader.read_all()? {
            if let (Some(key), Some(value)) = (entry.key(), entry.value()) {
                tally.add(key, value);
            }
        }
    }
    Ok(Found::Everything(tally))
}

fn config(directory: &Path) -> PerCoreWalConfig {
    PerCoreWalConfig::new(directory, 1)
}
