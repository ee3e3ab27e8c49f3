//! Networks that span hosts, over a road with a narrow place in the midst of it.
//!
//! ```text
//!  host 1 ── 1500 ── left ── 1400 ── right ── 1500 ── host 2
//! ```
//!
//! Neither host has an interface with the smaller MTU: each learns of it from what routers say.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::thread;

use serde_json::Value;
use vswitch_frame::checksum::Sum;
use vswitch_frame::{DropReason, Mac};
use vswitch_tests::namespace::{Namespace, must};
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::world::{Container, World};
use vswitch_tests::{talk, wait};

use super::VSWITCH;
use super::overlay::with_kernels_vxlan;

const MEGABYTE: usize = 1 << 20;
const VXLAN_PORT: u16 = 4789;
/// A port that tunnels send from.
const SOURCE_PORT: u16 = 49_152;
/// The MTU of the narrow place.
const NARROW: &str = "1400";
/// Room that a path of this MTU leaves for what is inside, over IPv4.
const ROOM: usize = 1350;

/// The version of IP by which the hosts reach each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    V4,
    V6,
}

/// Two routers, which join the hosts.
struct Road {
    routers: [Namespace; 2],
}

/// Addresses of a host and its router, and the net of the other side.
const SIDES: [[(&str, &str, &str); 2]; 2] = [
    [
        ("192.0.2.1/24", "192.0.2.254", "198.51.100.0/24"),
        ("2001:db8:1::1/64", "2001:db8:1::ff", "2001:db8:2::/64"),
    ],
    [
        ("198.51.100.1/24", "198.51.100.254", "192.0.2.0/24"),
        ("2001:db8:2::1/64", "2001:db8:2::ff", "2001:db8:1::/64"),
    ],
];
/// Addresses of the two routers between them.
const MIDDLE: [[&str; 2]; 2] = [["198.18.0.1", "198.18.0.2"], ["2001:db8::1", "2001:db8::2"]];

impl Road {
    /// A road whose middle link has this MTU.
    fn new(mtu: &str) -> Self {
        let routers = [Namespace::new(), Namespace::new()];
        routers[0].ip(&[
            "link",
            "add",
            "mid",
            "type",
            "veth",
            "peer",
            "name",
            "mid",
            "netns",
            routers[1].name(),
        ]);
        for (side, router) in routers.iter().enumerate() {
            for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
                router.inside(|| must(Command::new("sysctl").args(["-q", "-w", setting])));
            }
            router.ip(&["link", "set", "mid", "mtu", mtu, "up"]);
            for (ends, (_, _, beyond)) in MIDDLE.iter().zip(SIDES[side]) {
                let length = if ends[0].contains(':') { 64 } else { 24 };
                address(router, &format!("{}/{length}", ends[side]), "mid");
                router.ip(&["route", "add", beyond, "via", ends[1 - side]]);
            }
        }
        Self { routers }
    }

    /// Changes the MTU of the middle link.
    fn set_mtu(&self, mtu: &str) {
        for router in &self.routers {
            router.ip(&["link", "set", "mid", "mtu", mtu]);
        }
    }

    /// Gives a host its interface, its addresses, and a way to the other.
    fn connect(&self, host: &Namespace, side: usize) {
        let router = &self.routers[side];
        host.ip(&["link", "add", "wan0", "type", "veth", "peer", "name", "lan", "netns", router.name()]);
        for (end, name) in [(host, "wan0"), (router, "lan")] {
            end.ip(&["link", "set", name, "up"]);
        }
        for (own, gateway, beyond) in SIDES[side] {
            let (_, length) = own.split_once('/').expect("a net");
            address(host, own, "wan0");
            address(router, &format!("{gateway}/{length}"), "lan");
            host.ip(&["route", "add", beyond, "via", gateway]);
        }
    }
}

fn address(namespace: &Namespace, address: &str, interface: &str) {
    let nodad = if address.contains(':') { &["nodad"][..] } else { &[] };
    namespace.ip(&[&["address", "add", address, "dev", interface][..], nodad].concat());
}

/// A road, a switch on each of its ends, and a container of one network on each.
struct Scene {
    road: Road,
    worlds: [World; 2],
    a: Container,
    b: Container,
}

fn scene(mtu: &str, family: Family) -> Scene {
    let road = Road::new(mtu);
    let worlds = [0, 1].map(|side| world(&road, side, family));
    let a = worlds[0].attach("a", &["--network", "wide"]);
    let b = worlds[1].attach("b", &["--network", "wide"]);
    a.pings(b.ipv4());
    Scene { road, worlds, a, b }
}

