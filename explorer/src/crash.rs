//! The ways in which a process or its machine may end.

use std::fmt;

use wal_sim::{CrashPlan, Granularity, SimStorage};

use crate::explorer::Step;
use crate::random::{Random, mix};

/// One way to end at one moment, with a small number that names it in a replay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crash {
    pub(crate) kind: CrashKind,
    plan: CrashPlan,
}

/// What states are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CrashKind {
    NothingKept,
    EverythingKept,
    Killed,
    Sectors,
    Blocks,
    Bytes,
    Mixed,
    Garbage,
}

impl CrashKind {
    pub(crate) const ALL: [Self; 8] = [
        Self::NothingKept,
        Self::EverythingKept,
        Self::Killed,
        Self::Sectors,
        Self::Blocks,
        Self::Bytes,
        Self::Mixed,
        Self::Garbage,
    ];
}

/// The plans that need no luck: nothing un-synced kept, everything kept, killed.
pub(crate) const FIXED_PLANS: [u64; 3] = [0, 1, 2];

impl Crash {
    /// Plan `number` for a moment: the [`FIXED_PLANS`] are the same everywhere, all others are drawn.
    pub(crate) fn plan(seed: u64, (moment, number): Step) -> Self {
        match number {
            0 => Self::new(CrashKind::NothingKept, CrashPlan::lose_everything_unsynced()),
            1 => Self::new(CrashKind::EverythingKept, CrashPlan::keep_everything()),
            2 => Self::new(CrashKind::Killed, CrashPlan::keep_everything()),
            _ => Self::draw(mix(mix(seed, moment), number)),
        }
    }

    fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let plan = match random.below(10) {
            0 => CrashPlan::lose_everything_unsynced(),
            _ => CrashPlan::random(random.next()),
        };
        let plan = if random.chance(20) { plan.whole_renames() } else { plan };
        match random.below(10) {
            0..=1 => Self::new(CrashKind::Sectors, plan.granularity(Granularity::Sector512)),
            2..=3 => Self::new(CrashKind::Blocks, plan.granularity(Granularity::Block4096)),
            4..=5 => Self::new(CrashKind::Bytes, plan.granularity(Granularity::Byte)),
            6..=7 => Self::new(CrashKind::Mixed, plan),
            _ => Self::new(CrashKind::Garbage, plan.garbage()),
        }
    }

    const fn new(kind: CrashKind, plan: CrashPlan) -> Self {
        Self { kind, plan }
    }

    /// The machine that comes back.
    pub(crate) fn of(self, moment: &SimStorage) -> SimStorage {
        match self.kind {
            CrashKind::Killed => moment.kill(),
            _ => moment.crash(self.plan),
        }
    }

    /// Whether all that the next process reads is durable.
    pub(crate) const fn settles_everything(self) -> bool {
        !matches!(self.kind, CrashKind::Killed)
    }
}

impl fmt::Display for CrashKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NothingKept => "power: nothing un-synced kept",
            Self::EverythingKept => "power: everything kept",
            Self::Killed => "process killed",
            Self::Sectors => "power: any sectors of 512",
            Self::Blocks => "power: any blocks of 4096",
            Self::Bytes => "power: torn between any bytes",
            Self::Mixed => "power: each file in its own way",
            Self::Garbage => "power: lost space shows garbage",
        })
    }
}
