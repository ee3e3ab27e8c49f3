//! Waiting for work.

use serde::{Deserialize, Serialize};

/// The conduct of the poll loop while there is no work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PollMode {
    /// Spins for a moment after work, then sleeps.
    #[default]
    Adaptive,
    /// Never sleeps: takes a core, answers fastest.
    Busy,
    /// Never spins.
    Sleep,
}
