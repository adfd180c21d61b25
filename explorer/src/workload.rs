//! What a program does with its log, drawn from a seed.
//!
//! Operations carry numbers, not references: they choose among whatever is there when their turn
//! comes. So any operation may be left out, and those that stay still mean something.

use std::fmt;
use std::time::Duration;

use wal_format::Membership;
use wal_recovery::RecoveryMode;
use wal_writer::{CoreSelection, GroupCommit, LogOptions};

use crate::explorer::Step;
use crate::faults::{self, Schedule};
use crate::random::{Random, mix};

/// Everything that one program does, from its first opening of the log on.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    /// Its first opening is one to a target.
    pub(crate) goes_back: Option<GoingBack>,
    pub(crate) operations: Vec<Operation>,
    /// What fails of the disk; nothing unless asked for.
    pub(crate) faults: Schedule,
    /// Operations of the disk fail in this life and in those after a crash.
    pub(crate) disk_fails: bool,
}

/// For how many cores and with which sizes a log is opened.
pub(crate) type Shape = u64;

/// A number from which something is chosen: the same number, the same choice.
pub(crate) type Pick = u64;

#[derive(Debug, Clone)]
pub(crate) enum Operation {
    // ---- appending ----
    Put { core: Pick, key_bytes: usize, value_bytes: usize },
    Puts { core: Pick, count: u64, value_bytes: usize },
    Delete { core: Pick, key_bytes: usize },
    Commit { core: Pick, sources: u64 },
    Marker { core: Pick, id: u64 },
    Barrier { core: Pick },
    SetEpoch { core: Pick, by: u64 },
    ReadyMade { core: Pick, epoch_by: u64, time_by_ns: i64, is_barrier: bool },
    Batch { core: Pick, count: u64, value_bytes: usize },

    // ---- making durable ----
    Sync { core: Pick },
    Submit { core: Pick },
    TrySubmit { core: Pick },
    Ticket { pick: Pick, what: WithTicket },
    StartSync { core: Pick },
    RunRequest { pick: Pick },
    DropRequest { pick: Pick },
    MarkSynced { pick: Pick },
    SyncAll,
    Watch { core: Pick },
    Together { pick: Pick, what: Together },

    // ---- cutting, and giving back ----
    Truncate { core: Pick, pick: Pick },
    Reset { core: Pick },
    Checkpoint { how: HowCheckpointed },
    Pin,
    AdvancePin { core: Pick, pick: Pick },
    DropPin { pick: Pick },

    // ---- handing around, closing, opening ----
    Share { core: Pick, by_dropping: bool },
    CloneShared { core: Pick },
    DropShared { core: Pick },
    Unshare { core: Pick },
    GiveBack { core: Pick, closing: bool },
    Reopen { ending: Ending, shape: Shape, at: Option<Pick> },
    GoBack { ending: Ending, shape: Shape, to: GoingBack },

    // ---- what changes nothing ----
    Refused { core: Pick, pick: Pick, what: Wrong },
    Replay { pick: Pick, how: HowReplayed },
    DropReplay { pick: Pick },
    LookBeside,

    // ---- what the machine does ----
    RunJobs,
    RunOneJob,
    Advance { milliseconds: u64 },
    StepWallClock { by_ns: i64 },
    FillDisk { free_bytes: u64 },
    FreeDisk,
}

/// So many lives behind a crash begin with an opening to a target.
const GO_BACK_PERCENT: u64 = 20;

/// No log has more.
const CORES_MAX: u64 = 4;

/// Clocks that jump so far are broken, and timestamps must not be.
const CENTURY_SECONDS: i64 = 100 * 365 * 86_400;

/// What is done with a ticket.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WithTicket {
    Wait,
    WaitNoTime,
    WaitLong,
    Ask,
    Poll,
    Clone,
    Drop,
}

/// What is done with all cores' writers in one hand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Together {
    Sync,
    Barrier,
    Checkpoint,
    Truncate,
    Reset,
}

/// How far a checkpoint gets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HowCheckpointed {
    Whole,
    GivenUp,
    /// Given up because a core does not arrive.
    WithoutOne,
}

