//! The identification of IPv4 packets, by which a receiver joins fragments (RFC 6864).
//!
//! Containers choose it without regard to each other, and leave with one address: fragments of two datagrams
//! could be taken for one's. So a packet that gets another source address gets another identification, too,
//! if it is a fragment or may become one; on one that may not the field has no meaning, and stays. Towards
//! one target they count up, from where nobody can foresee, so that packets of one flow can still be joined
//! to a super-frame.

use vswitch_frame::hash::SeededHash;

use crate::tuple::Address;

/// Counters. Targets that share one merely skip some values.
const COUNTERS: usize = 256;

/// The next identification for each target.
#[derive(Debug)]
pub(crate) struct Identifications {
    next: [u16; COUNTERS],
    hash: SeededHash,
}

impl Identifications {
    pub(crate) fn new(hash: SeededHash) -> Self {
        let start = |counter: usize| {
            let [low, high, ..] = hash.of(&counter).to_le_bytes();
            u16::from_le_bytes([low, high])
        };
        Self { next: std::array::from_fn(start), hash }
    }

    /// The first of so many identifications, one after the other, for packets to a target.
    pub(crate) fn take(&mut self, target: Address, packets: u16) -> u16 {
        let [index, ..] = self.hash.of_words(&target.words()).to_le_bytes();
        let next = &mut self.next[usize::from(index)];
        let taken = *next;
        *next = taken.wrapping_add(packets);
        taken
    }
}
