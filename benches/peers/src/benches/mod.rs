//! What can be measured.

mod append;
mod checkpoint;
mod clients;
mod commits;
mod driving;
pub(crate) mod growth;
mod logs;
pub(crate) mod open;
mod policy;
mod polling;
pub(crate) mod recovery;
mod rotation_latency;
mod shared_logs;
mod side_by_side;
mod tasks;

use clap::ValueEnum;

use crate::Failure;
use crate::contenders::Log;
use crate::fdatasync::Probe;
use crate::measure::Pace;
use crate::options::Sizes;
use crate::tally::key;
use crate::workdir::Workdir;

pub(crate) use self::driving::Window;

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
    /// Many threads on one log, each waiting for its own record.
    Clients,
    /// One thread on behalf of many clients, which asks how far the log is durable.
    Polling,
    /// Records on several cores, then all of them durable.
    SideBySide,
    /// Many tasks of two threads, each waiting for its own record.
    Tasks,
    /// What a commit takes where segments end.
    RotationLatency,
    /// A checkpoint of four cores, and how long it stops them.
    Checkpoint,
    /// What waiting for more records before a sync brings and costs.
    Policy,
}

impl Bench {
    pub(crate) const ALL: [Self; 13] = [
        Self::Append,
        Self::SyncEach,
        Self::Batch,
        Self::Recovery,
        Self::Open,
        Self::Growth,
        Self::Clients,
        Self::Polling,
        Self::SideBySide,
        Self::Tasks,
        Self::RotationLatency,
        Self::Checkpoint,
        Self::Policy,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::SyncEach => "sync_each",
            Self::Batch => "batch",
            Self::Recovery => "recovery",
            Self::Open => "open",
            Self::Growth => "growth",
            Self::Clients => "clients",
            Self::Polling => "polling",
            Self::SideBySide => "side_by_side",
            Self::Tasks => "tasks",
            Self::RotationLatency => "rotation_latency",
            Self::Checkpoint => "checkpoint",
            Self::Policy => "policy",
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
            Self::Clients => clients::run(setting, probe),
            Self::SideBySide => side_by_side::run(setting, probe),
            Self::RotationLatency => rotation_latency::run(setting, probe),
            Self::Checkpoint => checkpoint::run(setting, probe),
            Self::Polling => polling::run(setting, probe),
            Self::Tasks => tasks::run(setting, probe),
            Self::Policy => policy::run(setting, probe),
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
