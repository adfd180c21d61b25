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
use wal_storage::{Request, Result, WriteSync};

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
    /// What this turn's leader took, oldest first, as far as it is not written; empty between
    /// turns.
    pub(crate) batches: VecDeque<Batch>,
    /// What it took and has written.
    pub(crate) written: Vec<Batch>,
    /// Whether all of it is to be durable at the end of the turn, and how many entries that are.
    pub(crate) sync: bool,
    pub(crate) entries: u64,
    /// When the turn began, by [`Storage::now`](wal_storage::Storage::now), if anybody observes.
    pub(crate) began: Option<Duration>,
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
    /// Nothing has been written to the segment yet: its first write begins with the start block.
    is_new: bool,
    /// The start block, and a vouch block as it is before the first vouching.
    header: RecordBuffer,
    vouch_block: Block,
    newest_vouch: Option<VouchSlot>,
}

/// One call to the device. A turn is a few of them, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write the first batches, all of one segment.
    Write { batches: usize, how: WriteSync },
    /// Sync what was written to the active segment.
    Sync,
}

/// Room for the slices of one write: a header and the batches.
pub(crate) type Slices<'a> = [&'a [u8]; TAKEN_BATCHES_MAX + 1];

impl Device {
    pub(crate) const fn new(durable_position: u64, epoch: u64) -> Self {
        Self {
            active: None,
            durable: Mark { durable_position, epoch },
            last_used: Duration::ZERO,
            batches: VecDeque::new(),
            written: Vec::new(),
            sync: false,
            entries: 0,
            began: None,
        }
    }

    pub(crate) const fn durable_position(&self) -> u64 {
        self.durable.durable_position
    }

    /// What is to be done next for what the leader took: `None` at the end of the turn.
    ///
    /// The step's [request](Self::request) must be performed, and [done](Self::done), before the
    /// next one is asked for.
    pub(crate) fn next_step(&mut self) -> Option<Step> {
        let durable = self.durable;
        let unsynced = self.active.as_ref().is_some_and(|active| active.unsynced);
        let Some(first) = self.batches.front() else {
            return (self.sync && unsynced).then_some(Step::Sync);
        };
        let segment = Arc::clone(&first.segment);
        let is_of_segment = |batch: &&mut Batch| batch.segment.id() == segment.id();
        if self.active.as_ref().is_none_or(|active| active.segment.id() != segment.id()) {
            // Nothing of the next segment may be written before all of this one is durable.
            if unsynced && !cfg!(wal_fault = "next_segment_before_this") {
                return Some(Step::Sync);
            }
            self.active = Some(Active::new(Arc::clone(&segment), durable));
        }
        let active = self.active.as_mut()?;
        let mut batches = 0;
        for batch in self.batches.iter_mut().take_while(is_of_segment) {
            batch.complete(&mut active.tail, durable);
            batches += 1;
        }
        let sync = self.sync || batches < self.batches.len();
        if cfg!(wal_fault = "write_through_tail") && sync {
            // Breaks promise 1: a write-through call is taken to speak for earlier writes too.
            active.unsynced = false;
        }
        // Write-through speaks for its own call only, so it will do only if nothing written
        // before waits for a sync.
        let how = if sync && !active.unsynced { WriteSync::Through } else { WriteSync::None };
        Some(Step::Write { batches, how })
    }

