//! Frames made and read by smoltcp.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet,
    Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
    UdpPacket, UdpRepr,
};
use vswitch_frame::Mac;

/// From whom to whom on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) source: Mac,
    pub(crate) target: Mac,
}

/// An IP packet without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) target: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) protocol: IpProtocol,
}

fn checksums() -> ChecksumCapabilities {
    ChecksumCapabilities::default()
}

pub(crate) fn ethernet(link: Link, protocol: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut frame = EthernetFrame::new_unchecked(vec![0; 14 + payload.len()]);
    frame.set_src_addr(EthernetAddress(link.source.0));
    frame.set_dst_addr(EthernetAddress(link.target.0));
    frame.set_ethertype(protocol);
    frame.payload_mut().copy_from_slice(payload);
    frame.into_inner()
}

/// An ARP request or reply: sender and target, each MAC and IP address.
pub(crate) fn arp(link: Link, operation: ArpOperation, sender: (Mac, &str), target: (Mac, &str)) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(sender.0.0),
        source_protocol_addr: sender.1.parse().expect("an address"),
        target_hardware_addr: EthernetAddress(target.0.0),
        target_protocol_addr: target.1.parse().expect("an address"),
    };
    let mut packet = ArpPacket::new_unchecked(vec![0; repr.buffer_len()]);
    repr.emit(&mut packet);
    ethernet(link, EthernetProtocol::Arp, &packet.into_inner())
}

pub(crate) fn ip(link: Link, packet: Packet, payload: &[u8]) -> Vec<u8> {
    let Packet { source, target, ttl, protocol } = packet;
    match (source, target) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let payload_len = payload.len();
            let repr = Ipv4Repr { src_addr, dst_addr, next_header: protocol, payload_len, hop_limit: ttl };
            let mut packet = Ipv4Packet::new_unchecked(vec![0; 20 + payload_len]);
            repr.emit(&mut packet, &checksums());
            packet.payload_mut().copy_from_slice(payload);
            ethernet(link, EthernetProtocol::Ipv4, &packet.into_inner())
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let payload_len = payload.len();
            let repr = Ipv6Repr { src_addr, dst_addr, next_header: protocol, payload_len, hop_limit: ttl };
            let mut packet = Ipv6Packet::new_unchecked(vec![0; 40 + payload_len]);
            repr.emit(&mut packet);
            packet.payload_mut().copy_from_slice(payload);
            ethernet(link, EthernetProtocol::Ipv6, &packet.into_inner())
        }
        _ => panic!("{source} and {target} are of one family"),
    }
}

/// An echo request with 56 bytes of data.
pub(crate) fn ping(link: Link, source: &str, target: &str, ttl: u8) -> Vec<u8> {
    let data = [7; 56];
    let (ident, seq_no) = (1, 2);
    let (source, target) = (super::ip(source), super::ip(target));
    match (source, target) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let echo = Icmpv6Repr::EchoRequest { ident, seq_no, data: &data };
            icmpv6(link, from.into(), to.into(), ttl, &echo)
        }
        _ => {
            let echo = Icmpv4Repr::EchoRequest { ident, seq_no, data: &data };
            let mut message = vec![0; echo.buffer_len()];
            echo.emit(&mut Icmpv4Packet::new_unchecked(&mut message), &checksums());
            ip(link, Packet { source, target, ttl, protocol: IpProtocol::Icmp }, &message)
        }
    }
}

pub(crate) fn icmpv6(link: Link, source: IpAddr, target: IpAddr, ttl: u8, repr: &Icmpv6Repr<'_>) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (source, target) else { panic!("{source} is IPv6") };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(&mut message), &checksums());
    ip(link, Packet { source, target, ttl, protocol: IpProtocol::Icmpv6 }, &message)
}

/// A UDP datagram.
pub(crate) fn udp(link: Link, source: (&str, u16), target: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let (from, to) = (super::ip(source.0), super::ip(target.0));
    let repr = UdpRepr { src_port: source.1, dst_port: target.1 };
    let mut datagram = vec![0; 8 + payload.len()];
    let (source, target): (IpAddress, IpAddress) = (from.into(), to.into());
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut datagram),
        &source,
        &target,
        payload.len(),
        |room| room.copy_from_slice(payload),
        &checksums(),
    );
    ip(link, Packet { source: from, target: to, ttl: 64, protocol: IpProtocol::Udp }, &datagram)
}

/// Reads an IP packet, checking all there is to check, and answers it with what it carries.
pub(crate) fn read_ip(frame: &[u8]) -> (Link, Packet, &[u8]) {
    let frame = EthernetFrame::new_checked(frame).expect("a frame");
    let link = Link { source: Mac(frame.src_addr().0), target: Mac(frame.dst_addr().0) };
    if frame.ethertype() == EthernetProtocol::Ipv4 {
        let packet = Ipv4Packet::new_checked(frame.payload()).expect("IPv4");
        let repr = Ipv4Repr::parse(&packet, &checksums()).expect("right");
        let (source, target) = (repr.src_addr.into(), repr.dst_addr.into());
        (link, Packet { source, target, ttl: repr.hop_limit, protocol: repr.next_header }, packet.payload())
    } else {
        assert_eq!(frame.ethertype(), EthernetProtocol::Ipv6);
        let packet = Ipv6Packet::new_checked(frame.payload()).expect("IPv6");
        let repr = Ipv6Repr::parse(&packet).expect("right");
        let (source, target) = (repr.src_addr.into(), repr.dst_addr.into());
        (link, Packet { source, target, ttl: repr.hop_limit, protocol: repr.next_header }, packet.payload())
    }
}

/// Reads an ICMP message, checking its checksum.
pub(crate) fn read_icmp(payload: &[u8]) -> Icmpv4Repr<'_> {
    let packet = Icmpv4Packet::new_checked(payload).expect("ICMP");
    Icmpv4Repr::parse(&packet, &checksums()).expect("right")
}

/// Reads an ICMPv6 message, checking its checksum.
pub(crate) fn read_icmpv6<'a>(packet: &Packet, payload: &'a [u8]) -> Icmpv6Repr<'a> {
    let (IpAddr::V6(source), IpAddr::V6(target)) = (packet.source, packet.target) else {
        panic!("{packet:?} is IPv6")
    };
    let message = Icmpv6Packet::new_checked(payload).expect("ICMPv6");
    Icmpv6Repr::parse(&source, &target, &message, &checksums()).expect("right")
}
