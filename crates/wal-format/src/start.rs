//! The start block: where in the core's log a segment begins, and what stands before it.

use crate::block::{Block, BlockError, Field, checksum_without};
use crate::checksum::salt_seed;
use crate::{BLOCK_BYTES, RECORD_ALIGNMENT_BYTES};

/// The second block of a segment, written together with its first records.
///
/// A segment without a valid start is prepared but unused. A valid one proves that everything of
/// the core's log below its base was durable when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The segment that this one continues; `None` where the log, or what is left of it after a
    /// cut, begins.
    pub predecessor: Option<Predecessor>,
    /// The position of this segment's first record.
    pub base_position: u64,
    /// The sequence of the first entry in this segment.
    pub base_sequence: u64,
    /// The epoch of the last entry before; no entry of this segment has a lower one.
    pub last_epoch: u64,
    /// The timestamp of the last entry before; no entry of this segment has a lower one.
    pub last_timestamp_ns: i64,
    /// The number of the newest durable manifest when this start was written.
    pub manifest_number: u64,
}

/// The segment before, and how much of it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Predecessor {
    /// Its number.
    pub segment_id: u64,
    /// Its salt: a later life of the same number is not meant.
    pub salt: u64,
    /// The position where it ends, whatever stands behind that in its file. Always this
    /// segment's base.
    pub end_position: u64,
}

/// `STRT`, read as a little-endian number.
const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"STRT");
const WHAT: &str = "start block";

const CRC: Field<u32> = Field::first();
const MAGIC: Field<u32> = Field::after(CRC);
const PREDECESSOR_ID: Field<u64> = Field::after(MAGIC);
const PREDECESSOR_SALT: Field<u64> = Field::after(PREDECESSOR_ID);
const PREDECESSOR_END: Field<u64> = Field::after(PREDECESSOR_SALT);
const BASE_POSITION: Field<u64> = Field::after(PREDECESSOR_END);
const BASE_SEQUENCE: Field<u64> = Field::after(BASE_POSITION);
const LAST_EPOCH: Field<u64> = Field::after(BASE_SEQUENCE);
const LAST_TIMESTAMP: Field<i64> = Field::after(LAST_EPOCH);
const MANIFEST_NUMBER: Field<u64> = Field::after(LAST_TIMESTAMP);
const _: () = assert!(MANIFEST_NUMBER.end() == 72 && MANIFEST_NUMBER.end() <= BLOCK_BYTES);

impl Start {
    /// The block to be written to a segment with this salt.
    #[must_use]
    pub fn encode(&self, salt: u64) -> Block {
        let mut block = Block::ZERO;
        block.put(MAGIC, MAGIC_VALUE);
        if let Some(predecessor) = self.predecessor {
            block.put(PREDECESSOR_ID, predecessor.segment_id);
            block.put(PREDECESSOR_SALT, predecessor.salt);
            block.put(PREDECESSOR_END, predecessor.end_position);
        }
        block.put(BASE_POSITION, self.base_position);
        block.put(BASE_SEQUENCE, self.base_sequence);
        block.put(LAST_EPOCH, self.last_epoch);
        block.put(LAST_TIMESTAMP, self.last_timestamp_ns);
        block.put(MANIFEST_NUMBER, self.manifest_number);
        let checksum = checksum_without(block.as_bytes(), CRC, salt_seed(salt));
        block.put(CRC, checksum);
        block
    }

    /// Reads the start block of a segment with this salt.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unwritten`] for a block of zeroes; otherwise the first rule that it breaks.
    /// Recovery treats both as "no start", and tells them apart where it matters.
    pub fn decode(block: &[u8], salt: u64) -> Result<Self, BlockError> {
        let block = block.first_chunk::<BLOCK_BYTES>().ok_or(BlockError::Incomplete {
            what: WHAT,
            needed: BLOCK_BYTES,
            available: block.len(),
        })?;
        if block.iter().all(|&byte| byte == 0) {
            return Err(BlockError::Unwritten { what: WHAT });
        }
        let stored = CRC.get(block);
        let computed = checksum_without(block, CRC, salt_seed(salt));
        if computed != stored {
            return Err(BlockError::Checksum { what: WHAT, computed, stored });
        }
        let field = |field, value| BlockError::Field { what: WHAT, field, value };
        if MAGIC.get(block) != MAGIC_VALUE {
            return Err(field("magic", MAGIC.get(block).into()));
        }
        let base_position = BASE_POSITION.get(block);
        if !base_position.is_multiple_of(RECORD_ALIGNMENT_BYTES) {
            return Err(field("base position", base_position));
        }
        let predecessor = match PREDECESSOR_ID.get(block) {
            0 => None,
            segment_id => Some(Predecessor {
                segment_id,
                salt: PREDECESSOR_SALT.get(block),
                end_position: PREDECESSOR_END.get(block),
            }),
        };
        if let Some(predecessor) = predecessor
            && predecessor.end_position != base_position
        {
            return Err(field("predecessor's end", predecessor.end_position));
        }
        Ok(Self {
            predecessor,
            base_position,
            base_sequence: BASE_SEQUENCE.get(block),
            last_epoch: LAST_EPOCH.get(block),
            last_timestamp_ns: LAST_TIMESTAMP.get(block),
            manifest_number: MANIFEST_NUMBER.get(block),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        Start {
            predecessor: Some(Predecessor { segment_id: 41, salt: 5, end_position: 4096 }),
            base_position: 4096,
            base_sequence: 17,
            last_epoch: 3,
            last_timestamp_ns: -1,
            manifest_number: 9,
        }
    }

    #[test]
    fn a_start_comes_back_as_written() {
        for start in [start(), Start { predecessor: None, ..start() }] {
            assert_eq!(Start::decode(start.encode(77).as_bytes(), 77), Ok(start));
        }
    }

    #[test]
    fn a_start_of_another_life_does_not_count() {
        let error = Start::decode(start().encode(77).as_bytes(), 78).unwrap_err();
        assert!(matches!(error, BlockError::Checksum { .. }), "{error}");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let block = start().encode(77);
        for bit in 0..BLOCK_BYTES * 8 {
            let mut damaged = block.clone();
            damaged.as_mut_bytes()[bit / 8] ^= 1 << (bit % 8);
            assert!(Start::decode(damaged.as_bytes(), 77).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_predecessor_must_end_where_this_segment_begins() {
        let mut start = start();
        start.predecessor = start.predecessor.map(|p| Predecessor { end_position: 8, ..p });
        let error = Start::decode(start.encode(1).as_bytes(), 1).unwrap_err();
        assert_eq!(error, BlockError::Field { what: WHAT, field: "predecessor's end", value: 8 });
    }

    #[test]
    fn zeroes_are_unwritten() {
        let error = Start::decode(Block::ZERO.as_bytes(), 0).unwrap_err();
        assert_eq!(error, BlockError::Unwritten { what: WHAT });
    }
}
