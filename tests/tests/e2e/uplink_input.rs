//! Wrong packets from the world: each is a counted drop at the uplink, and reaches no container.

use std::io::ErrorKind;
use std::net::UdpSocket;

use serde_json::{Value, json};
use vswitch_frame::DropReason;
use vswitch_tests::outside::{HOST, Outside, UPLINK};
use vswitch_tests::packets::rfc1071;
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::wait;
use vswitch_tests::world::World;

use super::VSWITCH;

const WORLD: [u8; 4] = [203, 0, 113, 1];
const HOST_V4: [u8; 4] = [203, 0, 113, 2];
const PUBLISHED: u16 = 8080;

/// An IPv4 header for these bytes, with its checksum.
fn ipv4(source: [u8; 4], target: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("short").to_be_bytes();
    let fragment = fragment.to_be_bytes();
    let mut header =
        vec![0x45, 0, length[0], length[1], 0x12, 0x34, fragment[0], fragment[1], 64, protocol, 0, 0];
    header.extend([source, target].concat());
    let checksum = rfc1071(&header).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    [header, payload.to_vec()].concat()
}

/// A segment or datagram with its checksum at `at`.
fn sealed(source: [u8; 4], target: [u8; 4], protocol: u8, at: usize, mut segment: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(segment.len()).expect("short").to_be_bytes();
    let pseudo = [&source[..], &target, &[0, protocol], &length, &segment].concat();
    let checksum = rfc1071(&pseudo).to_be_bytes();
    segment[at..at + 2].copy_from_slice(&checksum);
    segment
}

fn udp(source: [u8; 4], target: [u8; 4], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short");
    let header = [ports[0], ports[1], length, 0].map(u16::to_be_bytes).concat();
    sealed(source, target, 17, 6, [header, payload.to_vec()].concat())
}

fn tcp(ports: [u16; 2], flags: u8) -> Vec<u8> {
    let ports = ports.map(u16::to_be_bytes).concat();
    let rest = [0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 2, 0, 0, 0, 0, 0];
    ipv4(WORLD, HOST_V4, 6, 0, &sealed(WORLD, HOST_V4, 6, 16, [&ports[..], &rest].concat()))
}

/// A datagram from somebody to somebody.
fn datagram(source: [u8; 4], target: [u8; 4], port: u16) -> Vec<u8> {
    ipv4(source, target, 17, 0, &udp(source, target, [999, port], b"question"))
}

fn changed(mut packet: Vec<u8>, at: usize, by: u8) -> Vec<u8> {
    packet[at] ^= by;
    packet
}

fn ipv6(source: &str, length: u16) -> Vec<u8> {
    let address = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets();
    let [high, low] = length.to_be_bytes();
    let header = [0x60, 0, 0, 0, high, low, 17, 64];
    let payload = [3, 231, 0x1f, 0x90, 0, 8, 1, 1];
    [&header[..], &address(source), &address(HOST[1]), &payload].concat()
}

