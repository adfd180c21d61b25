//! Several requests in one submission, through the kernel's `io_uring`.
//!
//! The one place in this workspace where code is not safe: the kernel reads the bytes of a write
//! after the call that handed them over has returned, and no type says so. What this rests on is
//! all in [`run`] and [`InFlight`]: everything that the kernel reads is borrowed until it has said
//! that it is done with it, also on an error and on a panic; if it cannot be heard any more, the
//! process ends.
//!
//! A write that the ring did not do wholly (a short or interrupted one, or one that the file
//! system cannot write through) is done again from its start, in the caller's thread. A failed
//! sync is final, here as everywhere.

#![allow(unsafe_code, reason = "see above; denied everywhere else")]
#![warn(clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]

use std::io::{self, ErrorKind, IoSlice};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::process;
use std::sync::{Mutex, TryLockError};
use std::thread;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use rustix::io::ReadWriteFlags;

use crate::errand::{Errand, Work};
use crate::error::Result;
use crate::file::SLICES_PER_CALL;
use crate::storage::{Request, WriteSync};

/// How many requests go into one submission.
const ENTRIES: u32 = 64;

/// The ring of one directory, made when it is used first.
pub(crate) struct Ring {
    state: Mutex<State>,
}

enum State {
    Unused,
    Ready(Box<IoUring>),
    /// The kernel gives none: it is too old, somebody has forbidden it, or it is short of memory.
    /// It is not asked again.
    Refused,
}

impl Ring {
    pub(crate) const fn new() -> Self {
        Self { state: Mutex::new(State::Unused) }
    }

    /// One that behaves as where the kernel gives none.
    #[cfg(test)]
    pub(crate) const fn refused() -> Self {
        Self { state: Mutex::new(State::Refused) }
    }

    /// See [`Storage::perform`](crate::Storage::perform). `None` if nothing was done, because there
    /// is no ring, it is in use, or fewer than two of the requests are for it.
    pub(crate) fn perform(&self, requests: &[Request<'_>]) -> Option<Vec<Result<()>>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            // Whoever panicked left nothing in flight behind.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if let State::Unused = *state {
            *state =
                IoUring::new(ENTRIES).map_or(State::Refused, |ring| State::Ready(Box::new(ring)));
        }
        let State::Ready(ring) = &mut *state else {
            return None;
        };
        let operations: Vec<Option<Operation<'_>>> =
            requests.iter().map(|request| Operation::of(Errand::of(request)?)).collect();
        let for_ring: Vec<&Operation<'_>> = operations.iter().flatten().collect();
        if for_ring.len() < 2 {
            return None;
        }
        let Ended { results, is_ring_usable } = run(ring, &for_ring);
        if !is_ring_usable {
            *state = State::Refused;
        }
        drop(state);

        let mut results = results.into_iter();
        let answers = requests.iter().zip(&operations).map(|(request, operation)| {
            let result = operation.as_ref().and_then(|_| results.next().flatten());
            match (operation, result) {
                (Some(operation), Some(result)) => operation.answer(result, request),
                _ => request.perform(),
            }
        });
        Some(answers.collect())
    }
}

/// What the ring is to do.
struct Operation<'a> {
    errand: Errand<'a>,
    /// Of a write: its bytes, in the kernel's own form.
    slices: Vec<IoSlice<'a>>,
}

impl<'a> Operation<'a> {
    fn of(errand: Errand<'a>) -> Option<Self> {
        let slices = match errand.work {
            Work::Sync => &[],
            Work::Write { slices, .. } if slices.len() > SLICES_PER_CALL => return None,
            Work::Write { sync: WriteSync::Through, .. } if !errand.file.can_write_through() => {
                return None;
            }
            Work::Write { slices, .. } => slices,
        };
        Some(Self { errand, slices: slices.iter().map(|slice| IoSlice::new(slice)).collect() })
    }

