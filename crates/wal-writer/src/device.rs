//! The device side: who holds it is the leader, and nobody else writes to the core's segments.
//!
//! The device rules of `docs/durability.md` are kept here and nowhere else: at most one write in
//! flight; a write-through call only if it carries everything not yet durable; nothing of the
//! next segment before all of this one is durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use wal_entry::RecordBuffer;
use wal_format::{Block, Mark, START_OFFSET, VOUCH_OFFSET, VouchSlot};
use wal_storage::{Result, WriteSync};

use crate::batch::{Batch, Tail};
use crate::header_blocks::header_blocks;
use crate::queue::TAKEN_BATCHES_MAX;
use crate::segments::Segment;

#[derive(Debug)]
pub(crate) struct Device {
    /// The segment that batches go to; `None` before the first one of this opening.
    active: Option<Active>,
    /// How far the log is durable, and the epoch of the last entry up to there.
    durable: Mark,
    /// When the device was last used, by [`Storage::now`](wal_storage::Storage::now).
    pub(crate) last_used: Duration,
    /// Where a leader puts what it takes; empty between turns.
    pub(crate) batches: VecDeque<Batch>,
}

#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    /// What the next batch has to carry.
    tail: Tail,
    /// How far records have been handed to the kernel, and the epoch there.
    written: Mark,
    /// Whether any of it was handed over by a write that promised nothing.
    unsynced: bool,
    /// The start block, and a vouch block as it is before the first vouching.
    header: RecordBuffer,
    vouch_block: Block,
    newest_vouch: Option<VouchSlot>,
}

impl Device {
    pub(crate) const fn new(durable_position: u64, epoch: u64) -> Self {
        let durable = Mark { durable_position, epoch };
        Self { active: None, durable, last_used: Duration::ZERO, batches: VecDeque::new() }
    }

    /// Writes `batches`, oldest first and at most [`TAKEN_BATCHES_MAX`], and makes them durable if
    /// `sync` is set.
    ///
    /// # Errors
    ///
    /// Whatever the device says; the log must be poisoned then. What was made durable before is
    /// reported through `on_durable` in any case, segment by segment.
    pub(crate) fn write(
        &mut self,
        batches: &mut VecDeque<Batch>,
        sync: bool,
        on_durable: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let batches = batches.make_contiguous();
        let of_one_segment = |a: &Batch, b: &Batch| a.segment.id() == b.segment.id();
        let mut groups = batches.chunk_by_mut(of_one_segment).peekable();
        while let Some(group) = groups.next() {
            let Some(segment) = group.first().map(|batch| Arc::clone(&batch.segment)) else {
                continue;
            };
            // Nothing of the next segment may be written before all of this one is durable.
            let sync = sync || groups.peek().is_some();
            if self.active.as_ref().is_none_or(|active| active.segment.id() != segment.id()) {
                self.sync()?;
                on_durable(self.durable.durable_position);
                self.active = Some(Active::new(segment, self.durable));
                self.write_group(group, sync, true)?;
            } else {
                self.write_group(group, sync, false)?;
            }
            on_durable(self.durable.durable_position);
        }
        if sync {
            self.sync()?;
            on_durable(self.durable.durable_position);
        }
        Ok(())
    }

    /// Starts a segment without records: its start block is durable when this returns.
    ///
    /// # Errors
    ///
    /// Whatever the device says; the log must be poisoned then.
    pub(crate) fn start_segment(&mut self, segment: Arc<Segment>, epoch: u64) -> Result<()> {
        self.sync()?;
        let base = segment.start().base_position;
        self.durable = Mark { durable_position: base, epoch };
        let active = self.active.insert(Active::new(segment, self.durable));
        // The zeroes tell the end of the log from bytes of the file's earlier life.
        let zeroes = header_blocks(&[&Block::ZERO]);
        active.segment.write_at(&[&active.header, &zeroes], START_OFFSET, WriteSync::Through)
    }

