//! The vouch block: two slots that say, written in turn, how far a core's log is durable.

use crate::block::{BlockError, Field, checksum_without};
use crate::checksum::salt_seed;
use crate::{BLOCK_BYTES, Block, RECORD_ALIGNMENT_BYTES};

/// Size of one of the two slots of the vouch block.
pub const VOUCH_SLOT_BYTES: usize = 2048;

const _: () = assert!(2 * VOUCH_SLOT_BYTES == BLOCK_BYTES);

/// One slot of the third block of a segment.
///
/// Slot `counter % 2` is overwritten by the slot with that counter, so that the other one, the
/// newest before, survives a torn write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VouchSlot {
    /// Rises by one with every slot written to this segment; the first one has 1.
    pub counter: u64,
    /// Everything of the core's log below this position was durable.
    pub durable_position: u64,
    /// The epoch of the last entry below it.
    pub epoch: u64,
    /// The number of the newest durable manifest.
    pub manifest_number: u64,
    /// The log was closed: there is nothing behind the position.
    pub closed: bool,
}

/// `VCH1`, read as a little-endian number.
const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"VCH1");
const WHAT: &str = "vouch slot";
const CLOSED: u64 = 1;

const CRC: Field<u32> = Field::first();
const MAGIC: Field<u32> = Field::after(CRC);
const COUNTER: Field<u64> = Field::after(MAGIC);
const DURABLE_POSITION: Field<u64> = Field::after(COUNTER);
const EPOCH: Field<u64> = Field::after(DURABLE_POSITION);
const MANIFEST_NUMBER: Field<u64> = Field::after(EPOCH);
const FLAGS: Field<u64> = Field::after(MANIFEST_NUMBER);
const _: () = assert!(FLAGS.end() == 48 && FLAGS.end() <= VOUCH_SLOT_BYTES);

impl VouchSlot {
    /// Writes the slot into its half of a segment's vouch block; the other half stays.
    pub fn encode_into(&self, block: &mut Block, salt: u64) {
        let (first, second) = block.as_mut_bytes().split_at_mut(VOUCH_SLOT_BYTES);
        let slot = if self.counter.is_multiple_of(2) { first } else { second };
        slot.fill(0);
        MAGIC.put(slot, MAGIC_VALUE);
        COUNTER.put(slot, self.counter);
        DURABLE_POSITION.put(slot, self.durable_position);
        EPOCH.put(slot, self.epoch);
        MANIFEST_NUMBER.put(slot, self.manifest_number);
        FLAGS.put(slot, if self.closed { CLOSED } else { 0 });
        CRC.put(slot, checksum_without(slot, CRC, salt_seed(salt)));
    }

    /// Reads one slot, the first or the second half of a vouch block.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unwritten`] for a slot of zeroes; otherwise the first rule that it breaks.
    pub fn decode(slot: &[u8], salt: u64) -> Result<Self, BlockError> {
        let slot = slot.first_chunk::<VOUCH_SLOT_BYTES>().ok_or(BlockError::Incomplete {
            what: WHAT,
            needed: VOUCH_SLOT_BYTES,
            available: slot.len(),
        })?;
        if slot.iter().all(|&byte| byte == 0) {
            return Err(BlockError::Unwritten { what: WHAT });
        }
        let stored = CRC.get(slot);
        let computed = checksum_without(slot, CRC, salt_seed(salt));
        if computed != stored {
            return Err(BlockError::Checksum { what: WHAT, computed, stored });
        }
        let field = |field, value| BlockError::Field { what: WHAT, field, value };
        if MAGIC.get(slot) != MAGIC_VALUE {
            return Err(field("magic", MAGIC.get(slot).into()));
        }
        let counter = COUNTER.get(slot);
        if counter == 0 {
            return Err(field("counter", 0));
        }
        let durable_position = DURABLE_POSITION.get(slot);
        if !durable_position.is_multiple_of(RECORD_ALIGNMENT_BYTES) {
            return Err(field("durable position", durable_position));
        }
        let flags = FLAGS.get(slot);
        if flags & !CLOSED != 0 {
            return Err(field("flags", flags));
        }
        Ok(Self {
            counter,
            durable_position,
            epoch: EPOCH.get(slot),
            manifest_number: MANIFEST_NUMBER.get(slot),
            closed: flags == CLOSED,
        })
    }
}

/// The newest valid slot of a vouch block, if it has one.
#[must_use]
pub fn newest_vouch(block: &[u8], salt: u64) -> Option<VouchSlot> {
    block
        .chunks_exact(VOUCH_SLOT_BYTES)
        .take(2)
        .filter_map(|slot| VouchSlot::decode(slot, salt).ok())
        .max_by_key(|slot| slot.counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(counter: u64) -> VouchSlot {
        VouchSlot {
            counter,
            durable_position: 64 * counter,
            epoch: 2,
            manifest_number: 3,
            closed: counter == 5,
        }
    }

    #[test]
    fn the_newest_slot_counts_and_the_one_before_stays() {
        let mut block = Block::ZERO;
        assert_eq!(newest_vouch(block.as_bytes(), 9), None);
        for counter in 1..=5 {
            slot(counter).encode_into(&mut block, 9);
            assert_eq!(newest_vouch(block.as_bytes(), 9), Some(slot(counter)));
        }
        // A torn write of slot 5 leaves slot 4.
        block.as_mut_bytes()[VOUCH_SLOT_BYTES + 17] ^= 0xff;
        assert_eq!(newest_vouch(block.as_bytes(), 9), Some(slot(4)));
    }

    #[test]
    fn slots_of_another_life_do_not_count() {
        let mut block = Block::ZERO;
        slot(1).encode_into(&mut block, 9);
        assert_eq!(newest_vouch(block.as_bytes(), 10), None);
    }

    #[test]
    fn a_slot_of_zeroes_is_told_from_damage() {
        let unwritten = VouchSlot::decode(&[0; VOUCH_SLOT_BYTES], 5);
        assert_eq!(unwritten, Err(BlockError::Unwritten { what: WHAT }));
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        let refused = |slot: VouchSlot| {
            let mut block = Block::ZERO;
            slot.encode_into(&mut block, 9);
            let half = usize::from(!slot.counter.is_multiple_of(2)) * VOUCH_SLOT_BYTES;
            match VouchSlot::decode(&block.as_bytes()[half..], 9) {
                Err(BlockError::Field { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(slot(0)), "counter");
        assert_eq!(refused(VouchSlot { durable_position: 12, ..slot(1) }), "durable position");
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut block = Block::ZERO;
        slot(1).encode_into(&mut block, 9);
        for bit in 0..VOUCH_SLOT_BYTES * 8 {
            let mut damaged = block.clone();
            damaged.as_mut_bytes()[VOUCH_SLOT_BYTES + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(newest_vouch(damaged.as_bytes(), 9), None, "bit {bit}");
        }
    }
}
