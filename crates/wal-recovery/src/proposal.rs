//! What a recovery leaves out though it is there, and what must be written down for that to hold.
//!
//! A log without some of what it held is a log with other cuts, and other accepted damage, in its
//! manifest. So whatever is left out is said by a manifest that nobody has written yet, and each core
//! is recovered again as that manifest says: what is looked at before the loss is accepted is what an
//! opening finds after.

use std::sync::Arc;

use wal_entry::ReplayOrder;
use wal_format::Manifest;
use wal_storage::{Result, Storage};

use crate::RecoveryMode;
use crate::boundary::end_of_kept;
use crate::core::{Adoption, Failure, RecoveredCore, ScanFrom};
use crate::log::{InspectedCore, recover_cores};
use crate::repair::{
    Repaired, cut_at, leave_out_damage, leave_out_unreadable_files, recover_again,
};
use crate::report::{CoreReport, Loss};
use crate::scan::Progress;
use crate::target::{Kept, RecoveryTarget};

/// What must be done before a writer goes on with less than was found, in this order: what stays is
/// made durable, what goes is copied to quarantine, and the manifest is replaced by the one of the
/// [`RecoveredLog`](crate::RecoveredLog).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proposal {
    /// What is left out.
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
    inspected: &[InspectedCore],
) -> Result<Proposed> {
    let scan_from = ScanFrom::of_mode(mode);
    let recovered = recover_cores(storage.as_ref(), mode, scan_from, manifest.as_ref(), inspected);
    let Some(manifest) = manifest else {
        let cores: Result<_, Failure> = recovered.into_iter().collect();
        let cores = cores.map_err(|failure| failure.error)?;
        return Ok(Proposed { manifest, cores, proposal: None });
    };
    let mut proposing = Proposing {
        storage: storage.as_ref(),
        mode,
        inspected,
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
        proposing.add_core(core, recovered)?;
    }
    if let Some(first_lost) = proposing.first_lost
        && mode == RecoveryMode::PointInTime
    {
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
    storage: &'a dyn Storage,
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
    fn add_core(
        &mut self,
        core: &InspectedCore,
        recovered: Result<(RecoveredCore, CoreReport), Failure>,
    ) -> Result<()> {
        let Self { storage, mode, manifest, .. } = self;
        let leaves_out = matches!(mode, RecoveryMode::PointInTime | RecoveryMode::Salvage);
        let repaired = match recovered {
            Ok(found) if core.findings.is_empty() => {
                self.cores.push(found);
                return Ok(());
            }
            Ok(found) => leave_out_unreadable_files(*storage, *mode, manifest, core, found)?,
            Err(failure) if leaves_out => {
                leave_out_damage(*storage, *mode, manifest, core, failure)?
            }
            Err(failure) => return Err(failure.error),
        };
        let Repaired { found, manifest, losses, first_lost, concerned_ids } = repaired;
        self.manifest = manifest;
        self.proposal.losses.extend(losses);
        self.proposal.to_quarantine.extend(concerned_ids.iter().map(|&id| (core.core, id)));
        self.proposal.to_adopt.push(adopted_whole(&found.0));
        self.first_lost = self.first_lost.into_iter().chain(first_lost).min();
        self.cores.push(found);
        Ok(())
    }

    /// Cuts every core behind what is kept of it. What lies below the checkpoint, or was released, is
    /// kept.
    fn cut_behind(&mut self, kept: Kept, reason: &str) -> Result<()> {
        if kept == Kept::All {
            return Ok(());
        }
        for (index, core) in self.inspected.iter().enumerate() {
            let Some((found, _)) = self.cores.get(index) else { continue };
            let from_position = self.manifest.checkpointed_position(core.core);
            let end = end_of_kept(self.storage, core.core, &found.spans, from_position, kept)?;
            let Some(end) = end else { continue };
            self.proposal.losses.push(Loss {
                core: core.core,
                position: end.position,
                end_position: found.end_position,
                reason: reason.to_owned(),
            });
            for span in found.spans.iter().filter(|span| span.end_position > end.position) {
                let segment = (core.core, span.segment_id);
                if !self.proposal.to_quarantine.contains(&segment) {
                    self.proposal.to_quarantine.push(segment);
                }
            }
            if self.proposal.to_adopt.iter().all(|known| known.core != core.core) {
                self.proposal.to_adopt.push(found.clone());
            }
            let mut reached = Progress::EMPTY;
            reached.raise(found.last_epoch, found.last_timestamp_ns);
            let end =
                Progress { position: end.position, next_sequence: end.sequence, ..Progress::EMPTY };
            self.manifest.add_cut(cut_at(&self.manifest, core, &end, &reached));
            let again = recover_again(self.storage, self.mode, &self.manifest, core)
                .map_err(|failure| failure.error)?;
            if let Some(place) = self.cores.get_mut(index) {
                *place = again;
            }
        }
        Ok(())
    }
}

/// What was proven durable by something that is dropped is so no more: all of the last segment is
/// written again.
fn adopted_whole(core: &RecoveredCore) -> RecoveredCore {
    let adoption = core.spans.last().map(|last| Adoption {
        segment_id: last.segment_id,
        from_position: last.base_position,
        to_position: last.end_position,
    });
    RecoveredCore { adoption, ..core.clone() }
}
