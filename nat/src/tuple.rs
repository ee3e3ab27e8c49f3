//! Names of packets: two addresses, two ports, a protocol, and the realm it is seen from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_frame::NetworkId;

/// An IP address of either family in 16 bytes: IPv4 in its mapped form (RFC 4291, 2.5.5.2), which is
/// never seen on a wire and refused if it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(into = "IpAddr", from = "IpAddr")
)]
#[repr(transparent)]
pub struct Address([u8; 16]);

impl Address {
    /// From the four bytes of an IPv4 header.
    #[inline]
    pub(crate) fn v4(bytes: [u8; 4]) -> Self {
        let [a, b, c, d] = bytes;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// From the sixteen bytes of an IPv6 header.
    #[inline]
    pub(crate) fn v6(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Whether it is an IPv4 address.
    #[inline]
    pub fn is_v4(self) -> bool {
        self.0[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
    }

    /// The address as the standard library has it.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }

    /// The bytes an IPv4 header holds.
    #[inline]
    pub(crate) fn v4_bytes(self) -> [u8; 4] {
        let [.., a, b, c, d] = self.0;
        [a, b, c, d]
    }

    /// The bytes an IPv6 header holds.
    #[inline]
    pub(crate) fn v6_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether a router may forward a packet from or to it (RFC 1122, 3.2.1.3; RFC 3927, 2.7; RFC 4291,
    /// 2.5): a unicast address that is neither loopback nor link-local.
    pub(crate) fn is_routable(self) -> bool {
        match self.ip() {
            IpAddr::V4(ip) => {
                let [first, ..] = ip.octets();
                first != 0 && first != 127 && first < 224 && !ip.is_link_local()
            }
            IpAddr::V6(ip) => {
                !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !ip.is_unicast_link_local()
            }
        }
    }

    /// Two words for a hash.
    #[inline]
    pub(crate) fn words(self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.0;
        [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)]
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.octets()),
            IpAddr::V6(ip) => Self(ip.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        address.ip()
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Self::v4(ip.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Self {
        Self(ip.octets())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.ip(), f)
    }
}

/// The side a packet is seen from: one of the networks, or outside of all of them.
///
/// Networks may use the same addresses, so an inside address means nothing without its realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(transparent)]
pub struct Realm(u16);

impl Realm {
    /// Beyond the uplink.
    pub const OUTSIDE: Realm = Realm(u16::MAX);

    /// A network.
    pub const fn network(network: NetworkId) -> Self {
        Self(network.0)
    }

    /// The network, or `None` for outside.
    pub fn inside(self) -> Option<NetworkId> {
        (self != Self::OUTSIDE).then_some(NetworkId(self.0))
    }

    pub(crate) fn word(self) -> u64 {
        u64::from(self.0)
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

const _: () = assert!(NetworkId::LIMIT < u16::MAX as usize);

/// A protocol that is translated, by its number in an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(u8)]
pub enum Protocol {
    /// ICMP: queries by their identifier.
    Icmp = 1,
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// ICMP for IPv6.
    Icmp6 = 58,
    /// SCTP: addresses only. Its checksum covers the ports and is not of a kind that can be adjusted.
    Sctp = 132,
}

impl Protocol {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Icmp, Self::Tcp, Self::Udp, Self::Icmp6, Self::Sctp];
        all.into_iter().find(|protocol| *protocol as u8 == number)
    }

    pub(crate) fn word(self) -> u64 {
        u64::from(self as u8)
    }

    /// Whether its outside ports are claimed by control before use. Nobody holds identifiers of queries,
    /// and the ports of SCTP are not ours to choose.
    pub(crate) fn is_claimed(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// A packet's name: where it comes from and where it goes, as it is on the wire of its realm.
///
/// A query of ICMP has its identifier as the source port, its reply as the target port; the other is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[repr(C)]
pub struct Tuple {
    /// The sender's address.
    pub source: Address,
    /// The receiver's address.
    pub target: Address,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub target_port: u16,
    /// Where it was sent.
    pub realm: Realm,
    /// Its protocol.
    pub protocol: Protocol,
    /// The ICMP type of a query or its reply; zero for other protocols.
    pub kind: u8,
}

impl Tuple {
    /// The tuple of an answer to a packet of this one, in the same realm.
    pub(crate) fn reversed(self) -> Self {
        Self {
            source: self.target,
            target: self.source,
            source_port: self.target_port,
            target_port: self.source_port,
            kind: reply_kind(self.protocol, self.kind),
            ..self
        }
    }

    /// The end that sends.
    pub(crate) fn source_end(&self) -> End {
        End { address: self.source, port: self.source_port, realm: self.realm, protocol: self.protocol }
    }

    /// The end that is sent to.
    pub(crate) fn target_end(&self) -> End {
        End { address: self.target, port: self.target_port, realm: self.realm, protocol: self.protocol }
    }

    #[inline]
    pub(crate) fn words(&self) -> [u64; 5] {
        let [a, b] = self.source.words();
        let [c, d] = self.target.words();
        let ports = u64::from(self.source_port) << 48 | u64::from(self.target_port) << 32;
        [a, b, c, d, ports | self.realm.word() << 16 | self.protocol.word() << 8 | u64::from(self.kind)]
    }
}

/// The ICMP type that answers one, both ways; zero for what has no types.
pub(crate) fn reply_kind(protocol: Protocol, kind: u8) -> u8 {
    match (protocol, kind) {
        (Protocol::Icmp, 8) => 0,
        (Protocol::Icmp, 0) => 8,
        (Protocol::Icmp, 13) => 14,
        (Protocol::Icmp, 14) => 13,
        (Protocol::Icmp6, 128) => 129,
        (Protocol::Icmp6, 129) => 128,
        _ => 0,
    }
}

/// One end of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) address: Address,
    pub(crate) port: u16,
    pub(crate) realm: Realm,
    pub(crate) protocol: Protocol,
}

impl End {
    #[inline]
    pub(crate) fn words(&self) -> [u64; 3] {
        let [a, b] = self.address.words();
        [a, b, u64::from(self.port) << 32 | self.realm.word() << 16 | self.protocol.word()]
    }
}
