//! Records: the frame around every payload, encoded and decoded side by side.
//!
//! ```text
//! 0                4            8
//! +----------------+------------+--------------------------------+
//! | kind and length| crc32c     | payload, a multiple of 8 bytes |
//! +----------------+------------+--------------------------------+
//!   high 4 / low 28 bits
//! ```
//!
//! A record is valid if and only if its kind is not 0, its length is a multiple of 8 and not
//! above the log's limit, and its checksum is that of its first word and payload, seeded with
//! the segment's salt and the record's position.

use thiserror::Error;

use crate::checksum::{crc32c_append, place_seed};

/// The words before a record's payload.
pub const RECORD_HEADER_BYTES: usize = 8;

/// Records begin and end at multiples of this.
pub const RECORD_ALIGNMENT_BYTES: u64 = 8;

/// The largest payload that any log may allow: 28 bits of length, in steps of 8.
pub const PAYLOAD_BYTES_CEILING: u32 = (1 << LENGTH_BITS) - 8;

/// A whole mark, header included.
pub const MARK_RECORD_BYTES: usize = RECORD_HEADER_BYTES + Mark::PAYLOAD_BYTES;

/// A whole seal, header included. It takes no position.
pub const SEAL_RECORD_BYTES: usize = RECORD_HEADER_BYTES + Seal::PAYLOAD_BYTES;

/// The first word of every mark: where else it stands, a mark may begin.
pub const MARK_FIRST_WORD: u32 = first_word(RecordKind::Mark, 16);
const _: () = assert!(Mark::PAYLOAD_BYTES == 16);

/// The words before each entry of an atomic batch.
pub const BATCH_ENTRY_HEADER_BYTES: usize = 8;

const LENGTH_BITS: u32 = 28;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
const KIND_ENTRY: u8 = 1;
const KIND_BATCH: u8 = 2;
const KIND_MARK: u8 = 3;
const KIND_SEAL: u8 = 4;

/// What a record's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// One entry's archive.
    Entry,
    /// Several entries, there whole or not at all; see [`BatchEntries`].
    Batch,
    /// How far the log was durable; see [`Mark`].
    Mark,
    /// The end of a segment; see [`Seal`].
    Seal,
    /// Kind 5, 6 or 7: means something that this version does not know, and must not be skipped.
    Unknown(u8),
    /// Kind 8 to 15: means something that this version does not know, and may be skipped.
    Skippable(u8),
}

impl RecordKind {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => return None,
            KIND_ENTRY => Self::Entry,
            KIND_BATCH => Self::Batch,
            KIND_MARK => Self::Mark,
            KIND_SEAL => Self::Seal,
            5..=7 => Self::Unknown(bits),
            _ => Self::Skippable(bits),
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Entry => KIND_ENTRY,
            Self::Batch => KIND_BATCH,
            Self::Mark => KIND_MARK,
            Self::Seal => KIND_SEAL,
            Self::Unknown(kind) | Self::Skippable(kind) => kind & 15,
        }
    }
}

/// A valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins in the core's log.
    pub position: u64,
    /// What its payload is.
    pub kind: RecordKind,
    /// The payload, a multiple of 8 bytes.
    pub payload: &'a [u8],
}

impl Record<'_> {
    /// Header and payload: the next record begins this much later.
    #[must_use]
    pub const fn record_bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }

    /// The position behind the record. A seal takes no position.
    #[must_use]
    pub const fn end_position(&self) -> u64 {
        match self.kind {
            RecordKind::Seal => self.position,
            _ => self.position + self.record_bytes() as u64,
        }
    }
}

/// Why no valid record begins at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Zeroes: nothing was ever written here.
    #[error("unwritten space")]
    Unwritten,
    /// The bytes end before the record does.
    #[error("needs {needed} bytes, there are {available}")]
    Incomplete {
        /// Header and payload, or the header alone if even that is cut.
        needed: usize,
        /// How many bytes there are.
        available: usize,
    },
    /// Kind 0 with a length: no writer writes that.
    #[error("record of kind 0 and {payload_bytes} bytes")]
    NoKind {
        /// The length in the header.
        payload_bytes: u32,
    },
    /// The length is not a multiple of 8.
    #[error("record of {payload_bytes} bytes, not a multiple of 8")]
    UnevenLength {
        /// The length in the header.
        payload_bytes: u32,
    },
    /// The length is over the log's limit, so it is not trusted.
    #[error("record of {payload_bytes} bytes, over this log's limit of {limit_bytes}")]
    TooLong {
        /// The length in the header.
        payload_bytes: u32,
        /// The limit.
        limit_bytes: u32,
    },
    /// The checksum does not fit first word, payload, position and salt.
    #[error(
        "record of {payload_bytes} bytes: checksum is {computed:#010x}, header says {stored:#010x}"
    )]
    Checksum {
        /// The length in the header, not to be trusted.
        payload_bytes: u32,
        /// The sum of the bytes.
        computed: u32,
        /// The sum in the header.
        stored: u32,
    },
}

