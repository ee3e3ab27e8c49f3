//! UDP: real clients on loopback, datagrams to and from a container.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::be16;
use vswitch_proxy::session::IDLE;
use vswitch_proxy::{Limits, Token};
use vswitch_sys::datagrams::Datagrams;

use crate::world::{NETWORK, PORT, World, binding};

const CONTAINER: &str = "172.17.0.2";

/// A listener on every address, and its port.
pub(crate) fn listen(world: &mut World, bound: &str, container: &str) -> (Token, u16) {
    let socket = UdpSocket::bind(bound).expect("bind");
    let port = socket.local_addr().expect("address").port();
    let socket = Datagrams::new(std::sync::Arc::new(socket.into())).expect("options");
    let token = world.proxy.udp_listener(binding(container), socket, world.now).expect("relayed");
    world.wait_for(token);
    (token, port)
}

fn client() -> UdpSocket {
    let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("time-out");
    client
}

/// The next datagrams for the container.
fn arrivals(world: &mut World) -> Vec<Vec<u8>> {
    for _ in 0..5000 {
        let packets = world.step();
        if !packets.is_empty() {
            return packets;
        }
    }
    panic!("nothing arrived: {:?}", world.proxy.counts());
}

/// The container's answer to a packet: the same to where it came from, with other bytes.
fn answer(packet: &[u8], payload: &[u8]) -> Vec<u8> {
    let four = packet[0] >> 4 == 4;
    let header = if four { 20 } else { 40 };
    let mut answer = packet[..header + 8].to_vec();
    let (from, to, width) = if four { (12, 16, 4) } else { (8, 24, 16) };
    answer[from..from + width].copy_from_slice(&packet[to..to + width]);
    answer[to..to + width].copy_from_slice(&packet[from..from + width]);
    answer[header..header + 2].copy_from_slice(&packet[header + 2..header + 4]);
    answer[header + 2..header + 4].copy_from_slice(&packet[header..header + 2]);
    let udp = u16::try_from(8 + payload.len()).expect("a length");
    answer[header + 4..header + 6].copy_from_slice(&udp.to_be_bytes());
    answer[header + 6..header + 8].fill(0);
    answer.extend(payload);
    let length = if four { u16::try_from(answer.len()).expect("a length") } else { udp };
    let at = if four { 2 } else { 4 };
    answer[at..at + 2].copy_from_slice(&length.to_be_bytes());
    let sum = checksum(&answer, header, from, width);
    answer[header + 6..header + 8].copy_from_slice(&sum.to_be_bytes());
    answer
}

fn checksum(packet: &[u8], header: usize, addresses: usize, width: usize) -> u16 {
    let length = u16::try_from(packet.len() - header).expect("a length");
    let pseudo = Sum::ZERO.add_bytes(&packet[addresses..addresses + 2 * width]).add_word(17).add_word(length);
    pseudo.add_bytes(&packet[header..]).checksum()
}

fn assert_right(packet: &[u8]) {
    let four = packet[0] >> 4 == 4;
    let (header, addresses, width) = if four { (20, 12, 4) } else { (40, 8, 16) };
    assert_eq!(checksum(packet, header, addresses, width), 0, "the checksum is right");
    assert_eq!(be16(packet, header + 2), PORT);
    assert!(!four || Sum::ZERO.add_bytes(&packet[..20]).checksum() == 0, "that of the header, too");
}

#[test]
fn a_reply_leaves_from_the_address_addressed() {
    let mut world = World::new(Limits::default());
    let (_, four) = listen(&mut world, "0.0.0.0:0", CONTAINER);
    let (_, both) = listen(&mut world, "[::]:0", "fd00::2");
    let client = client();
    let mut sources = Vec::new();
    for (port, addressed) in [(four, "127.0.0.1"), (four, "127.0.0.9"), (both, "127.0.0.1")] {
        let addressed: IpAddr = addressed.parse().expect("address");
        client.send_to(b"question", (addressed, port)).expect("send");
        let packets = arrivals(&mut world);
        assert_eq!(packets.len(), 1);
        assert_right(&packets[0]);
        assert!(packets[0].ends_with(b"question"));
        let header = if port == four { 20 } else { 40 };
        sources.push((port, be16(&packets[0], header)));
        assert!(world.returns(&answer(&packets[0], b"answer")), "it is the proxy's");
        let mut room = [0; 64];
        let (length, from) = client.recv_from(&mut room).expect("receive");
        assert_eq!((&room[..length], from), (&b"answer"[..], SocketAddr::new(addressed, port)));
    }
    sources.sort_unstable();
    sources.dedup();
    assert_eq!(sources.len(), 3, "each session has a source of its own");
    assert_eq!(world.proxy.counts().sessions, 3);
}

