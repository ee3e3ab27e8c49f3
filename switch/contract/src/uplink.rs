//! The way out of the host: interfaces that lead there, and ports that flows leave with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
pub use vswitch_engine::{Hop, Route};
use vswitch_frame::Mac;

/// An uplink, as control describes it. Its descriptor is a packet socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkSpec {
    /// The name of the interface.
    pub interface: String,
    /// The MAC address of the interface; `None` for one without a link layer, such as a TUN: what it is
    /// handed is an IP packet, and who is behind it needs no finding.
    pub mac: Option<Mac>,
    /// The largest packet it takes, in bytes.
    pub mtu: u16,
    /// The address that IPv4 flows leave with.
    pub v4: Option<Ipv4Addr>,
    /// The address that IPv6 flows leave with.
    pub v6: Option<Ipv6Addr>,
    /// The address with which routers on its link are asked for theirs that have one of the link only.
    #[serde(default)]
    pub link_local: Option<Ipv6Addr>,
    /// The host's routes; of those to one destination the preferred one first.
    pub routes: Vec<Route>,
}

impl UplinkSpec {
    /// The addresses that flows leave with.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.v4.map(IpAddr::from), self.v6.map(IpAddr::from)].into_iter().flatten()
    }
}
