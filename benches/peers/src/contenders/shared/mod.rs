//! Logs that many clients commit to at once, behind one trait.

mod fjall;
mod okaywal;
mod ours;
mod raft_engine;
mod reference;
mod wal_db;

use std::path::Path;

use crate::Failure;
use crate::tally::Tally;

pub(crate) use self::fjall::{FjallSyncAll, FjallSyncData};
pub(crate) use self::okaywal::{OkayWal, OkayWalPreallocated};
pub(crate) use self::ours::SharedOurs;
pub(crate) use self::raft_engine::RaftEngine;
pub(crate) use self::reference::{ReferencePerThread, ReferenceUnderMutex};
pub(crate) use self::wal_db::WalDb;

/// A log that is open for writing by several clients, each in a thread of its own.
pub(crate) trait SharedLog: Sized {
    /// What tables call it.
    const NAME: &'static str;

    type Client: Client;

    /// Makes an empty log in `directory`, which exists, for so many clients.
    fn create(directory: &Path, clients: u16) -> Result<Self, Failure>;

    /// What a client holds. Each index below the number of clients is asked for once.
    fn client(&mut self, index: u16) -> Result<Self::Client, Failure>;

    /// Closes the log, which no client holds any more, opens it again and counts.
    fn reopen_and_count(self, directory: &Path) -> Result<Found, Failure>;
}

/// One of those who commit.
pub(crate) trait Client: Send {
    /// Appends a put, and returns once it is durable.
    fn commit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure>;
}

/// What a log held when it was opened again.
#[derive(Debug)]
pub(crate) enum Found {
    /// All that was ever committed.
    Everything(Tally),
    /// So many entries; some of them the log gave up at checkpoints, as it was told to, and only
    /// their number is known.
    Entries(u64),
}

impl Found {
    pub(crate) fn check(&self, expected: &Tally) -> Result<(), Failure> {
        match self {
            Self::Everything(tally) => tally.check(expected),
            Self::Entries(entries) if *entries == expected.entries() => Ok(()),
            Self::Entries(entries) => {
                Err(format!("{entries} entries where {expected:?} was written").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::key;

    /// Enough for okaywal to pass a checkpoint would take seconds; its own test has one.
    const COMMITS: u64 = 6;

    fn gives_back_what_was_committed<L: SharedLog>() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = L::create(directory.path(), 2).unwrap();
        let mut clients = [log.client(0).unwrap(), log.client(1).unwrap()];
        for number in 0..COMMITS {
            let client = &mut clients[usize::from(number % 2 == 1)];
            client.commit(&key(number), &[7; 100]).unwrap();
        }
        drop(clients);
        let found = log.reopen_and_count(directory.path()).unwrap();
        found.check(&Tally::of(COMMITS, 100)).unwrap();
        found.check(&Tally::of(COMMITS + 1, 100)).unwrap_err();
    }

    #[test]
    fn every_log_gives_back_what_its_clients_committed() {
        gives_back_what_was_committed::<OkayWal>();
        gives_back_what_was_committed::<OkayWalPreallocated>();
        gives_back_what_was_committed::<WalDb>();
        gives_back_what_was_committed::<RaftEngine>();
        gives_back_what_was_committed::<FjallSyncData>();
        gives_back_what_was_committed::<FjallSyncAll>();
        gives_back_what_was_committed::<ReferenceUnderMutex>();
        gives_back_what_was_committed::<ReferencePerThread>();
        gives_back_what_was_committed::<SharedOurs>();
    }
}
