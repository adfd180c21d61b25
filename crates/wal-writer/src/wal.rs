//! A log of one or more cores that is open for writing: made, continued, closed.

use std::sync::Arc;

use wal_format::{Checkpoint, CoreDirectory, Features, LogId, Manifest, ManifestSlot, Membership};
use wal_recovery::{
    OtherSegmentKind, RecoveredCore, RecoveredLog, Recovery, SlotState, recover_to,
};
use wal_storage::{Corruption, DirectoryLock, Result, Storage, WalError};

use crate::adopt::adopt;
use crate::checkpoint::{self, PendingCheckpoint};
use crate::core_log::{CoreLog, LogShared};
use crate::disk_usage::{self, DiskUsage};
use crate::epochs::{Barriers, EpochWatch};
use crate::lead::lead_all_to;
use crate::manifest_store::ManifestStore;
use crate::observer::Observer;
use crate::open_batch::OpenBatch;
use crate::options::LogOptions;
use crate::pending_recovery::PendingRecovery;
use crate::release::{Pin, PinReport, RetiredCore};
use crate::segments::{Segments, take_start};
use crate::shared_writer::SharedWriter;
use crate::watch::SyncedWatch;
use crate::writer::CoreWalWriter;
use crate::writers::CoreWriters;

/// A log whose next position or sequence is this high is not gone on with.
const LAST_NUMBER: u64 = 1 << 63;

/// Which cores log from this opening on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoreSelection {
    /// One core alone in its directory, going on with the highest epoch found.
    One(u16),
    /// Cores `0..n`, at least one, going on with the epoch above the highest found.
    First(u16),
}

/// A log that is open for writing: hands out its cores' writers, and closes them.
#[derive(Debug)]
pub struct Wal {
    shared: Arc<LogShared>,
    cores: Vec<Arc<CoreLog>>,
}

impl Wal {
    /// Opens the log in `storage`, or makes it, for the cores selected.
    ///
    /// Whatever is recovered is durable when this returns. Nothing that was found is changed: a
    /// torn tail is left behind by the start of a new segment, once something is appended.
    ///
    /// # Errors
    ///
    /// [`WalError::Locked`]; [`WalError::InvalidArgument`] for unusable options or cores;
    /// everything that recovery reports; [`WalError::NotAccepted`] if it leaves something out that is
    /// there; [`WalError::StorageFull`] only if the log must be made.
    pub fn open(
        storage: Arc<dyn Storage>,
        options: LogOptions,
        selection: CoreSelection,
    ) -> Result<(Self, Recovery)> {
        Self::recover(storage, options, selection)?.open()
    }

    /// Recovers the log in `storage` for the cores selected, without opening it: for a recovery that
    /// may leave something out, to be looked at before it is [accepted](PendingRecovery::accept).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for [`WalError::NotAccepted`].
    pub fn recover(
        storage: Arc<dyn Storage>,
        options: LogOptions,
        selection: CoreSelection,
    ) -> Result<PendingRecovery> {
        options.check()?;
        let member_cores = selection.member_cores()?;
        let lock = storage.lock()?;
        let recovered = recover_to(&storage, options.recovery_mode, options.recovery_target)?;
        selection.check(recovered.manifest.as_ref())?;
        if let Some(manifest) = &recovered.manifest {
            refuse_unknown_features(&*storage, manifest)?;
        }
        refuse_last_numbers(&*storage, &recovered, &member_cores)?;
        Ok(PendingRecovery::new(storage, options, selection, recovered, lock))
    }

