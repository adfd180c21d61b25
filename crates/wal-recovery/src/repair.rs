//! Leaving damage out of one core's log: as holes behind which it goes on, or as its end.
//!
//! Nobody sees all damage at once: what stands behind the first place hides. So one place after the
//! other is left out in a manifest that nobody has written, and the core is recovered as that
//! manifest says, until it is whole.

use std::collections::BTreeSet;

use wal_entry::ReplayOrder;
use wal_format::{AcceptedDamage, Cut, Manifest, RECORD_ALIGNMENT_BYTES as SMALLEST_BYTES};
use wal_storage::{Result, Storage, WalError};

use crate::RecoveryMode;
use crate::core::{self, Failed, FailedAt, Failure, RecoveredCore, ScanFrom};
use crate::cuts::Cuts;
use crate::log::InspectedCore;
use crate::report::{CoreReport, Loss};
use crate::resync::next_entry;
use crate::scan::{Progress, SegmentPlace};

/// A core's log without what is damaged of it.
pub(crate) struct Repaired {
    pub(crate) found: (RecoveredCore, CoreReport),
    /// The manifest that makes it so.
    pub(crate) manifest: Manifest,
    pub(crate) losses: Vec<Loss>,
    /// If the log ends before damage: no entry that is lost can stand before this in the order of
    /// replay.
    pub(crate) first_lost: Option<ReplayOrder>,
    /// Files of which something is left out, or that are left out whole.
    pub(crate) concerned_ids: BTreeSet<u64>,
}

/// Leaves out what `failure` says, and what comes to light then.
///
/// # Errors
///
/// The failure itself, if nothing can be left out for it to go away.
pub(crate) fn leave_out_damage(
    storage: &dyn Storage,
    mode: RecoveryMode,
    manifest: &Manifest,
    core: &InspectedCore,
    failure: Failure,
) -> Result<Repaired> {
    // A file that cannot be read at all is why something is missing.
    let unreadable = core.findings.first().map(|(_, error)| error.clone());
    let first_error = unreadable.unwrap_or_else(|| failure.error.clone());
    let mut repair = Repair::new(storage, mode, manifest, core);
    let mut failure = failure;
    loop {
        let Some(failed) = failure.stop.as_deref() else {
            return Err(failure.error);
        };
        if !repair.leave_out(failed, &failure.error)? {
            return Err(first_error);
        }
        match repair.recover() {
            Ok(found) => return repair.without_unreadable_files(found),
            Err(next) => failure = next,
        }
    }
}

/// Leaves out files that cannot be read, and of which nothing is known to be missing.
pub(crate) fn leave_out_unreadable_files(
    storage: &dyn Storage,
    mode: RecoveryMode,
    manifest: &Manifest,
    core: &InspectedCore,
    found: (RecoveredCore, CoreReport),
) -> Result<Repaired> {
    Repair::new(storage, mode, manifest, core).without_unreadable_files(found)
}

struct Repair<'a> {
    storage: &'a dyn Storage,
    mode: RecoveryMode,
    /// As it was found.
    manifest: &'a Manifest,
    core: &'a InspectedCore,
    holes: Vec<LeftOut>,
    end: Option<End>,
    /// So that it comes to an end.
    tried: BTreeSet<(u64, u64, u64)>,
}

/// A range that is left out, and why.
struct LeftOut {
    range: AcceptedDamage,
    reason: String,
}

/// Where the log is to end.
struct End {
    progress: Progress,
    /// As far as anybody knows, there was something up to here.
    known_end_position: u64,
    reason: String,
}

impl<'a> Repair<'a> {
    fn new(
        storage: &'a dyn Storage,
        mode: RecoveryMode,
        manifest: &'a Manifest,
        core: &'a InspectedCore,
    ) -> Self {
        let (holes, tried) = (Vec::new(), BTreeSet::new());
        Self { storage, mode, manifest, core, holes, end: None, tried }
    }

    /// Leaves out what stands behind the place where the log stops being whole. `false` if nothing
    /// is left to be tried.
    ///
    /// What lies below the checkpoint is in its snapshot, and not missed.
    fn leave_out(&mut self, failed: &FailedAt, damage: &WalError) -> Result<bool> {
        let floor_position = self.manifest.checkpointed_position(self.core.core);
        let position = failed.progress.position;
        if self.mode == RecoveryMode::Salvage || position < floor_position {
            let hole = self.hole_behind(failed)?;
            let is_free = |hole: &AcceptedDamage| {
                self.mode == RecoveryMode::Salvage || hole.end_position <= floor_position
            };
            if let Some(hole) = hole.filter(is_free)
                && self.add_hole(hole, damage)
            {
                return Ok(true);
            }
        }
        if position >= floor_position {
            return Ok(self.end_at(failed.progress, damage));
        }
        // Nothing is left but the snapshot: the log goes on where that stands.
        let checkpoint = self.manifest.checkpoint.as_ref();
        let place = checkpoint.and_then(|checkpoint| checkpoint.place(self.core.core));
        let (Some(checkpoint), Some(place)) = (checkpoint, place) else {
            return Ok(false);
        };
        let is_new_hole = match failed.what {
            Failed::Records { segment_id } => {
                let (core, end_position) = (self.core.core, place.position);
                self.add_hole(AcceptedDamage { core, position, end_position, segment_id }, damage)
            }
            Failed::Start { .. } | Failed::NoSegment => false,
        };
        Ok(self.end_at(Progress::at_checkpoint(checkpoint, place), damage) || is_new_hole)
    }

