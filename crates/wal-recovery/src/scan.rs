//! The forward scan of one segment: record by record, each checked against what the log expects.

use wal_entry::{EntryView, OperationView};
use wal_format::{
    BATCH_ENTRY_HEADER_BYTES, BatchEntries, Checkpoint, CheckpointCore, Mark, RECORD_HEADER_BYTES,
    RecordKind, SEGMENT_HEADER_BYTES, Seal, Start, Unreadable, decode_record,
};
use wal_storage::{Access, Corruption, ProvenBy, Result, Storage, WalError};

use crate::core::SegmentSpan;
use crate::cursor::{Buffers, Cursor, Located, Payload};
use crate::directory::segment_name;
use crate::headers::SegmentHeader;

/// How far a core's log has been read, and what the next entry must not fall below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) position: u64,
    pub(crate) next_sequence: u64,
    pub(crate) last_epoch: u64,
    pub(crate) last_timestamp_ns: i64,
    /// The epoch of the last barrier.
    pub(crate) barrier_epoch: Option<u64>,
    /// How many commits there were.
    pub(crate) commits: u64,
}

impl Progress {
    /// Before the first entry of an empty log.
    pub(crate) const EMPTY: Self = Self {
        position: 0,
        next_sequence: 0,
        last_epoch: 0,
        last_timestamp_ns: i64::MIN,
        barrier_epoch: None,
        commits: 0,
    };

    /// What a segment's start says of the log before it.
    pub(crate) const fn before(start: &Start) -> Self {
        Self {
            position: start.base_position,
            next_sequence: start.base_sequence,
            last_epoch: start.last_epoch,
            last_timestamp_ns: start.last_timestamp_ns,
            ..Self::EMPTY
        }
    }

    /// How far a core's log had come behind the barrier of a checkpoint.
    pub(crate) const fn at_checkpoint(checkpoint: &Checkpoint, place: &CheckpointCore) -> Self {
        Self {
            position: place.position,
            next_sequence: place.sequence,
            last_epoch: checkpoint.epoch,
            last_timestamp_ns: place.timestamp_ns,
            ..Self::EMPTY
        }
    }

    /// The epoch that the next entry may have: not that of a barrier, which is its epoch's last.
    pub(crate) fn next_epoch(&self) -> u64 {
        let left = self.barrier_epoch == Some(self.last_epoch);
        self.last_epoch.saturating_add(u64::from(left))
    }

    /// Epoch and timestamp never fall: raises both to what is known from elsewhere.
    pub(crate) fn raise(&mut self, epoch: u64, timestamp_ns: i64) {
        self.last_epoch = self.last_epoch.max(epoch);
        self.last_timestamp_ns = self.last_timestamp_ns.max(timestamp_ns);
    }
}

/// What a scan must know of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentPlace {
    pub(crate) core: u16,
    pub(crate) segment_id: u64,
    pub(crate) salt: u64,
    pub(crate) size_bytes: u64,
    pub(crate) max_record_bytes: u32,
    pub(crate) base_position: u64,
}

impl SegmentPlace {
    /// The place of a segment whose records begin at `base_position`, as its start says or would
    /// have said.
    pub(crate) const fn new(header: &SegmentHeader, base_position: u64) -> Self {
        Self {
            core: header.core,
            segment_id: header.segment_id,
            salt: header.identity.salt,
            size_bytes: header.identity.size_bytes,
            max_record_bytes: header.identity.max_record_bytes,
            base_position,
        }
    }

    pub(crate) const fn of_span(core: u16, span: &SegmentSpan) -> Self {
        Self {
            core,
            segment_id: span.segment_id,
            salt: span.salt,
            size_bytes: span.size_bytes,
            max_record_bytes: span.max_record_bytes,
            base_position: span.segment_base_position,
        }
    }

    /// Where a position stands in the file.
    pub(crate) const fn offset_of(&self, position: u64) -> u64 {
        position.saturating_sub(self.base_position).saturating_add(SEGMENT_HEADER_BYTES)
    }

    /// The position of what stands at an offset in the file, behind the header.
    pub(crate) const fn position_of(&self, offset: u64) -> u64 {
        offset.saturating_sub(SEGMENT_HEADER_BYTES).saturating_add(self.base_position)
    }