/// The two words before a payload; their length is within the log's limit, their checksum not
/// yet compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the payload is.
    pub kind: RecordKind,
    /// The payload's length.
    pub payload_bytes: u32,
    /// The checksum that the payload should have.
    pub stored_checksum: u32,
}

impl RecordHeader {
    /// Reads a header.
    ///
    /// # Errors
    ///
    /// Every reason but [`Unreadable::Checksum`] and [`Unreadable::Incomplete`].
    #[inline]
    pub fn decode(
        header: [u8; RECORD_HEADER_BYTES],
        max_record_bytes: u32,
    ) -> Result<Self, Unreadable> {
        let [a, b, c, d, e, f, g, h] = header;
        let first_word = u32::from_le_bytes([a, b, c, d]);
        if first_word == 0 {
            return Err(Unreadable::Unwritten);
        }
        let payload_bytes = first_word & LENGTH_MASK;
        let Some(kind) = RecordKind::from_bits(d >> 4) else {
            return Err(Unreadable::NoKind { payload_bytes });
        };
        if !payload_bytes.is_multiple_of(8) {
            return Err(Unreadable::UnevenLength { payload_bytes });
        }
        if payload_bytes > max_record_bytes {
            return Err(Unreadable::TooLong { payload_bytes, limit_bytes: max_record_bytes });
        }
        let stored_checksum = u32::from_le_bytes([e, f, g, h]);
        Ok(Self { kind, payload_bytes, stored_checksum })
    }

    /// What [`crc32c_append`] must start from, so that going over the payload, in pieces of any
    /// size, gives the record's checksum.
    #[must_use]
    #[inline]
    pub const fn checksum_seed(&self, salt: u64, position: u64) -> u32 {
        place_seed(salt, position) ^ first_word(self.kind, self.payload_bytes)
    }
}

/// The header that makes `payload` a record at `position` of a segment with this salt; `None` if
/// the payload's length is not a multiple of 8 or is over [`PAYLOAD_BYTES_CEILING`].
#[must_use]
#[inline]
pub fn encode_record_header(
    kind: RecordKind,
    payload: &[u8],
    salt: u64,
    position: u64,
) -> Option<[u8; RECORD_HEADER_BYTES]> {
    let payload_bytes = framed_bytes(payload.len())?;
    let first_word = first_word(kind, payload_bytes);
    let checksum = crc32c_append(place_seed(salt, position) ^ first_word, payload);
    Some((u64::from(checksum) << 32 | u64::from(first_word)).to_le_bytes())
}

/// The record at the front of `bytes`, which stand at `position` of a segment with this salt.
///
/// # Errors
///
/// Why there is none. [`Unreadable::Incomplete`] asks for more bytes than `bytes` has; its
/// `needed` is bounded by `max_record_bytes`.
#[inline]
pub fn decode_record(
    bytes: &[u8],
    salt: u64,
    position: u64,
    max_record_bytes: u32,
) -> Result<Record<'_>, Unreadable> {
    let Some((header, rest)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        return Err(Unreadable::Incomplete { needed: RECORD_HEADER_BYTES, available: bytes.len() });
    };
    if cfg!(wal_fault = "zero_record_accepted") && *header == [0; RECORD_HEADER_BYTES] {
        // Breaks promise 3: space that was never written is taken for a record without an entry.
        return Ok(Record { position, kind: RecordKind::Entry, payload: &[] });
    }
    let header = RecordHeader::decode(*header, max_record_bytes)?;
    let payload_bytes = header.payload_bytes as usize;
    let Some(payload) = rest.get(..payload_bytes) else {
        return Err(Unreadable::Incomplete {
            needed: RECORD_HEADER_BYTES + payload_bytes,
            available: bytes.len(),
        });
    };
    let computed = crc32c_append(header.checksum_seed(salt, position), payload);
    if computed != header.stored_checksum {
        return Err(Unreadable::Checksum {
            payload_bytes: header.payload_bytes,
            computed,
            stored: header.stored_checksum,
        });
    }
    Ok(Record { position, kind: header.kind, payload })
}

