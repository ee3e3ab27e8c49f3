//! The house that is attacked, room by room: who is where, with which addresses.
//!
//! | network | |
//! |---|---|
//! | 1 | containers reach each other and the world; one publishes TCP 80 |
//! | 2 | internal |
//! | 3 | containers do not reach each other |
//! | 4 | an overlay, with one endpoint on another host |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_contract::reserved::uplink;
use vswitch_frame::{Mac, NetworkId, PortId};

/// The addresses of the host on its uplink.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// See [`HOST_V4`].
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// Another address of the host.
pub const HOST_OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The router on the uplink's link.
pub const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// See [`ROUTER_V4`].
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The router's MAC address.
pub const ROUTER_MAC: [u8; 6] = [2, 0xff, 0, 0, 0, 1];
/// Somebody far away.
pub const FAR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// See [`FAR_V4`].
pub const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80);
/// The host's port that is published, and the container's.
pub const PUBLISHED: (u16, u16) = (8080, 80);
/// The port that rules forbid to TCP on network 1.
pub const FORBIDDEN: u16 = 22;
/// The networks.
pub const NETWORKS: [u16; 4] = [1, 2, 3, 4];
/// The network that is internal.
pub const INTERNAL: u16 = 2;
/// The network whose containers do not reach each other.
pub const APART: u16 = 3;
/// The network that spans hosts.
pub const OVERLAY: u16 = 4;

/// The role of whoever is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A container.
    Container,
    /// The host's stack, on a network.
    Host,
    /// The world, behind the uplink.
    World,
    /// Another host of the overlay, with one endpoint.
    Beyond,
}

/// A place from which frames come, or to which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name in messages.
    pub name: char,
    /// Its network; 0 for the world.
    pub network: u16,
    /// The last byte of its addresses.
    pub number: u8,
    /// The role of whoever is there.
    pub role: Role,
}

const fn container(name: char, network: u16, number: u8) -> Place {
    Place { name, network, number, role: Role::Container }
}

const fn host(name: char, network: u16) -> Place {
    Place { name, network, number: 1, role: Role::Host }
}

/// The container that publishes a port.
pub const SERVER: Place = container('b', 1, 3);
/// The world.
pub const WORLD: Place = Place { name: 'u', network: 0, number: 0xfe, role: Role::World };
/// The other host.
pub const BEYOND: Place = Place { name: 't', network: OVERLAY, number: 9, role: Role::Beyond };

/// Every place.
pub const PLACES: [Place; 13] = [
    container('a', 1, 2),
    SERVER,
    container('c', INTERNAL, 2),
    container('d', INTERNAL, 3),
    container('e', APART, 2),
    container('f', APART, 3),
    container('g', OVERLAY, 2),
    BEYOND,
    WORLD,
    host('h', 1),
    host('i', INTERNAL),
    host('j', APART),
    host('k', OVERLAY),
];

/// The gateway's MAC address on a network.
pub fn gateway_mac(network: u16) -> [u8; 6] {
    host(' ', network).mac()
}

/// The addresses of the gateway of a network.
pub fn gateway(network: u16) -> (Ipv4Addr, Ipv6Addr) {
    (host(' ', network).v4(), host(' ', network).v6())
}

fn low(network: u16) -> u8 {
    network.to_be_bytes()[1]
}

impl Place {
    /// Its port.
    pub fn port(&self) -> PortId {
        match self.role {
            Role::World => uplink(0),
            Role::Container | Role::Host | Role::Beyond => PortId(self.network * 16 + u16::from(self.number)),
        }
    }

    /// Its network.
    pub fn network_id(&self) -> NetworkId {
        NetworkId(self.network)
    }

    /// Its MAC address: of the other host that of its endpoint, of the world that of the host's uplink.
    pub fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, low(self.network), self.number]
    }

    /// Its MAC address.
    pub fn mac_address(&self) -> Mac {
        Mac(self.mac())
    }

    /// Its IPv4 address; of the world the host's.
    pub fn v4(&self) -> Ipv4Addr {
        if self.role == Role::World {
            return HOST_V4;
        }
        Ipv4Addr::new(10, low(self.network), 0, self.number)
    }

    /// Its IPv6 address; of the world the host's.
    pub fn v6(&self) -> Ipv6Addr {
        if self.role == Role::World {
            return HOST_V6;
        }
        Ipv6Addr::new(0xfd00, 0, 0, self.network, 0, 0, 0, u16::from(self.number))
    }

    /// Its link-local address, made of its MAC (RFC 4291, appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac();
        let high = [0xfe, 0x80, 0, 0, 0, 0, 0, 0];
        let low = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&high);
        octets[8..].copy_from_slice(&low);
        octets.into()
    }

    /// Whether an address is one of its own.
    pub fn owns(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.v4())
            || address == IpAddr::V6(self.v6())
            || address == IpAddr::V6(self.link_local())
    }
}
