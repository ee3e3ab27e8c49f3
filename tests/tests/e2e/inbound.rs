//! Published ports as the world and other containers reach them.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use vswitch_tests::namespace::inside;
use vswitch_tests::outside::{FAR, HOST, Outside};
use vswitch_tests::world::{Container, World};
use vswitch_tests::{talk, wait};

use super::VSWITCH;

const SILENCE: Duration = Duration::from_secs(20);
const BOTH: [&str; 5] = ["--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn connected() -> (World, Outside) {
    World::start_prepared(VSWITCH, Outside::behind)
}

/// A sandbox on a network of both families that publishes ports.
fn server(world: &World, options: &[&str]) -> Container {
    world.network("net1", &[&BOTH[..], options].concat());
    world.sandbox("web", &["--network", "net1", "-p", "8080:80", "-p", "5353:53/udp"])
}

/// Asks a server at its published ports from somewhere; says whom the server saw, by TCP and by UDP.
fn ask(from: &Path, server: &Container, host: IpAddr) -> [IpAddr; 2] {
    let any: IpAddr = if host.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let listener = talk::listen_at(&server.path, (any, 80).into());
    let mut connection = talk::connect(from, (host, 8080).into());
    let (mut accepted, by_tcp) = listener.accept().expect("accept");
    connection.write_all(b"hello").expect("send");
    let mut said = [0; 5];
    accepted.read_exact(&mut said).expect("receive");
    accepted.write_all(&said).expect("send");
    connection.read_exact(&mut said).expect("receive");

    let socket = talk::bind_at(&server.path, (any, 53).into());
    let client = inside(from, || UdpSocket::bind((any, 0))).expect("bind");
    for socket in [&socket, &client] {
        socket.set_read_timeout(Some(SILENCE)).expect("timeout");
    }
    client.send_to(b"question", SocketAddr::new(host, 5353)).expect("send");
    let mut buffer = [0; 16];
    let (length, by_udp) = socket.recv_from(&mut buffer).expect("the question");
    socket.send_to(&buffer[..length], by_udp).expect("send");
    let (_, peer) = client.recv_from(&mut buffer).expect("the answer");
    assert_eq!(peer, SocketAddr::new(host, 5353), "the answer is the host's");
    [by_tcp.ip(), by_udp.ip()]
}

#[test]
fn the_world_reaches_published_ports_and_is_seen() {
    let (world, outside) = connected();
    let web = server(&world, &[]);
    for (host, router) in HOST.into_iter().zip(vswitch_tests::outside::ROUTERS) {
        assert_eq!(ask(&outside.path(), &web, address(host)), [address(router); 2]);
    }
    assert!(talk::is_silent(&outside.path(), web.ipv4()), "nothing else leads there");
}

/// Sends datagrams of several sizes to a server at its published port, and has each sent back.
fn echo(from: &Path, server: &Container, host: IpAddr) {
    let any: IpAddr = if host.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = talk::bind_at(&server.path, (any, 53).into());
    let client = inside(from, || UdpSocket::bind((any, 0))).expect("bind");
    for socket in [&socket, &client] {
        socket.set_read_timeout(Some(SILENCE)).expect("timeout");
    }
    let mut buffer = vec![0; 1 << 16];
    for size in [1472, 1473, 3069, 65_507 - if host.is_ipv4() { 0 } else { 20 }] {
        let sent: Vec<u8> = (0..size).map(|at: usize| at.to_le_bytes()[0]).collect();
        client.send_to(&sent, (host, 5353)).expect("send");
        let (length, peer) = socket.recv_from(&mut buffer).expect("the question");
        assert!(buffer[..length] == sent, "{size} bytes to {host}");
        socket.send_to(&buffer[..length], peer).expect("send");
        let (length, peer) = client.recv_from(&mut buffer).expect("the answer");
        assert_eq!(peer, SocketAddr::new(host, 5353), "the answer is the host's");
        assert!(buffer[..length] == sent, "{size} bytes from {host}");
    }
}

#[test]
fn datagrams_of_every_size_reach_published_ports_and_come_back() {
    let (world, outside) = connected();
    let web = server(&world, &[]);
    let neighbour = world.sandbox("neighbour", &["--network", "net1"]);
    world.network("net2", &["--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd78::/64"]);
    let stranger = world.sandbox("stranger", &["--network", "net2"]);
    for host in HOST.map(address) {
        for from in [&outside.path(), &neighbour.path, &stranger.path, &web.path] {
            echo(from, &web, host);
        }
    }
}

