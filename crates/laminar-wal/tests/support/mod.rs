//! The verbs of the stories: a log on a simulated disk, beside a model of what it promised.
//!
//! [`TestLog`] does what a program does with a log and writes down what was appended and what was
//! acked. Whenever the log is opened, what comes back is held against that: per core a prefix of
//! what was appended, whole and in order, and nothing acked is missing.

#![allow(dead_code, reason = "each story uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a helper of tests fails the test that called it"
)]

pub(crate) mod clients;
pub(crate) mod disks;
pub(crate) mod tasks;

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use laminar_wal::{
    CoreReport, CoreWalWriter, Recovery, RecoveryReport, SharedWriter, Storage, SyncTicket, Wal,
    WalEntry, WalError, WalOperation, WalOptions, WriteBatch,
};
use wal_sim::{CrashPlan, Granularity, SimStorage};
use wal_storage::Result;

/// Options with which a few records fill a batch, and a few batches a segment.
pub(crate) fn small(disk: &SimStorage) -> WalOptions {
    WalOptions::on_storage(storage(disk))
        .segment_bytes(32 * 1024)
        .batch_bytes(4096)
        .in_flight_bytes(8192)
        .max_record_bytes(64 * 1024)
}

pub(crate) fn storage(disk: &SimStorage) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

/// The name of a core's segment file.
pub(crate) fn segment(core: u16, id: u64) -> String {
    format!("core-{core:04}/{id:020}.wal")
}

/// Seeds to try; the environment variable `LAMINAR_WAL_SEED` asks for one alone.
pub(crate) fn seeds(range: Range<u64>) -> Vec<u64> {
    let asked = std::env::var("LAMINAR_WAL_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.map_or_else(|| range.collect(), |seed| vec![seed])
}

/// The two extremes of power loss, and random ones in all variants.
pub(crate) fn crash_plans(random: Range<u64>) -> Vec<CrashPlan> {
    let random = seeds(random).into_iter().map(|seed| {
        let plan = CrashPlan::random(seed);
        match seed % 5 {
            1 => plan.garbage(),
            2 => plan.granularity(Granularity::Byte),
            3 => plan.granularity(Granularity::Sector512).garbage(),
            _ => plan,
        }
    });
    [CrashPlan::lose_everything_unsynced(), CrashPlan::keep_everything()]
        .into_iter()
        .chain(random)
        .collect()
}

/// A splitmix64 generator: the same seed, the same choices, on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number below `bound`, which is not 0, as an index or a count.
    pub(crate) const fn size(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// True `percent` times of a hundred.
    pub(crate) const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Says something that a reader of the test's output must not miss: past the capture of passing
/// tests' output, which holds back only what the print macros write.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "!!! {what}");
}

/// What a program does with a log, for workloads that are run many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A put with a value of so many bytes.
    Append(u16, usize),
    /// An atomic batch of so many puts with values of so many bytes.
    Batch(u16, usize, usize),
    Barrier(u16),
    Sync(u16),
    /// Keeps this many entries.
    Truncate(u16, usize),
    Reset(u16),
    /// Drops the writer and takes it again.
    GiveBack(u16),
    /// Background jobs run.
    Jobs,
    /// Nothing happens for two seconds.
    Quiet,
    /// Closes the log and opens it again.
    Reopen,
    /// The process is killed, and started again.
    Kill,
}

