//! The budget of ICMP errors: so many at once, and one more from time to time.

use std::time::Duration;

use vswitch_frame::Instant;

/// Frames that [`Switch::serve`](crate::Switch::serve) makes at most in one call, beyond those it was handed.
pub const FRAMES_MADE_MAX: usize = 32;

/// Time in which one more error may be sent.
const REFILL: Duration = Duration::from_millis(10);

/// A budget of errors: a token bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    left: usize,
    refilled: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: FRAMES_MADE_MAX, refilled: Instant::ZERO }
    }
}

impl Budget {
    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.since(self.refilled).as_nanos();
        let fresh = usize::try_from(elapsed / REFILL.as_nanos()).unwrap_or(usize::MAX);
        if fresh > 0 {
            self.left = self.left.saturating_add(fresh).min(FRAMES_MADE_MAX);
            self.refilled = now;
        }
        let has = self.left > 0;
        self.left -= usize::from(has);
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refills_and_does_not_grow() {
        let mut budget = Budget::default();
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let taken = |budget: &mut Budget, now| (0..100).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, at(1000)), FRAMES_MADE_MAX);
        assert_eq!(taken(&mut budget, at(1009)), 0);
        assert_eq!(taken(&mut budget, at(1030)), 3);
        assert_eq!(taken(&mut budget, at(100_000)), FRAMES_MADE_MAX);
    }
}