/// What a program asks for that it may not have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wrong {
    // ---- ready-made entries ----
    EntryOfAnotherCore,
    SequenceTooHigh,
    SequenceTooLow,
    EpochTooLow,
    TimestampTooLow,
    BarrierOfAnotherEpoch,

    // ---- of a writer ----
    EpochLowered,
    CutInsideARecord,
    CutBeyondTheEnd,
    ProofOfAnotherCore,

    // ---- of the log ----
    WriterTwice,
    NoSuchCore,
    OpenedTwice,
}

/// What is replayed of what an opening recovered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HowReplayed {
    Merged,
    CoreByCore,
    UpToAnEpoch,
    FromPositions,
}

/// How a program opens its log to a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoingBack {
    pub(crate) how_far: HowFar,
    /// Which epoch, or which time.
    pub(crate) pick: Pick,
    /// Without damage all give the same.
    pub(crate) mode: RecoveryMode,
    /// What is left out is accepted, not just looked at.
    pub(crate) accepts: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum HowFar {
    LastCompleteEpoch,
    Epoch,
    Timestamp,
}

/// How a program lets go of its log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Closing,
    Dropping,
    /// The log is closed, or dropped, while its writers are out, and they go on for a while.
    LogFirst {
        closing: bool,
    },
}

impl Workload {
    /// The workload of a seed. Each seed leaves out some kinds of operations altogether, so that
    /// the others come in combinations that they would not have if all took their turns.
    pub(crate) fn draw(seed: u64) -> Self {
        Self::draw_of_length(seed, 12, 40)
    }

    /// The same on a disk that fails.
    pub(crate) fn with_faults(self) -> Self {
        let faults = faults::draw(self.seed, self.operations.len());
        Self { faults, disk_fails: true, ..self }
    }

    /// What a program does that goes on behind so many crashes of another one: less.
    pub(crate) fn behind(seed: u64, crashes: &[Step], disk_fails: bool) -> Self {
        let seed = crashes.iter().fold(seed, |seed, &crash| seed_behind(seed, crash));
        let mut random = Random::new(mix(seed, 0x6F_BAC4));
        let goes_back = random.chance(GO_BACK_PERCENT).then(|| GoingBack::draw(&mut random));
        let workload = Self { goes_back, ..Self::draw_of_length(seed, 2, 9) };
        if disk_fails { workload.with_faults() } else { workload }
    }

    fn draw_of_length(seed: u64, at_least: u64, and_up_to: u64) -> Self {
        let mut random = Random::new(seed);
        let mut kinds: Vec<(u64, Kind)> = Vec::new();
        for &(weight, kind) in KINDS {
            if matches!(kind, Kind::Append | Kind::Sync) || random.chance(55) {
                kinds.push((weight, kind));
            }
        }
        let weights: u64 = kinds.iter().map(|(weight, _)| weight).sum();
        let count = at_least + random.below(and_up_to);
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
        Self {
            seed,
            shape: random.next(),
            goes_back: None,
            operations,
            faults: Schedule::new(),
            disk_fails: false,
        }
    }
}

/// The seed of what follows a crash.
pub(crate) const fn seed_behind(seed: u64, (moment, plan): Step) -> u64 {
    mix(mix(seed, moment), plan)
}

/// How a log is opened. All sizes are as small as can be, so that segments end, buffers fill and
/// records do not fit all the time.
pub(crate) fn draw_shape(shape: Shape) -> Opening {
    let mut random = Random::new(shape);
    let batch_bytes = random.pick([4096, 4096, 8192, 16_384]);
    let smallest = wal_format::SEGMENT_BYTES_MIN;
    let options = LogOptions {
        segment_bytes: smallest + 4096 * random.pick([0, 0, 1, 2, 10]),
        max_record_bytes: random.pick([4096, 12_288, 40_960]),
        batch_bytes,
        in_flight_bytes: batch_bytes * random.pick([2, 2, 3, 5]),
        group_commit: GroupCommit {
            // A thread that waits does wait so long.
            max_delay: Duration::from_micros(random.pick([0, 0, 50])),
            max_bytes: random.pick([u64::MAX, 0, 3000]),
            max_entries: random.pick([u64::MAX, 1, 5]),
        },
        recycled_segments: random.pick([2, 2, 0, 1]),
        ..LogOptions::default()
    };
    let cores = random.pick([1, 1, 1, 2, 2, 3, 4]);
    Opening {
        options,
        cores,
        is_alone: random.chance(35),
        stays_alone: random.chance(60),
        writer_alone: random.chance(50),
        keeps_replay: random.chance(30),
    }
}

