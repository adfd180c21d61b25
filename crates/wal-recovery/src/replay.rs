//! Replay: the recovered entries, merged or core by core.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use wal_entry::{EntryView, WalEntry};
use wal_storage::{Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::core_reader::CoreReader;
use crate::log::RecoveredLog;
use crate::merge::visit_merged;
use crate::report::RecoveryReport;

/// The entries of a recovered log: those behind its last checkpoint, whose snapshot holds what
/// the others did; or, [from the start](Self::from_start), all that are still there.
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
    last_epoch: u64,
    /// Shared by all clones, and by nobody else.
    pin: Arc<()>,
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
        let checkpoint = log.manifest.as_ref().and_then(|manifest| manifest.checkpoint.as_ref());
        let places = checkpoint.map_or(&[][..], |checkpoint| &checkpoint.cores);
        Self {
            storage,
            report: log.report.clone(),
            cores: cores.map(|core| (core.core, core.spans.clone())).collect(),
            from_positions: places.iter().map(|place| (place.core, place.position)).collect(),
            last_epoch: u64::MAX,
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
    /// checkpoint: for programs that have no snapshot. What was released is gone all the same.
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
        let cores = self.cores.iter();
        let readers = cores.map(|(&core, spans)| self.reader(core, spans)).collect();
        let helpers = self.storage.parallelism().saturating_sub(1);
        visit_merged(readers, helpers, &mut visit)
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
        let spans = self.cores.get(&core);
        let readers = spans.map(|spans| self.reader(core, spans));
        visit_merged(readers.into_iter().collect(), 0, &mut visit)
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

    fn reader(&self, core: u16, spans: &[SegmentSpan]) -> CoreReader {
        let from_position = self.from_positions.get(&core).copied().unwrap_or(0);
        CoreReader::new(self.storage.clone(), core, spans, from_position, self.last_epoch)
    }
}
