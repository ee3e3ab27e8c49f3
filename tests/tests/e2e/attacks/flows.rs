//! Flows on the way out: who inherits them, who can fill what others need, and fragments.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;
use std::time::Duration;

use vswitch_tests::namespace::{inside, must};
use vswitch_tests::outside::{FAR, HOST, Outside, UPLINK};
use vswitch_tests::packets::rfc1071;
use vswitch_tests::raw::{self, Wire, ethernet, ipv4};
use vswitch_tests::world::{Container, World};
use vswitch_tests::{talk, wait};

use crate::VSWITCH;

/// Time after which an answer is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// The container's ports that are published, and the host's that lead to them.
const PUBLISHED: [&str; 6] = ["--network", "net1", "-p", "8080:80", "-p", "5353:5300/udp"];
const HOST_UDP: u16 = 5353;
const CONTAINER_UDP: u16 = 5300;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn far(port: u16) -> SocketAddr {
    (address(FAR[0]), port).into()
}

fn host(port: u16) -> SocketAddr {
    (address(HOST[0]), port).into()
}

fn any(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn connected() -> (World, Outside) {
    World::start_prepared(VSWITCH, Outside::behind)
}

fn socket(namespace: &Path, at: SocketAddr) -> UdpSocket {
    let socket = talk::bind_at(namespace, at);
    socket.set_read_timeout(Some(PATIENCE)).expect("time-out");
    socket
}

/// Hears one datagram; says from whom.
fn hear(socket: &UdpSocket) -> SocketAddr {
    socket.recv_from(&mut [0; 2048]).expect("a datagram").1
}

fn flow_count(world: &World) -> String {
    world.vswitch(&["flows", "--count"]).trim().to_owned()
}

/// The flows of a container that is gone, as the world still knows them.
struct Old {
    /// Somebody that the container asked, and the outside end that it asked from.
    server: (UdpSocket, SocketAddr),
    /// A client of its published port.
    client: UdpSocket,
    /// Both ends of a connection, that of the world first.
    connection: [TcpStream; 2],
}

/// Lets a container have flows both ways, and go on with each.
fn begin(outside: &Outside, container: &Container) -> Old {
    let server = socket(&outside.path(), far(7000));
    let own = socket(&container.path, any(4000));
    own.send_to(b"asks", far(7000)).expect("send");
    let mapped = hear(&server);
    server.send_to(b"answer", mapped).expect("send");
    hear(&own);
    let service = socket(&container.path, any(CONTAINER_UDP));
    let client = socket(&outside.path(), far(7001));
    for _ in 0..2 {
        client.send_to(b"asks", host(HOST_UDP)).expect("send");
        let from = hear(&service);
        service.send_to(b"answer", from).expect("send");
        hear(&client);
    }
    let listener = inside(&outside.path(), || TcpListener::bind(far(0))).expect("bind");
    let mut connection = talk::connect(&container.path, listener.local_addr().expect("bound"));
    let (mut incoming, _) = listener.accept().expect("accept");
    connection.write_all(b"hello").expect("send");
    incoming.read_exact(&mut [0; 5]).expect("receive");
    incoming.set_read_timeout(Some(PATIENCE)).expect("time-out");
    Old { server: (server, mapped), client, connection: [incoming, connection] }
}

/// Datagrams for the old owner of an address reach nobody else.
fn nothing_is_inherited(outside: &Outside, old: &Old, next: &Container) {
    let ports = [4000, CONTAINER_UDP].map(|port| socket(&next.path, any(port)));
    let (server, mapped) = &old.server;
    server.send_to(b"late", mapped).expect("send");
    old.client.send_to(b"late", host(HOST_UDP)).expect("send");
    // Anything that was sent before this answer has come before it, if at all.
    let fresh = socket(&outside.path(), far(7002));
    let own = socket(&next.path, any(4001));
    own.send_to(b"asks", far(7002)).expect("send");
    let from = hear(&fresh);
    fresh.send_to(b"answer", from).expect("send");
    hear(&own);
    for port in ports {
        port.set_nonblocking(true).expect("set");
        let heard = port.recv_from(&mut [0; 64]).expect_err("nobody has asked it anything");
        assert_eq!(heard.kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn who_gets_an_address_inherits_no_flow() {
    const NET: [&str; 2] = ["--subnet", "10.77.0.0/24"];
    for is_made_again in [false, true] {
        let (world, outside) = connected();
        world.network("net1", &NET);
        let first = world.sandbox("first", &PUBLISHED);
        let (own, mut old) = (first.ipv4(), begin(&outside, &first));
        assert_eq!(flow_count(&world), "3");
        world.vswitch(&["sandbox", "rm", &first.name]);
        assert_eq!(flow_count(&world), "0");
        let reset = old.connection[0].read(&mut [0; 8]).expect_err("it is over");
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        if is_made_again {
            world.vswitch(&["network", "rm", "net1"]);
            world.network("net1", &NET);
        }
        let next = world.sandbox("next", &["--network", "net1", "--ip", &own.to_string()]);
        assert_eq!(next.ipv4(), own);
        nothing_is_inherited(&outside, &old, &next);
    }
}

#[test]
fn who_is_still_there_keeps_its_flows_when_another_goes() {
    let (world, outside) = connected();
    world.network("net1", &["--subnet", "10.77.0.0/24"]);
    let stays = world.sandbox("stays", &PUBLISHED);
    let goes = world.sandbox("goes", &["--network", "net1"]);
    let server = socket(&outside.path(), far(7000));
    let own = socket(&stays.path, any(4000));
    own.send_to(b"asks", far(7000)).expect("send");
    let mapped = hear(&server);
    let passing = socket(&goes.path, any(4000));
    passing.send_to(b"asks", far(7000)).expect("send");
    hear(&server);
    // One more network for a sandbox, and one less, changes who is behind its port.
    world.network("net2", &[]);
    world.vswitch(&["network", "connect", "net2", &stays.name]);
    world.vswitch(&["sandbox", "rm", &goes.name]);
    world.vswitch(&["network", "disconnect", "net2", &stays.name]);
    server.send_to(b"answer", mapped).expect("send");
    hear(&own);
    assert_eq!(flow_count(&world), "1");
}

/// A datagram from anywhere to anywhere, without a UDP checksum.
fn datagram(wire: &Wire, gateway: [u8; 6], from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    let udp = raw::datagram((from.1, to.1), b"forged");
    ethernet(gateway, wire.mac, 0x0800, &ipv4(from.0, to.0, 17, (1, 0), &udp))
}

fn octets(address: IpAddr) -> [u8; 4] {
    let IpAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    address.octets()
}

/// The MAC address of an interface of the host.
fn mac_of(world: &World, interface: &str) -> [u8; 6] {
    Wire::open(&world.host().path(), interface).mac
}

/// Answers datagrams until an empty one comes; says how many it has answered.
fn answering(namespace: &Path, at: SocketAddr) -> thread::JoinHandle<u32> {
    let socket = talk::bind_at(namespace, at);
    thread::spawn(move || {
        let (mut buffer, mut answered) = ([0; 2048], 0);
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if length == 0 {
                break;
            }
            answered += u32::from(socket.send_to(&buffer[..length], from).is_ok());
        }
        answered
    })
}

/// Asks, and again if there is no answer.
fn is_answered(asking: &UdpSocket, whom: SocketAddr) -> bool {
    asking.connect(whom).expect("connect");
    (0..3).any(|_| asking.send(b"question").is_ok() && asking.recv(&mut [0; 64]).is_ok())
}

#[test]
fn forged_sources_do_not_take_down_a_published_service() {
    /// As many as flows of one sandbox may be, and some more.
    const SOURCES: u32 = 70_000;
    const AT_ONCE: u32 = 128;
    let (world, outside) = connected();
    world.network("net1", &["--subnet", "10.77.0.0/24"]);
    let web = world.sandbox("web", &PUBLISHED);
    let serving = answering(&web.path, any(CONTAINER_UDP));
    let beyond = answering(&outside.path(), far(7000));
    let client = socket(&outside.path(), far(0));
    let mut wire = Wire::open(&outside.path(), "down0");
    let gateway = mac_of(&world, UPLINK);
    for number in 0..SOURCES {
        let [_, high, middle, low] = number.to_be_bytes();
        let from = ([198, 18 + high, middle, low], 1234);
        wire.send(&datagram(&wire, gateway, from, (octets(address(HOST[0])), HOST_UDP)));
        if number.is_multiple_of(AT_ONCE) {
            // A client that goes on all the while; and what came before it is answered by now.
            assert!(is_answered(&client, host(HOST_UDP)), "after {number}");
        }
    }
    let another = socket(&outside.path(), far(0));
    assert!(is_answered(&another, host(HOST_UDP)), "a new client");
    let own = socket(&web.path, any(0));
    assert!(is_answered(&own, far(7000)), "what the container does itself");
    another.send(&[]).expect("send");
    own.send(&[]).expect("send");
    assert!(serving.join().expect("no panic") > SOURCES / 2, "forged questions were answered, too");
    beyond.join().expect("no panic");
}

/// How many of so many sockets of a container, all of which it keeps, are answered by somebody.
fn ask_from_each(container: &Container, sockets: usize, whom: SocketAddr) -> usize {
    let all: Vec<UdpSocket> = (0..sockets).map(|_| socket(&container.path, any(0))).collect();
    all.iter().filter(|socket| is_answered(socket, whom)).count()
}

/// The MAC address of the gateway, as a container's kernel has learned it.
fn gateway_of(container: &Container) -> [u8; 6] {
    wait::until("the gateway's address", || {
        container.cannot_ping(address("192.0.2.99"));
        let neighbours = container.ip(&["-4", "neigh"]);
        let mac = neighbours.split_whitespace().skip_while(|word| *word != "lladdr").nth(1)?;
        Some(mac.parse::<vswitch_frame::Mac>().expect("a MAC address").0)
    })
}

#[test]
fn new_connections_of_others_go_on_while_one_floods_with_new_flows() {
    const CONNECTIONS: usize = 100;
    let (world, outside) = connected();
    let flooder = world.attach("flooder", &[]);
    world.network("net2", &[]);
    let other = world.attach("other", &["--network", "net2"]);
    let (mut wire, gateway) = (Wire::open(&flooder.path, &flooder.ifname()), gateway_of(&flooder));
    let own = octets(flooder.ipv4());
    let listener = inside(&outside.path(), || TcpListener::bind(far(80))).expect("bind");
    let is_over = AtomicBool::new(false);
    let sent = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                let number = sent.fetch_add(1, Relaxed);
                let [high, middle, low, last] = number.wrapping_mul(0x9e37_79b1).to_be_bytes();
                let port = u16::from_be_bytes([low, last]).max(1);
                // Many ends at one address, and one at many.
                let to =
                    if number.is_multiple_of(2) { octets(address(FAR[0])) } else { [198, 18, high, middle] };
                let mut frame = datagram(&wire, gateway, (own, port), (to, 80));
                if number.is_multiple_of(5) {
                    frame[14 + usize::from(high % 28)] ^= middle;
                }
                wire.offer(&frame);
            }
        });
        let connected = (0..CONNECTIONS).filter(|_| {
            let connection = other.inside(|| TcpStream::connect_timeout(&far(80), 4 * PATIENCE));
            connection.inspect_err(|error| eprintln!("a connection fails: {error}")).is_ok() && {
                drop(listener.accept().expect("accept"));
                true
            }
        });
        let connected = connected.count();
        is_over.store(true, Relaxed);
        assert_eq!(connected, CONNECTIONS);
    });
    assert!(sent.load(Relaxed) > 10_000, "it was a flood");
}