#[test]
fn a_session_ends_when_it_is_idle() {
    let mut world = World::new(Limits::default());
    let (_, port) = listen(&mut world, "127.0.0.1:0", CONTAINER);
    let client = client();
    client.send_to(b"question", ("127.0.0.1", port)).expect("send");
    let packet = arrivals(&mut world).remove(0);
    // A reply keeps it.
    world.now = world.now + IDLE.saturating_sub(Duration::from_secs(1));
    world.step();
    assert!(world.returns(&answer(&packet, b"late")));
    world.now = world.now + IDLE.saturating_sub(Duration::from_secs(1));
    world.step();
    assert_eq!(world.proxy.counts().sessions, 1);
    world.now = world.proxy.poll_at().expect("due");
    world.step();
    assert_eq!(world.proxy.counts().sessions, 0);
    assert!(!world.returns(&answer(&packet, b"too late")), "no longer the proxy's");
    assert_eq!(world.proxy.poll_at(), None);
}

#[test]
fn limits_hold_and_a_closed_listener_takes_its_sessions_along() {
    let mut world = World::new(Limits { sessions: 2, ..Limits::default() });
    let (token, port) = listen(&mut world, "127.0.0.1:0", CONTAINER);
    let clients = [client(), client(), client()];
    let mut arrived = 0;
    for client in &clients {
        client.send_to(b"question", ("127.0.0.1", port)).expect("send");
    }
    while arrived + usize::try_from(world.proxy.counts().datagrams_dropped).expect("a count") < 3 {
        arrived += world.step().len();
    }
    assert_eq!((arrived, world.proxy.counts().sessions), (2, 2));
    world.proxy.close_listener(token);
    assert_eq!((world.proxy.counts().sessions, world.proxy.poll_at()), (0, None));
}

#[test]
fn what_does_not_fit_goes_in_fragments() {
    for (container, header) in [(CONTAINER, 20), ("fd00::2", 40)] {
        let mut world = World::new(Limits::default());
        let (_, port) = listen(&mut world, "127.0.0.1:0", container);
        let client = client();
        let bytes: Vec<u8> = (0..65_507u32).map(|n| n.to_le_bytes()[0]).collect();
        client.send_to(&bytes, ("127.0.0.1", port)).expect("send");
        let mut whole: Vec<u8> = Vec::new();
        let packets = arrivals(&mut world);
        for (n, packet) in packets.iter().enumerate() {
            let last = n + 1 == packets.len();
            let (offset, more, start) = if header == 20 {
                assert_eq!(Sum::ZERO.add_bytes(&packet[..20]).checksum(), 0);
                (be16(packet, 6) & 0x1fff, be16(packet, 6) & 0x2000 != 0, 20)
            } else {
                (be16(packet, 42) >> 3, packet[43] & 1 == 1, 48)
            };
            assert_eq!((usize::from(offset) * 8, more), (whole.len(), !last));
            whole.extend(&packet[start..]);
        }
        let mut packet = packets[0][..header].to_vec();
        packet.extend(whole);
        let (addresses, width) = if header == 20 { (12, 4) } else { (8, 16) };
        assert_eq!(checksum(&packet, header, addresses, width), 0, "the checksum is that of the whole");
        assert!(packet[header + 8..] == bytes, "every byte is there");
        // The largest that fits is no fragment.
        client.send_to(&bytes[..1500 - header - 8], ("127.0.0.1", port)).expect("send");
        let packets = arrivals(&mut world);
        assert_eq!((packets.len(), packets[0].len()), (1, 1500));
        assert_right(&packets[0]);
    }
}

/// Cuts a packet into fragments.
fn fragments(packet: &[u8]) -> Vec<Vec<u8>> {
    const SIZE: usize = 1400;
    let four = packet[0] >> 4 == 4;
    let (head, payload) = packet.split_at(if four { 20 } else { 40 });
    let cut = |(n, part): (usize, &[u8])| {
        let (offset, more) = (n * SIZE, (n + 1) * SIZE < payload.len());
        let mut fragment = head.to_vec();
        let place = u16::try_from(offset).expect("an offset");
        if four {
            let total = u16::try_from(20 + part.len()).expect("a length");
            fragment[2..4].copy_from_slice(&total.to_be_bytes());
            fragment[6..8].copy_from_slice(&((place / 8) | (u16::from(more) << 13)).to_be_bytes());
        } else {
            let total = u16::try_from(8 + part.len()).expect("a length");
            fragment[4..6].copy_from_slice(&total.to_be_bytes());
            fragment[6] = 44;
            fragment.extend([17, 0]);
            fragment.extend((place | u16::from(more)).to_be_bytes());
            fragment.extend([0, 0, 0, 7]);
        }
        fragment.extend(part);
        fragment
    };
    payload.chunks(SIZE).enumerate().map(cut).collect()
}

