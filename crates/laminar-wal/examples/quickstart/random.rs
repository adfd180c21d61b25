//! Random numbers that a seed brings back.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64: the simplest generator that is good enough to pick moments.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to, but without, `bound`; 0 if that is 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        if bound == 0 { 0 } else { mixed % bound }
    }

    pub(crate) fn below_usize(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }
}

/// A seed that nobody chose, short enough to type.
pub(crate) fn seed_of_the_day() -> u64 {
    RandomState::new().hash_one(0) % 1_000_000
}