/// What a shape means.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
pub(crate) struct Opening {
    pub(crate) options: LogOptions,
    cores: u16,
    is_alone: bool,
    stays_alone: bool,
    /// A log of one core is opened as a writer, and nobody holds the log itself.
    pub(crate) writer_alone: bool,
    /// What was recovered can be replayed for as long as the program likes.
    pub(crate) keeps_replay: bool,
}

/// The core of a log of one core alone.
const SINGLE_CORE: u16 = 3;

impl Opening {
    /// A directory may hold the log of one core alone, until it is opened for several.
    pub(crate) fn selection(&self, members: Option<Membership>) -> CoreSelection {
        match members {
            None if self.is_alone => CoreSelection::One(SINGLE_CORE),
            Some(members) if members.core_count == 1 && (self.is_alone || self.stays_alone) => {
                CoreSelection::One(members.first_core)
            }
            _ => CoreSelection::First(self.cores),
        }
    }
}

/// Kinds of operations that are left out, or not, as one.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Append,
    Epoch,
    ReadyMade,
    Batch,
    Sync,
    Submit,
    Tickets,
    ExternalSync,
    All,
    Together,
    Truncate,
    Reset,
    Checkpoint,
    Pin,
    Share,
    Hand,
    Reopen,
    GoBack,
    Jobs,
    Time,
    WallClock,
    FullDisk,
    Wrong,
    Replay,
    Beside,
}

const KINDS: &[(u64, Kind)] = &[
    (30, Kind::Append),
    (5, Kind::Epoch),
    (4, Kind::ReadyMade),
    (10, Kind::Batch),
    (12, Kind::Sync),
    (10, Kind::Submit),
    (14, Kind::Tickets),
    (10, Kind::ExternalSync),
    (4, Kind::All),
    (5, Kind::Together),
    (7, Kind::Truncate),
    (3, Kind::Reset),
    (7, Kind::Checkpoint),
    (5, Kind::Pin),
    (7, Kind::Share),
    (3, Kind::Hand),
    (4, Kind::Reopen),
    (4, Kind::GoBack),
    (10, Kind::Jobs),
    (4, Kind::Time),
    (2, Kind::WallClock),
    (4, Kind::FullDisk),
    (5, Kind::Wrong),
    (4, Kind::Replay),
    (1, Kind::Beside),
];

