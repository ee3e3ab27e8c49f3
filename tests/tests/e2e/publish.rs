//! Published ports: who holds them, what is shown, what is refused, and what a restart makes of them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vswitch_tests::namespace::must;
use vswitch_tests::outside::{HOST, Outside, ROUTERS};
use vswitch_tests::wait::{self, DEADLINE};
use vswitch_tests::world::{World, send_signal};

use super::{VSWITCH, world};

/// Whether a program on the host can have a port of this address.
fn is_free(world: &World, protocol: &str, address: &str, port: u16) -> bool {
    let wanted = (self::address(address), port);
    let bound = world.host().inside(|| match protocol {
        "tcp" => TcpListener::bind(wanted).map(drop),
        _ => UdpSocket::bind(wanted).map(drop),
    });
    match bound {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{protocol} {address}:{port}");
            false
        }
    }
}

/// The published ports of a sandbox, as `vswitch port` writes them.
fn port(world: &World, sandbox: &str) -> Vec<String> {
    world.vswitch(&["port", sandbox]).lines().map(str::to_owned).collect()
}

fn inspect(world: &World, sandbox: &str) -> Value {
    world.json(&["sandbox", "inspect", sandbox])[0].take()
}

#[test]
fn a_published_port_is_held_until_it_is_not() {
    let world = world();
    let web = world.sandbox("web", &["-p", "8080:80", "-p", "127.0.0.1:5353:53/udp", "--expose", "443"]);
    for (protocol, address, number, expected) in [
        ("tcp", "0.0.0.0", 8080, false),
        ("tcp", "127.0.0.1", 8080, false),
        ("tcp", "::", 8080, false),
        ("tcp", "::1", 8080, false),
        ("udp", "0.0.0.0", 8080, true),
        ("udp", "127.0.0.1", 5353, false),
        ("udp", "::1", 5353, true),
    ] {
        assert_eq!(is_free(&world, protocol, address, number), expected, "{protocol} {address}:{number}");
    }
    let ss = world.host().inside(|| must(Command::new("ss").args(["-Hlntup"])));
    assert!(ss.contains("*:8080") && ss.contains("127.0.0.1:5353"), "{ss}");

    let both = json!([{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]);
    let expected = json!({
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}], "80/tcp": both, "443/tcp": null,
    });
    assert_eq!(inspect(&world, &web.name)["Ports"], expected);
    assert_eq!(world.json(&["port", &web.name]), expected);
    assert_eq!(world.json(&["ps"])[0]["Ports"]["80/tcp"], both);
    let table = world.vswitch(&["ps"]);
    assert!(table.contains("127.0.0.1:5353->53/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"), "{table}");
    let lines = ["53/udp -> 127.0.0.1:5353", "80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"];
    assert_eq!(port(&world, &web.name), lines);
    assert_eq!(world.vswitch(&["port", &web.name, "80"]), "0.0.0.0:8080\n[::]:8080\n");
    let refusal = world.refused(&["port", &web.name, "443/tcp"]);
    assert!(refusal.message.contains("no public port '443/tcp' published for"), "{}", refusal.message);

    world.vswitch(&["publish", &web.name, "9000:90", "9001:90"]);
    assert!(!is_free(&world, "tcp", "0.0.0.0", 9000));
    world.vswitch(&["unpublish", &web.name, "80", "9000:90"]);
    assert!(is_free(&world, "tcp", "::", 8080) && is_free(&world, "tcp", "0.0.0.0", 9000));
    assert_eq!(
        port(&world, &web.name),
        ["53/udp -> 127.0.0.1:5353", "90/tcp -> 0.0.0.0:9001", "90/tcp -> [::]:9001"]
    );
    world.vswitch(&["sandbox", "rm", &web.name]);
    assert!(is_free(&world, "tcp", "0.0.0.0", 9001) && is_free(&world, "udp", "127.0.0.1", 5353));
}

