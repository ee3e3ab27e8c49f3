//! Published ports as those reach them from whom no frame of the switch's comes: clients on the host itself,
//! clients of the other family, and clients behind other interfaces than the uplink.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;

use nix::sys::signal::Signal;
use vswitch_tests::namespace::{Namespace, inside};
use vswitch_tests::outside::{HOST, Outside, ROUTERS};
use vswitch_tests::talk;
use vswitch_tests::wait::{self, DEADLINE};
use vswitch_tests::world::{Container, World, send_signal};

use super::{VSWITCH, world};

const BOTH: [&str; 5] = ["--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"];
const GATEWAYS: [&str; 2] = ["10.77.0.1", "fd77::1"];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A sandbox that publishes ports, on a network with these options.
fn server(world: &World, options: &[&str]) -> Container {
    world.network("net1", options);
    world.sandbox("web", &["--network", "net1", "-p", "8080:80", "-p", "5353:53/udp"])
}

fn listen(server: &Container) -> TcpListener {
    server.inside(|| TcpListener::bind("[::]:80")).expect("bind")
}

/// A client's connection to a published port of TCP, and the server's end of it, over which it has been
/// heard.
fn accepted(from: &Path, host: IpAddr, listener: &TcpListener) -> (TcpStream, TcpStream, IpAddr) {
    let mut client = talk::connect(from, (host, 8080).into());
    client.write_all(b"hello").expect("send");
    let (mut served, seen) = listener.accept().expect("accept");
    served.set_read_timeout(Some(DEADLINE)).expect("time-out");
    served.set_write_timeout(Some(DEADLINE)).expect("time-out");
    let mut said = [0; 5];
    served.read_exact(&mut said).expect("receive");
    served.write_all(&said).expect("send");
    client.read_exact(&mut said).expect("receive");
    assert_eq!(&said, b"hello");
    (client, served, seen.ip().to_canonical())
}

/// Asks a server at its published port of UDP; says whom it saw.
fn ask(from: &Path, host: IpAddr, server: &Container) -> IpAddr {
    let socket = server.inside(|| UdpSocket::bind("[::]:53")).expect("bind");
    let any: IpAddr = if host.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = inside(from, || UdpSocket::bind((any, 0))).expect("bind");
    for socket in [&socket, &client] {
        socket.set_read_timeout(Some(DEADLINE)).expect("time-out");
    }
    let mut buffer = [0; 4000];
    let mut client_seen = None;
    for length in [8, 0, 1400, 3000] {
        let question = vec![7; length];
        client.send_to(&question, SocketAddr::new(host, 5353)).expect("send");
        let (received, seen) = socket.recv_from(&mut buffer).expect("the question");
        assert_eq!(buffer[..received], question);
        assert_eq!(*client_seen.get_or_insert(seen), seen, "one session");
        socket.send_to(&question[..length.min(1400)], seen).expect("send");
        let (received, peer) = client.recv_from(&mut buffer).expect("the answer");
        assert_eq!((received, peer), (length.min(1400), SocketAddr::new(host, 5353)));
    }
    client_seen.expect("a client").ip().to_canonical()
}

/// Moves bytes both ways at once over both ends of a connection, and checks each.
fn exchange(client: &TcpStream, served: &TcpStream, bytes: usize) {
    let run = |mut connection: &TcpStream, sends: u64, checks: u64| {
        thread::scope(|scope| {
            let writing = scope.spawn(move || talk::send(&mut connection, sends, bytes));
            talk::check(&mut { connection }, checks, bytes).expect("receive");
            writing.join().expect("no panic").expect("send");
        });
    };
    thread::scope(|scope| {
        scope.spawn(|| run(served, 1, 2));
        run(client, 2, 1);
    });
}

#[test]
fn programs_of_the_host_reach_published_ports() {
    let (world, _outside) = World::start_prepared(VSWITCH, Outside::behind);
    let web = server(&world, &BOTH);
    let (host, listener) = (world.host().path(), listen(&web));
    for (target, seen) in [
        ("127.0.0.1", GATEWAYS[0]),
        ("127.9.9.9", GATEWAYS[0]),
        (HOST[0], HOST[0]),
        (GATEWAYS[0], GATEWAYS[0]),
        ("::1", GATEWAYS[1]),
        (HOST[1], HOST[1]),
        (GATEWAYS[1], GATEWAYS[1]),
    ] {
        let (client, served, by_tcp) = accepted(&host, address(target), &listener);
        let seen = address(seen);
        assert_eq!((by_tcp, ask(&host, address(target), &web)), (seen, seen), "{target}");
        exchange(&client, &served, 20 << 20);
    }
    let stats = world.json(&["stats"]);
    let relay =
        stats["Ports"].as_array().and_then(|ports| ports.iter().find(|port| port["Sandbox"] == "(relay)"));
    let counted = |name: &str| relay.and_then(|port| port[name].as_u64()).unwrap_or(0);
    assert!(counted("ReceivedBytes") > 100 << 20 && counted("SentBytes") > 100 << 20, "{stats}");
}

