//! Walls of the engine: frames that no stack would send, and whether they arrive.
//!
//! Where something must not arrive, something that may is sent behind it: what arrives first tells.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use vswitch_tests::packets::rfc1071;
use vswitch_tests::raw::{Wire, datagram, ethernet, ipv4};
use vswitch_tests::world::{Container, World};
use vswitch_tests::{talk, wait};

use crate::world;

const ALL: [u8; 6] = [0xff; 6];
const PORT: u16 = 2000;

/// Two containers of a network with these options, at 10.0.0.2 and fd00::2, 10.0.0.3 and fd00::3.
fn pair(world: &World, options: &[&str]) -> (Container, Container) {
    let subnets = ["--subnet", "10.0.0.0/24", "--subnet", "fd00::/64"];
    world.network("net1", &[&subnets[..], options].concat());
    (container(world, "a", 2), container(world, "b", 3))
}

fn container(world: &World, name: &str, number: u8) -> Container {
    let (v4, v6) = (format!("10.0.0.{number}"), format!("fd00::{number}"));
    world.attach(name, &["--network", "net1", "--ip", &v4, "--ip6", &v6])
}

fn rule(world: &World, words: &str) {
    let words: Vec<&str> = ["rule", "add"].into_iter().chain(words.split(' ')).collect();
    world.vswitch(&words);
}

/// The gateway's MAC address, which the host's interface has, too.
fn gateway(container: &Container) -> [u8; 6] {
    container.pings("10.0.0.1".parse().expect("an address"));
    let found = container.ip(&["-j", "neigh", "show", "10.0.0.1"]);
    let found: serde_json::Value = serde_json::from_str(&found).expect("JSON");
    let mac: vswitch_frame::Mac = found[0]["lladdr"].as_str().expect("known").parse().expect("a MAC");
    mac.0
}

fn udp(from: [u8; 4], to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    ipv4(from, to, 17, (1, 0), &datagram((7, port), payload))
}

fn frame(from: &Container, to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    ethernet(to, from.mac().0, 0x0800, packet)
}

/// A frame behind so many tags of VLAN 0, which Linux takes off.
fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 0].repeat(tags), &frame[12..]].concat()
}

/// A socket that waits no longer than a test may.
fn socket(path: &std::path::Path, at: &str) -> UdpSocket {
    let at: SocketAddr = at.parse().expect("an address");
    let socket = talk::bind_at(path, at);
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
    socket
}

/// The next datagram.
fn heard(socket: &UdpSocket) -> String {
    let mut room = [0; 64];
    let length = socket.recv(&mut room).expect("a datagram");
    String::from_utf8_lossy(&room[..length]).into_owned()
}

/// The number of frames dropped at a container's port for the reason of this name.
fn drops(world: &World, container: &Container, reason: &str) -> u64 {
    world.counters(container)["Drops"][reason].as_u64().unwrap_or(0)
}

const A: [u8; 4] = [10, 0, 0, 2];
const B: [u8; 4] = [10, 0, 0, 3];

#[test]
fn no_frame_by_hand_leads_out_of_an_internal_network_to_the_host() {
    let world = world();
    let (a, _b) = pair(&world, &["--internal"]);
    world.host().ip(&["address", "add", "192.0.2.7/32", "dev", "lo"]);
    let service = socket(&world.host().path(), "0.0.0.0:2000");
    let gateway = gateway(&a);
    let mut wire = Wire::open(&a.path, &a.ifname());
    let secret = frame(&a, gateway, &udp(A, [192, 0, 2, 7], PORT, b"forbidden"));
    for tags in 0..5 {
        wire.send(&tagged(&secret, tags));
    }
    for target in [ALL, [1, 0, 0x5e, 0, 0, 1]] {
        for tags in 0..3 {
            wire.send(&tagged(&frame(&a, target, &udp(A, [192, 0, 2, 7], PORT, b"forbidden")), tags));
        }
    }
    wire.send(&frame(&a, gateway, &udp(A, [10, 0, 0, 1], PORT, b"allowed")));
    assert_eq!(heard(&service), "allowed");
    let counts = ["internal", "host-gate", "too-many-tags"].map(|reason| drops(&world, &a, reason));
    assert_eq!(counts, [1, 2, 2]);
}

