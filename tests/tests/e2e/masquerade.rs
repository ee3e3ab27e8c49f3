//! Containers and the world: what leaves the host, as whom, and what comes back.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use vswitch_frame::DropReason;
use vswitch_tests::namespace::{Namespace, inside, must};
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS, UPLINK};
use vswitch_tests::world::{World, send_signal};
use vswitch_tests::{talk, wait};

use super::VSWITCH;

const SILENCE: Duration = Duration::from_secs(20);

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A switch with a world beyond it.
fn connected() -> (World, Outside) {
    World::start_prepared(VSWITCH, Outside::behind)
}

/// A network with a subnet of each family.
fn both_families(world: &World, name: &str, number: u8, options: &[&str]) {
    let (v4, v6) = (format!("10.{number}.0.0/24"), format!("fd{number}::/64"));
    world.network(name, &[&["--ipv6", "--subnet", &v4, "--subnet", &v6], options].concat());
}

#[test]
fn containers_reach_the_world_as_the_host() {
    let (world, outside) = connected();
    both_families(&world, "net1", 77, &[]);
    for port_type in ["tap", "veth"] {
        let container = world.attach(port_type, &["--network", "net1", "--port-type", port_type]);
        for target in Outside::everybody() {
            container.pings(target);
        }
        for (far, host) in FAR.into_iter().zip(HOST) {
            let listener = talk::listen(&outside.path(), address(far));
            let mut connection = talk::connect(&container.path, listener.local_addr().expect("bound"));
            let (mut incoming, peer) = listener.accept().expect("accept");
            assert_eq!(peer.ip(), address(host), "the world sees the host only");
            connection.write_all(b"hello").expect("send");
            let mut said = [0; 5];
            incoming.read_exact(&mut said).expect("receive");
            assert_eq!(&said, b"hello");
            asks(&container.path, &outside, address(far), address(host));
        }
    }
}

/// Sends a datagram from a container to the world, which must see it come from the host, and has it answered.
fn asks(container: &std::path::Path, outside: &Outside, far: IpAddr, host: IpAddr) {
    let server = inside(&outside.path(), || UdpSocket::bind((far, 0))).expect("bind");
    let any: IpAddr = if far.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = inside(container, || UdpSocket::bind((any, 0))).expect("bind");
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(SILENCE)).expect("timeout");
    }
    client.send_to(b"question", server.local_addr().expect("bound")).expect("send");
    let mut buffer = [0; 64];
    let (length, peer) = server.recv_from(&mut buffer).expect("the question");
    assert_eq!((&buffer[..length], peer.ip()), (&b"question"[..], host));
    server.send_to(b"answer", peer).expect("send");
    let (length, peer) = client.recv_from(&mut buffer).expect("the answer");
    assert_eq!((&buffer[..length], peer.ip()), (&b"answer"[..], far));
}

#[test]
fn much_is_moved_in_both_directions() {
    let (world, outside) = connected();
    both_families(&world, "net1", 77, &[]);
    let container = world.attach("a", &["--network", "net1"]);
    for far in FAR {
        talk::transfer(&container.path, &outside.path(), address(far), 50 << 20);
        talk::datagrams(&container.path, &outside.path(), address(far), &[0, 1, 1200, 1400]);
        talk::datagrams(&container.path, &outside.path(), address(far), &[4000, 20_000]);
    }
}

