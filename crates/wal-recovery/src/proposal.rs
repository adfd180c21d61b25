//! What a recovery leaves out though it is there, and what must be written down for that to hold.
//!
//! A log without some of what it held is a log with other cuts in its manifest. So whatever is left
//! out is a cut of a manifest that nobody has written yet, and each core is recovered again as that
//! manifest says: what is looked at before the loss is accepted is what an opening finds after.

use std::sync::Arc;

use wal_entry::ReplayOrder;
use wal_format::{AcceptedDamage, Cut, Manifest, RECORD_ALIGNMENT_BYTES};
use wal_storage::{Result, Storage, WalError};

use crate::RecoveryMode;
use crate::boundary::end_of_kept;
use crate::core::{self, Adoption, Failure, RecoveredCore};
use crate::cuts::Cuts;
use crate::log::{InspectedCore, recover_cores};
use crate::report::{CoreReport, Loss};
use crate::scan::Progress;
use crate::target::{Kept, RecoveryTarget};

/// What must be done before a writer goes on with less than was found, in this order: what stays is
/// made durable, what goes is copied to quarantine, and the manifest is replaced by the one of the
/// [`RecoveredLog`](crate::RecoveredLog).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proposal {
    /// What is left out, core by core.
    pub losses: Vec<Loss>,
    /// The manifest as it was found.
    pub manifest_found: Manifest,
    /// What must be adopted first: the cores that are cut, with what of them nothing proves.
    pub to_adopt: Vec<RecoveredCore>,
    /// Cores and numbers of the segment files of which something is dropped.
    pub to_quarantine: Vec<(u16, u64)>,
}

/// A log, with what was left out of it.
pub(crate) struct Proposed {
    pub(crate) manifest: Option<Manifest>,
    pub(crate) cores: Vec<(RecoveredCore, CoreReport)>,
    pub(crate) proposal: Option<Proposal>,
}

/// Recovers all cores, and leaves out what the mode and the target say.
pub(crate) fn propose(
    storage: &Arc<dyn Storage>,
    mode: RecoveryMode,
    target: RecoveryTarget,
    manifest: Option<Manifest>,
    inspected: Vec<InspectedCore>,
) -> Result<Proposed> {
    let recovered = recover_cores(storage.as_ref(), mode, manifest.as_ref(), &inspected);
    let Some(manifest) = manifest else {
        let cores: Result<_, Failure> = recovered.into_iter().collect();
        return Ok(Proposed {
            manifest,
            cores: cores.map_err(|failure| failure.error)?,
            proposal: None,
        });
    };
    let mut proposing = Proposing {
        storage,
        mode,
        inspected: &inspected,
        cores: Vec::with_capacity(inspected.len()),
        proposal: Proposal {
            losses: Vec::new(),
            manifest_found: manifest.clone(),
            to_adopt: Vec::new(),
            to_quarantine: Vec::new(),
        },
        manifest,
        first_lost: None,
    };
    for (core, recovered) in inspected.iter().zip(recovered) {
        let whole = match recovered {
            Ok(found) => proposing.without_unreadable_files(core, found)?,
            Err(failure) if mode == RecoveryMode::PointInTime => {
                proposing.up_to_damage(core, failure)?
            }
            Err(failure) => return Err(failure.error),
        };
        proposing.cores.push(whole);
    }
    if let Some(first_lost) = proposing.first_lost {
        let reason = format!("later than the first loss, on core {}", first_lost.core_id);
        proposing.cut_behind(Kept::Below(first_lost), &reason)?;
    }
    let found: Vec<&RecoveredCore> = proposing.cores.iter().map(|(core, _)| core).collect();
    let kept = target.kept(&proposing.manifest, &found)?;
    proposing.cut_behind(kept, &format!("behind the target, {target:?}"))?;
    let Proposing { manifest, cores, proposal, .. } = proposing;
    let is_changed = manifest != proposal.manifest_found;
    Ok(Proposed { manifest: Some(manifest), cores, proposal: is_changed.then_some(proposal) })
}