#[test]
fn no_number_of_tags_hides_a_forged_sender() {
    let world = world();
    let (a, b) = pair(&world, &[]);
    let service = socket(&b.path, "0.0.0.0:2000");
    let mut wire = Wire::open(&a.path, &a.ifname());
    let forged = frame(&a, b.mac().0, &udp([10, 0, 0, 9], B, PORT, b"forged"));
    for tags in 0..6 {
        wire.send(&tagged(&forged, tags));
    }
    wire.send(&frame(&a, b.mac().0, &udp(A, B, PORT, b"own")));
    assert_eq!(heard(&service), "own");
    assert_eq!((drops(&world, &a, "spoofed-ip"), drops(&world, &a, "too-many-tags")), (3, 3));
}

#[test]
fn fragments_do_not_pass_for_a_flow_of_port_zero() {
    let world = world();
    let (a, b) = pair(&world, &[]);
    rule(&world, "--proto udp --dport 2000 --action drop");
    let (closed, open) = (socket(&b.path, "0.0.0.0:2000"), socket(&b.path, "0.0.0.0:2001"));
    let mut wire = Wire::open(&a.path, &a.ifname());
    wire.send(&frame(&a, b.mac().0, &ipv4(A, B, 17, (1, 0), &datagram((0, 0), b"nothing"))));
    for (id, port) in [(8, PORT), (9, 2001)] {
        let whole = datagram((7, port), b"fragments");
        let (first, rest) = whole.split_at(16);
        wire.send(&frame(&a, b.mac().0, &ipv4(A, B, 17, (id, 0x2000), first)));
        wire.send(&frame(&a, b.mac().0, &ipv4(A, B, 17, (id, 2), rest)));
    }
    assert_eq!(heard(&open), "fragments", "those of an accepted datagram pass");
    closed.set_nonblocking(true).expect("a socket");
    assert!(closed.recv(&mut [0; 64]).is_err(), "the others do not");
    assert_eq!(drops(&world, &a, "rule"), 2);
}

#[test]
fn no_chain_of_extension_headers_hides_a_datagram_from_a_rule() {
    let world = world();
    let (a, b) = pair(&world, &["-o", "vswitch.port_security=off"]);
    rule(&world, "--proto udp --dport 2000 --action drop");
    let (closed, open) = (socket(&b.path, "[::]:2000"), socket(&b.path, "[::]:2001"));
    let mut wire = Wire::open(&a.path, &a.ifname());
    for (headers, port) in [(1, PORT), (9, PORT), (12, PORT), (8, 2001)] {
        let own: [u8; 16] = "fd00::2".parse::<std::net::Ipv6Addr>().expect("an address").octets();
        let other: [u8; 16] = "fd00::3".parse::<std::net::Ipv6Addr>().expect("an address").octets();
        let mut segment = datagram((7, port), b"hello");
        let length = u32::try_from(segment.len()).expect("short").to_be_bytes();
        let sum = rfc1071(&[&own[..], &other, &length, &[0, 0, 0, 17], &segment].concat()).to_be_bytes();
        segment[6..8].copy_from_slice(&sum);
        let next = |at| if at == headers { 17 } else { 60 };
        let chain: Vec<u8> = (1..=headers).flat_map(|at| [next(at), 0, 1, 4, 0, 0, 0, 0]).collect();
        let body = [chain, segment].concat();
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        let packet = [&[0x60, 0, 0, 0][..], &length, &[60, 64], &own, &other, &body].concat();
        wire.send(&ethernet(b.mac().0, a.mac().0, 0x86dd, &packet));
    }
    assert_eq!(heard(&open), "hello");
    closed.set_nonblocking(true).expect("a socket");
    assert!(closed.recv(&mut [0; 64]).is_err(), "nothing came to the closed port");
    assert_eq!(drops(&world, &a, "rule"), 3);
}

