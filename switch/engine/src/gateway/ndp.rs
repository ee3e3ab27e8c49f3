//! Neighbour and router discovery for the gateway (RFC 4861).

use std::net::{IpAddr, Ipv6Addr};

use vswitch_frame::{DropReason, Frame};

use super::advertise;
use super::fate::Fate;
use super::packet::{self, HOP_LIMIT_MAX, Link, protocol, v6_at};
use super::site::Site;
use crate::link_local::{ALL_NODES, ALL_NODES_MAC};

const ROUTER_SOLICITATION: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Kinds of messages that only a router sends: advertisement and redirect.
pub(super) const ROUTERS_WORD: [u8; 2] = [134, 137];

/// The place of the address that solicitations and advertisements are about.
const TARGET_AT: usize = 8;
/// Bytes before the options of a solicitation or an advertisement.
const BYTES: usize = 24;
/// Bytes before the options of a router solicitation.
const ROUTER_SOLICITATION_BYTES: usize = 8;

const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;

/// Whether a frame asks for routers, asks for an address of the gateway's, or says it is the sender's own.
pub(super) fn concerns(site: &Site<'_>, frame: &Frame) -> bool {
    let headers = &frame.headers;
    if !headers.is_ipv6()
        || headers.protocol() != protocol::ICMPV6
        || headers.is_fragment()
        || !site.speaks_ipv6()
    {
        return false;
    }
    let message = packet::payload(frame);
    match message.first() {
        Some(&ROUTER_SOLICITATION) => true,
        Some(&(SOLICITATION | ADVERTISEMENT)) => {
            message.len() >= BYTES && site.owns(IpAddr::V6(v6_at(message, TARGET_AT)))
        }
        Some(_) | None => false,
    }
}

/// The address that a neighbour solicitation asks for.
pub(super) fn question(frame: &Frame) -> Option<Ipv6Addr> {
    let is_whole = frame.headers.protocol() == protocol::ICMPV6 && !frame.headers.is_fragment();
    let message = packet::payload(frame);
    let asks = is_whole && message.first() == Some(&SOLICITATION) && message.len() >= BYTES;
    asks.then(|| v6_at(message, TARGET_AT))
}

/// Turns a solicitation into the advertisement. Nobody may advertise the gateway's address.
pub(super) fn answer(site: &Site<'_>, frame: &mut Frame) -> Result<Fate, DropReason> {
    let (source, target) = addresses(frame);
    let kind = check(frame, source, target)?;
    if kind == ADVERTISEMENT || !source.is_unspecified() && site.is_martian(source.into()) {
        return Err(DropReason::Martian);
    }
    let link = Link { source: site.gateway.mac, target: frame.source() };
    if kind == ROUTER_SOLICITATION {
        let to = if source.is_unspecified() { ALL_NODES } else { source };
        let lifetime = advertise::lifetime(site.network, site.gateway, site.from);
        advertise::write(frame, site.network, site.gateway, link, to, lifetime);
    } else {
        let about = v6_at(packet::payload(frame), TARGET_AT);
        advertise_address(frame, link, about, source);
    }
    Ok(Fate::Answer)
}

/// Checks what RFC 4861 says in 6.1.1, 7.1.1 and 7.1.2, and answers the type of the message.
fn check(frame: &Frame, source: Ipv6Addr, target: Ipv6Addr) -> Result<u8, DropReason> {
    let network = frame.headers.network_offset();
    let ip = &frame.bytes()[network..network + packet::IPV6_BYTES];
    let message = packet::payload(frame);
    let (kind, bytes) = match message {
        [ROUTER_SOLICITATION, 0, ..] => (ROUTER_SOLICITATION, ROUTER_SOLICITATION_BYTES),
        [kind @ (SOLICITATION | ADVERTISEMENT), 0, ..] => (*kind, BYTES),
        _ => return Err(DropReason::MalformedIcmp),
    };
    if ip[7] != HOP_LIMIT_MAX || !packet::is_plain(frame) {
        return Err(DropReason::MalformedIcmp);
    }
    let has_source = message.get(bytes..).and_then(options).ok_or(DropReason::MalformedIcmp)?;
    let solicited_node = target.octets()[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    let probe = kind == SOLICITATION && !solicited_node;
    if source.is_unspecified() && (has_source || probe) {
        return Err(DropReason::MalformedIcmp);
    }
    if packet::icmpv6_sum(&ip[8..], message).checksum() != 0 {
        return Err(DropReason::BadChecksum);
    }
    Ok(kind)
}

/// Walks options; says whether one names the source's MAC address. `None` when they are malformed.
fn options(mut rest: &[u8]) -> Option<bool> {
    let mut has_source = false;
    while let [kind, units, ..] = *rest {
        if units == 0 {
            return None;
        }
        has_source |= kind == OPTION_SOURCE;
        rest = rest.get(usize::from(units) * 8..)?;
    }
    rest.is_empty().then_some(has_source)
}

/// Makes the frame the advertisement of an address of the gateway's. One who is looking whether the address
/// is free has none itself, and hears it as all do (RFC 4861, 7.2.4).
fn advertise_address(frame: &mut Frame, link: Link, about: Ipv6Addr, asker: Ipv6Addr) {
    const ROUTER: u8 = 0x80;
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let probe = asker.is_unspecified();
    let mut message = [0; BYTES + 8];
    message[0] = ADVERTISEMENT;
    message[4] = ROUTER | OVERRIDE | if probe { 0 } else { SOLICITED };
    message[TARGET_AT..BYTES].copy_from_slice(&about.octets());
    message[BYTES..BYTES + 2].copy_from_slice(&[OPTION_TARGET, 1]);
    message[BYTES + 2..].copy_from_slice(&link.source.0);
    let (target, link) =
        if probe { (ALL_NODES, Link { target: ALL_NODES_MAC, ..link }) } else { (asker, link) };
    packet::fill_icmpv6(frame, link, [about, target], HOP_LIMIT_MAX, &mut message);
}

fn addresses(frame: &Frame) -> (Ipv6Addr, Ipv6Addr) {
    let ip = &frame.bytes()[frame.headers.network_offset()..];
    (v6_at(ip, 8), v6_at(ip, 24))
}