    pub(crate) fn open(&self, storage: &dyn Storage, buffers: Buffers) -> Result<Cursor> {
        let name = segment_name(self.core, self.segment_id);
        let file = storage.open(&name, Access::Read)?;
        Ok(Cursor::new(file, self.size_bytes, buffers))
    }

    /// Damage at a position of this segment.
    pub(crate) fn damage(
        &self,
        storage: &dyn Storage,
        position: u64,
        problem: &Problem,
        proven_by: Option<ProvenBy>,
    ) -> WalError {
        let first = self.offset_of(position);
        Corruption {
            path: storage.path().join(segment_name(self.core, self.segment_id)),
            core: Some(self.core),
            position: Some(position),
            file_range: Some((first, first.saturating_add(problem.bytes))),
            what: problem.what.clone(),
            proven_by,
        }
        .into()
    }
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// In words, with both sides of a mismatch.
    pub(crate) what: String,
    /// How many bytes are concerned, as far as that is known.
    pub(crate) bytes: u64,
}

/// The next thing in a segment.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// An entry, checked, and where its archive is.
    Entry(EntryView<'a>, Payload),
    /// An atomic batch, checked as a whole.
    Batch { payload: Payload, entry_count: u64 },
    /// A mark; its durable position is not above its own.
    Mark(Mark),
    /// A record that this version may skip.
    Skipped,
    /// No further record belongs to the log; why.
    Stop(Stop),
}

/// Why a scan ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The scan came to where it was told to end.
    Limit,
    /// A seal: the log goes on in the next segment.
    Seal,
    /// No valid record with the expected sequence begins here.
    Unreadable(Problem),
    /// The checksum is right, and this version does not understand what it covers.
    NotUnderstood(Problem),
    /// An entry with the right sequence, whose epoch or timestamp lies below the one before.
    Falls(Problem),
}

/// A scan of one segment, somewhere on its way.
#[derive(Debug)]
pub(crate) struct SegmentScan {
    place: SegmentPlace,
    cursor: Cursor,
    progress: Progress,
    /// The scan ends here, and no record may reach beyond.
    limit_position: u64,
}

impl SegmentScan {
    /// A scan that begins where the log has come so far: with the first record of a segment, if the
    /// position of `progress` is the segment's base, or at a later one's beginning.
    pub(crate) const fn new(
        place: SegmentPlace,
        cursor: Cursor,
        progress: Progress,
        limit_position: u64,
    ) -> Self {
        Self { place, cursor, progress, limit_position }
    }

    pub(crate) const fn progress(&self) -> Progress {
        self.progress
    }

    /// Has the scan go on from where it ended at its limit, with what is known of the log there.
    pub(crate) const fn go_on_to(&mut self, limit_position: u64, progress: Progress) {
        self.limit_position = limit_position;
        self.progress = progress;
    }

    pub(crate) const fn place(&self) -> &SegmentPlace {
        &self.place
    }

