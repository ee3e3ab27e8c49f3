//! RFC 4787, REQ-14: fragments in order and out of order, and those that are no good.

use vswitch_frame::checksum::Sum;
use vswitch_frame::{DropReason, Offload};
use vswitch_nat::{Limits, Protocol};

use crate::support::{Fate, LAN, Out, Packet, World, binding, udp};

const LINK: usize = 14;

/// Computes the checksum of an IPv4 header anew.
pub(crate) fn reseal_ip(frame: &mut [u8]) {
    let end = LINK + usize::from(frame[LINK] & 0xf) * 4;
    frame[LINK + 10..LINK + 12].fill(0);
    let checksum = Sum::ZERO.add_bytes(&frame[LINK..end]).checksum();
    frame[LINK + 10..LINK + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// The fragment of a frame that has these bytes of its IP payload.
fn fragment(frame: &[u8], from: usize, to: usize, more: bool) -> Vec<u8> {
    let is_v4 = frame[LINK] >> 4 == 4;
    let header = LINK + if is_v4 { 20 } else { 40 };
    let place = u16::try_from(from / 8).expect("an offset");
    let mut head = frame[..header].to_vec();
    let payload = &frame[header + from..header + to];
    if is_v4 {
        let total = u16::try_from(20 + payload.len()).expect("a length");
        head[LINK + 2..LINK + 4].copy_from_slice(&total.to_be_bytes());
        head[LINK + 4..LINK + 6].copy_from_slice(&[0xab, 0xcd]);
        head[LINK + 6..LINK + 8].copy_from_slice(&(place | u16::from(more) << 13).to_be_bytes());
        reseal_ip(&mut head);
    } else {
        let length = u16::try_from(8 + payload.len()).expect("a length");
        head[LINK + 4..LINK + 6].copy_from_slice(&length.to_be_bytes());
        let next = std::mem::replace(&mut head[LINK + 6], 44);
        let [high, low] = (place << 3 | u16::from(more)).to_be_bytes();
        head.extend([next, 0, high, low, 0, 0, 0xab, 0xcd]);
    }
    [&head, payload].concat()
}

/// A frame in three.
pub(crate) fn three(frame: &[u8]) -> [Vec<u8>; 3] {
    let end = frame.len() - LINK - if frame[LINK] >> 4 == 4 { 20 } else { 40 };
    [fragment(frame, 0, 24, true), fragment(frame, 24, 64, true), fragment(frame, 64, end, false)]
}

fn bytes(outs: &[Out]) -> Vec<Vec<u8>> {
    outs.iter().map(|out| out.bytes.clone()).collect()
}

/// Puts fragments together: addresses of all, and the payload.
pub(crate) fn reassemble(frames: &[Vec<u8>]) -> Vec<u8> {
    let first = &frames[0];
    let is_v4 = first[LINK] >> 4 == 4;
    let addresses = if is_v4 { LINK + 12..LINK + 20 } else { LINK + 8..LINK + 40 };
    let mut pieces = Vec::new();
    for bytes in frames {
        assert_eq!(bytes[addresses.clone()], first[addresses.clone()]);
        let (at, place) = if is_v4 {
            assert_eq!(Sum::ZERO.add_bytes(&bytes[LINK..LINK + 20]).checksum(), 0);
            (LINK + 20, u16::from_be_bytes([bytes[LINK + 6], bytes[LINK + 7]]) & 0x1fff)
        } else {
            (LINK + 48, u16::from_be_bytes([bytes[LINK + 42], bytes[LINK + 43]]) >> 3)
        };
        pieces.push((place, bytes[at..].to_vec()));
    }
    pieces.sort();
    [first[addresses].to_vec(), pieces.into_iter().flat_map(|(_, bytes)| bytes).collect()].concat()
}

/// The addresses and the payload of a whole packet.
pub(crate) fn whole(frame: &[u8]) -> Vec<u8> {
    let is_v4 = frame[LINK] >> 4 == 4;
    if is_v4 { frame[LINK + 12..].to_vec() } else { frame[LINK + 8..].to_vec() }
}

fn long(source: &str, target: &str) -> Packet {
    Packet { payload: (0..100).collect(), ..udp(source, target) }
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn rfc4787_req14_fragments_out_pass_in_any_order() {
    for (source, target) in [("10.1.0.2:5000", "198.51.100.1:53"), ("[fd01::2]:5000", "[2001:db8:9::1]:53")] {
        let sent = long(source, target);
        for order in ORDERS {
            let mut world = World::new();
            let expected = world.out(&sent).bytes;
            let pieces = three(&sent.frame());
            let outs: Vec<Out> =
                order.iter().flat_map(|&at| world.outbound(LAN, &pieces[at], Offload::NONE)).collect();
            assert_eq!(outs.len(), 3, "{order:?}");
            assert!(outs.iter().all(|out| out.fate == Fate::Outside), "{outs:?}");
            assert_eq!(reassemble(&bytes(&outs)), whole(&expected), "{order:?}");
            assert!(world.nat.poll_at().is_some());
        }
    }
}

#[test]
fn rfc4787_req14_fragments_in_pass_in_any_order() {
    let sent = long("198.51.100.1:999", "192.0.2.1:8080");
    for order in ORDERS {
        let mut world = World::new();
        world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
        let expected = world.inn(&sent).bytes;
        let pieces = three(&sent.frame());
        let outs: Vec<Out> = order.iter().flat_map(|&at| world.inbound(&pieces[at], Offload::NONE)).collect();
        assert_eq!(outs.len(), 3);
        assert!(outs.iter().all(|out| out.fate == Fate::Inside(LAN)), "{outs:?}");
        assert_eq!(reassemble(&bytes(&outs)), whole(&expected), "{order:?}");
    }
}

#[test]
fn an_identification_may_come_again_when_its_datagram_was_whole() {
    let mut world = World::new();
    for _ in 0..5000 {
        for piece in three(&long("10.1.0.2:5000", "198.51.100.1:53").frame()) {
            assert_eq!(world.outbound(LAN, &piece, Offload::NONE)[0].fate, Fate::Outside);
        }
    }
}

#[test]
fn rfc5722_overlapping_fragments_are_dropped_and_end_their_datagram() {
    let frame = long("10.1.0.2:5000", "198.51.100.1:53").frame();
    let overlap = Fate::Dropped(DropReason::NatFragmentOverlap);
    let mut world = World::new();
    let mut send = |piece: Vec<u8>| -> Vec<Fate> {
        world.outbound(LAN, &piece, Offload::NONE).iter().map(|out| out.fate).collect()
    };
    assert_eq!(send(fragment(&frame, 0, 24, true)), [Fate::Outside]);
    assert_eq!(send(fragment(&frame, 0, 24, true)), [overlap], "twice the same");
    assert_eq!(send(fragment(&frame, 24, 64, true)), [Fate::Outside]);
    assert_eq!(send(fragment(&frame, 56, 80, true)), [overlap]);
    assert_eq!(send(fragment(&frame, 64, 108, false)), [overlap], "the datagram is ended");
}

#[test]
fn a_first_fragment_that_overlaps_what_waits_does_not_pass() {
    let frame = long("10.1.0.2:5000", "198.51.100.1:53").frame();
    let mut world = World::new();
    assert!(world.outbound(LAN, &fragment(&frame, 8, 64, true), Offload::NONE).is_empty());
    let outs = world.outbound(LAN, &fragment(&frame, 0, 24, true), Offload::NONE);
    assert_eq!(outs.len(), 2, "the one that waited is dropped, too");
    assert!(outs.iter().all(|out| matches!(out.fate, Fate::Dropped(_))), "{outs:?}");
    assert_eq!(world.flows(), 0);
}

#[test]
fn bad_fragments_are_dropped() {
    let frame = long("10.1.0.2:5000", "198.51.100.1:53").frame();
    let cases = [
        ("shorter than the transport header", fragment(&frame, 0, 4, false)),
        ("not in units of eight", fragment(&frame, 8, 20, true)),
        ("empty", fragment(&frame, 8, 8, true)),
    ];
    let behind_the_end = {
        let mut piece = fragment(&frame, 64, 108, false);
        piece[LINK + 6..LINK + 8].copy_from_slice(&0x1fffu16.to_be_bytes());
        reseal_ip(&mut piece);
        ("behind the end of the largest packet", piece)
    };
    for (what, piece) in cases.into_iter().chain([behind_the_end]) {
        let mut piece = piece;
        if what == "shorter than the transport header" {
            piece[LINK + 6] |= 0x20;
            reseal_ip(&mut piece);
        }
        let mut world = World::new();
        let outs = world.outbound(LAN, &piece, Offload::NONE);
        assert_eq!(outs[0].fate, Fate::Dropped(DropReason::NatMalformed), "{what}");
    }
}

#[test]
fn fragments_that_wait_are_limited_in_number_and_time() {
    let mut world = World::with(Limits { fragments_waiting: 2, datagrams: 3, ..World::limits() });
    let stray = |host: u8| {
        let frame = long(&format!("10.1.0.{host}:5000"), "198.51.100.1:53").frame();
        fragment(&frame, 24, 64, true)
    };
    assert!(world.outbound(LAN, &stray(2), Offload::NONE).is_empty());
    assert!(world.outbound(LAN, &stray(3), Offload::NONE).is_empty());
    let lost = Fate::Dropped(DropReason::NatFragmentLost);
    assert_eq!(world.outbound(LAN, &stray(4), Offload::NONE)[0].fate, lost, "no room to wait");
    let outs = world.outbound(LAN, &stray(5), Offload::NONE);
    assert_eq!(outs.len(), 1, "the oldest datagram is forgotten: {outs:?}");
    assert_eq!(outs[0].fate, lost);
    world.seconds(61);
    let outs = world.poll();
    assert_eq!((outs.len(), world.nat.stats().fragments_waiting), (2, 0));
    assert_eq!(world.nat.poll_at(), None);
}

#[test]
fn fragments_of_what_is_for_the_host_or_dropped_go_the_same_way() {
    let mut world = World::new();
    let [first, second, third] = three(&long("198.51.100.1:53", "192.0.2.1:22").frame());
    assert!(world.inbound(&third, Offload::NONE).is_empty());
    for piece in [first, second] {
        let outs = world.inbound(&piece, Offload::NONE);
        assert!(outs.iter().all(|out| out.fate == Fate::Host), "{outs:?}");
    }
    let [first, second, _] = three(&long("198.51.100.1:53", "192.0.2.1:40001").frame());
    let dropped = Fate::Dropped(DropReason::NatFiltered);
    assert_eq!(world.inbound(&first, Offload::NONE)[0].fate, dropped);
    assert_eq!(world.inbound(&second, Offload::NONE)[0].fate, dropped);
}

fn id(frame: &[u8]) -> [u8; 2] {
    [frame[LINK + 4], frame[LINK + 5]]
}

#[test]
fn rfc6864_datagrams_of_two_containers_are_not_taken_for_one() {
    let mut world = World::new();
    let mut seen = Vec::new();
    for source in ["10.1.0.2:5000", "10.1.0.3:5000"] {
        let mut sent = udp(source, "198.51.100.1:53");
        sent.payload = vec![7; 100];
        let frame = sent.frame();
        let outs: Vec<Out> =
            three(&frame).iter().flat_map(|piece| world.outbound(LAN, piece, Offload::NONE)).collect();
        let ids: Vec<_> = outs.iter().map(|out| id(&out.bytes)).collect();
        assert_eq!(ids, [ids[0]; 3], "one datagram's are one");
        seen.push(ids[0]);
        let may_be_fragmented = {
            let mut frame = frame.clone();
            frame[LINK + 6] = 0;
            reseal_ip(&mut frame);
            frame
        };
        for (whole, changes) in [(frame, false), (may_be_fragmented, true)] {
            let out = world.outbound(LAN, &whole, Offload::NONE).remove(0).bytes;
            assert_eq!(Sum::ZERO.add_bytes(&out[LINK..LINK + 20]).checksum(), 0);
            assert_eq!(id(&out) != id(&whole), changes);
            seen.extend(changes.then(|| id(&out)));
        }
    }
    let numbers: Vec<u16> = seen.into_iter().map(u16::from_be_bytes).collect();
    let expected: Vec<u16> = (0..4).map(|step| numbers[0].wrapping_add(step)).collect();
    assert_eq!(numbers, expected);
}