    fn entry(&self) -> squeue::Entry {
        let file = Fd(self.errand.file.as_fd().as_raw_fd());
        match self.errand.work {
            Work::Write { offset, sync, .. } => {
                let flags = match sync {
                    WriteSync::None => ReadWriteFlags::empty(),
                    WriteSync::Through => ReadWriteFlags::DSYNC,
                };
                // std promises that its slices look as the kernel's do.
                let slices = self.slices.as_ptr().cast();
                // At most SLICES_PER_CALL.
                let count = u32::try_from(self.slices.len()).unwrap_or_default();
                opcode::Writev::new(file, slices, count)
                    .offset(offset)
                    .rw_flags(flags.bits().cast_signed())
                    .build()
            }
            Work::Sync => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// What becomes of `request` when the kernel's result is `result`: bytes written, or a negated
    /// error number.
    fn answer(&self, result: i32, request: &Request<'_>) -> Result<()> {
        let file = self.errand.file;
        let failure = (result < 0).then(|| io::Error::from_raw_os_error(result.saturating_neg()));
        match (self.errand.work, failure) {
            (Work::Sync, None) => Ok(()),
            (Work::Sync, Some(error)) => Err(file.sync_failed(error)),
            (Work::Write { length, .. }, None) if u64::try_from(result) == Ok(length) => Ok(()),
            (Work::Write { length, .. }, Some(error)) if !is_worth_another_try(&error) => {
                Err(file.write_failed(length, error))
            }
            // The bytes are handed over anew, all of them, so an `Ok` is one of a call that wrote
            // and synced them.
            (Work::Write { .. }, _) => request.perform(),
        }
    }
}

/// Interrupted, to be done where it may wait, or to be done without writing through.
fn is_worth_another_try(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted
            | ErrorKind::WouldBlock
            | ErrorKind::InvalidInput
            | ErrorKind::Unsupported
    )
}

struct Ended {
    /// The kernel's result of each operation; `None` if it never got to see it.
    results: Vec<Option<i32>>,
    is_ring_usable: bool,
}

/// Does all of `operations`, and returns when the kernel has let go of them.
fn run(ring: &mut IoUring, operations: &[&Operation<'_>]) -> Ended {
    let mut results = vec![None; operations.len()];
    let mut is_ring_usable = true;
    let at_once = ring.submission().capacity().max(1);
    for (operations, results) in operations.chunks(at_once).zip(results.chunks_mut(at_once)) {
        let mut in_flight = InFlight { ring, outstanding: 0, operations: PhantomData };
        for (operation, number) in operations.iter().zip(0..) {
            // SAFETY: `in_flight` stays in this block, so it is dropped at its end.
            unsafe { in_flight.push(operation, number) };
        }
        is_ring_usable = in_flight.wait(results);
        if !is_ring_usable {
            break;
        }
    }
    Ended { results, is_ring_usable }
}

/// Operations in the ring. Dropping it waits until the kernel uses none of them any more.
struct InFlight<'ring, 'operations> {
    ring: &'ring mut IoUring,
    /// How many were pushed and are not known to be done.
    outstanding: usize,
    operations: PhantomData<&'operations Operation<'operations>>,
}

impl<'operations> InFlight<'_, 'operations> {
    /// Puts `operation` into the ring under `number`, if there is room.
    ///
    /// # Safety
    ///
    /// `self` must be dropped, not forgotten: its drop is what makes the kernel's use of
    /// `operation` end before the borrow does.
    unsafe fn push(&mut self, operation: &'operations Operation<'operations>, number: u64) {
        let entry = operation.entry().user_data(number);
        // SAFETY: The entry points to the slices of `operation`, to their bytes and to an open
        // file. All three are borrowed for 'operations, so nobody changes, moves, drops or closes
        // them in that time; and `self`, which does not outlive it, is dropped (see above) only
        // when the kernel has answered for every entry that was pushed, or never had it and never
        // will, or the process has ended.
        if unsafe { self.ring.submission().push(&entry) }.is_ok() {
            self.outstanding += 1;
        }
    }

    /// Hands over what was pushed, waits until all of it is done, and puts the kernel's result of
    /// each into the place of its number. `false` if the ring still has entries in it that the
    /// kernel was not told of, and cannot be: it must not be used again.
    fn wait(&mut self, results: &mut [Option<i32>]) -> bool {
        while self.outstanding > 0 {
            let entered = self.ring.submit_and_wait(self.outstanding);
            for done in self.ring.completion() {
                self.outstanding -= 1;
                let number = usize::try_from(done.user_data()).ok();
                if let Some(place) = number.and_then(|number| results.get_mut(number)) {
                    *place = Some(done.result());
                }
            }
            let Err(error) = entered else {
                continue;
            };
            if error.kind() == ErrorKind::Interrupted {
                continue;
            }
            if self.ring.submission().len() == self.outstanding {
                self.outstanding = 0;
                return false;
            }
            match error.kind() {
                // Short of memory, or of room for results: some of it comes back.
                ErrorKind::WouldBlock | ErrorKind::ResourceBusy => thread::yield_now(),
                // The kernel is reading these bytes and there is no way to learn until when.
                _ => process::abort(),
            }
        }
        true
    }
}

impl Drop for InFlight<'_, '_> {
    /// Does nothing after [`wait`](Self::wait). In a panic, waits; and if that does not go well,
    /// there is nobody left to tell that the ring must not be used again.
    fn drop(&mut self) {
        if !self.wait(&mut []) {
            process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::file::OsFile;
    use crate::storage::{Access, StorageFile};

    const SIZE: u64 = 1024 * 1024;

    /// Past the capture of passing tests' output: a skip must never look like a pass.
    fn have_ring() -> bool {
        let have = IoUring::new(ENTRIES).is_ok();
        if !have {
            let _ = writeln!(io::stderr(), "!!! SKIPPED: this kernel gives no ring");
        }
        have
    }

    fn file_in(directory: &TempDir, name: &str) -> Box<dyn StorageFile> {
        let path = directory.path().join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        Box::new(Arc::new(OsFile::zeroed(file, path, Access::ReadWrite, SIZE).unwrap()))
    }

    fn through<'a>(file: &'a dyn StorageFile, slices: &'a [&'a [u8]], offset: u64) -> Request<'a> {
        Request::Write { file, slices, offset, sync: WriteSync::Through }
    }

