//! A frame as policy sees it: who talks to whom, and how.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_frame::headers::{be16, protocol};
use vswitch_frame::{Frame, Headers};

use crate::network::Family;

/// TCP flags (RFC 9293, 3.1).
pub(super) mod flags {
    pub(in crate::policy) const FIN: u8 = 0x01;
    pub(in crate::policy) const SYN: u8 = 0x02;
    pub(in crate::policy) const RST: u8 = 0x04;
    pub(in crate::policy) const ACK: u8 = 0x10;
}

/// Two ends and a protocol, as a packet names them. An echo request has its identifier as the sender's
/// port and 0 as the receiver's, a reply the other way round; protocols without ports have 0 twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) protocol: u8,
}

impl Tuple {
    /// The tuple as the other end names it.
    pub(crate) fn reversed(self) -> Self {
        Self { from: self.to, to: self.from, protocol: self.protocol }
    }
}

/// An IP packet that rules can be about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) tuple: Tuple,
    /// Of an ICMP error: the packet it is about.
    pub(crate) about: Option<Tuple>,
    /// TCP flags, or 0.
    pub(crate) flags: u8,
    /// Whether it is a fragment, and not the first of its datagram: then its ports are not known.
    pub(crate) is_fragment: bool,
    /// Whether it is the first of several fragments.
    pub(crate) is_first_fragment: bool,
    /// The identification of its datagram, if it is a fragment.
    pub(crate) datagram: u32,
    /// Whether it does not show what it carries, and may carry anything.
    pub(crate) is_hidden: bool,
}

impl Packet {
    /// The packet that a frame carries, or `None` if that is not IP or is what makes IP work on a link:
    /// neighbour discovery and group management. The frame must have been parsed.
    pub(crate) fn of(frame: &Frame) -> Option<Self> {
        let (bytes, headers) = (frame.bytes(), frame.headers);
        let (from, to) = addresses(bytes, &headers)?;
        let segment = bytes.get(headers.transport_offset()..headers.end_offset())?;
        let number = headers.protocol();
        let is_whole = !headers.is_fragment();
        if is_whole && is_link_upkeep(number, segment) {
            return None;
        }
        let (is_fragment, is_first_fragment) = (headers.is_later_fragment(), headers.is_first_fragment());
        let is_hidden = headers.is_hidden() || !is_whole && shows_too_little(bytes, &headers, segment);
        let shows = !is_fragment && !is_hidden;
        let ports = if shows { ports(number, segment) } else { (0, 0) };
        let tuple = Tuple { from: (from, ports.0), to: (to, ports.1), protocol: number };
        let about = if is_whole { quoted(number, segment) } else { None };
        let is_tcp = number == protocol::TCP && shows;
        let flags = if is_tcp { segment.get(13).copied().unwrap_or(0) } else { 0 };
        let datagram = if is_whole { 0 } else { identification(bytes, &headers) };
        Some(Self { tuple, about, flags, is_fragment, is_first_fragment, datagram, is_hidden })
    }

    /// The two ends without ports: what all fragments of a datagram share.
    pub(super) fn bare_tuple(&self) -> Tuple {
        let Tuple { from, to, protocol } = self.tuple;
        Tuple { from: (from.0, 0), to: (to.0, 0), protocol }
    }