#[test]
fn a_taken_port_is_refused_with_its_owner() {
    let world = world();
    let [first, second] = ["first", "second"].map(|name| world.sandbox(name, &[]));
    let taken = world.host().inside(|| TcpListener::bind("127.0.0.1:8080")).expect("bind");
    let datagrams = world.host().inside(|| UdpSocket::bind("[::1]:8080")).expect("bind");
    let us = format!("(pid {}) has it", std::process::id());
    for (spec, named) in [("8080:80", "tcp"), ("8080:80/udp", "udp"), ("8070-8090:70-90", "tcp")] {
        let refusal = world.refused(&["publish", &first.name, spec]);
        let expected = "Bind for 0.0.0.0:8080 failed: port is already allocated: ";
        let message = refusal.message;
        assert!(message.contains(expected) && message.contains(&us), "{spec} {named}: {message}");
        assert_eq!(port(&world, &first.name), [] as [&str; 0]);
        assert!(is_free(&world, "tcp", "127.0.0.1", 8070), "{spec}: a part of it is left");
    }
    drop((taken, datagrams));
    world.vswitch(&["publish", &first.name, "8080:80", "[::1]:9000:80"]);
    let publishes = format!("sandbox {:?} publishes it", first.name);
    for spec in ["8080:80", "127.0.0.1:8080:81", "[::1]:8080:80", "9000:80", "8000-8100:8000-8100"] {
        let refusal = world.refused(&["publish", &second.name, "7000:70", spec]);
        let message = refusal.message;
        assert!(
            message.contains("port is already allocated") && message.contains(&publishes),
            "{spec}: {message}"
        );
        assert!(is_free(&world, "tcp", "0.0.0.0", 7000), "{spec}: half of it was done");
    }
    world.vswitch(&["publish", &second.name, "0.0.0.0:9000:80", "8080:80/udp"]);
    let refusal = world.refused(&["sandbox", "create", &world.global_name("third"), "-p", "8080:80"]);
    assert!(refusal.message.contains("port is already allocated"), "{}", refusal.message);
    assert_eq!(world.json(&["sandbox", "ls"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn the_owner_of_a_port_is_named_for_every_protocol_and_family() {
    let world = world();
    let web = world.sandbox("web", &[]);
    let comm = fs::read_to_string("/proc/self/comm").expect("a name");
    let owner = format!("{} (pid {})", comm.trim_end(), std::process::id());
    let tcp =
        |address: &str| world.host().inside(|| TcpListener::bind(address).map(drop_later)).expect("bind");
    let udp = |address: &str| world.host().inside(|| UdpSocket::bind(address).map(drop_later)).expect("bind");
    for (held, spec, place) in [
        (tcp("127.0.0.1:8080"), "127.0.0.1:8080:80", "127.0.0.1:8080"),
        (tcp("[::1]:8081"), "[::1]:8081:80", "[::1]:8081"),
        (tcp("[::1]:8082"), "8082:80", "0.0.0.0:8082"),
        (udp("127.0.0.1:8080"), "127.0.0.1:8080:80/udp", "127.0.0.1:8080"),
        (udp("[::1]:8081"), "[::1]:8081:80/udp", "[::1]:8081"),
        (udp("[::1]:8082"), "8082:80/udp", "0.0.0.0:8082"),
    ] {
        let expected = format!(
            "Bind for {place} failed: port is already allocated: {owner} has it, choose another port\n"
        );
        // A child of another test's has all our sockets for a moment.
        wait::until(&expected, || {
            let message = world.refused(&["publish", &web.name, spec]).message;
            message.ends_with(&expected).then_some(())
        });
        drop(held);
        world.vswitch(&["publish", &web.name, spec]);
    }
}

/// A socket that is held for as long as what is returned.
fn drop_later(socket: impl Send + 'static) -> Box<dyn Send> {
    Box::new(socket)
}

#[test]
fn ports_are_chosen_from_a_pool_or_by_the_kernel() {
    let world = world();
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    let reserved = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    world.host().inside(|| {
        fs::write(range, "40000 40009").and_then(|()| fs::write(reserved, "40000-40005")).expect("sysctl")
    });
    let [first, second] = ["first", "second"].map(|name| world.sandbox(name, &[]));
    let held = world.host().inside(|| TcpListener::bind("0.0.0.0:8000")).expect("bind");
    for (sandbox, chosen) in [(&first, "8001"), (&second, "8002")] {
        world.vswitch(&["publish", &sandbox.name, "8000-8002:80"]);
        let ports = port(&world, &sandbox.name);
        assert_eq!(ports, [format!("80/tcp -> 0.0.0.0:{chosen}"), format!("80/tcp -> [::]:{chosen}")]);
    }
    let refusal = world.refused(&["publish", &second.name, "8000-8002:81"]);
    assert!(
        refusal.message.contains("Bind for 0.0.0.0:8000-8002 failed: all ports are allocated"),
        "{}",
        refusal.message
    );
    drop(held);

    // Four are left; each is the same for both families.
    let chosen = |protocol: &str| {
        let ports = inspect(&world, &first.name)["Ports"].take();
        let numbers = |private: u16| {
            let bindings = ports[format!("{private}/{protocol}")].as_array().cloned().expect("bindings");
            let numbers: BTreeSet<String> = bindings.iter().map(|one| one["HostPort"].to_string()).collect();
            assert_eq!((bindings.len(), numbers.len()), (2, 1), "{ports}");
            numbers
        };
        [81, 82].into_iter().flat_map(numbers).collect::<BTreeSet<_>>()
    };
    for protocol in ["tcp", "udp"] {
        world.vswitch(&["publish", &first.name, &format!("81-82/{protocol}")]);
        let numbers = chosen(protocol);
        assert_eq!(numbers.len(), 2);
        assert!(
            numbers.iter().all(|number| ("\"40006\"".."\"40010\"").contains(&number.as_str())),
            "{numbers:?}"
        );
    }
    let third = world.sandbox("third", &["-P", "--expose", "80", "--expose", "81", "-p", "9000:81"]);
    assert_eq!(world.vswitch(&["port", &third.name, "81/tcp"]), "0.0.0.0:9000\n[::]:9000\n");
    assert_eq!(port(&world, &third.name).len(), 4);
}

#[test]
fn a_large_range_is_one_record() {
    let world = world();
    let range = "20000-29999:20000-29999";
    let web = world.sandbox("web", &["-p", range, "-p", &format!("{range}/udp")]);
    let table = world.vswitch(&["ps"]);
    assert!(table.contains("0.0.0.0:20000-29999->20000-29999/tcp"), "{table}");
    for protocol in ["tcp", "udp"] {
        assert!(!is_free(&world, protocol, "::1", 20_000) && !is_free(&world, protocol, "127.0.0.1", 29_999));
    }
    let journal = fs::read_to_string(world.state_dir().join("journal")).expect("the journal");
    assert!(journal.len() < 100_000, "{} bytes", journal.len());
    for protocol in ["tcp", "udp"] {
        world.vswitch(&["unpublish", &web.name, &format!("{range}/{protocol}")]);
        assert!(is_free(&world, protocol, "::1", 29_999), "{protocol}");
    }
}

#[test]
fn they_are_there_again_after_any_end() {
    let mut world = world();
    world.network("lan", &["--subnet", "10.1.0.0/24", "--subnet", "fd01::/64"]);
    let web =
        world.sandbox("web", &["--network", "lan", "-p", "8080:80", "-p", "80/udp", "-p", "7000:7000/sctp"]);
    let before = (port(&world, &web.name), inspect(&world, &web.name));
    let held = |world: &World| {
        assert_eq!((port(world, &web.name), inspect(world, &web.name)), before);
        assert!(!is_free(world, "tcp", "0.0.0.0", 8080));
    };
    world.stop(Signal::SIGKILL);
    assert!(!is_free(&world, "tcp", "0.0.0.0", 8080), "the datapath has it");
    world.start_again();
    held(&world);
    send_signal(world.datapath_pid(), Signal::SIGKILL);
    held(&world);
    assert!(world.stop(Signal::SIGTERM).success());
    let taken = world.host().inside(|| TcpListener::bind("0.0.0.0:8080")).expect("bind");
    world.start_again();
    assert_eq!(port(&world, &web.name), before.0);
    let log = world.logged();
    assert!(log.contains("leads nowhere: Bind for 0.0.0.0:8080 failed: port is already allocated"), "{log}");
    drop(taken);
    world.vswitch(&["unpublish", &web.name, "80/tcp"]);
    world.vswitch(&["publish", &web.name, "8080:80"]);
    assert!(!is_free(&world, "tcp", "0.0.0.0", 8080));
}

#[test]
fn a_network_says_where_its_ports_are() {
    let world = world();
    world.network("lan", &["-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.7"]);
    let web = world.sandbox("web", &["--network", "lan", "-p", "8080:80", "-p", "0.0.0.0:8081:80"]);
    assert_eq!(port(&world, &web.name), ["80/tcp -> 127.0.0.7:8080", "80/tcp -> 0.0.0.0:8081"]);
    assert!(is_free(&world, "tcp", "127.0.0.1", 8080));
    // They lead to who provides the default route, whoever that is.
    world.network("other", &["--subnet", "10.2.0.0/24"]);
    world.vswitch(&["network", "connect", "other", &web.name, "--gw-priority", "1"]);
    let leading = |network: &str| {
        let endpoints = world.json(&["ps"]);
        let endpoints = endpoints.as_array().cloned().unwrap_or_default();
        let endpoint = endpoints.into_iter().find(|endpoint| endpoint["Network"] == network);
        endpoint.expect("an endpoint")["Ports"]["80/tcp"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((leading("lan"), leading("other")), (0, 2));
    world.vswitch(&["network", "disconnect", "other", &web.name]);
    assert_eq!(leading("lan"), 2);
}

#[test]
fn who_has_no_network_of_its_own_publishes_nothing() {
    let world = world();
    let [host, guest, helper] = ["host", "guest", "helper"].map(|name| world.global_name(name));
    let mut command = world.command(&["sandbox", "create", &host, "--network", "host", "-p", "8080:80"]);
    let output = command.output().expect("it starts");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{message}");
    assert_eq!(message, "WARNING: Published ports are discarded when using host network mode\n");
    assert!(is_free(&world, "tcp", "0.0.0.0", 8080));
    let shared = format!("container:{guest}");
    world.sandbox("guest", &["--network", "none", "-p", "8080:80"]);
    assert!(!is_free(&world, "tcp", "0.0.0.0", 8080));
    let refusal = world.refused(&["sandbox", "create", &helper, "--network", &shared, "-p", "81:81"]);
    assert!(refusal.message.contains("conflicting options: port publishing"), "{}", refusal.message);
    world.vswitch(&["sandbox", "create", &helper, "--network", &shared]);
    for name in [&host, &helper] {
        let refusal = world.refused(&["publish", name, "82:82"]);
        assert_eq!(refusal.message.lines().count(), 1, "{}", refusal.message);
    }
    world.vswitch(&["sandbox", "rm", &helper]);
}

/// Lets the world open a connection to a published port and ask it something; `None` if it is refused.
fn visit(outside: &Outside, server: &TcpListener, target: SocketAddr) -> Option<IpAddr> {
    let connected = outside.namespace().inside(|| TcpStream::connect_timeout(&target, DEADLINE));
    let mut client = match connected {
        Ok(client) => client,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{target}");
            return None;
        }
    };
    let (mut connection, peer) = server.accept().expect("accept");
    let mut said = [0; 5];
    client.write_all(b"hello").expect("send");
    connection.read_exact(&mut said).expect("receive");
    connection.write_all(&said).expect("send");
    client.read_exact(&mut said).expect("receive");
    assert_eq!(&said, b"hello");
    Some(peer.ip().to_canonical())
}

#[test]
fn the_world_comes_in_by_published_ports_with_its_own_address() {
    let (mut world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("lan", &["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    let web = world.sandbox("web", &["--network", "lan", "-p", "8080:80", "-p", "5353:53/udp"]);
    let server = web.inside(|| TcpListener::bind("[::]:80")).expect("bind");
    let datagrams = web.inside(|| UdpSocket::bind("[::]:53")).expect("bind");
    datagrams.set_read_timeout(Some(DEADLINE)).expect("time-out");
    let pairs = || HOST.into_iter().zip(ROUTERS).map(|pair| <[_; 2]>::from(pair).map(address));
    let all_come_in = |port: u16| {
        for [host, client] in pairs() {
            assert_eq!(visit(&outside, &server, (host, port).into()), Some(client), "{host}");
        }
    };
    all_come_in(8080);
    for [host, client] in pairs() {
        let socket = outside.namespace().inside(|| UdpSocket::bind((client, 0))).expect("bind");
        socket.set_read_timeout(Some(DEADLINE)).expect("time-out");
        socket.send_to(b"question", (host, 5353)).expect("send");
        let mut buffer = [0; 16];
        let (length, peer) = datagrams.recv_from(&mut buffer).expect("the question");
        assert_eq!((&buffer[..length], peer.ip().to_canonical()), (&b"question"[..], client));
        datagrams.send_to(b"answer", peer).expect("send");
        let (length, peer) = socket.recv_from(&mut buffer).expect("the answer");
        assert_eq!((&buffer[..length], peer), (&b"answer"[..], (host, 5353).into()));
    }
    world.vswitch(&["publish", &web.name, "9000:80"]);
    all_come_in(9000);
    world.stop(Signal::SIGKILL);
    world.start_again();
    all_come_in(8080);
    send_signal(world.datapath_pid(), Signal::SIGKILL);
    wait::until_equal("another datapath", &1, || world.restarts());
    all_come_in(9000);
    world.vswitch(&["unpublish", &web.name, "8080:80"]);
    for [host, _] in pairs() {
        assert_eq!(visit(&outside, &server, (host, 8080).into()), None);
        assert_eq!(visit(&outside, &server, (host, 80).into()), None, "only what is published leads in");
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