    pub(crate) const fn cursor_mut(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    pub(crate) fn into_buffers(self) -> Buffers {
        self.cursor.into_buffers()
    }

    /// The bytes of a payload that [`next`](Self::next) just gave.
    #[inline]
    pub(crate) fn bytes(&self, payload: &Payload) -> &[u8] {
        self.cursor.bytes(payload)
    }

    /// Goes past the entries in records of their own that the buffer holds from here on, and gives
    /// each to `visit`, as long as `wants` takes the next one's archive, which is not checked yet.
    /// What comes next then, [`next`](Self::next) tells.
    ///
    /// This is where a recovery spends its time.
    #[inline]
    pub(crate) fn run(
        &mut self,
        mut wants: impl FnMut(&[u8]) -> bool,
        mut visit: impl FnMut(Payload, EntryView<'_>),
    ) {
        let Self { place, cursor, progress, limit_position } = self;
        let (mut at, mut bytes) = cursor.at_hand(place.offset_of(progress.position));
        while let Ok(record) =
            decode_record(bytes, place.salt, progress.position, place.max_record_bytes)
        {
            let record_bytes = record.record_bytes();
            let end_position = record.end_position();
            let is_next = record.kind == RecordKind::Entry
                && end_position <= *limit_position
                && wants(record.payload);
            if !is_next {
                return;
            }
            let Ok(view) = check_entry(record.payload, place.core, progress) else {
                return;
            };
            progress.position = end_position;
            visit(Payload::Window(at + RECORD_HEADER_BYTES..at + record_bytes), view);
            at += record_bytes;
            bytes = bytes.get(record_bytes..).unwrap_or_default();
        }
    }

    /// Whether the next record can be judged by what the buffer holds: if not,
    /// [`next`](Self::next) will read, and what the buffer holds is lost.
    pub(crate) fn has_next_at_hand(&self) -> bool {
        let (place, position) = (&self.place, self.progress.position);
        let (_, bytes) = self.cursor.at_hand(place.offset_of(position));
        let record = decode_record(bytes, place.salt, position, place.max_record_bytes);
        position >= self.limit_position || !matches!(record, Err(Unreadable::Incomplete { .. }))
    }

    /// Reads the next record and goes past it, unless it stops the scan.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Next<'_>> {
        match self.locate()? {
            Ok(located) => Ok(self.accept(located)),
            Err(stop) => Ok(Next::Stop(stop)),
        }
    }

    /// Finds the next record, whose checksum fits, and stays before it: the first half of
    /// [`next`](Self::next), for those who want to look at it before it counts.
    #[inline]
    pub(crate) fn locate(&mut self) -> Result<Result<Located, Stop>> {
        let place = &self.place;
        let position = self.progress.position;
        if position >= self.limit_position {
            return Ok(Err(Stop::Limit));
        }
        let located = self.cursor.locate(
            place.offset_of(position),
            place.salt,
            position,
            place.max_record_bytes,
        )?;
        Ok(located.map_err(|unreadable| Stop::Unreadable(unreadable.into())))
    }

    /// Checks the record that [`locate`](Self::locate) just found against what the log expects,
    /// and goes past it: the second half of [`next`](Self::next).
    #[inline]
    pub(crate) fn accept(&mut self, located: Located) -> Next<'_> {
        let place = &self.place;
        let position = self.progress.position;
        let end_position = position.saturating_add(located.record_bytes);
        let bytes = self.cursor.bytes(&located.payload);
        let problem = |what| Problem { what, bytes: located.record_bytes };
        let next = match located.kind {
            RecordKind::Entry => match check_entry(bytes, place.core, &mut self.progress) {
                Ok(view) => Next::Entry(view, located.payload),
                Err(fault) => return Next::Stop(fault.stop(located.record_bytes)),
            },
            RecordKind::Batch => {
                let mut progress = self.progress;
                match check_batch(bytes, place.core, &mut progress) {
                    Ok(entry_count) => {
                        self.progress = progress;
                        Next::Batch { payload: located.payload, entry_count }
                    }
                    Err(fault) => return Next::Stop(fault.stop(located.record_bytes)),
                }
            }
            RecordKind::Mark => match Mark::decode(bytes) {
                Some(mark) if mark.durable_position <= position => Next::Mark(mark),
                Some(mark) => {
                    let what = format!(
                        "mark at {position} says that the log was durable up to {}",
                        mark.durable_position
                    );
                    return Next::Stop(Stop::NotUnderstood(problem(what)));
                }
                None => {
                    let what = format!("mark with a payload of {} bytes", bytes.len());
                    return Next::Stop(Stop::NotUnderstood(problem(what)));
                }
            },
            RecordKind::Seal => {
                let next_sequence = self.progress.next_sequence;
                return Next::Stop(match Seal::decode(bytes) {
                    Some(seal) if seal.next_sequence == next_sequence => Stop::Seal,
                    Some(seal) => Stop::Unreadable(problem(format!(
                        "seal before sequence {}, expected {next_sequence}",
                        seal.next_sequence
                    ))),
                    None => Stop::NotUnderstood(problem(format!(
                        "seal with a payload of {} bytes",
                        bytes.len()
                    ))),
                });
            }
            RecordKind::Skippable(_) => Next::Skipped,
            RecordKind::Unknown(kind) => {
                let what = format!("record of kind {kind}, which this version does not know");
                return Next::Stop(Stop::NotUnderstood(problem(what)));
            }
        };
        if end_position > self.limit_position {
            let what = format!(
                "record of {} bytes reaches beyond position {}, where the log was continued",
                located.record_bytes, self.limit_position
            );
            return Next::Stop(Stop::Unreadable(problem(what)));
        }
        self.progress.position = end_position;
        next
    }
}

