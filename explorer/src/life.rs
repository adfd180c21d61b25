//! One process with a log: does what a workload says, and tells the oracle what calls returned.

mod appending;
mod checkpointing;
mod cutting;
mod going_back;
mod opening;
mod pinning;
mod refusing;
mod replaying;
mod syncing;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wal_entry::WalEntry;
use wal_sim::SimStorage;
use wal_storage::{OsStorage, Storage, WalError};
use wal_writer::{CoreWalWriter, SharedWriter, Wal};

use crate::Checked;
use crate::faults::Schedule;
use crate::look::{Found, look};
use crate::oracle::{Acked, Cut, Oracle};
use crate::random::{Random, index};
use crate::watchdog::Doing;
use crate::witness::Witnessed;
use crate::workload::{Ending, Operation, Pick, Workload};
use pinning::Pinned;
use replaying::Kept;
use syncing::{Proof, Request, Ticket};

/// Looks at the moments of a life at which it could end.
pub(crate) trait Visitor {
    /// What the oracle has acked before the call that is under way must survive.
    fn visit(&mut self, moment: &Moment<'_>) -> Checked;

    /// Something begins that may not come to an end.
    fn begins(&mut self, _what: Doing) {}
}

/// What is known at a moment.
#[derive(Debug)]
pub(crate) struct Moment<'a> {
    /// The machine as it was then.
    pub(crate) machine: &'a SimStorage,
    pub(crate) oracle: &'a Oracle,
    /// Each of these may have happened.
    pub(crate) cuts: &'a [Cut],
    pub(crate) is_opening: bool,
    pub(crate) disk_is_full: bool,
}

/// A process, its log, the disk under it, and what the oracle knows.
pub(crate) struct Life<'a> {
    /// Stands still, and holds nothing, if the log lies in a real directory.
    machine: SimStorage,
    witnessed: Witnessed,
    /// The real directory under the log, if it is not on the machine.
    directory: Option<PathBuf>,
    oracle: Oracle,
    visitor: &'a mut dyn Visitor,
    /// Where the small choices come from, such as the bytes of keys and values.
    random: Random,
    /// Fields in the order in which they are let go of.
    tickets: Vec<Ticket>,
    requests: Vec<Request>,
    proofs: Vec<Proof>,
    shared: BTreeMap<u16, Vec<SharedWriter>>,
    writers: BTreeMap<u16, CoreWalWriter>,
    wal: Option<Wal>,
    /// The cores that log, whether the log itself is in anybody's hand or not; none if it is closed.
    open_cores: Vec<u16>,
    /// How far each core's writer has handed over what it appended.
    submitted: BTreeMap<u16, Acked>,
    /// How long a commit may be put off.
    max_delay: Duration,
    /// What openings recovered, kept to be replayed.
    kept: Vec<Kept>,
    /// What keeps segments, of this opening or of one before.
    pins: Vec<Pinned>,
    /// Counts openings and cuts, so that tickets of another life are known.
    openings: u64,
    cuts: BTreeMap<u16, u64>,
    max_record_bytes: u64,
    disk_is_full: bool,
    log_was_made: bool,
    is_opening: bool,
    closing_at_end: bool,
    /// A failure has left nothing to go on with.
    is_over: bool,
    faults: Schedule,
    /// How many operations of the disk had failed when the log was opened.
    faults_before: u64,
    doing: Doing,
    /// Nothing is acked on these any more, and whoever asks hears of the first cause.
    poisoned: RefCell<BTreeMap<u16, String>>,
}

/// What tells a life of a core's log from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LogLife {
    core: u16,
    opening: u64,
    cuts: u64,
}

impl<'a> Life<'a> {
    pub(crate) fn new(
        machine: SimStorage,
        oracle: Oracle,
        seed: u64,
        visitor: &'a mut dyn Visitor,
    ) -> Self {
        Self {
            witnessed: Witnessed::new(machine.clone()),
            machine,
            directory: None,
            oracle,
            visitor,
            random: Random::new(!seed),
            tickets: Vec::new(),
            requests: Vec::new(),
            proofs: Vec::new(),
            shared: BTreeMap::new(),
            writers: BTreeMap::new(),
            wal: None,
            open_cores: Vec::new(),
            submitted: BTreeMap::new(),
            max_delay: Duration::ZERO,
            kept: Vec::new(),
            pins: Vec::new(),
            openings: 0,
            cuts: BTreeMap::new(),
            max_record_bytes: 0,
            disk_is_full: false,
            log_was_made: false,
            is_opening: false,
            closing_at_end: false,
            is_over: false,
            faults: Schedule::new(),
            faults_before: 0,
            doing: Doing::Opening,
            poisoned: RefCell::default(),
        }
    }