/// A switch at one end of a road, with the network.
fn world(road: &Road, side: usize, family: Family) -> World {
    let world = World::start_prepared(VSWITCH, |host| road.connect(host, side)).0;
    let (peer, _, _) = SIDES[1 - side][family as usize];
    let peers = format!("vswitch.peers={}", peer.split_once('/').expect("a net").0);
    let (range, range_v6) = (format!("10.9.0.{}/28", 16 * (side + 1)), format!("fd09::{}00/120", side + 1));
    let options = [
        ["-d", "overlay", "-o", "vswitch.vni=4097", "-o", &peers],
        ["--subnet", "10.9.0.0/24", "--gateway", "10.9.0.1", "--ip-range", &range],
        ["--subnet", "fd09::/64", "--gateway", "fd09::1", "--ip-range", &range_v6],
    ];
    world.network("wide", &options.concat());
    world
}

#[test]
fn a_transfer_finds_its_way_through_a_narrow_place() {
    for family in [Family::V4, Family::V6] {
        let Scene { a, b, .. } = &scene(NARROW, family);
        for to in [b.ipv4(), b.ipv6()] {
            a.transfers(b, to, 16 * MEGABYTE);
        }
        b.transfers(a, a.ipv6(), 16 * MEGABYTE);
    }
}

/// The counters of the network's tunnel.
fn tunnel(world: &World) -> Value {
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().cloned().unwrap_or_default();
    ports.into_iter().find(|port| port["Sandbox"] == "(tunnel)").expect("a tunnel")
}

/// The number of frames that have left through the network's tunnel.
fn sent(world: &World) -> u64 {
    tunnel(world)["SentFrames"].as_u64().expect("a number")
}

#[test]
fn a_transfer_outlives_a_road_that_narrows() {
    for family in [Family::V4, Family::V6] {
        let Scene { road, worlds, a, b } = &scene("1500", family);
        for to in [b.ipv4(), b.ipv6()] {
            road.set_mtu("1500");
            let before = sent(&worlds[0]);
            thread::scope(|scope| {
                let transfer = scope.spawn(|| a.transfers(b, to, 128 * MEGABYTE));
                wait::until("traffic", || (sent(&worlds[0]) > before + 100).then_some(()));
                road.set_mtu(NARROW);
                transfer.join().expect("the transfer survives");
            });
        }
    }
}

/// Sends a datagram that may be fragmented until it arrives: the first ones tell of the road.
fn arrives(from: &Container, to: &Container, target: IpAddr, bytes: usize) {
    let ear = to.inside(|| UdpSocket::bind((target, 0))).expect("bind");
    ear.set_nonblocking(true).expect("a flag");
    let goal = ear.local_addr().expect("bound");
    let mouth = from.inside(|| UdpSocket::bind((from.ipv4(), 0))).expect("bind");
    let content = vec![0x5a; bytes];
    wait::until("the datagram arrives", || {
        let mut heard = vec![0; 2 * bytes];
        mouth.send_to(&content, goal).expect("sent");
        let length = ear.recv(&mut heard).ok()?;
        assert_eq!(heard[..length], content);
        Some(())
    });
}

#[test]
fn what_may_be_fragmented_arrives() {
    for family in [Family::V4, Family::V6] {
        let Scene { a, b, .. } = &scene(NARROW, family);
        // Without path MTU discovery the kernel sets no "don't fragment".
        a.inside(|| must(Command::new("sysctl").args(["-q", "-w", "net.ipv4.ip_no_pmtu_disc=1"])));
        for bytes in [1330, 1400, 1422, 4000] {
            arrives(a, b, b.ipv4(), bytes);
        }
    }
}

