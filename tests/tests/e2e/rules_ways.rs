//! Rules about the ways of packets: between networks, through published ports, by interfaces and sandboxes.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use vswitch_tests::namespace::inside;
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS};
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::talk;
use vswitch_tests::world::{Container, World};

use super::rules::is_told_of_a_datagram;
use super::{VSWITCH, world};

/// Time after which something is not coming.
const SILENCE: Duration = Duration::from_millis(400);

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn add(world: &World, words: &str) -> String {
    let words: Vec<&str> = ["rule", "add"].into_iter().chain(words.split(' ')).collect();
    world.vswitch(&words).trim().to_owned()
}

fn remove(world: &World, ids: &[&str]) {
    world.vswitch(&[&["rule", "rm"][..], ids].concat());
}

/// The outcome of an attempt to connect.
fn attempt(from: &Path, target: SocketAddr) -> Result<(), ErrorKind> {
    let outcome = inside(from, || TcpStream::connect_timeout(&target, SILENCE));
    outcome.map(drop).map_err(|error| error.kind())
}

/// Two networks that are apart, with a container each.
fn apart(world: &World) -> (Container, Container) {
    for (name, number) in [("net1", 1), ("net2", 2)] {
        let subnets = [format!("10.{number}.0.0/24"), format!("fd0{number}::/64")];
        world.network(name, &["--ipv6", "--subnet", &subnets[0], "--subnet", &subnets[1]]);
    }
    (world.sandbox("a", &["--network", "net1"]), world.sandbox("b", &["--network", "net2"]))
}

#[test]
fn an_accept_that_names_both_ends_opens_a_way_until_it_goes() {
    let world = world();
    let (a, b) = apart(&world);
    let targets = [b.ipv4(), b.ipv6()];
    targets.iter().for_each(|target| a.cannot_ping(*target));
    let general = add(&world, "--action accept");
    let addressed = add(&world, "--from 10.1.0.0/24 --to 10.2.0.0/24 --action accept");
    a.cannot_ping(b.ipv4());
    remove(&world, &[&general, &addressed]);
    let sandboxes = format!("--from sandbox:{} --to {} --action accept", a.name, b.name);
    for words in ["--from net1 --to net2 --action accept", &sandboxes] {
        let rule = add(&world, words);
        for target in targets {
            a.pings(target);
            a.transfers(&b, target, 1 << 20);
        }
        b.cannot_ping(a.ipv4());
        let shown = &world.json(&["rule", "ls"])[0];
        assert_eq!((&shown["Opens"], shown["Frames"].as_u64() > Some(10)), (&true.into(), true), "{shown}");
        remove(&world, &[&rule]);
        targets.iter().for_each(|target| a.cannot_ping(*target));
    }
}

#[test]
fn an_internal_network_stays_closed_and_a_rule_for_it_is_refused() {
    let world = world();
    let (a, _) = apart(&world);
    world.network("shut", &["--internal", "--subnet", "10.3.0.0/24"]);
    let c = world.sandbox("c", &["--network", "shut"]);
    let refusal = world.refused(&["rule", "add", "--from", "net1", "--to", "shut", "--action", "accept"]);
    assert!(refusal.message.contains("network \"shut\" is internal"), "{}", refusal.message);
    for (from, to) in [(&a, &c), (&c, &a)] {
        add(&world, &format!("--from {} --to {} --action accept", from.name, to.name));
    }
    a.cannot_ping(c.ipv4());
    c.ip(&["route", "add", "default", "via", "10.3.0.1"]);
    c.cannot_ping(a.ipv4());
}

#[test]
fn a_rule_is_about_the_sandbox_of_a_name_whoever_has_its_number() {
    let world = world();
    let (a, b) = apart(&world);
    add(&world, &format!("--from {} --to {} --action accept", a.name, b.name));
    a.pings(b.ipv4());
    world.vswitch(&["sandbox", "rm", &a.name]);
    let other = world.sandbox("other", &["--network", "net1"]);
    other.cannot_ping(b.ipv4());
    let again = world.sandbox("a", &["--network", "net1"]);
    again.pings(b.ipv4());
    other.cannot_ping(b.ipv4());
    assert_eq!(world.json(&["rule", "ls"])[0]["From"], format!("sandbox:{}", a.name));
}

/// A network whose container publishes two ports of UDP, a neighbour, and the world.
fn published() -> (World, Outside, Container, Container) {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("net1", &["--subnet", "10.77.0.0/24"]);
    let publish = ["--network", "net1", "-p", "5353-5354:53-54/udp", "-p", "8080:80"];
    let web = world.sandbox("web", &publish);
    let neighbour = world.sandbox("neighbour", &["--network", "net1"]);
    (world, outside, web, neighbour)
}

/// Whether a datagram from an address of the world's arrives at a container's port.
fn arrives(outside: &Outside, from: &str, published: u16, at: &UdpSocket) -> bool {
    let client = inside(&outside.path(), || UdpSocket::bind((address(from), 0))).expect("bind");
    client.send_to(b"hello", (address(HOST[0]), published)).expect("send");
    at.set_read_timeout(Some(SILENCE)).expect("timeout");
    at.recv_from(&mut [0; 16]).is_ok()
}