    /// The log lies in a real directory: neither it nor the power fails, and clocks and background
    /// jobs do as they please.
    pub(crate) fn set_directory(&mut self, path: PathBuf) {
        self.directory = Some(path);
    }

    /// The process lets go of its log before it ends.
    pub(crate) const fn set_closing_at_end(&mut self, closing: bool) {
        self.closing_at_end = closing;
    }

    /// Opens the log in which `found` was found and does everything that the workload says.
    ///
    /// # Errors
    ///
    /// What happened against a promise, and when.
    pub(crate) fn live(&mut self, workload: &Workload, begins_as: &Beginning) -> Checked {
        self.machine.snapshot_each_change(true);
        let lived = self.live_on(workload, begins_as);
        // A process that ends here writes no more.
        self.machine.snapshot_each_change(false);
        self.machine.halt();
        lived
    }

    fn live_on(&mut self, workload: &Workload, begins_as: &Beginning) -> Checked {
        self.faults.clone_from(&workload.faults);
        self.begin(Doing::Opening);
        self.plan_faults(0);
        let opened = match begins_as {
            Beginning::OfALog => self.open(workload.shape, true),
            Beginning::After { found, settled, disk_is_full } => {
                self.log_was_made = found.log.manifest.is_some();
                self.disk_is_full = *disk_is_full;
                match workload.goes_back {
                    Some(to) => self.go_back(found, workload.shape, *settled, to),
                    None => self.open_found(found, workload.shape, *settled),
                }
            }
        };
        opened.map_err(|what| format!("in the first opening: {what}"))?;
        for (number, operation) in workload.operations.iter().enumerate() {
            if self.is_over {
                break;
            }
            self.begin(Doing::Operation(number));
            self.plan_faults(number + 1);
            let done = self.act(operation).and_then(|()| self.called(&[]));
            let done = done.and_then(|()| self.check_writers());
            done.map_err(|what| format!("in operation {}, {operation}: {what}", number + 1))?;
        }
        if self.closing_at_end {
            let ended = self.close(Ending::Closing);
            ended.map_err(|what| format!("in the last close: {what}"))?;
        }
        let moment = match self.directory {
            None => self.machine.fork(),
            Some(_) => self.frozen()?,
        };
        self.visit(&moment, &[]).map_err(|what| format!("at the end: {what}"))
    }

    fn begin(&mut self, what: Doing) {
        self.doing = what;
        self.visitor.begins(what);
    }

    fn plan_faults(&self, before: usize) {
        let due = self.faults.iter().filter(|(number, _)| *number == before);
        due.for_each(|(_, fault)| self.machine.inject(fault.clone()));
    }

    /// Looks at every moment of the call that has just returned. Only after that does it hold what
    /// the call said.
    fn called(&mut self, cuts: &[Cut]) -> Checked {
        let mut sightings = self.witnessed.take_sightings();
        // Whether it was cut decides what a position means.
        if !cuts.is_empty() || !self.oracle.doubtful_cuts.is_empty() {
            sightings.clear();
        }
        let snapshots = self.machine.take_snapshots();
        let were_any = !snapshots.is_empty();
        for (number, machine) in snapshots {
            for (core, position) in sightings.remove(&number).into_iter().flatten() {
                self.oracle.core(core).is_seen_durable(position);
            }
            self.visit(&machine, cuts)?;
        }
        if were_any {
            self.begin(self.doing);
        }
        self.oracle.call_is_over();
        match self.machine.jobs_panicked() {
            0 => Ok(()),
            panicked => Err(format!("{panicked} jobs have panicked")),
        }
    }

    fn visit(&mut self, machine: &SimStorage, cuts: &[Cut]) -> Checked {
        let Self { oracle, is_opening, disk_is_full, .. } = self;
        let (is_opening, disk_is_full) = (*is_opening, *disk_is_full);
        self.visitor.visit(&Moment { machine, oracle, cuts, is_opening, disk_is_full })
    }