    /// The order matters: what was found is durable before anything is written that builds on it,
    /// and the manifest before any segment names it.
    pub(crate) fn open_recovered(
        storage: Arc<dyn Storage>,
        options: LogOptions,
        selection: CoreSelection,
        recovered: &RecoveredLog,
        replay: &Recovery,
        lock: &DirectoryLock,
    ) -> Result<Self> {
        let member_cores = selection.member_cores()?;
        for core in &recovered.cores {
            adopt(&*storage, core)?;
        }
        let epoch = selection.epoch(recovered);
        let manifest = open_manifest(&*storage, recovered, selection, epoch)?;
        make_core_directories(&*storage, &member_cores)?;
        let log_id = manifest.manifest().log_id;
        let retired = recovered.cores.iter().filter(|found| !member_cores.contains(&found.core));
        let retired = retired.filter_map(RetiredCore::new).collect();
        let shared =
            LogShared::new(storage, options, log_id, manifest, replay.pin(), epoch, retired);
        change_manifest_if_needed(&shared, recovered, selection, epoch)?;
        remove_leftovers(&shared, recovered);

        let mut cores = Vec::with_capacity(member_cores.len());
        for core in member_cores {
            let found = recovered.cores.iter().find(|found| found.core == core);
            cores.push(open_core(&shared, core, found, epoch, lock)?);
        }
        // Before anything is prepared, which may need the space.
        if let Some(worker) = cores.first() {
            remove_released(worker, recovered);
        }
        for core in &cores {
            core.prepare_ahead();
        }
        Ok(Self { shared, cores })
    }

    /// Takes a core's writer, to be moved to the core's thread. Once it is dropped there, it can
    /// be taken again.
    ///
    /// # Errors
    ///
    /// [`WalError::WriterTaken`], [`WalError::CoreOutOfRange`], [`WalError::Poisoned`].
    pub fn writer(&self, core_id: u16) -> Result<CoreWalWriter> {
        CoreWalWriter::take(self.core(core_id)?)
    }

    /// Takes a handle to a core's log for many threads and tasks; further handles to the same log
    /// are had by cloning it, or here.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer); [`WalError::WriterTaken`] only if a [`CoreWalWriter`] is out.
    pub fn shared_writer(&self, core_id: u16) -> Result<SharedWriter> {
        let core = self.core(core_id)?;
        core.queue.check()?;
        core.share_seat()?;
        Ok(SharedWriter::of_shared_seat(Arc::clone(core)))
    }

    /// Takes the writers of all cores at once, for programs that append from one thread.
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer); none is taken then.
    pub fn writers(&self) -> Result<CoreWriters> {
        let writers: Result<Vec<CoreWalWriter>> =
            self.cores.iter().map(CoreWalWriter::take).collect();
        writers.map(CoreWriters::new)
    }

    /// Makes everything submitted on any core durable, all cores side by side, and returns when it
    /// is: what was appended with a [`SharedWriter`], or left behind by a writer that was dropped,
    /// and what a [`CoreWalWriter`] submitted. What one has appended since then is in its hands.
    ///
    /// # Errors
    ///
    /// The first core's that fails with [`WalError::Poisoned`]; the others are synced in any case.
    pub fn sync_all(&self) -> Result<()> {
        let goals: Vec<_> = self.cores.iter().map(|core| (core, core.submitted())).collect();
        lead_all_to(&self.shared, &goals)
    }

    /// How far a core's log is durable, to be looked at from anywhere.
    ///
    /// # Errors
    ///
    /// [`WalError::CoreOutOfRange`].
    pub fn watch(&self, core_id: u16) -> Result<SyncedWatch> {
        self.core(core_id).map(SyncedWatch::new)
    }

    /// How many cores log.
    #[must_use]
    pub fn core_count(&self) -> u32 {
        u32::try_from(self.cores.len()).unwrap_or(u32::MAX)
    }

    /// The highest epoch that any writer has reached. Each opening begins with one above the
    /// highest that any entry has, so that entries of different openings can be told apart; an
    /// empty log with 0.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.highest_epoch.get()
    }

    /// Which epochs are complete on all cores, to be looked at from anywhere.
    #[must_use]
    pub fn watch_epochs(&self) -> EpochWatch {
        EpochWatch::new(&self.shared, &self.cores)
    }

    /// Begins a checkpoint of everything up to the epoch that is now the [highest](Self::epoch), to
    /// which cores that are behind will be raised. `id` is the caller's name for it.
    ///
    /// A core whose writer nobody has is arrived for, now or when it is given back.
    ///
    /// # Errors
    ///
    /// [`WalError::CheckpointOpen`] if there is one already; [`WalError::CheckpointRefused`] if the
    /// epoch is not above the last checkpoint's; [`WalError::Poisoned`], [`WalError::Closed`].
    pub fn begin_checkpoint(&self, id: u64) -> Result<PendingCheckpoint> {
        checkpoint::begin(&self.shared, &self.cores, id)
    }

    /// The last checkpoint that was completed, in this opening or before.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<Checkpoint> {
        self.shared.manifest().checkpoint
    }

    /// Keeps all segments that are still there from being given back.
    pub fn pin(&self, name: &str) -> Pin {
        self.shared.pins.pin(&self.shared, name)
    }

    /// What keeps segments from being given back, the replay of what was recovered among them.
    #[must_use]
    pub fn pins(&self) -> Vec<PinReport> {
        self.shared.pin_reports()
    }

    /// How much of the disk the log takes, file by file.
    ///
    /// # Errors
    ///
    /// Whatever listing the directory says.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        disk_usage::measure(&self.shared, &self.cores)
    }

    /// The log's id, made once.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.shared.log_id
    }

    /// The storage that the log lies in.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.shared.storage
    }

    /// Closes the log: everything appended is durable, and every core's vouch block says that
    /// nothing follows, when this returns `Ok`. Dropping does the same and tells nobody.
    ///
    /// # Errors
    ///
    /// The first of: [`WalError::Poisoned`]; [`WalError::WriterTaken`] if a writer is still out,
    /// whose return closes its core. The other cores are closed in any case.
    pub fn close(mut self) -> Result<()> {
        self.close_cores()
    }

    fn core(&self, core_id: u16) -> Result<&Arc<CoreLog>> {
        let found = self.cores.iter().find(|core| core.core == core_id);
        found.ok_or_else(|| WalError::CoreOutOfRange { core: core_id, cores: self.core_count() })
    }

    fn close_cores(&mut self) -> Result<()> {
        let mut result = Ok(());
        for core in self.cores.drain(..) {
            let closed = core.close();
            result = result.and(closed);
        }
        result
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        let _ = self.close_cores();
    }
}

