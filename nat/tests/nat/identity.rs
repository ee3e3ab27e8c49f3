//! There and back is the identity, whatever the checksum's state, and every checksum is right on the way.

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::checksum::{Sum, pseudo_header};
use vswitch_frame::{Checksum, Gso, GsoKind, Headers, Offload};
use vswitch_nat::{Protocol, Uplink};

use crate::support::{Fate, HOST_4, HOST_6, Kind, LAN, Packet, World, end, packet};

/// Work the sender left undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Its kernel has looked.
    Valid,
    Checksum,
    /// A super-frame.
    Segments,
}

fn sent() -> impl Strategy<Value = Packet> {
    let ends = prop_oneof![
        (2u8.., 1u16.., 1u16..).prop_map(|(host, source, target)| {
            (format!("10.1.0.{host}:{source}"), format!("198.51.100.{host}:{target}"))
        }),
        (2u8.., 1u16.., 1u16..).prop_map(|(host, source, target)| {
            (format!("[fd01::{host}]:{source}"), format!("[2001:db8:9::{host}]:{target}"))
        }),
    ];
    let kind = prop_oneof![Just(Kind::Udp), Just(Kind::Tcp("S", 7, 0)), Just(Kind::Request)];
    (ends, kind, vec(any::<u8>(), 0..3000)).prop_map(|((source, target), kind, payload)| {
        let mut packet = Packet { payload, ..packet(kind, &source, &target) };
        if kind == Kind::Request {
            packet.target.set_port(0);
        }
        packet
    })
}

fn left() -> impl Strategy<Value = Left> {
    prop_oneof![Just(Left::Nothing), Just(Left::Valid), Just(Left::Checksum), Just(Left::Segments)]
}

fn checksum_at(packet: &Packet, headers: &Headers) -> usize {
    headers.transport_offset() + if packet.kind == Kind::Udp { 6 } else { 16 }
}

/// The frame as its sender hands it over.
fn undo(packet: &Packet, left: Left) -> (Vec<u8>, Offload) {
    let mut bytes = packet.frame();
    let headers = Headers::parse(&bytes).expect("a packet");
    if left == Left::Nothing || packet.kind == Kind::Request {
        return (bytes, Offload::NONE);
    }
    if left == Left::Valid {
        return (bytes, Offload { checksum: Checksum::Valid, gso: None });
    }
    let at = checksum_at(packet, &headers);
    let sum = pseudo_header(&bytes, &headers, bytes.len() - headers.transport_offset()).folded();
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let start = u16::try_from(headers.transport_offset()).expect("an offset");
    let offset = u16::try_from(at).expect("an offset") - start;
    let kind = match (packet.kind, headers.is_ipv4()) {
        (Kind::Udp, _) => GsoKind::Udp,
        (_, true) => GsoKind::Tcp4,
        (_, false) => GsoKind::Tcp6,
    };
    let gso = Gso { kind, size: 500, ecn: false, same_id: false };
    let gso = (left == Left::Segments).then_some(gso);
    (bytes, Offload { checksum: Checksum::Partial { start, offset }, gso })
}

/// The frame with the checksum finished, as a device does it.
fn finish(bytes: &[u8], offload: Offload) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Checksum::Partial { start, offset } = offload.checksum {
        let (start, at) = (usize::from(start), usize::from(start + offset));
        let checksum = match Sum::ZERO.add_bytes(&bytes[start..]).checksum() {
            0 => 0xffff,
            checksum => checksum,
        };
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

/// The frame the other way: no checksum changes by that.
fn turned(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let headers = Headers::parse(&bytes).expect("a packet");
    let (at, each) = if headers.is_ipv4() { (26, 4) } else { (22, 16) };
    let (source, target) = bytes[at..at + 2 * each].split_at_mut(each);
    source.swap_with_slice(target);
    let ports = headers.transport_offset();
    let (source, target) = bytes[ports..ports + 4].split_at_mut(2);
    source.swap_with_slice(target);
    bytes
}

fn world() -> World {
    let mut world = World::new();
    world.nat.set_uplink(Uplink {
        v4: Some(HOST_4.parse().expect("IPv4")),
        v6: Some(HOST_6.parse().expect("IPv6")),
        host: Vec::new(),
        mtu: 0,
        mtus: [].into(),
    });
    world
}

proptest! {
    #[test]
    fn there_and_back_is_the_identity(sent in sent(), left in left()) {
        let mut world = world();
        let (bytes, offload) = undo(&sent, left);
        let outs = world.outbound(LAN, &bytes, offload);
        prop_assert_eq!(outs[0].fate, Fate::Outside);
        prop_assert_eq!(outs[0].offload, offload);
        let wire = Packet::read(&finish(&outs[0].bytes, offload));
        let host = if sent.source.is_ipv4() { HOST_4 } else { HOST_6 };
        prop_assert_eq!(wire.source.ip(), end(host).ip());
        prop_assert_eq!((wire.target, &wire.payload), (sent.target, &sent.payload));
        if sent.kind == Kind::Request {
            prop_assert_eq!(world.enters(&wire.reply()), sent.reply());
            return Ok(());
        }
        let back = world.inbound(&turned(&outs[0].bytes), offload);
        prop_assert_eq!(back[0].fate, Fate::Inside(LAN));
        prop_assert_eq!(&turned(&finish(&back[0].bytes, offload)), &finish(&bytes, offload));
    }

    #[test]
    fn a_datagram_without_checksum_stays_without(payload in vec(any::<u8>(), 0..50)) {
        let mut world = world();
        let sent = Packet { payload, ..packet(Kind::Udp, "10.1.0.2:5000", "198.51.100.1:53") };
        let mut bytes = sent.frame();
        bytes[40..42].fill(0);
        let outs = world.outbound(LAN, &bytes, Offload::NONE);
        prop_assert_eq!(&outs[0].bytes[40..42], &[0, 0]);
        prop_assert_eq!(outs[0].packet().payload, sent.payload);
    }
}

#[test]
fn the_checksum_of_a_tunnel_inside_is_finished_and_left_alone() {
    // UDP without a checksum that carries a packet whose own is left to us.
    let mut world = world();
    let sent = Packet { payload: vec![3; 80], ..packet(Kind::Udp, "10.1.0.2:5000", "198.51.100.1:4789") };
    let offload = Offload { checksum: Checksum::Partial { start: 60, offset: 6 }, gso: None };
    let mut frame = sent.frame();
    frame[40..42].fill(0);
    let outs = world.outbound(LAN, &frame, offload);
    assert_eq!(outs[0].fate, Fate::Outside);
    assert_eq!(outs[0].packet().payload, finish(&frame, offload)[42..]);
    assert_eq!(world.nat.flows(world.now).filter(|flow| flow.initiator.protocol == Protocol::Udp).count(), 1);
}
