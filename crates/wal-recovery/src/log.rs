//! All cores together: the directory, the manifest, and every core's log, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use wal_format::{LogId, Manifest};
use wal_storage::{Result, Storage, WalError};

use crate::RecoveryMode;
use crate::chain::Headers;
use crate::core::{self, CoreHeaders, Failure, RecoveredCore, ScanFrom};
use crate::directory::{self, CoreFiles, segment_name};
use crate::headers::SegmentHeader;
use crate::manifests::{self, Manifests, SlotState, foreign_log};
use crate::proposal::{Proposal, propose};
use crate::replay::Recovery;
use crate::report::{CheckpointReport, CoreReport, Loss, RecoveryReport};
use crate::target::RecoveryTarget;

/// A log as recovery found it. Nothing on disk was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveredLog {
    /// The log's id: the manifest's, or without one that of the segment files, which must go on
    /// being theirs. `None` if there is neither.
    pub log_id: Option<LogId>,
    /// The manifest that counts: the valid one with the higher number. `None` only if the
    /// directory holds no log yet.
    pub manifest: Option<Manifest>,
    /// What stands in `MANIFEST.0` and `MANIFEST.1`.
    pub manifest_slots: [SlotState; 2],
    /// Every core that has a directory or that the manifest names, ascending.
    pub cores: Vec<RecoveredCore>,
    /// What was found, in words and numbers.
    pub report: RecoveryReport,
    /// What must be written down before a writer may go on with what is described here. `None`
    /// unless something was left out that is there.
    pub proposal: Option<Proposal>,
}

impl RecoveredLog {
    /// What reads the recovered entries back. It keeps what it needs of the storage and of this
    /// log, so that writers may go on meanwhile.
    #[must_use]
    pub fn replay(&self, storage: &Arc<dyn Storage>) -> Recovery {
        Recovery::new(storage.clone(), self)
    }
}

/// Recovers the log in a directory: reads it, in the default mode from the last checkpoint on, decides
/// what is valid, changes nothing.
///
/// Cores are read side by side, by as many threads as [`Storage::parallelism`] allows; if that is
/// one, by this one alone.
///
/// # What counts as no log yet
///
/// - A directory that is empty but for `lost+found`, or that holds core directories without
///   segments and manifest slots that were never written, or were torn: a crash while the log was
///   being made. A log may be made here.
/// - The same with segment files in which no start and no vouch slot is valid. The log's id is
///   durable before the first segment has its name, so the manifest was lost; but nothing was
///   acked, and marks in those files would still be found. A log made here must keep their id.
///
/// # Errors
///
/// - [`NotALog`](WalError::NotALog) if there are other files, and nothing of a log.
/// - [`ManifestLost`](WalError::ManifestLost) if a start or vouch slot names a manifest that
///   cannot be read, or no manifest can be read at all.
/// - [`ForeignLog`](WalError::ForeignLog), [`UnsupportedVersion`](WalError::UnsupportedVersion).
/// - [`Corrupt`](WalError::Corrupt) for damage; in [`RecoveryMode::Strict`] for a torn tail too.
/// - An [`Io`](WalError::Io) error of the storage, as it is: what cannot be read now may be intact.
///
/// With several errors it is one of the first kind found: a file that is not what its name says,
/// then a lost manifest, then a core's log; of each, the one of the lowest core. [`verify`] finds
/// them all.
///
/// [`verify`]: crate::verify()
pub fn recover(storage: &Arc<dyn Storage>, mode: RecoveryMode) -> Result<RecoveredLog> {
    recover_to(storage, mode, RecoveryTarget::End)
}

/// As [`recover`], up to a target, and leaving out what the mode says. Where something is left out
/// that is there, the log that is returned is the one that there would be if that were accepted:
/// [`RecoveredLog::proposal`] says what must be written down before.
///
/// # Errors
///
/// As [`recover`]; in [`RecoveryMode::PointInTime`] and [`RecoveryMode::Salvage`] for damage only if
/// it is not that of a core's log, or nothing is left to go on from.
/// [`InvalidArgument`](WalError::InvalidArgument) if the target lies below the last checkpoint, or
/// below what was released.
pub fn recover_to(
    storage: &Arc<dyn Storage>,
    mode: RecoveryMode,
    target: RecoveryTarget,
) -> Result<RecoveredLog> {
    let mut inspection = inspect(storage.as_ref())?;
    if let Some(error) = inspection.take_finding(mode) {
        return Err(error);
    }
    if let Some(error) = inspection.lost_manifest {
        return Err(error);
    }
    let Inspection { manifests, log_id, strange_names, cores, .. } = inspection;
    let Manifests { slots, newest } = manifests;
    let proposed = propose(storage, mode, target, newest, &cores)?;
    let losses = proposed.proposal.as_ref().map(|it| it.losses.clone()).unwrap_or_default();
    let (cores, reports) = proposed.cores.into_iter().unzip();
    Ok(RecoveredLog {
        log_id,
        report: report(
            storage.as_ref(),
            proposed.manifest.as_ref(),
            strange_names,
            reports,
            losses,
        ),
        manifest: proposed.manifest,
        manifest_slots: slots,
        cores,
        proposal: proposed.proposal,
    })
}

