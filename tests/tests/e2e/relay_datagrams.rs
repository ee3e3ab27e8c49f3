//! Large datagrams through relays, which go in fragments on the container's link, in both directions.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use vswitch_tests::namespace::inside;
use vswitch_tests::talk::Stream;
use vswitch_tests::wait::DEADLINE;
use vswitch_tests::world::Container;

use super::world;

/// The first that does not fit into a frame, an answer of a name server, and the largest of all.
const SIZES: [usize; 3] = [1473, 3069, 65_507];

/// Sends datagrams of each size to a published port, and has the server send back others of that size.
fn ask(from: &Path, host: &str, server: &Container) {
    let host: IpAddr = host.parse().expect("an address");
    let socket = server.inside(|| UdpSocket::bind("[::]:53")).expect("bind");
    let any: IpAddr = if host.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let client = inside(from, || UdpSocket::bind((any, 0))).expect("bind");
    for socket in [&socket, &client] {
        socket.set_read_timeout(Some(DEADLINE)).expect("time-out");
    }
    let published = SocketAddr::new(host, 5353);
    let (mut contents, mut room) = (Stream::new(5), vec![0; 65_536]);
    for size in SIZES {
        let [mut question, mut answer] = [vec![0; size], vec![0; size]];
        contents.fill(&mut question);
        contents.fill(&mut answer);
        client.send_to(&question, published).expect("send");
        let (length, seen) = socket.recv_from(&mut room).expect("the question");
        assert!(room[..length] == question, "{host}: {length} bytes of {size} are asked");
        socket.send_to(&answer, seen).expect("send");
        let (length, peer) = client.recv_from(&mut room).expect("the answer");
        assert!(room[..length] == answer, "{host}: {length} bytes of {size} are answered");
        assert_eq!(peer, published);
    }
}

#[test]
fn large_datagrams_arrive_whole() {
    let world = world();
    world.network("both", &["--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    let web = world.sandbox("web", &["--network", "both", "-p", "5353:53/udp"]);
    let host = world.host().path();
    ["127.0.0.1", "10.77.0.1", "::1"].into_iter().for_each(|target| ask(&host, target, &web));
}

#[test]
fn large_datagrams_of_clients_of_the_other_family_arrive_whole() {
    let world = world();
    world.network("four", &["--subnet", "10.77.0.0/24"]);
    let web = world.sandbox("web", &["--network", "four", "-p", "5353:53/udp"]);
    ask(&world.host().path(), "::1", &web);
}
