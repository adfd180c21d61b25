//! `raft-engine`, with the configuration that it has unless told otherwise; each client is a group
//! of its own, as its users have many.
//!
//! It keeps an index of keys in memory. `write(sync = true)` is durable; its `sync` alone does
//! nothing.

use std::path::Path;
use std::sync::Arc;

use raft_engine::{Config, Engine, LogBatch};

use super::{Client, Found, SharedLog};
use crate::Failure;
use crate::tally::{Tally, ascending, from_ascending};

pub(crate) struct RaftEngine {
    engine: Arc<Engine>,
    clients: u16,
}

impl SharedLog for RaftEngine {
    const NAME: &'static str = "raft-engine";

    type Client = Handle;

    fn create(directory: &Path, clients: u16) -> Result<Self, Failure> {
        Ok(Self { engine: Arc::new(open(directory)?), clients })
    }

    fn client(&mut self, index: u16) -> Result<Handle, Failure> {
        let engine = Arc::clone(&self.engine);
        Ok(Handle { engine, group: group(index), batch: LogBatch::default() })
    }

    fn reopen_and_count(self, directory: &Path) -> Result<Found, Failure> {
        let clients = self.clients;
        drop(self);
        let engine = open(directory)?;
        let mut tally = Tally::default();
        for index in 0..clients {
            engine.scan_raw_messages(group(index), None, None, false, |key, value| {
                tally.add(&from_ascending(key), value);
                true
            })?;
        }
        Ok(Found::Everything(tally))
    }
}

pub(crate) struct Handle {
    engine: Arc<Engine>,
    group: u64,
    batch: LogBatch,
}

impl Client for Handle {
    fn commit(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.batch.put(self.group, ascending(key), value.to_vec())?;
        self.engine.write(&mut self.batch, true)?;
        Ok(())
    }
}

fn open(directory: &Path) -> Result<Engine, Failure> {
    let dir = directory.to_str().ok_or("a directory whose name is not UTF-8")?.to_string();
    Ok(Engine::open(Config { dir, ..Config::default() })?)
}

/// Group 0 is not for users.
fn group(index: u16) -> u64 {
    u64::from(index) + 1
}
