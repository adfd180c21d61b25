//! Where choices come from.

/// A splitmix64 generator: small, fast, and the same on every machine for ever.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed ^ 0x6578_706C_6F72_6572 }
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        finish(self.state)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        match bound {
            0 => 0,
            bound => self.next() % bound,
        }
    }

    pub(crate) const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.size(N)]
    }

    pub(crate) fn size(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    /// Mostly small; some larger than a batch, and some larger than a segment.
    pub(crate) fn value_bytes(&mut self) -> usize {
        let bound = self.pick([1, 60, 200, 200, 1000, 4100, 9000, 16_400, 50_000]);
        self.size(bound)
    }
}

/// Two numbers made into one that depends on every bit of both.
pub(crate) const fn mix(first: u64, second: u64) -> u64 {
    finish(finish(first ^ 0xA076_1D64_78BD_642F).wrapping_add(second))
}

/// The one of `length` things that a number chooses.
pub(crate) fn index(pick: u64, length: usize) -> Option<usize> {
    let length = u64::try_from(length).ok().filter(|length| *length > 0)?;
    usize::try_from(pick % length).ok()
}

const fn finish(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
