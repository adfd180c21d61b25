//! The logs that are measured, behind one trait.

pub(crate) mod cores;
mod open_wal;
mod ours;
mod reference;
pub(crate) mod shared;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::tally::Tally;

pub(crate) use self::open_wal::OpenWal;
pub(crate) use self::ours::Ours;
pub(crate) use self::reference::Reference;

/// A log of one core that is open for writing. Statically dispatched: a call is the log's own.
pub(crate) trait Log: Sized {
    /// What tables call it.
    const NAME: &'static str;

    /// Makes an empty log in `directory`, which exists.
    fn create(directory: &Path) -> Result<Self, Failure>;

    fn append_put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Failure>;

    /// Makes everything appended durable.
    fn sync(&mut self) -> Result<(), Failure>;

    /// Closes the log as its documentation asks, everything durable.
    fn close(self) -> Result<(), Failure>;

    /// Reads a log of one core, open or closed, and counts.
    fn read_back(directory: &Path) -> Result<Tally, Failure>;

    /// Fills a log of `cores` cores with `records` puts, one core after the other in turn, and
    /// closes it. A log that knows no cores has one.
    fn fill(directory: &Path, cores: u16, records: u64, value: &[u8]) -> Result<(), Failure>;

    /// Opens such a log for writing and visits all its entries in their order.
    fn recover(directory: &Path, cores: u16) -> Result<Recovered, Failure>;
}

/// What recovering a log gave, and how long that took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovered {
    pub(crate) open: Duration,
    pub(crate) visit: Duration,
    pub(crate) tally: Tally,
}

/// One of them, by name, for tasks that go to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contender {
    Ours,
    Reference,
    OpenWal,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Reference, Self::OpenWal];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => Ours::NAME,
            Self::Reference => Reference::NAME,
            Self::OpenWal => OpenWal::NAME,
        }
    }

    pub(crate) fn fill(
        self,
        directory: &Path,
        cores: u16,
        records: u64,
        value: &[u8],
    ) -> Result<(), Failure> {
        match self {
            Self::Ours => Ours::fill(directory, cores, records, value),
            Self::Reference => Reference::fill(directory, cores, records, value),
            Self::OpenWal => OpenWal::fill(directory, cores, records, value),
        }
    }

    pub(crate) fn recover(self, directory: &Path, cores: u16) -> Result<Recovered, Failure> {
        match self {
            Self::Ours => Ours::recover(directory, cores),
            Self::Reference => Reference::recover(directory, cores),
            Self::OpenWal => OpenWal::recover(directory, cores),
        }
    }
}
