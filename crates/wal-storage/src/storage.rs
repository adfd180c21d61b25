//! The two traits behind which every byte, job and clock reading of a log passes.
//!
//! The contracts say what a caller gets, and above all what it may *not* assume: an
//! implementation may take every liberty that is not excluded here, and the simulated one does.

use std::any::Any;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;

/// A directory that holds one log, and the machine under it.
///
/// Names are relative to the directory, with `/` between directory and file
/// (`core-0003/00000000000000000042.wal`); the empty name is the directory itself. A name that
/// could leave the directory is an [`InvalidArgument`](crate::WalError::InvalidArgument); links
/// are not followed, and something of another kind where a file or directory is expected is
/// [`NotALog`](crate::WalError::NotALog). New files and directories are readable and writable for their owner alone unless the
/// implementation was told otherwise.
///
/// # What may not be assumed
///
/// - A name that was created, renamed or removed survives power loss only after
///   [`sync_directory`](Self::sync_directory) of its directory returned `Ok`. Before, each single
///   change may or may not be there, in any combination.
/// - A job given to [`spawn`](Self::spawn) runs some time, on some thread, or never (a simulated
///   machine decides; a process ends). Whoever needs its result must be able to do its work.
pub trait Storage: Debug + Send + Sync {
    /// Where the directory is, for messages.
    fn path(&self) -> &Path;

    /// Takes the directory for one writing process, until the last clone of the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`WalError::Locked`](crate::WalError::Locked) if another holder, in this process or
    /// another, has it. Returns at once in any case.
    fn lock(&self) -> Result<DirectoryLock>;

    /// What the directory `directory` holds, in no particular order.
    ///
    /// # Errors
    ///
    /// An [`Io`](crate::WalError::Io) error; [`is_not_found`](crate::WalError::is_not_found) if
    /// there is no such directory.
    fn list(&self, directory: &str) -> Result<Vec<Listed>>;

    /// Makes the directory `name`; `Ok` if it is there already. The name is not durable yet.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn create_directory(&self, name: &str) -> Result<()>;

    /// Makes the file `name`, which must not exist, of `size_bytes` zeroes that are really
    /// written: overwriting them later needs no new space and changes no metadata.
    ///
    /// Neither name nor content is durable yet. On failure no file stays behind, as far as the
    /// file system lets it be removed. `access` must allow writing.
    ///
    /// # Errors
    ///
    /// [`StorageFull`](crate::WalError::StorageFull) if there is no room for it.
    fn create(&self, name: &str, size_bytes: u64, access: Access) -> Result<Box<dyn StorageFile>>;

    /// As [`create`](Self::create), but the zeroes need not be written: the space is set aside,
    /// and reads as zeroes.
    ///
    /// Takes next to no time. Overwriting needs no new space either, but the first write to a block
    /// may change metadata, which the next sync then has to write too: for a file that will be
    /// filled in large pieces and seldom synced.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    fn create_reserved(
        &self,
        name: &str,
        size_bytes: u64,
        access: Access,
    ) -> Result<Box<dyn StorageFile>> {
        self.create(name, size_bytes, access)
    }

    /// Opens the existing file `name`.
    ///
    /// # Errors
    ///
    /// An [`Io`](crate::WalError::Io) error; [`is_not_found`](crate::WalError::is_not_found) if
    /// there is no such file.
    fn open(&self, name: &str, access: Access) -> Result<Box<dyn StorageFile>>;

    /// Gives the file `from` the name `to`, in place of any file that has it: at every moment,
    /// also after a crash, `to` names the old file or the new one. Open files stay usable.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Removes the file `name`.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn remove(&self, name: &str) -> Result<()>;

    /// Makes every change of names in `directory` that returned before this call durable.
    ///
    /// # Errors
    ///
    /// After an error none of the changes may be counted on, and a later `Ok` of the same process
    /// proves nothing about them.
    fn sync_directory(&self, directory: &str) -> Result<()>;

    /// Bytes that this process could still write to the file system of the directory.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn free_bytes(&self) -> Result<u64>;

    /// Writes to several files and syncs them in one call, side by side where the implementation
    /// can, and returns when all are done: one result per request, in their order.
    ///
    /// Each request promises what the [`StorageFile`] call of its name promises, and nothing about
    /// another one: no order among requests may be assumed, so a [`Sync`](Request::Sync) says
    /// nothing of a [`Write`](Request::Write) in the same call, not even to the same file. Writes
    /// to one file must not overlap.
    ///
    /// # Errors
    ///
    /// Each request's own, in its place; the others are done in any case.
    fn perform(&self, requests: &[Request<'_>]) -> Vec<Result<()>> {
        requests.iter().map(Request::perform).collect()
    }

    /// Runs `job` in the background, not before `delay` has passed.
    ///
    /// Jobs of one kind run one after the other, in the order in which they are due; those of
    /// different kinds do not wait for each other. A job that panics ends alone. Jobs that have not
    /// begun when the storage is dropped may be dropped with it.
    ///
    /// # Errors
    ///
    /// If no thread can be had; the job is dropped un-run then.
    fn spawn(&self, kind: JobKind, delay: Duration, job: Job) -> Result<()>;

    /// How many threads recovery may read with; 1 where the order of operations must not depend
    /// on chance.
    fn parallelism(&self) -> usize {
        1
    }

    /// Time that never steps back, since some fixed moment.
    fn now(&self) -> Duration;

    /// Nanoseconds since 1970, as the wall clock has it: it may step either way at any time.
    fn wall_clock_ns(&self) -> i64;

    /// Fills `buffer` with bytes that no other life of any log will see again.
    ///
    /// # Errors
    ///
    /// If the operating system has no random bytes.
    fn fill_random(&self, buffer: &mut [u8]) -> Result<()>;
}