impl CoreSelection {
    fn member_cores(self) -> Result<Vec<u16>> {
        match self {
            Self::One(core) => Ok(vec![core]),
            Self::First(0) => {
                Err(WalError::InvalidArgument { what: "a log needs at least one core".into() })
            }
            Self::First(count) => Ok((0..count).collect()),
        }
    }

    const fn membership(self, first_epoch: u64) -> Membership {
        let (first_core, core_count) = match self {
            Self::One(core) => (core, 1),
            Self::First(count) => (0, count as u32),
        };
        Membership { first_epoch, first_core, core_count }
    }

    /// Opening a directory of several cores for one alone, or one of another core, is a mistake.
    fn check(self, manifest: Option<&Manifest>) -> Result<()> {
        let (Self::One(core), Some(newest)) = (self, manifest.and_then(|m| m.members.last()))
        else {
            return Ok(());
        };
        if newest.first_core == core && newest.core_count == 1 {
            return Ok(());
        }
        let last = u32::from(newest.first_core) + newest.core_count - 1;
        Err(WalError::InvalidArgument {
            what: format!(
                "core {core} was asked for alone, but the directory holds the log of cores {}..={last}; \
                 open it with `Wal`",
                newest.first_core
            ),
        })
    }

    /// An empty log starts at epoch 0.
    fn epoch(self, recovered: &RecoveredLog) -> u64 {
        let highest = recovered.cores.iter().map(|core| core.last_epoch).max().unwrap_or(0);
        let is_empty = recovered.cores.iter().all(|core| {
            core.spans.is_empty() && core.last_epoch == 0 && core.last_timestamp_ns == i64::MIN
        });
        let epoch = match self {
            Self::First(_) if !is_empty => highest.saturating_add(1),
            _ => highest,
        };
        // A core alone may be empty, and others that log no more have left this epoch.
        let checkpoint = recovered.manifest.as_ref().and_then(|it| it.checkpoint.as_ref());
        checkpoint.map_or(epoch, |checkpoint| epoch.max(checkpoint.epoch.saturating_add(1)))
    }
}

