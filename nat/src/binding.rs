//! Published ports: outside ports that lead to a container. A range is one entry.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use vswitch_frame::NetworkId;

use crate::tuple::{Address, End, Protocol, Realm};

/// A published range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Binding {
    /// The host's address; the unspecified one stands for every address of its family.
    pub host: IpAddr,
    /// The first of the host's ports.
    pub host_port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// How many ports.
    pub ports: u16,
    /// The container's network.
    pub network: NetworkId,
    /// The container's address, of the same family as the host's.
    pub container: IpAddr,
    /// The first of the container's ports; those of SCTP must be the host's.
    pub container_port: u16,
    /// The container's sandbox, to which the flows are charged.
    pub sandbox: u32,
    /// The gateway's address on the container's network. Packets from inside come from it, so that the
    /// container, which may have no other way back, answers through the switch.
    pub gateway: IpAddr,
    /// Whether the container sees clients outside by their own addresses. One that has no way back to them,
    /// as on an internal network, sees the gateway's.
    pub keeps_client: bool,
}

/// Why a binding cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingError {
    /// The range is empty, starts at zero, or ends behind 65,535.
    Range,
    /// Addresses of two families: only a relay can translate between them.
    Family,
    /// Not a protocol with ports.
    Protocol,
    /// Other ports in the container than on the host, for SCTP, whose ports are not translated.
    SctpPorts,
    /// Another binding has one of the ports.
    Taken(Binding),
}

impl fmt::Display for BindingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range => {
                f.write_str("a range of ports is within 1 to 65535 and not empty: give such a range")
            }
            Self::Family => f.write_str("host and container address are of two families: give two of one"),
            Self::Protocol => f.write_str("only tcp, udp and sctp have ports: give one of these"),
            Self::SctpPorts => f.write_str("ports of sctp are not translated: give the same port twice"),
            Self::Taken(other) => {
                write!(f, "Bind for {}:{} failed: port is already allocated", other.host, other.host_port)
            }
        }
    }
}

impl std::error::Error for BindingError {}

impl Binding {
    fn check(&self) -> Result<(), BindingError> {
        let fits = |first: u16| first != 0 && first.checked_add(self.ports.saturating_sub(1)).is_some();
        if self.ports == 0 || !fits(self.host_port) || !fits(self.container_port) {
            return Err(BindingError::Range);
        }
        let family = self.host.is_ipv4();
        if self.container.is_ipv4() != family || self.gateway.is_ipv4() != family {
            return Err(BindingError::Family);
        }
        match self.protocol {
            Protocol::Icmp | Protocol::Icmp6 => Err(BindingError::Protocol),
            Protocol::Sctp if self.host_port != self.container_port => Err(BindingError::SctpPorts),
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => Ok(()),
        }
    }

    fn last(&self) -> u16 {
        self.host_port.saturating_add(self.ports.saturating_sub(1))
    }

    /// The host's ports.
    pub fn host_ports(&self) -> RangeInclusive<u16> {
        self.host_port..=self.last()
    }

    pub(crate) fn key(&self) -> Key {
        (self.protocol, Address::from(self.host), self.host_port)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let hosts = self.host == other.host
            || self.host.is_ipv4() == other.host.is_ipv4()
                && (self.host.is_unspecified() || other.host.is_unspecified());
        hosts
            && self.protocol == other.protocol
            && self.host_port <= other.last()
            && other.host_port <= self.last()
    }

    /// The container's end of a port of the host.
    pub(crate) fn container_end(&self, host_port: u16) -> End {
        End {
            address: self.container.into(),
            port: self.container_port + (host_port - self.host_port),
            realm: Realm::network(self.network),
            protocol: self.protocol,
        }
    }

    /// Whether one of the host's ends is of this binding.
    pub(crate) fn holds(&self, end: &End) -> bool {
        let host = Address::from(self.host) == end.address
            || self.host.is_unspecified() && self.host.is_ipv4() == end.address.is_v4();
        host && self.protocol == end.protocol && self.host_ports().contains(&end.port)
    }
}

/// Protocol, the host's address, its first port: of one publication only.
pub(crate) type Key = (Protocol, Address, u16);

/// All published ports: ranges that do not overlap, so the last that starts before a port is the only one
/// that may hold it.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    ranges: BTreeMap<Key, Binding>,
}

impl Bindings {
    pub(crate) fn add(&mut self, binding: Binding) -> Result<(), BindingError> {
        binding.check()?;
        if let Some(other) = self.ranges.values().find(|other| other.overlaps(&binding)) {
            return Err(BindingError::Taken(*other));
        }
        self.ranges.insert(binding.key(), binding);
        Ok(())
    }

    pub(crate) fn has(&self, binding: &Binding) -> bool {
        self.ranges.get(&binding.key()) == Some(binding)
    }

    pub(crate) fn remove(&mut self, binding: &Binding) {
        self.ranges.remove(&binding.key());
    }

    /// The binding of one of the host's ends.
    pub(crate) fn find(&self, end: &End) -> Option<&Binding> {
        if self.ranges.is_empty() {
            return None;
        }
        let any: IpAddr =
            if end.address.is_v4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        [end.address, any.into()].into_iter().find_map(|host| {
            let before = self.ranges.range((end.protocol, host, 0)..=(end.protocol, host, end.port));
            before.last().map(|(_, binding)| binding).filter(|binding| binding.last() >= end.port)
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.ranges.values()
    }
}
