//! Replay: the recovered entries, merged or core by core.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use wal_entry::{EntryView, WalEntry};
use wal_storage::{Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::core_reader::CoreReader;
use crate::log::{RecoveredLog, in_parallel};
use crate::merge::visit_merged;
use crate::report::RecoveryReport;
use crate::scan::Progress;

/// The entries of a recovered log: those behind its last checkpoint, whose snapshot holds what
/// the others did, and behind what was given back; or, [from the start](Self::from_start), all that
/// are still there.
///
/// Entries are read from their files each time, by helper threads while the caller visits, through
/// at most four buffers of 256 KiB per core and one for a record that is larger than these, and
/// checked again as they are. Visiting borrows from those buffers: copy what you keep. Every
/// method may be called any number of times, from several threads too.
///
/// Writers may go on with the log meanwhile: what they append is not part of it, and segments that
/// they cut away stay until the last clone of this is dropped and the log is opened again.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use wal_recovery::{RecoveryMode, recover};
/// # use wal_storage::{OsStorage, Storage};
/// # fn main() -> wal_storage::Result<()> {
/// let storage: Arc<dyn Storage> = Arc::new(OsStorage::open("log")?);
/// let log = recover(&storage, RecoveryMode::TornTail)?;
/// println!("{}", log.report);
/// log.replay(&storage).for_each(|entry| println!("{entry:?}"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Recovery {
    storage: Arc<dyn Storage>,
    report: RecoveryReport,
    cores: BTreeMap<u16, Vec<SegmentSpan>>,
    from_positions: BTreeMap<u16, u64>,
    /// How far the cores had come at the checkpoint, as long as the replay begins there.
    begins: BTreeMap<u16, Progress>,
    last_epoch: u64,
    on_progress: Option<ProgressCallback>,
    /// Shared by all clones, and by nobody else.
    pin: Arc<()>,
}

/// How far a replay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayProgress {
    /// Entries that were visited.
    pub entries: u64,
    /// Bytes of records that were gone through.
    pub bytes: u64,
    /// Bytes of records that there are to go through.
    pub total_bytes: u64,
}

#[derive(Clone)]
struct ProgressCallback(Arc<dyn Fn(ReplayProgress) + Send + Sync>);

impl fmt::Debug for ProgressCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressCallback")
    }
}

/// Tells whether a [`Recovery`], or a clone of it, is still there: as long as one is, the files
/// that it reads must not be overwritten or removed.
#[derive(Debug, Clone)]
pub struct ReplayPin(Weak<()>);

impl ReplayPin {
    /// Whether there still is one.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl Recovery {
    pub(crate) fn new(storage: Arc<dyn Storage>, log: &RecoveredLog) -> Self {
        let cores = log.cores.iter();
        let manifest = log.manifest.as_ref();
        // What is still there of what was given back is a part without a whole.
        let from_position =
            |core: u16| manifest.map_or(0, |manifest| manifest.checkpointed_position(core));
        let checkpoint = manifest.and_then(|manifest| manifest.checkpoint.as_ref());
        let begins = checkpoint.into_iter().flat_map(|checkpoint| {
            let places = checkpoint.cores.iter();
            let counting = places.filter(|place| place.position == from_position(place.core));
            counting.map(|place| (place.core, Progress::at_checkpoint(checkpoint, place)))
        });
        Self {
            storage,
            report: log.report.clone(),
            cores: cores.clone().map(|core| (core.core, core.spans.clone())).collect(),
            from_positions: cores.map(|it| (it.core, from_position(it.core))).collect(),
            begins: begins.collect(),
            last_epoch: u64::MAX,
            on_progress: None,
            pin: Arc::new(()),
        }
    }

    /// What a writer asks before it recycles segments that this replay may still read.
    #[must_use]
    pub fn pin(&self) -> ReplayPin {
        ReplayPin(Arc::downgrade(&self.pin))
    }

    /// Leaves out entries of later epochs.
    #[must_use]
    pub const fn up_to_epoch(mut self, epoch: u64) -> Self {
        self.last_epoch = epoch;
        self
    }

    /// Begins with the first entry of each core that is still there, and not behind the last
    /// checkpoint: for programs that have no snapshot. What was released is gone all the same. What lies
    /// before the checkpoint was not checked yet if the log was recovered in the default mode.
    #[must_use]
    pub fn from_start(self) -> Self {
        self.from_positions(&[])
    }

    /// Leaves out, for each core named, entries of records that begin below its position, whatever
    /// the last checkpoint says. Cores that are not named are replayed from their first entry that
    /// is still there.
    #[must_use]
    pub fn from_positions(mut self, positions: &[(u16, u64)]) -> Self {
        self.from_positions = positions.iter().copied().collect();
        self.begins.clear();
        self
    }

    /// Has `callback` told of the progress, now and then: behind each 256 KiB of a core's log, at
    /// most. Visits that are told one core each, side by side, tell of all of them together.
    #[must_use]
    pub fn on_progress(
        mut self,
        callback: impl Fn(ReplayProgress) + Send + Sync + 'static,
    ) -> Self {
        self.on_progress = Some(ProgressCallback(Arc::new(callback)));
        self
    }

    /// What recovery found.
    #[must_use]
    pub const fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// The cores of the log, ascending.
    pub fn cores(&self) -> impl Iterator<Item = u16> {
        self.cores.keys().copied()
    }

