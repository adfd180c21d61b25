//! Where the scan of a core begins: with its first segment, or behind the last checkpoint.
//!
//! What lies before a checkpoint is in its snapshot, and nobody needs it to go on. But the manifest
//! alone does not say that the segments still hold the log up to there, and are the same: the
//! record of the checkpoint's barrier does, at its place, under its segment's salt, if something in
//! the segments themselves says that its segment was the log up to there.
//!
//! Without that, it may be one that a torn write left behind, in a tail that was abandoned: who logs
//! the same again in the next segment writes the same barrier at the same position.

use wal_entry::{EntryRef, EntryView, OperationRef, OperationView};
use wal_format::{Checkpoint, CheckpointCore, RECORD_HEADER_BYTES, RecordKind};
use wal_storage::Result;

use super::{CoreRecovery, ScanFrom};
use crate::chain::Member;
use crate::scan::{Next, Progress, SegmentPlace, SegmentScan};

/// Where a scan begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    /// How many segments of the chain lie wholly before it.
    pub(super) segments_before: usize,
    /// How many entries there are before it.
    pub(super) entries_before: u64,
    /// How far the log has come there.
    pub(super) progress: Progress,
}

impl CoreRecovery<'_> {
    /// Behind the checkpoint, if its barrier is found there and was durable there; otherwise with the
    /// first segment, so that whatever is wrong is found and named.
    pub(super) fn beginning(&mut self, first: &Member<'_>) -> Result<Beginning> {
        let whole = Beginning {
            segments_before: 0,
            entries_before: 0,
            progress: Progress::before(first.start),
        };
        let Some((checkpoint, at)) = self.checkpoint else { return Ok(whole) };
        let mut members = self.chain.members.iter().enumerate();
        let Some((index, member)) =
            members.rfind(|(_, member)| member.start.base_position < at.position)
        else {
            return Ok(whole);
        };
        // Breaks promise 3, if the manifest alone is believed: its segment may be gone.
        let may_begin_there = self.scan_from == ScanFrom::Checkpoint
            && self.holes.is_empty()
            && at.position <= self.cuts.limit(member.header.segment_id)
            && (cfg!(wal_fault = "checkpoint_without_barrier")
                || (self.has_barrier(member, checkpoint, at)?
                    && self.was_log_up_to(index, checkpoint, at)?));
        if !may_begin_there {
            return Ok(whole);
        }
        Ok(Beginning {
            segments_before: index,
            entries_before: at.sequence.saturating_sub(first.start.base_sequence),
            progress: Progress::at_checkpoint(checkpoint, at),
        })
    }

    /// Whether the checkpoint's barrier is the entry that ends where the checkpoint stands.
    fn has_barrier(
        &mut self,
        member: &Member<'_>,
        checkpoint: &Checkpoint,
        at: &CheckpointCore,
    ) -> Result<bool> {
        let place = SegmentPlace::new(member.header, member.start.base_position);
        let position = at.position.saturating_sub(barrier_record_bytes());
        let mut cursor = place.open(self.storage, std::mem::take(&mut self.buffers))?;
        let offset = place.offset_of(position);
        let located = cursor.locate(offset, place.salt, position, place.max_record_bytes)?;
        let found = match &located {
            Ok(record) if record.kind == RecordKind::Entry => {
                EntryView::access(cursor.bytes(&record.payload)).is_ok_and(|entry| {
                    matches!(entry.operation(), OperationView::EpochBarrier { epoch }
                        if epoch == checkpoint.epoch)
                        && entry.epoch() == checkpoint.epoch
                        && entry.sequence().checked_add(1) == Some(at.sequence)
                        && entry.timestamp_ns() <= at.timestamp_ns
                })
            }
            _ => false,
        };
        self.buffers = cursor.into_buffers();
        Ok(found)
    }

    /// Whether the segment's own vouch slots, a mark behind the checkpoint in it, or the start of the
    /// segment that continues it, say that all of it was durable up to the checkpoint: no opening
    /// found the log to end before that.
    fn was_log_up_to(
        &mut self,
        index: usize,
        checkpoint: &Checkpoint,
        at: &CheckpointCore,
    ) -> Result<bool> {
        let Some([member]) = self.chain.members.get(index..) else {
            return Ok(true);
        };
        if member.header.vouches().any(|slot| slot.durable_position >= at.position) {
            return Ok(true);
        }
        let place = SegmentPlace::new(member.header, member.start.base_position);
        let cursor = place.open(self.storage, std::mem::take(&mut self.buffers))?;
        let progress = Progress::at_checkpoint(checkpoint, at);
        let limit_position = self.cuts.limit(member.header.segment_id);
        let mut scan = SegmentScan::new(place, cursor, progress, limit_position);
        // Most often it is the first record: the mark of the next batch.
        let was_log = loop {
            match scan.next()? {
                Next::Mark(mark) if mark.durable_position >= at.position => break true,
                Next::Stop(_) => break false,
                _ => {}
            }
        };
        self.buffers = scan.into_buffers();
        Ok(was_log)
    }
}

/// A barrier has no key and no value: all are of one size.
fn barrier_record_bytes() -> u64 {
    let barrier = EntryRef {
        epoch: 0,
        sequence: 0,
        core_id: 0,
        timestamp_ns: 0,
        operation: OperationRef::EpochBarrier { epoch: 0 },
    };
    (RECORD_HEADER_BYTES + barrier.archived_bytes()) as u64
}
