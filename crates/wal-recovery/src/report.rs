//! What recovery found, for people at 3 a.m. and for programs.

use std::fmt;
use std::path::PathBuf;

pub use crate::verdict::Label;

/// What recovery found, core by core.
///
/// Printed with `{}` it is a text of a line or two per core.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The log's directory.
    pub path: PathBuf,
    /// The log's id in hexadecimal; `None` if there is no log yet.
    pub log_id: Option<String>,
    /// The number of the manifest that counts.
    pub manifest_number: Option<u64>,
    /// The last complete checkpoint.
    pub checkpoint: Option<CheckpointReport>,
    /// Every core, ascending.
    pub cores: Vec<CoreReport>,
    /// Names that no log gives, relative to the directory. They were left alone.
    pub strange_names: Vec<String>,
    /// What was left out though it is there, as the mode or the target asked for; dropped once that
    /// is accepted. Empty unless something other than the whole log was asked for.
    pub losses: Vec<Loss>,
}

/// A range of a core's log that a recovery leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Loss {
    /// The core.
    pub core: u16,
    /// Where the range begins.
    pub position: u64,
    /// Where it ends, at least: behind damage nobody can say how much there was.
    pub end_position: u64,
    /// Why it is left out; for damage, where that is and how it is known.
    pub reason: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { core, position, end_position, reason } = self;
        write!(f, "core {core}: from {position} to {end_position} at least: {reason}")
    }
}

/// The checkpoint that the manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CheckpointReport {
    /// The caller's name for it.
    pub id: u64,
    /// The epoch that it closed.
    pub epoch: u64,
}

/// What recovery found of one core.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CoreReport {
    /// The core.
    pub core: u16,
    /// How many segments hold its log.
    pub segments: u64,
    /// How many entries there are: all of them were read and found valid, but for those below the
    /// last checkpoint, which the default mode counts by their sequences.
    pub entries: u64,
    /// From the first position that is still there to the end.
    pub bytes: u64,
    /// Where the valid log ends.
    pub end_position: u64,
    /// The sequence that the next entry will have.
    pub next_sequence: u64,
    /// The epoch that the core had reached.
    pub last_epoch: u64,
    /// How the log ended.
    pub ending: Ending,
}

/// How a core's log ended, and how that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Ending {
    /// The row of the table that decided; see `docs/recovery.md`.
    pub label: Label,
    /// What it decided.
    pub kind: EndingKind,
    /// The file in which the log ends, relative to the directory; `None` if no segment was ever
    /// written to.
    pub file: Option<String>,
    /// What stands at the end, in words.
    pub found: String,
}

/// How a core's log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum EndingKind {
    /// Nothing was ever written.
    Empty,
    /// Closed cleanly, exactly here: nothing was lost.
    Closed,
    /// Not closed; but a vouch slot or the manifest says that the log was durable exactly up to
    /// here. What may be missing is a commit that came after that, and of which damage left no
    /// trace.
    Proven,
    /// Not closed, and nothing proves the last entries or that there were no more: had damage hit
    /// the newest commit within a second of the crash, it would look like this.
    Unproven,
    /// Something unfinished was dropped.
    Torn {
        /// How much, at least: nobody can say where a torn write was meant to end.
        dropped_bytes_at_least: u64,
        /// The core was not closed, so the dropped bytes may have been its newest commit, damaged
        /// within a second of the crash.
        unproven: bool,
    },
}

impl Ending {
    /// Whether the blind spot of promise 3 concerns this end: damage in what the newest commit made
    /// durable would look the same. Not so where a core was closed, or nothing was ever written. Of a
    /// proven end, what may be missing came behind what is proven.
    #[must_use]
    pub const fn is_unproven(&self) -> bool {
        matches!(
            self.kind,
            EndingKind::Proven | EndingKind::Unproven | EndingKind::Torn { unproven: true, .. }
        )
    }

    /// Whether something was dropped.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        matches!(self.kind, EndingKind::Torn { .. })
    }
}

impl RecoveryReport {
    /// Bytes of records of all cores that are still there.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cores.iter().map(|core| core.bytes).sum()
    }

    /// All entries of all cores.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.cores.iter().map(|core| core.entries).sum()
    }

    /// What was found of one core.
    #[must_use]
    pub fn core(&self, core: u16) -> Option<&CoreReport> {
        self.cores.iter().find(|report| report.core == core)
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match (&self.log_id, self.manifest_number) {
            (Some(log_id), Some(number)) => write!(f, "log {log_id}, manifest {number}")?,
            _ => write!(f, "no log yet")?,
        }
        if let Some(checkpoint) = &self.checkpoint {
            write!(f, ", checkpoint {} of epoch {}", checkpoint.id, checkpoint.epoch)?;
        }
        for core in &self.cores {
            write!(f, "\n  {core}")?;
        }
        for loss in &self.losses {
            write!(f, "\n  left out: {loss}")?;
        }
        for name in &self.strange_names {
            write!(f, "\n  left alone: {name:?} is no name of a log")?;
        }
        Ok(())
    }
}

impl fmt::Display for CoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {}: ", self.core)?;
        if self.ending.kind == EndingKind::Empty {
            return write!(f, "empty ({})", self.ending.label);
        }
        write!(
            f,
            "{} {}, {} {} in {} bytes up to epoch {}; {}",
            self.segments,
            plural(self.segments, "segment", "segments"),
            self.entries,
            plural(self.entries, "entry", "entries"),
            self.bytes,
            self.last_epoch,
            AtPosition(&self.ending, self.end_position)
        )
    }
}

const fn plural<'a>(count: u64, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// An ending, told with its position.
struct AtPosition<'a>(&'a Ending, u64);

impl fmt::Display for AtPosition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ending, position) = self;
        match ending.kind {
            EndingKind::Empty => return write!(f, "empty"),
            EndingKind::Closed => return write!(f, "closed at {position}"),
            EndingKind::Proven => write!(f, "ends at {position}, proven up to there")?,
            EndingKind::Unproven => write!(f, "ends at {position}, unproven")?,
            EndingKind::Torn { dropped_bytes_at_least, unproven } => {
                write!(f, "torn at {position}: dropped at least {dropped_bytes_at_least} bytes")?;
                if unproven {
                    write!(f, ", unproven")?;
                }
            }
        }
        write!(f, " ({}: {}", ending.label, ending.found)?;
        if let Some(file) = &ending.file {
            write!(f, ", in {file}")?;
        }
        write!(f, ")")
    }
}