/// Appends, atomic batches, full buffers that are written without a sync, syncs, full segments,
/// quiet times, barriers, writers given back, cuts, openings and kills, on two cores.
pub(crate) const LONG_LIFE: &[Step] = {
    use Step::*;
    &[
        Append(0, 40),
        Append(1, 700),
        Sync(0),
        Append(0, 1),
        Sync(1),
        Jobs,
        // Full buffers, then a full segment.
        Append(0, 3000),
        Append(0, 3000),
        Append(0, 3000),
        Sync(0),
        Append(1, 40),
        Append(0, 3000),
        Append(0, 500),
        Barrier(0),
        Sync(0),
        Quiet,
        // Larger than a buffer.
        Append(1, 5000),
        Sync(1),
        Append(1, 20),
        Reopen,
        Append(0, 9),
        Barrier(1),
        Sync(0),
        Sync(1),
        Truncate(0, 5),
        Append(0, 77),
        Sync(0),
        Jobs,
        Kill,
        Append(0, 100),
        Append(1, 9000),
        // Two segments in flight.
        Append(1, 9000),
        Append(1, 9000),
        Sync(1),
        GiveBack(1),
        Append(1, 30),
        Truncate(1, 2),
        Truncate(1, 1),
        Append(1, 60),
        Reset(0),
        Jobs,
        // In recycled files.
        Append(0, 3500),
        Sync(0),
        Append(0, 3500),
        Batch(0, 3, 1000),
        Append(0, 3500),
        Jobs,
        Append(0, 3500),
        Sync(0),
        Sync(1),
        Reset(1),
        Append(1, 8),
        Batch(1, 20, 9),
        Sync(1),
        Reopen,
        Append(1, 70),
        Quiet,
        Sync(1),
        Append(0, 12),
        Reopen,
    ]
};

/// A log on a simulated disk, its writers, and what it promised.
pub(crate) struct TestLog {
    pub(crate) disk: SimStorage,
    pub(crate) model: Model,
    /// What the last opening said.
    pub(crate) report: Option<RecoveryReport>,
    /// What is going on, for the message of a failing test.
    pub(crate) story: String,
    cores: u16,
    wal: Option<Wal>,
    writers: BTreeMap<u16, CoreWalWriter>,
    watched: bool,
    moments: Vec<Moment>,
}

/// The machine just before an operation that changes something, and what was promised by then.
pub(crate) struct Moment {
    pub(crate) operation: u64,
    pub(crate) disk: SimStorage,
    pub(crate) model: Model,
    pub(crate) cores: u16,
}

impl Moment {
    /// Loses power at this moment, opens the log and holds it against its promises.
    pub(crate) fn crash(&self, plan: CrashPlan) -> TestLog {
        self.reopened(self.disk.crash(plan), &format!("{plan:?}"))
    }

    /// Kills the process at this moment, and goes on as [`crash`](Self::crash) does.
    pub(crate) fn kill(&self) -> TestLog {
        self.reopened(self.disk.kill(), "killed")
    }

    fn reopened(&self, disk: SimStorage, how: &str) -> TestLog {
        let mut log = TestLog::closed(disk, self.cores, self.model.clone());
        log.story = format!("before operation {}, {how}", self.operation);
        log.reopen().unwrap_or_else(|error| panic!("{}: {error}", log.story));
        log
    }
}

impl TestLog {
    /// A new log of this many cores, open.
    pub(crate) fn new(cores: u16) -> Self {
        Self::open(SimStorage::new(1), cores, Model::default()).unwrap()
    }

    /// As [`new`](Self::new), keeping the machine at each moment from the very first on.
    pub(crate) fn watched(cores: u16) -> Self {
        let mut log = Self::closed(SimStorage::new(1), cores, Model::default());
        log.watch();
        log.reopen().unwrap();
        log
    }

    /// Opens the log on `disk` and holds what comes back against `model`.
    pub(crate) fn open(disk: SimStorage, cores: u16, model: Model) -> Result<Self> {
        let mut log = Self::closed(disk, cores, model);
        log.reopen()?;
        Ok(log)
    }

    /// A log that is not open.
    pub(crate) fn closed(disk: SimStorage, cores: u16, model: Model) -> Self {
        let (wal, writers, moments) = (None, BTreeMap::new(), Vec::new());
        let story = String::new();
        Self { disk, model, report: None, story, cores, wal, writers, watched: false, moments }
    }

