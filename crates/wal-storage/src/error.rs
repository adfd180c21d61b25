//! The one error type: every variant says what happened, where, and who must act.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// What laminar-wal's functions return.
pub type Result<T, E = WalError> = std::result::Result<T, E>;

/// Why an operation failed, ordered by who can do something about it.
///
/// Clones are cheap enough to hand one cause to every waiter.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum WalError {
    // ---- the caller ----
    /// The record would be longer than the log's limit. Nothing was appended.
    #[error(
        "core {core}: a record of {payload_bytes} bytes is over this log's limit of \
         {limit_bytes}; split it, or make a log with a higher `max_record_bytes`"
    )]
    RecordTooLarge {
        /// The core whose writer refused.
        core: u16,
        /// The record's payload.
        payload_bytes: u64,
        /// The largest payload that this log accepts, and that its readers accept.
        limit_bytes: u64,
    },

    /// The core's writer lives elsewhere. Drop it first, or use it where it is.
    #[error("core {core}: its writer has been taken already; drop that one first")]
    WriterTaken {
        /// The core asked for.
        core: u16,
    },

    /// No such core in this log.
    #[error("core {core} is out of range: this log was opened with {cores} cores")]
    CoreOutOfRange {
        /// The core asked for.
        core: u16,
        /// How many cores the log was opened with.
        cores: u32,
    },

    /// An epoch must not fall.
    #[error("core {core}: epoch {requested} lies below its current epoch {current}")]
    EpochRegressed {
        /// The core whose writer refused.
        core: u16,
        /// The epoch asked for.
        requested: u64,
        /// The writer's epoch.
        current: u64,
    },

    /// A ready-made entry does not continue the core's log. Nothing was appended.
    #[error("core {core}: the entry's {field} is {given}, but the log goes on with {expected}")]
    EntryOutOfOrder {
        /// The core whose writer refused.
        core: u16,
        /// Which field does not fit: `core_id`, `sequence`, `epoch` or `timestamp_ns`.
        field: &'static str,
        /// The entry's value.
        given: i128,
        /// The only value that fits, or for epoch and timestamp the lowest.
        expected: i128,
    },

    /// The log must not be cut below its checkpoint.
    #[error(
        "core {core}: position {position} lies below the checkpoint at {checkpoint_position}; \
         `reset` is the way to give up the checkpoint too"
    )]
    BelowCheckpoint {
        /// The core in question.
        core: u16,
        /// The position asked for.
        position: u64,
        /// Where the last checkpoint stands on this core.
        checkpoint_position: u64,
    },

    /// No record starts or ends at this position.
    #[error(
        "core {core}: position {position} is not a record boundary; the nearest are \
         {boundary_below} and {boundary_above}"
    )]
    NotARecordBoundary {
        /// The core in question.
        core: u16,
        /// The position asked for.
        position: u64,
        /// The last boundary at or below it.
        boundary_below: u64,
        /// The first boundary above it; the log's end if there is none.
        boundary_above: u64,
    },

    /// A proof of an external sync that does not belong here. Nothing was marked.
    #[error("core {core}: this proof of a sync does not fit: {reason}")]
    ProofRejected {
        /// The core whose writer refused.
        core: u16,
        /// What does not fit.
        reason: &'static str,
    },

    /// A checkpoint is open already. Complete it, or drop it to give it up.
    #[error("checkpoint {id} of epoch {epoch} is still open; complete it or drop it first")]
    CheckpointOpen {
        /// The caller's name for the open one.
        id: u64,
        /// The epoch that it closes.
        epoch: u64,
    },

    /// Not all cores have their barrier durable in time. The checkpoint is still open.
    #[error(
        "checkpoint {id} of epoch {epoch}: no durable barrier yet of {cores}",
        cores = CoreList(cores)
    )]
    CheckpointIncomplete {
        /// The caller's name for the checkpoint.
        id: u64,
        /// The epoch that it closes.
        epoch: u64,
        /// The cores that are missing, ascending.
        cores: Vec<u16>,
    },

    /// The checkpoint does not count: nothing was written, and the one before still does.
    #[error("checkpoint {id} of epoch {epoch} does not count: {reason}")]
    CheckpointRefused {
        /// The caller's name for the checkpoint.
        id: u64,
        /// The epoch that it was to close.
        epoch: u64,
        /// Why it does not.
        reason: String,
    },

    /// An option or an argument that cannot be used.
    #[error("{what}")]
    InvalidArgument {
        /// What is wrong, and what would be right.
        what: String,
    },

    /// The log has been closed.
    #[error("the log in {path} has been closed; open it again to go on", path = path.display())]
    Closed {
        /// The log's directory.
        path: PathBuf,
    },

    // ---- the operator ----
    /// There is no room for this. Nothing was accepted, and nothing is poisoned: free space, or
    /// write a checkpoint so that the log can release some, and go on.
    #[error("{path}: no space left for {needed_bytes} bytes ({operation})", path = path.display())]
    StorageFull {
        /// What was to be written.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// How many bytes it needed.
        needed_bytes: u64,
    },

    /// Another process, or another `Wal` in this one, writes to this directory.
    #[error("{path} is locked by another writer; close it first", path = path.display())]
    Locked {
        /// The log's directory.
        path: PathBuf,
    },

    /// The directory holds something, but not a log.
    #[error("{path} is not a log: {reason}", path = path.display())]
    NotALog {
        /// The directory or file in question.
        path: PathBuf,
        /// What is missing or strange.
        reason: String,
    },

    /// A file of another log lies in this one's directory.
    #[error(
        "{path} belongs to log {found}, this directory to log {expected}; move the file away",
        path = path.display()
    )]
    ForeignLog {
        /// The file.
        path: PathBuf,
        /// The log id of the directory, in hexadecimal.
        expected: String,
        /// The log id in the file, in hexadecimal.
        found: String,
    },

    /// Written by a newer version. Nothing is wrong with it, but this version must not touch it.
    #[error(
        "{path} is of format version {found}{features}; this program reads up to version \
         {supported}: use a newer laminar-wal",
        path = path.display(),
        features = FeatureNote(*unknown_features)
    )]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version that this program knows.
        supported: u32,
        /// Feature bits that this program does not know; 0 if the version itself is the reason.
        unknown_features: u64,
    },

    /// The manifest that the log needs cannot be read.
    #[error(
        "{path}: {named_by} needs manifest number {needed}, the newest that can be read is \
         {newest}: both slots are lost or old. {way_out}",
        path = path.display(),
        newest = OptionalNumber(*newest)
    )]
    ManifestLost {
        /// The log's directory.
        path: PathBuf,
        /// What proves that a newer manifest was written.
        named_by: String,
        /// The lowest number that would do.
        needed: u64,
        /// The highest number found, if any slot could be read.
        newest: Option<u64>,
        /// What to do.
        way_out: &'static str,
    },

    /// Recovery leaves out something that is there, as its mode or target asked for, and nobody has
    /// looked at that yet. Nothing was changed.
    #[error(
        "{path} was not opened: {ranges} {of_log} would be left out, the first one of {first}; \
         recover it without opening, look at what is left, and accept that",
        path = path.display(),
        of_log = if *ranges == 1 { "range of the log" } else { "ranges of the log" }
    )]
    NotAccepted {
        /// The log's directory.
        path: PathBuf,
        /// How many ranges.
        ranges: usize,
        /// The first one: core, positions, and why.
        first: String,
    },

    // ---- the device ----
    /// The operating system refused.
    #[error("{path}: {operation} failed: {source}", path = path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The operating system's own words.
        source: Arc<io::Error>,
    },

    /// An earlier write or sync of this core's log failed, so what reached the disk is unknown
    /// and nothing later may be called durable. Reopen the log to go on.
    #[error("core {core}: its log is poisoned, reopen it to go on; the first cause was: {first}")]
    Poisoned {
        /// The core whose log is poisoned.
        core: u16,
        /// What failed first.
        first: Arc<Self>,
    },

    // ---- the data ----
    /// Bytes that were durable are no longer what was written. Nothing was changed.
    #[error("{0}")]
    Corrupt(Arc<Corruption>),
}

