//! The answer check: what was written is counted and summed when it is read.

use serde::{Deserialize, Serialize};

use crate::Failure;

pub(crate) const KEY_BYTES: usize = 16;

/// What reading a log gave.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    entries: u64,
    value_bytes: u64,
    /// Keys are numbered from 0, so their sum tells a lost entry from a doubled one.
    key_sum: u64,
}

impl Tally {
    /// What a log of `records` puts with keys `0..records` must give.
    pub(crate) const fn of(records: u64, value_bytes: u64) -> Self {
        let key_sum = records.saturating_sub(1).wrapping_mul(records) / 2;
        Self { entries: records, value_bytes: records * value_bytes, key_sum }
    }

    /// What a log of puts with keys `first..end` must give.
    pub(crate) const fn between(first: u64, end: u64, value_bytes: u64) -> Self {
        let (below, all) = (Self::of(first, value_bytes), Self::of(end, value_bytes));
        Self {
            entries: all.entries - below.entries,
            value_bytes: all.value_bytes - below.value_bytes,
            key_sum: all.key_sum - below.key_sum,
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.entries += 1;
        self.value_bytes += value.len() as u64;
        let number = key.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        self.key_sum = self.key_sum.wrapping_add(number);
    }

    pub(crate) const fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds what another part of the same log gave.
    pub(crate) const fn absorb(&mut self, other: &Self) {
        self.entries += other.entries;
        self.value_bytes += other.value_bytes;
        self.key_sum = self.key_sum.wrapping_add(other.key_sum);
    }

    pub(crate) fn check(&self, expected: &Self) -> Result<(), Failure> {
        if self == expected {
            Ok(())
        } else {
            Err(format!("read {self:?} where {expected:?} was written").into())
        }
    }
}

/// The key with this number: 8 bytes of it, 8 of nothing.
#[inline]
pub(crate) fn key(number: u64) -> [u8; KEY_BYTES] {
    u128::from(number).to_le_bytes()
}

/// A key whose bytes are in the order of its number, for logs that keep an index: numbers then
/// come in the order that suits it best, and no key looks like one of the log's own.
pub(crate) fn ascending(key: &[u8]) -> Vec<u8> {
    key.iter().rev().copied().collect()
}

/// The key that [`ascending`] was given.
pub(crate) fn from_ascending(key: &[u8]) -> Vec<u8> {
    ascending(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(numbers: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for &number in numbers {
            tally.add(&key(number), &[7; 100]);
        }
        tally
    }

    #[test]
    fn what_was_written_is_what_is_expected() {
        read(&[0, 1, 2, 3]).check(&Tally::of(4, 100)).unwrap();
        read(&[]).check(&Tally::of(0, 100)).unwrap();
    }

    #[test]
    fn what_lies_behind_a_checkpoint_is_what_is_expected() {
        read(&[3, 4]).check(&Tally::between(3, 5, 100)).unwrap();
        read(&[3, 3]).check(&Tally::between(3, 5, 100)).unwrap_err();
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut tally = read(&[1, 2]);
        tally.absorb(&read(&[3, 0]));
        tally.check(&Tally::of(4, 100)).unwrap();
        assert_eq!(tally.entries(), 4);
    }

    #[test]
    fn ascending_keys_are_in_the_order_of_their_numbers() {
        assert!(ascending(&key(255)) < ascending(&key(256)));
        assert_eq!(from_ascending(&ascending(&key(77))), key(77));
    }

    #[test]
    fn a_lost_a_doubled_and_a_foreign_entry_are_noticed() {
        read(&[0, 1, 2]).check(&Tally::of(4, 100)).unwrap_err();
        read(&[0, 1, 1, 3]).check(&Tally::of(4, 100)).unwrap_err();
        read(&[0, 1, 2, 9]).check(&Tally::of(4, 100)).unwrap_err();
    }
}
