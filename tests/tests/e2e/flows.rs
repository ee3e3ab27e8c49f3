//! Flows: how they are shown, and that they outlive either process.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use vswitch_tests::namespace::inside;
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS};
use vswitch_tests::world::{Container, World, send_signal};
use vswitch_tests::{talk, wait};

use super::VSWITCH;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A switch with a world beyond it, and a sandbox that publishes a port.
fn connected() -> (World, Outside, Container) {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    world.network("net1", &["--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    let web = world.sandbox("web", &["--network", "net1", "-p", "8080:80"]);
    (world, outside, web)
}

/// A connection from a namespace to another, over which something was said.
fn converse(from: &Path, listener: &TcpListener, target: SocketAddr) -> [TcpStream; 2] {
    let mut connection = talk::connect(from, target);
    let (mut incoming, _) = listener.accept().expect("accept");
    connection.write_all(b"hello").expect("send");
    incoming.read_exact(&mut [0; 5]).expect("receive");
    [connection, incoming]
}

fn flows(world: &World, filters: &[&str]) -> Vec<Value> {
    world.json(&[&["flows"], filters].concat()).as_array().cloned().expect("a list")
}

#[test]
fn flows_are_shown_counted_and_ended() {
    let (world, outside, web) = connected();
    let (far, host) = (address(FAR[0]), address(HOST[0]));
    let listener = talk::listen(&outside.path(), far);
    let away = listener.local_addr().expect("bound");
    let out = converse(&web.path, &listener, away);
    let server = inside(&web.path, || TcpListener::bind(("0.0.0.0", 80))).expect("bind");
    let inbound = converse(&outside.path(), &server, (host, 8080).into());
    let socket = inside(&web.path, || UdpSocket::bind(("0.0.0.0", 0))).expect("bind");
    socket.send_to(b"nobody answers", (far, 9)).expect("send");
    wait::until_equal("every flow is there", &3, || flows(&world, &[]).len());

    let port = away.port().to_string();
    let web_name = web.name.as_str();
    let table: [(&[&str], usize); 10] = [
        (&["--proto", "tcp"], 2),
        (&["-p", "udp", "--state", "UNREPLIED"], 1),
        (&["--src", "10.77.0.0/24"], 2),
        (&["-s", ROUTERS[0]], 1),
        (&["-d", FAR[0], "--dport", &port], 1),
        (&["--sport", &port], 0),
        (&["--state", "established"], 2),
        (&["--sandbox", web_name], 3),
        (&["--network", "net1"], 3),
        (&["--network", "bridge"], 0),
    ];
    for (filters, expected) in table {
        assert_eq!(flows(&world, filters).len(), expected, "{filters:?}");
    }
    let published = world.vswitch(&["flows", "--dport", "8080"]);
    for part in [
        "tcp      6 ",
        " ESTABLISHED src=203.0.113.1 dst=203.0.113.2 sport=",
        " src=10.77.0.2 dst=203.0.113.1 sport=80 dport=",
        " [ASSURED] sandbox=",
        " network=net1\n",
    ] {
        assert!(published.contains(part), "{part} is not in {published}");
    }
    assert_eq!(world.vswitch(&["flows", "--count"]), "3\n");
    let refusal = world.refused(&["flows", "--sandbox", "nobody"]);
    assert!(refusal.message.contains("nobody"), "{}", refusal.message);

    let ended = world.json(&["flows", "delete", "--proto", "udp"]);
    assert_eq!(ended[0]["Original"]["DestinationPort"], 9, "{ended}");
    assert_eq!(flows(&world, &[]).len(), 2);
    drop((out, inbound));
    wait::until("closed connections are no more established", || {
        flows(&world, &["--state", "ESTABLISHED"]).is_empty().then_some(())
    });
}

/// Moves bytes both ways through a connection, while something is done; says when both have got all.
fn transfer_over(ends: &[TcpStream; 2], meanwhile: impl FnOnce(&dyn Fn() -> bool)) {
    const BYTES: usize = 512 << 20;
    let run = |mut reader: &TcpStream, mut writer: &TcpStream, reads: u64, writes: u64| {
        thread::scope(|scope| {
            let writing = scope.spawn(move || talk::send(&mut writer, writes, BYTES));
            talk::check(&mut reader, reads, BYTES).expect("receive");
            writing.join().expect("no panic").expect("send");
        });
    };
    let [one, other] = ends;
    for end in ends {
        end.set_read_timeout(Some(Duration::from_secs(20))).expect("time-out");
    }
    thread::scope(|scope| {
        let first = scope.spawn(|| run(one, one, 1, 2));
        let second = scope.spawn(|| run(other, other, 2, 1));
        meanwhile(&|| first.is_finished() || second.is_finished());
        first.join().expect("the transfer survives");
        second.join().expect("the transfer survives");
    });
}

fn received(world: &World, container: &Container) -> u64 {
    world.counters(container)["ReceivedBytes"].as_u64().expect("a counter")
}

/// Waits until a container has sent so many bytes more.
fn more_is_moved(world: &World, container: &Container, bytes: u64) {
    let start = received(world, container);
    wait::until("traffic", || (received(world, container) > start + bytes).then_some(()));
}

#[test]
fn connections_outlive_a_killed_datapath() {
    let (world, outside, web) = connected();
    let server = inside(&web.path, || TcpListener::bind(("::", 80))).expect("bind");
    for (far, host) in FAR.into_iter().zip(HOST) {
        let listener = talk::listen(&outside.path(), address(far));
        let away = listener.local_addr().expect("bound");
        let out = converse(&web.path, &listener, away);
        let inbound = converse(&outside.path(), &server, (address(host), 8080).into());
        for ends in [out, inbound] {
            transfer_over(&ends, |is_over| {
                let before = world.restarts();
                for number in 1..=3 {
                    more_is_moved(&world, &web, 4 << 20);
                    send_signal(world.datapath_pid(), Signal::SIGKILL);
                    wait::until_equal("another datapath", &(before + number), || world.restarts());
                }
                assert!(!is_over(), "the transfer was over before the datapath was back");
            });
        }
    }
}

/// Whether nobody answers who connects to a port of the host, from the world.
fn is_left_alone(outside: &Outside, port: u16) -> bool {
    let target = (address(HOST[0]), port).into();
    let tried = inside(&outside.path(), || TcpStream::connect_timeout(&target, Duration::from_secs(1)));
    tried.is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

#[test]
fn connections_outlive_a_killed_control() {
    let (mut world, outside, web) = connected();
    let listener = talk::listen(&outside.path(), address(FAR[0]));
    let out = converse(&web.path, &listener, listener.local_addr().expect("bound"));
    let server = inside(&web.path, || TcpListener::bind(("::", 80))).expect("bind");
    let inbound = converse(&outside.path(), &server, (address(HOST[0]), 8080).into());
    let mapped = out[0].local_addr().expect("bound").port();
    let mapped = flows(&world, &["--sport", &mapped.to_string()])[0]["Reply"]["DestinationPort"].clone();
    let mapped = u16::try_from(mapped.as_u64().expect("a port")).expect("a port");
    let datapath = world.datapath_pid();
    for ends in [&out, &inbound] {
        transfer_over(ends, |is_over| {
            more_is_moved(&world, &web, 4 << 20);
            world.stop(Signal::SIGKILL);
            world.start_again();
            assert!(!is_over(), "the transfer was over before control was back");
        });
    }
    assert!(is_left_alone(&outside, mapped), "the host's stack answers at a claimed port");
    world.stop(Signal::SIGKILL);
    assert!(is_left_alone(&outside, mapped), "the host's stack answers without control");
    world.start_again();
    (&out[0]).write_all(b"still").expect("send");
    (&out[1]).read_exact(&mut [0; 5]).expect("receive");
    assert_eq!((world.datapath_pid(), world.restarts()), (datapath, 0), "the datapath was replaced");

    // The next control has what the next datapath needs.
    let again = converse(&web.path, &listener, listener.local_addr().expect("bound"));
    let before = flows(&world, &["--state", "ESTABLISHED"]).len();
    send_signal(datapath, Signal::SIGKILL);
    wait::until_equal("another datapath", &1, || world.restarts());
    assert_eq!(flows(&world, &["--state", "ESTABLISHED"]).len(), before);
    talk::transfer(&web.path, &outside.path(), address(FAR[0]), 1 << 20);
    drop(again);
}

#[test]
fn connections_are_made_again_when_both_were_killed() {
    let (mut world, outside, web) = connected();
    for _ in 0..2 {
        talk::transfer(&web.path, &outside.path(), address(FAR[0]), 1 << 20);
        let datapath = world.datapath_pid();
        world.stop(Signal::SIGKILL);
        send_signal(datapath, Signal::SIGKILL);
        world.start_again();
        assert_eq!(world.vswitch(&["flows", "--count"]), "0\n");
    }
    talk::transfer(&web.path, &outside.path(), address(FAR[1]), 1 << 20);
}