impl WalError {
    /// An [`Io`](Self::Io) error.
    #[must_use]
    pub fn io(path: impl Into<PathBuf>, operation: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.into(), operation, source: Arc::new(source) }
    }

    /// The same error about another path: for a file that was renamed since it was opened.
    #[must_use]
    pub fn at(self, path: &Path) -> Self {
        let path = path.to_path_buf();
        match self {
            Self::Io { operation, source, .. } => Self::Io { path, operation, source },
            Self::StorageFull { operation, needed_bytes, .. } => {
                Self::StorageFull { path, operation, needed_bytes }
            }
            other => other,
        }
    }

    /// Whether a file or directory was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether there was no space left, or no more quota.
    #[must_use]
    pub const fn is_storage_full(&self) -> bool {
        matches!(self, Self::StorageFull { .. })
    }

    /// Whether the data is damaged, as opposed to out of reach or misused.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt(_))
    }

    /// The file or directory that the error is about, where there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Closed { path }
            | Self::StorageFull { path, .. }
            | Self::Locked { path }
            | Self::NotALog { path, .. }
            | Self::ForeignLog { path, .. }
            | Self::UnsupportedVersion { path, .. }
            | Self::ManifestLost { path, .. }
            | Self::NotAccepted { path, .. }
            | Self::Io { path, .. } => Some(path),
            Self::Corrupt(corruption) => Some(&corruption.path),
            Self::Poisoned { first, .. } => first.path(),
            _ => None,
        }
    }
}