/// One open file.
///
/// # What may not be assumed
///
/// - Written bytes survive power loss only after a [`sync`](Self::sync) that began after the
///   write returned, or if the write itself was [`WriteSync::Through`]. Before, any subset of the
///   written sectors may be on disk, in any order of the writes; inside one rewritten block each
///   byte is the old or the new one.
/// - A failed write may have written any part of its bytes.
/// - A failed sync may have dropped what it was to make durable, for good, while
///   [`read_at`](Self::read_at) still returns it; a later `Ok` proves nothing about it.
pub trait StorageFile: Any + Debug + Send + Sync {
    /// How this file is written; it stays so while the file is open.
    fn mode(&self) -> IoMode;

    /// The file's size.
    ///
    /// # Errors
    ///
    /// Whatever the file system says.
    fn size_bytes(&self) -> Result<u64>;

    /// Reads from `offset` until `buffer` is full or the file ends, and returns how many bytes
    /// it read.
    ///
    /// Beside a running write, bytes of its range may be old ones or new ones, in any mixture.
    /// In [`IoMode::Direct`], `buffer`'s address and length and `offset` must be multiples of
    /// 4096.
    ///
    /// # Errors
    ///
    /// Whatever the device says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;

    /// Writes `slices` one after the other from `offset` on, all of them or an error.
    ///
    /// In [`IoMode::Direct`], every slice's address and length and `offset` must be multiples of
    /// 4096. The call never makes the file longer than it needs to.
    ///
    /// # Errors
    ///
    /// [`StorageFull`](crate::WalError::StorageFull) or an [`Io`](crate::WalError::Io) error. Any
    /// part may have been written.
    fn write_at(&self, slices: &[&[u8]], offset: u64, sync: WriteSync) -> Result<()>;

    /// Makes every write to this file that returned before this call durable, with the size
    /// needed to read it back.
    ///
    /// # Errors
    ///
    /// Whatever the device says; see the trait for what an error means.
    fn sync(&self) -> Result<()>;
}

/// One thing that [`Storage::perform`] is to do.
#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    /// [`StorageFile::write_at`].
    Write {
        /// The file to write to.
        file: &'a dyn StorageFile,
        /// The bytes, one slice after the other.
        slices: &'a [&'a [u8]],
        /// Where the first byte goes.
        offset: u64,
        /// What the `Ok` promises.
        sync: WriteSync,
    },
    /// [`StorageFile::sync`]: what was written before the whole call, not in it.
    Sync {
        /// The file to sync.
        file: &'a dyn StorageFile,
    },
}

impl<'a> Request<'a> {
    /// Does this one alone, in this thread.
    ///
    /// # Errors
    ///
    /// As [`StorageFile::write_at`] or [`StorageFile::sync`].
    pub fn perform(&self) -> Result<()> {
        match *self {
            Self::Write { file, slices, offset, sync } => file.write_at(slices, offset, sync),
            Self::Sync { file } => file.sync(),
        }
    }

    pub(crate) const fn file(&self) -> &'a dyn StorageFile {
        match *self {
            Self::Write { file, .. } | Self::Sync { file } => file,
        }
    }
}

/// What the `Ok` of a write promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteSync {
    /// Nothing: the bytes are on their way.
    None,
    /// The bytes of this very call are durable, with the size needed to read them back
    /// (`RWF_DSYNC`). It says nothing of earlier writes, not even to the same file.
    Through,
}

/// What a file is opened for, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading alone, through the page cache.
    Read,
    /// Reading and writing through the page cache.
    ReadWrite,
    /// Reading and writing past the page cache where the file system can and the file's size is
    /// a multiple of 4096 ([`StorageFile::mode`] says), otherwise as
    /// [`ReadWrite`](Self::ReadWrite).
    ReadWriteDirect,
}

/// How a file's bytes reach the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// Past the page cache, in whole blocks of 4096 bytes.
    Direct,
    /// Through the page cache.
    Buffered,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name without its directory; characters that are not Unicode are replaced.
    pub name: String,
    /// What the name stands for.
    pub kind: ListedKind,
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a link, a device, a socket. A log never uses one.
    Other,
}

/// A piece of background work. It is shared so that work which comes again and again, once per
/// full buffer, is made once; each [`Storage::spawn`] runs it once.
pub type Job = Arc<dyn Fn() + Send + Sync>;

/// Which queue a job waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Makes entries durable: somebody may wait for it.
    Lead,
    /// Gets segments ready; may take long.
    Prepare,
}

/// Held while a process may write to the directory; see [`Storage::lock`].
pub type DirectoryLock = Arc<dyn LockGuard>;

/// What a [`DirectoryLock`] holds; dropping the last one gives the directory free.
pub trait LockGuard: Debug + Send + Sync {}
