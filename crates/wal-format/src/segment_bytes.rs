//! Reading a whole segment from memory, for tools and tests; recovery streams instead.

use crate::block::BlockError;
use crate::identity::Identity;
use crate::record::{Record, RecordKind, Unreadable, decode_record};
use crate::start::Start;
use crate::vouch::{VouchSlot, newest_vouch};
use crate::{BLOCK_BYTES, SEGMENT_HEADER_BYTES};

const HEADER_BLOCKS: usize = 3;
const _: () = assert!((HEADER_BLOCKS * BLOCK_BYTES) as u64 == SEGMENT_HEADER_BYTES);

/// A segment file in memory.
#[derive(Debug, Clone)]
pub struct SegmentBytes<'a> {
    identity: Identity,
    start: Result<Start, BlockError>,
    newest_vouch: Option<VouchSlot>,
    records: &'a [u8],
}

impl<'a> SegmentBytes<'a> {
    /// Reads the three header blocks of `file`. What stands behind the size that the identity block
    /// says is no part of the segment.
    ///
    /// # Errors
    ///
    /// If the identity block is not valid. A missing start or vouch is no error.
    pub fn parse(file: &'a [u8]) -> Result<Self, BlockError> {
        let block = |index: usize| {
            file.get(index * BLOCK_BYTES..)
                .map_or(&[][..], |rest| rest.get(..BLOCK_BYTES).unwrap_or(rest))
        };
        let identity = Identity::decode(block(0))?;
        let start = Start::decode(block(1), identity.salt).and_then(|start| {
            // So that no position of the segment overflows.
            match start.base_position.checked_add(identity.size_bytes) {
                Some(_) => Ok(start),
                None => Err(BlockError::Field {
                    what: "start block",
                    field: "base position",
                    value: start.base_position,
                }),
            }
        });
        let newest_vouch = newest_vouch(block(2), identity.salt);
        let size = usize::try_from(identity.size_bytes).unwrap_or(usize::MAX).min(file.len());
        let records = file.get(HEADER_BLOCKS * BLOCK_BYTES..size).unwrap_or_default();
        Ok(Self { identity, start, newest_vouch, records })
    }

    /// What the segment is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where it begins; an error if it was prepared but never used, or is damaged.
    pub const fn start(&self) -> Result<&Start, &BlockError> {
        self.start.as_ref()
    }

    /// The newest valid vouch slot.
    #[must_use]
    pub const fn newest_vouch(&self) -> Option<&VouchSlot> {
        self.newest_vouch.as_ref()
    }

    /// The valid records from the first on, up to the first place where there is none, or the
    /// seal. None without a valid start.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        let base = self.start.as_ref().map_or(0, |start| start.base_position);
        Records {
            rest: if self.start.is_ok() { self.records } else { &[] },
            position: base,
            salt: self.identity.salt,
            max_record_bytes: self.identity.max_record_bytes,
            sealed: false,
        }
    }
}

/// The records of a segment in memory, by [`SegmentBytes::records`].
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    position: u64,
    salt: u64,
    max_record_bytes: u32,
    sealed: bool,
}

impl<'a> Records<'a> {
    /// Where the next record is read from; the end, once there is none.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The bytes from [`position`](Self::position) to the end of the segment.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Why there is no record at [`position`](Self::position). Behind a seal, that is the seal:
    /// what follows it is not looked at, and [`Unreadable::Unwritten`] is the answer.
    #[must_use]
    pub fn ended_by(&self) -> Unreadable {
        match self.decode() {
            Err(reason) => reason,
            Ok(_) => Unreadable::Unwritten,
        }
    }

    fn decode(&self) -> Result<Record<'a>, Unreadable> {
        decode_record(self.rest, self.salt, self.position, self.max_record_bytes)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.sealed {
            return None;
        }
        let record = self.decode().ok()?;
        self.rest = self.rest.get(record.record_bytes()..).unwrap_or_default();
        self.position = record.end_position();
        self.sealed = record.kind == RecordKind::Seal;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Features, LogId, SEGMENT_BYTES_MIN, encode_record_header};
    use alloc::vec::Vec;

    const SALT: u64 = 9;

    /// A segment of the smallest size with one record, at `base_position`.
    fn segment(base_position: u64) -> Vec<u8> {
        let identity = Identity {
            log_id: LogId([7; 16]),
            core: 3,
            segment_id: 1,
            size_bytes: SEGMENT_BYTES_MIN,
            payload_type: 1,
            payload_version: 1,
            max_record_bytes: 1 << 16,
            features: Features::NONE,
            salt: SALT,
            created_ns: 0,
        };
        let start = Start {
            predecessor: None,
            base_position,
            base_sequence: 0,
            last_epoch: 0,
            last_timestamp_ns: 0,
            manifest_number: 1,
        };
        let mut file = Vec::new();
        file.extend_from_slice(identity.encode().as_bytes());
        file.extend_from_slice(start.encode(SALT).as_bytes());
        file.extend_from_slice(&[0; BLOCK_BYTES]);
        file.extend_from_slice(&entry(base_position));
        file.resize(SEGMENT_BYTES_MIN.try_into().unwrap(), 0);
        file
    }

    fn entry(position: u64) -> Vec<u8> {
        let payload = b"payload ";
        let header = encode_record_header(RecordKind::Entry, payload, SALT, position).unwrap();
        [header.as_slice(), payload].concat()
    }

    #[test]
    fn positions_up_to_the_last_do_not_overflow() {
        let highest = (u64::MAX - SEGMENT_BYTES_MIN) / 8 * 8;
        let file = segment(highest);
        assert_eq!(SegmentBytes::parse(&file).unwrap().records().count(), 1);

        let file = segment(highest + 8);
        let segment = SegmentBytes::parse(&file).unwrap();
        let error = segment.start().unwrap_err();
        assert!(matches!(error, BlockError::Field { field: "base position", .. }), "{error}");
        assert_eq!(segment.records().count(), 0);
    }

    #[test]
    fn what_stands_behind_the_segment_is_not_read() {
        let mut file = segment(0);
        let first_bytes = entry(0).len() as u64;
        // Up to the segment's end, one record that fills it; behind that, one more.
        let payload_bytes = SEGMENT_BYTES_MIN - SEGMENT_HEADER_BYTES - first_bytes - 8;
        let payload = alloc::vec![1; payload_bytes.try_into().unwrap()];
        let header = encode_record_header(RecordKind::Skippable(8), &payload, SALT, first_bytes);
        file.truncate((SEGMENT_HEADER_BYTES + first_bytes).try_into().unwrap());
        file.extend_from_slice(&header.unwrap());
        file.extend_from_slice(&payload);
        assert_eq!(file.len() as u64, SEGMENT_BYTES_MIN);
        file.extend_from_slice(&entry(SEGMENT_BYTES_MIN - SEGMENT_HEADER_BYTES));

        let segment = SegmentBytes::parse(&file).unwrap();
        let mut records = segment.records();
        assert!(records.next().is_some_and(|record| record.kind == RecordKind::Entry));
        assert!(records.next().is_some_and(|record| record.kind == RecordKind::Skippable(8)));
        assert_eq!(records.next(), None);
    }
}