    /// Keeps the machine at each moment from now on.
    pub(crate) fn watch(&mut self) {
        self.watched = true;
        self.disk.snapshot_each_change(true);
    }

    pub(crate) fn perform(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Append(core, bytes) => self.append(core, bytes).map(drop),
            Step::Batch(core, count, bytes) => self.batch(core, count, bytes).map(drop),
            Step::Barrier(core) => self.barrier(core).map(drop),
            Step::Sync(core) => self.sync(core),
            Step::Truncate(core, keep) => self.truncate(core, keep),
            Step::Reset(core) => self.reset(core),
            Step::GiveBack(core) => self.give_back(core),
            Step::Jobs => {
                self.run_jobs();
                Ok(())
            }
            Step::Quiet => {
                self.be_quiet();
                Ok(())
            }
            Step::Reopen => {
                let closed = self.close();
                let reopened = self.reopen();
                closed.and(reopened)
            }
            Step::Kill => self.kill(),
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        self.wal.is_some()
    }

    pub(crate) fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("the log is open")
    }

    pub(crate) fn has_writer(&self, core: u16) -> bool {
        self.writers.contains_key(&core)
    }

    pub(crate) fn writer(&mut self, core: u16) -> &mut CoreWalWriter {
        self.writers.get_mut(&core).expect("the writer is taken")
    }

    // ---- appending and syncing ----

    /// Appends a put with a key of its own and returns the record's position.
    pub(crate) fn append(&mut self, core: u16, value_bytes: usize) -> Result<u64> {
        let count = self.model.core(core).entries.len();
        let key = format!("{core}-{count}").into_bytes();
        let value = vec![b'a' + (count % 26) as u8; value_bytes];
        let operation = WalOperation::Put { key: key.clone(), value: value.clone() };
        self.appended(core, operation, |writer| writer.append_put(&key, &value))
    }

    /// As [`append`](Self::append), with a handle that others may use too.
    pub(crate) fn append_shared(
        &mut self,
        core: u16,
        writer: &SharedWriter,
        value_bytes: usize,
    ) -> Result<SyncTicket> {
        let model = self.model.core_mut(core);
        let count = model.entries.len();
        let (key, value) = (format!("{core}-{count}").into_bytes(), vec![b's'; value_bytes]);
        let operation = WalOperation::Put { key: key.clone(), value: value.clone() };
        model.entries.push(Logged { epoch: writer.epoch(), operation });
        writer.append_put(&key, &value)
    }

    pub(crate) fn append_n(&mut self, core: u16, count: usize) -> Result<()> {
        (0..count).try_for_each(|_| self.append(core, 40).map(drop))
    }

    pub(crate) fn put(&mut self, core: u16, key: &str, value: &str) -> Result<u64> {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let operation = WalOperation::Put { key: key.to_vec(), value: value.to_vec() };
        self.appended(core, operation, |writer| writer.append_put(key, value))
    }

    pub(crate) fn barrier(&mut self, core: u16) -> Result<u64> {
        let operation = WalOperation::EpochBarrier { epoch: self.writer(core).epoch() };
        self.appended(core, operation, CoreWalWriter::append_epoch_barrier)
    }

    /// Appends an atomic batch of so many puts, each with a key of its own.
    pub(crate) fn batch(&mut self, core: u16, count: usize, value_bytes: usize) -> Result<u64> {
        let first = self.model.core(core).entries.len();
        let mut batch = WriteBatch::new();
        let operations = (first..first + count).map(|n| {
            let key = format!("{core}-{n}").into_bytes();
            let value = vec![b'A' + (n % 26) as u8; value_bytes];
            batch.put(&key, &value);
            WalOperation::Put { key, value }
        });
        let operations = operations.collect();
        self.batch_appended(core, &batch, operations)
    }

    /// Appends a batch that stands for these operations.
    pub(crate) fn batch_appended(
        &mut self,
        core: u16,
        batch: &WriteBatch,
        operations: Vec<WalOperation>,
    ) -> Result<u64> {
        assert_eq!((batch.len(), batch.is_empty()), (operations.len(), operations.is_empty()));
        self.all_appended(core, operations, |writer| writer.append_batch(batch))
    }

    fn appended(
        &mut self,
        core: u16,
        operation: WalOperation,
        append: impl FnOnce(&mut CoreWalWriter) -> Result<u64>,
    ) -> Result<u64> {
        self.all_appended(core, vec![operation], append)
    }

    fn all_appended(
        &mut self,
        core: u16,
        operations: Vec<WalOperation>,
        append: impl FnOnce(&mut CoreWalWriter) -> Result<u64>,
    ) -> Result<u64> {
        let writer = self.writers.get_mut(&core).expect("the writer is taken");
        let before = (writer.position(), writer.sequence(), writer.epoch());
        let epoch = writer.epoch();
        let model = self.model.core_mut(core);
        let (first, count) = (model.entries.len(), operations.len());
        let logged = operations.into_iter().map(|operation| Logged { epoch, operation });
        model.entries.extend(logged);
        model.batches.push(first..first + count);
        let appended = append(writer);
        let after = (writer.position(), writer.sequence(), writer.epoch());
        self.keep_moments();
        let model = self.model.core_mut(core);
        match &appended {
            Ok(position) => model.positions.extend(std::iter::repeat_n(*position, count)),
            Err(_) => {
                assert_eq!(before, after, "a failed append leaves everything as it was");
                model.entries.truncate(first);
                model.batches.pop();
            }
        }
        appended
    }

    pub(crate) fn sync(&mut self, core: u16) -> Result<()> {
        let writer = self.writers.get_mut(&core).expect("the writer is taken");
        let synced_before = writer.synced_position();
        let synced = writer.sync();
        match synced {
            Ok(()) => {
                assert_eq!(writer.synced_position(), writer.position());
                assert_eq!(writer.entries_since_sync(), 0);
            }
            Err(_) => assert_eq!(writer.synced_position(), synced_before),
        }
        self.keep_moments();
        if synced.is_ok() {
            self.model.core_mut(core).all_acked();
        }
        synced
    }

    // ---- cutting ----

    pub(crate) fn truncate(&mut self, core: u16, keep: usize) -> Result<()> {
        let position = match self.model.core(core).positions.get(keep) {
            Some(position) => *position,
            None => self.writer(core).position(),
        };
        let keep = keep.min(self.model.core(core).entries.len());
        self.cut(core, keep, |writer| writer.truncate(position))
    }

    pub(crate) fn reset(&mut self, core: u16) -> Result<()> {
        self.cut(core, 0, CoreWalWriter::reset)
    }

    fn cut(
        &mut self,
        core: u16,
        keep: usize,
        cut: impl FnOnce(&mut CoreWalWriter) -> Result<()>,
    ) -> Result<()> {
        let cut_before = self.model.core_mut(core).cut_under_way.replace(keep);
        let writer = self.writers.get_mut(&core).expect("the writer is taken");
        let before = (writer.position(), writer.sequence(), writer.epoch());
        let cut = cut(writer);
        let after = (writer.position(), writer.sequence(), writer.epoch());
        let synced = writer.synced_position();
        self.keep_moments();
        let model = self.model.core_mut(core);
        match &cut {
            Ok(()) => {
                model.keep(keep);
                assert_eq!(after.1, keep as u64);
                assert_eq!(synced, after.0, "what is left is durable");
            }
            Err(WalError::StorageFull { .. }) => {
                assert_eq!(before, after, "a cut that finds the disk full changes nothing");
                model.cut_under_way = None;
            }
            // Nobody knows whether the manifest that says so is on disk; but on a poisoned log no
            // other cut is even tried.
            Err(_) => model.cut_under_way = cut_before.or(Some(keep)),
        }
        cut
    }

    // ---- time and lives ----

    pub(crate) fn run_jobs(&mut self) {
        self.disk.run_jobs();
        assert_eq!(self.disk.jobs_panicked(), 0);
        self.keep_moments();
    }

    pub(crate) fn be_quiet(&mut self) {
        self.disk.advance(Duration::from_secs(2));
        self.run_jobs();
    }

    pub(crate) fn give_back(&mut self, core: u16) -> Result<()> {
        self.writers.remove(&core);
        let taken = self.wal().writer(core);
        self.keep_moments();
        let writer = taken?;
        self.model.core_mut(core).all_acked();
        self.writers.insert(core, writer);
        Ok(())
    }

    /// Gives a core's writer back; what it appended is not acked by that.
    pub(crate) fn drop_writer(&mut self, core: u16) {
        self.writers.remove(&core);
    }

    /// Closes the log: everything is acked if that succeeds.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.writers.clear();
        let Some(wal) = self.wal.take() else { return Ok(()) };
        let closed = wal.close();
        self.keep_moments();
        if closed.is_ok() {
            self.model.all_acked();
        }
        closed
    }

    /// Opens the log, takes all writers, and holds what came back against the model.
    pub(crate) fn reopen(&mut self) -> Result<()> {
        let opened = small(&self.disk).cores(self.cores).open();
        self.keep_moments();
        let (wal, recovery) = opened?;
        // The model knows all that was ever appended, whatever a checkpoint says.
        let entries = recovery.clone().from_start().entries()?;
        self.settle(&entries, &recovery);
        for core in 0..self.cores {
            let writer = wal.writer(core)?;
            self.writers.insert(core, writer);
        }
        self.wal = Some(wal);
        self.keep_moments();
        for core in 0..self.cores {
            let found = self.model.core(core).entries.len() as u64;
            let writer = self.writer(core);
            assert_eq!(writer.sequence(), found, "core {core} goes on where it ended");
            assert_eq!(writer.synced_position(), writer.position());
        }
        Ok(())
    }

    fn settle(&mut self, entries: &[WalEntry], recovery: &Recovery) {
        match self.model.settled(entries) {
            Ok(settled) => self.model = settled,
            Err(broken) => panic!("{}: {broken}\n{}", self.story, recovery.report()),
        }
        self.report = Some(recovery.report().clone());
    }

    /// The process ends at once; the page cache stays.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.become_machine(self.disk.kill());
        self.reopen()
    }

    /// Power fails and comes back.
    pub(crate) fn crash(&mut self, plan: CrashPlan) -> Result<()> {
        self.become_machine(self.disk.crash(plan));
        self.reopen()
    }

    /// The worst that power loss does to a program that syncs correctly.
    pub(crate) fn crash_losing_everything(&mut self) -> Result<()> {
        self.crash(CrashPlan::lose_everything_unsynced())
    }

    fn become_machine(&mut self, disk: SimStorage) {
        self.leave();
        self.disk = disk;
        self.disk.snapshot_each_change(self.watched);
    }

    /// Ends the process without a word to the disk.
    pub(crate) fn leave(&mut self) {
        self.disk.halt();
        self.writers.clear();
        self.wal = None;
        self.disk.forget_jobs();
    }

    // ---- looking ----

    /// What the last opening found of one core.
    pub(crate) fn found(&self, core: u16) -> &CoreReport {
        self.report.as_ref().and_then(|report| report.core(core)).expect("the core was recovered")
    }

    /// The machine at each moment since the last call.
    pub(crate) fn take_moments(&mut self) -> Vec<Moment> {
        std::mem::take(&mut self.moments)
    }

    fn keep_moments(&mut self) {
        for (operation, disk) in self.disk.take_snapshots() {
            let (model, cores) = (self.model.clone(), self.cores);
            self.moments.push(Moment { operation, disk, model, cores });
        }
    }

    /// More work on every core, all of it acked and then put to the test: whatever was opened
    /// must be a log that can be gone on with.
    pub(crate) fn prove_that_it_goes_on(&mut self) -> Result<()> {
        for core in 0..self.cores {
            self.append(core, 100)?;
            self.sync(core)?;
        }
        self.crash_losing_everything()
    }
}

