//! Reading the addresses of IP packets, and writing the packets the gateway sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::{ETHERNET_BYTES, Transport, be16, ethertype};
use vswitch_frame::{Checksum, DropReason, Frame, Mac};

/// IP protocol numbers.
pub(crate) mod protocol {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
}

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6_BYTES: usize = 40;
/// Time to live and hop limit of what the gateway sends (RFC 1700).
const TTL: u8 = 64;
/// Hop limit of neighbour discovery, by which the receiver knows that no router passed it on (RFC 4861).
pub(crate) const HOP_LIMIT_MAX: u8 = 255;

/// The two MAC addresses of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) source: Mac,
    pub(crate) target: Mac,
}

/// The source and target of an IP packet. The frame must have been parsed and be IP.
pub(crate) fn addresses(frame: &Frame) -> (IpAddr, IpAddr) {
    let packet = &frame.bytes()[frame.headers.network_offset()..];
    if frame.headers.is_ipv4() {
        (v4_at(packet, 12).into(), v4_at(packet, 16).into())
    } else {
        (v6_at(packet, 8).into(), v6_at(packet, 24).into())
    }
}

/// The IPv4 address at an offset, which must be within the bytes.
pub(crate) fn v4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3])
}

/// The IPv6 address at an offset, which must be within the bytes.
pub(crate) fn v6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    octets.into()
}

/// The payload of IP, without padding. The frame must have been parsed and be IP.
pub(crate) fn payload(frame: &Frame) -> &[u8] {
    &frame.bytes()[frame.headers.transport_offset()..frame.headers.end_offset()]
}

/// The port a TCP segment or UDP datagram is for. The frame must have been parsed.
pub(crate) fn target_port(frame: &Frame) -> Option<u16> {
    (frame.headers.transport() != Transport::Other).then(|| be16(payload(frame), 2))
}

/// Whether the transport header is whole and all its work is done: no fragment, no super-frame, no checksum
/// that is still to be finished.
pub(crate) fn is_plain(frame: &Frame) -> bool {
    let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
    !frame.headers.is_fragment() && frame.offload.gso.is_none() && !partial
}

/// Whether a router may fragment an IP packet. The frame must have been parsed and be IP.
pub(crate) fn may_be_fragmented(frame: &Frame) -> bool {
    const DONT_FRAGMENT: u8 = 0x40;
    frame.headers.is_ipv4() && frame.bytes()[frame.headers.network_offset() + 6] & DONT_FRAGMENT == 0
}

/// Checks the checksum of the IPv4 header.
pub(crate) fn check_ipv4_header(frame: &Frame) -> Result<(), DropReason> {
    let header = &frame.bytes()[frame.headers.network_offset()..frame.headers.transport_offset()];
    if Sum::ZERO.add_bytes(header).checksum() == 0 { Ok(()) } else { Err(DropReason::BadChecksum) }
}

/// Writes a big-endian 16-bit field.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a 16-bit word that the checksum at `checksum_at` covers, and carries the checksum on: one that was
/// wrong stays wrong (RFC 1624, equation 3).
pub(crate) fn replace16(bytes: &mut [u8], at: usize, new: u16, checksum_at: usize) {
    let (old, checksum) = (be16(bytes, at), be16(bytes, checksum_at));
    put16(bytes, at, new);
    put16(bytes, checksum_at, Sum::ZERO.add_word(!checksum).add_word(!old).add_word(new).checksum());
}

/// Makes the frame an IPv4 packet, which may not be fragmented (so it needs no identification, RFC 6864).
pub(crate) fn fill_ipv4(
    frame: &mut Frame,
    link: Link,
    [source, target]: [Ipv4Addr; 2],
    protocol: u8,
    payload: &[u8],
) {
    const DONT_FRAGMENT: u16 = 0x4000;
    let mut head = [0; ETHERNET_BYTES + IPV4_BYTES];
    put_ethernet(&mut head, link, ethertype::IPV4);
    let ip = &mut head[ETHERNET_BYTES..];
    ip[0] = 0x45;
    put16(ip, 2, length(IPV4_BYTES + payload.len()));
    put16(ip, 6, DONT_FRAGMENT);
    (ip[8], ip[9]) = (TTL, protocol);
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&target.octets());
    let checksum = Sum::ZERO.add_bytes(ip).checksum();
    put16(ip, 10, checksum);
    fill(frame, &head, payload);
}

/// Makes the frame an ICMPv6 message, with its checksum.
pub(crate) fn fill_icmpv6(
    frame: &mut Frame,
    link: Link,
    [source, target]: [Ipv6Addr; 2],
    hop_limit: u8,
    message: &mut [u8],
) {
    let mut head = [0; ETHERNET_BYTES + IPV6_BYTES];
    put_ethernet(&mut head, link, ethertype::IPV6);
    let ip = &mut head[ETHERNET_BYTES..];
    ip[0] = 0x60;
    put16(ip, 4, length(message.len()));
    (ip[6], ip[7]) = (protocol::ICMPV6, hop_limit);
    ip[8..24].copy_from_slice(&source.octets());
    ip[24..40].copy_from_slice(&target.octets());
    put16(message, 2, 0);
    put16(message, 2, icmpv6_sum(&head[ETHERNET_BYTES + 8..], message).checksum());
    fill(frame, &head, message);
}

/// The sum an ICMPv6 checksum is made of (RFC 4443, 2.3), from source and target as they stand in the header.
pub(crate) fn icmpv6_sum(addresses: &[u8], message: &[u8]) -> Sum {
    let pseudo = Sum::ZERO.add_bytes(addresses).add_word(length(message.len()));
    pseudo.add_word(u16::from(protocol::ICMPV6)).add_bytes(message)
}

/// The hop limit of what the gateway sends as any host would.
pub(crate) const fn default_hop_limit() -> u8 {
    TTL
}

fn put_ethernet(head: &mut [u8], link: Link, ether_type: u16) {
    head[..6].copy_from_slice(&link.target.0);
    head[6..12].copy_from_slice(&link.source.0);
    put16(head, 12, ether_type);
}

fn fill(frame: &mut Frame, head: &[u8], payload: &[u8]) {
    frame.fill(head);
    let appended = frame.append(payload);
    debug_assert!(appended.is_ok(), "{} bytes are too many", payload.len());
}

/// The length of a packet, which is written in 16 bits.
pub(crate) fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}
