//! The appender's half of a core's log: the batch being filled, and where the log goes on.
//!
//! Owned by one thread at a time, so an append takes no lock and touches nothing shared but one
//! word that says whether the log is poisoned.

use std::sync::Arc;

use wal_entry::{EntryClock, EntryRef, OperationRef, ReplayOrder};
use wal_format::{
    MARK_RECORD_BYTES, RECORD_HEADER_BYTES, RecordKind, SEAL_RECORD_BYTES, Start,
    encode_batch_entry_header, encode_record_header,
};
use wal_recovery::{Committed, RecoveredCore, SegmentSpan};
use wal_storage::{Result, WalError};

use crate::batch::Batch;
use crate::core_log::CoreLog;
use crate::segments::{Filling, Prepared, Segment};
use crate::spans::Spans;
use crate::write_batch::WriteBatch;

#[derive(Debug)]
pub(crate) struct OpenBatch {
    batch: Option<Batch>,
    /// The segment that records go to; `None` before this opening's first.
    segment: Option<Arc<Segment>>,
    /// Every segment of the log that is still there.
    spans: Arc<Spans>,
    position: u64,
    sequence: u64,
    /// The epoch of the last entry; later ones have at least this.
    last_epoch: u64,
    /// The epoch of the next entry.
    epoch: u64,
    clock: EntryClock,
    /// What the commits behind the last checkpoint come to.
    committed: Committed,
    /// How often what was appended to the segment was to become durable.
    syncs_in_segment: u64,
    /// Whether the log that was found is known, by its vouch block, to end where it ends.
    closed_when_found: bool,
}

/// Which part of a segment a record may be put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// All but the reserve.
    Ordinary,
    /// The reserve too, if there is no space for another segment: for what a log on a full disk
    /// still must be able to say.
    Reserve,
}

impl OpenBatch {
    /// An empty log.
    pub(crate) fn empty() -> Self {
        Self {
            batch: None,
            segment: None,
            spans: Arc::new(Spans::new(Vec::new())),
            position: 0,
            sequence: 0,
            last_epoch: 0,
            epoch: 0,
            clock: EntryClock::starting_after(None),
            committed: Committed::default(),
            syncs_in_segment: 0,
            closed_when_found: false,
        }
    }

