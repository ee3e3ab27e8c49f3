//! Telling the sender that a rule rejected its packet: a TCP reset, or an ICMP error "administratively
//! prohibited" (RFC 1812, 5.2.7.1; RFC 4443, 3.1).
//!
//! The answer is built in place of the frame it answers, so that one frame stays one frame. Nothing is
//! answered where that could be abused or loop (RFC 1122, 3.2.2; RFC 4443, 2.4): ICMP errors, resets,
//! fragments, and what was sent to many or from nobody.

use std::net::IpAddr;

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::{ETHERNET_BYTES, protocol};
use vswitch_frame::{Frame, Mac};

use super::packet::{Packet, addresses, flags};

/// Largest IPv4 packet that carries an error (RFC 1812, 4.3.2.3).
const IPV4_ERROR_BYTES_MAX: usize = 576;
/// Largest IPv6 packet that carries an error: the least MTU (RFC 4443, 2.4).
const IPV6_ERROR_BYTES_MAX: usize = 1280;
const HOP_LIMIT: u8 = 64;

/// Makes of a frame the answer to its sender, which has been parsed then and needs no offload. `gateway` are
/// the addresses of the network's gateway, which ICMP errors come from; without one of the packet's
/// family they come from the receiver. Returns whether there is an answer; if not, the frame is as it was.
pub(crate) fn turn_round(frame: &mut Frame, gateway: &[IpAddr]) -> bool {
    match answer(frame, gateway) {
        Some(bytes) => {
            frame.fill(&bytes);
            frame.parse().is_ok()
        }
        None => false,
    }
}

fn answer(frame: &Frame, gateway: &[IpAddr]) -> Option<Vec<u8>> {
    let packet = Packet::of(frame)?;
    let (sender, receiver) = addresses(frame.bytes(), &frame.headers)?;
    let to_one = packet.has_one_receiver() && !frame.destination().is_multicast();
    let from_one = !sender.is_unspecified() && !sender.is_multicast();
    if !to_one || !from_one || frame.headers.is_fragment() || packet.about.is_some() {
        return None;
    }
    let segment = frame.bytes().get(frame.headers.transport_offset()..frame.headers.end_offset())?;
    let (source, body) = match packet.tuple.protocol {
        protocol::TCP => (receiver, (protocol::TCP, reset(&packet, segment)?)),
        protocol::ICMP | protocol::ICMPV6 if is_error(packet.tuple.protocol, segment) => return None,
        _ => {
            let own = gateway.iter().find(|address| address.is_ipv4() == sender.is_ipv4());
            (own.copied().unwrap_or(receiver), prohibited(frame, sender)?)
        }
    };
    let mut bytes = link_header(frame);
    write_packet(&mut bytes, source, sender, body);
    Some(bytes)
}

/// The Ethernet header and VLAN tags of the way back.
fn link_header(frame: &Frame) -> Vec<u8> {
    let (Mac(to), Mac(from)) = (frame.source(), frame.destination());
    let rest = &frame.bytes()[ETHERNET_BYTES - 2..frame.headers.network_offset()];
    [&to[..], &from, rest].concat()
}

fn is_error(number: u8, segment: &[u8]) -> bool {
    let kind = segment.first().copied().unwrap_or(0);
    match number {
        protocol::ICMPV6 => kind < 128,
        _ => matches!(kind, 3 | 4 | 5 | 11 | 12),
    }
}

/// A TCP segment that ends the connection (RFC 9293, 3.10.7.1), without its checksum.
fn reset(packet: &Packet, segment: &[u8]) -> Option<Vec<u8>> {
    if packet.flags & flags::RST != 0 {
        return None;
    }
    let word = |at: usize| segment.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    let (sequence, acknowledgement, flags) = if packet.flags & flags::ACK != 0 {
        (word(8)?, 0, flags::RST)
    } else {
        let header = usize::from(segment.get(12)? >> 4) * 4;
        let controls = u32::from(packet.flags & flags::SYN != 0) + u32::from(packet.flags & flags::FIN != 0);
        let length = u32::try_from(segment.len().saturating_sub(header)).ok()?;
        (0, word(4)?.wrapping_add(length).wrapping_add(controls), flags::RST | flags::ACK)
    };
    let ports = [packet.tuple.to.1.to_be_bytes(), packet.tuple.from.1.to_be_bytes()].concat();
    let numbers = [sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat();
    Some([&ports[..], &numbers, &[5 << 4, flags, 0, 0, 0, 0, 0, 0]].concat())
}

/// An ICMP error that quotes the packet, without its checksum.
fn prohibited(frame: &Frame, sender: IpAddr) -> Option<(u8, Vec<u8>)> {
    let (number, kind, code, quote_max) = match sender {
        IpAddr::V4(_) => (protocol::ICMP, 3, 13, IPV4_ERROR_BYTES_MAX - 20 - 8),
        IpAddr::V6(_) => (protocol::ICMPV6, 1, 1, IPV6_ERROR_BYTES_MAX - 40 - 8),
    };
    let packet = frame.bytes().get(frame.headers.network_offset()..frame.headers.end_offset())?;
    let quote = &packet[..packet.len().min(quote_max)];
    Some((number, [&[kind, code, 0, 0, 0, 0, 0, 0][..], quote].concat()))
}

/// Writes an IP packet whose transport's checksum is still to be computed.
fn write_packet(bytes: &mut Vec<u8>, from: IpAddr, to: IpAddr, (number, mut body): (u8, Vec<u8>)) {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let ends = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (from, to) => [octets_v6(from), octets_v6(to)].concat(),
    };
    let at = if number == protocol::TCP { 16 } else { 2 };
    let pseudo = Sum::ZERO.add_bytes(&ends).add_word(u16::from(number)).add_word(length);
    let start = if number == protocol::ICMP { Sum::ZERO } else { pseudo };
    let checksum = start.add_bytes(&body).checksum();
    body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    if from.is_ipv4() {
        let [high, low] = (length + 20).to_be_bytes();
        let mut header = [0x45, 0, high, low, 0, 0, 0x40, 0, HOP_LIMIT, number, 0, 0].to_vec();
        header.extend(&ends);
        let checksum = Sum::ZERO.add_bytes(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(header);
    } else {
        let [high, low] = length.to_be_bytes();
        bytes.extend([0x60, 0, 0, 0, high, low, number, HOP_LIMIT]);
        bytes.extend(&ends);
    }
    bytes.extend(body);
}

fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