#[test]
fn who_takes_every_port_to_a_destination_makes_way_for_others() {
    const FLOWS: usize = 800;
    let (world, outside) = connected();
    let [greedy, two, three] = ["greedy", "two", "three"].map(|name| world.attach(name, &[]));
    let beyond = answering(&outside.path(), far(7000));
    let mut wire = Wire::open(&greedy.path, &greedy.ifname());
    let gateway = gateway_of(&greedy);
    let own = octets(greedy.ipv4());
    // Claims come as they are needed, so it takes a few rounds to have all that there will be.
    let mut before = None;
    wait::until("every port is taken", || {
        for port in 1024..20_000u16 {
            let frame = datagram(&wire, gateway, (own, port), (octets(address(FAR[0])), 7000));
            wait::until("room in the queue", || wire.offer(&frame).then_some(()));
        }
        let count = world.json(&["flows", "--count"]);
        let now = count["Count"].as_u64().filter(|_| count["Refused"].as_u64() > Some(0));
        let is_all = now.is_some() && now == before;
        before = now;
        is_all.then_some(())
    });
    for container in [&two, &three] {
        assert_eq!(ask_from_each(container, FLOWS, far(7000)), FLOWS, "{}", container.name);
    }
    outside.namespace().inside(|| UdpSocket::bind("0.0.0.0:0")?.send_to(&[], far(7000))).expect("send");
    beyond.join().expect("no panic");
}

