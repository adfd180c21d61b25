//! What a program may do with its log, and what may befall it, drawn from a seed.
//!
//! Operations carry numbers, not references: `pick`s choose among whatever is there when their
//! turn comes. So any operation may be left out, and those that stay still mean something.

use std::fmt;
use std::time::Duration;

use crate::Place;

/// Everything that one run does.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) seed: u64,
    /// Whether it knows of tickets, shared writers and atomic batches.
    pub(crate) era: Era,
    /// What is wrong with the disk from the beginning.
    pub(crate) fault: Option<Operation>,
    /// How the log is opened first.
    pub(crate) shape: Shape,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Debug, Clone)]
pub(crate) enum Operation {
    // ---- appending ----
    Put {
        core: Pick,
        key_bytes: usize,
        value_bytes: usize,
    },
    /// Many small puts in a row.
    Puts {
        core: Pick,
        count: u64,
        value_bytes: usize,
    },
    Delete {
        core: Pick,
        key_bytes: usize,
    },
    Commit {
        core: Pick,
        sources: u64,
    },
    Checkpoint {
        core: Pick,
        id: u64,
    },
    Barrier {
        core: Pick,
    },
    /// An atomic batch: so many puts, a delete and a marker among them.
    Batch {
        core: Pick,
        count: u64,
        value_bytes: usize,
    },
    SetEpoch {
        core: Pick,
        by: i64,
    },
    ReadyMade {
        core: Pick,
        epoch_by: u64,
        time_by_ns: i64,
        is_barrier: bool,
        wrong: Option<Wrong>,
    },

    // ---- making durable ----
    Sync {
        core: Pick,
    },
    StartSync {
        core: Pick,
    },
    RunRequest {
        pick: Pick,
    },
    DropRequest {
        pick: Pick,
    },
    MarkSynced {
        core: Pick,
        pick: Pick,
    },

    // ---- group commit ----
    Submit {
        core: Pick,
    },
    TrySubmit {
        core: Pick,
    },
    Ticket {
        pick: Pick,
        what: WithTicket,
    },
    SyncAll,
    /// How far each core is durable, by its watch.
    Watch,
    /// The core's writer becomes one of many, by itself or by being dropped first.
    Share {
        core: Pick,
        by_dropping: bool,
    },
    /// One more handle, or one less if there are several.
    CloneShared {
        core: Pick,
    },
    DropShared {
        core: Pick,
    },
    /// The core has a writer of its own again.
    Unshare {
        core: Pick,
    },

    // ---- cutting ----
    Truncate {
        core: Pick,
        to: Boundary,
        pick: Pick,
    },
    Reset {
        core: Pick,
    },

    // ---- handing around, closing, opening ----
    RetakeWriter {
        core: Pick,
        closing: bool,
    },
    RetakeAllWriters,
    /// Opening a log that is open.
    OpenAgain,
    /// A clean end and a new beginning, in one process.
    Reopen {
        ending: Ending,
        shape: Shape,
    },

    // ---- what the machine does ----
    RunJobs,
    RunOneJob,
    Advance {
        time: Duration,
    },
    StepWallClock {
        by_ns: i64,
    },
    FillDisk {
        free_bytes: u64,
    },
    FreeDisk,
    Fail {
        what: Failing,
        after: u64,
        sticky: bool,
        full: bool,
        part: Pick,
    },

    // ---- what is looked at from outside ----
    /// Recovering beside the writers changes nothing and finds everything acked.
    Look,
    /// Power loss is tried out, without anything being made of it.
    TryCrashes {
        plan: Pick,
    },

    // ---- the end of a process ----
    /// The next process finds a disk on which something fails while it opens the log.
    FailWhileOpening {
        kill_first: bool,
        fault: Box<Self>,
        shape: Shape,
    },
    Kill {
        shape: Shape,
    },
    Crash {
        plan: Pick,
        shape: Shape,
    },
    /// The machine stops some disk operations from now, loses its power, and comes back.
    CrashSoon {
        after: u64,
        plan: Pick,
        shape: Shape,
    },
    /// The process dies, or the power fails, and so it does again while the log is opened.
    CrashWhileOpening {
        kill_first: bool,
        after: [u64; 3],
        plan: Pick,
        shape: Shape,
    },
}

/// What is done with a ticket.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WithTicket {
    Wait,
    WaitABit,
    Ask,
    Poll,
    Clone,
    Drop,
}

/// What the program of a story knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// One writer per core, and syncs.
    BeforeGroupCommit,
    Now,
}

/// A number from which something is chosen: the same number, the same choice.
pub(crate) type Pick = u64;

/// For how many cores and with which sizes a log is opened.
pub(crate) type Shape = u64;

/// What is wrong with a ready-made entry.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wrong {
    Core,
    SequenceTooHigh,
    SequenceTooLow,
    Epoch,
    Timestamp,
    BarrierEpoch,
}

/// Where to cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Boundary {
    BeforeAnEntry,
    BehindAnEntry,
    End,
    InsideAnEntry,
    BeyondTheEnd,
}

/// How a program lets go of its log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    WritersThenLog,
    LogThenWriters,
    Dropping,
}