#[test]
fn each_direction_ends_by_itself() {
    let world = world();
    let web = server(&world, &BOTH);
    let listener = listen(&web);
    for target in ["127.0.0.1", "::1"] {
        let (mut client, mut served, _) = accepted(&world.host().path(), address(target), &listener);
        client.write_all(b"the last word").expect("send");
        client.shutdown(Shutdown::Write).expect("shut down");
        let mut heard = String::new();
        served.read_to_string(&mut heard).expect("receive");
        assert_eq!(heard, "the last word");
        talk::send(&mut served, 5, 4 << 20).expect("send");
        drop(served);
        talk::check(&mut client, 5, 4 << 20).expect("receive");
        assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    }
}

#[test]
fn nobody_waits_for_who_is_not_there() {
    let world = world();
    let web = server(&world, &BOTH);
    let host = world.host().path();
    let is_reset = |why: &str| {
        let target: SocketAddr = (address("127.0.0.1"), 8080).into();
        let connected = inside(&host, || TcpStream::connect_timeout(&target, DEADLINE));
        // The reset may come before anybody looks whether there is a connection.
        let error = connected.and_then(|mut client| client.read(&mut [0])).expect_err(why);
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{why}");
    };
    is_reset("nobody listens");
    let listener = listen(&web);
    let (mut client, served, _) = accepted(&host, address("127.0.0.1"), &listener);
    served.set_nonblocking(true).expect("non-blocking");
    thread::scope(|scope| {
        let sending = scope.spawn(|| talk::send(&mut client, 3, 1 << 30));
        world.vswitch(&["network", "disconnect", "net1", &web.name]);
        sending.join().expect("no panic").expect_err("its container is gone");
    });
    is_reset("no container");
}

#[test]
fn a_thousand_clients_come_at_once() {
    const CLIENTS: usize = 1000;
    let world = world();
    let web = server(&world, &BOTH);
    let (host, listener) = (world.host().path(), listen(&web));
    let mut pairs: Vec<(TcpStream, TcpStream)> = (0..CLIENTS)
        .map(|_| {
            let client = talk::connect(&host, (address("127.0.0.1"), 8080).into());
            (client, listener.accept().expect("accept").0)
        })
        .collect();
    for round in 0..3u8 {
        for (client, _) in &mut pairs {
            client.write_all(&[round; 100]).expect("send");
        }
        let mut heard = [0; 100];
        for (_, served) in &mut pairs {
            served.read_exact(&mut heard).expect("receive");
            served.write_all(&heard).expect("send");
        }
        for (client, _) in &mut pairs {
            client.read_exact(&mut heard).expect("receive");
            assert_eq!(heard, [round; 100]);
        }
    }
}

#[test]
fn a_container_of_one_family_serves_clients_of_the_other() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    let web = server(&world, &["--subnet", "10.77.0.0/24"]);
    let listener = listen(&web);
    for (from, target) in [(world.host().path(), "::1"), (outside.path(), HOST[1])] {
        let (client, served, seen) = accepted(&from, address(target), &listener);
        assert_eq!([seen, ask(&from, address(target), &web)], [address(GATEWAYS[0]); 2], "{target}");
        exchange(&client, &served, 1 << 20);
    }
    let (_, _, seen) = accepted(&outside.path(), address(HOST[0]), &listener);
    assert_eq!(seen, address(ROUTERS[0]), "its own family is translated");
}

