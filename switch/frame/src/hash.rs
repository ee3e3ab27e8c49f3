//! The hash of keys that containers and strangers choose: seeded, so that nobody can aim at one bucket.

use std::fmt;
use std::hash::{Hash, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// A seeded hash. Both its parts are secret: with a known multiplier, keys that collide could be found
/// without knowing the rest.
#[derive(Clone)]
pub struct SeededHash {
    seed: u64,
    shared: SharedSeed,
}

impl fmt::Debug for SeededHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeededHash")
    }
}

impl SeededHash {
    /// The hash of a seed, which should be random. One of few bits would make a weak multiplier, so it is
    /// spread first.
    pub fn new(seed: u64) -> Self {
        Self { seed: spread(seed), shared: SharedSeed::from_u64(seed) }
    }

    /// The hash of a key.
    #[inline]
    pub fn of(&self, key: &(impl Hash + ?Sized)) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        key.hash(&mut hasher);
        hasher.finish()
    }

    /// The hash of a key that is these words, always as many.
    #[inline]
    pub fn of_words(&self, words: &[u64]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared);
        for &word in words {
            hasher.write_u64(word);
        }
        hasher.finish()
    }
}

/// Spreads what little there is in a number over all its bits (the output function of splitmix64).
pub fn spread(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_make_different_hashes() {
        let [one, other] = [SeededHash::new(1), SeededHash::new(2)];
        for key in [0u64, 1, u64::MAX] {
            assert_eq!(one.of(&key), one.of_words(&[key]));
            assert_ne!(one.of(&key), other.of(&key));
        }
        assert_ne!(one.of_words(&[1, 2]), one.of_words(&[2, 1]));
        assert_ne!(spread(0), 0);
    }
}
