//! Finding the place behind damage where a segment's records can be read again.

use wal_entry::{EntryView, ReplayOrder};
use wal_format::{
    BATCH_ENTRY_HEADER_BYTES, BatchEntries, RECORD_ALIGNMENT_BYTES, RECORD_HEADER_BYTES,
    RecordHeader, RecordKind,
};
use wal_storage::{Access, Result, Storage};

use crate::cursor::{Buffers, Cursor, Located};
use crate::directory::segment_name;
use crate::scan::{Progress, SegmentPlace};

/// No entry takes less.
const ARCHIVE_BYTES_MIN: u64 = 64;

/// Of an archive's end, more than its root.
const ARCHIVE_TAIL_BYTES: usize = 128;

/// The first position behind that of `progress`, and below `limit_position`, where a record with an
/// entry begins that can stand behind `progress`.
///
/// Records of an earlier life, or bytes that look like a record, have another checksum.
pub(crate) fn next_entry(
    storage: &dyn Storage,
    place: &SegmentPlace,
    progress: &Progress,
    limit_position: u64,
) -> Result<Option<u64>> {
    let mut places = place.open(storage, Buffers::default())?;
    let mut records = place.open(storage, Buffers::default())?;
    let file = storage.open(&segment_name(place.core, place.segment_id), Access::Read)?;
    let end_position = place.position_of(places.end_offset()).min(limit_position);
    let mut position = progress.position.saturating_add(RECORD_ALIGNMENT_BYTES);
    while position < end_position {
        let offset = place.offset_of(position);
        let window = places.window(offset, RECORD_HEADER_BYTES)?;
        let (headers, _) = window.as_chunks::<RECORD_HEADER_BYTES>();
        if headers.is_empty() {
            return Ok(None);
        }
        for header in headers {
            let at = place.offset_of(position);
            let room = end_position.saturating_sub(position);
            if let Some(record_bytes) = framed_bytes(*header, place, room) {
                // Most of what frames a record by chance does not end like one: no checksum is
                // needed to see that.
                let mut tail = [0; ARCHIVE_TAIL_BYTES];
                let tail_bytes = ARCHIVE_TAIL_BYTES.min(record_bytes - RECORD_HEADER_BYTES);
                let tail = tail.get_mut(..tail_bytes).unwrap_or_default();
                let tail_at = at.saturating_add((record_bytes - tail_bytes) as u64);
                let _ = file.read_at(tail, tail_at)?;
                let can_follow = |order| can_follow(order, place.core, progress, position);
                if can_follow(ReplayOrder::peek(tail))
                    && can_follow(first_order(&mut records, place, position)?)
                {
                    return Ok(Some(position));
                }
            }
            position = position.saturating_add(RECORD_ALIGNMENT_BYTES);
            if position >= end_position {
                break;
            }
        }
    }
    Ok(None)
}

/// The place in replay order of the first entry of the valid record at `position`; `None` if there
/// is none, or it holds no entry.
pub(crate) fn first_order(
    cursor: &mut Cursor,
    place: &SegmentPlace,
    position: u64,
) -> Result<Option<ReplayOrder>> {
    let offset = place.offset_of(position);
    let located = cursor.locate(offset, place.salt, position, place.max_record_bytes)?;
    let Ok(Located { kind, payload, .. }) = located else {
        return Ok(None);
    };
    let payload = cursor.bytes(&payload);
    let archive = match kind {
        RecordKind::Entry => Some(payload),
        RecordKind::Batch => BatchEntries::new(payload).next().flatten(),
        _ => None,
    };
    Ok(archive.and_then(|archive| EntryView::access(archive).ok()).map(|view| view.replay_order()))
}

/// The length of the record that begins with these bytes, if an entry could be in it.
fn framed_bytes(
    header: [u8; RECORD_HEADER_BYTES],
    place: &SegmentPlace,
    room: u64,
) -> Option<usize> {
    let header = RecordHeader::decode(header, place.max_record_bytes).ok()?;
    let record_bytes = RECORD_HEADER_BYTES.saturating_add(header.payload_bytes as usize);
    let least_bytes = RECORD_HEADER_BYTES + BATCH_ENTRY_HEADER_BYTES;
    let is_framed = matches!(header.kind, RecordKind::Entry | RecordKind::Batch)
        && record_bytes > least_bytes
        && record_bytes as u64 <= room;
    is_framed.then_some(record_bytes)
}

/// Whether an entry in a record at `position` can be one that was logged behind what `progress`
/// knows: there must have been room for those before it.
fn can_follow(order: Option<ReplayOrder>, core: u16, progress: &Progress, position: u64) -> bool {
    let lost_at_most = position.saturating_sub(progress.position) / ARCHIVE_BYTES_MIN;
    order.is_some_and(|order| {
        order.core_id == core
            && order.sequence >= progress.next_sequence
            && order.sequence - progress.next_sequence <= lost_at_most
            && order.epoch >= progress.last_epoch
            && order.timestamp_ns >= progress.last_timestamp_ns
    })
}
