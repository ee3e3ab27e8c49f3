//! The walls, as properties of what arrives where when somebody sends a frame.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::bytes::Bytes;
use super::frames;
use super::house::{Arrived, House};
use super::places::*;
use super::seen::{Content, Packet, Seen};

/// Any bytes as an attack: frames from here and there, and time between them.
///
/// # Panics
/// When a frame passes a wall.
pub fn walls(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut house = House::new();
    let mut contacted = BTreeSet::new();
    let attackers: Vec<Place> = PLACES.into_iter().filter(|place| place.role != Role::Host).collect();
    while !bytes.is_empty() {
        let from = bytes.pick(&attackers);
        house.settle(Duration::from_millis(u64::from(bytes.pick(&[0u16, 0, 0, 1, 1000, 40_000]))));
        let sent = frames::frame(&mut bytes, &from);
        let as_stranger = from == BEYOND && bytes.once_in(4);
        let arrived = if as_stranger { house.send_as_stranger(&sent) } else { house.send(&from, &sent) };
        for arrived in arrived {
            let story =
                || format!("{} sent {:02x?}\n{} got {arrived:02x?}", from.name, sent, arrived.at.name);
            assert!(!as_stranger, "from no peer: {}", story());
            if let Err(wall) = passed(&from, &arrived, &mut contacted) {
                panic!("{wall}: {}", story());
            }
        }
    }
}

/// Whether what a place sent may have arrived so.
fn passed(from: &Place, arrived: &Arrived, contacted: &mut BTreeSet<IpAddr>) -> Result<(), &'static str> {
    if arrived.at == *from {
        return Ok(());
    }
    // With the checksum that the receiver may still put in.
    for frame in [arrived.frame.clone(), completed(arrived)] {
        let seen = Seen::of(&frame).ok_or("a runt")?;
        addressee(&arrived.at, &seen)?;
        match arrived.at.role {
            Role::Host => host(from, &arrived.at, &seen)?,
            Role::World => world(from, &seen, contacted)?,
            Role::Container | Role::Beyond => match from.role {
                Role::World => from_world(&arrived.at, &seen, contacted)?,
                Role::Container | Role::Beyond | Role::Host => neighbours(from, &arrived.at, &seen)?,
            },
        }
    }
    Ok(())
}

/// The frame with the checksum that its virtio-net header asks for.
fn completed(arrived: &Arrived) -> Vec<u8> {
    let word = |at: usize| u16::from_ne_bytes([arrived.header[at], arrived.header[at + 1]]);
    let (start, field) = (usize::from(word(6)), usize::from(word(6)) + usize::from(word(8)));
    let mut frame = arrived.frame.clone();
    if arrived.header[0] & 1 != 0 && field + 2 <= frame.len() {
        let sum = crate::packets::rfc1071(&frame[start..]);
        frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

fn demand(holds: bool, wall: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(wall) }
}

fn is_group(mac: [u8; 6]) -> bool {
    mac[0] & 1 != 0
}

fn is_for_many(address: IpAddr, network: u16) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, .., d] = address.octets();
            address.is_multicast() || address.is_broadcast() || (a, u16::from(b), d) == (10, network, 255)
        }
        IpAddr::V6(address) => address.is_multicast(),
    }
}

/// A frame for one station arrives at that station.
fn addressee(at: &Place, seen: &Seen) -> Result<(), &'static str> {
    let somebody = PLACES.iter().find(|place| place.network == at.network && place.mac() == seen.target);
    let router = at.role == Role::World;
    demand(
        router || somebody.is_none_or(|somebody| somebody == at),
        "a frame went to another than its addressee",
    )
}

/// The gate in front of the host's stack.
fn host(from: &Place, at: &Place, seen: &Seen) -> Result<(), &'static str> {
    demand(from.role == Role::Container, "only containers reach the host by its networks")?;
    demand(from.network == at.network, "the host is reached by the own network")?;
    demand(!seen.tagged, "a tagged frame reached the host")?;
    let Content::Ip(packet) = &seen.content else { return Ok(()) };
    if !is_group(seen.target) && seen.target != gateway_mac(at.network) {
        // Flooded, and for nobody here: the stack does not look at it.
        return Ok(());
    }
    if is_group(seen.target) {
        return demand(
            is_for_many(packet.target, at.network),
            "a group address around a packet for the host",
        );
    }
    let (v4, v6) = gateway(at.network);
    let near = packet.target == IpAddr::V4(v4) || packet.target == IpAddr::V6(v6) || at.owns(packet.target);
    let hosts = [HOST_V4.into(), HOST_OTHER.into(), HOST_V6.into()].contains(&packet.target)
        || NETWORKS.iter().any(|network| {
            let (v4, v6) = gateway(*network);
            packet.target == IpAddr::V4(v4) || packet.target == IpAddr::V6(v6)
        });
    demand(near || hosts && at.network != INTERNAL, "the host's stack got a packet for elsewhere")?;
    speaks_for_itself(from, seen)
}

