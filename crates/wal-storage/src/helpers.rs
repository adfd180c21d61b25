//! Several requests side by side: threads that do a share of them while the caller does its own.
//!
//! They are kept from call to call. A thread started for the occasion takes a third of the time
//! that a small write to the device takes, and where all cores are busy it is first run at the
//! scheduler's next tick, some milliseconds later; one that slept and is woken runs at once.
//!
//! What is kept cannot borrow from a caller (that would take unsafe code), so a helper gets the
//! file shared and the bytes copied: that takes some microseconds, and a write to the device many
//! times as long. What is longer than [`COPIED_BYTES_MAX`] the caller does itself.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::direct::DIRECT_BLOCK_BYTES;
use crate::errand::{Errand, Work};
use crate::error::{Result, WalError};
use crate::file::OsFile;
use crate::storage::{Request, StorageFile, WriteSync};

/// How many threads there may be. Waiting for a device takes no processor, so this has to do with
/// how many files one caller has, not with how many cores the machine has.
const HELPERS_MAX: usize = 15;

/// The longest write that is handed out. Beyond, how fast the device takes bytes decides, and not
/// how many bring them.
const COPIED_BYTES_MAX: usize = 512 * 1024;

/// How long a thread waits for another task before it ends.
const IDLE: Duration = Duration::from_secs(5);

/// The threads of one directory, started when there is something to do.
pub(crate) struct Helpers {
    shared: Arc<Shared>,
}

impl Helpers {
    pub(crate) fn new() -> Self {
        Self::with_idle(IDLE)
    }

