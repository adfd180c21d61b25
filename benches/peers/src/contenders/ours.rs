//! laminar-wal, with the options that it has unless told otherwise.

use std::path::Path;
use std::time::Instant;

use laminar_wal::{
    CheckpointDetails, CoreWalWriter, EntryView, Recovery, RecoveryMode, Stalls, SyncedWatch, Wal,
    WalOptions,
};

use super::{Log, Recovered};
use crate::Failure;
use crate::tally::{Tally, key};

pub(crate) struct Ours {
    wal: Wal,
    writer: CoreWalWriter,
}

impl Ours {
    /// What tables call a log that is visited core by core.
    pub(crate) const PER_CORE: &str = "laminar-wal, `for_each_per_core`";

    /// Makes an empty log whose full segments have this size.
    pub(crate) fn with_segment_bytes(directory: &Path, bytes: u64) -> Result<Self, Failure> {
        Self::open(WalOptions::new(directory).segment_bytes(bytes))
    }

    fn open(options: WalOptions) -> Result<Self, Failure> {
        let (wal, _) = options.cores(1).open()?;
        let writer = wal.writer(0)?;
        Ok(Self { wal, writer })
    }

    /// Opens a log for writing and visits the entries of each core in order, cores side by side.
    pub(crate) fn recover_per_core(directory: &Path, cores: u16) -> Result<Recovered, Failure> {
        let start = Instant::now();
        let (_wal, recovery) = WalOptions::new(directory).cores(cores).open()?;
        let open = start.elapsed();
        let of_cores =
            recovery.for_each_per_core(|_| Tally::default(), |tally, e| add(tally, &e))?;
        let mut tally = Tally::default();
        of_cores.values().for_each(|of_core| tally.absorb(of_core));
        Ok(Recovered { open, visit: start.elapsed() - open, tally })
    }

    /// Empties the log; its full segments are kept to be used again.
    pub(crate) fn reset(&mut self) -> Result<(), Failure> {
        Ok(self.writer.reset()?)
    }

    /// Makes a checkpoint here and now, with no snapshot that anybody could read: what lies behind
    /// it is given back.
    pub(crate) fn checkpoint(&mut self) -> Result<(), Failure> {
        // Checkpoints are told by their epochs.
        let pending = self.wal.begin_checkpoint(0)?;
        pending.arrival().arrive(&mut self.writer)?;
        Ok(pending.complete(CheckpointDetails::default())?)
    }

    /// Gives the writer back: everything is durable, and the log is open still.
    pub(crate) fn into_wal(self) -> Result<Wal, Failure> {
        self.writer.close()?;
        Ok(self.wal)
    }

    /// Hands what was appended over to be made durable in the background.
    pub(crate) fn submit(&mut self) -> Result<(), Failure> {
        // Whoever looks at the watch needs no ticket.
        drop(self.writer.submit()?);
        Ok(())
    }

    /// What tells, without asking the writer, how far the log is durable.
    pub(crate) fn watch(&self) -> SyncedWatch {
        self.writer.watch()
    }

    /// Where the next record goes.
    pub(crate) fn position(&self) -> u64 {
        self.writer.position()
    }

    /// How often an append had to wait.
    pub(crate) fn stalls(&self) -> Stalls {
        self.writer.stalls()
    }
}

impl Log for Ours {
    const NAME: &'static str = "laminar-wal";

    fn create(directory: &Path) -> Result<Self, Failure> {
        Self::open(WalOptions::new(directory))
    }

    #[inline]
    fn append_put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.writer.append_put(key, value)?;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        Ok(self.writer.sync()?)
    }

    fn close(self) -> Result<(), Failure> {
        self.writer.close()?;
        Ok(self.wal.close()?)
    }

    fn read_back(directory: &Path) -> Result<Tally, Failure> {
        visit(&laminar_wal::read(directory, RecoveryMode::TornTail)?)
    }

    fn fill(directory: &Path, cores: u16, records: u64, value: &[u8]) -> Result<(), Failure> {
        let (wal, _) = WalOptions::new(directory).cores(cores).open()?;
        let writers: Result<Vec<_>, _> = (0..cores).map(|core| wal.writer(core)).collect();
        let mut writers = writers?;
        let mut number = 0;
        'filling: loop {
            for writer in &mut writers {
                if number == records {
                    break 'filling;
                }
                writer.append_put(&key(number), value)?;
                number += 1;
            }
        }
        for writer in writers {
            writer.close()?;
        }
        Ok(wal.close()?)
    }

    fn recover(directory: &Path, cores: u16) -> Result<Recovered, Failure> {
        let start = Instant::now();
        let (_wal, recovery) = WalOptions::new(directory).cores(cores).open()?;
        let open = start.elapsed();
        let tally = visit(&recovery)?;
        Ok(Recovered { open, visit: start.elapsed() - open, tally })
    }
}

fn visit(recovery: &Recovery) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    recovery.for_each(|entry| add(&mut tally, &entry))?;
    Ok(tally)
}

fn add(tally: &mut Tally, entry: &EntryView<'_>) {
    if let (Some(key), Some(value)) = (entry.key(), entry.value()) {
        tally.add(key, value);
    }
}
