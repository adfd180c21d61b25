//! What can be measured.

mod append;
mod commits;
pub(crate) mod growth;
mod logs;
pub(crate) mod open;
pub(crate) mod recovery;

use clap::ValueEnum;

use crate::Failure;
use crate::contenders::Log;
use crate::fdatasync::Probe;
use crate::measure::Pace;
use crate::options::Sizes;
use crate::tally::key;
use crate::workdir::Workdir;

/// What every bench is given.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) workdir: &'a Workdir,
    pub(crate) sizes: Sizes,
    pub(crate) pace: Pace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Bench {
    /// Appends without a sync, and with one at the end.
    Append,
    /// One record, one sync.
    SyncEach,
    /// A thousand records, one sync.
    Batch,
    /// Opening a full log and visiting all of it.
    Recovery,
    /// Opening alone: a full log beside a bare pass, and an empty one.
    Open,
    /// Cost and memory from 1 to 100 million records.
    Growth,
}

impl Bench {
    pub(crate) const ALL: [Self; 6] =
        [Self::Append, Self::SyncEach, Self::Batch, Self::Recovery, Self::Open, Self::Growth];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::SyncEach => "sync_each",
            Self::Batch => "batch",
            Self::Recovery => "recovery",
            Self::Open => "open",
            Self::Growth => "growth",
        }
    }

    /// Measures it, and returns what is to be said about it, in Markdown.
    pub(crate) fn run(self, setting: &Setting<'_>, probe: &mut Probe) -> Result<String, Failure> {
        match self {
            Self::Append => append::run(setting, probe),
            Self::SyncEach => commits::sync_each(setting, probe),
            Self::Batch => commits::batch(setting, probe),
            Self::Recovery => recovery::run(setting),
            Self::Open => open::run(setting, probe),
            Self::Growth => growth::run(setting, probe),
        }
    }
}

/// The value of most records.
const VALUE: [u8; 100] = [0xab; 100];

/// Appends puts with these keys.
#[inline]
fn append_puts<L: Log>(
    log: &mut L,
    numbers: std::ops::Range<u64>,
    value: &[u8],
) -> Result<(), Failure> {
    for number in numbers {
        log.append_put(&key(number), value)?;
    }
    Ok(())
}