/// What was appended to a log, and what of it was acked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    cores: BTreeMap<u16, CoreModel>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct CoreModel {
    pub(crate) entries: Vec<Logged>,
    pub(crate) positions: Vec<u64>,
    /// Which entries are there together or not at all.
    batches: Vec<Range<usize>>,
    pub(crate) acked: usize,
    /// The log is being cut to this many entries: it may have that many, or still all.
    pub(crate) cut_under_way: Option<usize>,
}

/// An entry as the caller knows it; its sequence is its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) epoch: u64,
    pub(crate) operation: WalOperation,
}

impl Model {
    pub(crate) fn core(&self, core: u16) -> &CoreModel {
        const NOTHING: &CoreModel = &CoreModel {
            entries: Vec::new(),
            positions: Vec::new(),
            batches: Vec::new(),
            acked: 0,
            cut_under_way: None,
        };
        self.cores.get(&core).unwrap_or(NOTHING)
    }

    pub(crate) fn core_mut(&mut self, core: u16) -> &mut CoreModel {
        self.cores.entry(core).or_default()
    }

    pub(crate) fn all_acked(&mut self) {
        self.cores.values_mut().for_each(CoreModel::all_acked);
    }

    /// The model that goes on from what was recovered, or what is wrong with that.
    pub(crate) fn settled(&self, found: &[WalEntry]) -> Result<Self, String> {
        if !found.is_sorted() {
            return Err("the merge is not in replay order".into());
        }
        let mut settled = self.clone();
        let cores = found.iter().map(|entry| entry.core_id).chain(self.cores.keys().copied());
        let cores: std::collections::BTreeSet<u16> = cores.collect();
        for core in cores {
            let of_core: Vec<&WalEntry> =
                found.iter().filter(|entry| entry.core_id == core).collect();
            settled.core_mut(core).settle(&of_core).map_err(|e| format!("core {core}: {e}"))?;
        }
        Ok(settled)
    }
}

