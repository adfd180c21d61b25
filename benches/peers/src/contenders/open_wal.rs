//! `open-wal`, with the configuration that it has unless told otherwise.
//!
//! It takes one byte string per record, so key and value are joined in a buffer that is used
//! again; and it has one writer per directory, so a log of many cores is one log here.

use std::fs;
use std::path::Path;
use std::time::Instant;

use open_wal::{Lsn, Wal, WalConfig};

use super::{Log, Recovered};
use crate::Failure;
use crate::tally::{KEY_BYTES, Tally, key};

pub(crate) struct OpenWal {
    wal: Wal,
    joined: Vec<u8>,
}

/// How many records are committed at once where a log is only filled.
const FILL_BATCH: u64 = 10_000;

impl Log for OpenWal {
    const NAME: &'static str = "open-wal";

    fn create(directory: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(directory)?;
        let (wal, _) = Wal::open(directory, WalConfig::default())?;
        Ok(Self { wal, joined: Vec::new() })
    }

    #[inline]
    fn append_put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.joined.clear();
        self.joined.extend_from_slice(key);
        self.joined.extend_from_slice(value);
        self.wal.append(&self.joined)?;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.wal.commit()?;
        Ok(())
    }

    fn close(mut self) -> Result<(), Failure> {
        self.sync()
    }

    fn read_back(directory: &Path) -> Result<Tally, Failure> {
        let (wal, _) = Wal::open(directory, WalConfig::default())?;
        visit(&wal)
    }

    fn fill(directory: &Path, _cores: u16, records: u64, value: &[u8]) -> Result<(), Failure> {
        let mut log = Self::create(directory)?;
        for number in 0..records {
            log.append_put(&key(number), value)?;
            if number % FILL_BATCH == FILL_BATCH - 1 {
                log.sync()?;
            }
        }
        log.close()
    }

    fn recover(directory: &Path, _cores: u16) -> Result<Recovered, Failure> {
        let start = Instant::now();
        let (wal, _) = Wal::open(directory, WalConfig::default())?;
        let open = start.elapsed();
        let tally = visit(&wal)?;
        Ok(Recovered { open, visit: start.elapsed() - open, tally })
    }
}

fn visit(wal: &Wal) -> Result<Tally, Failure> {
    let mut reader = wal.reader_from(Lsn(0))?;
    let mut tally = Tally::default();
    while let Some(record) = reader.next() {
        let (_, joined) = record?;
        let (key, value) = joined.split_at_checked(KEY_BYTES).ok_or("a record without its key")?;
        tally.add(key, value);
    }
    Ok(tally)
}
