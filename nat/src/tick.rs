//! Time in 32 bits: what a flow remembers of when it was used.

use std::time::Duration;

use vswitch_frame::Instant;

/// A tick is 2^27 nanoseconds, about an eighth of a second; the clock of ticks runs for 18 years.
const SHIFT: u32 = 27;
/// Ticks that differ in so many of their lowest bits only are not noted one by one.
const UNNOTED: u32 = 8;

/// A moment of the clock of ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub(crate) struct Tick(u32);

impl Tick {
    #[inline]
    pub(crate) fn at(now: Instant) -> Self {
        Self(u32::try_from(now.as_nanos() >> SHIFT).unwrap_or(u32::MAX))
    }

    /// The first moment of the tick.
    pub(crate) fn instant(self) -> Instant {
        Instant::from_nanos(u64::from(self.0) << SHIFT)
    }

    /// A tick by which `duration` has passed since any moment of this one.
    pub(crate) fn after(self, duration: Duration) -> Self {
        let ticks = (duration.as_nanos() >> SHIFT) + 2;
        Self(u32::try_from(ticks).map_or(u32::MAX, |ticks| self.0.saturating_add(ticks)))
    }

    /// Whether a later tick is to be noted where this one was: that is so every 34 seconds.
    pub(crate) fn is_noted_again_at(self, later: Self) -> bool {
        self.0 >> UNNOTED != later.0 >> UNNOTED
    }

    /// The last tick that is not noted where this one was.
    pub(crate) fn later_by_unnoted(self) -> Self {
        Self(self.0 | ((1 << UNNOTED) - 1))
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Time since an earlier tick.
    pub(crate) fn since(self, earlier: Tick) -> Duration {
        self.instant().since(earlier.instant())
    }
}
