//! The identity block: what a segment file is, and whose. Never changed once it is durable.

use crate::block::{
    Block, BlockError, Features, Field, LogId, check_fixed_part, checksum_without, fixed,
};
use crate::record::PAYLOAD_BYTES_CEILING;
use crate::{BLOCK_BYTES, FORMAT_VERSION, MAX_RECORD_BYTES_MIN, SEGMENT_BYTES_MIN};

/// The first block of a segment.
///
/// ```
/// use wal_format::{BlockError, Features, Identity, LogId};
///
/// let identity = Identity {
///     log_id: LogId([1; 16]), core: 3, segment_id: 42, size_bytes: 1 << 20, payload_type: 1,
///     payload_version: 1, max_record_bytes: 1 << 16, features: Features::NONE, salt: 99,
///     created_ns: 0,
/// };
/// let mut block = identity.encode();
/// assert_eq!(Identity::decode(block.as_bytes()), Ok(identity));
/// block.as_mut_bytes()[30] ^= 1;
/// assert!(matches!(Identity::decode(block.as_bytes()), Err(BlockError::Checksum { .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The log that the segment belongs to.
    pub log_id: LogId,
    /// The core whose log it belongs to.
    pub core: u16,
    /// The segment's number, the same as in its file name; never 0.
    pub segment_id: u64,
    /// Size of the whole file, header blocks included; a multiple of 4096.
    pub size_bytes: u64,
    /// What entry payloads are; 1 is the archive that `docs/format.md` describes.
    pub payload_type: u32,
    /// Which version of it.
    pub payload_version: u32,
    /// The largest payload of a record in this segment; a multiple of 8, at least
    /// [`MAX_RECORD_BYTES_MIN`].
    pub max_record_bytes: u32,
    /// What readers and writers must know beyond version 1.
    pub features: Features,
    /// Random number that tells this life of the file from every other.
    pub salt: u64,
    /// When the segment was made, in nanoseconds since 1970. For people, not for decisions.
    pub created_ns: i64,
}

/// `laminarS`, read as a little-endian number.
const MAGIC: u64 = u64::from_le_bytes(*b"laminarS");
const WHAT: &str = "identity block";

const LOG_ID: Field<LogId> = Field::at(fixed::END);
const CORE: Field<u16> = Field::after(LOG_ID);
const RESERVED_1: Field<u16> = Field::after(CORE);
const CHECKSUM_KIND: Field<u32> = Field::after(RESERVED_1);
const SEGMENT_ID: Field<u64> = Field::after(CHECKSUM_KIND);
const SIZE: Field<u64> = Field::after(SEGMENT_ID);
const BLOCK_SIZE: Field<u32> = Field::after(SIZE);
const MAX_RECORD: Field<u32> = Field::after(BLOCK_SIZE);
const PAYLOAD_TYPE: Field<u32> = Field::after(MAX_RECORD);
const PAYLOAD_VERSION: Field<u32> = Field::after(PAYLOAD_TYPE);
const INCOMPATIBLE: Field<u64> = Field::after(PAYLOAD_VERSION);
const READ_COMPATIBLE: Field<u64> = Field::after(INCOMPATIBLE);
const COMPATIBLE: Field<u64> = Field::after(READ_COMPATIBLE);
const SALT: Field<u64> = Field::after(COMPATIBLE);
const CREATED: Field<i64> = Field::after(SALT);
const _: () = assert!(CREATED.end() == 120 && CREATED.end() <= BLOCK_BYTES);

/// CRC-32C, the only kind of checksum in version 1.
const CHECKSUM_KIND_CRC32C: u32 = 1;
const LENGTH: u32 = 4096;
const _: () = assert!(LENGTH as usize == BLOCK_BYTES);

impl Identity {
    /// The block to be written.
    #[must_use]
    pub fn encode(&self) -> Block {
        let mut block = Block::ZERO;
        block.put(fixed::MAGIC, MAGIC);
        block.put(fixed::VERSION, FORMAT_VERSION);
        block.put(fixed::LENGTH, LENGTH);
        block.put(LOG_ID, self.log_id);
        block.put(CORE, self.core);
        block.put(CHECKSUM_KIND, CHECKSUM_KIND_CRC32C);
        block.put(SEGMENT_ID, self.segment_id);
        block.put(SIZE, self.size_bytes);
        block.put(BLOCK_SIZE, LENGTH);
        block.put(MAX_RECORD, self.max_record_bytes);
        block.put(PAYLOAD_TYPE, self.payload_type);
        block.put(PAYLOAD_VERSION, self.payload_version);
        block.put(INCOMPATIBLE, self.features.incompatible);
        block.put(READ_COMPATIBLE, self.features.read_compatible);
        block.put(COMPATIBLE, self.features.compatible);
        block.put(SALT, self.salt);
        block.put(CREATED, self.created_ns);
        let checksum = checksum_without(block.as_bytes(), fixed::CRC, 0);
        block.put(fixed::CRC, checksum);
        block
    }

