//! Cutting a core's log back: `truncate` and `reset`.
//!
//! Three steps, each durable before the next: the segment in which the log will go on has its
//! name; the manifest says where the log was cut, for segments up to the one before; the new
//! segment starts there. A crash between any two leaves the log uncut, or cut.

use std::sync::Arc;

use wal_format::{Cut, Manifest};
use wal_recovery::find_boundary;
use wal_storage::{Result, WalError};

use crate::core_log::CoreLog;
use crate::open_batch::OpenBatch;

/// Cuts at a record boundary. Everything appended must be durable.
///
/// # Errors
///
/// [`WalError::NotARecordBoundary`], [`WalError::BelowCheckpoint`], [`WalError::StorageFull`],
/// with nothing changed; [`WalError::Poisoned`].
pub(crate) fn truncate(
    log: &Arc<CoreLog>,
    open_batch: &mut OpenBatch,
    position: u64,
) -> Result<()> {
    if position == open_batch.position() {
        return Ok(());
    }
    let checkpoint_position = checkpoint_position(&log.shared.manifest(), log.core);
    if position < checkpoint_position {
        return Err(WalError::BelowCheckpoint { core: log.core, position, checkpoint_position });
    }
    let boundary = find_boundary(&*log.shared.storage, log.core, open_batch.spans(), position)?;
    let place = Place { position, sequence: boundary.sequence };
    cut(log, open_batch, place, |_| {})
}

/// Empties the log, whatever a checkpoint says. Everything appended must be durable.
///
/// # Errors
///
/// [`WalError::StorageFull`], with nothing changed; [`WalError::Poisoned`].
pub(crate) fn reset(log: &Arc<CoreLog>, open_batch: &mut OpenBatch) -> Result<()> {
    if open_batch.spans().is_empty() && open_batch.position() == 0 {
        return Ok(());
    }
    let core = log.core;
    let place = Place { position: 0, sequence: 0 };
    cut(log, open_batch, place, |manifest| {
        // A checkpoint or a release that still spoke of positions that are gone would make
        // every later opening find damage.
        manifest.checkpoint = None;
        manifest.releases.retain(|release| release.core != core);
    })
}

struct Place {
    position: u64,
    sequence: u64,
}

fn cut(
    log: &Arc<CoreLog>,
    open_batch: &mut OpenBatch,
    Place { position, sequence }: Place,
    and: impl FnOnce(&mut Manifest),
) -> Result<()> {
    // The segment comes first, so that a full disk changes nothing.
    let prepared = log.take_segment(0)?;
    let cut = Cut {
        core: log.core,
        position,
        sequence,
        dead_segment_id: prepared.segment_id - 1,
        last_epoch: open_batch.last_epoch(),
        last_timestamp_ns: open_batch.clock().last().unwrap_or(i64::MIN),
    };
    log.shared.replace_manifest(|manifest| {
        add_cut(&mut manifest.cuts, cut);
        and(manifest);
    })?;
    log.begin_new_life();
    let before: Vec<u64> = open_batch.spans().iter().map(|span| span.segment_id).collect();
    open_batch.cut(position, sequence);
    let live = open_batch.spans().len();
    let segment = open_batch.begin_segment(log, prepared);
    let mut device = log.device()?;
    device.start_segment(segment, open_batch.last_epoch()).map_err(|cause| log.poison(cause))?;
    log.queue.restart_at(position);
    drop(device);
    log.recycle(before.into_iter().skip(live).collect());
    Ok(())
}

/// Adds a cut that is newer than all of them, and forgets those that it makes redundant: for
/// every segment that they speak of, the new one says at least as much.
fn add_cut(cuts: &mut Vec<Cut>, new: Cut) {
    cuts.retain(|old| old.core != new.core || old.position < new.position);
    let place = cuts.partition_point(|old| old.core <= new.core);
    cuts.insert(place, new);
}

fn checkpoint_position(manifest: &Manifest, core: u16) -> u64 {
    let cores = manifest.checkpoint.as_ref().map_or(&[][..], |checkpoint| &checkpoint.cores);
    cores.iter().find(|place| place.core == core).map_or(0, |place| place.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_at(core: u16, position: u64, dead_segment_id: u64) -> Cut {
        Cut { core, position, sequence: 0, dead_segment_id, last_epoch: 0, last_timestamp_ns: 0 }
    }

    #[test]
    fn a_lower_cut_makes_higher_ones_redundant_and_no_other() {
        let mut cuts = Vec::new();
        add_cut(&mut cuts, cut_at(1, 800, 2));
        add_cut(&mut cuts, cut_at(0, 900, 5));
        add_cut(&mut cuts, cut_at(1, 1600, 4));
        assert_eq!(cuts, [cut_at(0, 900, 5), cut_at(1, 800, 2), cut_at(1, 1600, 4)]);
        add_cut(&mut cuts, cut_at(1, 1000, 6));
        assert_eq!(cuts, [cut_at(0, 900, 5), cut_at(1, 800, 2), cut_at(1, 1000, 6)]);
        add_cut(&mut cuts, cut_at(1, 0, 7));
        assert_eq!(cuts, [cut_at(0, 900, 5), cut_at(1, 0, 7)]);
    }
}