/// Has a namespace send what may be fragmented.
fn without_path_mtu_discovery(namespace: &Path) {
    inside(namespace, || must(Command::new("sysctl").args(["-q", "-w", "net.ipv4.ip_no_pmtu_disc=1"])));
}

#[test]
fn what_may_be_fragmented_and_does_not_fit_arrives_both_ways() {
    const SIZES: [usize; 4] = [1000, 1452, 1472, 8000];
    for (uplink, network) in [("1400", "1500"), ("1500", "1300")] {
        let (world, outside) = World::start_prepared(VSWITCH, |host| {
            let outside = Outside::behind(host);
            host.ip(&["link", "set", UPLINK, "mtu", uplink]);
            outside.namespace().ip(&["link", "set", "down0", "mtu", uplink]);
            outside
        });
        let mtu = format!("com.docker.network.driver.mtu={network}");
        world.network("net1", &["--subnet", "10.77.0.0/24", "--opt", &mtu]);
        let web = world.sandbox("web", &PUBLISHED);
        for namespace in [outside.path(), web.path.clone()] {
            without_path_mtu_discovery(&namespace);
        }
        let own = socket(&web.path, any(CONTAINER_UDP));
        let [server, client] = [7000, 7001].map(|port| socket(&outside.path(), far(port)));
        let mut buffer = vec![0; 65_536];
        for size in SIZES {
            let said = vec![u8::try_from(size % 251).expect("a byte"); size];
            own.send_to(&said, far(7000)).expect("send");
            let (length, mapped) = server.recv_from(&mut buffer).unwrap_or_else(|error| {
                panic!("{size} bytes out, uplink {uplink}, network {network}: {error}")
            });
            assert_eq!(buffer[..length], said[..]);
            for (from, target) in [(&server, mapped), (&client, host(HOST_UDP))] {
                from.send_to(&said, target).expect("send");
                let length = own.recv(&mut buffer).unwrap_or_else(|error| {
                    panic!("{size} bytes in to {target}, uplink {uplink}, network {network}: {error}")
                });
                assert_eq!(buffer[..length], said[..]);
            }
        }
    }
}

