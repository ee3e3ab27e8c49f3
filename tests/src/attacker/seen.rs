//! A frame as a Linux host takes it in: what matters is what the receiver believes, not what was meant.
//!
//! The kernel takes any number of VLAN tags with identifier 0 off (`vlan_do_receive`), and a frame with
//! another one is for nobody who has no such interface. It walks any number of the IPv6 extension headers
//! that it knows (`ipv6_ext_hdr`); a mobility header is not among them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A frame as a host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The receiver's MAC address.
    pub target: [u8; 6],
    /// The sender's MAC address.
    pub source: [u8; 6],
    /// Whether it has any tag.
    pub tagged: bool,
    /// Its content.
    pub content: Content,
}

/// The content of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// ARP: the sender's MAC and address, and the address that is asked for or answered.
    Arp([u8; 6], Ipv4Addr, Ipv4Addr),
    /// An IP packet.
    Ip(Packet),
    /// Anything else, or nothing that a host looks at.
    Other,
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub target: IpAddr,
    /// The protocol behind all extension headers.
    pub protocol: u8,
    /// Whether it is a fragment of a larger one.
    pub fragment: bool,
    /// The start of what the protocol sends; empty in a fragment that is not the first.
    pub segment: Vec<u8>,
}

impl Packet {
    /// The ports of a segment that has them.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let has_ports = matches!(self.protocol, 6 | 17 | 132);
        Some((word(&self.segment, 0)?, word(&self.segment, 2)?)).filter(|_| has_ports)
    }

    /// The type of an ICMP or ICMPv6 message.
    pub fn icmp(&self) -> Option<u8> {
        self.segment.first().copied().filter(|_| matches!(self.protocol, 1 | 58))
    }

    /// Whether it is an ICMP error.
    pub fn is_error(&self) -> bool {
        match self.protocol {
            1 => matches!(self.icmp(), Some(3 | 4 | 5 | 11 | 12)),
            _ => matches!(self.icmp(), Some(0..=127)),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn mac(bytes: &[u8], at: usize) -> Option<[u8; 6]> {
    bytes.get(at..at + 6)?.try_into().ok()
}

fn v4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?.into())
}

fn v6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?.into())
}

impl Seen {
    /// A frame as a host sees it; `None` if it is too short to be one.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (target, source) = (mac(frame, 0)?, mac(frame, 6)?);
        let is_tag = |kind: u16| matches!(kind, 0x8100 | 0x88a8);
        let (mut at, mut kind) = (14, word(frame, 12)?);
        let tagged = is_tag(kind);
        while is_tag(kind) {
            let Some((tag, behind)) = word(frame, at).zip(word(frame, at + 2)) else {
                return Some(Self { target, source, tagged, content: Content::Other });
            };
            if tag & 0xfff != 0 {
                return Some(Self { target, source, tagged, content: Content::Other });
            }
            (at, kind) = (at + 4, behind);
        }
        let packet = &frame[at..];
        let content = match kind {
            0x0806 => arp(packet),
            0x0800 => ipv4(packet),
            0x86dd => ipv6(packet),
            _ => None,
        };
        Some(Self { target, source, tagged, content: content.unwrap_or(Content::Other) })
    }
}

fn arp(packet: &[u8]) -> Option<Content> {
    let is_ours = packet.get(..6)? == [0, 1, 8, 0, 6, 4];
    is_ours.then_some(Content::Arp(mac(packet, 8)?, v4(packet, 14)?, v4(packet, 24)?))
}

fn ipv4(packet: &[u8]) -> Option<Content> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let total = usize::from(word(packet, 2)?);
    if packet[0] >> 4 != 4 || header < 20 || total < header || total > packet.len() {
        return None;
    }
    let place = word(packet, 6)?;
    let segment = if place & 0x1fff == 0 { packet[header..total].to_vec() } else { Vec::new() };
    Some(Content::Ip(Packet {
        source: v4(packet, 12)?.into(),
        target: v4(packet, 16)?.into(),
        protocol: packet[9],
        fragment: place & 0x3fff != 0,
        segment,
    }))
}

fn ipv6(packet: &[u8]) -> Option<Content> {
    let end = 40 + usize::from(word(packet, 4)?);
    if packet.first()? >> 4 != 6 || end > packet.len() {
        return None;
    }
    let (mut at, mut next, mut fragment, mut first) = (40, *packet.get(6)?, false, true);
    while first {
        let length = match next {
            0 | 43 | 60 => (usize::from(*packet.get(at + 1)?) + 1) * 8,
            51 => (usize::from(*packet.get(at + 1)?) + 2) * 4,
            44 => {
                let place = word(packet, at + 2)?;
                fragment |= place & 0xfff9 != 0;
                first = place & 0xfff8 == 0;
                8
            }
            _ => break,
        };
        if at + length > end {
            return None;
        }
        next = packet[at];
        at += length;
    }
    Some(Content::Ip(Packet {
        source: v6(packet, 8)?.into(),
        target: v6(packet, 24)?.into(),
        protocol: next,
        fragment,
        segment: if first { packet[at..end].to_vec() } else { Vec::new() },
    }))
}
