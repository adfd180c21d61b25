//! Recovery of laminar-wal: what of a log survived, how that is known, and reading it back.
//!
//! You probably want the facade crate `laminar-wal`, whose `open` recovers and gives out a
//! [`Recovery`]. This crate is for tools that read logs.
//!
//! - [`recover`](recover()) reads a log's directory and decides, core by core, where the valid log ends.
//!   What it finds is a [`RecoveredLog`]; a writer goes on from its [`RecoveredCore`]s and from
//!   nothing else.
//! - [`Recovery`] replays the entries, merged over all cores or core by core.
//! - [`verify`](verify()) looks for everything that is wrong; [`find_boundary`] for places where a log may
//!   be cut; [`SegmentReader`] reads one file.
//!
//! What this crate never does: write. Recovering twice gives the same twice.
//!
//! # How it is decided
//!
//! ```text
//! directory -> manifest -> headers -> chain -> scan -> claims -> verdict -> report
//!                                     which    record  what was   end, torn
//!                                     files    by      durable?   or damage
//!                                              record
//! ```
//!
//! An unfinished tail is expected after a crash: it is dropped and counted. Damage is never taken
//! for one as long as anything proves that the damaged bytes were once durable: a mark in a later
//! batch, the start of a later segment, a vouch slot, the manifest. Which of the two it is
//! stands in one table, `verdict.rs`, whose rows have the labels @A to @H; reports name them, and
//! `docs/recovery.md` tells the crash story behind each.
//!
//! # Numbers
//!
//! Positions and sequences of a core's log begin with 0, segment numbers with 1. An empty log has
//! epoch 0 and the timestamp `i64::MIN`: any entry may follow.

mod boundary;
mod chain;
mod claims;
mod committed;
mod core;
mod core_reader;
mod cursor;
mod cuts;
mod directory;
mod entries;
mod headers;
mod holes;
mod log;
mod manifests;
mod merge;
mod proposal;
mod read_ahead;
mod repair;
mod replay;
mod report;
mod resync;
mod scan;
mod segment_reader;
mod state;
mod target;
mod verdict;
mod verify;

pub use crate::boundary::{Boundary, find_boundary};
pub use crate::chain::{OtherSegment, OtherSegmentKind};
pub use crate::committed::{Committed, committed_between};
pub use crate::core::{Adoption, RecoveredCore, SegmentSpan};
pub use crate::directory::{QUARANTINE_DIRECTORY, quarantine_name};
pub use crate::entries::Entries;
pub use crate::log::{RecoveredLog, recover, recover_to};
pub use crate::manifests::SlotState;
pub use crate::proposal::Proposal;
pub use crate::replay::{Recovery, ReplayPin, ReplayProgress};
pub use crate::report::{
    CheckpointReport, CoreReport, Ending, EndingKind, Label, Loss, RecoveryReport,
};
pub use crate::segment_reader::{SegmentEnd, SegmentReader};
pub use crate::state::RecoveredState;
pub use crate::target::RecoveryTarget;
pub use crate::verify::{VerifyReport, verify};

/// What recovery makes of an unfinished tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RecoveryMode {
    /// Drops it, and counts it in the report: power may fail at any time. Begins behind the last
    /// checkpoint, and does not look for damage before it; the other modes read everything.
    #[default]
    TornTail,
    /// Refuses it: for logs that were closed cleanly, such as copies to be archived.
    Strict,
    /// As the default, but damage is no error: all cores end before the first entry that it can
    /// have taken, so that what is left is what there was at one point in time. For engines that
    /// would rather go on from an older state than stand still.
    PointInTime,
    /// As the default, but what is damaged is passed over, and every core keeps what can be read:
    /// for getting out of a log what there is. What is left may lack entries in its midst, and
    /// hold others that would not be there without those.
    Salvage,
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
