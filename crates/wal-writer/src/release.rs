//! Giving space back: segments that lie wholly behind the last checkpoint, and that nothing pins.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError};

use wal_format::CheckpointCore;
use wal_recovery::{Committed, RecoveredCore, SegmentSpan};

use crate::core_log::LogShared;
use crate::spans::Spans;
use crate::sync::{Mutex, MutexGuard};

/// Keeps segments of an open log from being given back, though a checkpoint is ahead of them: for
/// whoever still reads them, such as a backup. Dropping it lets go of them.
///
/// A pin is of this process. The next opening of the log gives back whatever lies behind the
/// checkpoint.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let storage = std::sync::Arc::new(wal_storage::OsStorage::create(directory.path().join("log"))?);
/// use wal_writer::{CoreSelection, LogOptions, Wal};
///
/// let (wal, recovery) = Wal::open(storage, LogOptions::default(), CoreSelection::First(1))?;
/// let pin = wal.pin("backup");
/// drop(recovery); // pins too, as long as it may replay
/// assert_eq!(wal.pins()[0].name, "backup");
/// pin.advance(0, 4096); // core 0 is copied up to there
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a pin that is dropped holds nothing"]
pub struct Pin {
    pinned: Arc<Pinned>,
    shared: Arc<LogShared>,
}

/// What keeps segments from being given back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinReport {
    /// Who pins.
    pub name: String,
    /// From where on, per core; cores that are not named are pinned whole.
    pub positions: Vec<(u16, u64)>,
}

impl Pin {
    /// Lets go of what lies below `position` on a core. A lower position than before changes
    /// nothing.
    pub fn advance(&self, core_id: u16, position: u64) {
        {
            let mut positions = self.pinned.positions();
            let known = positions.entry(core_id).or_default();
            *known = (*known).max(position);
        }
        self.shared.release_segments();
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.pins.remove(&self.pinned);
        self.shared.release_segments();
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("report", &self.pinned.report()).finish_non_exhaustive()
    }
}

/// All pins of a log.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<Vec<Arc<Pinned>>>);

#[derive(Debug)]
pub(crate) struct Pinned {
    name: String,
    positions: Mutex<BTreeMap<u16, u64>>,
}

/// A core that logged once, and does not in this opening. All of its log is older than any epoch
/// from now on.
#[derive(Debug)]
pub(crate) struct RetiredCore {
    pub(crate) core: u16,
    place: CheckpointCore,
    spans: Spans,
    committed: Committed,
}

impl RetiredCore {
    /// `None` if it never logged anything. One that was cut where its checkpoint stands may have no
    /// segments left.
    pub(crate) fn new(found: &RecoveredCore) -> Option<Self> {
        (!found.spans.is_empty() || found.end_position > 0).then(|| Self {
            core: found.core,
            place: CheckpointCore {
                core: found.core,
                position: found.end_position,
                sequence: found.next_sequence,
                timestamp_ns: found.last_timestamp_ns,
            },
            spans: Spans::new(found.spans.clone()),
            committed: found.committed.clone(),
        })
    }
}

impl LogShared {
    /// Where a checkpoint stands on cores that do not log any more: behind everything.
    pub(crate) fn retired_places(&self) -> Vec<CheckpointCore> {
        self.retired.iter().map(|retired| retired.place).collect()
    }

    /// What the commits of cores that do not log any more come to.
    pub(crate) fn committed_by_retired(&self) -> Committed {
        let mut committed = Committed::default();
        self.retired.iter().for_each(|retired| committed.merge(&retired.committed));
        committed
    }

    pub(crate) fn spans_of_retired(&self, core: u16) -> Vec<SegmentSpan> {
        let retired = self.retired.iter().find(|retired| retired.core == core);
        retired.map(|retired| retired.spans.all()).unwrap_or_default()
    }

    pub(crate) fn pin_reports(&self) -> Vec<PinReport> {
        let replay = self.replay_pin.is_held().then(|| PinReport {
            name: "replay of what was recovered".to_owned(),
            positions: Vec::new(),
        });
        self.pins.reports().into_iter().chain(replay).collect()
    }

    /// Gives back what lies wholly behind the release position of its core and is not pinned: some
    /// files are kept to be recycled, the others removed, by the background.
    pub(crate) fn release_segments(&self) {
        if self.replay_pin.is_held() {
            return;
        }
        let cores = self.cores();
        for release in self.manifest().releases {
            let Some(unpinned) = self.pins.unpinned_below(release.core) else { continue };
            let position = release.position.min(unpinned);
            if let Some(core) = cores.iter().find(|core| core.core == release.core) {
                let durable_position = core.queue.durable_position();
                let released = core.spans.release_below(position, durable_position);
                if !released.is_empty() {
                    core.observer.released(released.len());
                    core.observe_live();
                    core.recycle(released);
                }
            }
            if let Some(retired) = self.retired.iter().find(|retired| retired.core == release.core)
                && let Some(worker) = cores.first()
            {
                // What was recovered has started.
                let released = retired.spans.release_below(position, u64::MAX);
                if !released.is_empty() {
                    worker.remove_segments_of(retired.core, released);
                }
            }
        }
    }
}

impl Pins {
    pub(crate) fn pin(&self, shared: &Arc<LogShared>, name: &str) -> Pin {
        let pinned = Pinned { name: name.to_owned(), positions: Mutex::new(BTreeMap::new()) };
        let pinned = Arc::new(pinned);
        self.lock().push(Arc::clone(&pinned));
        Pin { pinned, shared: Arc::clone(shared) }
    }

    fn remove(&self, dropped: &Arc<Pinned>) {
        self.lock().retain(|pinned| !Arc::ptr_eq(pinned, dropped));
    }

    fn reports(&self) -> Vec<PinReport> {
        self.lock().iter().map(|pinned| pinned.report()).collect()
    }

    /// Up to where nothing is pinned on a core; `None` if all of it is. That is not the same as up
    /// to 0, where a segment may end that has nothing in it.
    fn unpinned_below(&self, core: u16) -> Option<u64> {
        let pins = self.lock();
        let mut positions = pins.iter().map(|pinned| pinned.positions().get(&core).copied());
        positions.try_fold(u64::MAX, |lowest, position| Some(lowest.min(position?)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Pinned>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pinned {
    fn report(&self) -> PinReport {
        let positions =
            self.positions().iter().map(|(&core, &position)| (core, position)).collect();
        PinReport { name: self.name.clone(), positions }
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<u16, u64>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
