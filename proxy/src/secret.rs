//! The secret that makes ports and sequence numbers hard to guess.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A secret of the process.
#[derive(Clone)]
pub(crate) struct Secret(u64);

impl Secret {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number that nobody can tell from others without the secret (SipHash, as the standard library has
    /// it).
    pub(crate) fn hash(&self, of: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        of.hash(&mut hasher);
        hasher.finish()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