    fn read(file: &dyn StorageFile, offset: u64) -> [u8; 4] {
        let mut bytes = [0; 4];
        assert_eq!(file.read_at(&mut bytes, offset).unwrap(), 4);
        bytes
    }

    #[test]
    fn more_writes_and_syncs_than_the_ring_has_entries_are_all_done() {
        if !have_ring() {
            return;
        }
        let directory = TempDir::new().unwrap();
        let file = file_in(&directory, "file");
        let bytes: Vec<[u8; 4]> = (1..=200_u32).map(u32::to_le_bytes).collect();
        let slices: Vec<[&[u8]; 2]> = bytes.iter().map(|b| [&b[..1], &b[1..]]).collect();
        let mut requests: Vec<_> =
            slices.iter().zip(0..).map(|(s, i)| through(&*file, s, 5 * i)).collect();
        requests.push(Request::Sync { file: &*file });
        let ring = Ring::new();
        for _ in 0..3 {
            let results = ring.perform(&requests).unwrap();
            assert_eq!(results.len(), 201);
            assert!(results.iter().all(Result::is_ok));
        }
        for (bytes, index) in bytes.iter().zip(0..) {
            assert_eq!(read(&*file, 5 * index), *bytes);
        }
    }

    #[test]
    fn a_panic_waits_for_what_is_in_flight_and_leaves_the_ring_usable() {
        if !have_ring() {
            return;
        }
        let directory = TempDir::new().unwrap();
        let file = file_in(&directory, "file");
        let mut ring = IoUring::new(ENTRIES).unwrap();
        for offset in [0, 8] {
            let slices: [&[u8]; 1] = [b"safe"];
            let request = through(&*file, &slices, offset);
            let operation = Operation::of(Errand::of(&request).unwrap()).unwrap();
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let mut in_flight =
                    InFlight { ring: &mut ring, outstanding: 0, operations: PhantomData };
                // SAFETY: `in_flight` stays in this block, and a panic drops it.
                unsafe { in_flight.push(&operation, 0) };
                panic!("between the push and the wait");
            }));
            assert!(panicked.is_err());
            assert_eq!(read(&*file, offset), *b"safe");
        }
        assert!(ring.submission().is_empty() && ring.completion().is_empty());
    }

    #[test]
    fn a_ring_that_was_refused_or_is_in_use_does_nothing() {
        let directory = TempDir::new().unwrap();
        let file = file_in(&directory, "file");
        let requests = [through(&*file, &[b"some"], 0), through(&*file, &[b"more"], 4)];
        assert!(Ring::refused().perform(&requests).is_none());
        let ring = Ring::new();
        let in_use = ring.state.lock().unwrap();
        assert!(ring.perform(&requests).is_none());
        drop(in_use);
        assert_eq!(read(&*file, 0), [0; 4]);
        assert_eq!(ring.perform(&requests).is_some(), have_ring());
    }

    #[test]
    fn a_ring_that_the_kernel_closed_the_way_to_hands_the_work_back() {
        if !have_ring() {
            return;
        }
        let directory = TempDir::new().unwrap();
        let file = file_in(&directory, "file");
        // Disabled rings refuse every submission.
        let disabled = IoUring::builder().setup_r_disabled().build(ENTRIES).unwrap();
        let ring = Ring { state: Mutex::new(State::Ready(Box::new(disabled))) };
        let requests = [through(&*file, &[b"some"], 0), through(&*file, &[b"more"], 4)];
        assert!(ring.perform(&requests).unwrap().iter().all(Result::is_ok));
        assert_eq!([read(&*file, 0), read(&*file, 4)], [*b"some", *b"more"]);
        assert!(ring.perform(&requests).is_none(), "the next ones go another way at once");
    }

    #[test]
    fn what_was_not_done_wholly_is_done_again_and_what_failed_is_not() {
        const EINTR: i32 = 4;
        const EIO: i32 = 5;
        const EAGAIN: i32 = 11;
        const EINVAL: i32 = 22;
        const ENOSPC: i32 = 28;
        const EOPNOTSUPP: i32 = 95;

        let directory = TempDir::new().unwrap();
        for (result, is_again) in [
            (4, false),
            (3, true),
            (0, true),
            (-EINTR, true),
            (-EAGAIN, true),
            (-EINVAL, true),
            (-EOPNOTSUPP, true),
            (-EIO, false),
            (-ENOSPC, false),
        ] {
            let file = file_in(&directory, &result.to_string());
            let slices: [&[u8]; 1] = [b"some"];
            let request = through(&*file, &slices, 0);
            let operation = Operation::of(Errand::of(&request).unwrap()).unwrap();
            let answer = operation.answer(result, &request);
            assert_eq!(answer.is_ok(), is_again || result == 4, "{result}: {answer:?}");
            assert_eq!(read(&*file, 0) == *b"some", is_again, "{result}");
            if result == -ENOSPC {
                assert!(answer.unwrap_err().is_storage_full());
            }

            // A sync has no second try, whatever it was that stopped the first.
            let request = Request::Sync { file: &*file };
            let operation = Operation::of(Errand::of(&request).unwrap()).unwrap();
            assert_eq!(operation.answer(result, &request).is_ok(), result >= 0);
        }
    }
}
