//! A flow: two ends that talk, as the frames of a container name them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use vswitch_frame::NetworkId;

/// The name of a container's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) network: NetworkId,
    pub(crate) container: SocketAddr,
    /// The end that the container takes for the client.
    pub(crate) source: SocketAddr,
}

impl Flow {
    /// All flows that there can be of a container's address, in the order of flows.
    pub(crate) fn all_of(network: NetworkId, container: IpAddr) -> RangeInclusive<Self> {
        let first = SocketAddr::from(([0; 4], 0));
        let last = SocketAddr::from((Ipv6Addr::from_bits(u128::MAX), u16::MAX));
        let at = |port, source| Self { network, container: (container, port).into(), source };
        // The order of sources ends with a scope, which none of ours has.
        at(0, first)..=at(u16::MAX, last)
    }
}
