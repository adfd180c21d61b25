//! What a program asks of the machine: [`Storage`], with its operations counted and failed.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wal_storage::{
    Access, DirectoryLock, IoMode, Job, JobKind, Listed, ListedKind, LockGuard, Request, Result,
    Storage, StorageFile, WalError,
};

use crate::content::BLOCK_BYTES;
use crate::disk::FileId;
use crate::fault::{Cause, Operation, OperationKind, Part, Verdict};
use crate::file::SimFile;
use crate::machine::{Machine, SimStorage};
use crate::names::Entry;
use crate::random::{Random, mix};
use crate::state::State;

/// Longer files are refused. One TiB in a test is a mistake in an offset.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 40;

impl Storage for SimStorage {
    fn path(&self) -> &Path {
        &self.machine.path
    }

    fn lock(&self) -> Result<DirectoryLock> {
        if self.state().is_halted {
            return Err(self.machine.error("", "locking", halted()));
        }
        if self.machine.is_locked.swap(true, Ordering::SeqCst) {
            return Err(WalError::Locked { path: self.machine.path.clone() });
        }
        Ok(Arc::new(SimLock { machine: self.machine.clone() }))
    }

    /// The order is not that of the names: whoever needs one must sort.
    fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        let operation = Asked::new(OperationKind::List, directory);
        let state = &mut *self.state();
        self.begin(state, &operation)?;
        let id = self.said(directory, &operation, state.disk.directory(directory))?;
        let names = state.disk.directories.get(&id).map(|directory| &directory.view);
        let mut listed: Vec<Listed> = names
            .into_iter()
            .flatten()
            .map(|(name, entry)| Listed { name: name.to_string(), kind: entry.kind() })
            .collect();
        Random::stream(self.machine.seed, mix(5, id.0)).shuffle(&mut listed);
        Ok(listed)
    }

    fn create_directory(&self, name: &str) -> Result<()> {
        let operation = Asked::new(OperationKind::CreateDirectory, name);
        self.change_names(&operation, |state| state.disk.create_directory(name))
    }

    fn create(&self, name: &str, size_bytes: u64, access: Access) -> Result<Box<dyn StorageFile>> {
        self.make_file(OperationKind::Create, name, size_bytes, access)
    }

    /// To this disk the same as [`create`](Self::create), under another name: reserved space reads
    /// as zeroes before a crash and behind it, whatever was written to it and not synced.
    fn create_reserved(
        &self,
        name: &str,
        size_bytes: u64,
        access: Access,
    ) -> Result<Box<dyn StorageFile>> {
        self.make_file(OperationKind::CreateReserved, name, size_bytes, access)
    }

    fn open(&self, name: &str, access: Access) -> Result<Box<dyn StorageFile>> {
        let operation = Asked::new(OperationKind::Open, name);
        let state = &mut *self.state();
        self.begin(state, &operation)?;
        let id = self.said(name, &operation, state.disk.file_named(name))?;
        Ok(self.opened(state, id, access))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let operation = Asked { other: Some(to), ..Asked::new(OperationKind::Rename, from) };
        self.change_names(&operation, |state| {
            let replaced = state.disk.rename(from, to)?;
            replaced.into_iter().for_each(|id| state.give_back(id));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        let operation = Asked::new(OperationKind::Remove, name);
        self.change_names(&operation, |state| {
            let removed = state.disk.remove(name)?;
            state.give_back(removed);
            Ok(())
        })
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        let operation = Asked::new(OperationKind::SyncDirectory, directory);
        let state = &mut *self.state();
        let verdict = self.judge(state, &operation)?;
        let id = self.said(directory, &operation, state.disk.directory(directory))?;
        match verdict {
            Verdict::Proceed => {
                state.sync_names(id);
                Ok(())
            }
            Verdict::Fail { cause, part } => {
                if cause != Cause::Halted {
                    state.drop_name_changes(id, part);
                }
                Err(self.failed(&operation, cause))
            }
        }
    }

    fn free_bytes(&self) -> Result<u64> {
        let state = self.state();
        if state.is_halted {
            return Err(self.machine.error("", "asking for its free space", halted()));
        }
        Ok(state.free_blocks() * BLOCK_BYTES as u64)
    }

    /// The requests are carried out in an order that the seed chooses: callers were told that
    /// there is none.
    fn perform(&self, requests: &[Request<'_>]) -> Vec<Result<()>> {
        let mut order: Vec<usize> = (0..requests.len()).collect();
        self.state().order.shuffle(&mut order);
        let mut results: Vec<Result<()>> = requests.iter().map(|_| Ok(())).collect();
        for index in order {
            results[index] = requests[index].perform();
        }
        results
    }

    fn spawn(&self, kind: JobKind, delay: Duration, job: Job) -> Result<()> {
        self.machine.jobs.spawn(kind, self.machine.clock.now().saturating_add(delay), job);
        Ok(())
    }

    fn now(&self) -> Duration {
        self.machine.clock.now()
    }

    fn wall_clock_ns(&self) -> i64 {
        self.machine.clock.wall_clock_ns()
    }

    fn fill_random(&self, buffer: &mut [u8]) -> Result<()> {
        self.state().salts.fill(buffer);
        Ok(())
    }
}

impl SimStorage {
    fn make_file(
        &self,
        kind: OperationKind,
        name: &str,
        size_bytes: u64,
        access: Access,
    ) -> Result<Box<dyn StorageFile>> {
        let operation = Asked::new(kind, name).range(0..size_bytes);
        let state = &mut *self.state();
        let failure = match self.judge(state, &operation)? {
            Verdict::Fail { cause, part } if !part.is_done(&mut state.random) => {
                return Err(self.failed(&operation, cause));
            }
            Verdict::Fail { cause, .. } => Some(cause),
            Verdict::Proceed => None,
        };
        if size_bytes > FILE_BYTES_MAX {
            return self.said(name, &operation, Err(io::ErrorKind::FileTooLarge.into()));
        }
        let missing = size_bytes.div_ceil(BLOCK_BYTES as u64);
        if missing > state.free_blocks() {
            return Err(self.failed(&operation, Cause::StorageFull));
        }
        let id = self.said(name, &operation, state.disk.create_file(name))?;
        // Power may fail before all the zeroes are written.
        let written = match failure {
            Some(Cause::Halted) => state.random.below(size_bytes + 1),
            _ => size_bytes,
        };
        if written > 0 {
            state.write_zeroes(id, written);
        }
        match failure {
            Some(cause) => Err(self.failed(&operation, cause)),
            None => Ok(self.opened(state, id, access)),
        }
    }

    /// Counts the operation and says what is to become of it; an error if the machine stands.
    pub(crate) fn judge(&self, state: &mut State, operation: &Asked<'_>) -> Result<Verdict> {
        if state.is_halted {
            return Err(self.failed(operation, Cause::Halted));
        }
        let number: u64 = state.counts.iter().sum();
        let kind = operation.kind;
        let each_change = state.snapshots.each_change && kind.is_change();
        if state.snapshots.at.remove(&number) || each_change {
            let fork = self.fork_of(state);
            state.snapshots.taken.push((number, fork));
        }
        state.counts[kind as usize] += 1;
        if let Some(trace) = &mut state.trace {
            trace.push(Operation {
                number,
                kind,
                name: operation.name.to_owned(),
                range: operation.range.clone(),
                through: operation.through,
            });
        }
        if state.halt_at.is_some_and(|halt_at| number >= halt_at) {
            state.is_halted = true;
            return Ok(Verdict::Fail { cause: Cause::Halted, part: Part::Random });
        }
        let names = [operation.name, operation.other.unwrap_or(operation.name)];
        let (verdict, delay) = state.faults.judge(kind, names);
        self.machine.clock.advance(delay);
        Ok(verdict)
    }

    /// As [`judge`](Self::judge), for operations of which nothing can be done in part.
    pub(crate) fn begin(&self, state: &mut State, operation: &Asked<'_>) -> Result<()> {
        match self.judge(state, operation)? {
            Verdict::Proceed => Ok(()),
            Verdict::Fail { cause, .. } => Err(self.failed(operation, cause)),
        }
    }

    fn change_names(
        &self,
        operation: &Asked<'_>,
        change: impl FnOnce(&mut State) -> io::Result<()>,
    ) -> Result<()> {
        let state = &mut *self.state();
        match self.judge(state, operation)? {
            Verdict::Proceed => self.said(operation.name, operation, change(state)),
            Verdict::Fail { cause, part } => {
                if part.is_done(&mut state.random) {
                    self.said(operation.name, operation, change(state))?;
                }
                Err(self.failed(operation, cause))
            }
        }
    }

    fn opened(&self, state: &mut State, id: FileId, access: Access) -> Box<dyn StorageFile> {
        *state.open.entry(id).or_insert(0) += 1;
        // The last, partial block could not be written without making the file longer.
        let size_bytes = state.disk.file(id).map_or(0, |file| file.view.size_bytes());
        let is_whole = size_bytes.is_multiple_of(BLOCK_BYTES as u64);
        let mode = match access {
            Access::ReadWriteDirect if is_whole => state.mode,
            _ => IoMode::Buffered,
        };
        Box::new(SimFile { storage: self.clone(), id, mode, may_write: access != Access::Read })
    }

    fn said<T>(&self, name: &str, operation: &Asked<'_>, result: io::Result<T>) -> Result<T> {
        result.map_err(|error| self.machine.error(name, operation.kind.name(), error))
    }

    pub(crate) fn failed(&self, operation: &Asked<'_>, cause: Cause) -> WalError {
        /// `EIO`, so that callers that look at the number find what they would find in the field.
        const INPUT_OUTPUT_ERROR: i32 = 5;
        let source = match cause {
            Cause::StorageFull if operation.kind.takes_space() => {
                return WalError::StorageFull {
                    path: self.machine.path.join(operation.name),
                    operation: operation.kind.name(),
                    needed_bytes: operation.range.end - operation.range.start,
                };
            }
            Cause::StorageFull => io::ErrorKind::StorageFull.into(),
            Cause::Io => io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR),
            Cause::Halted => halted(),
        };
        self.machine.error(operation.name, operation.kind.name(), source)
    }
}

#[derive(Debug)]
struct SimLock {
    machine: Arc<Machine>,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.machine.is_locked.store(false, Ordering::SeqCst);
    }
}

/// An operation as it was asked for.
pub(crate) struct Asked<'a> {
    pub(crate) kind: OperationKind,
    pub(crate) name: &'a str,
    /// The second name of a rename.
    pub(crate) other: Option<&'a str>,
    pub(crate) range: Range<u64>,
    pub(crate) through: bool,
}

impl<'a> Asked<'a> {
    pub(crate) const fn new(kind: OperationKind, name: &'a str) -> Self {
        Self { kind, name, other: None, range: 0..0, through: false }
    }

    pub(crate) fn range(self, range: Range<u64>) -> Self {
        Self { range, ..self }
    }
}

pub(crate) fn halted() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

impl Entry {
    const fn kind(self) -> ListedKind {
        match self {
            Self::File(_) => ListedKind::File,
            Self::Directory(_) => ListedKind::Directory,
        }
    }
}
