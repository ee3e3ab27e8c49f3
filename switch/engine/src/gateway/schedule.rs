//! The times at which networks are told of their router.

use std::time::Duration;

use vswitch_frame::{Instant, NetworkId};

/// The first few follow each other quickly (RFC 4861, 10).
const INITIAL: u32 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(16);
/// After that, a random time between these passes (RFC 4861, 6.2.1).
const INTERVAL_MIN_SECS: u64 = 198;
const INTERVAL_MAX_SECS: u64 = 600;

/// The time when a network is told of its router next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Schedule {
    pub(super) at: Instant,
    sent: u32,
}

/// An advertisement that is due: of which network, and whether for those whom its gateway leads further.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) network: NetworkId,
    pub(super) leads_further: bool,
}

impl Schedule {
    /// Sets the time of the next one, after one was sent. `random` is any number.
    pub(super) fn advance(&mut self, now: Instant, random: u64) {
        self.sent = self.sent.saturating_add(1);
        let span = INTERVAL_MAX_SECS - INTERVAL_MIN_SECS + 1;
        let interval = Duration::from_secs(INTERVAL_MIN_SECS + random % span);
        self.at = now + if self.sent < INITIAL { interval.min(INITIAL_INTERVAL) } else { interval };
    }
}

/// Spreads a number over all bits (the finalizer of SplitMix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_follow_quickly_and_the_rest_at_random() {
        let mut schedule = Schedule::default();
        let mut now = Instant::ZERO;
        for round in 0..100u64 {
            schedule.advance(now, mix(round));
            let interval = schedule.at.since(now);
            if round < 2 {
                assert_eq!(interval, INITIAL_INTERVAL);
            } else {
                let secs = interval.as_secs();
                assert!((INTERVAL_MIN_SECS..=INTERVAL_MAX_SECS).contains(&secs), "{secs}");
            }
            now = schedule.at;
        }
    }
}
