//! Reading ahead: helper threads read and check the next entries of each core while the caller
//! visits those at hand.
//!
//! Without helpers, or when they lag behind, the caller reads what it needs itself; so nothing
//! depends on how many there are, and on a storage that wants one thread there are none.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use wal_entry::RecordBuffer;
use wal_storage::{Result, WalError};

use crate::core_reader::{Chunk, CoreReader};

/// How many chunks of a core are ready at most, beside the one that is being visited.
const CHUNKS_AHEAD: usize = 2;

/// What is read ahead for several cores.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    state: Mutex<State>,
    /// A chunk is ready, or a helper panicked.
    ready: Condvar,
    /// There is something to read, or reading is over.
    wanted: Condvar,
}

#[derive(Debug)]
struct State {
    cores: Vec<CoreState>,
    is_over: bool,
    has_panicked: bool,
}

impl State {
    /// The reader of the core that has the least ready, if one has not enough.
    fn take_reader(&mut self) -> Option<(usize, CoreReader)> {
        let cores = self.cores.iter_mut().enumerate();
        let able =
            cores.filter(|(_, core)| core.has_reader_to_spare() && core.ready.len() < CHUNKS_AHEAD);
        let (index, core) = able.min_by_key(|(_, core)| core.ready.len())?;
        Some((index, core.reader.take()?))
    }
}

#[derive(Debug)]
struct CoreState {
    /// `None` while somebody reads with it, and when it has come to its end.
    reader: Option<CoreReader>,
    has_ended: bool,
    ready: VecDeque<Filled>,
    free: Vec<Chunk>,
    /// The memory for a record that no window holds, while no chunk has it.
    large: Option<RecordBuffer>,
}

impl CoreState {
    /// Of the records that no window holds, no more than one is in memory: while it waits to be
    /// visited, nothing further is read ahead.
    const fn has_reader_to_spare(&self) -> bool {
        self.reader.is_some() && self.large.is_some()
    }

    fn free_chunk(&mut self) -> Chunk {
        let mut chunk = self.free.pop().unwrap_or_default();
        chunk.set_large_buffer(self.large.take().unwrap_or_default());
        chunk
    }

    fn take_back(&mut self, mut visited: Chunk) {
        if visited.has_large_record() {
            self.large = Some(visited.take_large_buffer());
        }
        self.free.push(visited);
    }
}

/// What a reader brought; an error is met behind the chunk's entries.
type Filled = (Chunk, Result<()>);

impl ReadAhead {
    /// Calls `visit` while at most `helpers` threads read ahead.
    pub(crate) fn with<R>(
        readers: Vec<CoreReader>,
        helpers: usize,
        visit: impl FnOnce(&Self) -> R,
    ) -> R {
        let cores = readers.into_iter().map(|reader| CoreState {
            reader: Some(reader),
            has_ended: false,
            ready: VecDeque::new(),
            free: Vec::new(),
            large: Some(RecordBuffer::new()),
        });
        let ahead = Self {
            state: Mutex::new(State {
                cores: cores.collect(),
                is_over: false,
                has_panicked: false,
            }),
            ready: Condvar::new(),
            wanted: Condvar::new(),
        };
        thread::scope(|scope| {
            // Also if a visit panics: the scope ends when the helpers have.
            let _over = EndOnDrop(&ahead);
            for _ in 0..helpers {
                // If there is no thread to be had, the caller reads for itself.
                let name = "wal-read-ahead".to_owned();
                let _ = thread::Builder::new().name(name).spawn_scoped(scope, || ahead.help());
            }
            visit(&ahead)
        })
    }

    /// The next chunk of the core at `index`, in exchange for one that was visited. Empty at the end.
    ///
    /// # Errors
    ///
    /// As [`CoreReader::fill`], when the entries before were handed out.
    pub(crate) fn next(&self, index: usize, visited: Chunk) -> Filled {
        let mut state = self.lock();
        if let Some(core) = state.cores.get_mut(index) {
            core.take_back(visited);
        }
        self.wanted.notify_one();
        loop {
            let Some(core) = state.cores.get_mut(index) else {
                return (Chunk::default(), Ok(()));
            };
            if let Some(filled) = core.ready.pop_front() {
                return filled;
            }
            if core.has_ended {
                return (Chunk::default(), Ok(()));
            }
            if let Some(reader) = core.reader.take() {
                state = self.read(state, index, reader);
                continue;
            }
            if state.has_panicked {
                return (Chunk::default(), Err(panicked()));
            }
            // A helper is at it. Rather than sleep for so short a time, this thread reads for
            // another core meanwhile.
            state = match state.take_reader() {
                Some((other, reader)) => self.read(state, other, reader),
                None => self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn help(&self) {
        let mut state = self.lock();
        while !state.is_over {
            state = match state.take_reader() {
                Some((index, reader)) => self.read(state, index, reader),
                None => self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Reads one chunk with the core's reader, without holding the lock.
    fn read<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        index: usize,
        mut reader: CoreReader,
    ) -> MutexGuard<'a, State> {
        let core = state.cores.get_mut(index);
        let mut chunk = core.map(CoreState::free_chunk).unwrap_or_default();
        drop(state);
        let result = {
            let _alarm = PanicAlarm(self);
            reader.fill(&mut chunk)
        };
        let mut state = self.lock();
        if let Some(core) = state.cores.get_mut(index) {
            if result.is_ok() && chunk.entry_count() > 0 {
                core.reader = Some(reader);
            } else {
                core.has_ended = true;
            }
            if !chunk.has_large_record() {
                core.large = Some(chunk.take_large_buffer());
            }
            core.ready.push_back((chunk, result));
        }
        self.ready.notify_one();
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole at each step, so a panic elsewhere harms nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct EndOnDrop<'a>(&'a ReadAhead);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.wanted.notify_all();
    }
}

/// Keeps a panic in a helper from leaving the caller waiting for ever; the scope hands it on.
struct PanicAlarm<'a>(&'a ReadAhead);

impl Drop for PanicAlarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().has_panicked = true;
            self.0.ready.notify_all();
        }
    }
}

fn panicked() -> WalError {
    WalError::InvalidArgument { what: "a thread that read ahead panicked".to_owned() }
}
