//! Frames that an attacker would send: nearly right, with a lie in one place or two.

use super::bytes::Bytes;
use super::places::*;
use crate::packets::rfc1071;

/// Bytes of a virtio-net header.
pub(super) const HEADER: usize = 10;

/// The next frame from a place, with a virtio-net header in front.
pub(super) fn frame(bytes: &mut Bytes<'_>, from: &Place) -> Vec<u8> {
    if bytes.once_in(16) {
        return [header(bytes, None).to_vec(), bytes.some()].concat();
    }
    let mut frame = [target_mac(bytes, from), source_mac(bytes, from)].concat();
    for _ in 0..bytes.pick(&[0, 0, 0, 1, 2, 3, 4]) {
        frame.extend(bytes.pick(&[0x8100u16, 0x88a8, 0x9100]).to_be_bytes());
        frame.extend(bytes.pick(&[0u16, 0, 0xe000, 5]).to_be_bytes());
    }
    let network = frame.len() + 2;
    let kind = bytes.pick(&[0x0800u16, 0x0800, 0x86dd, 0x86dd, 0x0806, 0x88b5]);
    frame.extend(kind.to_be_bytes());
    let transport = match kind {
        0x0800 => ipv4(bytes, from, &mut frame),
        0x86dd => ipv6(bytes, from, &mut frame),
        0x0806 => arp(bytes, from, &mut frame),
        _ => None,
    };
    for _ in 0..bytes.pick(&[0, 0, 0, 0, 1, 2]) {
        let (at, value) = (usize::from(bytes.word()) % frame.len(), bytes.next());
        frame[at] = value;
    }
    match bytes.next() % 16 {
        14 => frame.truncate(usize::from(bytes.word()) % (frame.len() + 1)),
        15 => frame.extend(vec![0; usize::from(bytes.next())]),
        _ => {}
    }
    let transport = transport.map(|(at, checksum)| (network.max(at), checksum));
    [header(bytes, transport).to_vec(), frame].concat()
}