/// Makes both slots say the same before anything names the manifest, or makes the first one.
fn open_manifest(
    storage: &dyn Storage,
    recovered: &RecoveredLog,
    selection: CoreSelection,
    epoch: u64,
) -> Result<ManifestStore> {
    let store = match &recovered.manifest {
        Some(manifest) => ManifestStore::open(storage, manifest.clone(), newest_slot(recovered))?,
        None => {
            let manifest = Manifest {
                number: 1,
                log_id: match recovered.log_id {
                    Some(log_id) => log_id,
                    None => new_log_id(storage)?,
                },
                features: Features::NONE,
                members: vec![selection.membership(epoch)],
                checkpoint: None,
                releases: Vec::new(),
                cuts: Vec::new(),
                accepted_damage: Vec::new(),
            };
            ManifestStore::open(storage, manifest, ManifestSlot::Zero)?
        }
    };
    Ok(store)
}

fn new_log_id(storage: &dyn Storage) -> Result<LogId> {
    let mut log_id = [0; 16];
    storage.fill_random(&mut log_id)?;
    Ok(LogId(log_id))
}

fn refuse_unknown_features(storage: &dyn Storage, manifest: &Manifest) -> Result<()> {
    match manifest.features.unknown_to_writers() {
        0 => Ok(()),
        unknown_features => Err(WalError::UnsupportedVersion {
            path: storage.path().join(ManifestSlot::Zero.name()),
            found: wal_format::FORMAT_VERSION,
            supported: wal_format::FORMAT_VERSION,
            unknown_features,
        }),
    }
}

/// No log lives long enough to use up half of its positions or sequences: whatever says that it has
/// is wrong. What can be read is read; but going on would end where numbers do, in a segment that
/// nobody could read.
fn refuse_last_numbers(
    storage: &dyn Storage,
    recovered: &RecoveredLog,
    cores: &[u16],
) -> Result<()> {
    let mut found = recovered.cores.iter().filter(|found| cores.contains(&found.core));
    let Some(found) =
        found.find(|found| found.end_position.max(found.next_sequence) >= LAST_NUMBER)
    else {
        return Ok(());
    };
    Err(Corruption {
        path: storage.path().join(CoreDirectory(found.core).to_string()),
        core: Some(found.core),
        position: Some(found.end_position),
        file_range: None,
        what: format!(
            "it can be read, but not gone on with: no log gets as far as this position and \
             sequence {}",
            found.next_sequence
        ),
        proven_by: None,
    }
    .into())
}

/// The slot that holds the newest manifest: it is written again first.
pub(crate) fn newest_slot(recovered: &RecoveredLog) -> ManifestSlot {
    let number_in = |slot: &SlotState| match slot {
        SlotState::Holds { number, .. } => *number,
        _ => 0,
    };
    let [zero, one] = &recovered.manifest_slots;
    if number_in(one) > number_in(zero) { ManifestSlot::One } else { ManifestSlot::Zero }
}

/// Makes the cores' directories. The sync of the names is needed also if they were there: whoever
/// made them may not have lived to sync them.
fn make_core_directories(storage: &dyn Storage, cores: &[u16]) -> Result<()> {
    for &core in cores {
        storage.create_directory(&CoreDirectory(core).to_string())?;
    }
    storage.sync_directory("")
}

/// Writes down who logs from now on, and forgets cuts that speak of files that are all gone.
fn change_manifest_if_needed(
    shared: &LogShared,
    recovered: &RecoveredLog,
    selection: CoreSelection,
    epoch: u64,
) -> Result<()> {
    let manifest = shared.manifest();
    let membership = selection.membership(epoch);
    let same_members = manifest.members.last().is_some_and(|newest| {
        Membership { first_epoch: newest.first_epoch, ..membership } == *newest
    });
    let mut forgettable = Vec::new();
    for cut in &manifest.cuts {
        let core = recovered.cores.iter().find(|core| core.core == cut.core);
        let is_forgettable = core.is_some_and(|core| {
            // Only a segment started since keeps what the cut knows of epoch and timestamp.
            !core.spans.is_empty() && lowest_file(core) > cut.dead_segment_id
        });
        if is_forgettable {
            // That the files are gone must be durable before the cut is.
            shared.storage.sync_directory(&CoreDirectory(cut.core).to_string())?;
            forgettable.push(*cut);
        }
    }
    if same_members && forgettable.is_empty() {
        return Ok(());
    }
    shared.replace_manifest(|manifest| {
        manifest.cuts.retain(|cut| !forgettable.contains(cut));
        if !same_members {
            // A membership that no epoch was logged under is replaced.
            manifest.members.retain(|members| members.first_epoch < epoch);
            manifest.members.push(membership);
        }
        Ok(())
    })
}

