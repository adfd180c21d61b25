//! How a log is opened: where, for how many cores, with which sizes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal_recovery::{Recovery, RecoveryMode, RecoveryTarget};
use wal_storage::{OsStorage, Result, Storage};
use wal_writer::{CoreSelection, GroupCommit, LogOptions, PendingRecovery, Wal};

/// Opens a log, or makes one. Every option but the directory has a default that suits most
/// programs; `docs/ARCHITECTURE.md` says why they are what they are.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("log");
/// use laminar_wal::WalOptions;
///
/// let (wal, recovery) = WalOptions::new(&path).cores(4).open()?;
/// assert_eq!(recovery.report().cores.len(), 0); // there was nothing yet
/// assert_eq!(wal.core_count(), 4);
/// wal.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is opened before `open` is called"]
pub struct WalOptions {
    place: Place,
    cores: u16,
    log: LogOptions,
}

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    Storage(Arc<dyn Storage>),
}

impl WalOptions {
    /// Options for the log in `directory`, which is made if it is not there.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self::at(Place::Directory(directory.as_ref().to_path_buf()))
    }

    /// Options for a log in a storage of the caller's, such as the simulated disk of `wal-sim`.
    pub fn on_storage(storage: Arc<dyn Storage>) -> Self {
        Self::at(Place::Storage(storage))
    }

    fn at(place: Place) -> Self {
        Self { place, cores: 1, log: LogOptions::default() }
    }

    /// How many cores log: `0..cores`, 1 unless set. May differ from the number that the log was
    /// written with.
    pub const fn cores(mut self, cores: u16) -> Self {
        self.cores = cores;
        self
    }

    /// Size of a full segment file in bytes, a multiple of 4096; 64 MiB unless set. The first
    /// segments of an opening are smaller: 256 KiB, then twice the one before.
    pub const fn segment_bytes(mut self, bytes: u64) -> Self {
        self.log.segment_bytes = bytes;
        self
    }

    /// The largest record that is accepted, in bytes of its payload, a multiple of 8; 16 MiB
    /// unless set.
    pub const fn max_record_bytes(mut self, bytes: u32) -> Self {
        self.log.max_record_bytes = bytes;
        self
    }

    /// Size of one batch buffer in bytes, a multiple of 4096; 256 KiB unless set. A core has at
    /// least two.
    pub const fn batch_bytes(mut self, bytes: usize) -> Self {
        self.log.batch_bytes = bytes;
        self
    }

    /// How many bytes of a core may wait for the disk before an append waits too, rounded up to
    /// whole buffers; 4 MiB unless set.
    pub const fn in_flight_bytes(mut self, bytes: usize) -> Self {
        self.log.in_flight_bytes = bytes;
        self
    }

    /// How many files of segments that a checkpoint gave back are kept, per core, to be used again;
    /// 2 unless set.
    pub const fn recycled_segments(mut self, files: usize) -> Self {
        self.log.recycled_segments = files;
        self
    }

    /// When a commit begins for those who wait for a ticket: as soon as the disk is free unless
    /// set.
    pub const fn group_commit(mut self, policy: GroupCommit) -> Self {
        self.log.group_commit = policy;
        self
    }

    /// What to make of a torn tail, and of damage; [`RecoveryMode::TornTail`] unless set.
    pub const fn recovery_mode(mut self, mode: RecoveryMode) -> Self {
        self.log.recovery_mode = mode;
        self
    }

    /// Up to where the log is recovered; [`RecoveryTarget::End`] unless set. For anything else see
    /// [`recover`](Self::recover).
    pub const fn recovery_target(mut self, target: RecoveryTarget) -> Self {
        self.log.recovery_target = target;
        self
    }

    /// Recovers the log without opening it: for a [mode](RecoveryMode::PointInTime) or a
    /// [target](RecoveryTarget) that leaves something out, to be looked at before it is
    /// [accepted](PendingRecovery::accept).
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("log");
    /// use laminar_wal::{RecoveryMode, WalOptions};
    ///
    /// let options = WalOptions::new(&path).cores(4).recovery_mode(RecoveryMode::PointInTime);
    /// let pending = options.recover()?;
    /// println!("{}", pending.report()); // names every range that would be left out, and why
    /// let (wal, recovery) = pending.accept()?;
    /// # wal.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for [`NotAccepted`](crate::WalError::NotAccepted).
    pub fn recover(self) -> Result<PendingRecovery> {
        let (storage, log, selection) = self.parts()?;
        Wal::recover(storage, log, selection)
    }

    /// Opens the log for writing, and gives what was recovered to be replayed.
    ///
    /// Each opening begins a new epoch, one above the highest found, so that entries of different
    /// openings can be told apart; an empty log begins at 0.
    ///
    /// Everything recovered is durable when this returns. What was found on disk is not changed;
    /// a torn tail is left behind once something is appended.
    ///
    /// # Errors
    ///
    /// [`Locked`](crate::WalError::Locked) if another `Wal` has the directory,
    /// [`NotALog`](crate::WalError::NotALog) if it holds something else,
    /// [`Corrupt`](crate::WalError::Corrupt) with place and proof if durable bytes are damaged,
    /// [`UnsupportedVersion`](crate::WalError::UnsupportedVersion),
    /// [`ManifestLost`](crate::WalError::ManifestLost),
    /// [`NotAccepted`](crate::WalError::NotAccepted) if mode or target leave something out,
    /// [`InvalidArgument`](crate::WalError::InvalidArgument) for unusable options, and whatever
    /// the operating system says.
    pub fn open(self) -> Result<(Wal, Recovery)> {
        let (storage, log, selection) = self.parts()?;
        Wal::open(storage, log, selection)
    }

    fn parts(self) -> Result<(Arc<dyn Storage>, LogOptions, CoreSelection)> {
        let storage: Arc<dyn Storage> = match self.place {
            Place::Directory(directory) => Arc::new(OsStorage::create(directory)?),
            Place::Storage(storage) => storage,
        };
        Ok((storage, self.log, CoreSelection::First(self.cores)))
    }
}