impl From<Corruption> for WalError {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(Arc::new(corruption))
    }
}

/// Where damage lies, what is wrong there, and how it is known that this is no torn write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged file.
    pub path: PathBuf,
    /// The core whose log it belongs to; `None` for a manifest.
    pub core: Option<u16>,
    /// The position in the core's log where the damage begins, if it lies among the records.
    pub position: Option<u64>,
    /// The damaged bytes of the file, first and one past the last, as far as they are known.
    pub file_range: Option<(u64, u64)>,
    /// What is wrong, with both sides of any mismatch.
    pub what: String,
    /// What proves that these bytes were durable, if that is what makes it damage.
    pub proven_by: Option<ProvenBy>,
}

/// A claim that bytes were durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenBy {
    /// Everything of the core's log below this position was durable.
    pub durable_position: u64,
    /// What says so: a mark, a start block, a vouch slot, the manifest.
    pub witness: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(core) = self.core {
            write!(f, "core {core}, ")?;
        }
        write!(f, "{}", self.path.display())?;
        if let Some(position) = self.position {
            write!(f, ", position {position}")?;
        }
        if let Some((first, end)) = self.file_range {
            write!(f, " (bytes {first}..{end} of the file)")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(proof) = &self.proven_by {
            write!(
                f,
                "; durable up to {} by {}, so this is damage, not a torn write",
                proof.durable_position, proof.witness
            )?;
        }
        Ok(())
    }
}

struct CoreList<'a>(&'a [u16]);

impl fmt::Display for CoreList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.0.len() == 1 { "core" } else { "cores" })?;
        for (index, core) in self.0.iter().enumerate() {
            write!(f, "{}{core}", if index == 0 { " " } else { ", " })?;
        }
        Ok(())
    }
}

struct FeatureNote(u64);

impl fmt::Display for FeatureNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            bits => write!(f, " with unknown features {bits:#x}"),
        }
    }
}

struct OptionalNumber(Option<u64>);

impl fmt::Display for OptionalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => write!(f, "none"),
        }
    }
}