#[test]
fn a_corrupt_error_is_made_right_by_nobody() {
    const UNREACHABLE: u8 = 3;
    const CORRUPT: u8 = 13;
    const SOUND: u8 = 1;
    let (world, outside) = connected();
    let one = world.attach("one", &[]);
    let server = socket(&outside.path(), far(7000));
    socket(&one.path, any(4000)).send_to(b"asks", far(7000)).expect("send");
    let mapped = hear(&server);
    let mut at_container = Wire::open(&one.path, &one.ifname());
    let uplink = Wire::open(&world.host().path(), UPLINK).mac;
    let mut wire = Wire::open(&outside.path(), "down0");
    let [ours, theirs] = [HOST[0], FAR[0]].map(|text| octets(address(text)));
    let quoted = ipv4(ours, theirs, 17, (1, 0), &raw::datagram((mapped.port(), 7000), b"asks"));
    for code in [CORRUPT, SOUND] {
        let mut error = [&[UNREACHABLE, code, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        let sum = rfc1071(&error) ^ u16::from(code == CORRUPT);
        error[2..4].copy_from_slice(&sum.to_be_bytes());
        wire.send(&ethernet(uplink, wire.mac, 0x0800, &ipv4(theirs, ours, 1, (1, 0), &error)));
    }
    loop {
        let is_error = |frame: &[u8]| frame.len() >= 42 && frame[23] == 1 && frame[34] == UNREACHABLE;
        let frame = wait::until("the sound error", || at_container.receive(is_error));
        let error = &frame[34..14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]))];
        assert_eq!(rfc1071(error) == 0, error[1] == SOUND, "{error:02x?}");
        if error[1] == SOUND {
            break;
        }
    }
}
