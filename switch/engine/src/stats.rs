//! Counters of the switch, beside the fate of each frame.

/// Counters since the switch was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames whose source was not learned because a limit on learned addresses was reached. They were
    /// switched all the same.
    pub unlearned: u64,
    /// Flows that rules and walls had let through and that were forgotten since their owner has as many as
    /// it may. What goes on in them is judged anew.
    pub displaced: u64,
}
