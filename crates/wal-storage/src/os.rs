//! The real storage: a directory of the operating system's.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::directory::{Directory, Modes};
use crate::error::{Result, WalError};
use crate::file::OsFile;
use crate::helpers::Helpers;
use crate::jobs::Jobs;
use crate::lock;
use crate::name::Name;
use crate::storage::{Access, DirectoryLock, Job, JobKind, Listed, Request, Storage, StorageFile};

/// A directory of the operating system's file system, two background threads, and some that help.
///
/// The directory is looked up once, here: on Unix every later call goes through its descriptor,
/// so that the log stays the same one when somebody moves the directory or puts a link in its
/// place. The path given may lead through links, as operators like it; nothing *below* the
/// directory may be one, and is refused as [`NotALog`](WalError::NotALog).
///
/// Files are made readable and writable for their owner alone (0600), directories likewise
/// (0700); [`OsStorageOptions`] widens that.
///
/// Background jobs run on two threads, one for each [`JobKind`], started when there is something
/// to do and ended when there was nothing for some seconds. Dropping the storage drops the jobs
/// that have not begun, and its threads end as soon as they have nothing in hand: the drop does
/// not wait for them. A job that owns the storage keeps it alive until it has run.
///
/// Several requests to [`perform`](Storage::perform) are done side by side: writes of up to 512 KiB
/// and syncs by up to 15 helper threads, started and ended like those of the jobs, with a copy of
/// the bytes each; the caller does the last one and everything else itself.
///
/// # Where this runs
///
/// Tested on Linux only, on ext4 and tmpfs. The other Unix systems and Windows have code of their
/// own, compiled but never run by us: no direct I/O there, no reserved space, and
/// [`WriteSync::Through`](crate::WriteSync::Through) is a write followed by a sync of the file.
pub struct OsStorage {
    directory: Directory,
    clock: Clock,
    jobs: Jobs,
    helpers: Helpers,
}

impl OsStorage {
    /// Uses the existing directory `directory`.
    ///
    /// # Errors
    ///
    /// [`NotALog`](WalError::NotALog) if the path leads to a file; an [`Io`](WalError::Io) error
    /// for which [`is_not_found`](WalError::is_not_found) holds if it leads nowhere.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        OsStorageOptions::new().open(directory)
    }

    /// Uses the directory `directory` and makes it first, and its missing parents, if it is not
    /// there. Every directory made is durable when this returns.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and whatever the file system says.
    pub fn create(directory: impl AsRef<Path>) -> Result<Self> {
        OsStorageOptions::new().create(directory)
    }
}

impl fmt::Debug for OsStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsStorage")
            .field("path", &self.directory.path())
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

/// How an [`OsStorage`] is to be opened or created.
///
/// ```
/// # #[cfg(unix)] {
/// # let scratch = tempfile::tempdir().unwrap();
/// # let directory = scratch.path().join("log");
/// use wal_storage::OsStorageOptions;
///
/// // Readable for the operators' group.
/// let storage = OsStorageOptions::new().permissions(0o640, 0o750).create(directory)?;
/// # }
/// # Ok::<(), wal_storage::WalError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct OsStorageOptions {
    modes: Modes,
}

impl OsStorageOptions {
    /// For the owner alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the permission bits of the files and directories that will be made: 0600 and 0700
    /// unless set. The process's umask still narrows them; what exists already stays as it is.
    #[cfg(unix)]
    #[must_use]
    pub const fn permissions(mut self, file_mode: u32, directory_mode: u32) -> Self {
        self.modes = Modes { file: file_mode, directory: directory_mode };
        self
    }

    /// See [`OsStorage::open`].
    ///
    /// # Errors
    ///
    /// As there; [`InvalidArgument`](WalError::InvalidArgument) for permissions that lock out the
    /// owner.
    pub fn open(&self, directory: impl AsRef<Path>) -> Result<OsStorage> {
        self.modes.check()?;
        let clock = Clock::new();
        Ok(OsStorage {
            directory: Directory::open(directory.as_ref(), self.modes)?,
            clock,
            jobs: Jobs::new(clock),
            helpers: Helpers::new(),
        })
    }

    /// See [`OsStorage::create`].
    ///
    /// # Errors
    ///
    /// As there; [`InvalidArgument`](WalError::InvalidArgument) for permissions that lock out the
    /// owner.
    pub fn create(&self, directory: impl AsRef<Path>) -> Result<OsStorage> {
        self.modes.check()?;
        Directory::make_with_parents(directory.as_ref(), self.modes)?;
        self.open(directory)
    }
}

impl Storage for OsStorage {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn lock(&self) -> Result<DirectoryLock> {
        lock::take(&self.directory)
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        self.directory.list(&Name::of_directory(directory)?)
    }

    fn create_directory(&self, name: &str) -> Result<()> {
        self.directory.make_directory(&Name::new(name)?)
    }

    fn create(&self, name: &str, size_bytes: u64, access: Access) -> Result<Box<dyn StorageFile>> {
        self.create_with(OsFile::zeroed, name, size_bytes, access)
    }

    fn create_reserved(
        &self,
        name: &str,
        size_bytes: u64,
        access: Access,
    ) -> Result<Box<dyn StorageFile>> {
        self.create_with(OsFile::reserved, name, size_bytes, access)
    }

    fn open(&self, name: &str, access: Access) -> Result<Box<dyn StorageFile>> {
        let name = Name::new(name)?;
        let opened = self.directory.open_file(&name, access != Access::Read)?;
        let file = OsFile::existing(opened, self.directory.full_path(&name), access)?;
        Ok(Box::new(Arc::new(file)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.directory.rename(&Name::new(from)?, &Name::new(to)?)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.directory.remove(&Name::new(name)?)
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        self.directory.sync(&Name::of_directory(directory)?)
    }

    fn free_bytes(&self) -> Result<u64> {
        self.directory.free_bytes()
    }

    fn perform(&self, requests: &[Request<'_>]) -> Vec<Result<()>> {
        match requests {
            [] => Vec::new(),
            [alone] => vec![alone.perform()],
            _ => self.helpers.perform(requests),
        }
    }

    fn spawn(&self, kind: JobKind, delay: Duration, job: Job) -> Result<()> {
        self.jobs.spawn(kind, delay, job).map_err(|source| {
            WalError::io(self.directory.path(), "starting a background thread", source)
        })
    }

    fn parallelism(&self) -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn wall_clock_ns(&self) -> i64 {
        self.clock.wall_clock_ns()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<()> {
        getrandom::fill(buffer).map_err(|error| {
            let source = match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::other(error.to_string()),
            };
            WalError::io(self.directory.path(), "reading random bytes for it", source)
        })
    }
}

impl OsStorage {
    fn create_with(
        &self,
        make: impl FnOnce(File, PathBuf, Access, u64) -> Result<OsFile>,
        name: &str,
        size_bytes: u64,
        access: Access,
    ) -> Result<Box<dyn StorageFile>> {
        if access == Access::Read {
            return Err(WalError::InvalidArgument {
                what: format!(
                    "{}: a file cannot be created for reading alone; use Access::ReadWrite",
                    self.directory.path().join(name).display()
                ),
            });
        }
        let name = Name::new(name)?;
        let path = self.directory.full_path(&name);
        let created = self.directory.create_file(&name, size_bytes)?;
        match make(created, path, access, size_bytes) {
            Ok(file) => Ok(Box::new(Arc::new(file))),
            Err(error) => {
                // The first error is the one to report; a half-made file that cannot be removed
                // either has a name that no log uses yet.
                let _ = self.directory.remove(&name);
                Err(error)
            }
        }
    }
}
