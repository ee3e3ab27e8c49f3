//! ARP and ND answered from the table, so that questions need not be carried to every host.
//!
//! # Theory of operation
//!
//! In the spirit of RFC 9161 (proxy ARP and ND of an overlay), with the table's records as the only
//! source. A question that is broadcast or multicast and asks for an address that a record claims is
//! answered in the owner's name. All else goes the ordinary road:
//!
//! * A question for an address nobody claims is carried to every host.
//! * A unicast question is for the owner, who may be probed whether it is still there (RFC 4861, 7.3).
//! * An announcement (gratuitous ARP, unsolicited advertisement) is news, never a question.
//! * Nobody is told of itself. So one that probes for a duplicate of its own address (RFC 5227; RFC 4862,
//!   5.4) hears nothing when the record is its own, and is told of the owner when it is another's.
//!
//! The reply says what the owner would, but for flag R of ND: no container is a router. Override is set,
//! because a record outranks what a neighbour remembers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::protocol::ICMPV6;
use vswitch_frame::headers::{ETHERNET_BYTES, be16, ethertype};
use vswitch_frame::{Frame, Mac};

use crate::tunnel::Tunnel;

const IPV6_HEADER: usize = 40;
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITATION_BYTES: usize = 24;
/// ff02::1:ff00:0/104 (RFC 4291, 2.7.1).
const SOLICITED_NODE: [u8; 13] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
const ADVERTISEMENT_BYTES: u16 = 32;

/// The fate of a frame that might be a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No question, or none that may be answered for another: carry it.
    Carry,
    /// The owner lives on this host and has heard it: carry it nowhere.
    Here,
    /// The reply was written, and goes to whoever asked; the question is carried nowhere.
    Reply,
}

/// A question: the address it asks for, and who asks.
struct Question {
    target: IpAddr,
    /// The MAC address to answer to.
    asker: Mac,
    /// The IP address to answer to; `None` where the asker has none yet.
    asker_address: Option<IpAddr>,
}

impl Tunnel {
    /// Decides what becomes of a frame, which has been parsed, on its way into the tunnel. `reply` is
    /// overwritten with a frame in case of [`Answer::Reply`].
    pub fn answer(&self, frame: &Frame, reply: &mut Vec<u8>) -> Answer {
        let Some(question) = read(frame) else { return Answer::Carry };
        let Some((owner, vtep)) = self.table.resolve(question.target) else { return Answer::Carry };
        if owner == question.asker {
            return Answer::Carry;
        }
        if vtep == self.settings().local {
            return Answer::Here;
        }
        reply.clear();
        match (question.target, question.asker_address) {
            (IpAddr::V4(target), Some(IpAddr::V4(address))) => {
                write_arp(reply, (owner, target), (question.asker, address));
            }
            (IpAddr::V6(target), Some(IpAddr::V6(address))) => {
                write_advertisement(reply, (owner, target), (question.asker, Some(address)));
            }
            (IpAddr::V6(target), None) => {
                write_advertisement(reply, (owner, target), (question.asker, None));
            }
            _ => return Answer::Carry,
        }
        Answer::Reply
    }
}

impl Tunnel {
    /// Whether a frame, which has been parsed, asks for somebody who lives on this host: then it is carried
    /// nowhere.
    pub(crate) fn asks_for_here(&self, frame: &Frame) -> bool {
        let question = read(frame);
        let owner = question.and_then(|question| {
            self.table.resolve(question.target).filter(|(owner, _)| *owner != question.asker)
        });
        owner.is_some_and(|(_, vtep)| vtep == self.settings().local)
    }
}

/// Reads a question that may be answered for another.
fn read(frame: &Frame) -> Option<Question> {
    if !frame.destination().is_multicast() || frame.offload.gso.is_some() {
        return None;
    }
    let headers = &frame.headers;
    // A tagged question is of another segment than the table's.
    if headers.network_offset() != ETHERNET_BYTES {
        return None;
    }
    let packet = &frame.bytes()[ETHERNET_BYTES..headers.end_offset()];
    match headers.ether_type() {
        ethertype::ARP => read_arp(packet, frame.source()),
        ethertype::IPV6 => read_solicitation(packet, frame.source()),
        _ => None,
    }
}

