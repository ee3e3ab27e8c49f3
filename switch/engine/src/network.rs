//! Networks, and the stations behind ports, as control describes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use vswitch_frame::Mac;

/// A network to be: everything the switch must know about it but its ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Network {
    /// Its name, which containers may append to those of its endpoints.
    pub name: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// Its gateway; `None` where nobody answers as one.
    pub gateway: Option<Gateway>,
    /// Whether it is without a way out: nothing is routed from or to it.
    pub internal: bool,
    /// Whether its containers may reach each other.
    pub icc: bool,
    /// Whether what leaves it gets an address of the host.
    pub masquerade: bool,
    /// The address of the host that it gets then, for IPv4; `None` for the uplink's.
    pub source_v4: Option<Ipv4Addr>,
    /// The address of the host that it gets then, for IPv6; `None` for the uplink's.
    pub source_v6: Option<Ipv6Addr>,
    /// Its gateway mode over IPv4: who may reach its containers directly.
    pub mode_v4: GatewayMode,
    /// Its gateway mode over IPv6.
    pub mode_v6: GatewayMode,
    /// Interfaces of the host behind which everybody may reach published ports directly, whatever the mode
    /// but isolated.
    pub trusted: Vec<String>,
    /// Whether a container may only send from its own addresses, and may not pose as a DHCP server or router.
    pub port_security: bool,
    /// Whether names of its endpoints are answered; otherwise queries are only forwarded.
    pub resolves: bool,
    /// Largest network packet, in bytes: told to containers by DHCP and router advertisements.
    pub mtu: u16,
}

impl Network {
    /// Whether who comes in by an interface of the host is trusted to address its containers directly.
    pub(crate) fn trusts(&self, interface: Option<&str>) -> bool {
        interface.is_some_and(|interface| self.trusted.iter().any(|name| name == interface))
    }

    /// Its gateway mode in a family.
    pub fn mode(&self, family: Family) -> GatewayMode {
        match family {
            Family::V4 => self.mode_v4,
            Family::V6 => self.mode_v6,
        }
    }

    /// Whether what leaves it for outside gets an address of the host.
    pub(crate) fn masquerades(&self, family: Family) -> bool {
        self.masquerade && self.mode(family) != GatewayMode::Routed
    }

    /// Whether anybody beyond the networks of this host may name its containers by their own addresses.
    pub(crate) fn is_open(&self, family: Family) -> bool {
        self.mode(family) != GatewayMode::Nat || !self.trusted.is_empty()
    }

    /// The address of the host that what leaves it gets; `None` for the uplink's.
    pub(crate) fn source(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.source_v4.map(IpAddr::from),
            Family::V6 => self.source_v6.map(IpAddr::from),
        }
    }

    /// Its subnets of which addresses may be seen beyond this interface: where containers leave with their
    /// own, or can be reached by them.
    pub fn subnets_in_sight(&self, interface: Option<&str>) -> impl Iterator<Item = IpNet> {
        let trusts = self.trusts(interface);
        let hidden = move |subnet: &&IpNet| {
            let family = if matches!(subnet, IpNet::V4(_)) { Family::V4 } else { Family::V6 };
            let unseen = self.masquerades(family) && self.mode(family) == GatewayMode::Nat;
            self.internal || unseen && !trusts
        };
        self.subnets.iter().filter(move |subnet| !hidden(subnet)).copied()
    }

    /// Whether it has a router to advertise: a gateway and an IPv6 subnet.
    pub(crate) fn advertises_router(&self) -> bool {
        self.gateway.is_some() && self.subnets.iter().any(|subnet| matches!(subnet, IpNet::V6(_)))
    }
}

/// The gateway of a network: the switch itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Gateway {
    /// Its MAC address, which the host port has, too.
    pub mac: Mac,
    /// Its addresses, at most one in each subnet; link-local ones are made of the MAC.
    pub addresses: Vec<IpAddr>,
    /// Whether it only serves names and leases: nothing else is answered at its addresses (`isolated`).
    pub isolated: bool,
}

/// The family of a packet: networks have a gateway mode for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Docker's gateway modes: who may reach a container by its own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GatewayMode {
    /// Only its own network; from elsewhere only published ports of the host lead to it.
    #[default]
    Nat,
    /// Everybody who has a route.
    NatUnprotected,
    /// Everybody who has a route reaches published ports and gets echo replies; nothing is translated.
    Routed,
    /// Not even the host: there is no gateway address.
    Isolated,
}

/// The station behind a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Station {
    /// Somebody of whom nothing is known.
    #[default]
    Unknown,
    /// A container's endpoint.
    Container(Endpoint),
    /// The host itself.
    Host,
    /// Other hosts of the network, each the gateway of its own containers: nothing of theirs is for the
    /// gateway here.
    Tunnel,
}

/// An endpoint on another host, as names are answered for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Remote {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its names on its network, that of the sandbox first.
    pub names: Vec<String>,
}

/// A container's endpoint, as the switch knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Endpoint {
    /// The number of its sandbox: endpoints of one sandbox on several networks share it.
    pub sandbox: u32,
    /// Names of which network come first for its sandbox: the higher, the earlier.
    pub priority: i32,
    /// Its addresses, each with the length of its subnet's prefix.
    pub addresses: Vec<IpNet>,
    /// Its names on this network: that of the sandbox first, then its short identifier, aliases and host
    /// name.
    pub names: Vec<String>,
    /// The gateways of its default routes, at most one a family; DHCP and advertisements tell.
    pub gateways: Vec<IpAddr>,
}
