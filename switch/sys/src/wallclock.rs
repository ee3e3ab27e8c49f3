//! The time of day, for people to read; never for measuring.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970-01-01T00:00:00Z; zero on a machine whose clock is before that.
#[expect(clippy::disallowed_methods, reason = "this is the one place where the wall clock is read")]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
