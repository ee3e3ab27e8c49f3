//! Limits on what containers can make the switch remember.

use std::time::Duration;

/// Bounds on learned addresses. Fixed addresses are configuration and do not count as learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses learned at all ports together. At the limit a new address is not learned: frames from
    /// it still flow, frames to it are flooded, and [`Stats::unlearned`](crate::Stats::unlearned) counts.
    pub addresses_total: usize,
    /// Addresses learned at one port, with the same effect at the limit, so that one container cannot
    /// use up what is there for all. Also the most fixed addresses one port may have.
    pub addresses_per_port: usize,
    /// The time by which a learned address outlives the last frame from it, at least.
    /// It is gone [`Limits::AGE_SLACK`] of that later, at most.
    pub age: Duration,
}

impl Limits {
    /// Ageing looks at the table no more often than every `age / AGE_SLACK`.
    pub const AGE_SLACK: u32 = 16;
}

impl Default for Limits {
    /// 65,536 addresses, 1,024 at a port, for 300 seconds (IEEE 802.1Q-2022, table 8-6).
    fn default() -> Self {
        Self { addresses_total: 65_536, addresses_per_port: 1024, age: Duration::from_secs(300) }
    }
}