/// A packet that goes out into the world has an address of the host's, and is from no internal network.
fn world(from: &Place, seen: &Seen, contacted: &mut BTreeSet<IpAddr>) -> Result<(), &'static str> {
    demand(from.role == Role::Container, "only containers reach the world")?;
    demand(!seen.tagged, "a tagged frame reached the world")?;
    match &seen.content {
        Content::Arp(mac, sender, _) => {
            demand(*mac == WORLD.mac() && *sender == HOST_V4, "a question in another's name")
        }
        Content::Ip(packet) => {
            demand(from.network != INTERNAL, "out of an internal network")?;
            demand(seen.source == WORLD.mac(), "out with another's MAC address")?;
            let hosts: [IpAddr; 4] =
                [HOST_V4.into(), HOST_V6.into(), HOST_OTHER.into(), WORLD.link_local().into()];
            demand(hosts.contains(&packet.source), "out with a private address")?;
            contacted.insert(packet.target);
            Ok(())
        }
        Content::Other => Err("something that is not IP left"),
    }
}

/// From the world come answers, and clients of published ports.
fn from_world(at: &Place, seen: &Seen, contacted: &BTreeSet<IpAddr>) -> Result<(), &'static str> {
    demand(at.role == Role::Container, "from the world to another host")?;
    demand(at.network != INTERNAL, "into an internal network")?;
    demand(!seen.tagged, "a tagged frame from the world")?;
    let Content::Ip(packet) = &seen.content else { return Err("something that is not IP came in") };
    demand(at.owns(packet.target), "from the world for somebody else")?;
    let known = contacted.contains(&packet.source) || packet.is_error();
    demand(known || is_published(at, packet), "from the world unasked")?;
    obeys_rules(at, packet)
}

fn is_published(at: &Place, packet: &Packet) -> bool {
    let ports = packet.ports().map(|(_, target)| target);
    *at == SERVER && packet.protocol == 6 && (ports == Some(PUBLISHED.1) || packet.segment.is_empty())
}

/// Between containers.
fn neighbours(from: &Place, at: &Place, seen: &Seen) -> Result<(), &'static str> {
    if from.network != at.network {
        demand(at.role == Role::Container, "from one network into another's tunnel")?;
        demand(from.network != INTERNAL, "out of an internal network")?;
        let Content::Ip(packet) = &seen.content else { return Err("something that is not IP was routed") };
        return demand(is_published(at, packet), "from one network into another");
    }
    demand(at.network != APART, "between containers that are apart")?;
    if let Content::Ip(packet) = &seen.content {
        obeys_rules(at, packet)?;
        if is_published(at, packet) {
            return Ok(());
        }
    }
    speaks_for_itself(from, seen)
}

fn obeys_rules(at: &Place, packet: &Packet) -> Result<(), &'static str> {
    let forbidden = at.network == 1
        && packet.protocol == 6
        && packet.ports().is_some_and(|(_, target)| target == FORBIDDEN);
    demand(!forbidden, "past a rule")
}

/// A container says what is true of itself, and poses as no router and no DHCP server.
fn speaks_for_itself(from: &Place, seen: &Seen) -> Result<(), &'static str> {
    let is_unknown = !PLACES.iter().any(|place| place.network == from.network && place.mac() == seen.source);
    if from.role == Role::Beyond && is_unknown {
        // Of an endpoint without a record nothing is known, but that it is none of these.
        return Ok(());
    }
    let is_routed = seen.source == gateway_mac(from.network) && matches!(seen.content, Content::Ip(_));
    demand(seen.source == from.mac() || is_routed, "with another's MAC address")?;
    match &seen.content {
        Content::Arp(mac, sender, _) => {
            let own = *mac == from.mac() && (sender.is_unspecified() || *sender == from.v4());
            demand(own, "an ARP packet in another's name")
        }
        Content::Ip(packet) => {
            let link_local = matches!(packet.source, IpAddr::V6(source) if source.is_unicast_link_local()
                && source.octets()[11..13] != [0xff, 0xfe]);
            let own = from.owns(packet.source) || packet.source.is_unspecified() || link_local;
            demand(own, "a packet in another's name")?;
            demand(!is_router(packet), "as a router")?;
            demand(!is_dhcp_server(packet), "as a DHCP server")
        }
        Content::Other => Ok(()),
    }
}

fn is_router(packet: &Packet) -> bool {
    match packet.protocol {
        1 => packet.icmp() == Some(5),
        58 => !packet.fragment && matches!(packet.icmp(), Some(134 | 137)),
        _ => false,
    }
}

fn is_dhcp_server(packet: &Packet) -> bool {
    const REPLY: u8 = 2;
    let Some((_, target)) = packet.ports().filter(|_| packet.protocol == 17) else { return false };
    let first = packet.segment.get(8).copied();
    match packet.source {
        IpAddr::V4(_) => target == 68 && first == Some(REPLY),
        // ADVERTISE, REPLY and RECONFIGURE (RFC 8415, 7.3).
        IpAddr::V6(_) => target == 546 && matches!(first, Some(2 | 7 | 10)),
    }
}
