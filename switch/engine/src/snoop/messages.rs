//! IGMP and MLD on the wire: reading what hosts say, writing queries.
//!
//! IGMPv1 (RFC 1112), IGMPv2 (RFC 2236), IGMPv3 (RFC 3376), MLDv1 (RFC 2710), MLDv2 (RFC 3810). Of a list of
//! sources only its being empty matters: a switch forwards by group (RFC 4541, 2.1.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::{be16, ethertype, protocol};
use vswitch_frame::{Checksum, Frame, Mac};

use crate::link_local::link_local;

/// A host's claim about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Join(IpAddr),
    Leave(IpAddr),
}

/// A message of group management.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A router asks who is there. One without a source address is another switch's.
    Query { by_router: bool },
    /// A host joins or leaves one group.
    One(Claim),
    /// A host says how it stands with several groups.
    Records(Records<'a>),
}

/// The records of an IGMPv3 or MLDv2 report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    left: u16,
    ipv6: bool,
}

impl Iterator for Records<'_> {
    type Item = Option<Claim>;

    /// The next record: what it claims, if anything that matters here.
    fn next(&mut self) -> Option<Option<Claim>> {
        self.left = self.left.checked_sub(1)?;
        let address_bytes = if self.ipv6 { 16 } else { 4 };
        let [kind, auxiliary, ..] = *self.bytes else { return None };
        let sources = usize::from(be16(self.bytes.get(2..4)?, 0));
        let group = address(self.bytes.get(4..)?, self.ipv6)?;
        let length = 4 + address_bytes * (1 + sources) + 4 * usize::from(auxiliary);
        self.bytes = self.bytes.get(length..)?;
        Some(claim(kind, sources, group))
    }
}

/// The claim that a record makes (RFC 3376, 4.2.12).
fn claim(kind: u8, sources: usize, group: IpAddr) -> Option<Claim> {
    const IS_INCLUDE: u8 = 1;
    const IS_EXCLUDE: u8 = 2;
    const TO_INCLUDE: u8 = 3;
    const TO_EXCLUDE: u8 = 4;
    const ALLOW: u8 = 5;
    match kind {
        IS_EXCLUDE | TO_EXCLUDE => Some(Claim::Join(group)),
        IS_INCLUDE | TO_INCLUDE | ALLOW if sources > 0 => Some(Claim::Join(group)),
        TO_INCLUDE => Some(Claim::Leave(group)),
        _ => None,
    }
}

/// Reads the message in a frame, if it carries a sound one.
pub(super) fn read(frame: &Frame) -> Option<Message<'_>> {
    let headers = &frame.headers;
    if headers.is_fragment() {
        return None;
    }
    let message = frame.bytes().get(headers.transport_offset()..headers.end_offset())?;
    let packet = frame.bytes().get(headers.network_offset()..)?;
    match headers.protocol() {
        protocol::IGMP if headers.is_ipv4() && is_sound(frame, Sum::ZERO, message) => {
            read_igmp(packet, message)
        }
        protocol::ICMPV6 if headers.is_ipv6() => read_mld(frame, packet, message),
        _ => None,
    }
}

fn is_sound(frame: &Frame, pseudo_header: Sum, message: &[u8]) -> bool {
    matches!(frame.offload.checksum, Checksum::Partial { .. })
        || pseudo_header.add_bytes(message).checksum() == 0
}

fn read_igmp<'a>(packet: &[u8], message: &'a [u8]) -> Option<Message<'a>> {
    let group = address(message.get(4..)?, false)?;
    match *message.first()? {
        0x11 => Some(Message::Query { by_router: packet.get(12..16)? != [0; 4] }),
        0x12 | 0x16 => Some(Message::One(Claim::Join(group))),
        0x17 => Some(Message::One(Claim::Leave(group))),
        0x22 => Some(Message::Records(records(message, false)?)),
        _ => None,
    }
}