    /// Goes on behind what was recovered.
    pub(crate) fn behind(found: &RecoveredCore) -> Self {
        let last_timestamp_ns =
            (found.last_timestamp_ns != i64::MIN).then_some(found.last_timestamp_ns);
        Self {
            spans: Arc::new(Spans::new(found.spans.clone())),
            committed: found.committed.clone(),
            position: found.end_position,
            sequence: found.next_sequence,
            last_epoch: found.last_epoch,
            epoch: found.next_epoch,
            clock: EntryClock::starting_after(last_timestamp_ns),
            closed_when_found: found.closed,
            ..Self::empty()
        }
    }

    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    pub(crate) const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) const fn last_epoch(&self) -> u64 {
        self.last_epoch
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Raises the epoch that later entries get.
    ///
    /// # Errors
    ///
    /// [`WalError::EpochRegressed`] if it is below the current one.
    pub(crate) fn set_epoch(&mut self, log: &CoreLog, requested: u64) -> Result<()> {
        let current = self.epoch;
        if requested < current {
            return Err(WalError::EpochRegressed { core: log.core, requested, current });
        }
        self.raise_epoch(requested);
        log.shared.highest_epoch.raise(requested);
        Ok(())
    }

    /// Later entries get this epoch, which must not be lower than the current one.
    pub(crate) const fn raise_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// What the commits behind the last checkpoint come to, and perhaps some before it.
    pub(crate) const fn committed(&self) -> &Committed {
        &self.committed
    }

    pub(crate) const fn clock(&self) -> &EntryClock {
        &self.clock
    }

    /// The segments of the log, the last one ending at [`position`](Self::position).
    pub(crate) fn spans(&self) -> &Arc<Spans> {
        // Where the segments of earlier openings end, recovery has said.
        if self.segment.is_some() {
            self.spans.note_end(self.position, self.sequence);
        }
        &self.spans
    }

    /// Appends an entry with the given epoch, and with `timestamp_ns` or the clock's, and returns
    /// its record's position.
    ///
    /// # Errors
    ///
    /// [`WalError::RecordTooLarge`], [`WalError::StorageFull`], [`WalError::Poisoned`]. Nothing
    /// was appended then.
    #[inline(always)]
    pub(crate) fn append(
        &mut self,
        log: &Arc<CoreLog>,
        epoch: u64,
        timestamp_ns: Option<i64>,
        operation: OperationRef<'_>,
        room: Room,
    ) -> Result<u64> {
        let mut entry = EntryRef {
            epoch,
            sequence: self.sequence,
            core_id: log.core,
            timestamp_ns: 0,
            operation,
        };
        let archive_bytes = entry.archived_bytes();
        let record_bytes = RECORD_HEADER_BYTES + archive_bytes;
        if !self.has_room(log, record_bytes) {
            self.make_room(log, archive_bytes, room)?;
        }
        let Some(batch) = &mut self.batch else {
            return Err(bug("room was made, but no batch is open"));
        };
        entry.timestamp_ns = timestamp_ns.unwrap_or_else(|| self.clock.peek());
        let start = batch.buffer.len();
        batch.buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        entry.archive_into(&mut batch.buffer);
        let position = batch.end_position;
        let Some((header, payload)) = batch
            .buffer
            .get_mut(start..)
            .and_then(|record| record.split_first_chunk_mut::<RECORD_HEADER_BYTES>())
        else {
            return Err(bug("a record is shorter than its header"));
        };
        let encoded =
            encode_record_header(RecordKind::Entry, payload, batch.segment.salt(), position);
        let Some(encoded) = encoded else {
            batch.buffer.resize(start, 0);
            return Err(too_large(log, archive_bytes));
        };
        *header = encoded;
        batch.end_position = position + record_bytes as u64;
        batch.end_epoch = epoch;
        self.position = batch.end_position;
        self.sequence += 1;
        self.last_epoch = epoch;
        note_commit(&mut self.committed, &entry);
        match timestamp_ns {
            None => {
                self.clock.next();
            }
            Some(given) => {
                let _ = self.clock.accept(given);
            }
        }
        Ok(position)
    }

    /// Appends the barrier of the current epoch and leaves the epoch. The bell is to be rung when no
    /// lock is held any more.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append), and [`WalError::InvalidArgument`] if there is no epoch behind.
    pub(crate) fn append_epoch_barrier(&mut self, log: &Arc<CoreLog>) -> Result<u64> {
        let epoch = self.epoch;
        let next_epoch = epoch_behind(log.core, epoch)?;
        let barrier = OperationRef::EpochBarrier { epoch };
        let position = self.append(log, epoch, None, barrier, Room::Reserve)?;
        self.leave_epoch(log, epoch, next_epoch);
        Ok(position)
    }

    /// Appends all of an atomic batch in one record, and returns the record's position. An empty
    /// one is not appended.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub(crate) fn append_batch(
        &mut self,
        log: &Arc<CoreLog>,
        operations: &WriteBatch,
    ) -> Result<u64> {
        if operations.is_empty() {
            log.queue.check()?;
            return Ok(self.position);
        }
        let record_bytes = operations.record_bytes();
        if !self.has_room(log, record_bytes) {
            self.make_room(log, record_bytes - RECORD_HEADER_BYTES, Room::Ordinary)?;
        }
        let Some(batch) = &mut self.batch else {
            return Err(bug("room was made, but no batch is open"));
        };
        let start = batch.buffer.len();
        let position = batch.end_position;
        let (mut sequence, mut clock) = (self.sequence, self.clock.clone());
        let mut has_commit = false;
        let core_id = log.core;
        let epoch = self.epoch;
        batch.buffer.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        for operation in operations.operations() {
            let timestamp_ns = clock.next();
            let entry = EntryRef { epoch, sequence, core_id, timestamp_ns, operation };
            let header = encode_batch_entry_header(entry.archived_bytes());
            batch.buffer.extend_from_slice(&header.unwrap_or_default());
            entry.archive_into(&mut batch.buffer);
            has_commit |= matches!(operation, OperationRef::Commit { .. });
            sequence += 1;
        }
        let salt = batch.segment.salt();
        let record = batch.buffer.get_mut(start..);
        let record = record.and_then(<[u8]>::split_first_chunk_mut::<RECORD_HEADER_BYTES>);
        let Some((header, payload)) = record else {
            return Err(bug("a record is shorter than its header"));
        };
        let Some(encoded) = encode_record_header(RecordKind::Batch, payload, salt, position) else {
            let payload_bytes = payload.len();
            batch.buffer.resize(start, 0);
            return Err(too_large(log, payload_bytes));
        };
        *header = encoded;
        #[cfg(wal_fault = "batch_split")]
        if let (Some(record), Some(last)) =
            (batch.buffer.get_mut(start..), operations.operations().last())
        {
            frame_last_alone(record, self::record_bytes(last), salt, position);
        }
        batch.end_position = position + record_bytes as u64;
        batch.end_epoch = epoch;
        self.position = batch.end_position;
        let first_sequence = std::mem::replace(&mut self.sequence, sequence);
        let mut clock_before = std::mem::replace(&mut self.clock, clock);
        self.last_epoch = epoch;
        if has_commit {
            for (sequence, operation) in (first_sequence..).zip(operations.operations()) {
                let timestamp_ns = clock_before.next();
                let entry = EntryRef { epoch, sequence, core_id, timestamp_ns, operation };
                note_commit(&mut self.committed, &entry);
            }
        }
        Ok(position)
    }

    /// The barrier of `epoch` was appended: what comes next is of another one. The bell is to be
    /// rung when no lock is held any more.
    pub(crate) fn leave_epoch(&mut self, log: &CoreLog, epoch: u64, next_epoch: u64) {
        self.raise_epoch(next_epoch);
        log.barriers.appended(epoch, log.goal(self), &log.queue);
        log.shared.highest_epoch.raise(next_epoch);
    }

    /// How many buffers must be had, at most, to append a record; 0 if it fits as things are.
    pub(crate) fn buffers_needed(&self, log: &CoreLog, record_bytes: usize) -> usize {
        if self.has_room(log, record_bytes) {
            return 0;
        }
        if self.batch.is_some() {
            return 1;
        }
        // The segment may be full: then its seal needs a batch of its own.
        let end = self.position + (MARK_RECORD_BYTES + record_bytes) as u64;
        let is_full = self.segment.as_deref().is_some_and(|segment| end > segment.room_end());
        if is_full { 2 } else { 1 }
    }

    /// Whether something was appended that no batch has been closed for.
    pub(crate) const fn is_open(&self) -> bool {
        self.batch.is_some()
    }

    /// Hands the open batch, if there is one, to the queue, because what was appended is to become
    /// durable.
    pub(crate) fn close_to_be_synced(&mut self, log: &CoreLog) {
        if self.batch.is_some() {
            self.syncs_in_segment += 1;
        }
        self.close_batch(log, false);
    }

    /// Closes the open batch because it is full, and has the background write it.
    fn close_full_batch(&mut self, log: &CoreLog) {
        self.close_batch(log, true);
        log.ring_if_needed();
    }

    fn close_batch(&mut self, log: &CoreLog, is_full: bool) {
        if let Some(mut batch) = self.batch.take() {
            batch.end_sequence = self.sequence;
            log.queue.push(batch, is_full);
        }
    }

    /// Cuts the log back to a boundary, and returns the segments that are not part of it any more.
    /// What was appended must all be durable, and the manifest must say so already; nothing may be
    /// appended before a segment is [begun](Self::begin_segment).
    pub(crate) fn cut(&mut self, position: u64, sequence: u64, committed: Committed) -> Vec<u64> {
        self.segment = None;
        self.position = position;
        self.sequence = sequence;
        self.committed = committed;
        self.spans.cut(position, sequence)
    }

    /// Goes on in a new segment.
    pub(crate) fn begin_segment(&mut self, log: &CoreLog, prepared: Prepared) -> Arc<Segment> {
        let last_timestamp_ns = self.clock.last().unwrap_or(i64::MIN);
        let start = Start {
            predecessor: self.spans().predecessor(self.position),
            base_position: self.position,
            base_sequence: self.sequence,
            last_epoch: self.last_epoch,
            last_timestamp_ns,
            manifest_number: log.shared.manifest_number(),
        };
        let segment = Arc::new(Segment::new(prepared, start));
        self.spans.begin(SegmentSpan {
            segment_id: segment.id(),
            salt: segment.salt(),
            size_bytes: segment.size_bytes(),
            max_record_bytes: segment.max_record_bytes(),
            segment_base_position: self.position,
            base_position: self.position,
            base_sequence: self.sequence,
            last_epoch: self.last_epoch,
            last_timestamp_ns,
            end_position: self.position,
            end_sequence: self.sequence,
        });
        log.observe_live();
        self.segment = Some(Arc::clone(&segment));
        self.syncs_in_segment = 0;
        segment
    }

    /// Before closing: if nothing was appended in this opening, and the log that was found was
    /// not known to end where it ends, starts a segment that says so.
    ///
    /// # Errors
    ///
    /// [`WalError::StorageFull`], [`WalError::Poisoned`].
    pub(crate) fn start_segment_to_vouch_in(&mut self, log: &Arc<CoreLog>) -> Result<()> {
        if self.segment.is_some() || self.spans.is_empty() || self.closed_when_found {
            return Ok(());
        }
        let prepared = log.take_segment(0, Filling::Synced)?;
        let segment = self.begin_segment(log, prepared);
        let mut device = log.device()?;
        device.start_segment(segment, self.last_epoch).map_err(|cause| log.poison(cause))
    }

    /// Whether a record fits behind the open batch as things are.
    #[inline(always)]
    fn has_room(&self, log: &CoreLog, record_bytes: usize) -> bool {
        let Some(batch) = &self.batch else {
            return false;
        };
        let bytes = record_bytes as u64;
        bytes <= u64::from(batch.segment.max_record_bytes())
            && batch.buffer.len() + record_bytes <= log.shared.options.batch_bytes
            && batch.end_position + bytes <= batch.segment.room_end()
            && !log.queue.is_poisoned()
    }

    /// Makes [`append`](Self::append)'s record fit: by a new batch, a new segment, a larger
    /// buffer. On an error, position and sequence are what they were.
    #[cold]
    fn make_room(&mut self, log: &Arc<CoreLog>, archive_bytes: usize, room: Room) -> Result<()> {
        log.queue.check()?;
        if archive_bytes as u64 > u64::from(log.shared.options.max_record_bytes) {
            return Err(too_large(log, archive_bytes));
        }
        let position = self.position;
        self.make_room_for(log, RECORD_HEADER_BYTES + archive_bytes, room)
            .inspect_err(|_| self.position = position)
    }

    fn make_room_for(&mut self, log: &Arc<CoreLog>, record_bytes: usize, room: Room) -> Result<()> {
        let batch_is_full = self.batch.as_ref().is_some_and(|batch| {
            batch.buffer.len() + record_bytes > log.shared.options.batch_bytes
        });
        let needs_mark = self.batch.is_none() || batch_is_full;
        let mark_bytes = if needs_mark { MARK_RECORD_BYTES } else { 0 };
        let end = self.position + (mark_bytes + record_bytes) as u64;
        let fits = |limit: fn(&Segment) -> u64| {
            self.segment.as_deref().is_some_and(|segment| end <= limit(segment))
        };
        if !fits(Segment::room_end) {
            let fits_reserve = room == Room::Reserve && fits(reserve_end);
            match self.next_segment(log, record_bytes) {
                Err(error) if error.is_storage_full() && fits_reserve => {}
                done => done?,
            }
        }
        if self.batch.is_some() && batch_is_full {
            self.close_full_batch(log);
        }
        if self.batch.is_none() {
            self.open_batch(log)?;
        }
        if let Some(batch) = &mut self.batch {
            // Only a record larger than a buffer makes one grow.
            batch.buffer.reserve(record_bytes + SEAL_RECORD_BYTES + wal_format::BLOCK_BYTES);
        }
        Ok(())
    }

    /// Takes the next prepared segment and seals the one before, in this order: a seal says that
    /// its successor has its durable name.
    fn next_segment(&mut self, log: &Arc<CoreLog>, record_bytes: usize) -> Result<()> {
        let prepared = log.take_segment(record_bytes as u64, self.filling())?;
        if self.segment.is_some() {
            if self.batch.is_none() {
                self.open_batch(log)?;
            }
            if let Some(batch) = &mut self.batch {
                batch.seal(self.sequence);
            }
            self.close_full_batch(log);
            log.observer.rotated(prepared.segment_id);
        }
        self.begin_segment(log, prepared);
        Ok(())
    }

    /// How the segment was filled.
    fn filling(&self) -> Filling {
        match &self.segment {
            None => Filling::Synced,
            Some(segment) => {
                let bytes = self.position.saturating_sub(segment.start().base_position);
                Filling::of(bytes, self.syncs_in_segment)
            }
        }
    }

    fn open_batch(&mut self, log: &Arc<CoreLog>) -> Result<()> {
        let Some(segment) = &self.segment else {
            return Err(bug("a batch was to be opened without a segment"));
        };
        let buffer = log.take_buffer()?;
        let batch =
            Batch::open(buffer, Arc::clone(segment), self.position, self.sequence, self.last_epoch);
        self.position = batch.end_position;
        self.clock.begin_batch(log.shared.storage.wall_clock_ns());
        self.batch = Some(batch);
        Ok(())
    }
}