    /// The range from where the log stops being whole to where it can be read again.
    fn hole_behind(&self, failed: &FailedAt) -> Result<Option<AcceptedDamage>> {
        let position = failed.progress.position;
        let hole = |position, end_position, segment_id| {
            Some(AcceptedDamage { core: self.core.core, position, end_position, segment_id })
        };
        let segment_id = match failed.what {
            Failed::Records { segment_id } => segment_id,
            Failed::Start { segment_id } => {
                // Where the log below ends comes to light when it is read up to here.
                let base_position = self.base_position(segment_id);
                let before = base_position.and_then(|base| base.checked_sub(SMALLEST_BYTES));
                return Ok(before
                    .zip(base_position)
                    .and_then(|(before, base_position)| hole(before, base_position, segment_id)));
            }
            Failed::NoSegment => return Ok(None),
        };
        let (Some(header), Some(base_position)) =
            (self.core.headers.get(&segment_id), self.base_position(segment_id))
        else {
            return Ok(None);
        };
        let cuts = Cuts::of_core(self.core.core, Some(&self.proposed()));
        let mut later = self.core.headers.range(segment_id.saturating_add(1)..);
        let next = later.find_map(|(&id, header)| {
            let base = self.base_position(id).filter(|_| !cuts.makes_dead(header))?;
            (base > position).then_some((id, base))
        });
        let limit_position = next.map_or(u64::MAX, |(_, base)| base).min(cuts.limit(segment_id));
        let place = SegmentPlace::new(header, base_position);
        let behind = next_entry(self.storage, &place, &failed.progress, limit_position)?;
        Ok(match (behind, next) {
            (Some(behind), _) => hole(position, behind, segment_id),
            (None, Some((next_id, next_base))) => hole(position, next_base, next_id),
            (None, None) => None,
        })
    }

    /// `false` if that was tried.
    fn add_hole(&mut self, range: AcceptedDamage, damage: &WalError) -> bool {
        if !self.tried.insert((range.position, range.end_position, range.segment_id)) {
            return false;
        }
        // Of a range up to the beginning of a segment, the beginning is known better by now.
        self.holes.retain(|hole| {
            (hole.range.end_position, hole.range.segment_id)
                != (range.end_position, range.segment_id)
        });
        self.holes.push(LeftOut { range, reason: damage.to_string() });
        true
    }

    /// `false` if that was tried.
    fn end_at(&mut self, progress: Progress, damage: &WalError) -> bool {
        let proof = match damage {
            WalError::Corrupt(corruption) => corruption.proven_by.as_ref(),
            _ => None,
        };
        let known_end = self.end.as_ref().map_or(0, |end| end.known_end_position);
        self.end = Some(End {
            progress,
            known_end_position: proof.map_or(0, |proof| proof.durable_position).max(known_end),
            reason: damage.to_string(),
        });
        self.tried.insert((progress.position, u64::MAX, progress.next_sequence))
    }

    /// The manifest that leaves out what was decided so far.
    fn proposed(&self) -> Manifest {
        let mut manifest = self.manifest.clone();
        manifest.accepted_damage.extend(self.holes_below_end().map(|hole| hole.range));
        if let Some(end) = &self.end {
            manifest.accepted_damage.push(self.range_behind(end));
            let progress = &end.progress;
            manifest.add_cut(cut_at(self.manifest, self.core, progress, progress));
        }
        manifest
    }

    fn holes_below_end(&self) -> impl Iterator<Item = &LeftOut> {
        let end_position = self.end.as_ref().map_or(u64::MAX, |end| end.progress.position);
        self.holes.iter().filter(move |hole| hole.range.position < end_position)
    }

    fn range_behind(&self, end: &End) -> AcceptedDamage {
        let position = end.progress.position;
        AcceptedDamage {
            core: self.core.core,
            position,
            end_position: end.known_end_position.max(position.saturating_add(SMALLEST_BYTES)),
            segment_id: self.core.files.highest_id(),
        }
    }

    fn recover(&self) -> Result<(RecoveredCore, CoreReport), Failure> {
        recover_again(self.storage, self.mode, &self.proposed(), self.core)
    }

