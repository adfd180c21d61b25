//! `wal-db`, in one file, with the configuration that it has unless told otherwise.
//!
//! It takes one byte string per record, so key and value are joined in a buffer that is used
//! again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal_db::Wal;

use super::{Client, Found, SharedLog};
use crate::Failure;
use crate::tally::{KEY_BYTES, Tally};

pub(crate) struct WalDb(Arc<Wal>);

impl SharedLog for WalDb {
    const NAME: &'static str = "wal-db";

    type Client = Handle;

    fn create(directory: &Path, _clients: u16) -> Result<Self, Failure> {
        Ok(Self(Arc::new(Wal::open(file(directory))?)))
    }

    fn client(&mut self, _index: u16) -> Result<Handle, Failure> {
        Ok(Handle { log: Arc::clone(&self.0), joined: Vec::new() })
    }

    fn reopen_and_count(self, directory: &Path) -> Result<Found, Failure> {
        drop(self);
        let log = Wal::open(file(directory))?;
        let mut tally = Tally::default();
        for record in log.iter()? {
            let record = record?;
            let parts = record.data().split_at_checked(KEY_BYTES);
            let (key, value) = parts.ok_or("a record without its key")?;
            tally.add(key, value);
        }
        Ok(Found::Everything(tally))
    }
}

pub(crate) struct Handle {
    log: Arc<Wal>,
    joined: Vec<u8>,
}

impl Client for Handle {
    fn commit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.joined.clear();
        self.joined.extend_from_slice(key);
        self.joined.extend_from_slice(value);
        let _position = self.log.append_and_sync(&self.joined)?;
        Ok(())
    }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("log")
}
