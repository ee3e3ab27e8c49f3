//! Rules of the user's between real containers.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;
use vswitch_frame::DropReason;
use vswitch_tests::world::{Container, World, send_signal};
use vswitch_tests::{talk, wait};

use super::world;

/// Two containers of a network.
fn pair(world: &World) -> (Container, Container) {
    world.network("net1", &["--subnet", "10.67.0.0/24", "--subnet", "fd67::/64"]);
    (world.sandbox("a", &["--network", "net1"]), world.sandbox("b", &["--network", "net1"]))
}

fn frames(world: &World, id: &str) -> u64 {
    let rules = world.json(&["rule", "ls"]);
    let rules = rules.as_array().cloned().unwrap_or_default();
    let rule = rules.iter().find(|rule| rule["Id"].as_u64() == id.parse().ok());
    rule.and_then(|rule| rule["Frames"].as_u64()).unwrap_or_else(|| panic!("no rule {id}: {rules:?}"))
}

fn add(world: &World, words: &str) -> String {
    let words: Vec<&str> = ["rule", "add"].into_iter().chain(words.split(' ')).collect();
    world.vswitch(&words).trim().to_owned()
}

/// The outcome of an attempt to connect.
fn attempt(from: &Container, target: SocketAddr) -> Result<(), ErrorKind> {
    let outcome = from.inside(|| TcpStream::connect_timeout(&target, Duration::from_millis(400)));
    outcome.map(drop).map_err(|error| error.kind())
}

#[test]
fn a_rule_drops_rejects_or_accepts_and_counts() {
    let world = world();
    let (a, b) = pair(&world);
    for address in [b.ipv4(), b.ipv6()] {
        let listener = talk::listen(&b.path, address);
        let target = listener.local_addr().expect("bound");
        let port = target.port();
        assert_eq!(attempt(&a, target), Ok(()), "no rule, no obstacle");
        let drop = add(&world, &format!("--network net1 --proto tcp --dport {port} --action drop"));
        assert_eq!(attempt(&a, target), Err(ErrorKind::TimedOut));
        assert!(frames(&world, &drop) >= 1);
        assert!(world.drops(&a, DropReason::Rule) >= 1);
        let words = format!("--from net1 --proto tcp --dport {port} --before {drop} --action reject");
        let reject = add(&world, &words);
        assert_eq!(attempt(&a, target), Err(ErrorKind::ConnectionRefused));
        assert_eq!(frames(&world, &reject), 1);
        let accept = add(&world, &format!("--to {address} --before {reject} --action accept"));
        assert_eq!(attempt(&a, target), Ok(()));
        talk::transfer(&a.path, &b.path, address, 1 << 20);
        assert!(frames(&world, &accept) >= 6, "the whole connection, both ways");
        a.pings(address);
        world.vswitch(&["rule", "rm", &accept, &reject, &drop]);
    }
    assert_eq!(world.json(&["rule", "ls"]), serde_json::json!([]));
}

/// The sender of a datagram is told that a rule rejects it.
pub(super) fn is_told_of_a_datagram(from: &Container, target: IpAddr) {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.inside(|| UdpSocket::bind(any)).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    socket.connect((target, 9)).expect("connected");
    socket.send(b"hello").expect("sent");
    let error = socket.recv(&mut [0; 8]).expect_err("nobody answers");
    let kinds = [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied];
    assert!(kinds.contains(&error.kind()), "{target}: {error}");
}

#[test]
fn a_rejected_datagram_is_told_of() {
    let world = world();
    let (a, b) = pair(&world);
    add(&world, "--proto udp --dport 9 --action reject");
    for target in [b.ipv4(), b.ipv6()] {
        is_told_of_a_datagram(&a, target);
    }
}

#[test]
fn replies_come_back_through_a_rule_that_forbids_them() {
    let world = world();
    let (a, b) = pair(&world);
    add(&world, &format!("--from {} --action drop", b.ipv4()));
    a.pings(b.ipv4());
    a.transfers(&b, b.ipv4(), 1 << 20);
    b.cannot_ping(a.ipv4());
    b.pings(a.ipv6());
    // A new rule ends what is established, from the side that it is not about, too.
    let listener = talk::listen(&b.path, b.ipv4());
    let outgoing = talk::connect(&a.path, listener.local_addr().expect("bound"));
    let (incoming, _) = listener.accept().expect("accepted");
    add(&world, &format!("--from {} --proto tcp --action drop", a.ipv4()));
    std::io::Write::write_all(&mut &incoming, b"lost").expect("queued");
    outgoing.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
    assert!((&outgoing).read(&mut [0; 4]).is_err());
}

#[test]
fn rules_outlive_the_datapath_and_go_with_their_network() {
    let world = world();
    let (a, b) = pair(&world);
    let id = add(&world, "--network net1 --proto icmp --action drop");
    let restarts = world.restarts();
    send_signal(world.datapath_pid(), Signal::SIGKILL);
    wait::until("another datapath", || (world.restarts() > restarts).then_some(()));
    a.cannot_ping(b.ipv4());
    assert!(frames(&world, &id) >= 1);
    world.vswitch(&["sandbox", "rm", &a.name, &b.name]);
    world.vswitch(&["network", "rm", "net1"]);
    assert_eq!(world.json(&["rule", "ls"]), serde_json::json!([]));
    let refusal = world.refused(&["rule", "rm", &id]);
    assert_eq!(refusal.message, format!("vswitch: rule {id} not found: see \"vswitch rule ls\"\n"));
}
