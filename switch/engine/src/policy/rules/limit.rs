//! Limits of rules: so many flows at once, and one more from time to time. A limit is a bucket of tokens, as
//! the `limit` match of iptables is.

use std::time::Duration;

use vswitch_frame::Instant;

/// Flows that a rule matches in a time, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Limit {
    /// Flows in each period, from 1 to [`LIMIT_MAX`](Self::LIMIT_MAX).
    pub flows: u32,
    /// The period.
    pub per: Period,
    /// Flows at once, after a time without any; from 1 to [`LIMIT_MAX`](Self::LIMIT_MAX).
    pub burst: u32,
}

impl Limit {
    /// Most flows in a period, and at once: as many as iptables takes.
    pub const LIMIT_MAX: u32 = 10_000;

    /// The time after which there is one token more.
    fn refill(self) -> u64 {
        let period = Duration::from_secs(self.per.seconds()).as_nanos();
        u64::try_from(period).unwrap_or(u64::MAX) / u64::from(self.flows.max(1))
    }
}

/// A period of a [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
    /// A day.
    Day,
}

impl Period {
    fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }
}

/// The bucket of a limit. Its content is time, in nanoseconds; a token is the time of one refill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    token: u64,
    most: u64,
    content: u64,
    filled: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(limit: Limit) -> Self {
        let token = limit.refill();
        let most = token.saturating_mul(limit.burst.max(1).into());
        Self { token, most, content: most, filled: None }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let elapsed = self.filled.map_or(0, |filled| now.since(filled).as_nanos());
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.content = self.content.saturating_add(elapsed).min(self.most);
        self.filled = Some(now);
        let has = self.content >= self.token;
        if has {
            self.content -= self.token;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(Limit { flows: 10, per: Period::Second, burst: 20 });
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now)).count();
        assert_eq!(taken(&mut bucket, at(5000)), 20);
        assert_eq!(taken(&mut bucket, at(5099)), 0);
        assert_eq!(taken(&mut bucket, at(5100)), 1, "time that was too short for a token is not lost");
        assert_eq!(taken(&mut bucket, at(6000)), 9);
        assert_eq!(taken(&mut bucket, at(600_000)), 20);
        let mut rare = Bucket::new(Limit { flows: 1, per: Period::Day, burst: Limit::LIMIT_MAX });
        assert_eq!((0..20_000).filter(|_| rare.take(at(1))).count(), 10_000);
        assert_eq!(taken(&mut rare, at(86_400_001)), 1);
    }
}
