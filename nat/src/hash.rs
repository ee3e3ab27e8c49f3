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
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, shared: SharedSeed::from_u64(seed) }
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