/// Which of the disk's operations fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failing {
    Write,
    Sync,
    SyncDirectory,
    Create,
    Rename,
    Remove,
    Read,
    AnyChange,
    Anything,
}

impl Story {
    /// The story of a seed. Each seed leaves out some kinds of operations altogether, so that the
    /// others come in combinations that they would not have if all took their turns.
    pub(crate) fn draw(seed: u64, place: Place) -> Self {
        Self::draw_in(Era::Now, seed, place)
    }

    /// What the seed once stood for.
    pub(crate) fn draw_of_before_group_commit(seed: u64, place: Place) -> Self {
        Self::draw_in(Era::BeforeGroupCommit, seed, place)
    }

    fn draw_in(era: Era, seed: u64, place: Place) -> Self {
        let mut random = Random::new(seed);
        let simulated = place == Place::SimulatedDisk;
        let kinds = KINDS_BEFORE_GROUP_COMMIT.iter();
        let newer = if era == Era::Now { KINDS_OF_GROUP_COMMIT } else { &[] };
        let kinds: Vec<(u64, Kind)> = kinds
            .chain(newer)
            .filter(|(_, kind)| simulated || !kind.needs_simulation())
            .filter(|(_, kind)| matches!(kind, Kind::Append) || random.chance(60))
            .copied()
            .collect();
        let weights: u64 = kinds.iter().map(|(weight, _)| weight).sum();
        let count = 5 + random.below(75);
        let operations = (0..count).map(|_| {
            let mut at = random.below(weights);
            let chosen = kinds.iter().find(|(weight, _)| {
                let is_here = at < *weight;
                at = at.saturating_sub(*weight);
                is_here
            });
            chosen.map_or(Kind::Append, |(_, kind)| *kind).draw(&mut random)
        });
        let operations = operations.collect();
        let fault = (simulated && random.chance(20)).then(|| Kind::Faults.draw(&mut random));
        Self { seed, era, fault, shape: random.next(), operations }
    }
}

/// Kinds of operations that are left out, or not, as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Append,
    Epoch,
    ReadyMade,
    Sync,
    ExternalSync,
    Truncate,
    Reset,
    Hand,
    Reopen,
    Jobs,
    Time,
    WallClock,
    FullDisk,
    Faults,
    Look,
    Kill,
    Crash,
    CrashSoon,
    CrashWhileOpening,
    FailWhileOpening,
    Batch,
    Submit,
    Tickets,
    All,
    Share,
}

const KINDS_BEFORE_GROUP_COMMIT: &[(u64, Kind)] = &[
    (34, Kind::Append),
    (6, Kind::Epoch),
    (6, Kind::ReadyMade),
    (14, Kind::Sync),
    (12, Kind::ExternalSync),
    (8, Kind::Truncate),
    (3, Kind::Reset),
    (3, Kind::Hand),
    (4, Kind::Reopen),
    (10, Kind::Jobs),
    (3, Kind::Time),
    (3, Kind::WallClock),
    (5, Kind::FullDisk),
    (5, Kind::Faults),
    (3, Kind::Look),
    (3, Kind::Kill),
    (4, Kind::Crash),
    (6, Kind::CrashSoon),
    (3, Kind::CrashWhileOpening),
    (4, Kind::FailWhileOpening),
];

const KINDS_OF_GROUP_COMMIT: &[(u64, Kind)] =
    &[(8, Kind::Batch), (10, Kind::Submit), (16, Kind::Tickets), (5, Kind::All), (9, Kind::Share)];

impl Kind {
    const fn needs_simulation(self) -> bool {
        matches!(
            self,
            Self::Jobs
                | Self::Time
                | Self::WallClock
                | Self::FullDisk
                | Self::Faults
                | Self::Look
                | Self::Kill
                | Self::Crash
                | Self::CrashSoon
                | Self::CrashWhileOpening
                | Self::FailWhileOpening
        )
    }

