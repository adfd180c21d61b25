//! The one source of chance: small, fast, and the same on every machine for ever.
//!
//! Nothing here is fit for secrets. What counts is that a seed written down in a failing test
//! leads to the same run again, so the generator is our own and no dependency can change it.

/// A splitmix64 generator.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A generator for one purpose. Each purpose has a stream of its own, so that, say, one more
    /// job does not change which sectors a later fault leaves behind.
    pub(crate) const fn stream(seed: u64, purpose: u64) -> Self {
        Self::new(mix(seed, purpose))
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        finish(self.state)
    }

    /// A number below `bound`; 0 if `bound` is 0. The slight bias is of no consequence here.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            bound => self.next() % bound,
        }
    }

    /// An index into something of `length` items.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        to_index(self.below(length as u64))
    }

    /// True `percent` times of a hundred.
    pub(crate) const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) const fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.index(N)]
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

/// Two numbers made into one that depends on every bit of both.
pub(crate) const fn mix(first: u64, second: u64) -> u64 {
    finish(finish(first ^ 0xA076_1D64_78BD_642F).wrapping_add(second))
}

/// An offset or count as an index. Nothing in memory is longer than an index can say.
pub(crate) fn to_index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

const fn finish(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        // Published outputs of splitmix64 for this seed. Seeds in bug reports rely on them.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn streams_of_one_seed_differ() {
        assert_ne!(Random::stream(7, 1).next(), Random::stream(7, 2).next());
        assert_ne!(Random::stream(7, 1).next(), Random::stream(8, 1).next());
    }
}