    fn act(&mut self, operation: &Operation) -> Checked {
        match *operation {
            Operation::Put { core, key_bytes, value_bytes } => {
                self.put(core, key_bytes, value_bytes)
            }
            Operation::Puts { core, count, value_bytes } => {
                (0..count).try_for_each(|_| self.put(core, 8, value_bytes))
            }
            Operation::Delete { core, key_bytes } => self.delete(core, key_bytes),
            Operation::Commit { core, sources } => self.commit(core, sources),
            Operation::Marker { core, id } => self.marker(core, id),
            Operation::Barrier { core } => self.barrier(core),
            Operation::SetEpoch { core, by } => self.set_epoch(core, by),
            Operation::ReadyMade { core, epoch_by, time_by_ns, is_barrier } => {
                self.append_ready_made(core, epoch_by, time_by_ns, is_barrier)
            }
            Operation::Batch { core, count, value_bytes } => {
                self.append_batch(core, count, value_bytes)
            }
            Operation::Sync { core } => self.sync(core),
            Operation::Submit { core } => self.submit(core),
            Operation::TrySubmit { core } => self.try_submit(core),
            Operation::Ticket { pick, what } => self.do_with_ticket(pick, what),
            Operation::StartSync { core } => self.start_sync(core),
            Operation::RunRequest { pick } => self.run_request(pick),
            Operation::DropRequest { pick } => {
                if let Some(at) = index(pick, self.requests.len()) {
                    drop(self.requests.swap_remove(at));
                }
                Ok(())
            }
            Operation::MarkSynced { pick } => self.mark_synced(pick),
            Operation::SyncAll => self.sync_all(),
            Operation::Watch { core } => self.watch(core),
            Operation::Together { pick, what } => self.act_together(pick, what),
            Operation::Truncate { core, pick } => self.truncate(core, pick),
            Operation::Reset { core } => self.reset(core),
            Operation::Checkpoint { how } => self.checkpoint(how),
            Operation::Pin => self.pin(),
            Operation::AdvancePin { core, pick } => self.advance_pin(core, pick),
            Operation::DropPin { pick } => {
                if let Some(at) = index(pick, self.pins.len()) {
                    drop(self.pins.swap_remove(at));
                }
                Ok(())
            }
            Operation::Share { core, by_dropping } => self.share(core, by_dropping),
            Operation::CloneShared { core } => self.clone_shared(core),
            Operation::DropShared { core } => self.drop_shared(core),
            Operation::Unshare { core } => self.unshare(core),
            Operation::GiveBack { core, closing } => self.give_back(core, closing),
            Operation::Reopen { ending, shape, at } => {
                self.close(ending)?;
                self.open(shape, false)?;
                // The first of its cores.
                at.map_or(Ok(()), |pick| self.truncate(0, pick))
            }
            Operation::GoBack { ending, shape, to } => {
                self.close(ending)?;
                let found = look(&self.frozen()?, &self.oracle, &[])?;
                self.go_back(&found, shape, false, to)
            }
            Operation::Refused { core, pick, what } => self.is_refused(core, pick, what),
            Operation::Replay { pick, how } => self.replay(pick, how),
            Operation::DropReplay { pick } => {
                if let Some(at) = index(pick, self.kept.len()) {
                    drop(self.kept.swap_remove(at));
                }
                Ok(())
            }
            Operation::LookBeside => self.look_beside(),
            Operation::RunJobs => {
                self.machine.run_jobs();
                self.called(&[])?;
                self.background_has_served()?;
                self.pins_hold()?;
                self.replay_each()
            }
            Operation::RunOneJob => {
                self.machine.run_one_job();
                Ok(())
            }
            Operation::Advance { milliseconds } => {
                self.machine.advance(Duration::from_millis(milliseconds));
                Ok(())
            }
            Operation::StepWallClock { by_ns } => {
                self.machine.step_wall_clock(by_ns);
                Ok(())
            }
            Operation::FillDisk { .. } | Operation::FreeDisk if self.directory.is_some() => Ok(()),
            Operation::FillDisk { free_bytes } => {
                self.machine.set_free_bytes(Some(free_bytes));
                self.disk_is_full = true;
                Ok(())
            }
            Operation::FreeDisk => {
                self.machine.set_free_bytes(None);
                self.disk_is_full = false;
                Ok(())
            }
        }
    }

    // ---- small helpers ----

    /// What a process opens its log with.
    fn storage(&self) -> Result<Arc<dyn Storage>, WalError> {
        Ok(match &self.directory {
            None => Arc::new(self.witnessed.clone()),
            Some(path) => Arc::new(OsStorage::create(path)?),
        })
    }

    /// What a process finds that only looks, as after a kill: no fault waits for it, and nothing
    /// that it leaves behind is in the way.
    fn frozen(&self) -> Checked<SimStorage> {
        match &self.directory {
            None => Ok(self.machine.kill()),
            Some(path) => SimStorage::from_directory(0, path)
                .map_err(|error| format!("copying the directory: {error}")),
        }
    }

    fn wall_clock_ns(&self) -> i64 {
        match &self.directory {
            None => self.machine.wall_clock_ns(),
            Some(_) => WalEntry::now_ns(),
        }
    }