/// Packets that the world sends, and why the last of them is dropped.
fn table(container: [u8; 4]) -> Vec<(&'static str, Vec<Vec<u8>>, DropReason)> {
    use DropReason::{
        BadChecksum, MalformedIpv4, MalformedIpv6, MalformedTcp, MalformedUdp, Martian, NatBadAddress,
        NatBadChecksum, NatFragmentOverlap, NatMalformed, NatNoFlow, NoRoute, TtlExceeded,
    };
    let good = datagram(WORLD, HOST_V4, PUBLISHED);
    let neighbour = [10, 77, 0, 99];
    let one = |packet| vec![packet];
    let whole = udp(WORLD, HOST_V4, [999, PUBLISHED], &[0x1f; 100]);
    let piece = |at: u16, end: u16| {
        let payload = &whole[usize::from(at)..usize::from(end)];
        ipv4(WORLD, HOST_V4, 17, (at / 8) | 0x2000, payload)
    };
    let unreachable = {
        let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &datagram(HOST_V4, WORLD, 53)].concat();
        message[2] = 0x55;
        ipv4(WORLD, HOST_V4, 1, 0, &message)
    };
    let late = {
        let mut packet = datagram(WORLD, container, 80);
        packet[8] = 1;
        packet[10..12].fill(0);
        let checksum = rfc1071(&packet[..20]).to_be_bytes();
        packet[10..12].copy_from_slice(&checksum);
        packet
    };
    vec![
        ("a container's address as source", one(datagram(neighbour, container, 80)), Martian),
        ("the host's own address as source", one(datagram(HOST_V4, container, 80)), Martian),
        ("a loopback address as source", one(datagram([127, 0, 0, 1], container, 80)), Martian),
        ("a multicast address as source", one(datagram([224, 0, 0, 1], container, 80)), Martian),
        ("no container there", one(datagram(WORLD, neighbour, 80)), NoRoute),
        ("too late", one(late), TtlExceeded),
        ("a broken header", one(changed(datagram(WORLD, container, 80), 8, 1)), BadChecksum),
        ("the host's own, to a published port", one(datagram(HOST_V4, HOST_V4, PUBLISHED)), NatBadAddress),
        ("loopback to a published port", one(datagram([127, 0, 0, 1], HOST_V4, PUBLISHED)), NatBadAddress),
        ("class E to a published port", one(datagram([240, 0, 0, 1], HOST_V4, PUBLISHED)), NatBadAddress),
        ("a broken header, to a published port", one(changed(good.clone(), 8, 1)), NatBadChecksum),
        ("a broken datagram", one(changed(good.clone(), 30, 1)), NatBadChecksum),
        ("a packet cut short", one(good[..30].to_vec()), MalformedIpv4),
        ("an IPv6 packet cut short", one(ipv6("2001:db8:1::1", 99)), MalformedIpv6),
        ("a loopback address of IPv6", one(ipv6("::1", 8)), NatBadAddress),
        ("a datagram that says it is longer", one(changed(good.clone(), 25, 0x40)), MalformedUdp),
        ("a header that says it is shorter", one(changed(tcp([999, PUBLISHED], 2), 32, 0x10)), MalformedTcp),
        (
            "no port",
            one(ipv4(WORLD, HOST_V4, 17, 0, &udp(WORLD, HOST_V4, [0, PUBLISHED], b"x"))),
            NatMalformed,
        ),
        ("SYN and FIN", one(tcp([999, PUBLISHED], 3)), NatMalformed),
        ("no connection", one(tcp([999, PUBLISHED], 0x10)), NatNoFlow),
        ("a broken error", one(unreachable), NatBadChecksum),
        ("a fragment not in units of eight", one(piece(64, 94)), NatMalformed),
        ("fragments that overlap", vec![piece(0, 64), piece(32, 96)], NatFragmentOverlap),
    ]
}

/// Drops of the uplink, but for packets that are the host's or a question answered.
fn drops(world: &World) -> Value {
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().cloned().unwrap_or_default();
    let mut drops =
        ports.into_iter().find(|port| port["Sandbox"] == "(uplink)").expect("an uplink")["Drops"].take();
    let known = drops.as_object_mut().expect("counters");
    known.retain(|label, count| {
        count.as_u64() > Some(0)
            && ![DropReason::ForHost, DropReason::Consumed].iter().any(|reason| reason.label() == label)
    });
    drops
}

#[test]
fn what_is_wrong_is_counted_and_goes_nowhere() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    let unprotected = "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected";
    world.network("net1", &["--subnet", "10.77.0.0/24", "-o", unprotected]);
    let web = world.sandbox("web", &["--network", "net1", "-p", "8080:80", "-p", "8080:80/udp"]);
    let std::net::IpAddr::V4(own) = web.ipv4() else { panic!("IPv4") };
    let link: Value = serde_json::from_str(&world.host().ip(&["-j", "link", "show", UPLINK])).expect("JSON");
    let mac = link[0]["address"].as_str().expect("an address").parse::<vswitch_frame::Mac>().expect("MAC");
    let mut wire = Wire::open(&outside.path(), "down0");
    let server = web.inside(|| UdpSocket::bind("0.0.0.0:80")).expect("bind");
    server.set_nonblocking(true).expect("non-blocking");
    for (what, packets, reason) in table(own.octets()) {
        let before = drops(&world);
        for packet in packets {
            let ether_type = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
            let source = wire.mac;
            wire.send(&ethernet(mac.0, source, ether_type, &packet));
        }
        let mut expected = before.clone();
        let count = before[reason.label()].as_u64().unwrap_or(0) + 1;
        expected[reason.label()] = json!(count);
        wait::until_equal(what, &expected, || drops(&world));
        let heard = server.recv(&mut [0; 64]).map_err(|error| error.kind());
        assert_eq!(heard, Err(ErrorKind::WouldBlock), "{what}: it has reached the container");
    }
    web.pings(own.into());
    assert_eq!(world.restarts(), 0);
}