    /// Reads the first block of a file.
    ///
    /// # Errors
    ///
    /// The first rule that `block` breaks. [`BlockError::Version`] and [`BlockError::Features`]
    /// mean that the block is whole and newer than this crate; anything else is damage.
    pub fn decode(block: &[u8]) -> Result<Self, BlockError> {
        let block = check_fixed_part(block, WHAT, MAGIC, BLOCK_BYTES)?;
        let features = Features {
            incompatible: INCOMPATIBLE.get(block),
            read_compatible: READ_COMPATIBLE.get(block),
            compatible: COMPATIBLE.get(block),
        };
        let field = |field, value: u64| BlockError::Field { what: WHAT, field, value };
        if fixed::LENGTH.get(block) != LENGTH {
            return Err(field("block length", fixed::LENGTH.get(block).into()));
        }
        if features.incompatible != 0 {
            return Err(BlockError::Features { what: WHAT, bits: features.incompatible });
        }
        let identity = Self {
            log_id: LOG_ID.get(block),
            core: CORE.get(block),
            segment_id: SEGMENT_ID.get(block),
            size_bytes: SIZE.get(block),
            payload_type: PAYLOAD_TYPE.get(block),
            payload_version: PAYLOAD_VERSION.get(block),
            max_record_bytes: MAX_RECORD.get(block),
            features,
            salt: SALT.get(block),
            created_ns: CREATED.get(block),
        };
        if CHECKSUM_KIND.get(block) != CHECKSUM_KIND_CRC32C {
            return Err(field("checksum kind", CHECKSUM_KIND.get(block).into()));
        }
        if BLOCK_SIZE.get(block) != LENGTH {
            return Err(field("block size", BLOCK_SIZE.get(block).into()));
        }
        if identity.segment_id == 0 {
            return Err(field("segment id", 0));
        }
        let size = identity.size_bytes;
        if size < SEGMENT_BYTES_MIN || !size.is_multiple_of(u64::from(LENGTH)) {
            return Err(field("size", size));
        }
        let max_record = identity.max_record_bytes;
        let in_range = (MAX_RECORD_BYTES_MIN..=PAYLOAD_BYTES_CEILING).contains(&max_record);
        if !in_range || !max_record.is_multiple_of(8) {
            return Err(field("record limit", max_record.into()));
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            log_id: LogId(*b"0123456789abcdef"),
            core: 3,
            segment_id: 42,
            size_bytes: 1 << 20,
            payload_type: 1,
            payload_version: 1,
            max_record_bytes: 1 << 20,
            features: Features::NONE,
            salt: 0x1122_3344_5566_7788,
            created_ns: 1_790_000_000_000_000_000,
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let block = identity().encode();
        for bit in 0..BLOCK_BYTES * 8 {
            let mut damaged = block.clone();
            damaged.as_mut_bytes()[bit / 8] ^= 1 << (bit % 8);
            let error = Identity::decode(damaged.as_bytes()).unwrap_err();
            assert!(
                !matches!(error, BlockError::Version { .. } | BlockError::Features { .. }),
                "bit {bit}: damage passed for a newer version: {error}"
            );
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut block = identity().encode();
        block.put(fixed::VERSION, 2);
        block.put(fixed::CRC, checksum_without(block.as_bytes(), fixed::CRC, 0));
        assert_eq!(
            Identity::decode(block.as_bytes()),
            Err(BlockError::Version { what: WHAT, found: 2 })
        );
    }

    #[test]
    fn a_newer_version_may_have_a_shorter_block() {
        let mut block = identity().encode();
        block.put(fixed::VERSION, 2);
        block.put(fixed::LENGTH, 512);
        block.put(fixed::CRC, checksum_without(&block.as_bytes()[..512], fixed::CRC, 0));
        assert_eq!(
            Identity::decode(block.as_bytes()),
            Err(BlockError::Version { what: WHAT, found: 2 })
        );
    }

    #[test]
    fn unknown_features_stop_readers_only_where_they_must() {
        let with = |features| Identity { features, ..identity() };
        let incompatible = with(Features { incompatible: 4, ..Features::NONE });
        assert_eq!(
            Identity::decode(incompatible.encode().as_bytes()),
            Err(BlockError::Features { what: WHAT, bits: 4 })
        );
        let tolerated = with(Features { incompatible: 0, read_compatible: 1, compatible: 2 });
        assert_eq!(Identity::decode(tolerated.encode().as_bytes()), Ok(tolerated.clone()));
        assert_eq!(tolerated.features.unknown_to_writers(), 1);
    }

    #[test]
    fn reserved_bytes_may_be_used_by_compatible_features() {
        let mut block = identity().encode();
        block.as_mut_bytes()[4000] = 7;
        block.put(fixed::CRC, checksum_without(block.as_bytes(), fixed::CRC, 0));
        assert_eq!(Identity::decode(block.as_bytes()), Ok(identity()));
    }

    #[test]
    fn impossible_fields_are_refused_by_name() {
        let refused = |change: fn(&mut Identity)| {
            let mut identity = identity();
            change(&mut identity);
            match Identity::decode(identity.encode().as_bytes()) {
                Err(BlockError::Field { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(|i| i.segment_id = 0), "segment id");
        assert_eq!(refused(|i| i.size_bytes = 4096), "size");
        assert_eq!(refused(|i| i.size_bytes += 8), "size");
        assert_eq!(refused(|i| i.max_record_bytes = 0), "record limit");
        assert_eq!(refused(|i| i.max_record_bytes = MAX_RECORD_BYTES_MIN - 8), "record limit");
        assert_eq!(refused(|i| i.max_record_bytes = MAX_RECORD_BYTES_MIN + 4), "record limit");
        assert_eq!(refused(|i| i.max_record_bytes = PAYLOAD_BYTES_CEILING + 8), "record limit");
    }

    #[test]
    fn zeroes_and_short_files_are_told_apart_from_damage() {
        assert_eq!(Identity::decode(&[0; BLOCK_BYTES]), Err(BlockError::Unwritten { what: WHAT }));
        let block = identity().encode();
        for length in 0..BLOCK_BYTES {
            let error = Identity::decode(&block.as_bytes()[..length]).unwrap_err();
            assert!(matches!(error, BlockError::Incomplete { .. }), "{length}: {error}");
        }
    }
}
