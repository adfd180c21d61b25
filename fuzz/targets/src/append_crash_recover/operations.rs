//! What may be done to a log, and what may befall it, as the bytes of an input say.

use wal_sim::{CrashPlan, Fault, Granularity, OperationKind, Part};

use crate::input::Input;

/// Numbers called `pick` choose among whatever is there when their turn comes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Put {
        core: u8,
        key_bytes: u8,
        value_bytes: u16,
    },
    /// Many small puts in a row.
    Puts {
        core: u8,
        count: u8,
    },
    Delete {
        core: u8,
        key_bytes: u8,
    },
    Commit {
        core: u8,
        sources: u8,
    },
    Checkpoint {
        core: u8,
        id: u8,
    },
    Barrier {
        core: u8,
    },
    SetEpoch {
        core: u8,
        by: u8,
    },

    Sync {
        core: u8,
    },
    StartSync {
        core: u8,
    },
    RunRequest {
        pick: u8,
    },
    DropRequest {
        pick: u8,
    },
    MarkSynced {
        core: u8,
        pick: u8,
    },

    Truncate {
        core: u8,
        pick: u8,
    },
    Reset {
        core: u8,
    },

    Retake {
        core: u8,
        closes: bool,
    },
    Reopen {
        closes: bool,
        sizes: u8,
    },

    RunJobs,
    RunOneJob,
    /// Nobody does anything for two seconds.
    Wait,
    StepWallClock {
        forward: bool,
    },

    /// Somebody recovers beside the writers.
    Look,
    /// What would be recovered if the power failed now.
    TryCrash {
        how: How,
    },
    Kill {
        sizes: u8,
    },
    Crash {
        how: How,
        sizes: u8,
    },
    /// The machine stops some disk operations from now, and loses its power.
    CrashSoon {
        after: u8,
        how: How,
    },
    Fail {
        what: u8,
        after: u8,
        flags: u8,
    },
}

/// How the power fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    style: u8,
    seed: u16,
}

impl Operation {
    pub(super) fn read(input: &mut Input<'_>) -> Self {
        let (kind, core) = (input.u8(), input.u8());
        let pick = core;
        match kind % 32 {
            0..=3 => {
                Self::Put { core, key_bytes: input.u8() % 64, value_bytes: input.u16() % 7000 }
            }
            4 => Self::Puts { core, count: input.u8() % 40 },
            5 => Self::Delete { core, key_bytes: input.u8() },
            6 => Self::Commit { core, sources: input.u8() % 6 },
            7 => Self::Checkpoint { core, id: input.u8() },
            8 => Self::Barrier { core },
            9 => Self::SetEpoch { core, by: input.u8() % 8 },
            10..=12 => Self::Sync { core },
            13 => Self::StartSync { core },
            14 => Self::RunRequest { pick },
            15 => Self::DropRequest { pick },
            16 => Self::MarkSynced { core, pick: input.u8() },
            17 | 18 => Self::Truncate { core, pick: input.u8() },
            19 => Self::Reset { core },
            20 => Self::Retake { core, closes: input.u8().is_multiple_of(2) },
            21 => Self::Reopen { closes: core.is_multiple_of(2), sizes: input.u8() },
            22 | 23 => Self::RunJobs,
            24 => Self::RunOneJob,
            25 => Self::Wait,
            26 => Self::StepWallClock { forward: core.is_multiple_of(2) },
            27 => Self::Look,
            28 => Self::TryCrash { how: How::read(input) },
            29 => Self::Kill { sizes: input.u8() },
            30 if core.is_multiple_of(2) => {
                Self::Crash { how: How::read(input), sizes: input.u8() }
            }
            30 => Self::CrashSoon { after: input.u8() % 64, how: How::read(input) },
            _ => Self::Fail { what: core, after: input.u8() % 16, flags: input.u8() },
        }
    }
}

impl How {
    fn read(input: &mut Input<'_>) -> Self {
        Self { style: input.u8(), seed: input.u16() }
    }

    pub(super) fn plan(self) -> CrashPlan {
        let plan = match self.style & 3 {
            0 => CrashPlan::lose_everything_unsynced(),
            1 => CrashPlan::keep_everything(),
            _ => CrashPlan::random(self.seed.into()),
        };
        let plan = match self.style >> 2 & 3 {
            0 => plan,
            1 => plan.granularity(Granularity::Byte),
            2 => plan.granularity(Granularity::Sector512),
            _ => plan.granularity(Granularity::Block4096),
        };
        let plan = if self.style >> 4 & 1 == 1 { plan.garbage() } else { plan };
        if self.style >> 5 & 1 == 1 { plan.whole_renames() } else { plan }
    }
}

/// The fault that an input's numbers mean.
pub(super) fn fault(what: u8, after: u8, flags: u8) -> Fault {
    let fault = match what % 8 {
        0 => Fault::on(OperationKind::Write),
        1 => Fault::on(OperationKind::Sync),
        2 => Fault::on(OperationKind::SyncDirectory),
        3 => Fault::on(OperationKind::Create),
        4 => Fault::on(OperationKind::Rename),
        5 => Fault::on(OperationKind::Remove),
        6 => Fault::on(OperationKind::Read),
        _ => Fault::on_any_change(),
    };
    let fault = fault.nth(after.into());
    let fault = if flags & 1 == 1 { fault.sticky() } else { fault };
    match flags >> 1 & 7 {
        0 => fault.done(Part::Nothing),
        1 => fault.done(Part::Prefix),
        2 => fault.done(Part::Random),
        3 => fault.done(Part::Everything),
        _ => fault,
    }
}
