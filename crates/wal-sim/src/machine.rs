//! The simulated machine, as the test that owns it sees it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wal_storage::{IoMode, JobKind, WalError};

use crate::clock::Clock;
use crate::content::BLOCK_BYTES;
use crate::crash::CrashPlan;
use crate::disk::Disk;
use crate::fault::{Fault, Operation, OperationKind};
use crate::jobs::Jobs;
use crate::random::{Random, mix};
use crate::state::State;

/// A directory on a simulated machine: a disk that loses power on request and fails on request,
/// jobs that run on request, and clocks that stand still until told otherwise.
///
/// Clones are the same machine, as clones of an `Arc` are. Everything that looks like chance
/// comes from the seed: the same calls in the same order give the same bytes, errors and states.
/// See the [crate's documentation](crate) for a tour and [`crash`](crate::crash) for the model of
/// the disk.
#[derive(Clone)]
pub struct SimStorage {
    pub(crate) machine: Arc<Machine>,
}

/// # Machines
impl SimStorage {
    /// A machine with an empty directory, an endless disk, and files in [`IoMode::Direct`].
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_state(seed, State::new(seed, Disk::new()), Clock::new())
    }

    /// How files are opened from now on for [`Access::ReadWriteDirect`]: with [`IoMode::Direct`]
    /// they refuse whatever is not aligned to 4096 bytes, as real ones do. A file that does not
    /// consist of whole blocks is opened buffered in any case.
    ///
    /// [`Access::ReadWriteDirect`]: wal_storage::Access::ReadWriteDirect
    pub fn set_mode(&self, mode: IoMode) {
        self.state().mode = mode;
    }

    /// Limits the disk: `Some(bytes)` that can still be taken, or `None` for no limit.
    ///
    /// Space is taken in blocks of 4096 bytes, by creating files and by writing where a file had
    /// no blocks; never by writing over blocks that are there. A removed or replaced file gives
    /// back its space as soon as nobody has it open.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        let mut state = self.state();
        let used = state.used_blocks;
        state.capacity_blocks = bytes.map(|bytes| used + bytes / BLOCK_BYTES as u64);
    }

    /// The machine after its power failed at this moment and came back: what was durable is
    /// there, of the rest what `plan` leaves, see [`crash`](crate::crash).
    ///
    /// This machine stays as it is, so that many crashes can be taken from one moment. Open
    /// files, jobs, faults and the lock belong to it alone. On the new one the monotonic clock
    /// starts again, operations count from 0, and random bytes are others.
    #[must_use]
    pub fn crash(&self, plan: CrashPlan) -> Self {
        let state = self.state();
        let seed = mix(state.next_life_seed(), plan.fingerprint());
        let after = State { mode: state.mode, ..State::new(seed, state.disk.crash(plan)) };
        let after = after.with_capacity(state.capacity_blocks);
        Self::with_state(seed, after, self.machine.clock.after_crash())
    }

    /// The machine after the process was killed at this moment: everything written is still
    /// there, what was not synced is still not synced, files are closed, jobs are gone, the lock
    /// is free. Both clocks go on. This machine stays as it is.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.state();
        let seed = mix(state.next_life_seed(), 4);
        let after = State { mode: state.mode, ..State::new(seed, state.disk.clone()) };
        let after = after.with_capacity(state.capacity_blocks);
        Self::with_state(seed, after, self.machine.clock.after_kill())
    }

    /// An independent copy of this machine with everything that is pending, and with its
    /// counters, faults and chance: the same calls give the same results on both. Cheap, however
    /// much the disk holds. Open files, jobs and the lock stay with this machine.
    #[must_use]
    pub fn fork(&self) -> Self {
        self.fork_of(&self.state())
    }

    pub(crate) fn from_disk(seed: u64, disk: Disk) -> Self {
        let state = State::new(seed, disk).with_capacity(None);
        Self::with_state(seed, state, Clock::new())
    }

    fn with_state(seed: u64, state: State, clock: Clock) -> Self {
        let machine = Machine {
            seed,
            path: PathBuf::from("simulated"),
            state: Mutex::new(state),
            clock,
            jobs: Jobs::new(Random::stream(seed, 3)),
            is_locked: AtomicBool::new(false),
        };
        Self { machine: Arc::new(machine) }
    }

    pub(crate) fn fork_of(&self, state: &State) -> Self {
        Self::with_state(self.machine.seed, state.copy(), self.machine.clock.after_kill())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.machine.state()
    }
}