#[test]
fn clients_behind_other_interfaces_are_served_and_seen() {
    let (world, _outside) = World::start_prepared(VSWITCH, Outside::behind);
    let other = Namespace::new();
    let host = world.host();
    host.ip(&["link", "add", "lan0", "type", "veth", "peer", "name", "lan1", "netns", other.name()]);
    for (namespace, interface, address) in [(host, "lan0", "10.5.0.1/24"), (&other, "lan1", "10.5.0.2/24")] {
        namespace.ip(&["address", "add", address, "dev", interface]);
        namespace.ip(&["link", "set", interface, "up"]);
    }
    other.ip(&["route", "add", "default", "via", "10.5.0.1"]);
    let web = server(&world, &BOTH);
    let listener = listen(&web);
    for target in ["10.5.0.1", HOST[0]] {
        let (_, _, seen) = accepted(&other.path(), address(target), &listener);
        let by_udp = ask(&other.path(), address(target), &web);
        assert_eq!([seen, by_udp], [address("10.5.0.2"); 2], "{target}");
    }
    let rule = ["rule", "add", "--network", "net1", "--from", "10.5.0.2/32", "--action"];
    let reject = world.vswitch(&[&rule[..], &["reject"]].concat());
    // The reset may overtake the caller of `connect`.
    let rejected = inside(&other.path(), || {
        let mut client = TcpStream::connect((address("10.5.0.1"), 8080))?;
        client.set_read_timeout(Some(DEADLINE))?;
        client.read(&mut [0; 1])
    });
    assert_eq!(rejected.expect_err("a rule says no").kind(), ErrorKind::ConnectionReset);
    world.vswitch(&["rule", "rm", reject.trim()]);
    world.vswitch(&[&rule[..], &["drop"]].concat());
    let client = talk::connect(&other.path(), (address("10.5.0.1"), 8080).into());
    listener.set_nonblocking(true).expect("non-blocking");
    accepted_by_nobody(&world, &listener);
    drop(client);
}

/// Nobody is accepted until somebody else has been served at another port.
fn accepted_by_nobody(world: &World, listener: &TcpListener) {
    let other = world.sandbox("other", &["--network", "net1", "-p", "8081:80"]);
    let served = listen(&other);
    let mut client = talk::connect(&world.host().path(), (address("127.0.0.1"), 8081).into());
    client.write_all(b"hello").expect("send");
    served.accept().expect("accept");
    assert_eq!(listener.accept().expect_err("a rule drops it").kind(), ErrorKind::WouldBlock);
}

#[test]
fn an_internal_network_serves_the_host() {
    let world = world();
    let web = server(&world, &[&BOTH[..], &["--internal"]].concat());
    let (host, listener) = (world.host().path(), listen(&web));
    for (target, gateway) in [("127.0.0.1", GATEWAYS[0]), (GATEWAYS[0], GATEWAYS[0]), ("::1", GATEWAYS[1])] {
        let (_, _, seen) = accepted(&host, address(target), &listener);
        assert_eq!([seen, ask(&host, address(target), &web)], [address(gateway); 2], "{target}");
    }
}

#[test]
fn relays_end_with_their_publication_and_outlive_either_process() {
    let mut world = world();
    let web = server(&world, &BOTH);
    let (host, listener) = (world.host().path(), listen(&web));
    let local = address("127.0.0.1");
    let (client, served, _) = accepted(&host, local, &listener);
    world.stop(Signal::SIGKILL);
    exchange(&client, &served, 1 << 20);
    drop(accepted(&host, local, &listener));
    world.start_again();
    exchange(&client, &served, 1 << 20);
    drop(accepted(&host, local, &listener));
    ask(&host, local, &web);

    send_signal(world.datapath_pid(), Signal::SIGKILL);
    wait::until_equal("another datapath", &1, || world.restarts());
    let (mut client, _served, _) = accepted(&host, local, &listener);
    ask(&host, local, &web);

    world.vswitch(&["unpublish", &web.name, "8080:80"]);
    assert_eq!(client.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
    let refused = world.host().inside(|| TcpStream::connect((local, 8080))).expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    world.vswitch(&["publish", &web.name, "127.0.0.1:8080:80"]);
    drop(accepted(&host, local, &listener));
    ask(&host, local, &web);
}

#[test]
fn a_large_range_is_relayed() {
    let mut world = world();
    world.network("net1", &BOTH);
    let web = world.sandbox("web", &["--network", "net1", "-p", "20000-24999:20000-24999"]);
    let host = world.host().path();
    let served = |port: u16| {
        let listener = web.inside(|| TcpListener::bind(("::", port))).expect("bind");
        let mut client = talk::connect(&host, (address("127.0.0.1"), port).into());
        client.write_all(b"hello").expect("send");
        let mut heard = [0; 5];
        listener.accept().expect("accept").0.read_exact(&mut heard).expect("receive");
    };
    let all = [20_000, 20_253, 22_222, 24_999];
    all.into_iter().for_each(served);
    world.stop(Signal::SIGKILL);
    world.start_again();
    all.into_iter().for_each(served);
    send_signal(world.datapath_pid(), Signal::SIGKILL);
    wait::until_equal("another datapath", &1, || world.restarts());
    all.into_iter().for_each(served);
}
