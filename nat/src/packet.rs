//! Reads a frame as far as translation needs it, and refuses what breaks the rules.
//!
//! # Contract
//! What [`read`] returns lies within the frame. Checksums that are finished have been found right, so that
//! nothing corrupt changes the state of a flow, or leaves: those left to an offload, and those of a
//! fragment, cannot be looked at here and are carried on.

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::be16;
use vswitch_frame::{Checksum, DropReason, Frame};

use crate::ip::{Ip, Piece};
use crate::tcp::Segment;
use crate::tuple::{Protocol, Realm, Tuple};

/// A frame as translation sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packet {
    /// It names a flow. The first fragment of a datagram does, too.
    Flow(Named),
    /// A fragment behind the first, without ports.
    Fragment(Ip, Piece),
    /// An ICMP error about a packet, which it quotes.
    Error(Quoting),
}

/// A packet that names a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) ip: Ip,
    pub(crate) tuple: Tuple,
    /// For TCP, what state depends on.
    pub(crate) tcp: Option<Segment>,
}

/// An ICMP error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoting {
    pub(crate) ip: Ip,
    pub(crate) protocol: Protocol,
    /// The quoted packet.
    pub(crate) quoted: Ip,
    /// The name it would have if it came back from where the error comes from.
    pub(crate) answer: Tuple,
}

/// Bytes in front of the quoted packet: type, code, checksum and a word.
pub(crate) const ICMP_HEADER: usize = 8;

/// Reads a parsed frame.
pub(crate) fn read(frame: &Frame, realm: Realm) -> Result<Packet, DropReason> {
    let headers = &frame.headers;
    if !headers.is_ip() {
        return Err(DropReason::NatProtocol);
    }
    let bytes = &frame.bytes()[..headers.end_offset()];
    let malformed = if headers.is_ipv4() { DropReason::MalformedIpv4 } else { DropReason::MalformedIpv6 };
    let ip = Ip::read(bytes, headers.network_offset()).ok_or(malformed)?;
    if ip.is_v4 && Sum::ZERO.add_bytes(&bytes[ip.at..ip.transport_at]).checksum() != 0 {
        return Err(DropReason::NatBadChecksum);
    }
    // An IPv6 header with an address in the mapped form would be taken for IPv4.
    let mixed = !ip.is_v4 && (ip.source.is_v4() || ip.target.is_v4());
    if mixed || !ip.source.is_routable() || !ip.target.is_routable() {
        return Err(DropReason::NatBadAddress);
    }
    let protocol = protocol(&ip).ok_or(DropReason::NatProtocol)?;
    if let Some(piece) = ip.fragment {
        if piece.is_malformed() {
            return Err(DropReason::NatMalformed);
        }
        if frame.offload.checksum != Checksum::Complete && frame.offload.checksum != Checksum::Valid {
            return Err(DropReason::BadOffload);
        }
        if piece.from > 0 {
            return Ok(Packet::Fragment(ip, piece));
        }
    } else {
        check_transport(frame, bytes, &ip, protocol)?;
    }
    if is_error(bytes, &ip, protocol) {
        return read_error(bytes, ip, protocol, realm);
    }
    let tuple = read_tuple(bytes, &ip, protocol, realm)?;
    let tcp = if protocol == Protocol::Tcp { Some(read_segment(bytes, &ip)?) } else { None };
    Ok(Packet::Flow(Named { ip, tuple, tcp }))
}

/// The name of a frame, without any check.
pub(crate) fn name(frame: &Frame, realm: Realm) -> Option<Tuple> {
    let ip = Ip::read(frame.bytes(), frame.headers.network_offset())?;
    read_tuple(frame.bytes(), &ip, protocol(&ip)?, realm).ok()
}

/// The protocol, if it is translated in this family.
fn protocol(ip: &Ip) -> Option<Protocol> {
    let protocol = Protocol::from_number(ip.protocol)?;
    let other_family = if ip.is_v4 { Protocol::Icmp6 } else { Protocol::Icmp };
    (protocol != other_family).then_some(protocol)
}

/// Compares a finished transport checksum with the bytes. That of SCTP is left to the receiver, since it
/// covers nothing that we change.
fn check_transport(frame: &Frame, bytes: &[u8], ip: &Ip, protocol: Protocol) -> Result<(), DropReason> {
    let segment = &bytes[ip.transport_at..];
    let (at, covered) = match protocol {
        Protocol::Tcp => (16, segment),
        Protocol::Udp => {
            let length = segment.get(4..6).map_or(0, |field| usize::from(be16(field, 0)));
            (6, &segment[..segment.len().min(length)])
        }
        Protocol::Icmp | Protocol::Icmp6 => (2, segment),
        Protocol::Sctp => return no_offload(frame),
    };
    if !matches!(protocol, Protocol::Tcp | Protocol::Udp) {
        no_offload(frame)?;
    }
    if covered.len() < at + 2 {
        return Err(DropReason::NatMalformed);
    }
    let none = protocol == Protocol::Udp && be16(covered, at) == 0;
    if frame.offload.checksum != Checksum::Complete || none {
        return Ok(());
    }
    match pseudo_header(ip, protocol, covered.len()).add_bytes(covered).checksum() {
        0 => Ok(()),
        _ => Err(DropReason::NatBadChecksum),
    }
}