/// # Operations and faults
///
/// Operations are counted from 0 over the life of a machine, so operation `n` is the one that
/// begins when [`operations`](Self::operations) says `n`.
impl SimStorage {
    /// How many operations have begun.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().counts.iter().sum()
    }

    /// How many operations of one kind have begun.
    #[must_use]
    pub fn operations_of(&self, kind: OperationKind) -> u64 {
        self.state().counts[kind as usize]
    }

    /// Keeps a list of the operations from now on, or stops doing so, and empties it.
    pub fn set_tracing(&self, on: bool) {
        self.state().trace = on.then(Vec::new);
    }

    /// The operations since the last call, if [tracing](Self::set_tracing) is on.
    #[must_use]
    pub fn take_trace(&self) -> Vec<Operation> {
        self.state().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Plans a fault. Several may wait; each operation fails from the first that fits.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.add(fault);
    }

    /// Forgets all faults to come.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// How many operations have failed from a planned fault. A full disk and a halt do not count.
    #[must_use]
    pub fn faults_hit(&self) -> u64 {
        self.state().faults.hits
    }

    /// Stops the machine at operation `number`: that one and every later operation fails, and
    /// nothing changes any more. If operation `number` is a write, a random part of it is done,
    /// pending; if it changes names, it is done or not, as the seed says.
    ///
    /// This is how to test a crash in the middle of something: for each `n` run the workload with
    /// `halt_at(n)` until it fails, then go on with what [`crash`](Self::crash) leaves.
    pub fn halt_at(&self, number: u64) {
        self.state().halt_at = Some(number);
    }

    /// Stops the machine now, in between operations.
    pub fn halt(&self) {
        self.state().is_halted = true;
    }

    /// Whether the machine has stopped.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.state().is_halted
    }

    /// Keeps a [`fork`](Self::fork) of the machine as it is just before operation `number`, and
    /// lets it go on: the way to look at many moments of one run. May be called for any number
    /// of operations.
    pub fn snapshot_at(&self, number: u64) {
        self.state().snapshots.at.insert(number);
    }

    /// Keeps a fork just before every operation that
    /// [changes something](OperationKind::is_change), from now on; and one in the midst of every
    /// [write-through](wal_storage::WriteSync::Through), when its bytes are on their way and none
    /// of them need be durable.
    pub fn snapshot_each_change(&self, on: bool) {
        self.state().snapshots.each_change = on;
    }

    /// The forks kept since the last call, each with the number of the operation that it precedes,
    /// or is in the midst of.
    #[must_use]
    pub fn take_snapshots(&self) -> Vec<(u64, Self)> {
        std::mem::take(&mut self.state().snapshots.taken)
    }
}

/// # Jobs and time
impl SimStorage {
    /// Runs every job that is due, also those that become due by running others, and returns how
    /// many ran. The seed chooses the kind each time; jobs of one kind run in order of the time
    /// they were due. A job that spawns its like without delay keeps this busy for ever.
    pub fn run_jobs(&self) -> usize {
        std::iter::from_fn(|| self.run_one_job().then_some(())).count()
    }

    /// Runs one job that is due, on this thread; `false` if there is none.
    ///
    /// A job that panics ends alone and is [counted](Self::jobs_panicked). A job may itself run
    /// jobs, of other kinds than its own.
    pub fn run_one_job(&self) -> bool {
        self.machine.jobs.run_one(self.machine.clock.now())
    }

    /// How many jobs wait, due or not.
    #[must_use]
    pub fn pending_jobs(&self) -> usize {
        self.machine.jobs.pending()
    }

    /// How many jobs of one kind wait, due or not.
    #[must_use]
    pub fn pending_jobs_of(&self, kind: JobKind) -> usize {
        self.machine.jobs.pending_of(kind)
    }

    /// When the next waiting job is due, on the clock of [`Storage::now`](wal_storage::Storage::now).
    #[must_use]
    pub fn next_job_due(&self) -> Option<Duration> {
        self.machine.jobs.next_due()
    }

    /// How many jobs have panicked.
    #[must_use]
    pub fn jobs_panicked(&self) -> u64 {
        self.machine.jobs.panicked()
    }

    /// Drops all waiting jobs un-run, as the end of a process does, and returns how many.
    ///
    /// Jobs often hold a clone of the storage that holds them: a test that minds the memory
    /// calls this at its end.
    pub fn forget_jobs(&self) -> usize {
        self.machine.jobs.forget_all()
    }

    /// Lets time pass on both clocks. Nothing runs by itself: see [`run_jobs`](Self::run_jobs).
    pub fn advance(&self, time: Duration) {
        self.machine.clock.advance(time);
    }

    /// Sets the wall clock; the other one does not notice.
    pub fn set_wall_clock_ns(&self, ns: i64) {
        self.machine.clock.set_wall_clock_ns(ns);
    }

    /// Moves the wall clock forth, or back if `ns` is negative; the other one does not notice.
    pub fn step_wall_clock(&self, ns: i64) {
        self.machine.clock.step_wall_clock(ns);
    }
}

impl fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimStorage")
            .field("seed", &self.machine.seed)
            .field("operations", &state.counts.iter().sum::<u64>())
            .field("files", &state.disk.named_files().len())
            .field("is_halted", &state.is_halted)
            .finish_non_exhaustive()
    }
}

/// What all clones of a [`SimStorage`] share.
pub(crate) struct Machine {
    pub(crate) seed: u64,
    pub(crate) path: PathBuf,
    pub(crate) state: Mutex<State>,
    pub(crate) clock: Clock,
    pub(crate) jobs: Jobs,
    pub(crate) is_locked: AtomicBool,
}

impl Machine {
    pub(crate) fn error(&self, name: &str, operation: &'static str, source: io::Error) -> WalError {
        let path = self.path.join(name);
        if source.kind() == io::ErrorKind::InvalidInput {
            // The caller's mistake, and the device was not asked.
            return WalError::InvalidArgument {
                what: format!("{}: {operation}: {source}", path.display()),
            };
        }
        WalError::io(path, operation, source)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("seed", &self.seed).finish_non_exhaustive()
    }
}
