//! What lies under the log of a run: a simulated disk, or a directory of this machine.

use std::sync::Arc;

use laminar_wal::{OsStorage, Storage};
use tempfile::TempDir;
use wal_sim::{CrashPlan, Fault, Granularity, OperationKind, Part, SimStorage};
use wal_storage::IoMode;

use crate::operations::{Failing, Pick, Random};

#[derive(Debug)]
pub(crate) enum Disk {
    Simulated(SimStorage),
    Real(TempDir),
}

impl Disk {
    pub(crate) fn simulated(seed: u64) -> Self {
        let storage = SimStorage::new(seed);
        if seed.is_multiple_of(3) {
            storage.set_mode(IoMode::Buffered);
        }
        Self::Simulated(storage)
    }

    pub(crate) fn real() -> Self {
        Self::Real(tempfile::tempdir().expect("a temporary directory"))
    }

    /// What a process opens its log with.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        match self {
            Self::Simulated(storage) => Arc::new(storage.clone()),
            Self::Real(directory) => {
                Arc::new(OsStorage::create(directory.path()).expect("the directory is there"))
            }
        }
    }

    /// What a process that only looks would see now, untouched by whatever follows, if there is
    /// such a thing.
    pub(crate) fn frozen(&self) -> Self {
        match self {
            // As after a kill, so that no fault and no halt waits for whoever looks.
            Self::Simulated(storage) => Self::Simulated(storage.kill()),
            Self::Real(directory) => {
                let copied = SimStorage::from_directory(0, directory.path());
                Self::Simulated(copied.expect("the directory can be read"))
            }
        }
    }

    pub(crate) fn simulation(&self) -> Option<&SimStorage> {
        match self {
            Self::Simulated(storage) => Some(storage),
            Self::Real(_) => None,
        }
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.simulation().is_some_and(SimStorage::is_halted)
    }

    /// Whether an operation has failed that a healthy disk would have done.
    pub(crate) fn has_failed(&self) -> bool {
        self.simulation().is_some_and(|storage| storage.faults_hit() > 0 || storage.is_halted())
    }

    /// Equal before and after something means that it changed nothing.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.simulation().map_or(0, SimStorage::content_fingerprint)
    }
}

/// One of all the ways in which power may fail.
pub(crate) fn crash_plan(pick: Pick) -> CrashPlan {
    let mut random = Random::new(pick);
    let plan = match random.below(8) {
        0 | 1 => CrashPlan::lose_everything_unsynced(),
        2 => CrashPlan::keep_everything(),
        _ => CrashPlan::random(random.next()),
    };
    let plan = match random.below(6) {
        0 => plan.granularity(Granularity::Sector512),
        1 => plan.granularity(Granularity::Block4096),
        2 => plan.granularity(Granularity::Byte),
        _ => plan,
    };
    let plan = if random.chance(20) { plan.garbage() } else { plan };
    if random.chance(20) { plan.whole_renames() } else { plan }
}

pub(crate) fn fault(what: Failing, after: u64, sticky: bool, full: bool, part: Pick) -> Fault {
    let fault = match what {
        Failing::Write => Fault::on(OperationKind::Write),
        Failing::Sync => Fault::on(OperationKind::Sync),
        Failing::SyncDirectory => Fault::on(OperationKind::SyncDirectory),
        Failing::Create => Fault::on(OperationKind::Create),
        Failing::Rename => Fault::on(OperationKind::Rename),
        Failing::Remove => Fault::on(OperationKind::Remove),
        Failing::Read => Fault::on(OperationKind::Read),
        Failing::AnyChange => Fault::on_any_change(),
        Failing::Anything => Fault::on_any(),
    };
    let fault = fault.nth(after);
    let fault = if sticky { fault.sticky() } else { fault };
    let fault = if full { fault.storage_full() } else { fault };
    match part % 5 {
        0 => fault.done(Part::Nothing),
        1 => fault.done(Part::Prefix),
        2 => fault.done(Part::Random),
        3 => fault.done(Part::Everything),
        _ => fault,
    }
}
