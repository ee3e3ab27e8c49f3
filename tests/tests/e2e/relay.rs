//! Published ports as those reach them from whom no frame of the switch's comes: clients on the host itself, clients of
//! the other family, and clients behind other interfaces than the uplink.

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

/// A client's connection to a published port of TCP, and the server's end of it, over which it has been heard.
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
    let mut buffer = [0; 16];
    for question in [&b"question"[..], b""] {
        client.send_to(question, SocketAddr::new(host, 5353)).expect("send");
        let (length, seen) = socket.recv_from(&mut buffer).expect("the question");
        assert_eq!(&buffer[..length], question);
        socket.send_to(b"answer", seen).expect("send");
        let (length, peer) = client.recv_from(&mut buffer).expect("the answer");
        assert_eq!((&buffer[..length], peer), (&b"answer"[..], SocketAddr::new(host, 5353)));
    }
    socket.peek_from(&mut buffer).expect_err("nothing else");
    address("::")
}

#[test]
fn programs_of_the_host_reach_published_ports() {
    let (world, _outside) = World::start_prepared(VSWITCH, Outside::behind);
    let web = server(&world, &BOTH);
    let (host, listener) = (world.host().path(), listen(&web));
    for (target, gateway) in [
        ("127.0.0.1", 0),
        ("127.9.9.9", 0),
        (HOST[0], 0),
        (GATEWAYS[0], 0),
        ("::1", 1),
        (HOST[1], 1),
        (GATEWAYS[1], 1),
    ] {
        let (_, _, seen) = accepted(&host, address(target), &listener);
        println!("{target} {seen} {gateway}");
    }
}