/// No kernel leaves the checksum of these protocols to a device of ours.
fn no_offload(frame: &Frame) -> Result<(), DropReason> {
    match frame.offload.checksum {
        Checksum::Partial { .. } => Err(DropReason::BadOffload),
        Checksum::Complete | Checksum::Valid => Ok(()),
    }
}

/// The sum of a pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1); zero for ICMP, which has none.
pub(crate) fn pseudo_header(ip: &Ip, protocol: Protocol, length: usize) -> Sum {
    if protocol == Protocol::Icmp {
        return Sum::ZERO;
    }
    let sum = if ip.is_v4 {
        Sum::ZERO.add_bytes(&ip.source.v4_bytes()).add_bytes(&ip.target.v4_bytes())
    } else {
        Sum::ZERO.add_bytes(&ip.source.v6_bytes()).add_bytes(&ip.target.v6_bytes())
    };
    sum.add_word(u16::try_from(length).unwrap_or(u16::MAX)).add_word(u16::from(protocol as u8))
}

/// Whether it is an ICMP error of a kind that is translated (RFC 5508, 7.1). A fragment never is.
fn is_error(bytes: &[u8], ip: &Ip, protocol: Protocol) -> bool {
    let kind = bytes.get(ip.transport_at).copied().unwrap_or(0);
    ip.fragment.is_none()
        && match protocol {
            Protocol::Icmp => matches!(kind, 3 | 11 | 12),
            Protocol::Icmp6 => matches!(kind, 1..=4),
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => false,
        }
}

fn read_error(bytes: &[u8], ip: Ip, protocol: Protocol, realm: Realm) -> Result<Packet, DropReason> {
    let quoted = Ip::read(bytes, ip.transport_at + ICMP_HEADER).ok_or(DropReason::NatMalformed)?;
    if quoted.is_v4 != ip.is_v4 {
        return Err(DropReason::NatMalformed);
    }
    if quoted.is_v4 && Sum::ZERO.add_bytes(&bytes[quoted.at..quoted.transport_at]).checksum() != 0 {
        return Err(DropReason::NatBadChecksum);
    }
    // A fragment behind the first has no ports to go by.
    if quoted.fragment.is_some_and(|piece| piece.from > 0) {
        return Err(DropReason::NatNoFlow);
    }
    let inner = self::protocol(&quoted).ok_or(DropReason::NatProtocol)?;
    let answer = read_tuple(bytes, &quoted, inner, realm)?.reversed();
    Ok(Packet::Error(Quoting { ip, protocol, quoted, answer }))
}

/// Ports, or the identifier of a query: in the first eight bytes, which an ICMP error quotes at least.
fn read_tuple(bytes: &[u8], ip: &Ip, protocol: Protocol, realm: Realm) -> Result<Tuple, DropReason> {
    let transport = bytes.get(ip.transport_at..ip.end).and_then(<[u8]>::first_chunk::<8>);
    let transport = transport.ok_or(DropReason::NatMalformed)?;
    let (source, target) = (ip.source, ip.target);
    let tuple = Tuple { source, target, source_port: 0, target_port: 0, realm, protocol, kind: 0 };
    let id = be16(transport, 4);
    match (protocol, transport[0]) {
        (Protocol::Icmp, kind @ (8 | 13)) | (Protocol::Icmp6, kind @ 128) => {
            Ok(Tuple { source_port: id, kind, ..tuple })
        }
        (Protocol::Icmp, kind @ (0 | 14)) | (Protocol::Icmp6, kind @ 129) => {
            Ok(Tuple { target_port: id, kind, ..tuple })
        }
        (Protocol::Icmp | Protocol::Icmp6, _) => Err(DropReason::NatProtocol),
        (Protocol::Tcp | Protocol::Udp | Protocol::Sctp, _) => {
            let (source_port, target_port) = (be16(transport, 0), be16(transport, 2));
            if source_port == 0 || target_port == 0 {
                return Err(DropReason::NatMalformed);
            }
            Ok(Tuple { source_port, target_port, ..tuple })
        }
    }
}

fn read_segment(bytes: &[u8], ip: &Ip) -> Result<Segment, DropReason> {
    let header = &bytes[ip.transport_at..];
    let segment = Segment::read(header).ok_or(DropReason::NatMalformed)?;
    if segment.contradicts_itself() { Err(DropReason::NatMalformed) } else { Ok(segment) }
}