#[test]
fn connections_to_a_port_that_is_published_no_longer_are_reset() {
    let (world, outside) = connected();
    let web = server(&world, &[]);
    let connections = HOST.map(|host| {
        let host = address(host);
        let any: IpAddr = if host.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let listener = talk::listen_at(&web.path, (any, 80).into());
        let mut client = talk::connect(&outside.path(), (host, 8080).into());
        let (mut accepted, _) = listener.accept().expect("accept");
        client.write_all(b"hello").expect("send");
        accepted.read_exact(&mut [0; 5]).expect("receive");
        [client, accepted]
    });
    world.vswitch(&["unpublish", &web.name, "8080:80"]);
    for mut end in connections.into_iter().flatten() {
        end.set_read_timeout(Some(SILENCE)).expect("timeout");
        let error = end.read(&mut [0; 1]).expect_err("the connection is over");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn connections_to_a_port_that_is_drained_end_by_themselves() {
    let (mut world, outside) = connected();
    let web = server(&world, &[]);
    let host = address(HOST[0]);
    let listener = talk::listen_at(&web.path, ([0; 4], 80).into());
    // One is translated, the other relayed.
    let mut ends: Vec<[TcpStream; 2]> = [outside.path(), world.host().path()]
        .iter()
        .map(|from| {
            let client = talk::connect(from, (host, 8080).into());
            [client, listener.accept().expect("accept").0]
        })
        .collect();
    let exchange = |ends: &mut [[TcpStream; 2]]| {
        for [client, served] in ends {
            for _ in 0..2 {
                client.write_all(b"hello").expect("send");
                served.read_exact(&mut [0; 5]).expect("receive");
                std::mem::swap(client, served);
            }
        }
    };
    exchange(&mut ends);
    world.vswitch(&["unpublish", "--drain", &web.name, "8080:80"]);
    exchange(&mut ends);
    for from in [outside.path(), world.host().path()] {
        let refused = inside(&from, || {
            let mut late = TcpStream::connect_timeout(&(host, 8080).into(), SILENCE)?;
            late.set_read_timeout(Some(SILENCE))?;
            late.read(&mut [0; 1])
        });
        let kind = refused.expect_err("nobody new gets in").kind();
        assert!(matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset), "{kind}");
    }
    let refusal = world.refused(&["publish", &web.name, "8080:80"]);
    assert!(refusal.message.contains("port is already allocated"), "{}", refusal.message);
    // Neither process ends them.
    world.stop(Signal::SIGKILL);
    world.start_again();
    exchange(&mut ends);
    ends.clear();
    let publish = ["publish", web.name.as_str(), "8080:80"];
    wait::until("the port is free", || {
        let outcome = world.command(&publish).output().expect("the command runs");
        outcome.status.success().then_some(())
    });
    let (mut client, _served) =
        (talk::connect(&outside.path(), (host, 8080).into()), listener.accept().expect("accept"));
    client.write_all(b"hello").expect("send");
}

#[test]
fn a_rule_that_rejects_tells_clients_of_published_ports() {
    let (world, outside) = connected();
    let web = server(&world, &[]);
    for proto in ["tcp", "udp"] {
        world.vswitch(&["rule", "add", "--to", "net1", "--proto", proto, "--action", "reject"]);
    }
    for host in HOST.map(address) {
        let any: IpAddr = if host.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let _listener = talk::listen_at(&web.path, (any, 80).into());
        let refused = inside(&outside.path(), || TcpStream::connect_timeout(&(host, 8080).into(), SILENCE));
        assert_eq!(refused.expect_err("a rule says no").kind(), ErrorKind::ConnectionRefused, "{host}");
        let client = inside(&outside.path(), || UdpSocket::bind((any, 0))).expect("bind");
        client.set_read_timeout(Some(SILENCE)).expect("timeout");
        client.connect((host, 5353)).expect("connect");
        client.send(b"question").expect("send");
        let told = client.recv(&mut [0; 16]).expect_err("a rule says no");
        let kinds = [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied];
        assert!(kinds.contains(&told.kind()), "{host}: {told}");
    }
}

#[test]
fn an_internal_network_may_publish_but_not_leave() {
    let (world, outside) = connected();
    let web = server(&world, &["--internal"]);
    assert_eq!(web.ip(&["route", "show", "default"]), "", "it has no way back");
    for (host, gateway) in HOST.into_iter().zip(["10.77.0.1", "fd77::1"]) {
        assert_eq!(ask(&outside.path(), &web, address(host)), [address(gateway); 2]);
        let listener = talk::listen_at(&web.path, ([0u16; 8], 80).into());
        let client = talk::connect(&outside.path(), (address(host), 8080).into());
        let (server, _) = listener.accept().expect("accept");
        std::thread::scope(|scope| {
            scope.spawn(|| talk::send(&mut &server, 1, 5 << 20).expect("send"));
            talk::check(&mut &client, 1, 5 << 20).expect("receive");
        });
    }
    web.ip(&["route", "add", "default", "via", "10.77.0.1"]);
    web.cannot_ping(address(FAR[0]));
}

#[test]
fn containers_reach_ports_that_their_own_host_publishes() {
    let (world, outside) = connected();
    let web = server(&world, &[]);
    let neighbour = world.attach("neighbour", &["--network", "net1"]);
    world.network("net2", &["--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd78::/64"]);
    let stranger = world.attach("stranger", &["--network", "net2"]);
    for (host, gateway) in HOST.into_iter().zip(["10.77.0.1", "fd77::1"]) {
        for client in [&neighbour, &stranger, &web] {
            let seen = ask(&client.path, &web, address(host));
            assert_eq!(seen, [address(gateway); 2], "{} by {host}", client.name);
        }
    }
    drop(outside);
}