/// The output of a ping with options of its own.
fn ping(from: &Container, to: IpAddr, options: &[&str]) -> String {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", "1", "-W", "1"]).args(options).arg(to.to_string());
    let output = from.inside(|| command.output()).expect("ping is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// However little a path is said to carry, by whoever: what IPv6 needs goes through.
#[test]
fn a_path_is_never_too_narrow_for_ipv6() {
    let Scene { road, worlds, a, b } = &scene("1500", Family::V4);
    road.set_mtu("900");
    a.transfers(b, b.ipv4(), 4 * MEGABYTE);
    a.transfers(b, b.ipv6(), 4 * MEGABYTE);
    wait::until("1,280 bytes are carried", || {
        ping(a, b.ipv6(), &["-s", "1232"]).contains(" 0%").then_some(())
    });
    assert_eq!(worlds.each_ref().map(World::restarts), [0, 0]);
}

/// An ICMP error about a packet between the hosts' tunnels, as anybody on the underlay can make it up:
/// there is room for `mtu` bytes.
fn forged(target: [u8; 6], mtu: u16) -> Vec<u8> {
    let header = |protocol: u8, from: [u8; 4], to: [u8; 4], length: u8| {
        let mut header = [&[0x45, 0, 0, length, 0, 1, 0x40, 0, 64, protocol, 0, 0][..], &from, &to].concat();
        let sum = Sum::ZERO.add_bytes(&header).checksum();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    };
    const ICMP: u8 = 1;
    const UDP: u8 = 17;
    let (own, far, router) = ([192, 0, 2, 1], [198, 51, 100, 1], [192, 0, 2, 254]);
    let ports = [SOURCE_PORT.to_be_bytes(), VXLAN_PORT.to_be_bytes(), 8u16.to_be_bytes(), [0; 2]].concat();
    let [high, low] = mtu.to_be_bytes();
    let mut error = [&[3, 4, 0, 0, 0, 0, high, low][..], &header(UDP, own, far, 28), &ports].concat();
    let sum = Sum::ZERO.add_bytes(&error).checksum();
    error[2..4].copy_from_slice(&sum.to_be_bytes());
    let packet = [header(ICMP, router, own, 56), error].concat();
    ethernet(target, [2, 0, 0, 0, 0, 1], 0x0800, &packet)
}

#[test]
fn a_forged_error_takes_nothing_from_ipv6() {
    let Scene { road, worlds, a, b } = &scene("1500", Family::V4);
    let link = worlds[0].host().ip(&["-j", "link", "show", "wan0"]);
    let link: Value = serde_json::from_str(&link).expect("JSON");
    let Mac(target) = link[0]["address"].as_str().unwrap_or_default().parse().expect("a MAC address");
    let mut wire = Wire::open(&road.routers[0].path(), "lan");
    let told = wait::until("the kernel believes it", || {
        wire.send(&forged(target, 68));
        let output = ping(a, b.ipv4(), &["-M", "do", "-s", "1400"]);
        output.contains("mtu").then_some(output)
    });
    assert!(told.contains("1280"), "{told}");
    for _ in 0..100 {
        wire.send(&forged(target, 68));
    }
    for to in [b.ipv4(), b.ipv6()] {
        a.transfers(b, to, 4 * MEGABYTE);
    }
    assert!(ping(a, b.ipv6(), &["-s", "1232"]).contains(" 0%"), "1,280 bytes are carried");
}

#[test]
fn a_path_that_widens_is_used() {
    let Scene { road, worlds, a, b } = &scene(NARROW, Family::V4);
    let fits = || ping(a, b.ipv4(), &["-M", "do", "-s", "1400"]).contains(" 0%");
    let is_told = || ping(a, b.ipv4(), &["-M", "do", "-s", "1400"]).contains("mtu");
    wait::until("the path is known", || is_told().then_some(()));
    road.set_mtu("1500");
    // The word of routers would stand for minutes, with hosts and containers.
    let forget = |namespace: &Namespace| namespace.ip(&["route", "flush", "cache"]);
    for world in worlds {
        forget(world.host());
    }
    wait::until("the whole path is used", || {
        for container in [a, b] {
            container.ip(&["route", "flush", "cache"]);
        }
        fits().then_some(())
    });
}

#[test]
fn who_may_not_be_fragmented_is_told_how_much_fits() {
    for (family, room) in [(Family::V4, ROOM), (Family::V6, ROOM - 20)] {
        let Scene { worlds, a, b, .. } = &scene(NARROW, family);
        for to in [b.ipv4(), b.ipv6()] {
            let told = wait::until("the sender is told", || {
                let output = ping(a, to, &["-M", "do", "-s", "1350"]);
                output.contains("mtu").then_some(output)
            });
            let mtu = told.split("mtu").nth(1).unwrap_or_default();
            let mtu: String = mtu.chars().skip_while(|c| !c.is_ascii_digit()).take(4).collect();
            assert_eq!(mtu, room.to_string(), "{told}");
            let headers = if to.is_ipv4() { 28 } else { 48 };
            let fitting = (room - headers).to_string();
            assert!(talk::ping(&a.path, to, &["-c", "1", "-M", "do", "-s", &fitting]), "{fitting} bytes fit");
        }
        let (peer, _) = SIDES[1][family as usize].0.split_once('/').expect("a net");
        let shown = &worlds[0].json(&["network", "inspect", "wide"])[0]["Peers"];
        assert_eq!(*shown, serde_json::json!([{ "IP": peer, "MTU": room }]));
        let drops = &tunnel(&worlds[0])["Drops"];
        assert!(drops[DropReason::TxTooBig.label()].as_u64().is_some_and(|drops| drops >= 2), "{drops}");
    }
}

#[test]
fn the_kernels_vxlan_is_reached_through_a_narrow_place() {
    let road = Road::new(NARROW);
    let world = world(&road, 0, Family::V4);
    let a = world.attach("a", &["--network", "wide"]);
    let host = Namespace::new();
    road.connect(&host, 1);
    if !with_kernels_vxlan(&host, "198.51.100.1", "192.0.2.1") {
        return;
    }
    for text in ["10.9.0.200", "fd09::200"] {
        let far: IpAddr = text.parse().expect("an address");
        a.pings(far);
        talk::transfer(&a.path, &host.path(), far, 4 * MEGABYTE);
    }
    talk::transfer(&host.path(), &a.path, a.ipv4(), 4 * MEGABYTE);
}
