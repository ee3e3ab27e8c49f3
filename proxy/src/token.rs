//! The number by which a descriptor is waited for.

/// The number of a relay or a listener, by which its descriptor is waited for. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);