impl Kind {
    fn draw(self, random: &mut Random) -> Operation {
        let core = random.below(CORES_MAX);
        let pick = random.next();
        match self {
            Self::Append => match random.below(10) {
                0 => Operation::Delete { core, key_bytes: random.size(300) },
                1 => Operation::Commit { core, sources: random.below(6) },
                2 => Operation::Marker { core, id: random.below(100) },
                3 => Operation::Puts {
                    core,
                    count: 1 + random.below(30),
                    value_bytes: random.size(400),
                },
                _ => Operation::Put {
                    core,
                    key_bytes: random.size(40),
                    value_bytes: random.value_bytes(),
                },
            },
            Self::Epoch => match random.below(3) {
                0 => Operation::SetEpoch { core, by: random.pick([0, 1, 2, 7]) },
                _ => Operation::Barrier { core },
            },
            Self::ReadyMade => Operation::ReadyMade {
                core,
                epoch_by: random.pick([0, 0, 1, 3]),
                time_by_ns: random.pick([0, 0, 1, 3_600_000_000_000]),
                is_barrier: random.chance(20),
            },
            Self::Batch => Operation::Batch {
                core,
                count: random.below(10),
                value_bytes: random.value_bytes() / 4,
            },
            Self::Sync => Operation::Sync { core },
            Self::Submit => match random.below(3) {
                0 => Operation::TrySubmit { core },
                _ => Operation::Submit { core },
            },
            Self::Tickets => Operation::Ticket {
                pick,
                what: random.pick([
                    WithTicket::Wait,
                    WithTicket::WaitNoTime,
                    WithTicket::WaitLong,
                    WithTicket::Ask,
                    WithTicket::Poll,
                    WithTicket::Poll,
                    WithTicket::Clone,
                    WithTicket::Drop,
                ]),
            },
            Self::ExternalSync => match random.below(10) {
                0..=3 => Operation::StartSync { core },
                4..=6 => Operation::RunRequest { pick },
                7 => Operation::DropRequest { pick },
                _ => Operation::MarkSynced { pick },
            },
            Self::All => match random.below(2) {
                0 => Operation::SyncAll,
                _ => Operation::Watch { core },
            },
            Self::Together => Operation::Together {
                pick,
                what: random.pick([
                    Together::Sync,
                    Together::Sync,
                    Together::Barrier,
                    Together::Checkpoint,
                    Together::Truncate,
                    Together::Reset,
                ]),
            },
            Self::Truncate => Operation::Truncate { core, pick },
            Self::Reset => Operation::Reset { core },
            Self::Checkpoint => Operation::Checkpoint {
                how: random.pick([
                    HowCheckpointed::Whole,
                    HowCheckpointed::Whole,
                    HowCheckpointed::Whole,
                    HowCheckpointed::GivenUp,
                    HowCheckpointed::WithoutOne,
                ]),
            },
            Self::Pin => match random.below(4) {
                0 => Operation::AdvancePin { core, pick },
                1 => Operation::Pin,
                _ => Operation::DropPin { pick },
            },
            Self::Share => match random.below(6) {
                0..=2 => Operation::Share { core, by_dropping: random.chance(30) },
                3 => Operation::CloneShared { core },
                4 => Operation::DropShared { core },
                _ => Operation::Unshare { core },
            },
            Self::Hand => Operation::GiveBack { core, closing: random.chance(50) },
            Self::Reopen => Operation::Reopen {
                ending: Ending::draw(random),
                shape: random.next(),
                at: random.chance(20).then_some(pick),
            },
            Self::GoBack => Operation::GoBack {
                ending: Ending::draw(random),
                shape: random.next(),
                to: GoingBack::draw(random),
            },
            Self::Jobs => match random.below(2) {
                0 => Operation::RunOneJob,
                _ => Operation::RunJobs,
            },
            Self::Time => {
                Operation::Advance { milliseconds: random.pick([1, 100, 999, 1000, 1001, 60_000]) }
            }
            Self::WallClock => {
                let seconds = random.pick([
                    -CENTURY_SECONDS,
                    -86_400,
                    -3600,
                    -1,
                    0,
                    1,
                    3600,
                    CENTURY_SECONDS,
                ]);
                let by_ns = seconds * 1_000_000_000 + random.pick([-7, 0, 1, 1000]);
                Operation::StepWallClock { by_ns }
            }
            Self::Wrong => Operation::Refused {
                core,
                pick,
                what: random.pick([
                    Wrong::EntryOfAnotherCore,
                    Wrong::SequenceTooHigh,
                    Wrong::SequenceTooLow,
                    Wrong::EpochTooLow,
                    Wrong::TimestampTooLow,
                    Wrong::BarrierOfAnotherEpoch,
                    Wrong::EpochLowered,
                    Wrong::CutInsideARecord,
                    Wrong::CutBeyondTheEnd,
                    Wrong::ProofOfAnotherCore,
                    Wrong::WriterTwice,
                    Wrong::NoSuchCore,
                    Wrong::OpenedTwice,
                ]),
            },
            Self::Replay => match random.below(5) {
                0 => Operation::DropReplay { pick },
                _ => Operation::Replay {
                    pick,
                    how: random.pick([
                        HowReplayed::Merged,
                        HowReplayed::CoreByCore,
                        HowReplayed::UpToAnEpoch,
                        HowReplayed::FromPositions,
                    ]),
                },
            },
            Self::Beside => Operation::LookBeside,
            Self::FullDisk => match random.below(2) {
                0 => Operation::FillDisk { free_bytes: 4096 * random.below(20) },
                _ => Operation::FreeDisk,
            },
        }
    }
}

