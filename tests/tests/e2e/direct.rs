//! Containers that are named by their own addresses from outside, and what senders outside are told.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vswitch_tests::namespace::{Namespace, inside, must};
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS, UPLINK};
use vswitch_tests::raw::Wire;
use vswitch_tests::world::{Container, World};
use vswitch_tests::{talk, wait};

use super::VSWITCH;

const SILENCE: Duration = Duration::from_secs(20);
const SUBNETS: [&str; 2] = ["10.77.0.0/24", "fd77::/64"];
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A switch with a world beyond it that knows the way to the containers' subnets.
fn connected() -> (World, Outside) {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    for (subnet, host) in SUBNETS.into_iter().zip(HOST) {
        outside.namespace().ip(&["route", "add", subnet, "via", host]);
    }
    (world, outside)
}

/// A sandbox on a network of both families with these options; it publishes ports 80 of TCP and UDP.
fn server(world: &World, options: &[&str]) -> Container {
    let subnets = ["--ipv6", "--subnet", SUBNETS[0], "--subnet", SUBNETS[1]];
    world.network("net1", &[&subnets[..], options].concat());
    world.sandbox("web", &["--network", "net1", "-p", "8080:80", "-p", "8080:80/udp"])
}

fn mode(mode: &str) -> [String; 2] {
    [4, 6].map(|family| format!("com.docker.network.bridge.gateway_mode_ipv{family}={mode}"))
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { [0; 4].into() } else { [0; 16].into() }
}

/// Asks a container by its own address, over TCP and UDP; says whom it saw.
fn ask(from: &Path, server: &Container, own: IpAddr, port: u16) -> [IpAddr; 2] {
    let listener = talk::listen_at(&server.path, (own, port).into());
    let mut connection = talk::connect(from, (own, port).into());
    let (mut accepted, by_tcp) = listener.accept().expect("accept");
    let mut said = [0; 5];
    connection.write_all(b"hello").expect("send");
    accepted.read_exact(&mut said).expect("receive");
    accepted.write_all(&said).expect("send");
    connection.read_exact(&mut said).expect("receive");

    let socket = talk::bind_at(&server.path, (own, port).into());
    let client = inside(from, || UdpSocket::bind((unspecified(own), 0))).expect("bind");
    for socket in [&socket, &client] {
        socket.set_read_timeout(Some(SILENCE)).expect("time-out");
    }
    client.send_to(b"question", SocketAddr::new(own, port)).expect("send");
    let mut buffer = [0; 16];
    let (length, by_udp) = socket.recv_from(&mut buffer).expect("the question");
    socket.send_to(&buffer[..length], by_udp).expect("send");
    let (_, peer) = client.recv_from(&mut buffer).expect("the answer");
    assert_eq!(peer, SocketAddr::new(own, port), "the answer is the container's own");
    [by_tcp.ip(), by_udp.ip()]
}