fn lowest_file(core: &RecoveredCore) -> u64 {
    let spans = core.spans.iter().map(|span| span.segment_id);
    let others = core.other_segments.iter().map(|other| other.segment_id);
    spans.chain(others).min().unwrap_or(u64::MAX)
}

/// Removes files that no recovery looks into any more. What cannot be removed is tried again by
/// the next opening. Unused segments stay until a new one is renamed over them.
fn remove_leftovers(shared: &LogShared, recovered: &RecoveredLog) {
    for core in &recovered.cores {
        let directory = CoreDirectory(core.core);
        for name in &core.temporaries {
            let _ = shared.storage.remove(&format!("{directory}/{name}"));
        }
        let head_id = highest_used_id(core);
        for other in &core.other_segments {
            let name = format!("{directory}/{}", wal_format::SegmentFile(other.segment_id));
            let is_removed = match other.why {
                // Above the last segment, an unused one keeps its name until another takes it.
                OtherSegmentKind::Unused => other.segment_id <= head_id,
                OtherSegmentKind::Dead => take_start(&*shared.storage, &name).is_ok(),
                OtherSegmentKind::Lost => true,
                OtherSegmentKind::Released => false,
            };
            if is_removed {
                let _ = shared.storage.remove(&name);
            }
        }
    }
}

/// Has the background remove what was released: there may be much of it, if somebody pinned it.
fn remove_released(worker: &Arc<CoreLog>, recovered: &RecoveredLog) {
    for core in &recovered.cores {
        let others = core.other_segments.iter();
        let released = others.filter(|other| other.why == OtherSegmentKind::Released);
        let released: Vec<u64> = released.map(|other| other.segment_id).collect();
        if !released.is_empty() {
            worker.remove_segments_of(core.core, released);
        }
    }
}

fn open_core(
    shared: &Arc<LogShared>,
    core: u16,
    found: Option<&RecoveredCore>,
    epoch: u64,
    lock: &DirectoryLock,
) -> Result<Arc<CoreLog>> {
    let mut life = [0; 8];
    shared.storage.fill_random(&mut life)?;
    let used_id = found.map_or(0, highest_used_id);
    let cuts = shared.manifest().cuts;
    let dead_id = cuts.iter().filter(|cut| cut.core == core).map(|cut| cut.dead_segment_id).max();
    let segments = Segments::new(
        Arc::clone(&shared.storage),
        core,
        shared.log_id,
        shared.options.clone(),
        Arc::new(Observer::new(core)),
        used_id.max(dead_id.unwrap_or(0)),
    );
    let mut open_batch = found.map_or_else(OpenBatch::empty, OpenBatch::behind);
    let checkpoint = shared.manifest().checkpoint.map(|checkpoint| checkpoint.epoch);
    let barriers = Barriers::new(found.and_then(|found| found.barrier_epoch), checkpoint);
    open_batch.raise_epoch(epoch.max(open_batch.epoch()));
    shared.highest_epoch.raise(open_batch.epoch());
    let life = u64::from_le_bytes(life);
    Ok(CoreLog::new(shared, core, open_batch, barriers, segments, Arc::clone(lock), life))
}

/// The highest segment that holds a part of the log; what lies above was prepared and never
/// used, and is replaced.
fn highest_used_id(core: &RecoveredCore) -> u64 {
    core.spans.iter().map(|span| span.segment_id).max().unwrap_or(0)
}