#[test]
fn fragments_of_the_container_are_put_together() {
    for container in [CONTAINER, "fd00::2"] {
        let mut world = World::new(Limits::default());
        let (_, port) = listen(&mut world, "127.0.0.1:0", container);
        let client = client();
        client.send_to(b"question", ("127.0.0.1", port)).expect("send");
        let packet = arrivals(&mut world).remove(0);
        let mut room = vec![0; 65_536];
        for size in [1473, 3069, 65_507] {
            let bytes: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0]).collect();
            let mut parts = fragments(&answer(&packet, &bytes));
            // The first may come behind another.
            parts.swap(0, 1);
            assert!(parts.iter().all(|part| world.returns(part)), "all are the proxy's");
            let (length, from) = client.recv_from(&mut room).expect("receive");
            assert_eq!((length, from), (bytes.len(), ([127, 0, 0, 1], port).into()));
            assert!(room[..length] == bytes, "every byte is there");
        }
        let mut parts = fragments(&answer(&packet, &[1; 3000]));
        parts[2][100] ^= 1;
        assert!(parts.iter().all(|part| world.returns(part)));
        let mut parts = fragments(&answer(&packet, &[1; 3000]));
        let header = if container == CONTAINER { 20 } else { 48 };
        parts[0][header] ^= 1;
        assert!(!parts.iter().any(|part| world.returns(part)), "those of another flow go on");
        let counts = world.proxy.counts();
        assert_eq!((counts.bad_checksums, counts.datagrams_dropped, counts.fragments_dropped), (1, 0, 0));
    }
}

#[test]
fn a_datagram_with_a_wrong_checksum_is_not_passed_on() {
    let mut world = World::new(Limits::default());
    let (_, port) = listen(&mut world, "127.0.0.1:0", CONTAINER);
    let client = client();
    client.send_to(b"question", ("127.0.0.1", port)).expect("send");
    let packet = arrivals(&mut world).remove(0);
    let mut wrong = answer(&packet, b"wrong");
    wrong[28] ^= 1;
    assert!(world.returns(&wrong));
    let mut without = answer(&packet, b"without");
    without[26..28].fill(0);
    assert!(world.returns(&without));
    let mut room = [0; 64];
    assert_eq!(client.recv(&mut room).expect("receive"), 7, "IPv4 may go without a checksum");
    assert_eq!(world.proxy.counts().bad_checksums, 1);
}

#[test]
fn garbage_is_survived() {
    let mut world = World::new(Limits::default());
    let (_, port) = listen(&mut world, "127.0.0.1:0", CONTAINER);
    let client = client();
    client.send_to(b"question", ("127.0.0.1", port)).expect("send");
    let packet = answer(&arrivals(&mut world).remove(0), b"answer");
    for at in 0..packet.len() {
        for value in 0..=u8::MAX {
            let mut changed = packet.clone();
            changed[at] = value;
            world.returns(&changed);
        }
        world.returns(&packet[..at.max(1)]);
    }
    assert!(world.returns(&packet), "the session goes on");
}

#[test]
fn sessions_and_fragments_of_an_address_end_before_it_is_anothers() {
    let mut world = World::new(Limits::default());
    let (_, port) = listen(&mut world, "127.0.0.1:0", CONTAINER);
    let client = client();
    client.send_to(b"question", ("127.0.0.1", port)).expect("send");
    let packet = arrivals(&mut world).remove(0);
    let parts = fragments(&answer(&packet, &[1; 3000]));
    assert!(parts[..2].iter().all(|part| world.returns(part)), "held");
    let address = CONTAINER.parse().expect("address");
    world.proxy.forget(NETWORK, address, &mut world.pool, &mut Vec::new());
    assert_eq!((world.proxy.counts().sessions, world.proxy.counts().fragments_dropped), (0, 1));
    assert!(!world.returns(&parts[2]) && !world.returns(&answer(&packet, b"answer")), "of nobody's");
}