#[inline(always)]
fn note_commit(committed: &mut Committed, entry: &EntryRef<'_>) {
    if let OperationRef::Commit { offsets, watermark } = entry.operation {
        let &EntryRef { epoch, timestamp_ns, core_id, sequence, .. } = entry;
        let order = ReplayOrder { epoch, timestamp_ns, core_id, sequence };
        committed.note(order, offsets.iter(), watermark);
    }
}

/// Breaks promise 2: the last entry of an atomic batch becomes a record of its own, and may be lost
/// alone. `None` if it is the only one.
#[cfg(wal_fault = "batch_split")]
fn frame_last_alone(record: &mut [u8], last_bytes: usize, salt: u64, position: u64) -> Option<()> {
    let at = record.len().checked_sub(last_bytes).filter(|at| *at > RECORD_HEADER_BYTES)?;
    let (others, last) = record.split_at_mut(at);
    let parts =
        [(RecordKind::Batch, others, position), (RecordKind::Entry, last, position + at as u64)];
    for (kind, part, position) in parts {
        let (header, payload) = part.split_first_chunk_mut::<RECORD_HEADER_BYTES>()?;
        *header = encode_record_header(kind, payload, salt, position)?;
    }
    Some(())
}

/// Bytes of the archive of an entry with this operation.
pub(crate) fn archived_bytes(operation: OperationRef<'_>) -> usize {
    EntryRef { epoch: 0, sequence: 0, core_id: 0, timestamp_ns: 0, operation }.archived_bytes()
}

