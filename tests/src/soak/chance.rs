//! Choices that are the same for the same seed.

use crate::talk::Stream;

/// See the [module](self).
#[derive(Debug)]
pub struct Chance(Stream);

impl Chance {
    /// The choices of a seed.
    pub fn new(seed: u64) -> Self {
        Self(Stream::new(seed))
    }

    /// A number below a limit, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        let mut word = [0; 8];
        self.0.fill(&mut word);
        usize::try_from((u64::from_le_bytes(word) >> 11) % (limit as u64)).unwrap_or(0)
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none.
    pub fn choose<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}