/// Everything that can be found out before any core's log is read, errors kept where they arose.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) manifests: Manifests,
    pub(crate) log_id: Option<LogId>,
    pub(crate) strange_names: Vec<String>,
    pub(crate) lost_manifest: Option<WalError>,
    pub(crate) cores: Vec<InspectedCore>,
}

/// A core's files.
#[derive(Debug)]
pub(crate) struct InspectedCore {
    pub(crate) core: u16,
    pub(crate) files: CoreFiles,
    pub(crate) headers: Headers,
    /// Files that are not what their names say, by their numbers.
    pub(crate) findings: Vec<(u64, WalError)>,
}

impl Inspection {
    /// The first file that is not what its name says, unless the mode can do without it; those that
    /// it can do without are lost.
    fn take_finding(&mut self, mode: RecoveryMode) -> Option<WalError> {
        // Without a manifest there is nothing to write a loss down in, and nobody would ask.
        let leaves_out = matches!(mode, RecoveryMode::PointInTime | RecoveryMode::Salvage)
            && self.manifests.newest.is_some();
        let mut cores = self.cores.iter_mut();
        cores.find_map(|core| {
            let files = &core.files;
            let stops = |(id, error): &(u64, WalError)| {
                !leaves_out || !error.is_corrupt() || files.not_files.contains(id)
            };
            if let Some(at) = core.findings.iter().position(stops) {
                return Some(core.findings.swap_remove(at).1);
            }
            core.files.lost.extend(core.findings.iter().map(|(id, _)| *id));
            None
        })
    }
}

/// Lists the directory, and reads the manifest and all header blocks.
pub(crate) fn inspect(storage: &dyn Storage) -> Result<Inspection> {
    let mut directory = directory::list(storage)?;
    if directory.has_no_log_names()
        && let Some(name) = directory.strange_names.first()
    {
        return Err(WalError::NotALog {
            path: storage.path().to_owned(),
            reason: format!("it holds {name:?}, but neither a manifest nor a core's directory"),
        });
    }
    let has_segments = directory.cores.values().any(|core| !core.segment_ids.is_empty());
    let manifests = manifests::read(storage, directory.slots, has_segments)?;
    let manifest = manifests.newest.as_ref();
    for core in named_cores(manifest) {
        directory.cores.entry(core).or_default();
    }
    let files: Vec<(u16, CoreFiles)> = std::mem::take(&mut directory.cores).into_iter().collect();
    let read = in_parallel(storage.parallelism(), &files, |(core, files)| {
        core::read_headers(storage, *core, files, manifest)
    });
    let log_id = manifest.map(|manifest| manifest.log_id).or_else(|| id_of_segments(&read));
    let mut cores = Vec::new();
    for ((core, mut files), CoreHeaders { headers, mut findings }) in files.into_iter().zip(read) {
        findings.extend(log_id.into_iter().flat_map(|id| of_other_logs(storage, id, &headers)));
        findings.retain(|(id, error)| {
            let is_accepted = error.is_corrupt() && is_accepted_as_lost(manifest, core, *id);
            if is_accepted {
                files.lost.push(*id);
            }
            !is_accepted
        });
        cores.push(InspectedCore { core, files, headers, findings });
    }
    let all_headers =
        cores.iter().flat_map(|core| core.headers.values().map(|header| (core.core, header)));
    let lost_manifest = lost_manifest(storage, manifest, all_headers);
    Ok(Inspection {
        strange_names: directory.strange_names,
        lost_manifest,
        cores,
        manifests,
        log_id,
    })
}

/// Whether whatever a file held was accepted as lost, so that nothing is missed if it cannot be
/// read.
fn is_accepted_as_lost(manifest: Option<&Manifest>, core: u16, segment_id: u64) -> bool {
    let accepted = manifest.map_or(&[][..], |manifest| &manifest.accepted_damage);
    accepted.iter().any(|damage| damage.core == core && segment_id <= damage.segment_id)
}