/// Bytes of the record of an entry with this operation.
pub(crate) fn record_bytes(operation: OperationRef<'_>) -> usize {
    RECORD_HEADER_BYTES.saturating_add(archived_bytes(operation))
}

/// # Errors
///
/// [`WalError::InvalidArgument`] if there is none.
pub(crate) fn epoch_behind(core: u16, epoch: u64) -> Result<u64> {
    epoch.checked_add(1).ok_or_else(|| WalError::InvalidArgument {
        what: format!("core {core}: there is no epoch behind {epoch}"),
    })
}

/// Where records that use the reserve must end: a mark and a seal must still fit behind them.
fn reserve_end(segment: &Segment) -> u64 {
    segment.hard_end() - (MARK_RECORD_BYTES + SEAL_RECORD_BYTES) as u64
}

/// What no input can bring about.
#[cold]
fn bug(what: &str) -> WalError {
    debug_assert!(false, "{what}");
    WalError::InvalidArgument { what: format!("{what}: this is a bug in laminar-wal") }
}

fn too_large(log: &CoreLog, archive_bytes: usize) -> WalError {
    WalError::RecordTooLarge {
        core: log.core,
        payload_bytes: archive_bytes as u64,
        limit_bytes: log.shared.options.max_record_bytes.into(),
    }
}