#[test]
fn published_ports_are_told_apart_and_from_the_containers_own() {
    let (world, outside, web, neighbour) = published();
    let [first, second] = [53, 54].map(|port| talk::bind_at(&web.path, ([0; 4], port).into()));
    let [near, far] = [ROUTERS[0], FAR[0]];
    assert!(arrives(&outside, near, 5353, &first) && arrives(&outside, far, 5354, &second));
    let subnet = add(&world, "--published-port 5353 --proto udp --from !192.0.2.0/24 --action drop");
    assert!(!arrives(&outside, near, 5353, &first), "from elsewhere");
    assert!(arrives(&outside, far, 5353, &first), "from the subnet");
    assert!(arrives(&outside, near, 5354, &second), "another port");
    let client = neighbour.inside(|| UdpSocket::bind(("0.0.0.0", 0))).expect("bind");
    client.send_to(b"hello", (web.ipv4(), 53)).expect("send");
    first.recv_from(&mut [0; 16]).expect("at its own port, from its own network");
    remove(&world, &[&subnet]);
    let web = &web.name;
    let own = add(&world, &format!("--to {web} --dport 54,100-200 --proto udp --action drop"));
    assert!(arrives(&outside, near, 5353, &first) && !arrives(&outside, near, 5354, &second));
    remove(&world, &[&own]);
    add(&world, &format!("--to {web} --published-port !5354 --proto udp --action drop"));
    assert!(!arrives(&outside, near, 5353, &first) && arrives(&outside, near, 5354, &second));
}

#[test]
fn an_uplink_is_matched_by_its_name_in_both_directions() {
    let (world, outside, web, neighbour) = published();
    let socket = talk::bind_at(&web.path, ([0; 4], 53).into());
    let inwards = add(&world, "--in-interface up0 --comment nothing-from-there --action drop");
    assert!(!arrives(&outside, ROUTERS[0], 5353, &socket));
    web.pings(address(FAR[0]));
    assert_eq!(world.json(&["rule", "ls"])[0]["Comment"], "nothing-from-there");
    remove(&world, &[&inwards]);
    let outwards = add(&world, &format!("-o up+ --from {} --action drop", web.name));
    web.cannot_ping(address(FAR[0]));
    neighbour.pings(address(FAR[0]));
    web.pings(neighbour.ipv4());
    assert!(arrives(&outside, ROUTERS[0], 5353, &socket));
    remove(&world, &[&outwards]);
    let bridge = world.json(&["network", "inspect", "net1"]);
    let interface = world.host().ip(&["-br", "address", "show", "to", "10.77.0.1"]);
    let interface = interface.split_whitespace().next().unwrap_or_else(|| panic!("no interface: {bridge}"));
    add(&world, &format!("-i {interface} -o !{interface} --action drop"));
    web.cannot_ping(address(FAR[0]));
    web.pings(neighbour.ipv4());
}

#[test]
fn a_limit_lets_so_many_connections_begin() {
    let (world, outside, web, _neighbour) = published();
    let _listener = talk::listen_at(&web.path, ([0; 4], 80).into());
    add(&world, "--proto tcp --published-port 8080 --limit 3/hour --limit-burst 3 --action accept");
    add(&world, "--proto tcp --published-port 8080 --action reject");
    let target = SocketAddr::new(address(HOST[0]), 8080);
    let outcomes: Vec<_> = (0..5).map(|_| attempt(&outside.path(), target)).collect();
    let refused = Err(ErrorKind::ConnectionRefused);
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(()), refused, refused]);
}

#[test]
fn sctp_is_matched_by_its_ports() {
    let world = world();
    world.network("net1", &["--subnet", "10.1.0.0/24"]);
    let (a, b) = (world.sandbox("a", &["--network", "net1"]), world.sandbox("b", &["--network", "net1"]));
    let (mut from, mut to) = (Wire::open(&a.path, "eth0"), Wire::open(&b.path, "eth0"));
    add(&world, "--proto sctp --dport 80 --action drop");
    let (IpAddr::V4(source), IpAddr::V4(target)) = (a.ipv4(), b.ipv4()) else { panic!("they have IPv4") };
    let mut packet = |port: u16| {
        let mut header = vec![0x45, 0, 0, 36, 0, 1, 0, 0, 64, 132, 0, 0];
        header.extend([source.octets(), target.octets()].concat());
        let checksum = vswitch_tests::packets::rfc1071(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        let segment = [&[0x9c, 0x40][..], &port.to_be_bytes(), &[0; 12]].concat();
        from.send(&ethernet(to.mac, from.mac, 0x0800, &[header, segment].concat()));
    };
    packet(80);
    packet(81);
    let port = |frame: &[u8]| frame.get(23) == Some(&132) && frame.get(12..14) == Some(&[8, 0]);
    let arrived = vswitch_tests::wait::until("the other one", || to.receive(port));
    assert_eq!(arrived[36..38], 81u16.to_be_bytes(), "what came first is dropped");
}

#[test]
fn a_rejected_container_is_told_wherever_it_was_going() {
    let (world, outside, web, _neighbour) = published();
    world.network("net2", &["--subnet", "10.78.0.0/24"]);
    let other = world.sandbox("other", &["--network", "net2"]);
    let _there = talk::listen_at(&other.path, ([0; 4], 80).into());
    let _far = talk::listen_at(&outside.path(), ([0; 4], 80).into());
    for target in [other.ipv4(), address(FAR[0])] {
        let opening = add(&world, "--from net1 --to net2 --action accept");
        assert_eq!(attempt(&web.path, (target, 80).into()), Ok(()), "{target}");
        let id =
            add(&world, &format!("--from {} --to {target} --before {opening} --action reject", web.name));
        assert_eq!(attempt(&web.path, (target, 80).into()), Err(ErrorKind::ConnectionRefused), "{target}");
        is_told_of_a_datagram(&web, target);
        remove(&world, &[&id, &opening]);
    }
}
