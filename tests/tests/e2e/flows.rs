//! Flows: how they are shown, and that they outlive either process.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};

use serde_json::Value;
use vswitch_tests::namespace::inside;
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS};
use vswitch_tests::world::{Container, World};
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
fn converse(from: &std::path::Path, listener: &TcpListener, target: std::net::SocketAddr) -> [TcpStream; 2] {
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