#[test]
fn nobody_ends_the_flow_of_others_by_an_error() {
    let world = world();
    let (a, b) = pair(&world, &[]);
    let c = container(&world, "c", 4);
    rule(&world, "--from 10.0.0.2 --action accept");
    rule(&world, "--action drop");
    let _answers_nothing = socket(&b.path, "0.0.0.0:2000");
    let mut at_a = Wire::open(&a.path, &a.ifname());
    let [mut from_a, mut from_b, mut from_c] =
        [&a, &b, &c].map(|from| Wire::open(&from.path, &from.ifname()));
    let asked = udp(A, B, PORT, b"hello");
    from_a.send(&frame(&a, b.mac().0, &asked));
    let error = |from: [u8; 4], id: u8| {
        let mut message = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &asked[..28]].concat();
        let sum = rfc1071(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        ipv4(from, A, 1, (id, 0), &message)
    };
    wait::until_equal("the question has passed", &true, || {
        world.json(&["rule", "ls"])[0]["Frames"].as_u64().unwrap_or(0) >= 1
    });
    from_c.send(&frame(&c, a.mac().0, &error([10, 0, 0, 4], 44)));
    wait::until_equal("it has been judged", &true, || {
        drops(&world, &c, "rule") >= 1 || world.counters(&c)["ReceivedFrames"].as_u64() > Some(20)
    });
    from_b.send(&frame(&b, a.mac().0, &error(B, 55)));
    let is_error = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == 3;
    let arrived = wait::until("the error", || at_a.receive(is_error));
    assert_eq!(arrived[19], 55, "that of the target, which alone has a part in it");
}

#[test]
fn a_flow_does_not_outlive_its_container() {
    let world = world();
    let (a, b) = pair(&world, &[]);
    rule(&world, "--from 10.0.0.3 --action drop");
    let at_a = socket(&a.path, "10.0.0.2:7");
    let target = SocketAddr::from((Ipv4Addr::from(B), PORT));
    let at_b = socket(&b.path, "10.0.0.3:2000");
    at_a.send_to(b"question", target).expect("sent");
    assert_eq!(heard(&at_b), "question");
    at_b.send_to(b"answer", "10.0.0.2:7").expect("sent");
    assert_eq!(heard(&at_a), "answer");
    drop(at_b);
    world.vswitch(&["detach", "b"]);
    let heir = container(&world, "heir", 3);
    let at_heir = socket(&heir.path, "10.0.0.3:2000");
    at_heir.send_to(b"inherited", "10.0.0.2:7").expect("sent");
    wait::until_equal("it is judged", &true, || {
        drops(&world, &heir, "rule") >= 1 || world.counters(&a)["SentFrames"].as_u64() > Some(100)
    });
    at_a.send_to(b"question", target).expect("sent");
    assert_eq!(heard(&at_heir), "question");
    at_heir.send_to(b"answer", "10.0.0.2:7").expect("sent");
    assert_eq!(heard(&at_a), "answer", "and nothing before it");
}

#[test]
fn many_link_local_sources_take_no_flow_from_another() {
    let world = world();
    let (a, b) = pair(&world, &[]);
    let c = container(&world, "c", 4);
    rule(&world, "--from 10.0.0.3 --action drop");
    let mut wire = Wire::open(&c.path, &c.ifname());
    let (to, from) = (b.mac().0, c.mac().0);
    for number in 0..70_000u32 {
        let [x, y, z, w] = number.to_be_bytes();
        let source = [&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9][..], &[x, y, z, w]].concat();
        let target = [&[0xfd][..], &[0; 14], &[3]].concat();
        let packet = [&[0x60, 0, 0, 0, 0, 8, 59, 64][..], &source, &target, &[0; 8]].concat();
        wire.send(&ethernet(to, from, 0x86dd, &packet));
        if number % 400 == 399 {
            let arrived =
                || world.counters(&c)["ReceivedFrames"].as_u64().filter(|count| *count >= number.into());
            wait::until("the switch has received them", arrived);
        }
    }
    let (at_a, at_b) = (socket(&a.path, "10.0.0.2:7"), socket(&b.path, "10.0.0.3:2000"));
    at_a.send_to(b"question", "10.0.0.3:2000").expect("sent");
    assert_eq!(heard(&at_b), "question");
    at_b.send_to(b"answer", "10.0.0.2:7").expect("sent");
    assert_eq!(heard(&at_a), "answer", "its flow was remembered");
}

