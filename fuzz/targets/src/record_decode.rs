//! Any bytes as a record: found or refused, and what is found is all there.

use wal_entry::{EntryView, RecordBuffer};
use wal_format::{
    BATCH_ENTRY_HEADER_BYTES, BatchEntries, Mark, RECORD_HEADER_BYTES, RecordKind, Seal,
    Unreadable, decode_record, encode_record_header,
};

const MAX_RECORD_BYTES: u32 = 1 << 16;

/// The first 16 bytes are salt and position; the rest is read as records, one behind the other.
///
/// Because no fuzzer guesses a checksum, each place is read twice: as it is, and with the
/// checksum put right.
///
/// # Panics
///
/// If a property does not hold.
pub fn record_decode(input: &[u8]) {
    let Some((salt, rest)) = input.split_first_chunk::<8>() else { return };
    let Some((position, rest)) = rest.split_first_chunk::<8>() else { return };
    let salt = u64::from_le_bytes(*salt);
    let position = u64::from_le_bytes(*position) & (u64::MAX >> 8) & !7;
    check_one(rest, salt, position);

    let mut repaired = rest.to_vec();
    let mut at = 0;
    while let Some(length) = repair_checksum(&mut repaired[at..], salt, position + at as u64) {
        at += length;
    }
    let mut consumed = 0;
    while let Some(length) = check_one(&repaired[consumed..], salt, position + consumed as u64) {
        consumed += length;
    }
    assert_eq!(consumed, at, "every record with a right checksum is found, and no other");
}

/// Reads one record and checks it; gives its length, header included.
fn check_one(bytes: &[u8], salt: u64, position: u64) -> Option<usize> {
    let record = match decode_record(bytes, salt, position, MAX_RECORD_BYTES) {
        Ok(record) => record,
        Err(Unreadable::Incomplete { needed, available }) => {
            assert_eq!(available, bytes.len());
            assert!(needed > available);
            assert!(needed <= RECORD_HEADER_BYTES + MAX_RECORD_BYTES as usize);
            return None;
        }
        Err(_) => return None,
    };
    assert!(record.record_bytes() <= bytes.len(), "a record is no longer than its bytes");
    let again = encode_record_header(record.kind, record.payload, salt, position);
    assert_eq!(again.as_ref().map(<[u8; 8]>::as_slice), bytes.get(..8), "one encoding each");
    check_payload(record.kind, record.payload);
    Some(record.record_bytes())
}

fn check_payload(kind: RecordKind, payload: &[u8]) {
    match kind {
        RecordKind::Entry => check_archive(payload),
        RecordKind::Batch => {
            let mut used = 0;
            let mut whole = true;
            for entry in BatchEntries::new(payload) {
                match entry {
                    Some(archive) => used += BATCH_ENTRY_HEADER_BYTES + archive.len(),
                    None => whole = false,
                }
            }
            assert_eq!(whole, used == payload.len() && used != 0, "used up, or not whole");
        }
        RecordKind::Mark => assert_eq!(Mark::decode(payload).is_some(), payload.len() == 16),
        RecordKind::Seal => assert_eq!(Seal::decode(payload).is_some(), payload.len() == 8),
        RecordKind::Unknown(_) | RecordKind::Skippable(_) => {}
    }
}

/// An archive that is accepted is the one that its entry has.
fn check_archive(payload: &[u8]) {
    let mut aligned = RecordBuffer::new();
    aligned.extend_from_slice(payload);
    if let Ok(view) = EntryView::access(&aligned) {
        let mut again = RecordBuffer::new();
        view.to_entry().borrowed().archive_into(&mut again);
        assert_eq!(again.as_slice(), payload, "an entry has one archive");
    }
}

/// Puts the checksum of the record at the front right, if its length fits; gives its length.
pub(crate) fn repair_checksum(bytes: &mut [u8], salt: u64, position: u64) -> Option<usize> {
    let first_word = u32::from_le_bytes(*bytes.first_chunk()?);
    let payload_bytes = first_word & ((1 << 28) - 1);
    let kind = match first_word >> 28 {
        1 => RecordKind::Entry,
        2 => RecordKind::Batch,
        3 => RecordKind::Mark,
        4 => RecordKind::Seal,
        kind @ 5..=7 => RecordKind::Unknown(u8::try_from(kind).ok()?),
        0 => return None,
        kind => RecordKind::Skippable(u8::try_from(kind).ok()?),
    };
    if payload_bytes > MAX_RECORD_BYTES {
        return None;
    }
    let length = RECORD_HEADER_BYTES + payload_bytes as usize;
    let payload = bytes.get(RECORD_HEADER_BYTES..length)?;
    let header = encode_record_header(kind, payload, salt, position)?;
    bytes.first_chunk_mut::<RECORD_HEADER_BYTES>()?.copy_from_slice(&header);
    Some(length)
}
