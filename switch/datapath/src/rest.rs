//! Rest when there is no work: spin for a moment, then sleep.

use std::time::Duration;

use vswitch_contract::poll::PollMode;
use vswitch_frame::Instant;

/// How long to look for work, yielding the core between looks, before sleeping. A container answers
/// within this time more often than not, and being awake then saves it the price of a wake-up.
const SPIN: Duration = Duration::from_micros(50);

/// Decides how long the loop may wait for the next event.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    mode: PollMode,
    worked_at: Instant,
}

impl Rest {
    /// Rests in another mode from now on.
    pub(crate) fn set_mode(&mut self, mode: PollMode) {
        self.mode = mode;
    }

    /// How long to wait: zero to look and go on, `None` until something happens.
    ///
    /// `pressing` says that work is known to be left, `worked` that this turn moved a frame, `wake_at`
    /// when ageing is due.
    pub(crate) fn timeout(
        &mut self,
        pressing: bool,
        worked: bool,
        now: Instant,
        wake_at: Option<Instant>,
    ) -> Option<Duration> {
        if worked {
            self.worked_at = now;
        }
        let spinning = match self.mode {
            PollMode::Adaptive => now.since(self.worked_at) < SPIN,
            PollMode::Busy => true,
            PollMode::Sleep => false,
        };
        if pressing || spinning {
            return Some(Duration::ZERO);
        }
        // epoll counts milliseconds: waiting at least one keeps it from turning idly until due.
        wake_at.map(|at| at.since(now).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resting(mode: PollMode) -> Rest {
        let mut rest = Rest::default();
        rest.set_mode(mode);
        rest
    }

    const LATER: Instant = Instant::from_nanos(1_000_000_000);

    #[test]
    fn adaptive_spins_after_work_and_then_sleeps() {
        let mut rest = resting(PollMode::Adaptive);
        assert_eq!(rest.timeout(false, false, LATER, None), None);
        assert_eq!(rest.timeout(false, true, LATER, None), Some(Duration::ZERO));
        assert_eq!(rest.timeout(false, false, LATER + SPIN / 2, None), Some(Duration::ZERO));
        assert_eq!(rest.timeout(false, false, LATER + SPIN, None), None);
    }

    #[test]
    fn sleep_never_spins_and_busy_never_sleeps() {
        assert_eq!(resting(PollMode::Sleep).timeout(false, true, LATER, None), None);
        assert_eq!(resting(PollMode::Busy).timeout(false, false, LATER, None), Some(Duration::ZERO));
    }

    #[test]
    fn sleep_ends_when_ageing_is_due() {
        let mut rest = resting(PollMode::Sleep);
        let due = LATER + Duration::from_secs(3);
        assert_eq!(rest.timeout(false, false, LATER, Some(due)), Some(Duration::from_secs(3)));
        assert_eq!(rest.timeout(true, false, LATER, Some(due)), Some(Duration::ZERO));
    }
}