/// How far a core's log was durable just before a batch was written; the first record of every
/// batch but the log's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Everything of the core's log below this position was durable.
    pub durable_position: u64,
    /// The epoch of the last entry below it.
    pub epoch: u64,
}

impl Mark {
    const PAYLOAD_BYTES: usize = 16;

    /// The whole record, for `position` of a segment with this salt.
    #[must_use]
    pub fn encode(&self, salt: u64, position: u64) -> [u8; MARK_RECORD_BYTES] {
        let mut payload = [0; Self::PAYLOAD_BYTES];
        let (durable, epoch) = payload.split_at_mut(8);
        durable.copy_from_slice(&self.durable_position.to_le_bytes());
        epoch.copy_from_slice(&self.epoch.to_le_bytes());
        frame(RecordKind::Mark, &payload, salt, position)
    }

    /// Reads the payload of a [`RecordKind::Mark`]; `None` if it is not one.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (durable, epoch) = payload.split_first_chunk::<8>()?;
        Some(Self {
            durable_position: u64::from_le_bytes(*durable),
            epoch: u64::from_le_bytes(epoch.try_into().ok()?),
        })
    }
}

/// The last record of a segment that was filled. It stands at the position where the next
/// segment begins, and takes none itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The sequence of the first entry of the next segment.
    pub next_sequence: u64,
}

impl Seal {
    const PAYLOAD_BYTES: usize = 8;

    /// The whole record, for `position` of a segment with this salt.
    #[must_use]
    pub fn encode(&self, salt: u64, position: u64) -> [u8; SEAL_RECORD_BYTES] {
        frame(RecordKind::Seal, &self.next_sequence.to_le_bytes(), salt, position)
    }

    /// Reads the payload of a [`RecordKind::Seal`]; `None` if it is not one.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Option<Self> {
        Some(Self { next_sequence: u64::from_le_bytes(payload.try_into().ok()?) })
    }
}

/// The words before an entry of an atomic batch; `None` if the archive's length is 0, not a
/// multiple of 8, or over [`PAYLOAD_BYTES_CEILING`].
#[must_use]
pub fn encode_batch_entry_header(archive_bytes: usize) -> Option<[u8; BATCH_ENTRY_HEADER_BYTES]> {
    let length = framed_bytes(archive_bytes).filter(|&length| length != 0)?;
    Some(u64::from(length).to_le_bytes())
}

/// The archives in the payload of an atomic batch, in order.
///
/// Iterating yields `None` in place of an archive once, and then ends, where the payload is not
/// well-formed; a whole batch has at least one entry.
#[derive(Debug, Clone)]
pub struct BatchEntries<'a> {
    rest: &'a [u8],
    started: bool,
}

impl<'a> BatchEntries<'a> {
    /// The archives in `payload`.
    #[must_use]
    pub const fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload, started: false }
    }

    fn split_first(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (header, rest) = self.rest.split_first_chunk::<BATCH_ENTRY_HEADER_BYTES>()?;
        let length = u64::from_le_bytes(*header);
        // The upper word is zero in a well-formed batch, so this is within the rest or too long.
        let length = usize::try_from(length).ok()?;
        if length == 0 || !length.is_multiple_of(8) {
            return None;
        }
        rest.split_at_checked(length)
    }
}

impl<'a> Iterator for BatchEntries<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() && self.started {
            return None;
        }
        self.started = true;
        let entry = self.split_first();
        self.rest = entry.map_or(&[], |(_, rest)| rest);
        Some(entry.map(|(archive, _)| archive))
    }
}

/// A length, if a record's payload can have it.
#[inline]
fn framed_bytes(bytes: usize) -> Option<u32> {
    let bytes = u32::try_from(bytes).ok()?;
    (bytes <= PAYLOAD_BYTES_CEILING && bytes.is_multiple_of(8)).then_some(bytes)
}

const fn first_word(kind: RecordKind, payload_bytes: u32) -> u32 {
    (kind.bits() as u32) << LENGTH_BITS | payload_bytes
}

