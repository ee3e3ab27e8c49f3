//! The clock. The datapath reads it once a turn; everyone else is handed instants.

use nix::time::{ClockId, clock_gettime};
use vswitch_frame::Instant;

/// `CLOCK_MONOTONIC`, which every process of a host reads alike. In the vDSO: no system call.
pub fn now() -> Instant {
    let time =
        clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}
