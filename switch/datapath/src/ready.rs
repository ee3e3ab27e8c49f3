//! Numbers under which descriptors are waited for. Ports use their own; sockets of relays those from
//! [`RELAYS_FROM`] on.

use vswitch_proxy::Token;

/// The channel to control.
pub(crate) const CHANNEL: usize = usize::MAX;
/// The socket where the next control comes in.
pub(crate) const LISTENER: usize = usize::MAX - 1;
/// The channel on which names are asked.
pub(crate) const RESOLVER: usize = usize::MAX - 2;
/// The receiving socket of tunnels.
pub(crate) const TUNNEL_SOCKET: usize = usize::MAX - 3;
/// The first number of relays' sockets: odd ones listen, even ones are the proxy's.
pub(crate) const RELAYS_FROM: usize = 1 << 16;

/// The number by which a descriptor of the proxy's is waited for.
pub(crate) fn number_of(token: Token) -> Option<usize> {
    usize::try_from(token.0).ok()?.checked_mul(2)?.checked_add(RELAYS_FROM)
}
