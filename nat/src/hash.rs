//! The hash of keys that containers and strangers choose: seeded, so that nobody can aim at one bucket.

use std::fmt;
use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// The hash. Both its parts are secret.
#[derive(Clone)]
pub(crate) struct Hash {
    seed: u64,
    shared: SharedSeed,
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash")
    }
}

impl Hash {
    /// A seed of few bits would make a weak multiplier, so it is spread first.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed: spread(seed), shared: SharedSeed::from_u64(seed) }
    }

    #[inline]
    pub(crate) fn of(&self, words: &[u64]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        for &word in words {
            hasher.write_u64(word);
        }
        hasher.finish()
    }
}

/// Spreads what little there is in a number over all its bits (the output function of splitmix64).
pub(crate) fn spread(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
