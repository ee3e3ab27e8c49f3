//! Limits of the proxy, and how memory is shared out.
//!
//! | limit | at the limit |
//! |---|---|
//! | [`Limits::relays`] | a relay of who has the most ([`shares`](crate::shares)), or a new one, is reset |
//! | [`Limits::bytes`] | new relays have smaller buffers; if the smallest do not fit, as above |
//! | [`Limits::sessions`] | a session of who has the most ends, or the datagram of a new client is dropped |
//! | ports of the gateway's address to one container port | a new connection is reset, a datagram dropped |
//!
//! Buffers are big as long as there are few relays. For every relay that may still come, room for the
//! smallest buffers is set aside; of what is left over, a new relay gets a small part, but no client gets
//! more than it leaves to others, and no publication more than twice that.

use crate::shares::Part;

/// Relays, memory and sessions that the proxy may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP relays.
    pub relays: usize,
    /// Bytes of the buffers of all TCP relays together.
    pub bytes: usize,
    /// UDP sessions.
    pub sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { relays: 16_384, bytes: 1 << 30, sessions: 16_384 }
    }
}

/// Bytes of a buffer for one direction, when memory is scarce.
pub const BUFFER_MIN: usize = 16 * 1024;
/// Bytes of a buffer for one direction, when memory is plenty: four of the largest super-frames.
pub const BUFFER_MAX: usize = 256 * 1024;
/// A new relay gets this part of the memory that is left over.
const SHARE: usize = 64;

/// Memory and places that are left.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) relays: usize,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { relays: limits.relays, bytes: limits.bytes }
    }

    /// Takes a place, and memory for the two buffers of a relay: answers the bytes of each. The new relay is
    /// of a client that has so much already, at a publication that has.
    pub(crate) fn take(&mut self, (client, publication): (Part, Part)) -> Option<usize> {
        let relays = self.relays.checked_sub(1)?;
        let over = self.bytes.saturating_sub(self.relays.saturating_mul(2 * BUFFER_MIN));
        let allowed = over.saturating_sub(client.bytes).min(over.saturating_sub(publication.bytes / 2));
        let buffer = (BUFFER_MIN + (over / 2 / SHARE).min(allowed / 2)).min(BUFFER_MAX);
        self.bytes = self.bytes.checked_sub(2 * buffer)?;
        self.relays = relays;
        Some(buffer)
    }

    /// Gives back what [`take`](Self::take) took.
    pub(crate) fn give_back(&mut self, buffer: usize) {
        self.relays += 1;
        self.bytes += 2 * buffer;
    }
}

/// Bytes that a relay has beyond the smallest buffers.
pub(crate) fn beyond_least(buffer: usize) -> usize {
    2 * (buffer - BUFFER_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: (Part, Part) = (Part { count: 0, bytes: 0 }, Part { count: 0, bytes: 0 });

    #[test]
    fn buffers_shrink_and_every_relay_gets_some() {
        let mut budget = Budget::new(Limits::default());
        let buffers: Vec<usize> = std::iter::from_fn(|| budget.take(NOBODY)).collect();
        assert_eq!(buffers.len(), Limits::default().relays);
        assert_eq!(buffers[0], BUFFER_MAX);
        assert!(buffers.is_sorted_by(|one, next| one >= next));
        assert!(buffers.iter().all(|&buffer| buffer >= BUFFER_MIN));
        assert!(buffers.iter().map(|buffer| 2 * buffer).sum::<usize>() <= Limits::default().bytes);
        buffers.iter().for_each(|&buffer| budget.give_back(buffer));
        assert_eq!((budget.relays, budget.bytes), (Limits::default().relays, Limits::default().bytes));
    }

    #[test]
    fn without_memory_there_is_no_relay() {
        let mut budget = Budget::new(Limits { relays: 9, bytes: 5 * BUFFER_MIN, sessions: 0 });
        let taken = [(); 3].map(|()| budget.take(NOBODY));
        assert_eq!(taken, [Some(BUFFER_MIN), Some(BUFFER_MIN), None]);
        assert_eq!(budget.relays, 7);
    }

    #[test]
    fn nobody_gets_more_than_it_leaves_to_others() {
        let mut budget = Budget::new(Limits::default());
        let mut own = Part::default();
        while let Some(buffer) = budget.take((own, own)) {
            own.bytes += beyond_least(buffer);
        }
        budget.relays = Limits::default().relays / 2;
        budget.bytes += budget.relays * 2 * BUFFER_MIN;
        assert_eq!(budget.take(NOBODY), Some(BUFFER_MAX), "who comes later");
    }
}