    pub(crate) fn family(&self) -> Family {
        if self.tuple.from.0.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub(crate) fn is_icmp(&self) -> bool {
        matches!(self.tuple.protocol, protocol::ICMP | protocol::ICMPV6)
    }

    /// Whether it asks for a new TCP connection.
    pub(crate) fn is_opening(&self) -> bool {
        self.flags & (flags::SYN | flags::ACK | flags::RST) == flags::SYN
    }

    /// Whether one host is meant, so that it can answer.
    pub(crate) fn has_one_receiver(&self) -> bool {
        match self.tuple.to.0 {
            IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast(),
            IpAddr::V6(address) => !address.is_multicast(),
        }
    }
}

/// Source and destination address of an IP packet.
pub(crate) fn addresses(bytes: &[u8], headers: &Headers) -> Option<(IpAddr, IpAddr)> {
    let at = headers.network_offset();
    if headers.is_ipv4() {
        return Some((ipv4(bytes.get(at + 12..)?)?, ipv4(bytes.get(at + 16..)?)?));
    }
    if headers.is_ipv6() {
        return Some((ipv6(bytes.get(at + 8..)?)?, ipv6(bytes.get(at + 24..)?)?));
    }
    None
}

fn ipv4(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

fn ipv6(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// Whether a fragment hides what rules look at: a first one without the whole header of its transport, or one
/// that would write over the flags in that of TCP (RFC 1858, 3; RFC 3128).
fn shows_too_little(bytes: &[u8], headers: &Headers, segment: &[u8]) -> bool {
    let is_tcp = headers.protocol() == protocol::TCP;
    if headers.is_first_fragment() {
        let least = if is_tcp { 20 } else { 8 };
        return segment.len() < least;
    }
    const TCP_BYTES: u16 = 20;
    is_tcp && fragment_offset(bytes, headers) < TCP_BYTES
}

/// The place of a fragment in its datagram, in bytes.
fn fragment_offset(bytes: &[u8], headers: &Headers) -> u16 {
    if headers.is_ipv4() {
        return (be16(bytes, headers.network_offset() + 6) & 0x1fff) << 3;
    }
    // Nothing is looked through behind the fragment header of a later fragment.
    be16(bytes, headers.transport_offset() - 6) & 0xfff8
}

/// The identification that the fragments of a datagram share.
fn identification(bytes: &[u8], headers: &Headers) -> u32 {
    let network = headers.network_offset();
    if headers.is_ipv4() {
        return be16(bytes, network + 4).into();
    }
    headers.fragment_id(bytes).unwrap_or(0)
}

/// Neighbour discovery, MLD (RFC 4861, RFC 3810) and IGMP: without them no packet finds its way, as without
/// ARP.
fn is_link_upkeep(number: u8, segment: &[u8]) -> bool {
    let kind = segment.first().copied().unwrap_or(0);
    match number {
        protocol::IGMP => true,
        protocol::ICMPV6 => matches!(kind, 130..=137 | 143),
        _ => false,
    }
}

/// The ports at the start of a segment.
fn ports(number: u8, segment: &[u8]) -> (u16, u16) {
    const SCTP: u8 = 132;
    let word = |at: usize| segment.get(at..at + 2).map_or(0, |word| be16(word, 0));
    let kind = segment.first().copied().unwrap_or(0);
    match (number, kind) {
        (protocol::TCP | protocol::UDP | SCTP, _) => (word(0), word(2)),
        (protocol::ICMP, 8) | (protocol::ICMPV6, 128) => (word(4), 0),
        (protocol::ICMP, 0) | (protocol::ICMPV6, 129) => (0, word(4)),
        _ => (0, 0),
    }
}

/// The packet that an ICMP error is about: its header and the start of its transport are quoted behind the
/// eight bytes of the error's own (RFC 792, RFC 4443). Extension headers are not looked through.
fn quoted(number: u8, segment: &[u8]) -> Option<Tuple> {
    const ERROR_BYTES: usize = 8;
    let kind = *segment.first()?;
    let packet = segment.get(ERROR_BYTES..)?;
    const OFFSET: u16 = 0x1fff;
    let (from, to, inner, at) = match (number, kind) {
        (protocol::ICMP, 3 | 11 | 12) if packet.first()? >> 4 == 4 => {
            if be16(packet.get(6..8)?, 0) & OFFSET != 0 {
                return None;
            }
            let header = usize::from(packet[0] & 0xf) * 4;
            (ipv4(packet.get(12..)?)?, ipv4(packet.get(16..)?)?, *packet.get(9)?, header)
        }
        (protocol::ICMPV6, 1..=4) if packet.first()? >> 4 == 6 => {
            (ipv6(packet.get(8..)?)?, ipv6(packet.get(24..)?)?, *packet.get(6)?, 40)
        }
        _ => return None,
    };
    let ports = ports(inner, packet.get(at..)?);
    Some(Tuple { from: (from, ports.0), to: (to, ports.1), protocol: inner })
}