/// Header and payload of a record whose length is known beforehand.
fn frame<const PAYLOAD: usize, const RECORD: usize>(
    kind: RecordKind,
    payload: &[u8; PAYLOAD],
    salt: u64,
    position: u64,
) -> [u8; RECORD] {
    const {
        assert!(RECORD == RECORD_HEADER_BYTES + PAYLOAD);
        assert!(PAYLOAD.is_multiple_of(8));
    };
    let header = encode_record_header(kind, payload, salt, position).unwrap_or_default();
    let mut record = [0; RECORD];
    let (head, body) = record.split_at_mut(RECORD_HEADER_BYTES);
    head.copy_from_slice(&header);
    body.copy_from_slice(payload);
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const LIMIT: u32 = 1 << 16;

    fn record(kind: RecordKind, payload: &[u8], salt: u64, position: u64) -> Vec<u8> {
        let header = encode_record_header(kind, payload, salt, position).unwrap();
        [header.as_slice(), payload].concat()
    }

    #[test]
    fn zeroes_of_every_length_are_no_record() {
        for length in 0..64 {
            let error = decode_record(&vec![0; length], 0, 0, LIMIT).unwrap_err();
            if length < RECORD_HEADER_BYTES {
                assert!(matches!(error, Unreadable::Incomplete { needed: 8, .. }), "{error}");
            } else {
                assert_eq!(error, Unreadable::Unwritten, "length {length}");
            }
        }
    }

    /// The word that, put behind `front`, gives the record's payload this checksum. The sum is
    /// linear in the payload's bits, so 32 of them are solved for like any system of equations.
    fn word_for_checksum(front: &[u8], salt: u64, position: u64, wanted: u32) -> [u8; 8] {
        let sum = |word: u32| {
            let payload = [front, &word.to_le_bytes(), &[0; 4]].concat();
            let header = encode_record_header(RecordKind::Entry, &payload, salt, position).unwrap();
            u32::from_le_bytes(*header.last_chunk().unwrap())
        };
        let mut rows: Vec<(u32, u32)> =
            (0..32).map(|bit| (sum(1 << bit) ^ sum(0), 1 << bit)).collect();
        let mut missing = wanted ^ sum(0);
        let mut word = 0;
        for bit in 0..32 {
            let pivot = rows.iter().position(|row| row.0 >> bit & 1 == 1).unwrap();
            let (effect, bits) = rows.swap_remove(pivot);
            for row in rows.iter_mut().filter(|row| row.0 >> bit & 1 == 1) {
                *row = (row.0 ^ effect, row.1 ^ bits);
            }
            if missing >> bit & 1 == 1 {
                missing ^= effect;
                word ^= bits;
            }
        }
        u64::from(word).to_le_bytes()
    }

    #[test]
    fn a_checksum_that_happens_to_be_zero_is_a_checksum() {
        let payload = [*b"payload ", word_for_checksum(b"payload ", 5, 64, 0)].concat();
        let bytes = record(RecordKind::Entry, &payload, 5, 64);
        assert_eq!(bytes[4..8], [0; 4]);
        assert_eq!(decode_record(&bytes, 5, 64, LIMIT).unwrap().payload, payload);
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_written(
            words in prop::collection::vec(any::<u64>(), 0..50),
            salt: u64,
            place in 0_u64..1 << 40,
            behind in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let position = place * 8;
            for kind in [RecordKind::Entry, RecordKind::Batch, RecordKind::Unknown(7), RecordKind::Skippable(8)] {
                let bytes = [record(kind, &payload, salt, position), behind.clone()].concat();
                let decoded = decode_record(&bytes, salt, position, LIMIT).unwrap();
                prop_assert_eq!(decoded, Record { position, kind, payload: &payload });
                prop_assert_eq!(decoded.record_bytes() + behind.len(), bytes.len());
            }
        }

        #[test]
        fn a_record_of_another_life_or_place_is_not_valid(
            payload: [u8; 32], salt: u64, other_salt: u64, place in 0_u64..1000, other in 0_u64..1000,
        ) {
            prop_assume!(salt != other_salt && place != other);
            let bytes = record(RecordKind::Entry, &payload, salt, place * 8);
            prop_assert!(decode_record(&bytes, other_salt, place * 8, LIMIT).is_err());
            prop_assert!(decode_record(&bytes, salt, other * 8, LIMIT).is_err());
        }

        #[test]
        fn any_bytes_give_a_record_or_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            match decode_record(&bytes, 1, 8, 64) {
                Ok(record) => prop_assert!(record.record_bytes() <= bytes.len()),
                Err(Unreadable::Incomplete { needed, available }) => {
                    prop_assert!(needed > available && needed <= 72);
                }
                Err(_) => {}
            }
        }

        #[test]
        fn any_bytes_of_a_batch_are_used_up_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut used = 0;
            let mut whole = true;
            for entry in BatchEntries::new(&bytes) {
                match entry {
                    Some(archive) => used += BATCH_ENTRY_HEADER_BYTES + archive.len(),
                    None => whole = false,
                }
            }
            prop_assert!(used <= bytes.len());
            prop_assert_eq!(whole, used == bytes.len() && used != 0);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let bytes = record(RecordKind::Entry, b"sixteen bytes ok", 5, 4096);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_record(&damaged, 5, 4096, LIMIT).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_that_is_cut_says_how_many_bytes_it_needs() {
        let bytes = record(RecordKind::Entry, b"sixteen bytes ok", 5, 4096);
        for available in 0..bytes.len() {
            let needed = if available < RECORD_HEADER_BYTES { RECORD_HEADER_BYTES } else { 24 };
            assert_eq!(
                decode_record(&bytes[..available], 5, 4096, LIMIT),
                Err(Unreadable::Incomplete { needed, available })
            );
        }
    }

    #[test]
    fn no_length_is_trusted_before_the_limit() {
        let header = (u64::from(first_word(RecordKind::Entry, LIMIT + 8))).to_le_bytes();
        assert_eq!(
            decode_record(&header, 0, 0, LIMIT),
            Err(Unreadable::TooLong { payload_bytes: LIMIT + 8, limit_bytes: LIMIT })
        );
        let header = u64::from(first_word(RecordKind::Entry, 12)).to_le_bytes();
        assert_eq!(
            decode_record(&header, 0, 0, LIMIT),
            Err(Unreadable::UnevenLength { payload_bytes: 12 })
        );
        assert_eq!(
            decode_record(&16_u64.to_le_bytes(), 0, 0, LIMIT),
            Err(Unreadable::NoKind { payload_bytes: 16 })
        );
    }

    #[test]
    fn payloads_that_cannot_be_framed_get_no_header() {
        assert_eq!(encode_record_header(RecordKind::Entry, &[0; 12], 0, 0), None);
        let ceiling = PAYLOAD_BYTES_CEILING as usize;
        let too_long = vec![0; ceiling + 8];
        assert_eq!(encode_record_header(RecordKind::Entry, &too_long, 0, 0), None);
        assert_eq!(encode_batch_entry_header(ceiling + 8), None);
        assert_eq!(encode_batch_entry_header(12), None);
        assert_eq!(encode_batch_entry_header(0), None);
        assert!(encode_batch_entry_header(ceiling).is_some());
    }

    #[test]
    fn marks_and_seals_come_back_as_written() {
        let mark = Mark { durable_position: 8 << 40, epoch: 6 };
        let bytes = mark.encode(1, 24);
        let decoded = decode_record(&bytes, 1, 24, 16).unwrap();
        assert_eq!(decoded.kind, RecordKind::Mark);
        assert_eq!(Mark::decode(decoded.payload), Some(mark));
        assert_eq!(bytes[..4], MARK_FIRST_WORD.to_le_bytes());
        assert_eq!(Mark::decode(&[0; 24]), None);

        let seal = Seal { next_sequence: 77 };
        let bytes = seal.encode(1, 24);
        let decoded = decode_record(&bytes, 1, 24, 16).unwrap();
        assert_eq!(Seal::decode(decoded.payload), Some(seal));
        assert_eq!(decoded.end_position(), 24);
    }

    #[test]
    fn the_entries_of_a_batch_come_back_in_order() {
        let entries: [&[u8]; 3] = [&[1; 8], &[2; 24], &[3; 16]];
        let mut payload = Vec::new();
        for entry in entries {
            payload.extend_from_slice(&encode_batch_entry_header(entry.len()).unwrap());
            payload.extend_from_slice(entry);
        }
        let read: Option<Vec<&[u8]>> = BatchEntries::new(&payload).collect();
        assert_eq!(read.unwrap(), entries);
        for cut in (0..payload.len()).filter(|cut| ![16, 48].contains(cut)) {
            let read: Option<Vec<&[u8]>> = BatchEntries::new(&payload[..cut]).collect();
            assert_eq!(read, None, "cut at {cut}");
        }
        payload[4] = 1; // the word that must be zero
        assert_eq!(BatchEntries::new(&payload).collect::<Option<Vec<_>>>(), None);
        // Lengths that no entry has, though as many bytes are there.
        for length in [0_u64, 12] {
            let payload = [&length.to_le_bytes()[..], &[1; 12]].concat();
            let read: Vec<_> = BatchEntries::new(&payload).collect();
            assert_eq!(read, [None], "length {length}");
        }
    }
}
