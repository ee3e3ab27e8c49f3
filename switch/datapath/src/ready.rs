//! Numbers under which descriptors are waited for. Ports use their own; sockets of relays those from
//! [`RELAYS_FROM`] on.

/// The channel to control.
pub(crate) const CHANNEL: usize = usize::MAX;
/// The socket where the next control comes in.
pub(crate) const LISTENER: usize = usize::MAX - 1;
/// The channel on which names are asked.
pub(crate) const RESOLVER: usize = usize::MAX - 2;
/// The receiving socket of tunnels.
pub(crate) const TUNNEL_SOCKET: usize = usize::MAX - 3;
/// Sockets of relays: odd ones listen, even ones are the proxy's.
pub(crate) const RELAYS_FROM: usize = 1 << 16;