impl CoreModel {
    pub(crate) fn all_acked(&mut self) {
        self.acked = self.entries.len();
    }

    fn keep(&mut self, count: usize) {
        self.entries.truncate(count);
        self.positions.truncate(count);
        self.batches.retain(|batch| batch.end <= count);
        self.acked = count;
        self.cut_under_way = None;
    }

    fn settle(&mut self, found: &[&WalEntry]) -> Result<(), String> {
        for (index, entry) in found.iter().enumerate() {
            if entry.sequence != index as u64 {
                return Err(format!("entry {index} has sequence {}", entry.sequence));
            }
            let Some(logged) = self.entries.get(index) else {
                return Err(format!("entry {index} was never appended: {entry:?}"));
            };
            if (logged.epoch, &logged.operation) != (entry.epoch, &entry.operation) {
                return Err(format!("entry {index} should be {logged:?}, and is {entry:?}"));
            }
        }
        let timestamps = found.iter().map(|entry| entry.timestamp_ns);
        if !timestamps.is_sorted_by(|earlier, later| earlier < later) {
            return Err("timestamps do not rise".into());
        }
        if found.len() < self.acked && self.cut_under_way != Some(found.len()) {
            return Err(format!("{} entries are acked, {} came back", self.acked, found.len()));
        }
        let torn = |batch: &&Range<usize>| batch.start < found.len() && found.len() < batch.end;
        if let Some(batch) = self.batches.iter().find(torn) {
            return Err(format!(
                "of the batch {batch:?} only some came back, up to {}",
                found.len()
            ));
        }
        // Recovered is durable.
        self.keep(found.len());
        Ok(())
    }
}
