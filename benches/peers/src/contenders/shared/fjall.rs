//! `fjall`, told that the caller persists: an insert stays in the journal's buffer until then, as
//! its documentation advises where each write is to be durable.
//!
//! It keeps a table of keys in memory.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Client, Found, SharedLog};
use crate::Failure;
use crate::tally::{Tally, ascending, from_ascending};

pub(crate) type FjallSyncData = Persisting<false>;
pub(crate) type FjallSyncAll = Persisting<true>;

/// With `fdatasync`, or with `fsync`.
pub(crate) struct Persisting<const ALL: bool>(Handle<ALL>);

impl<const ALL: bool> SharedLog for Persisting<ALL> {
    const NAME: &'static str = if ALL { "fjall, SyncAll" } else { "fjall, SyncData" };

    type Client = Handle<ALL>;

    fn create(directory: &Path, _clients: u16) -> Result<Self, Failure> {
        Ok(Self(open(directory)?))
    }

    fn client(&mut self, _index: u16) -> Result<Handle<ALL>, Failure> {
        Ok(self.0.clone())
    }

    fn reopen_and_count(self, directory: &Path) -> Result<Found, Failure> {
        drop(self);
        let Handle { keyspace, .. } = open::<ALL>(directory)?;
        let mut tally = Tally::default();
        for entry in keyspace.iter() {
            let (key, value) = entry.into_inner()?;
            tally.add(&from_ascending(&key), &value);
        }
        Ok(Found::Everything(tally))
    }
}

#[derive(Clone)]
pub(crate) struct Handle<const ALL: bool> {
    database: Database,
    keyspace: Keyspace,
}

impl<const ALL: bool> Client for Handle<ALL> {
    fn commit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.keyspace.insert(ascending(key), value)?;
        let mode = if ALL { PersistMode::SyncAll } else { PersistMode::SyncData };
        Ok(self.database.persist(mode)?)
    }
}

fn open<const ALL: bool>(directory: &Path) -> Result<Handle<ALL>, Failure> {
    let database = Database::builder(directory).manual_journal_persist(true).open()?;
    let keyspace = database.keyspace("log", KeyspaceCreateOptions::default)?;
    Ok(Handle { database, keyspace })
}
