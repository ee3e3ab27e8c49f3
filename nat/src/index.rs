//! A hash table in pieces, each of which grows by itself.
//!
//! A table that grows, or clears away what was removed, moves all its entries at once: with a million of them
//! that holds up the frames for many milliseconds. Here the hash chooses one of 256 tables first, so a few
//! thousand entries move at once, and memory is taken as entries come.

use hashbrown::HashTable;
use hashbrown::hash_table::{AbsentEntry, OccupiedEntry};

const PIECES: usize = 256;

/// The table. Hashes are as [`HashTable`] takes them.
#[derive(Clone, Debug)]
pub(crate) struct Index<T> {
    pieces: Vec<HashTable<T>>,
}

/// The piece of a hash, by bits that place an entry in no table.
#[inline]
fn piece(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[2])
}

impl<T> Index<T> {
    /// A table without entries, which takes next to no memory.
    pub(crate) fn new() -> Self {
        Self { pieces: std::iter::repeat_with(HashTable::new).take(PIECES).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().map(HashTable::len).sum()
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        self.pieces[piece(hash)].find(hash, is_it)
    }

    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.pieces[piece(hash)].find_mut(hash, is_it)
    }

    pub(crate) fn find_entry(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
    ) -> Result<OccupiedEntry<'_, T>, AbsentEntry<'_, T>> {
        self.pieces[piece(hash)].find_entry(hash, is_it)
    }

    /// The first entry that may be of a hash.
    #[inline]
    pub(crate) fn likely(&self, hash: u64) -> Option<&T> {
        self.pieces[piece(hash)].iter_hash(hash).next()
    }

    pub(crate) fn insert_unique(&mut self, hash: u64, value: T, hasher: impl Fn(&T) -> u64) {
        self.pieces[piece(hash)].insert_unique(hash, value, hasher);
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| size_of_val(piece) + piece.allocation_size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use vswitch_frame::hash::spread;

    use super::*;

    #[test]
    fn entries_are_found_while_it_grows_and_shrinks() {
        let mut index = Index::new();
        for number in 0..20_000u64 {
            index.insert_unique(spread(number), number, |number| spread(*number));
        }
        assert_eq!(index.len(), 20_000);
        let largest = index.pieces.iter().map(HashTable::capacity).max();
        assert!(largest.is_some_and(|largest| largest < 500), "a piece of {largest:?}");
        for number in (0..20_000).step_by(2) {
            let found = index.find_entry(spread(number), |found| *found == number);
            found.expect("it is there").remove();
        }
        for number in 0..20_000 {
            let found = index.find(spread(number), |found| *found == number);
            assert_eq!(found.is_some(), number % 2 == 1, "{number}");
        }
    }
}
