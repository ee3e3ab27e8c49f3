//! ARP for the gateway's addresses (RFC 826, RFC 5227).

use std::net::{IpAddr, Ipv4Addr};

use vswitch_frame::headers::{be16, ethertype};
use vswitch_frame::{DropReason, Frame, Mac};

use super::fate::Fate;
use super::packet::{put16, v4_at};
use super::site::Site;

/// Hardware type, protocol type and the lengths of their addresses: IPv4 over Ethernet.
const IPV4_OVER_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
const BYTES: usize = 28;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

const OPERATION_AT: usize = 6;
const SENDER_MAC_AT: usize = 8;
const SENDER_IP_AT: usize = 14;
const TARGET_MAC_AT: usize = 18;
const TARGET_IP_AT: usize = 24;

/// Whether a frame that is sent to many is about an address of the gateway's: asks for it, or says it is the
/// sender's own.
pub(super) fn concerns(site: &Site<'_>, frame: &Frame) -> bool {
    debug_assert_eq!(frame.headers.ether_type(), ethertype::ARP);
    let Some(packet) = packet(frame) else { return false };
    let owns = |at| site.owns(IpAddr::V4(v4_at(packet, at)));
    owns(SENDER_IP_AT) || be16(packet, OPERATION_AT) == REQUEST && owns(TARGET_IP_AT)
}

/// Turns a request for an address of the gateway's into the reply. Everything else is the host's, whose own
/// requests are answered to the gateway's MAC address; but nobody may say that the gateway's address is
/// theirs.
pub(super) fn answer(site: &Site<'_>, frame: &mut Frame) -> Result<Fate, DropReason> {
    let Some(packet) = packet(frame) else { return Err(DropReason::MalformedArp) };
    if site.owns(IpAddr::V4(v4_at(packet, SENDER_IP_AT))) {
        return Err(DropReason::Martian);
    }
    let asks = be16(packet, OPERATION_AT) == REQUEST && site.owns(IpAddr::V4(v4_at(packet, TARGET_IP_AT)));
    if !asks {
        return Ok(Fate::Host);
    }
    reply(frame, site.gateway.mac);
    Ok(Fate::Answer)
}

/// An ARP packet, as far as it tells who speaks and who is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arp {
    pub(super) sender: Ipv4Addr,
    operation: u16,
    target: Ipv4Addr,
}

impl Arp {
    /// The address that is asked for, unless the sender announces it as its own.
    pub(super) fn question(&self) -> Option<Ipv4Addr> {
        (self.operation == REQUEST && self.sender != self.target).then_some(self.target)
    }
}

/// Reads an ARP packet; `None` if it is cut short or not about IPv4 over Ethernet.
pub(super) fn read(frame: &Frame) -> Option<Arp> {
    let packet = packet(frame)?;
    let (sender, target) = (v4_at(packet, SENDER_IP_AT), v4_at(packet, TARGET_IP_AT));
    Some(Arp { sender, operation: be16(packet, OPERATION_AT), target })
}

/// Whether an ARP packet from a station of the network, or from nobody yet, is no question.
pub(super) fn is_reply(frame: &Frame) -> bool {
    packet(frame).is_some_and(|packet| be16(packet, OPERATION_AT) == REPLY)
}

fn packet(frame: &Frame) -> Option<&[u8]> {
    let packet = frame.bytes().get(frame.headers.network_offset()..)?.get(..BYTES)?;
    packet.starts_with(&IPV4_OVER_ETHERNET).then_some(packet)
}

fn reply(frame: &mut Frame, own: Mac) {
    let asker = frame.source();
    let at = frame.headers.network_offset();
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&asker.0);
    bytes[6..12].copy_from_slice(&own.0);
    let packet = &mut bytes[at..at + BYTES];
    put16(packet, OPERATION_AT, REPLY);
    let (sender, target) = packet.split_at_mut(TARGET_MAC_AT);
    sender[SENDER_MAC_AT..].swap_with_slice(target);
    packet[SENDER_MAC_AT..SENDER_IP_AT].copy_from_slice(&own.0);
    debug_assert_eq!(packet.len() - TARGET_IP_AT, 4);
}
