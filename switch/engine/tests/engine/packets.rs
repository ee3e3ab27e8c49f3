//! Packets for tests that look behind the Ethernet header, written field by field.

use std::net::IpAddr;

use vswitch_frame::Mac;
use vswitch_frame::checksum::Sum;

/// One end: its MAC and IP address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) mac: Mac,
    pub(crate) ip: IpAddr,
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// A host with a MAC that ends in `number`.
pub(crate) fn host(number: u8, ip: &str) -> Host {
    Host { mac: Mac([2, 0, 0, 0, 0, number]), ip: ip.parse().expect("an address") }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An Ethernet frame.
pub(crate) fn ethernet(from: Mac, to: Mac, ether_type: u16, body: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &ether_type.to_be_bytes(), body].concat()
}

/// An IP packet of either family. `checksum_at` is where the body's checksum is, if it has one; it covers
/// a pseudo-header unless the protocol is ICMP or IGMP.
pub(crate) fn ip(
    from: Host,
    to: Host,
    protocol: u8,
    mut body: Vec<u8>,
    checksum_at: Option<usize>,
) -> Vec<u8> {
    let ends = [octets(from.ip), octets(to.ip)].concat();
    let length = u16::try_from(body.len()).expect("short");
    if let Some(at) = checksum_at {
        let pseudo = Sum::ZERO.add_bytes(&ends).add_word(protocol.into()).add_word(length);
        let start = if matches!(protocol, 1 | 2) { Sum::ZERO } else { pseudo };
        let checksum = start.add_bytes(&body).checksum();
        body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    let (ether_type, mut packet) = if from.ip.is_ipv4() {
        let total = (20 + length).to_be_bytes();
        let mut header = vec![0x45, 0, total[0], total[1], 0, 7, 0, 0, 1, protocol, 0, 0];
        header.extend(&ends);
        let checksum = Sum::ZERO.add_bytes(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        (0x0800, header)
    } else {
        let length = length.to_be_bytes();
        (0x86dd, [&[0x60, 0, 0, 0, length[0], length[1], protocol, 1][..], &ends].concat())
    };
    packet.extend(body);
    ethernet(from.mac, to.mac, ether_type, &packet)
}

/// A UDP datagram with a few bytes.
pub(crate) fn udp(from: (Host, u16), to: (Host, u16)) -> Vec<u8> {
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    ip(from.0, to.0, UDP, [&ports[..], &[0, 12, 0, 0], b"data"].concat(), Some(6))
}

/// The start of an SCTP association.
pub(crate) fn sctp(from: (Host, u16), to: (Host, u16)) -> Vec<u8> {
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    ip(from.0, to.0, 132, [&ports[..], &[0; 8], &[1, 0, 0, 4]].concat(), None)
}

/// A TCP segment without payload.
pub(crate) fn tcp(from: (Host, u16), to: (Host, u16), flags: u8) -> Vec<u8> {
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    let rest = [0, 0, 0, 9, 0, 0, 0, 77, 0x50, flags, 2, 0, 0, 0, 0, 0];
    ip(from.0, to.0, TCP, [&ports[..], &rest].concat(), Some(16))
}

/// An ICMP or ICMPv6 message.
pub(crate) fn icmp(from: Host, to: Host, kind: u8, rest: &[u8]) -> Vec<u8> {
    let protocol = if from.ip.is_ipv4() { 1 } else { 58 };
    ip(from, to, protocol, [&[kind, 0, 0, 0][..], rest].concat(), Some(2))
}

/// An ARP packet with this sender.
pub(crate) fn arp(frame_from: Mac, sender: Host) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender.mac.0, &octets(sender.ip), &[0; 10]].concat();
    ethernet(frame_from, Mac::BROADCAST, 0x0806, &body)
}

/// Puts a VLAN tag into a frame.
pub(crate) fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat()
}