    /// The call that a step is; `slices` is where its list of bytes goes.
    pub(crate) fn request<'a>(
        &'a self,
        step: Step,
        slices: &'a mut Slices<'a>,
    ) -> Option<Request<'a>> {
        let active = self.active.as_ref()?;
        let file = active.segment.file();
        let Step::Write { batches, how } = step else {
            return Some(Request::Sync { file });
        };
        let header = active.is_new.then_some(active.header.as_slice()).into_iter();
        let offset = if active.is_new { START_OFFSET } else { self.batches.front()?.file_offset };
        let records = self.batches.iter().take(batches).enumerate();
        let records = records.map(|(i, batch)| batch.bytes(i + 1 < batches));
        let mut count = 0;
        for (place, slice) in slices.iter_mut().zip(header.chain(records)) {
            *place = slice;
            count += 1;
        }
        Some(Request::Write { file, slices: slices.get(..count)?, offset, sync: how })
    }

    /// Takes note of how a step's request ended.
    ///
    /// # Errors
    ///
    /// Whatever the device said; the log must be poisoned then.
    pub(crate) fn done(&mut self, step: Step, result: Result<()>) -> Result<()> {
        let Some(active) = &mut self.active else {
            return result;
        };
        let result = match result {
            // Breaks promise 5: the second sync says `Ok`, and the bytes are gone.
            Err(_) if cfg!(wal_fault = "sync_retried") && step == Step::Sync => {
                active.segment.sync()
            }
            result => result,
        };
        result.map_err(|error| error.at(active.segment.path()))?;
        match step {
            Step::Write { batches, how } => {
                for batch in self.batches.drain(..batches.min(self.batches.len())) {
                    active.written =
                        Mark { durable_position: batch.end_position, epoch: batch.end_epoch };
                    self.written.push(batch);
                }
                active.is_new = false;
                match how {
                    WriteSync::Through => self.durable = active.written,
                    WriteSync::None => active.unsynced = true,
                }
                if cfg!(wal_fault = "ack_before_sync") {
                    // Breaks promise 1: what is written counts as durable.
                    self.durable = active.written;
                }
            }
            Step::Sync => {
                active.unsynced = false;
                self.durable = active.written;
            }
        }
        Ok(())
    }

    /// Starts a segment without records: its start block is durable when this returns.
    ///
    /// # Errors
    ///
    /// Whatever the device says; the log must be poisoned then.
    pub(crate) fn start_segment(&mut self, segment: Arc<Segment>, epoch: u64) -> Result<()> {
        if let Some(active) = &self.active
            && active.unsynced
        {
            active.segment.sync()?;
        }
        let base = segment.start().base_position;
        self.durable = Mark { durable_position: base, epoch };
        let active = self.active.insert(Active::new(segment, self.durable));
        active.is_new = false;
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
            is_new: true,
            vouch_block: Block::ZERO,
            newest_vouch: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use wal_format::{LogId, SegmentBytes, Start};
    use wal_sim::{OperationKind, SimStorage};
    use wal_storage::Storage;

    use crate::observer::Observer;
    use crate::options::LogOptions;
    use crate::segments::{Filling, Segments};

    use super::*;

    #[test]
    fn a_vouching_job_that_comes_late_does_not_take_the_closing_slot_back() {
        let disk = SimStorage::new(1);
        let mut device = started(&disk);
        device.vouch(1, false).unwrap();
        device.vouch(1, true).unwrap();
        device.vouch(2, false).unwrap();
        assert!(newest_vouch(&disk).closed);
    }

    #[test]
    fn each_vouching_takes_the_older_slot_and_one_that_says_nothing_new_none() {
        let disk = SimStorage::new(1);
        let mut device = started(&disk);
        // The slot is chosen by the counter: with the same one, a torn write would leave no slot.
        for (manifest_number, counter) in [(1, 1), (1, 1), (2, 2), (3, 3), (3, 3)] {
            device.vouch(manifest_number, false).unwrap();
            let newest = newest_vouch(&disk);
            assert_eq!((newest.manifest_number, newest.counter), (manifest_number, counter));
        }
    }

    #[test]
    fn a_segment_is_started_only_when_all_of_the_one_before_is_durable() {
        let disk = SimStorage::new(1);
        let mut device = started(&disk);
        let next = segment(&disk, 2);
        device.active.as_mut().unwrap().unsynced = true;
        disk.set_tracing(true);
        device.start_segment(next, 0).unwrap();
        let trace = disk.take_trace();
        let story: Vec<_> =
            trace.iter().map(|operation| (operation.kind, operation.name.as_str())).collect();
        let (before, next) =
            ("core-0000/00000000000000000001.wal", "core-0000/00000000000000000002.wal");
        assert_eq!(story, [(OperationKind::Sync, before), (OperationKind::Write, next)]);
    }

    /// A device whose first segment is started, without records.
    fn started(disk: &SimStorage) -> Device {
        disk.create_directory("core-0000").unwrap();
        let mut device = Device::new(0, 0);
        device.start_segment(segment(disk, 1), 0).unwrap();
        device
    }

    fn segment(disk: &SimStorage, segment_id: u64) -> Arc<Segment> {
        let observer = Arc::new(Observer::new(0));
        let (log_id, options) = (LogId([7; 16]), LogOptions::default());
        let storage = Arc::new(disk.clone());
        let segments = Segments::new(storage, 0, log_id, options, observer, segment_id - 1);
        let start = Start {
            predecessor: None,
            base_position: 0,
            base_sequence: 0,
            last_epoch: 0,
            last_timestamp_ns: i64::MIN,
            manifest_number: 1,
        };
        Arc::new(Segment::new(segments.take(0, Filling::Synced).unwrap(), start))
    }

    fn newest_vouch(disk: &SimStorage) -> VouchSlot {
        let bytes = disk.read_file("core-0000/00000000000000000001.wal").unwrap();
        *SegmentBytes::parse(&bytes).unwrap().newest_vouch().unwrap()
    }
}