    /// One of a core's shared writers, any of them.
    fn a_shared_writer(&mut self, core: u16) -> Option<SharedWriter> {
        let handles = self.shared.get(&core)?;
        let at = index(self.random.next(), handles.len())?;
        handles.get(at).cloned()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let salt = self.random.next().to_le_bytes();
        salt.into_iter().cycle().take(length).collect()
    }

    /// The core chosen among those that can be appended to.
    fn appending_core(&self, pick: Pick) -> Option<u16> {
        let cores = || self.writers.keys().chain(self.shared.keys());
        let at = index(pick, cores().count())?;
        cores().nth(at).copied()
    }

    /// The core chosen among those whose writers are out alone.
    fn writing_core(&self, pick: Pick) -> Option<u16> {
        let at = index(pick, self.writers.len())?;
        self.writers.keys().nth(at).copied()
    }

    fn log_life(&self, core: u16) -> LogLife {
        let cuts = self.cuts.get(&core).copied().unwrap_or(0);
        LogLife { core, opening: self.openings, cuts }
    }

    fn is_alive(&self, life: LogLife) -> bool {
        !self.open_cores.is_empty() && self.log_life(life.core) == life
    }

    /// Whether an operation of the disk has failed since the log was opened.
    fn has_failed(&self) -> bool {
        self.machine.faults_hit() > self.faults_before
    }

    /// Whether an error has a good reason.
    fn excuse(&self, error: &WalError) -> Checked {
        if let WalError::Poisoned { core, first } = error {
            let first = first.to_string();
            let mut poisoned = self.poisoned.borrow_mut();
            let known = poisoned.entry(*core).or_insert_with(|| first.clone());
            if *known != first {
                return Err(format!(
                    "core {core}: the first cause was {known}, and now is {first}"
                ));
            }
        }
        let is_excused = match error {
            WalError::StorageFull { .. } => self.disk_is_full || self.has_failed(),
            WalError::Io { .. } | WalError::Poisoned { .. } => self.has_failed(),
            _ => false,
        };
        if is_excused { Ok(()) } else { Err(format!("failed without a reason: {error}")) }
    }

    fn is_poisoned(&self, core: u16) -> bool {
        self.poisoned.borrow().contains_key(&core)
    }

    /// After a failure nothing is accepted any more.
    fn is_not_poisoned(&self, core: u16, what: &str) -> Checked {
        match self.is_poisoned(core) {
            true => {
                Err(format!("promise 5: core {core}: {what} was Ok, though its log is poisoned"))
            }
            false => Ok(()),
        }
    }

    /// What a writer says of itself is what the oracle knows. What it says is synced is acked by that.
    fn check_writers(&mut self) -> Checked {
        // A cut that failed leaves some writers cut, and nobody may rely on what they say.
        for (&core, writer) in self.writers.iter().filter(|_| !self.is_over) {
            if self.is_poisoned(core) {
                continue;
            }
            let oracle = self.oracle.core(core);
            let expected = (oracle.position, oracle.sequence());
            let actual = (writer.position(), writer.sequence());
            if actual != expected {
                return Err(format!(
                    "core {core}: its writer says position and sequence {actual:?}, which should \
                     be {expected:?}"
                ));
            }
            let (synced, since) = (writer.synced_position(), writer.entries_since_sync());
            let behind = oracle.entries_behind(synced);
            if synced > oracle.position || since != behind {
                return Err(format!(
                    "core {core}: its writer says that {since} entries lie behind {synced}, up to \
                     which all is synced; these are {behind}"
                ));
            }
            oracle.ack_below(synced);
        }
        for (&core, handles) in self.shared.iter().filter(|_| !self.is_over) {
            if self.is_poisoned(core) {
                continue;
            }
            let oracle = self.oracle.core(core);
            let expected = (core, oracle.position, oracle.sequence());
            let told =
                |handle: &SharedWriter| (handle.core_id(), handle.position(), handle.sequence());
            if let Some(wrong) = handles.iter().map(told).find(|actual| *actual != expected) {
                return Err(format!(
                    "a shared writer says core, position and sequence {wrong:?}, which should be \
                     {expected:?}"
                ));
            }
        }
        self.check_wakes()
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        self.machine.halt();
        self.witnessed.watch(Vec::new());
        self.wal = None;
        self.machine.forget_jobs();
    }
}

/// On what a life begins.
pub(crate) enum Beginning {
    /// An empty directory.
    OfALog,
    /// What a crash left; `settled` if all of it is durable.
    After { found: Box<Found>, settled: bool, disk_is_full: bool },
}