/// A virtio-net header: mostly none, or one that is right for a transport whose header and checksum field are
/// there, or a lie.
fn header(bytes: &mut Bytes<'_>, transport: Option<(usize, u16)>) -> [u8; HEADER] {
    const NEEDS_CHECKSUM: u8 = 1;
    let (flags, kind, size, start, offset) = match (bytes.next() % 8, transport) {
        (5, Some((at, offset))) => (NEEDS_CHECKSUM, 0, 0, u16::try_from(at).unwrap_or(0), offset),
        (6, _) => (NEEDS_CHECKSUM, 0, 0, bytes.word() % 128, bytes.word() % 64),
        (7, Some((at, offset))) => {
            let kind = bytes.pick(&[1, 4, 5, 3, 0x81]);
            (NEEDS_CHECKSUM, kind, bytes.word() % 64, u16::try_from(at).unwrap_or(0), offset)
        }
        _ => (0, 0, 0, 0, 0),
    };
    let length = if kind == 0 { 0 } else { start + 20 };
    let mut header = [0; HEADER];
    (header[0], header[1]) = (flags, kind);
    for (place, word) in header[2..].chunks_mut(2).zip([length, size, start, offset]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    header
}

fn others(from: &Place) -> Vec<Place> {
    let near = PLACES.iter().filter(|place| place.network == from.network && *place != from);
    near.chain(&PLACES).copied().collect()
}

fn source_mac(bytes: &mut Bytes<'_>, from: &Place) -> [u8; 6] {
    let own = if from.role == Role::World { ROUTER_MAC } else { from.mac() };
    match bytes.next() % 16 {
        12 => bytes.pick(&others(from)).mac(),
        13 => gateway_mac(from.network),
        14 => bytes.pick(&[[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]]),
        15 => [2, 0xaa, 0, 0, 0, bytes.next()],
        _ => own,
    }
}

fn target_mac(bytes: &mut Bytes<'_>, from: &Place) -> [u8; 6] {
    if from.role == Role::World && !bytes.once_in(8) {
        return WORLD.mac();
    }
    match bytes.next() % 16 {
        0..6 => gateway_mac(from.network),
        6..12 => bytes.pick(&others(from)).mac(),
        12 => [0xff; 6],
        13 => bytes.pick(&[[1, 0, 0x5e, 0, 0, 0xfb], [0x33, 0x33, 0, 0, 0, 1], [1, 0x80, 0xc2, 0, 0, 3]]),
        14 => [2, 0xaa, 0, 0, 0, bytes.next()],
        _ => from.mac(),
    }
}

/// The sender's address, mostly its own.
fn source_v4(bytes: &mut Bytes<'_>, from: &Place) -> [u8; 4] {
    match bytes.next() % 16 {
        13 => bytes.pick(&others(from)).v4().octets(),
        14 => bytes.pick(&[[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], [10, 1, 0, 99]]),
        15 => FAR_V4.octets(),
        _ if from.role == Role::World => bytes.pick(&[FAR_V4, FAR_V4, ROUTER_V4]).octets(),
        _ => from.v4().octets(),
    }
}

fn target_v4(bytes: &mut Bytes<'_>, from: &Place) -> [u8; 4] {
    match bytes.next() % 16 {
        0..3 => bytes.pick(&others(from)).v4().octets(),
        3..6 => gateway(from.network).0.octets(),
        6..8 => HOST_V4.octets(),
        8 => HOST_OTHER.octets(),
        9 => bytes.pick(&PLACES).v4().octets(),
        10 => bytes.pick(&[[255; 4], [224, 0, 0, 251], [10, 1, 0, 255], [0; 4], [127, 0, 0, 1]]),
        11 => gateway(bytes.pick(&NETWORKS)).0.octets(),
        12 => [169, 254, 1, 1],
        _ => FAR_V4.octets(),
    }
}

fn source_v6(bytes: &mut Bytes<'_>, from: &Place) -> [u8; 16] {
    match bytes.next() % 16 {
        11 => bytes.pick(&others(from)).link_local().octets(),
        12 => [0; 16],
        13 => bytes.pick(&others(from)).v6().octets(),
        14 => bytes.pick(&[[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], [0xff; 16]]),
        15 => FAR_V6.octets(),
        _ if from.role == Role::World => FAR_V6.octets(),
        7..11 => from.link_local().octets(),
        _ => from.v6().octets(),
    }
}

fn target_v6(bytes: &mut Bytes<'_>, from: &Place) -> [u8; 16] {
    const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    match bytes.next() % 16 {
        0..3 => bytes.pick(&others(from)).v6().octets(),
        3..5 => gateway(from.network).1.octets(),
        5 => bytes.pick(&others(from)).link_local().octets(),
        6..8 => HOST_V6.octets(),
        8 => ALL_NODES,
        9 => bytes.pick(&PLACES).v6().octets(),
        10 => gateway(bytes.pick(&NETWORKS)).1.octets(),
        11 => ROUTER_V6.octets(),
        _ => FAR_V6.octets(),
    }
}

/// Writes an IPv4 packet; says where its transport is, and where that has its checksum.
fn ipv4(bytes: &mut Bytes<'_>, from: &Place, frame: &mut Vec<u8>) -> Option<(usize, u16)> {
    let ends = [source_v4(bytes, from), target_v4(bytes, from)].concat();
    let protocol = bytes.pick(&[6, 6, 17, 17, 1, 2, 132, 47]);
    let words = bytes.pick(&[5u8, 5, 5, 6, 15]);
    let place = bytes.pick(&[0u16, 0, 0, 0x4000, 0x2000, 1, 0x2001, 185]);
    let life = bytes.pick(&[64, 64, 64, 1, 0]);
    let (segment, checksum) = segment(bytes, from, protocol, &ends);
    let header = usize::from(words) * 4;
    let total = u16::try_from(header + segment.len()).unwrap_or(u16::MAX).to_be_bytes();
    let [high, low] = place.to_be_bytes();
    let mut packet = vec![0x40 | words, 0, total[0], total[1], 0, bytes.next() % 4, high, low];
    packet.extend([life, protocol, 0, 0]);
    packet.extend(&ends);
    packet.resize(header, bytes.pick(&[1, 0, 0x83]));
    let sum = rfc1071(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let at = frame.len() + header;
    frame.extend(packet);
    frame.extend(segment);
    checksum.map(|offset| (at, offset))
}

/// Writes an IPv6 packet; says where its transport is, and where that has its checksum.
fn ipv6(bytes: &mut Bytes<'_>, from: &Place, frame: &mut Vec<u8>) -> Option<(usize, u16)> {
    let ends = [source_v6(bytes, from), target_v6(bytes, from)].concat();
    let protocol = bytes.pick(&[6, 17, 58, 58, 132]);
    let count = bytes.pick(&[0, 0, 0, 0, 1, 2, 9, 12]);
    let chain: Vec<u8> = (0..count).map(|_| bytes.pick(&[60, 0, 43, 44, 51, 135, 50])).collect();
    let mut extensions = Vec::new();
    for (number, next) in chain.iter().zip(chain.iter().skip(1).chain([&protocol])) {
        match number {
            44 => {
                let [high, low] = bytes.pick(&[0u16, 0, 1, 8, 9, 1480]).to_be_bytes();
                extensions.extend([*next, 0, high, low, 0, 0, 0, bytes.next() % 4]);
            }
            51 => extensions.extend([*next, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1].iter().chain(&[0; 12])),
            _ => extensions.extend([*next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    let life = bytes.pick(&[255, 255, 64, 1, 0]);
    let (segment, checksum) = segment(bytes, from, protocol, &ends);
    let length = u16::try_from(extensions.len() + segment.len()).unwrap_or(u16::MAX).to_be_bytes();
    let first = chain.first().copied().unwrap_or(protocol);
    frame.extend([0x60, 0, 0, 0, length[0], length[1], first, life]);
    frame.extend(&ends);
    frame.extend(&extensions);
    let at = frame.len();
    frame.extend(segment);
    checksum.map(|offset| (at, offset))
}

const PORTS: [u16; 14] =
    [5000, 5001, FORBIDDEN, 53, 67, 68, 80, 546, 547, 5353, PUBLISHED.0, 40_000, 40_001, 40_002];

/// The transport's part of a packet, with its checksum, and the place of that.
fn segment(bytes: &mut Bytes<'_>, from: &Place, protocol: u8, ends: &[u8]) -> (Vec<u8>, Option<u16>) {
    let ports = [bytes.pick(&PORTS).to_be_bytes(), bytes.pick(&PORTS).to_be_bytes()].concat();
    let mut payload = vec![0x5a; usize::from(bytes.pick(&[8u8, 0, 32, 200]))];
    if bytes.once_in(4) {
        payload = bytes.some();
    }
    let (mut segment, checksum) = match protocol {
        6 => {
            let flags = bytes.pick(&[2, 0x10, 0x12, 4, 0x11, 0x18, 0]);
            ([ports, vec![0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 2, 0, 0, 0, 0, 0], payload].concat(), 16)
        }
        17 => {
            if bytes.once_in(4) {
                let dhcp = [bytes.pick(&[2, 1]), 1, 6, 0];
                payload = [&dhcp[..], &[0; 232], &[0x63, 0x82, 0x53, 0x63, 53, 1, 2, 255]].concat();
            }
            let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX).to_be_bytes();
            ([ports, length.to_vec(), vec![0, 0], payload].concat(), 6)
        }
        1 => (icmp(bytes, from, &[8, 0, 3, 5, 11, 13], payload), 2),
        58 => (icmp(bytes, from, &[128, 129, 133, 134, 135, 136, 137, 1, 2, 3, 131, 143], payload), 2),
        2 => ([vec![bytes.pick(&[0x16, 0x17, 0x11, 0x22]), 0, 0, 0, 239, 1, 1, 1], payload].concat(), 2),
        132 => ([ports, vec![0; 8], payload].concat(), 0),
        _ => (payload, 0),
    };
    if checksum > 0 && segment.len() >= usize::from(checksum) + 2 && !bytes.once_in(16) {
        let length = u32::try_from(segment.len()).unwrap_or(0).to_be_bytes();
        let pseudo = [ends, &length, &[0, 0, 0, protocol]].concat();
        let covered =
            if matches!(protocol, 1 | 2) { segment.clone() } else { [pseudo, segment.clone()].concat() };
        let at = usize::from(checksum);
        segment[at..at + 2].copy_from_slice(&rfc1071(&covered).to_be_bytes());
    }
    (segment, (checksum > 0).then_some(checksum))
}

/// An ICMP message of one of these types; what is an error or about a neighbour says something of somebody.
fn icmp(bytes: &mut Bytes<'_>, from: &Place, types: &[u8], payload: Vec<u8>) -> Vec<u8> {
    let kind = bytes.pick(types);
    let mut message = vec![kind, bytes.pick(&[0, 1, 3, 4]), 0, 0, 0, 0, 5, 0];
    match kind {
        135 | 136 => {
            message.extend(target_v6(bytes, from));
            message.extend([if kind == 135 { 1 } else { 2 }, 1]);
            message.extend(source_mac(bytes, from));
        }
        1..=3 if types.len() > 8 => {
            message.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
            message.extend([target_v6(bytes, from), source_v6(bytes, from)].concat());
            message.extend([0x13, 0x88, 0x13, 0x88, 0, 8, 0, 0]);
        }
        3 | 11 | 5 => {
            let protocol = bytes.pick(&[17, 6, 1]);
            let mut quoted = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0];
            quoted.extend([target_v4(bytes, from), source_v4(bytes, from)].concat());
            let sum = rfc1071(&quoted);
            quoted[10..12].copy_from_slice(&sum.to_be_bytes());
            message.extend(quoted);
            message.extend([bytes.pick(&PORTS).to_be_bytes(), bytes.pick(&PORTS).to_be_bytes()].concat());
            message.extend([0, 8, 0, 0]);
        }
        134 => message.extend([0; 8].iter().chain(&[3, 4, 64, 0xc0]).chain(&[1; 28])),
        _ => message.extend(payload),
    }
    message
}

/// Writes an ARP packet.
fn arp(bytes: &mut Bytes<'_>, from: &Place, frame: &mut Vec<u8>) -> Option<(usize, u16)> {
    frame.extend([0, 1, 8, 0, 6, 4, 0, bytes.pick(&[1, 2])]);
    frame.extend(source_mac(bytes, from));
    frame.extend(source_v4(bytes, from));
    frame.extend(target_mac(bytes, from));
    frame.extend(target_v4(bytes, from));
    None
}
