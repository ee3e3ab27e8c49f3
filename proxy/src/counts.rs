//! Counts: what has happened to relays and sessions.

/// Counts of what has happened so far, and of what there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// TCP relays there are.
    pub relays: usize,
    /// UDP sessions there are.
    pub sessions: usize,
    /// Connections accepted and not relayed.
    pub refused: u64,
    /// Clients that were refused, or gave way to others, since all relays or sessions were taken.
    pub full: u64,
    /// Relays that ended as they should.
    pub ended: u64,
    /// Relays that ended by a reset, by silence, or because the container is not there.
    pub broken: u64,
    /// Datagrams dropped: of one client too many, or without room at the receiver.
    pub datagrams_dropped: u64,
    /// Datagrams of containers that were not put together: fragments were missing, or did not fit.
    pub fragments_dropped: u64,
    /// Frames with a wrong checksum.
    pub bad_checksums: u64,
}