    /// The core is whole, as far as can be seen without the files that cannot be read. That they may
    /// be passed over has to be written down.
    fn without_unreadable_files(
        mut self,
        mut found: (RecoveredCore, CoreReport),
    ) -> Result<Repaired> {
        let unreadable = self.core.findings.iter().max_by_key(|finding| finding.0);
        if let Some((id, error)) = unreadable
            && self
                .proposed()
                .accepted_damage
                .iter()
                .all(|it| it.core != self.core.core || it.segment_id < *id)
        {
            let whole = &found.0;
            let last_id = whole.spans.last().map_or(0, |last| last.segment_id);
            if *id < last_id {
                // The log goes on in a later one, which a cut might take away.
                let (core, position, segment_id) = (self.core.core, whole.end_position, *id);
                let end_position = position.saturating_add(SMALLEST_BYTES);
                let range = AcceptedDamage { core, position, end_position, segment_id };
                self.add_hole(range, error);
                found = self.recover().map_err(|failure| failure.error)?;
                return Ok(self.finish(found));
            }
            let progress = Progress {
                position: whole.end_position,
                next_sequence: whole.next_sequence,
                last_epoch: whole.last_epoch,
                last_timestamp_ns: whole.last_timestamp_ns,
                ..Progress::EMPTY
            };
            // One above the last segment may have held what came next.
            self.end_at(progress, error);
            found = self.recover().map_err(|failure| failure.error)?;
        }
        Ok(self.finish(found))
    }

    fn finish(self, found: (RecoveredCore, CoreReport)) -> Repaired {
        let core = self.core.core;
        let mut losses = Vec::new();
        let mut concerned_ids: BTreeSet<u64> = self.core.findings.iter().map(|it| it.0).collect();
        let manifest = self.proposed();
        for hole in self.holes_below_end() {
            let AcceptedDamage { position, end_position, segment_id, .. } = hole.range;
            losses.push(Loss { core, position, end_position, reason: hole.reason.clone() });
            let mut spans = found.0.spans.iter();
            let before = spans.rfind(|span| span.end_position <= position);
            let first_id = before.map_or(0, |span| span.segment_id);
            let last_id = match self.base_position(segment_id) {
                Some(base_position) if base_position == end_position => segment_id - 1,
                _ => segment_id,
            };
            concerned_ids.extend(first_id..=last_id);
        }
        if let Some(end) = &self.end {
            let AcceptedDamage { position, end_position, .. } = self.range_behind(end);
            losses.push(Loss { core, position, end_position, reason: end.reason.clone() });
            let kept_id = found.0.spans.last().map_or(0, |last| last.segment_id);
            concerned_ids.extend(self.core.files.segment_ids.iter().filter(|id| **id >= kept_id));
        }
        let cuts = Cuts::of_core(core, Some(self.manifest));
        concerned_ids.retain(|id| {
            let header = self.core.headers.get(id);
            let is_dead = header.is_some_and(|header| cuts.makes_dead(header));
            self.core.files.segment_ids.contains(id) && !is_dead
        });
        let first_lost = self.end.as_ref().map(|end| ReplayOrder {
            epoch: end.progress.last_epoch,
            timestamp_ns: end.progress.last_timestamp_ns,
            core_id: core,
            sequence: end.progress.next_sequence,
        });
        Repaired { found, manifest, losses, first_lost, concerned_ids }
    }

    fn base_position(&self, segment_id: u64) -> Option<u64> {
        let header = self.core.headers.get(&segment_id)?;
        header.start.as_ref().ok().map(|start| start.base_position)
    }
}

/// A cut of everything that is there. What was known of epoch and time stays known.
pub(crate) fn cut_at(
    manifest: &Manifest,
    core: &InspectedCore,
    end: &Progress,
    reached: &Progress,
) -> Cut {
    let mut known = *reached;
    for header in core.headers.values() {
        if let Ok(start) = &header.start {
            known.raise(start.last_epoch, start.last_timestamp_ns);
        }
        header.vouches().for_each(|slot| known.raise(slot.epoch, i64::MIN));
    }
    let cuts = Cuts::of_core(core.core, Some(manifest));
    cuts.iter().for_each(|cut| known.raise(cut.last_epoch, cut.last_timestamp_ns));
    let highest_id = core.files.highest_id().max(cuts.highest_dead_id());
    // Of two with the same dead id the lower one counts. What went on behind that, and is gone, had
    // the next one.
    let mut newest = cuts.newest().into_iter();
    let is_hidden =
        newest.any(|cut| cut.dead_segment_id == highest_id && cut.position < end.position);
    Cut {
        core: core.core,
        position: end.position,
        sequence: end.next_sequence,
        dead_segment_id: highest_id.saturating_add(u64::from(is_hidden)),
        last_epoch: known.last_epoch,
        last_timestamp_ns: known.last_timestamp_ns,
    }
}

pub(crate) fn recover_again(
    storage: &dyn Storage,
    mode: RecoveryMode,
    manifest: &Manifest,
    core: &InspectedCore,
) -> Result<(RecoveredCore, CoreReport), Failure> {
    let InspectedCore { core, files, headers, .. } = core;
    let scan_from = ScanFrom::of_mode(mode);
    core::recover(storage, mode, scan_from, Some(manifest), *core, files, headers)
}