/// Rules and settings of the host that the switch might change.
fn surroundings(host: &Namespace) -> String {
    let mut said = String::new();
    for command in [
        &["iptables-save"][..],
        &["ip6tables-save"],
        &["tc", "qdisc", "show", "dev", UPLINK],
        &["tc", "filter", "show", "dev", UPLINK],
        &["ip", "rule"],
        &["ip", "route", "show", "dev", UPLINK],
        &["sysctl", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter"],
        &["sysctl", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"],
    ] {
        let output = host.output(Command::new(command[0]).args(&command[1..]));
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        // Comments hold the time.
        said.extend(lines.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")));
    }
    said
}

#[test]
fn the_hosts_own_rules_are_untouched() {
    let (mut world, (outside, before)) = World::start_prepared(VSWITCH, |host| {
        let outside = Outside::behind(host);
        let before = surroundings(host);
        (outside, before)
    });
    assert!(before.contains("ip_forward = 0"), "{before}");
    let container = world.attach("a", &[]);
    container.pings(address(FAR[0]));
    assert_eq!(surroundings(world.host()), before);
    drop(container);
    world.stop(Signal::SIGTERM);
    assert_eq!(surroundings(world.host()), before);
    drop(outside);
}

#[test]
fn the_world_is_told_nothing_at_claimed_ports() {
    let (world, outside) = connected();
    both_families(&world, "net1", 77, &[]);
    let container = world.attach("a", &["--network", "net1"]);
    for (far, host) in FAR.into_iter().zip(HOST) {
        let server = inside(&outside.path(), || UdpSocket::bind((address(far), 0))).expect("bind");
        server.set_read_timeout(Some(SILENCE)).expect("timeout");
        let any = if far.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let client = inside(&container.path, || UdpSocket::bind(any)).expect("bind");
        client.send_to(b"x", server.local_addr().expect("bound")).expect("send");
        let (_, claimed) = server.recv_from(&mut [0; 8]).expect("the datagram");
        let taken = |bound: std::io::Result<()>| bound.is_err_and(|error| error.raw_os_error() == Some(98));
        assert!(world.host().inside(|| taken(UdpSocket::bind(claimed).map(drop))), "{claimed}");
        let listener = talk::listen(&outside.path(), address(far));
        let connection = talk::connect(&container.path, listener.local_addr().expect("bound"));
        let (_, claimed) = listener.accept().expect("accept");
        let any =
            SocketAddr::new(if claimed.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, claimed.port());
        assert!(world.host().inside(|| taken(TcpListener::bind(any).map(drop))), "{any}");
        drop(connection);
        let refused = |port: u16| {
            let target = SocketAddr::new(address(host), port);
            let patience = Duration::from_millis(300);
            let error = inside(&outside.path(), || TcpStream::connect_timeout(&target, patience)).err();
            error.map(|error| error.kind())
        };
        assert_eq!(refused(claimed.port()), Some(std::io::ErrorKind::TimedOut), "silence");
        assert_eq!(refused(7), Some(std::io::ErrorKind::ConnectionRefused), "not ours");
    }
}

#[test]
fn what_the_world_complains_of_is_heard() {
    let (world, outside) = connected();
    both_families(&world, "net1", 77, &[]);
    let container = world.attach("a", &["--network", "net1"]);
    for far in FAR {
        // Nobody is bound there, so the world says that the port is unreachable.
        let any = if far.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let client = inside(&container.path, || UdpSocket::bind(any)).expect("bind");
        client.set_read_timeout(Some(SILENCE)).expect("timeout");
        client.connect((address(far), 9)).expect("an address");
        client.send(b"x").expect("send");
        let error = client.recv(&mut [0; 8]).expect_err("nobody answers");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{far}: {error}");
    }
    outside.namespace().ip(&["route", "add", "unreachable", "198.51.100.0/24"]);
    must_forward(&outside);
    let mut ping = Command::new("ping");
    let output = container.inside(|| ping.args(["-n", "-c", "1", "-w", "10", "198.51.100.9"]).output());
    let said = String::from_utf8_lossy(&output.expect("ping is installed").stdout).into_owned();
    assert!(said.contains(&format!("From {}", ROUTERS[0])), "{said}");
}

fn must_forward(outside: &Outside) {
    let mut sysctl = Command::new("sysctl");
    outside.namespace().inside(|| must(sysctl.args(["-w", "net.ipv4.ip_forward=1"])));
}

#[test]
fn without_masquerade_containers_leave_with_their_own_addresses() {
    let (world, outside) = connected();
    let plain = ["-o", "com.docker.network.bridge.enable_ip_masquerade=false"];
    both_families(&world, "net1", 77, &plain);
    let container = world.attach("a", &["--network", "net1"]);
    for (far, own) in [(FAR[0], container.ipv4()), (FAR[1], container.ipv6())] {
        container.cannot_ping(address(far));
        let (subnet, router) = if own.is_ipv4() { ("10.77.0.0/24", HOST[0]) } else { ("fd77::/64", HOST[1]) };
        outside.namespace().ip(&["route", "add", subnet, "via", router]);
        wait::until("an answer", || talk::answers(&container.path, address(far)).then_some(()));
        asks(&container.path, &outside, address(far), own);
        assert!(talk::is_silent(&outside.path(), own), "{own} is protected");
    }
}

#[test]
fn an_internal_network_has_no_way_out() {
    let (world, outside) = connected();
    both_families(&world, "net1", 77, &["--internal"]);
    let container = world.attach("a", &["--network", "net1"]);
    container.ip(&["route", "add", "default", "via", "10.77.0.1"]);
    container.cannot_ping(address(FAR[0]));
    assert!(world.drops(&container, DropReason::Internal) >= 1);
    drop(outside);
}

#[test]
fn the_way_out_survives_the_datapath_and_follows_the_host() {
    let (world, outside) = connected();
    both_families(&world, "net1", 77, &[]);
    let container = world.attach("a", &["--network", "net1"]);
    container.pings(address(FAR[0]));
    let restarts = world.restarts();
    send_signal(world.datapath_pid(), Signal::SIGKILL);
    wait::until("another datapath", || (world.restarts() > restarts).then_some(()));
    container.pings(address(FAR[0]));
    world.host().ip(&["address", "add", "203.0.113.3/24", "dev", UPLINK]);
    world.host().ip(&["address", "delete", "203.0.113.2/24", "dev", UPLINK]);
    world.host().ip(&["address", "replace", "203.0.113.3/24", "dev", UPLINK]);
    world.host().ip(&["route", "replace", "default", "via", ROUTERS[0]]);
    wait::until("the other address", || talk::answers(&container.path, address(FAR[0])).then_some(()));
    asks(&container.path, &outside, address(FAR[0]), address("203.0.113.3"));
    world.host().ip(&["route", "delete", "default"]);
    wait::until("no way out", || talk::is_silent(&container.path, address(FAR[0])).then_some(()));
    let stats = world.json(&["stats"]);
    let uplink = stats["Ports"].as_array().into_iter().flatten().find(|port| port["Sandbox"] == "(uplink)");
    assert!(uplink.is_some_and(|port| port["Interface"] == UPLINK), "{stats}");
}

#[test]
fn a_network_leaves_with_the_address_that_was_chosen_for_it() {
    let (world, outside) = connected();
    world.host().ip(&["address", "add", "203.0.113.7/24", "dev", UPLINK]);
    world.network("net1", &["--subnet", "10.77.0.0/24", "-o", "com.docker.network.host_ipv4=203.0.113.7"]);
    let container = world.attach("a", &["--network", "net1"]);
    wait::until("the chosen address", || talk::answers(&container.path, address(FAR[0])).then_some(()));
    asks(&container.path, &outside, address(FAR[0]), address("203.0.113.7"));
}