/// Whether nothing is heard of a connection attempt.
fn is_protected(from: &Path, target: SocketAddr) -> bool {
    let attempt = inside(from, || TcpStream::connect_timeout(&target, Duration::from_millis(300)));
    attempt.is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

#[test]
fn an_unprotected_container_answers_as_itself_and_leaves_as_the_host() {
    let (world, outside) = connected();
    let [v4, v6] = mode("nat-unprotected");
    let web = server(&world, &["-o", &v4, "-o", &v6]);
    for (number, own) in [web.ipv4(), web.ipv6()].into_iter().enumerate() {
        assert_eq!(ask(&outside.path(), &web, own, 7000), [address(ROUTERS[number]); 2]);
        assert!(talk::answers(&outside.path(), own), "{own}");
        talk::transfer(&outside.path(), &web.path, own, 5 << 20);
        // Connections it begins itself are the host's.
        let listener = talk::listen(&outside.path(), address(FAR[number]));
        let connection = talk::connect(&web.path, listener.local_addr().expect("bound"));
        assert_eq!(listener.accept().expect("accept").1.ip(), address(HOST[number]));
        drop(connection);
        is_told_that_nobody_listens(&outside.path(), own);
    }
}

fn is_told_that_nobody_listens(from: &Path, own: IpAddr) {
    let client = inside(from, || UdpSocket::bind((unspecified(own), 0))).expect("bind");
    client.set_read_timeout(Some(SILENCE)).expect("time-out");
    client.connect((own, 9)).expect("an address");
    client.send(b"x").expect("send");
    let error = client.recv(&mut [0; 8]).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{own}: {error}");
}

#[test]
fn a_routed_network_lets_pings_and_published_ports_in_untranslated() {
    let (world, outside) = connected();
    let [v4, v6] = mode("routed");
    let web = server(&world, &["-o", &v4, "-o", &v6]);
    world.network("net2", &["--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd78::/64"]);
    let stranger = world.attach("stranger", &["--network", "net2"]);
    for (number, own) in [web.ipv4(), web.ipv6()].into_iter().enumerate() {
        assert!(talk::answers(&outside.path(), own), "{own}");
        assert_eq!(ask(&outside.path(), &web, own, 80), [address(ROUTERS[number]); 2]);
        assert!(is_protected(&outside.path(), (own, 81).into()));
        let strangers = if number == 0 { stranger.ipv4() } else { stranger.ipv6() };
        assert_eq!(ask(&stranger.path, &web, own, 80), [strangers; 2], "another network");
        assert!(is_protected(&stranger.path, (own, 81).into()));
        // It leaves with its own address.
        let listener = talk::listen(&outside.path(), address(FAR[number]));
        let connection = talk::connect(&web.path, listener.local_addr().expect("bound"));
        assert_eq!(listener.accept().expect("accept").1.ip(), own);
        drop(connection);
    }
    world.vswitch(&["unpublish", &web.name, "80", "80/udp"]);
    assert!(is_protected(&outside.path(), (web.ipv4(), 80).into()));
}

#[test]
fn a_trusted_uplink_reaches_published_ports_of_containers() {
    let (world, outside) = connected();
    let web = server(&world, &["-o", &format!("{TRUSTED}=wg0:{UPLINK}")]);
    for (number, own) in [web.ipv4(), web.ipv6()].into_iter().enumerate() {
        assert_eq!(ask(&outside.path(), &web, own, 80), [address(ROUTERS[number]); 2]);
        assert!(is_protected(&outside.path(), (own, 81).into()));
        assert!(talk::is_silent(&outside.path(), own));
    }
}

/// Somebody behind an interface `wg0` of the host, which forwards packets. Knows the way to the containers'
/// subnets.
fn behind_another_interface(host: &Namespace) -> Namespace {
    let namespace = Namespace::new();
    let peer = ["type", "veth", "peer", "name", "t0", "netns", namespace.name()];
    host.ip(&[&["link", "add", "wg0"][..], &peer].concat());
    for (own, interface) in [(host, "wg0"), (&namespace, "t0")] {
        own.ip(&["link", "set", interface, "up"]);
        let last = if interface == "wg0" { 1 } else { 2 };
        own.ip(&["address", "add", &format!("198.18.0.{last}/24"), "dev", interface]);
        own.ip(&["address", "add", &format!("2001:db8:18::{last}/64"), "dev", interface, "nodad"]);
    }
    for (subnet, gateway) in SUBNETS.into_iter().zip(["198.18.0.1", "2001:db8:18::1"]) {
        namespace.ip(&["route", "add", subnet, "via", gateway]);
    }
    let forward = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
    host.inside(|| must(Command::new("sysctl").arg("-w").args(forward)));
    namespace
}

#[test]
fn forwarding_by_the_host_is_no_way_around_the_walls() {
    let (world, outside) = connected();
    let tunnel = behind_another_interface(world.host());
    let (web, other) = {
        let trusting = format!("{TRUSTED}=wg0");
        let web = server(&world, &["-o", &trusting]);
        world.network("closed", &["--ipv6", "--subnet", "10.79.0.0/24", "--subnet", "fd79::/64"]);
        (web, world.sandbox("other", &["--network", "closed", "-p", "8081:80"]))
    };
    for (subnet, gateway) in [("10.79.0.0/24", "198.18.0.1"), ("fd79::/64", "2001:db8:18::1")] {
        tunnel.ip(&["route", "add", subnet, "via", gateway]);
    }
    for (number, own) in [web.ipv4(), web.ipv6()].into_iter().enumerate() {
        let seen = address(["198.18.0.2", "2001:db8:18::2"][number]);
        wait::until("the host's routes", || (!is_protected(&tunnel.path(), (own, 80).into())).then_some(()));
        assert_eq!(ask(&tunnel.path(), &web, own, 80), [seen; 2]);
        talk_is_moved(&tunnel, &web, own);
        assert!(is_protected(&tunnel.path(), (own, 81).into()), "not published");
        assert!(is_protected(&outside.path(), (own, 80).into()), "the uplink is not trusted");
        let theirs = if number == 0 { other.ipv4() } else { other.ipv6() };
        assert!(is_protected(&tunnel.path(), (theirs, 80).into()), "that network trusts nobody");
        assert!(talk::is_silent(&tunnel.path(), theirs));
    }
    web.cannot_ping(address("198.18.0.2"));
}

fn talk_is_moved(tunnel: &Namespace, web: &Container, own: IpAddr) {
    let listener = talk::listen_at(&web.path, (own, 80).into());
    let mut connection = talk::connect(&tunnel.path(), (own, 80).into());
    let (mut accepted, _) = listener.accept().expect("accept");
    std::thread::scope(|scope| {
        scope.spawn(|| talk::send(&mut accepted, 3, 2 << 20).expect("send"));
        talk::check(&mut connection, 3, 2 << 20).expect("receive");
    });
}

#[test]
fn what_the_host_forwards_from_the_uplink_comes_once() {
    let (world, outside) = connected();
    let tunnel = behind_another_interface(world.host());
    let [v4, v6] = mode("nat-unprotected");
    let web = server(&world, &["-o", &v4, "-o", &v6]);
    for own in [web.ipv4(), web.ipv6()] {
        let ping = |from: &Path| {
            let mut command = Command::new("ping");
            command.args(["-n", "-c", "3", "-i", "0.2", "-W", "5"]).arg(own.to_string());
            inside(from, || must(&mut command))
        };
        let said = ping(&outside.path());
        assert!(said.contains(" 3 received") && !said.contains("DUP"), "{said}");
        let said = ping(&tunnel.path());
        assert!(said.contains(" 3 received"), "unprotected is open to everybody: {said}");
    }
}

/// The output of `ping` in a namespace.
fn ping(from: &Path, options: &[&str]) -> String {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", "1", "-w", "10"]).args(options);
    let output = inside(from, || command.output()).expect("ping is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn senders_outside_are_told_what_did_not_get_in() {
    let (world, outside) = connected();
    let [v4, v6] = mode("nat-unprotected");
    let web = server(&world, &["-o", &v4, "-o", &v6, "-o", "com.docker.network.driver.mtu=1300"]);
    for (own, host) in [web.ipv4(), web.ipv6()].into_iter().zip(HOST) {
        let own = own.to_string();
        let said = ping(&outside.path(), &["-t", "1", &own]);
        assert!(said.contains(&format!("From {host}")) && said.contains("exceeded"), "{said}");
        let said = ping(&outside.path(), &["-M", "do", "-s", "1400", &own]);
        assert!(said.contains(&format!("From {host}")) && said.contains("1300"), "{said}");
        // A published port's client is told by the host, too, of which alone it knows.
        let client =
            inside(&outside.path(), || UdpSocket::bind((unspecified(address(host)), 0))).expect("bind");
        client.connect((address(host), 8080)).expect("an address");
        wait::until("the client knows how large its datagrams may be", || {
            const TOO_LARGE: i32 = 90;
            client.send(&[0; 1400]).err().filter(|error| error.raw_os_error() == Some(TOO_LARGE)).map(drop)
        });
    }
    let mut wire = Wire::open(&outside.path(), "down0");
    let client = inside(&outside.path(), || UdpSocket::bind("0.0.0.0:0")).expect("bind");
    client.set_ttl(1).expect("a time to live");
    client.connect((address(HOST[0]), 8080)).expect("an address");
    client.send(b"x").expect("send");
    let is_exceeded = |frame: &[u8]| frame.len() >= 70 && (frame[23], frame[34]) == (1, 11);
    let told = wait::until("time exceeded", || wire.receive(is_exceeded));
    assert_eq!((&told[26..30], &told[64..66]), (&[203, 0, 113, 2][..], &8080u16.to_be_bytes()[..]));
}

#[test]
fn a_narrow_way_in_the_world_is_learned_by_the_container() {
    let (world, outside) = World::start_prepared(VSWITCH, Outside::behind);
    let web = server(&world, &[]);
    let beyond = Namespace::new();
    let router = outside.namespace();
    let peer = ["type", "veth", "peer", "name", "e0", "netns", beyond.name()];
    router.ip(&[&["link", "add", "n0", "mtu", "1300"][..], &peer].concat());
    let forward = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
    router.inside(|| must(Command::new("sysctl").arg("-w").args(forward)));
    for (own, interface, last) in [(router, "n0", 1), (&beyond, "e0", 2)] {
        own.ip(&["link", "set", interface, "up"]);
        own.ip(&["address", "add", &format!("192.0.2.{last}/28"), "dev", interface]);
        own.ip(&["address", "add", &format!("2001:db8:81::{last}/64"), "dev", interface, "nodad"]);
    }
    for (own, gateway) in [("192.0.2.2", "192.0.2.1"), ("2001:db8:81::2", "2001:db8:81::1")] {
        beyond.ip(&["route", "add", "default", "via", gateway]);
        let own = address(own);
        wait::until("the way beyond", || talk::answers(&web.path, own).then_some(()));
        // One way only: back, the narrow interface is the next one, and drops without a word.
        let listener = talk::listen(&beyond.path(), own);
        let mut connection = talk::connect(&web.path, listener.local_addr().expect("bound"));
        let (mut accepted, _) = listener.accept().expect("accept");
        accepted.set_read_timeout(Some(SILENCE)).expect("time-out");
        std::thread::scope(|scope| {
            scope.spawn(|| talk::send(&mut connection, 1, 1 << 20).expect("send"));
            talk::check(&mut accepted, 1, 1 << 20).expect("receive");
        });
        let mut route = Command::new("ip");
        let said = web.inside(|| must(route.args(["route", "get", &own.to_string()])));
        assert!(said.contains("mtu 1300"), "{said}");
    }
}