#[test]
fn a_dhcp_server_is_told_by_what_it_says() {
    let world = world();
    let (a, b) = pair(&world, &[]);
    let mut to = Wire::open(&b.path, &b.ifname());
    let mut wire = Wire::open(&a.path, &a.ifname());
    let offer = |from: u16| ipv4(A, [255; 4], 17, (1, 0), &datagram((from, 68), &[2; 300]));
    for (from, tags) in [(67, 0), (1067, 0), (1067, 2), (1067, 3)] {
        wire.send(&tagged(&frame(&a, ALL, &offer(from)), tags));
    }
    let first = &offer(1067)[20..36];
    wire.send(&frame(&a, ALL, &ipv4(A, [255; 4], 17, (2, 0x2000), first)));
    wire.send(&frame(&a, ALL, &ipv4(A, [255; 4], 17, (3, 0), &datagram((7, PORT), b"hello"))));
    let is_datagram = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 17 || frame[12..14] == [0x81, 0];
    let arrived = wait::until("a datagram", || to.receive(is_datagram));
    assert_eq!(arrived[36..38], PORT.to_be_bytes());
    assert_eq!((drops(&world, &a, "rogue-dhcp"), drops(&world, &a, "too-many-tags")), (4, 1));
}

#[test]
fn the_host_believes_no_answer_that_it_did_not_ask_for() {
    let world = world();
    let (a, b) = pair(&world, &[]);
    let gateway = gateway(&a);
    b.pings("10.0.0.1".parse().expect("an address"));
    let mut wire = Wire::open(&a.path, &a.ifname());
    for of in [[10, 0, 0, 77], B, A] {
        let reply =
            [&[0, 1, 8, 0, 6, 4, 0, 2][..], &a.mac().0, &of, &gateway, &[10, 0, 0, 1], &[0; 18]].concat();
        wire.send(&ethernet(gateway, a.mac().0, 0x0806, &reply));
    }
    wait::until_equal("what is not its own", &2, || drops(&world, &a, "spoofed-arp"));
    a.pings("10.0.0.1".parse().expect("an address"));
    let neighbours = world.host().ip(&["neigh", "show"]);
    assert!(!neighbours.contains("10.0.0.77"), "{neighbours}");
    let target: IpAddr = Ipv4Addr::from(B).into();
    assert!(talk::answers(&world.host().path(), target), "the host reaches whom it means");
}

#[test]
fn what_goes_nowhere_is_counted_where_it_came_from() {
    let world = world();
    let (a, b) = pair(&world, &["-o", "com.docker.network.bridge.enable_icc=false"]);
    a.cannot_ping(b.ipv4());
    assert!(drops(&world, &a, "isolated") >= 1, "a question that nobody answers");
    world.network("net2", &["--subnet", "10.2.0.0/24"]);
    let c = world.attach("c", &["--network", "net2"]);
    let d = world.attach("d", &["--network", "net2"]);
    rule(&world, "--network net2 --proto udp --action reject");
    let at = socket(&c.path, "0.0.0.0:7");
    at.send_to(b"hello", (d.ipv4(), PORT)).expect("sent");
    wait::until_equal("the rejected datagram", &1, || drops(&world, &c, "rule"));
    let shown = world.vswitch(&["stats"]);
    assert!(shown.contains("NO FAULT"), "{shown}");
}