/// Recovers cores side by side.
pub(crate) fn recover_cores(
    storage: &dyn Storage,
    mode: RecoveryMode,
    scan_from: ScanFrom,
    manifest: Option<&Manifest>,
    cores: &[InspectedCore],
) -> Vec<Result<(RecoveredCore, CoreReport), Failure>> {
    in_parallel(storage.parallelism(), cores, |core| {
        core::recover(storage, mode, scan_from, manifest, core.core, &core.files, &core.headers)
    })
}

/// The log id in the first segment file whose identity is valid: what the log has to be called if
/// no manifest says.
fn id_of_segments(cores: &[CoreHeaders]) -> Option<LogId> {
    let mut headers = cores.iter().flat_map(|core| core.headers.values());
    headers.next().map(|header| header.identity.log_id)
}

/// Segment files of other logs. With a manifest they were found as they were read.
fn of_other_logs(
    storage: &dyn Storage,
    log_id: LogId,
    headers: &Headers,
) -> impl Iterator<Item = (u64, WalError)> {
    let foreign = headers.values().filter(move |header| header.identity.log_id != log_id);
    foreign.map(move |header| {
        let name = segment_name(header.core, header.segment_id);
        (header.segment_id, foreign_log(storage, &name, log_id, header.identity.log_id))
    })
}

/// The report on these cores.
pub(crate) fn report(
    storage: &dyn Storage,
    manifest: Option<&Manifest>,
    strange_names: Vec<String>,
    cores: Vec<CoreReport>,
    losses: Vec<Loss>,
) -> RecoveryReport {
    let checkpoint = manifest.and_then(|manifest| manifest.checkpoint.as_ref());
    RecoveryReport {
        path: storage.path().to_owned(),
        log_id: manifest.map(|manifest| manifest.log_id.to_string()),
        manifest_number: manifest.map(|manifest| manifest.number),
        checkpoint: checkpoint
            .map(|checkpoint| CheckpointReport { id: checkpoint.id, epoch: checkpoint.epoch }),
        cores,
        strange_names,
        losses,
    }
}

/// Every core that was ever a member, or of which the manifest knows something else: what it says
/// must be true of a core without a directory too.
fn named_cores(manifest: Option<&Manifest>) -> BTreeSet<u16> {
    let Some(manifest) = manifest else { return BTreeSet::new() };
    let members = manifest.members.iter().flat_map(|member| {
        let first = u32::from(member.first_core);
        first..first.saturating_add(member.core_count)
    });
    let places = manifest.checkpoint.iter().flat_map(|checkpoint| &checkpoint.cores);
    members
        .filter_map(|core| u16::try_from(core).ok())
        .chain(places.map(|place| place.core))
        .chain(manifest.releases.iter().map(|release| release.core))
        .chain(manifest.cuts.iter().map(|cut| cut.core))
        .collect()
}

/// Finds proof that a newer manifest was written than the newest that can be read.
///
/// Dead segments prove nothing: what they knew was known when they were cut, by the manifest that
/// says so.
fn lost_manifest<'a>(
    storage: &dyn Storage,
    manifest: Option<&Manifest>,
    headers: impl Iterator<Item = (u16, &'a SegmentHeader)>,
) -> Option<WalError> {
    let mut cuts = BTreeMap::new();
    let newest = manifest.map(|manifest| manifest.number);
    let live = headers.filter(|(core, header)| {
        let cuts = cuts.entry(*core).or_insert_with(|| crate::cuts::Cuts::of_core(*core, manifest));
        !cuts.makes_dead(header)
    });
    let named = live.filter_map(|(_, header)| header.named_manifest());
    let (needed, named_by) = named.max_by_key(|named| named.0)?;
    if newest.is_some_and(|newest| newest >= needed) {
        return None;
    }
    Some(WalError::ManifestLost {
        path: storage.path().to_owned(),
        named_by,
        needed,
        newest,
        way_out: "Put a copy of a newer MANIFEST.0 or MANIFEST.1 back: without one nobody knows \
                  what was checkpointed, released or cut",
    })
}

/// Does `work` on every item with at most `threads` threads, and returns the results in order.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let work_on_next = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            match items.get(index) {
                Some(item) => results.push((index, work(item))),
                None => return results,
            }
        }
    };
    let mut results = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work_on_next)).collect();
        let mut results = work_on_next();
        for helper in helpers {
            match helper.join() {
                Ok(more) => results.extend(more),
                // As if it had happened without threads.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_whoever_did_the_work() {
        let items: Vec<u32> = (0..100).collect();
        for threads in [0, 1, 2, 7, 200] {
            let doubled = in_parallel(threads, &items, |item| item * 2);
            assert!(doubled.iter().copied().eq((0..100).map(|item| item * 2)), "{threads}");
        }
    }
}