impl Ending {
    const fn draw(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::Closing,
            1 => Self::Dropping,
            2 => Self::LogFirst { closing: true },
            _ => Self::LogFirst { closing: false },
        }
    }
}

impl GoingBack {
    fn draw(random: &mut Random) -> Self {
        Self {
            how_far: random.pick([HowFar::LastCompleteEpoch, HowFar::Epoch, HowFar::Timestamp]),
            pick: random.next(),
            mode: random.pick([
                RecoveryMode::TornTail,
                RecoveryMode::TornTail,
                RecoveryMode::PointInTime,
                RecoveryMode::Salvage,
            ]),
            accepts: random.chance(75),
        }
    }
}

/// In prose, for whoever reads a failure.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.goes_back {
            Some(to) => writeln!(f, "    {to}, {}", InWords(self.shape))?,
            None => writeln!(f, "    open the log {}", InWords(self.shape))?,
        }
        self.operations.iter().try_for_each(|operation| writeln!(f, "    {operation}"))?;
        let mut faults = self.faults.iter();
        faults.try_for_each(|(before, fault)| {
            writeln!(f, "    from operation {before} on: {fault:?}")
        })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { core, key_bytes, value_bytes } => {
                write!(
                    f,
                    "put a key of {key_bytes} and a value of {value_bytes} bytes{}",
                    On(*core)
                )
            }
            Self::Puts { core, count, value_bytes } => {
                write!(f, "{count} puts with values of {value_bytes} bytes{}", On(*core))
            }
            Self::Delete { core, key_bytes } => {
                write!(f, "delete a key of {key_bytes} bytes{}", On(*core))
            }
            Self::Commit { core, sources } => {
                write!(f, "a commit of {sources} sources{}", On(*core))
            }
            Self::Marker { core, .. } => write!(f, "a checkpoint's marker{}", On(*core)),
            Self::Barrier { core } => write!(f, "the barrier of the epoch{}", On(*core)),
            Self::SetEpoch { core, by } => write!(f, "raise the epoch by {by}{}", On(*core)),
            Self::ReadyMade { core, epoch_by, time_by_ns, is_barrier } => write!(
                f,
                "a ready-made {}, {epoch_by} epochs and {time_by_ns} ns later{}",
                if *is_barrier { "barrier" } else { "entry" },
                On(*core)
            ),
            Self::Batch { core, count, value_bytes } => write!(
                f,
                "an atomic batch of {count} entries with values of {value_bytes} bytes{}",
                On(*core)
            ),
            Self::Sync { core } => write!(f, "sync{}", On(*core)),
            Self::Submit { core } => write!(f, "submit{}", On(*core)),
            Self::TrySubmit { core } => write!(f, "try to submit{}", On(*core)),
            Self::Ticket { what, .. } => write!(f, "with one of the tickets: {what:?}"),
            Self::StartSync { core } => {
                write!(f, "start a sync that another thread runs{}", On(*core))
            }
            Self::RunRequest { .. } => write!(f, "run one of the started syncs"),
            Self::DropRequest { .. } => write!(f, "drop one of the started syncs"),
            Self::MarkSynced { .. } => write!(f, "give one of the proofs to its writer"),
            Self::SyncAll => write!(f, "sync whatever was submitted on any core"),
            Self::Watch { core } => write!(f, "ask how far all is durable{}", On(*core)),
            Self::Together { what, .. } => {
                write!(f, "take all writers, put on each core, then on all together: {what:?}")
            }
            Self::Truncate { core, .. } => write!(f, "truncate at some entry{}", On(*core)),
            Self::Reset { core } => write!(f, "reset{}", On(*core)),
            Self::Checkpoint { how: HowCheckpointed::Whole } => write!(f, "a checkpoint"),
            Self::Checkpoint { how: HowCheckpointed::GivenUp } => {
                write!(f, "a checkpoint, given up behind its barriers")
            }
            Self::Checkpoint { how: HowCheckpointed::WithoutOne } => {
                write!(f, "a checkpoint at which a core does not arrive")
            }
            Self::Pin => write!(f, "pin all that is there"),
            Self::AdvancePin { core, .. } => {
                write!(f, "let a pin go of what lies below some entry{}", On(*core))
            }
            Self::DropPin { .. } => write!(f, "drop a pin"),
            Self::Share { core, by_dropping: false } => {
                write!(f, "make the writer a shared one{}", On(*core))
            }
            Self::Share { core, by_dropping: true } => {
                write!(f, "drop the writer and take a shared one{}", On(*core))
            }
            Self::CloneShared { core } => write!(f, "clone the shared writer{}", On(*core)),
            Self::DropShared { core } => {
                write!(f, "drop a clone of the shared writer{}", On(*core))
            }
            Self::Unshare { core } => {
                write!(f, "drop the shared writers and take one alone{}", On(*core))
            }
            Self::GiveBack { core, closing: true } => {
                write!(f, "close the writer and take it again{}", On(*core))
            }
            Self::GiveBack { core, closing: false } => {
                write!(f, "drop the writer and take it again{}", On(*core))
            }
            Self::Reopen { ending, shape, at } => {
                let at = if at.is_some() { " at some entry" } else { "" };
                write!(f, "{ending} and open it{at} {}", InWords(*shape))
            }
            Self::GoBack { ending, shape, to } => {
                write!(f, "{ending} and {to}, {}", InWords(*shape))
            }
            Self::Refused { core, what, .. } => {
                write!(f, "ask for what is refused, {what:?}{}", On(*core))
            }
            Self::Replay { how, .. } => {
                write!(f, "replay what some opening has recovered: {how:?}")
            }
            Self::DropReplay { .. } => write!(f, "let go of what some opening has recovered"),
            Self::LookBeside => write!(f, "recover beside the writers"),
            Self::RunJobs => write!(f, "run every background job that is due"),
            Self::RunOneJob => write!(f, "run one background job"),
            Self::Advance { milliseconds } => write!(f, "{milliseconds} ms pass"),
            Self::StepWallClock { by_ns } => write!(f, "the wall clock steps by {by_ns} ns"),
            Self::FillDisk { free_bytes } => write!(f, "the disk has {free_bytes} bytes left"),
            Self::FreeDisk => write!(f, "the disk has space again"),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closing => "close the log",
            Self::Dropping => "drop the log",
            Self::LogFirst { closing: true } => "close the log before its writers",
            Self::LogFirst { closing: false } => "drop the log before its writers",
        })
    }
}