fn read_mld<'a>(frame: &Frame, packet: &[u8], message: &'a [u8]) -> Option<Message<'a>> {
    let kind = *message.first()?;
    if !matches!(kind, 130..=132 | 143) {
        return None;
    }
    let length = u16::try_from(message.len()).ok()?;
    let pseudo_header =
        Sum::ZERO.add_bytes(packet.get(8..40)?).add_word(length).add_word(protocol::ICMPV6.into());
    // MLD never passes a router (RFC 3810, 5).
    if packet[7] != 1 || !is_sound(frame, pseudo_header, message) {
        return None;
    }
    if kind == 143 {
        return Some(Message::Records(records(message, true)?));
    }
    let group = address(message.get(8..)?, true)?;
    Some(match kind {
        130 => Message::Query { by_router: packet[8..24] != [0; 16] },
        131 => Message::One(Claim::Join(group)),
        _ => Message::One(Claim::Leave(group)),
    })
}

fn records(message: &[u8], ipv6: bool) -> Option<Records<'_>> {
    Some(Records { bytes: message.get(8..)?, left: be16(message.get(6..8)?, 0), ipv6 })
}

fn address(bytes: &[u8], ipv6: bool) -> Option<IpAddr> {
    if ipv6 {
        let octets: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
        return Some(Ipv6Addr::from(octets).into());
    }
    let octets: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

/// The sender of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) mac: Mac,
    /// Its IPv4 address; without one it asks from 0.0.0.0 (RFC 4541, 2.1.1).
    pub(super) ipv4: Ipv4Addr,
}

const ROBUSTNESS: u8 = 2;
const DSCP_CONTROL: u8 = 0xc0;

/// An IGMPv3 query in a frame, which hosts of older versions understand. Without a group it is general.
/// `response` is how long hosts may take to answer, 0.1 to 12.7 s; `interval` at most 127 s.
pub(super) fn igmp_query(
    asker: Asker,
    group: Option<Ipv4Addr>,
    response: Duration,
    interval: Duration,
) -> Vec<u8> {
    let target = group.unwrap_or(Ipv4Addr::new(224, 0, 0, 1));
    let tenths = u8::try_from(response.as_millis() / 100).unwrap_or(127).min(127);
    let mut message = vec![0x11, tenths, 0, 0];
    message.extend(group.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    message.extend([ROBUSTNESS, seconds(interval), 0, 0]);
    let checksum = Sum::ZERO.add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    // With the router alert option (RFC 2113).
    let mut header = vec![0x46, DSCP_CONTROL, 0, 36, 0, 0, 0, 0, 1, protocol::IGMP, 0, 0];
    header.extend([asker.ipv4.octets(), target.octets()].concat());
    header.extend([0x94, 4, 0, 0]);
    let checksum = Sum::ZERO.add_bytes(&header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    let [_, b, c, d] = target.octets();
    let to = [0x01, 0x00, 0x5e, b & 0x7f, c, d];
    [&to[..], &asker.mac.0, &ethertype::IPV4.to_be_bytes(), &header, &message].concat()
}

/// An MLDv2 query in a frame, as [`igmp_query`].
pub(super) fn mld_query(
    asker: Asker,
    group: Option<Ipv6Addr>,
    response: Duration,
    interval: Duration,
) -> Vec<u8> {
    let target = group.unwrap_or(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let millis = u16::try_from(response.as_millis()).unwrap_or(0x7fff).min(0x7fff);
    let mut message = [&[130, 0, 0, 0][..], &millis.to_be_bytes(), &[0, 0]].concat();
    message.extend(group.unwrap_or(Ipv6Addr::UNSPECIFIED).octets());
    message.extend([ROBUSTNESS, seconds(interval), 0, 0]);
    let ends = [link_local(asker.mac).octets(), target.octets()].concat();
    let pseudo_header = Sum::ZERO.add_bytes(&ends).add_word(28).add_word(protocol::ICMPV6.into());
    let checksum = pseudo_header.add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    // A hop-by-hop header with the router alert option (RFC 2711).
    let header = [0x60, 0, 0, 0, 0, 36, 0, 1];
    let hop_by_hop = [protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    let [.., a, b, c, d] = target.octets();
    let to = [0x33, 0x33, a, b, c, d];
    let link = [&to[..], &asker.mac.0, &ethertype::IPV6.to_be_bytes()].concat();
    [&link[..], &header, &ends, &hop_by_hop, &message].concat()
}

/// Whole seconds as both protocols write an interval (QQIC).
fn seconds(interval: Duration) -> u8 {
    u8::try_from(interval.as_secs()).unwrap_or(127).min(127)
}