    fn draw(self, random: &mut Random) -> Operation {
        let core = random.next();
        let pick = random.next();
        let shape = random.next();
        match self {
            Self::Append => match random.below(10) {
                0 => Operation::Delete { core, key_bytes: random.size(300) },
                1 => Operation::Commit { core, sources: random.below(6) },
                2 => Operation::Checkpoint { core, id: random.below(100) },
                3 => Operation::Puts {
                    core,
                    count: 1 + random.below(60),
                    value_bytes: random.size(400),
                },
                _ => Operation::Put {
                    core,
                    key_bytes: random.size(40),
                    value_bytes: random.value_bytes(),
                },
            },
            Self::Epoch => match random.below(3) {
                0 => Operation::SetEpoch { core, by: random.pick([-5, -1, 0, 1, 2, 7]) },
                _ => Operation::Barrier { core },
            },
            Self::ReadyMade => Operation::ReadyMade {
                core,
                epoch_by: random.pick([0, 0, 1, 3]),
                time_by_ns: random.pick([0, 0, 1, 3_600_000_000_000]),
                is_barrier: random.chance(20),
                wrong: random.chance(40).then(|| {
                    random.pick([
                        Wrong::Core,
                        Wrong::SequenceTooHigh,
                        Wrong::SequenceTooLow,
                        Wrong::Epoch,
                        Wrong::Timestamp,
                        Wrong::BarrierEpoch,
                    ])
                }),
            },
            Self::Sync => Operation::Sync { core },
            Self::ExternalSync => match random.below(10) {
                0..=3 => Operation::StartSync { core },
                4..=6 => Operation::RunRequest { pick },
                7 => Operation::DropRequest { pick },
                _ => Operation::MarkSynced { core, pick },
            },
            Self::Truncate => {
                let to = random.pick([
                    Boundary::BeforeAnEntry,
                    Boundary::BeforeAnEntry,
                    Boundary::BehindAnEntry,
                    Boundary::BehindAnEntry,
                    Boundary::End,
                    Boundary::InsideAnEntry,
                    Boundary::BeyondTheEnd,
                ]);
                Operation::Truncate { core, to, pick }
            }
            Self::Reset => Operation::Reset { core },
            Self::Hand => match random.below(4) {
                0 => Operation::RetakeAllWriters,
                1 => Operation::OpenAgain,
                _ => Operation::RetakeWriter { core, closing: random.chance(50) },
            },
            Self::Reopen => {
                let ending =
                    random.pick([Ending::WritersThenLog, Ending::LogThenWriters, Ending::Dropping]);
                Operation::Reopen { ending, shape }
            }
            Self::Jobs => match random.below(3) {
                0 => Operation::RunOneJob,
                _ => Operation::RunJobs,
            },
            Self::Time => {
                let ms = random.pick([1, 100, 999, 1000, 1001, 60_000]);
                Operation::Advance { time: Duration::from_millis(ms) }
            }
            Self::WallClock => {
                let seconds = random.pick([-86_400, -3600, -1, 0, 1, 3600]);
                let by_ns = seconds * 1_000_000_000 + random.pick([-7, 0, 1, 1000]);
                Operation::StepWallClock { by_ns }
            }
            Self::FullDisk => match random.below(2) {
                0 => Operation::FillDisk { free_bytes: 4096 * random.below(20) },
                _ => Operation::FreeDisk,
            },
            Self::Faults => Operation::Fail {
                what: random.pick([
                    Failing::Write,
                    Failing::Sync,
                    Failing::SyncDirectory,
                    Failing::Create,
                    Failing::Rename,
                    Failing::Remove,
                    Failing::Read,
                    Failing::AnyChange,
                    Failing::Anything,
                ]),
                after: random.size(20) as u64,
                sticky: random.chance(20),
                full: random.chance(15),
                part: pick,
            },
            Self::Batch => Operation::Batch {
                core,
                count: random.below(12),
                value_bytes: random.value_bytes() / 4,
            },
            Self::Submit => match random.below(3) {
                0 => Operation::TrySubmit { core },
                _ => Operation::Submit { core },
            },
            Self::Tickets => {
                let what = random.pick([
                    WithTicket::Wait,
                    WithTicket::WaitABit,
                    WithTicket::Ask,
                    WithTicket::Ask,
                    WithTicket::Poll,
                    WithTicket::Poll,
                    WithTicket::Clone,
                    WithTicket::Drop,
                ]);
                Operation::Ticket { pick, what }
            }
            Self::All => match random.below(2) {
                0 => Operation::SyncAll,
                _ => Operation::Watch,
            },
            Self::Share => match random.below(6) {
                0..=2 => Operation::Share { core, by_dropping: random.chance(40) },
                3 => Operation::CloneShared { core },
                4 => Operation::DropShared { core },
                _ => Operation::Unshare { core },
            },
            Self::Look => match random.below(2) {
                0 => Operation::Look,
                _ => Operation::TryCrashes { plan: pick },
            },
            Self::Kill => Operation::Kill { shape },
            Self::Crash => Operation::Crash { plan: pick, shape },
            Self::CrashSoon => {
                let after = random.size(60) as u64;
                Operation::CrashSoon { after, plan: pick, shape }
            }
            Self::FailWhileOpening => Operation::FailWhileOpening {
                kill_first: random.chance(60),
                fault: Box::new(Self::Faults.draw(random)),
                shape,
            },
            Self::CrashWhileOpening => Operation::CrashWhileOpening {
                kill_first: random.chance(30),
                after: [random.below(60), random.below(90), random.below(150)],
                plan: pick,
                shape,
            },
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault
            .iter()
            .try_for_each(|fault| writeln!(f, "    before anything else: {fault:?}"))?;
        writeln!(f, "    opening with shape {}", self.shape)?;
        self.operations.iter().try_for_each(|operation| writeln!(f, "    {operation:?}"))
    }
}

/// A splitmix64 generator: small, fast, and the same on every machine for ever.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed ^ 0x6C61_6D69_6E61_7221 }
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.size(N)]
    }

    pub(crate) fn size(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below an index")
    }

    /// Mostly small; some larger than a batch, and some larger than a segment.
    fn value_bytes(&mut self) -> usize {
        let bound = self.pick([1, 60, 200, 200, 1000, 4100, 16_400, 50_000, 90_000]);
        self.size(bound)
    }
}