impl fmt::Display for GoingBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { how_far, mode, accepts, .. } = self;
        let target = match how_far {
            HowFar::LastCompleteEpoch => "the last complete epoch",
            HowFar::Epoch => "some epoch",
            HowFar::Timestamp => "some time",
        };
        let accepting = if *accepts { "accepting that" } else { "then as it is after all" };
        write!(f, "recover it up to {target} ({mode:?}), {accepting}")
    }
}

/// On which core, as far as can be told before the cores are there.
struct On(Pick);

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ", on core {} modulo those there are", self.0)
    }
}

struct InWords(Shape);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Opening { options, cores, is_alone, stays_alone, writer_alone, keeps_replay } =
            draw_shape(self.0);
        let alone = match (is_alone, stays_alone) {
            (true, _) => ", or one alone",
            (false, true) => ", or one alone if it was alone",
            (false, false) => "",
        };
        write!(
            f,
            "for {cores} cores{alone}{}, with segments of {}, records up to {}, batches of {} and {} \
             bytes in flight, commits after {:?}{}",
            if writer_alone { " as a writer" } else { "" },
            options.segment_bytes,
            options.max_record_bytes,
            options.batch_bytes,
            options.in_flight_bytes,
            options.group_commit.max_delay,
            if keeps_replay { ", keeping the replay" } else { "" }
        )
    }
}