/// An ARP request (RFC 826) for Ethernet and IPv4.
fn read_arp(packet: &[u8], source: Mac) -> Option<Question> {
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let packet = packet.first_chunk::<28>()?;
    let mac = |at: usize| packet[at..].first_chunk().copied().map(Mac);
    let address = |at: usize| packet[at..].first_chunk::<4>().copied().map(Ipv4Addr::from);
    let (asker, asks, target) = (mac(8)?, address(14)?, address(24)?);
    let is_announcement = asks == target;
    let is_question = packet.starts_with(&REQUEST) && asker == source && asker.is_station();
    let question = Question { target: target.into(), asker, asker_address: Some(asks.into()) };
    (is_question && !is_announcement).then_some(question)
}

/// A neighbour solicitation (RFC 4861, 4.3) that passes the checks of 7.1.1 on what is read of it.
fn read_solicitation(packet: &[u8], source: Mac) -> Option<Question> {
    let (ip, message) = packet.split_first_chunk::<IPV6_HEADER>()?;
    let is_plain = ip[6] == ICMPV6 && ip[7] == HOP_LIMIT && message.len() >= SOLICITATION_BYTES;
    if !is_plain || message[..2] != [SOLICITATION, 0] || !checksum_is_right(ip, message) {
        return None;
    }
    let address = |bytes: &[u8]| bytes.first_chunk::<16>().copied().map(Ipv6Addr::from);
    let (asks, target) = (address(&ip[8..])?, address(&message[8..])?);
    let question = Question {
        target: target.into(),
        asker: source,
        asker_address: (!asks.is_unspecified()).then_some(asks.into()),
    };
    // One without an address asks whether it may have one, which only the solicited node should hear.
    let is_right = !asks.is_unspecified() || ip[24..].starts_with(&SOLICITED_NODE);
    let names_hosts = source.is_station() && !target.is_multicast() && !asks.is_multicast();
    (is_right && names_hosts).then_some(question)
}

fn checksum_is_right(ip: &[u8], message: &[u8]) -> bool {
    icmp_sum(ip, message).checksum() == 0
}

/// The sum of an ICMPv6 message with its pseudo-header (RFC 8200, 8.1).
fn icmp_sum(ip: &[u8], message: &[u8]) -> Sum {
    let addresses = Sum::ZERO.add_bytes(&ip[8..IPV6_HEADER]);
    addresses.add_word(be16(ip, 4)).add_word(u16::from(ICMPV6)).add_bytes(message)
}

fn write_arp(reply: &mut Vec<u8>, owner: (Mac, Ipv4Addr), asker: (Mac, Ipv4Addr)) {
    reply.extend(asker.0.0);
    reply.extend(owner.0.0);
    reply.extend(ethertype::ARP.to_be_bytes());
    reply.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    for (mac, address) in [owner, asker] {
        reply.extend(mac.0);
        reply.extend(address.octets());
    }
}

/// A neighbour advertisement (RFC 4861, 4.4 and 7.2.4).
fn write_advertisement(reply: &mut Vec<u8>, owner: (Mac, Ipv6Addr), asker: (Mac, Option<Ipv6Addr>)) {
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let solicited = if asker.1.is_some() { SOLICITED } else { 0 };
    reply.extend(asker.0.0);
    reply.extend(owner.0.0);
    reply.extend(ethertype::IPV6.to_be_bytes());
    reply.extend([0x60, 0, 0, 0]);
    reply.extend(ADVERTISEMENT_BYTES.to_be_bytes());
    reply.extend([ICMPV6, HOP_LIMIT]);
    reply.extend(owner.1.octets());
    reply.extend(asker.1.unwrap_or(ALL_NODES).octets());
    reply.extend([ADVERTISEMENT, 0, 0, 0, solicited | OVERRIDE, 0, 0, 0]);
    reply.extend(owner.1.octets());
    reply.extend(TARGET_LINK_ADDRESS);
    reply.extend(owner.0.0);
    let (ip, message) = reply[ETHERNET_BYTES..].split_at_mut(IPV6_HEADER);
    let sum = icmp_sum(ip, message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}