struct Proposing<'a> {
    storage: &'a Arc<dyn Storage>,
    mode: RecoveryMode,
    inspected: &'a [InspectedCore],
    /// The manifest that would make the log what is proposed.
    manifest: Manifest,
    /// As far as they are whole under that manifest.
    cores: Vec<(RecoveredCore, CoreReport)>,
    proposal: Proposal,
    /// No entry that damage took can stand before this, in the order of replay.
    first_lost: Option<ReplayOrder>,
}

impl Proposing<'_> {
    /// Ends a core's log before the damage. Each attempt may meet damage further in front.
    fn up_to_damage(
        &mut self,
        core: &InspectedCore,
        failure: Failure,
    ) -> Result<(RecoveredCore, CoreReport)> {
        // A file that cannot be read at all is why something is missing.
        let unreadable = core.findings.first().map(|(_, error)| error.clone());
        let first = unreadable.unwrap_or(failure.error);
        let floor_position = self.floor_position(core.core);
        let mut below_position = u64::MAX;
        let mut whole_up_to = failure.whole_up_to;
        loop {
            let attempt = whole_up_to
                .filter(|progress| (floor_position..below_position).contains(&progress.position));
            let Some(end) = attempt else {
                return Err(first);
            };
            below_position = end.position;
            self.cut(core, &end);
            match self.recover_again(core) {
                Ok(found) => return Ok(self.damage_is_left_out(core, &end, &first, found)),
                Err(failure) => whole_up_to = failure.whole_up_to,
            }
        }
    }

    fn damage_is_left_out(
        &mut self,
        core: &InspectedCore,
        end: &Progress,
        damage: &WalError,
        found: (RecoveredCore, CoreReport),
    ) -> (RecoveredCore, CoreReport) {
        self.note_damage(core, end.position, damage);
        self.first_loss_at(ReplayOrder {
            epoch: end.last_epoch,
            timestamp_ns: end.last_timestamp_ns,
            core_id: core.core,
            sequence: end.next_sequence,
        });
        let last = found.0.spans.last();
        let kept_id = last.map_or(0, |last| last.segment_id);
        self.quarantine_from(core, kept_id);
        let adoption = last.map(|last| Adoption {
            segment_id: last.segment_id,
            from_position: last.base_position,
            to_position: last.end_position,
        });
        self.proposal.to_adopt.push(RecoveredCore { adoption, ..found.0.clone() });
        found
    }

    /// The core is whole, as far as can be seen without the files that cannot be read.
    fn without_unreadable_files(
        &mut self,
        core: &InspectedCore,
        found: (RecoveredCore, CoreReport),
    ) -> Result<(RecoveredCore, CoreReport)> {
        let Some((highest_id, error)) = core.findings.iter().max_by_key(|finding| finding.0) else {
            return Ok(found);
        };
        let found = found.0;
        let end = Progress {
            position: found.end_position,
            next_sequence: found.next_sequence,
            last_epoch: found.last_epoch,
            last_timestamp_ns: found.last_timestamp_ns,
            ..Progress::EMPTY
        };
        self.note_damage(core, end.position, error);
        let head_id = found.spans.last().map_or(0, |head| head.segment_id);
        if *highest_id > head_id {
            // It may have held what came next.
            self.first_loss_at(ReplayOrder {
                epoch: end.last_epoch,
                timestamp_ns: end.last_timestamp_ns,
                core_id: core.core,
                sequence: end.next_sequence,
            });
        }
        let ids = core.findings.iter().map(|(id, _)| (core.core, *id));
        self.proposal.to_quarantine.extend(ids);
        self.proposal.to_adopt.push(found);
        self.cut(core, &end);
        self.recover_again(core).map_err(|failure| failure.error)
    }

    /// Cuts every core behind what is kept of it.
    fn cut_behind(&mut self, kept: Kept, reason: &str) -> Result<()> {
        if kept == Kept::All {
            return Ok(());
        }
        for (index, core) in self.inspected.iter().enumerate() {
            let Some((found, _)) = self.cores.get(index) else { continue };
            let from_position = self.floor_position(core.core);
            let storage = self.storage.as_ref();
            let end = end_of_kept(storage, core.core, &found.spans, from_position, kept)?;
            let Some(end) = end else { continue };
            let found = found.clone();
            self.proposal.losses.push(Loss {
                core: core.core,
                position: end.position,
                end_position: found.end_position,
                reason: reason.to_owned(),
            });
            let dropped = found.spans.iter().filter(|span| span.end_position > end.position);
            self.proposal.to_quarantine.extend(dropped.map(|span| (core.core, span.segment_id)));
            if self.proposal.to_adopt.iter().all(|known| known.core != core.core) {
                self.proposal.to_adopt.push(found);
            }
            let end =
                Progress { position: end.position, next_sequence: end.sequence, ..Progress::EMPTY };
            self.cut(core, &end);
            let again = self.recover_again(core).map_err(|failure| failure.error)?;
            if let Some(place) = self.cores.get_mut(index) {
                *place = again;
            }
        }
        Ok(())
    }

    /// Proposes a cut of everything that is there. What was known of epoch and time stays known.
    fn cut(&mut self, core: &InspectedCore, end: &Progress) {
        let mut known = *end;
        for header in core.headers.values() {
            if let Ok(start) = &header.start {
                known.raise(start.last_epoch, start.last_timestamp_ns);
            }
            header.vouches().for_each(|slot| known.raise(slot.epoch, i64::MIN));
        }
        if let Some((found, _)) = self.cores.iter().find(|(found, _)| found.core == core.core) {
            known.raise(found.last_epoch, found.last_timestamp_ns);
        }
        let cuts = Cuts::of_core(core.core, Some(&self.manifest));
        cuts.iter().for_each(|cut| known.raise(cut.last_epoch, cut.last_timestamp_ns));
        self.manifest.add_cut(Cut {
            core: core.core,
            position: end.position,
            sequence: end.next_sequence,
            dead_segment_id: core.files.highest_id().max(cuts.highest_dead_id()),
            last_epoch: known.last_epoch,
            last_timestamp_ns: known.last_timestamp_ns,
        });
    }

    fn recover_again(&self, core: &InspectedCore) -> Result<(RecoveredCore, CoreReport), Failure> {
        let InspectedCore { core, files, headers, .. } = core;
        core::recover(self.storage.as_ref(), self.mode, Some(&self.manifest), *core, files, headers)
    }

    fn note_damage(&mut self, core: &InspectedCore, position: u64, damage: &WalError) {
        let known_end = match damage {
            WalError::Corrupt(corruption) => {
                corruption.proven_by.as_ref().map_or(0, |proof| proof.durable_position)
            }
            _ => 0,
        };
        let end_position = known_end.max(position.saturating_add(RECORD_ALIGNMENT_BYTES));
        self.proposal.losses.push(Loss {
            core: core.core,
            position,
            end_position,
            reason: damage.to_string(),
        });
        self.manifest.accepted_damage.push(AcceptedDamage {
            core: core.core,
            position,
            end_position,
            segment_id: core.files.highest_id(),
        });
    }

    fn first_loss_at(&mut self, order: ReplayOrder) {
        self.first_lost = Some(self.first_lost.map_or(order, |known| known.min(order)));
    }

    /// Everything from this segment on may have held something that is dropped, unless it was cut
    /// away long ago.
    fn quarantine_from(&mut self, core: &InspectedCore, kept_id: u64) {
        let cuts = Cuts::of_core(core.core, Some(&self.proposal.manifest_found));
        let is_dead = |id| core.headers.get(id).is_some_and(|header| cuts.makes_dead(header));
        let ids = core.files.segment_ids.iter().filter(|id| **id >= kept_id && !is_dead(*id));
        self.proposal.to_quarantine.extend(ids.map(|id| (core.core, *id)));
    }

    /// Nothing may be cut below: where the last checkpoint stands on a core, and what was released.
    fn floor_position(&self, core: u16) -> u64 {
        let manifest = &self.proposal.manifest_found;
        let places = manifest.checkpoint.as_ref().map_or(&[][..], |checkpoint| &checkpoint.cores);
        let places = places.iter().filter(|place| place.core == core).map(|place| place.position);
        let releases = manifest.releases.iter().filter(|release| release.core == core);
        places.chain(releases.map(|release| release.position)).max().unwrap_or(0)
    }
}
