//! Cutting logs back: `truncate` and `reset`, of one core or of all at once.
//!
//! Three steps, each durable before the next: the segments in which the logs will go on have their
//! names; one replacement of the manifest says where each log was cut, for segments up to the one
//! before; the new segments start there. A crash between any two leaves all logs uncut, or all
//! cut.

use std::sync::Arc;

use wal_format::{Cut, Manifest};
use wal_recovery::{Committed, committed_between, find_boundary};
use wal_storage::{Result, WalError};

use crate::core_log::CoreLog;
use crate::directory_hold::Held;
use crate::open_batch::OpenBatch;
use crate::queue::Goal;
use crate::segments::Prepared;

/// One core's part of a cut: everything that can go wrong without harm has gone well.
#[derive(Debug)]
pub(crate) struct PlannedCut<'a> {
    log: &'a Arc<CoreLog>,
    open_batch: &'a mut OpenBatch,
    place: Place,
    /// What the commits below it come to.
    committed: Committed,
    empties: bool,
    prepared: Prepared,
    /// From the first step to the last nobody else may have the directory.
    _held: Held<'a>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    position: u64,
    sequence: u64,
}

/// Plans to cut at a record boundary; `None` if the log ends there already. Everything appended
/// must be durable.
///
/// # Errors
///
/// [`WalError::NotARecordBoundary`], [`WalError::InvalidArgument`], [`WalError::BelowCheckpoint`],
/// [`WalError::StorageFull`], [`WalError::Poisoned`], whatever reading says; nothing has changed.
pub(crate) fn plan_truncate<'a>(
    log: &'a Arc<CoreLog>,
    open_batch: &'a mut OpenBatch,
    position: u64,
) -> Result<Option<PlannedCut<'a>>> {
    if position == open_batch.position() {
        return Ok(None);
    }
    let checkpoint_position = check_checkpoint(&log.shared.manifest(), log.core, position)?;
    let (storage, spans) = (&log.shared.storage, open_batch.spans().all());
    let boundary = find_boundary(&**storage, log.core, &spans, position)?;
    let committed = match open_batch.committed() {
        committed if committed.is_empty() => Committed::default(),
        _ => committed_between(storage, log.core, &spans, checkpoint_position, position)?,
    };
    let place = Place { position, sequence: boundary.sequence };
    plan(log, open_batch, place, committed, false).map(Some)
}

/// Plans to empty the log, whatever a checkpoint says; `None` if it is empty, and nothing says
/// that it ever was not. Everything appended must be durable.
///
/// # Errors
///
/// [`WalError::StorageFull`], [`WalError::Poisoned`]; nothing has changed.
pub(crate) fn plan_reset<'a>(
    log: &'a Arc<CoreLog>,
    open_batch: &'a mut OpenBatch,
) -> Result<Option<PlannedCut<'a>>> {
    let is_empty = open_batch.spans().is_empty() && open_batch.position() == 0;
    if is_empty && log.shared.manifest().checkpoint.is_none() {
        return Ok(None);
    }
    let place = Place { position: 0, sequence: 0 };
    plan(log, open_batch, place, Committed::default(), true).map(Some)
}

/// Carries planned cuts out, all of them or none.
///
/// # Errors
///
/// [`WalError::StorageFull`] with nothing changed; [`WalError::Poisoned`].
pub(crate) fn carry_out(cuts: Vec<PlannedCut<'_>>) -> Result<()> {
    if cfg!(wal_fault = "cut_on_some_cores_only") && cuts.len() > 1 {
        // Breaks promise 1: a crash between two cores leaves a cut that never happened.
        return cuts.into_iter().try_for_each(|cut| carry_out(vec![cut]));
    }
    let Some(first) = cuts.first() else {
        return Ok(());
    };
    first.log.shared.replace_manifest(|manifest| {
        for cut in &cuts {
            // A checkpoint may have been completed since the cut was planned.
            if !cut.empties {
                check_checkpoint(manifest, cut.log.core, cut.place.position)?;
            }
            manifest.add_cut(cut.entry());
            if cut.empties {
                // A checkpoint or a release that still spoke of positions that are gone would
                // make every later opening find damage.
                manifest.checkpoint = None;
                manifest.releases.retain(|release| release.core != cut.log.core);
            }
        }
        Ok(())
    })?;
    let mut result = Ok(());
    for cut in cuts {
        let started = cut.start();
        result = result.and(started);
    }
    result
}

fn plan<'a>(
    log: &'a Arc<CoreLog>,
    open_batch: &'a mut OpenBatch,
    place: Place,
    committed: Committed,
    empties: bool,
) -> Result<PlannedCut<'a>> {
    let held = log.directory_lock()?;
    // The segment comes first, so that a full disk changes nothing.
    let prepared = log.take_segment_behind_cut()?;
    Ok(PlannedCut { log, open_batch, place, committed, empties, prepared, _held: held })
}

impl PlannedCut<'_> {
    fn entry(&self) -> Cut {
        Cut {
            core: self.log.core,
            position: self.place.position,
            sequence: self.place.sequence,
            dead_segment_id: self.prepared.segment_id - 1,
            last_epoch: self.open_batch.last_epoch(),
            last_timestamp_ns: self.open_batch.clock().last().unwrap_or(i64::MIN),
        }
    }

    /// The manifest says that the log was cut: goes on in the new segment.
    fn start(self) -> Result<()> {
        let Self { log, open_batch, place, committed, empties, prepared, .. } = self;
        let dead = open_batch.cut(place.position, place.sequence, committed);
        log.barriers.cut(empties);
        let segment = open_batch.begin_segment(log, prepared);
        let mut device = log.device()?;
        device
            .start_segment(segment, open_batch.last_epoch())
            .map_err(|cause| log.poison(cause))?;
        log.queue.restart_at(Goal {
            position: place.position,
            sequence: place.sequence,
            life: log.queue.life().wrapping_add(1),
        });
        drop(device);
        log.recycle(dead);
        Ok(())
    }
}

/// Up to where this core's log is checkpointed, if `position` does not lie below.
fn check_checkpoint(manifest: &Manifest, core: u16, position: u64) -> Result<u64> {
    let checkpoint_position = manifest.checkpointed_position(core);
    if position < checkpoint_position {
        return Err(WalError::BelowCheckpoint { core, position, checkpoint_position });
    }
    Ok(checkpoint_position)
}