    /// Visits the entries of all cores in [replay order](wal_entry::ReplayOrder).
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or no longer holds what recovery found in it. Entries visited
    /// before were valid.
    pub fn for_each(&self, mut visit: impl FnMut(EntryView<'_>)) -> Result<()> {
        self.try_for_each(|entry| {
            visit(entry);
            Ok(())
        })
    }

    /// Visits the entries of all cores in [replay order](wal_entry::ReplayOrder), until a visit
    /// fails.
    ///
    /// A closure must say what it fails with: `|entry| -> Result<(), MyError> { … }`, or call a
    /// function that does, such as `|entry| state.apply(entry)`.
    ///
    /// # Errors
    ///
    /// The visit's error, or one of [`for_each`](Self::for_each).
    pub fn try_for_each<E: From<WalError>>(
        &self,
        mut visit: impl FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let helpers = self.storage.parallelism().saturating_sub(1);
        visit_merged(self.readers(), helpers, &self.meter(), &mut visit)
    }

    /// Visits the entries of every core in order, cores side by side, each with a state of its own
    /// that `begin` makes: for engines that are sharded as their log is. Returns the states.
    ///
    /// As many threads are used as the machine has; each takes one core after the other.
    ///
    /// # Errors
    ///
    /// As for [`for_each`](Self::for_each), of the lowest core that fails.
    pub fn for_each_per_core<S: Send>(
        &self,
        begin: impl Fn(u16) -> S + Sync,
        visit: impl Fn(&mut S, EntryView<'_>) + Sync,
    ) -> Result<BTreeMap<u16, S>> {
        self.try_for_each_per_core(begin, |state, entry| {
            visit(state, entry);
            Ok(())
        })
    }

    /// As [`for_each_per_core`](Self::for_each_per_core), until a visit fails. The other cores are
    /// visited in any case.
    ///
    /// # Errors
    ///
    /// The visit's error, or one of [`for_each`](Self::for_each), of the lowest core that fails.
    pub fn try_for_each_per_core<S: Send, E: From<WalError> + Send>(
        &self,
        begin: impl Fn(u16) -> S + Sync,
        visit: impl Fn(&mut S, EntryView<'_>) -> Result<(), E> + Sync,
    ) -> Result<BTreeMap<u16, S>, E> {
        let meter = self.meter();
        let cores: Vec<u16> = self.cores().collect();
        let visited = in_parallel(self.storage.parallelism(), &cores, |&core| {
            let mut state = begin(core);
            let readers = self.reader(core).into_iter().collect();
            visit_merged(readers, 0, &meter, &mut |entry| visit(&mut state, entry))?;
            Ok((core, state))
        });
        visited.into_iter().collect()
    }

    /// Visits the entries of one core in order; none if the log has no such core. Threads that
    /// each take a core replay in parallel.
    ///
    /// # Errors
    ///
    /// As for [`for_each`](Self::for_each).
    pub fn for_each_of_core(&self, core: u16, mut visit: impl FnMut(EntryView<'_>)) -> Result<()> {
        self.try_for_each_of_core(core, |entry| {
            visit(entry);
            Ok(())
        })
    }

    /// Visits the entries of one core in order, until a visit fails.
    ///
    /// # Errors
    ///
    /// The visit's error, or one of [`for_each`](Self::for_each).
    pub fn try_for_each_of_core<E: From<WalError>>(
        &self,
        core: u16,
        mut visit: impl FnMut(EntryView<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let readers = self.reader(core).into_iter().collect();
        visit_merged(readers, 0, &self.meter(), &mut visit)
    }

    /// All entries in replay order, as copies: for tests and tools with small logs.
    ///
    /// # Errors
    ///
    /// As for [`for_each`](Self::for_each).
    pub fn entries(&self) -> Result<Vec<WalEntry>> {
        let mut entries = Vec::new();
        self.for_each(|entry| entries.push(entry.to_entry()))?;
        Ok(entries)
    }

    pub(crate) fn readers(&self) -> Vec<CoreReader> {
        self.cores().filter_map(|core| self.reader(core)).collect()
    }

    fn reader(&self, core: u16) -> Option<CoreReader> {
        let spans = self.cores.get(&core)?;
        let from_position = self.first_position(core);
        let reader =
            CoreReader::new(self.storage.clone(), core, spans, from_position, self.last_epoch);
        Some(match self.begins.get(&core) {
            Some(begin) => reader.beginning_at(*begin),
            None => reader,
        })
    }

    fn first_position(&self, core: u16) -> u64 {
        self.from_positions.get(&core).copied().unwrap_or(0)
    }

    fn meter(&self) -> Meter<'_> {
        let of_core = |(core, spans): (&u16, &Vec<SegmentSpan>)| {
            let end_position = spans.last().map_or(0, |last| last.end_position);
            let first_position = spans.first().map_or(0, |first| first.base_position);
            end_position.saturating_sub(self.first_position(*core).max(first_position))
        };
        let report = self.on_progress.as_ref().map(|callback| &*callback.0);
        Meter::new(report.map(|report| (report, self.cores.iter().map(of_core).sum())))
    }
}

/// Counts what is visited, if anybody wants to know.
pub(crate) struct Meter<'a> {
    report: Option<(&'a (dyn Fn(ReplayProgress) + Send + Sync), u64)>,
    entries: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> Meter<'a> {
    fn new(report: Option<(&'a (dyn Fn(ReplayProgress) + Send + Sync), u64)>) -> Self {
        Self { report, entries: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// For replays that nobody asks how far they are.
    pub(crate) fn none() -> Self {
        Self::new(None)
    }

    /// So many entries were visited, with so many bytes of records gone through.
    pub(crate) fn add(&self, entries: u64, bytes: u64) {
        if let Some((report, total_bytes)) = self.report {
            let entries = self.entries.fetch_add(entries, Ordering::Relaxed) + entries;
            let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
            report(ReplayProgress { entries, bytes, total_bytes });
        }
    }
}
