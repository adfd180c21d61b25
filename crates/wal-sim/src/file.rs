//! An open file: [`StorageFile`], with its operations counted and failed.

use std::fmt;
use std::io;
use std::sync::Arc;

use wal_storage::{IoMode, Result, StorageFile, WriteSync};

use crate::content::BLOCK_BYTES;
use crate::disk::{File, FileId};
use crate::fault::{Cause, OperationKind, Part, Verdict};
use crate::machine::SimStorage;
use crate::operations::{Asked, FILE_BYTES_MAX, halted};
use crate::state::{Fit, State, drop_writes};

/// One file, opened once.
pub(crate) struct SimFile {
    pub(crate) storage: SimStorage,
    pub(crate) id: FileId,
    pub(crate) mode: IoMode,
    pub(crate) may_write: bool,
}

impl StorageFile for SimFile {
    fn mode(&self) -> IoMode {
        self.mode
    }

    fn size_bytes(&self) -> Result<u64> {
        let state = self.storage.state();
        let (name, file) = self.file(&state);
        if state.is_halted {
            return Err(self.storage.machine.error(&name, "reading its size", halted()));
        }
        Ok(file.map_or(0, |file| file.view.size_bytes()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let state = &mut *self.storage.state();
        let (name, _) = self.file(state);
        let range = offset..offset.saturating_add(buffer.len() as u64);
        let operation = Asked::new(OperationKind::Read, &name).range(range);
        self.storage.begin(state, &operation)?;
        self.check_alignment(offset, &[buffer], &operation)?;
        Ok(self.file(state).1.map_or(0, |file| file.view.read(buffer, offset)))
    }

    fn write_at(&self, slices: &[&[u8]], offset: u64, sync: WriteSync) -> Result<()> {
        let state = &mut *self.storage.state();
        let (name, _) = self.file(state);
        let length: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        let range = offset..offset.saturating_add(length);
        let through = sync == WriteSync::Through;
        let operation =
            Asked { through, ..Asked::new(OperationKind::Write, &name).range(range.clone()) };
        let verdict = self.storage.judge(state, &operation)?;
        self.check_alignment(offset, slices, &operation)?;
        if !self.may_write {
            let source = io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading only");
            return Err(self.storage.machine.error(&name, operation.kind.name(), source));
        }
        if range.end > FILE_BYTES_MAX {
            let source = io::ErrorKind::FileTooLarge.into();
            return Err(self.storage.machine.error(&name, operation.kind.name(), source));
        }
        let (part, mut failure) = match verdict {
            Verdict::Proceed => (Part::Everything, None),
            Verdict::Fail { cause, part } => (part, Some(cause)),
        };
        let mut parts = part.of_range(range, &mut state.random);
        if state.fit(self.id, &mut parts) == Fit::TooMuch {
            failure = failure.or(Some(Cause::StorageFull));
            let part = state.random.pick([Part::Nothing, Part::Prefix, Part::Everything]);
            let fitting = std::mem::take(&mut parts);
            parts.extend(fitting.into_iter().flat_map(|r| part.of_range(r, &mut state.random)));
        }
        let pieces = state.write(self.id, slices, offset, &parts);
        if through && failure.is_none() && state.snapshots.each_change {
            // Power may also fail in the midst of it, and no other moment shows that.
            let midst = self.storage.fork_of(state);
            midst.state().keep_pending(self.id, pieces.clone());
            let number = state.counts.iter().sum::<u64>() - 1;
            state.snapshots.taken.push((number, midst));
        }
        match failure {
            None | Some(Cause::Io) if through && part == Part::Everything => {
                state.write_through(self.id, &pieces);
            }
            Some(Cause::Io) if through => state.scatter(self.id, pieces),
            _ => state.keep_pending(self.id, pieces),
        }
        failure.map_or(Ok(()), |cause| Err(self.storage.failed(&operation, cause)))
    }

    fn sync(&self) -> Result<()> {
        let state = &mut *self.storage.state();
        let (name, _) = self.file(state);
        let operation = Asked::new(OperationKind::Sync, &name);
        let verdict = self.storage.judge(state, &operation)?;
        match verdict {
            Verdict::Proceed => {
                state.sync_file(self.id);
                Ok(())
            }
            Verdict::Fail { cause, part } => {
                if cause != Cause::Halted
                    && let Some(file) = state.disk.file_mut(self.id)
                {
                    drop_writes(file, part, &mut state.random);
                }
                Err(self.storage.failed(&operation, cause))
            }
        }
    }
}

impl SimFile {
    /// The file, with its name for messages.
    fn file<'state>(&self, state: &'state State) -> (Arc<str>, Option<&'state File>) {
        let file = state.disk.file(self.id);
        (file.map_or_else(|| Arc::from(""), |file| file.name.clone()), file)
    }

    fn check_alignment(&self, offset: u64, slices: &[&[u8]], operation: &Asked<'_>) -> Result<()> {
        let is_aligned = |slice: &&[u8]| {
            slice.as_ptr().addr().is_multiple_of(BLOCK_BYTES)
                && slice.len().is_multiple_of(BLOCK_BYTES)
        };
        let fits = offset.is_multiple_of(BLOCK_BYTES as u64) && slices.iter().all(is_aligned);
        if self.mode == IoMode::Buffered || fits {
            return Ok(());
        }
        let source = io::Error::new(
            io::ErrorKind::InvalidInput,
            "direct I/O needs offset, length and address of each buffer to be multiples of 4096",
        );
        Err(self.storage.machine.error(operation.name, operation.kind.name(), source))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.storage.state();
        if let Some(count) = state.open.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                state.open.remove(&self.id);
                state.give_back(self.id);
            }
        }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.file(&self.storage.state()).0;
        f.debug_struct("SimFile")
            .field("name", &name)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