impl From<Unreadable> for Problem {
    fn from(unreadable: Unreadable) -> Self {
        let bytes = match unreadable {
            Unreadable::Checksum { payload_bytes, .. } => {
                RECORD_HEADER_BYTES as u64 + u64::from(payload_bytes)
            }
            Unreadable::Incomplete { available, .. } => available as u64,
            _ => RECORD_HEADER_BYTES as u64,
        };
        Self { what: unreadable.to_string(), bytes }
    }
}

/// What is wrong with an entry whose checksum is right.
enum EntryFault {
    /// Bytes of another life or place: as good as no record.
    Elsewhere(String),
    NotUnderstood(String),
    Falls(String),
}

impl EntryFault {
    #[cold]
    fn stop(self, bytes: u64) -> Stop {
        match self {
            Self::Elsewhere(what) => Stop::Unreadable(Problem { what, bytes }),
            Self::NotUnderstood(what) => Stop::NotUnderstood(Problem { what, bytes }),
            Self::Falls(what) => Stop::Falls(Problem { what, bytes }),
        }
    }
}

/// Checks one entry against what the log expects, and counts it.
#[inline]
fn check_entry<'a>(
    archive: &'a [u8],
    core: u16,
    progress: &mut Progress,
) -> Result<EntryView<'a>, EntryFault> {
    let view = EntryView::access(archive)
        .map_err(|invalid| EntryFault::NotUnderstood(invalid.to_string()))?;
    let fits = view.sequence() == progress.next_sequence
        && view.core_id() == core
        && view.epoch() >= progress.last_epoch
        && view.timestamp_ns() >= progress.last_timestamp_ns;
    if !fits {
        return Err(fault_of(&view, core, progress));
    }
    progress.next_sequence = progress.next_sequence.saturating_add(1);
    progress.last_epoch = view.epoch();
    progress.last_timestamp_ns = view.timestamp_ns();
    match view.operation() {
        OperationView::EpochBarrier { .. } => progress.barrier_epoch = Some(view.epoch()),
        OperationView::Commit { .. } => progress.commits += 1,
        _ => {}
    }
    Ok(view)
}

#[cold]
fn fault_of(view: &EntryView<'_>, core: u16, progress: &Progress) -> EntryFault {
    if view.core_id() != core {
        EntryFault::Elsewhere(format!("entry of core {}", view.core_id()))
    } else if view.sequence() != progress.next_sequence {
        EntryFault::Elsewhere(format!(
            "entry with sequence {}, expected {}",
            view.sequence(),
            progress.next_sequence
        ))
    } else if view.epoch() < progress.last_epoch {
        EntryFault::Falls(format!(
            "entry of epoch {} behind one of epoch {}",
            view.epoch(),
            progress.last_epoch
        ))
    } else {
        EntryFault::Falls(format!(
            "entry with timestamp {} behind one with {}",
            view.timestamp_ns(),
            progress.last_timestamp_ns
        ))
    }
}

/// Checks every entry of a batch, and counts them.
fn check_batch(payload: &[u8], core: u16, progress: &mut Progress) -> Result<u64, EntryFault> {
    let mut entry_count = 0;
    for archive in BatchEntries::new(payload) {
        let Some(archive) = archive else {
            let what = format!("atomic batch that breaks off behind {entry_count} entries");
            return Err(EntryFault::NotUnderstood(what));
        };
        check_entry(archive, core, progress)?;
        entry_count += 1;
    }
    Ok(entry_count)
}

/// The place of a batch's entry whose header begins `at` bytes into the payload, and where the
/// next one's header is. `None` behind the last.
pub(crate) fn batch_entry(payload: &[u8], at: usize) -> Option<(usize, usize)> {
    let rest = payload.get(at..)?;
    let header = rest.first_chunk::<BATCH_ENTRY_HEADER_BYTES>()?;
    let archive_bytes = usize::try_from(u64::from_le_bytes(*header)).ok()?;
    let archive_at = at.checked_add(BATCH_ENTRY_HEADER_BYTES)?;
    let end = archive_at.checked_add(archive_bytes)?;
    (end <= payload.len()).then_some((archive_at, end))
}
