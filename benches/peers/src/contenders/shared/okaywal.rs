//! `okaywal`: with the configuration that it has unless told otherwise, and with one file that was
//! written through beforehand and is never checkpointed.
//!
//! An entry is one chunk with key and value joined in a buffer that is used again.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};

use super::{Client, Found, SharedLog};
use crate::Failure;
use crate::tally::{KEY_BYTES, Tally};

pub(crate) type OkayWal = Configured<false>;
pub(crate) type OkayWalPreallocated = Configured<true>;

pub(crate) struct Configured<const PREALLOCATED: bool> {
    log: WriteAheadLog,
    counting: Counting,
}

/// More than is committed in a second, so that the file never grows.
const PREALLOCATED_BYTES: u32 = 64 << 20;

impl<const PREALLOCATED: bool> Configured<PREALLOCATED> {
    fn open(directory: &Path) -> Result<Self, Failure> {
        let mut configuration = Configuration::default_for(directory);
        if PREALLOCATED {
            configuration = configuration
                .preallocate_bytes(PREALLOCATED_BYTES)
                .checkpoint_after_bytes(u64::MAX);
        }
        let counting = Counting::default();
        Ok(Self { log: configuration.open(counting.clone())?, counting })
    }
}

impl<const PREALLOCATED: bool> SharedLog for Configured<PREALLOCATED> {
    const NAME: &'static str = if PREALLOCATED { "okaywal, preallocated" } else { "okaywal" };

    type Client = Handle;

    fn create(directory: &Path, _clients: u16) -> Result<Self, Failure> {
        Self::open(directory)
    }

    fn client(&mut self, _index: u16) -> Result<Handle, Failure> {
        Ok(Handle { log: self.log.clone(), joined: Vec::new() })
    }

    fn reopen_and_count(self, directory: &Path) -> Result<Found, Failure> {
        self.log.shutdown()?;
        let checkpointed = self.counting.lock().checkpointed;
        let reopened = Self::open(directory)?;
        let recovered = reopened.counting.lock().recovered;
        reopened.log.shutdown()?;
        Ok(match checkpointed {
            0 => Found::Everything(recovered),
            // Entries are numbered from 1 without gaps, as long as none is rolled back.
            last => Found::Entries(last + recovered.entries()),
        })
    }
}

pub(crate) struct Handle {
    log: WriteAheadLog,
    joined: Vec<u8>,
}

impl Client for Handle {
    fn commit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.joined.clear();
        self.joined.extend_from_slice(key);
        self.joined.extend_from_slice(value);
        let mut entry = self.log.begin_entry()?;
        entry.write_chunk(&self.joined)?;
        entry.commit()?;
        Ok(())
    }
}

/// Checkpoints cost nothing here: the entries are given up, and the last one's number is kept.
#[derive(Debug, Default, Clone)]
struct Counting(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    checkpointed: u64,
    recovered: Tally,
}

impl Counting {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogManager for Counting {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        for joined in entry.read_all_chunks()?.into_iter().flatten() {
            let Some((key, value)) = joined.split_at_checked(KEY_BYTES) else {
                return Err(io::Error::other("an entry without its key"));
            };
            self.lock().recovered.add(key, value);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        self.lock().checkpointed = last.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_given_up_at_a_checkpoint_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = OkayWal::create(directory.path(), 1).unwrap();
        let mut client = log.client(0).unwrap();
        for _ in 0..3 {
            client.commit(&[0; KEY_BYTES], &[7; 100]).unwrap();
        }
        log.log.checkpoint_active().unwrap();
        client.commit(&[0; KEY_BYTES], &[7; 100]).unwrap();
        drop(client);
        assert!(matches!(log.reopen_and_count(directory.path()).unwrap(), Found::Entries(4)));
    }
}