    /// Says in the active segment's vouch block how far the log is durable, durably. Nothing to
    /// do if it says so already, or if no segment is active.
    ///
    /// # Errors
    ///
    /// Whatever the device says; the log must be poisoned then.
    pub(crate) fn vouch(&mut self, manifest_number: u64, closed: bool) -> Result<()> {
        let durable = self.durable;
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let slot = VouchSlot {
            counter: active.newest_vouch.map_or(1, |newest| newest.counter + 1),
            durable_position: durable.durable_position,
            epoch: durable.epoch,
            manifest_number,
            closed,
        };
        // Behind a closing slot nothing follows: a job that is late must not take it back.
        if active.newest_vouch.is_some_and(|newest| {
            newest.closed || VouchSlot { counter: newest.counter, ..slot } == newest
        }) {
            return Ok(());
        }
        slot.encode_into(&mut active.vouch_block, active.segment.salt());
        active.newest_vouch = Some(slot);
        // Write-through covers this block alone; it is only ever about what is durable already.
        let block = header_blocks(&[&active.vouch_block]);
        active.segment.write_at(&[&block], VOUCH_OFFSET, WriteSync::Through)
    }

    fn write_group(&mut self, group: &mut [Batch], sync: bool, starts: bool) -> Result<()> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        for batch in group.iter_mut() {
            batch.complete(&mut active.tail, self.durable);
        }
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return Ok(());
        };
        let written = Mark { durable_position: last.end_position, epoch: last.end_epoch };
        let header = starts.then_some(active.header.as_slice()).into_iter();
        let offset = if starts { START_OFFSET } else { first.file_offset };
        let last_index = group.len() - 1;
        let records = group.iter().enumerate().map(|(i, batch)| batch.bytes(i < last_index));
        let mut slices: [&[u8]; TAKEN_BATCHES_MAX + 1] = [&[]; _];
        let mut count = 0;
        for (place, slice) in slices.iter_mut().zip(header.chain(records)) {
            *place = slice;
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        // Write-through speaks for its own call only, so it will do only if nothing written
        // before waits for a sync.
        let through = sync && !active.unsynced;
        let how = if through { WriteSync::Through } else { WriteSync::None };
        active.segment.write_at(slices, offset, how)?;
        active.written = written;
        if through {
            self.durable = written;
        } else {
            active.unsynced = true;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if let Some(active) = &mut self.active
            && active.unsynced
        {
            active.segment.sync()?;
            active.unsynced = false;
            self.durable = active.written;
        }
        Ok(())
    }
}

impl Active {
    fn new(segment: Arc<Segment>, durable: Mark) -> Self {
        let start = segment.start().encode(segment.salt());
        Self {
            header: header_blocks(&[&start, &Block::ZERO]),
            segment,
            tail: Tail::EMPTY,
            written: durable,
            unsynced: false,
            vouch_block: Block::ZERO,
            newest_vouch: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use wal_format::{LogId, SegmentBytes, Start};
    use wal_sim::SimStorage;
    use wal_storage::Storage;

    use crate::options::LogOptions;
    use crate::segments::{Filling, Segments};

    use super::*;

    #[test]
    fn a_vouching_job_that_comes_late_does_not_take_the_closing_slot_back() {
        let disk = SimStorage::new(1);
        disk.create_directory("core-0000").unwrap();
        let storage = Arc::new(disk.clone());
        let segments = Segments::new(storage, 0, LogId([7; 16]), LogOptions::default(), 0);
        let start = Start {
            predecessor: None,
            base_position: 0,
            base_sequence: 0,
            last_epoch: 0,
            last_timestamp_ns: i64::MIN,
            manifest_number: 1,
        };
        let segment = Arc::new(Segment::new(segments.take(0, Filling::Synced).unwrap(), start));
        let mut device = Device::new(0, 0);
        device.start_segment(segment, 0).unwrap();
        device.vouch(1, false).unwrap();
        device.vouch(1, true).unwrap();
        device.vouch(2, false).unwrap();
        let bytes = disk.read_file("core-0000/00000000000000000001.wal").unwrap();
        let segment = SegmentBytes::parse(&bytes).unwrap();
        assert!(segment.newest_vouch().unwrap().closed);
    }
}