    fn with_idle(idle: Duration) -> Self {
        let shared = Shared { idle, state: Mutex::default(), wanted: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// See [`Storage::perform`](crate::Storage::perform).
    ///
    /// The caller waits for no helper that has not begun: what is left over when its own share is
    /// done it takes back. So this ends also where no thread can be had.
    pub(crate) fn perform(&self, requests: &[Request<'_>]) -> Vec<Result<()>> {
        let call = Arc::new(Call::new(requests.len()));
        let outstanding = Outstanding { shared: &self.shared, call: &call };

        let with_errand = |(index, request)| {
            (index, request, Errand::of(request).filter(Errand::is_worth_a_copy))
        };
        let mut order: Vec<_> = requests.iter().enumerate().map(with_errand).collect();
        // What only the caller can do comes last, when all helpers are at work.
        order.sort_by_key(|(_, _, errand)| errand.is_none());
        let mut order = order.into_iter().peekable();
        while let Some((index, request, errand)) = order.next() {
            let is_last = order.peek().is_none();
            let is_handed_out = !is_last
                && errand
                    .is_some_and(|errand| Shared::take_on(&self.shared, &errand, &call, index));
            if !is_handed_out {
                let result = request.perform();
                call.answers().set(index, Some(result));
            }
        }

        drop(outstanding);
        let results = mem::take(&mut call.answers().results);
        let no_answer = |request: &Request<'_>| Err(ended_early(request));
        let answers = results.into_iter().zip(requests);
        answers.map(|(result, request)| result.unwrap_or_else(|| no_answer(request))).collect()
    }
}

impl Drop for Helpers {
    /// Tells the threads to end; nobody waits for what they do.
    fn drop(&mut self) {
        self.shared.state().is_closed = true;
        self.shared.wanted.notify_all();
    }
}

impl Errand<'_> {
    fn is_worth_a_copy(&self) -> bool {
        match self.work {
            Work::Write { length, .. } => length <= COPIED_BYTES_MAX as u64,
            Work::Sync => true,
        }
    }
}

/// What a caller and the helpers have in common.
struct Shared {
    idle: Duration,
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    /// Handed out, not begun.
    waiting: VecDeque<Task>,
    /// How many tasks are handed out and not finished, begun or not.
    unfinished: usize,
    /// As many as ever were unfinished at once, less those that idle threads took with them.
    spare: Vec<Copied>,
    threads: usize,
    is_closed: bool,
}

impl Shared {
    /// Hands `errand` out, if there is a helper for it.
    fn take_on(shared: &Arc<Self>, errand: &Errand<'_>, call: &Arc<Call>, index: usize) -> bool {
        let mut state = shared.state();
        if state.unfinished >= HELPERS_MAX {
            return false;
        }
        state.unfinished += 1;
        let mut bytes = state.spare.pop().unwrap_or_default();
        drop(state);

        let write = match errand.work {
            Work::Write { slices, offset, sync, .. } => {
                bytes.fill(slices);
                Some((offset, sync))
            }
            Work::Sync => None,
        };
        let answer = Answer::owed(call, index);
        let mut state = shared.state();
        state.waiting.push_back(Task { file: Arc::clone(errand.file), write, bytes, answer });
        if state.threads < state.unfinished {
            let helper = Arc::clone(shared);
            let started =
                thread::Builder::new().name("wal-helper".to_owned()).spawn(move || helper.work());
            // Otherwise another helper will do it, or the caller, later.
            if started.is_ok() {
                state.threads += 1;
            }
        }
        drop(state);
        shared.wanted.notify_one();
        true
    }

    /// Takes a task of `call` back that nobody has begun.
    fn take_back(&self, call: &Arc<Call>) -> Option<Task> {
        let mut state = self.state();
        let index = state.waiting.iter().rposition(|task| Arc::ptr_eq(&task.answer.call, call))?;
        state.waiting.remove(index)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(task) = state.waiting.pop_front() {
                drop(state);
                task.perform(self);
                state = self.state();
                continue;
            }
            if state.is_closed {
                break;
            }
            let (woken, waited) =
                self.wanted.wait_timeout(state, self.idle).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() && state.waiting.is_empty() {
                break;
            }
        }
        // Under the same lock as the last look at `waiting`: a task handed out from now on starts
        // a thread of its own.
        state.threads -= 1;
        state.spare.pop();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way to a helper.
struct Task {
    file: Arc<OsFile>,
    /// Of a write: where its bytes go.
    write: Option<(u64, WriteSync)>,
    bytes: Copied,
    answer: Answer,
}

impl Task {
    fn perform(self, shared: &Shared) {
        let Self { file, write, bytes, mut answer } = self;
        answer.result = Some(match write {
            Some((offset, sync)) => file.write_at(&[bytes.as_slice()], offset, sync),
            None => file.sync(),
        });
        // All before the answer: the caller may close the file, and call again.
        drop(file);
        let mut state = shared.state();
        state.unfinished -= 1;
        state.spare.push(bytes);
        drop(state);
        drop(answer);
    }
}

/// A copy of a write's bytes, where direct I/O accepts it.
#[derive(Default)]
struct Copied {
    /// Grows to the longest write that it was used for.
    space: Vec<u8>,
    /// Where the bytes begin.
    start: usize,
}

impl Copied {
    fn fill(&mut self, slices: &[&[u8]]) {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.space.capacity() < length + DIRECT_BLOCK_BYTES {
            self.space = Vec::with_capacity(length.next_power_of_two() + DIRECT_BLOCK_BYTES);
            self.start = self.space.as_ptr().align_offset(DIRECT_BLOCK_BYTES);
        }
        // There is room, so nothing moves.
        self.space.resize(self.start, 0);
        slices.iter().for_each(|slice| self.space.extend_from_slice(slice));
    }

    fn as_slice(&self) -> &[u8] {
        self.space.get(self.start..).unwrap_or_default()
    }
}

/// One call of [`Helpers::perform`].
struct Call {
    answers: Mutex<Answers>,
    all_answered: Condvar,
}

impl Call {
    fn new(requests: usize) -> Self {
        let answers = Answers { results: vec![None; requests], owed: 0 };
        Self { answers: Mutex::new(answers), all_answered: Condvar::new() }
    }

    fn wait(&self) {
        let mut answers = self.answers();
        while answers.owed > 0 {
            answers = self.all_answered.wait(answers).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Answers {
    /// One for each request.
    results: Vec<Option<Result<()>>>,
    owed: usize,
}

impl Answers {
    fn set(&mut self, index: usize, result: Option<Result<()>>) {
        if let Some(place) = self.results.get_mut(index) {
            *place = result;
        }
    }
}

/// The result of a task, given to the caller when this is dropped: also by a thread that panics.
struct Answer {
    call: Arc<Call>,
    index: usize,
    result: Option<Result<()>>,
}

impl Answer {
    fn owed(call: &Arc<Call>, index: usize) -> Self {
        call.answers().owed += 1;
        Self { call: Arc::clone(call), index, result: None }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut answers = self.call.answers();
        answers.set(self.index, self.result.take());
        answers.owed -= 1;
        let was_last = answers.owed == 0;
        drop(answers);
        if was_last {
            self.call.all_answered.notify_one();
        }
    }
}

/// Dropped when the caller has done its share, or panics over it: nothing of a call may be under
/// way when it returns, whichever way it does.
struct Outstanding<'a> {
    shared: &'a Shared,
    call: &'a Arc<Call>,
}

impl Drop for Outstanding<'_> {
    fn drop(&mut self) {
        while let Some(task) = self.shared.take_back(self.call) {
            task.perform(self.shared);
        }
        self.call.wait();
    }
}

fn ended_early(request: &Request<'_>) -> WalError {
    let operation = match request {
        Request::Write { .. } => "writing",
        Request::Sync { .. } => "syncing",
    };
    let path = OsFile::behind(request.file()).map(|file| file.path().to_owned());
    let source = io::Error::other("the thread that did it ended early");
    WalError::io(path.unwrap_or_default(), operation, source)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;
    use crate::storage::Access;

    /// Far above what any machine needs, far below anybody's patience.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn eventually(what: &str, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn files(directory: &TempDir) -> [Box<dyn StorageFile>; 3] {
        ["a", "b", "c"].map(|name| -> Box<dyn StorageFile> {
            let path = directory.path().join(name);
            let file = File::options().read(true).write(true).create_new(true).open(&path);
            let file = OsFile::zeroed(file.unwrap(), path, Access::ReadWrite, 8).unwrap();
            Box::new(Arc::new(file))
        })
    }

    fn write_all(helpers: &Helpers, files: &[Box<dyn StorageFile>], bytes: &[u8]) {
        let slices: [&[u8]; 1] = [bytes];
        let requests: Vec<_> = files
            .iter()
            .map(|file| Request::Write {
                file: &**file,
                slices: &slices,
                offset: 0,
                sync: WriteSync::Through,
            })
            .collect();
        let results = helpers.perform(&requests);
        assert!(results.len() == files.len() && results.iter().all(Result::is_ok), "{results:?}");
        for file in files {
            let mut found = [0; 8];
            assert_eq!(file.read_at(&mut found, 0).unwrap(), 8);
            assert_eq!(found[..bytes.len()], *bytes);
        }
    }

    #[test]
    fn where_no_thread_can_be_had_the_caller_does_it_all() {
        let directory = TempDir::new().unwrap();
        let files = files(&directory);
        let helpers = Helpers::new();
        // As many as there may be, and not one of them ever comes.
        helpers.shared.state().threads = HELPERS_MAX;
        write_all(&helpers, &files, b"here");
        let state = helpers.shared.state();
        assert!(state.waiting.is_empty());
        assert_eq!((state.unfinished, state.spare.len()), (0, files.len() - 1));
    }

    #[test]
    fn where_all_helpers_are_busy_the_caller_does_it_all() {
        let directory = TempDir::new().unwrap();
        let files = files(&directory);
        let helpers = Helpers::new();
        helpers.shared.state().unfinished = HELPERS_MAX;
        write_all(&helpers, &files, b"here");
        assert_eq!(helpers.shared.state().threads, 0);
    }

    #[test]
    fn idle_threads_end_with_their_memory_and_later_requests_start_new_ones() {
        let directory = TempDir::new().unwrap();
        let files = files(&directory);
        let helpers = Helpers::with_idle(Duration::from_millis(10));
        for bytes in [b"once", b"more"] {
            write_all(&helpers, &files, bytes);
            eventually("the threads end", || helpers.shared.state().threads == 0);
            assert!(helpers.shared.state().spare.is_empty());
        }
    }

    #[test]
    fn a_thread_that_ends_early_owes_no_answer_for_ever() {
        let directory = TempDir::new().unwrap();
        let [file, ..] = &files(&directory);
        let call = Arc::new(Call::new(1));
        drop(Answer::owed(&call, 0));
        call.wait();
        assert!(matches!(call.answers().results[..], [None]));
        let error = ended_early(&Request::Sync { file: &**file });
        assert_eq!(error.path(), Some(&*directory.path().join("a")));
    }
}
