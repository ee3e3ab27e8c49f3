//! Networks that span hosts: several switches, each in a host namespace of its own, on one underlay.
//!
//! ```text
//!  host 1  wan0 192.0.2.1 ──┐
//!  host 2  wan0 192.0.2.2 ──┼── br0  underlay
//!  host 3  wan0 192.0.2.3 ──┘
//! ```

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;
use vswitch_frame::DropReason;
use vswitch_tests::namespace::{Namespace, must};
use vswitch_tests::world::{Container, World, send_signal};
use vswitch_tests::{talk, wait};

use super::VSWITCH;

const MEGABYTE: usize = 1 << 20;
const VXLAN_PORT: u16 = 4789;

/// The version of IP by which the hosts reach each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn address(self, host: usize) -> String {
        match self {
            Self::V4 => format!("192.0.2.{host}"),
            Self::V6 => format!("2001:db8::{host}"),
        }
    }
}

/// The underlay that joins hosts.
struct Underlay {
    bridge: Namespace,
}

impl Underlay {
    fn new() -> Self {
        let bridge = Namespace::new();
        bridge.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        bridge.ip(&["link", "set", "br0", "up"]);
        Self { bridge }
    }

    /// Gives a host its interface and addresses.
    fn connect(&self, host: &Namespace, number: usize) {
        let port = format!("port{number}");
        let far = ["type", "veth", "peer", "name", &port, "netns", self.bridge.name()];
        host.ip(&[&["link", "add", "wan0"][..], &far].concat());
        self.bridge.ip(&["link", "set", &port, "master", "br0", "up"]);
        let (v4, v6) = (Family::V4.address(number), Family::V6.address(number));
        host.ip(&["address", "add", &format!("{v4}/24"), "dev", "wan0"]);
        host.ip(&["address", "add", &format!("{v6}/64"), "dev", "wan0", "nodad"]);
        host.ip(&["link", "set", "wan0", "up"]);
    }

    /// Starts a switch on a host of its own.
    fn host(&self, number: usize) -> World {
        World::start_prepared(VSWITCH, |host| self.connect(host, number)).0
    }
}

/// Makes the network on a host, with these other hosts.
fn span(world: &World, number: usize, peers: &[usize], family: Family, more: &[&str]) {
    let peers: Vec<String> = peers.iter().map(|peer| family.address(*peer)).collect();
    let peers = format!("vswitch.peers={}", peers.join(","));
    let range = format!("10.9.0.{}/28", 16 * number);
    let range_v6 = format!("fd09::{number}00/120");
    let options = [
        &["-d", "overlay", "-o", "vswitch.vni=4097", "-o", &peers][..],
        &["--subnet", "10.9.0.0/24", "--gateway", "10.9.0.1", "--ip-range", &range],
        &["--subnet", "fd09::/64", "--gateway", "fd09::1", "--ip-range", &range_v6],
        more,
    ];
    world.network("wide", &options.concat());
}

fn container(world: &World, name: &str) -> Container {
    world.attach(name, &["--network", "wide"])
}

/// Two hosts with the network, and a container on each.
fn two(underlay: &Underlay, family: Family, more: &[&str]) -> ([World; 2], [Container; 2]) {
    let worlds = [1, 2].map(|number| {
        let world = underlay.host(number);
        span(&world, number, &[3 - number], family, more);
        world
    });
    let containers = [container(&worlds[0], "a"), container(&worlds[1], "b")];
    (worlds, containers)
}

/// Pings, transfers and datagrams between two containers, over both versions of IP.
fn talk_about_everything(a: &Container, b: &Container) {
    for to in [b.ipv4(), b.ipv6()] {
        a.pings(to);
        a.transfers(b, to, 16 * MEGABYTE);
        a.datagrams(b, to, &[18; 200]);
        a.datagrams(b, to, &[1, 1300, 0, 5, 1300, 1300, 9000, 18, 18]);
    }
}

/// The counters of the port of the network's tunnel, or, with no network, of that of all.
fn tunnel(world: &World, network: &str) -> Value {
    let sandbox = if network.is_empty() { "(tunnels)" } else { "(tunnel)" };
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().cloned().unwrap_or_default();
    let port = ports.into_iter().find(|port| port["Sandbox"] == sandbox && port["Network"] == network);
    port.unwrap_or_else(|| panic!("no tunnel: {stats}"))
}

/// The number of frames that were dropped there for a reason.
fn dropped(world: &World, network: &str, reason: DropReason) -> u64 {
    tunnel(world, network)["Drops"][reason.label()].as_u64().unwrap_or(0)
}

/// The number of frames that have left through the network's tunnel.
fn sent(world: &World) -> u64 {
    tunnel(world, "wide")["SentFrames"].as_u64().expect("a number")
}

fn ethtool(host: &Namespace, features: &[&str]) {
    host.inside(|| must(Command::new("ethtool").args(["-K", "wan0"]).args(features)));
}

#[test]
fn containers_of_two_hosts_are_on_one_network() {
    for family in [Family::V4, Family::V6] {
        let underlay = Underlay::new();
        let (_worlds, [a, b]) = two(&underlay, family, &[]);
        talk_about_everything(&a, &b);
        talk_about_everything(&b, &a);
        let expected = if family == Family::V4 { 1450 } else { 1430 };
        assert_eq!(a.interface()["mtu"], expected, "what the underlay leaves room for");
    }
}

#[test]
fn what_is_sent_to_all_reaches_every_host_once() {
    let underlay = Underlay::new();
    let worlds = [1, 2, 3].map(|number| {
        let world = underlay.host(number);
        let others: Vec<usize> = (1..=3).filter(|other| *other != number).collect();
        span(&world, number, &others, Family::V4, &[]);
        world
    });
    let containers = [0, 1, 2].map(|number| container(&worlds[number], "c"));
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        containers[from].pings(containers[to].ipv4());
        containers[from].pings(containers[to].ipv6());
    }
    let ears = [1, 2].map(|number| {
        let socket = containers[number].inside(|| UdpSocket::bind(("0.0.0.0", 7000)).expect("bind"));
        socket.set_read_timeout(Some(wait::DEADLINE)).expect("a time-out");
        socket
    });
    let mouth = containers[0].inside(|| UdpSocket::bind((containers[0].ipv4(), 0)).expect("bind"));
    mouth.set_broadcast(true).expect("a flag");
    for text in [b"one", b"two"] {
        mouth.send_to(text, ("10.9.0.255", 7000)).expect("sent");
    }
    for ear in ears {
        let heard = [(); 2].map(|()| {
            let mut text = [0; 3];
            ear.recv(&mut text).expect("heard");
            text
        });
        assert_eq!(heard, [*b"one", *b"two"], "each once");
    }
}

/// Gives a host the kernel's end of a tunnel, with addresses of the network; `false`, and says so, if this
/// kernel has none.
pub(super) fn with_kernels_vxlan(host: &Namespace, local: &str, remote: &str) -> bool {
    let device = ["link", "add", "vxlan0", "type", "vxlan", "id", "4097", "dstport", "4789", "udpcsum"];
    let ends = ["dev", "wan0", "local", local, "remote", remote];
    if !host.output(Command::new("ip").args(device).args(ends)).status.success() {
        eprintln!("SKIPPED: this kernel has no vxlan interfaces");
        return false;
    }
    for address in ["10.9.0.200/24", "fd09::200/64"] {
        host.ip(&["address", "add", address, "dev", "vxlan0", "nodad"]);
    }
    host.ip(&["link", "set", "vxlan0", "up"]);
    // A veth pair hands over what a NIC would finish: inner checksums, and inner segments not yet cut.
    ethtool(host, &["tx", "off", "tso", "off", "gso", "off"]);
    true
}

#[test]
fn the_kernels_vxlan_is_a_host_like_any_other() {
    let underlay = Underlay::new();
    let world = underlay.host(1);
    span(&world, 1, &[2], Family::V4, &[]);
    let a = container(&world, "a");
    let host = Namespace::new();
    underlay.connect(&host, 2);
    if !with_kernels_vxlan(&host, "192.0.2.2", "192.0.2.1") {
        return;
    }
    for text in ["10.9.0.200", "fd09::200"] {
        let far: IpAddr = text.parse().expect("an address");
        a.pings(far);
        talk::transfer(&a.path, &host.path(), far, 4 * MEGABYTE);
        talk::datagrams(&a.path, &host.path(), far, &[100; 40]);
    }
    talk::transfer(&host.path(), &a.path, a.ipv4(), 4 * MEGABYTE);
    talk::datagrams(&host.path(), &a.path, a.ipv6(), &[18; 100]);
}

#[test]
fn strangers_are_not_believed() {
    let underlay = Underlay::new();
    let (worlds, [a, _b]) = two(&underlay, Family::V4, &[]);
    let stranger = underlay.host(3);
    span(&stranger, 3, &[1], Family::V4, &[]);
    let c = container(&stranger, "c");
    c.cannot_ping(a.ipv4());
    assert!(dropped(&worlds[0], "wide", DropReason::TunnelUnknownVtep) > 0);
    // Nor is what is of no network here, or nothing at all.
    let raw = stranger.host().inside(|| UdpSocket::bind("192.0.2.3:0").expect("bind"));
    for (packet, reason) in [
        (&b"\x08\0\0\0\0\0\x07\0frame of another network"[..], DropReason::TunnelUnknownVni),
        (b"hello", DropReason::TunnelMalformed),
    ] {
        raw.send_to(packet, ("192.0.2.1", VXLAN_PORT)).expect("sent");
        wait::until("the drop is counted", || (dropped(&worlds[0], "", reason) == 1).then_some(()));
    }
}

#[test]
fn walls_hold_across_hosts() {
    let icc_off = ["-o", "com.docker.network.bridge.enable_icc=false"];
    let underlay = Underlay::new();
    let ([one, other], [a, b]) = two(&underlay, Family::V4, &icc_off);
    a.cannot_ping(b.ipv4());
    assert_eq!(sent(&one), 0, "nothing of it leaves the host");
    // The wall is on either side: what comes to a network whose containers are apart is dropped there, too.
    drop((a, one));
    let open = underlay.host(3);
    span(&open, 3, &[2], Family::V4, &[]);
    other.vswitch(&["detach", "b"]);
    other.vswitch(&["network", "rm", "wide"]);
    span(&other, 2, &[3], Family::V4, &icc_off);
    drop(b);
    let (b, c) = (container(&other, "b2"), container(&open, "c"));
    c.cannot_ping(b.ipv4());
    assert!(dropped(&other, "wide", DropReason::Isolated) > 0);
}

#[test]
fn rules_judge_what_comes_from_other_hosts() {
    let underlay = Underlay::new();
    let ([_one, other], [a, b]) = two(&underlay, Family::V4, &[]);
    a.pings(b.ipv4());
    let source = a.ipv4().to_string();
    other.vswitch(&["rule", "add", "--network", "wide", "--from", &source, "--action", "drop"]);
    a.cannot_ping(b.ipv4());
    assert!(dropped(&other, "wide", DropReason::Rule) > 0);
}

#[test]
fn it_goes_on_when_a_process_dies() {
    let underlay = Underlay::new();
    let ([mut one, _other], [a, b]) = two(&underlay, Family::V4, &[]);
    a.pings(b.ipv4());
    let old = one.datapath_pid();
    send_signal(old, Signal::SIGKILL);
    wait::until("another datapath", || (one.datapath_pid() != old).then_some(()));
    talk_about_everything(&a, &b);
    thread::scope(|scope| {
        let transfer = scope.spawn(|| a.transfers(&b, b.ipv4(), 128 * MEGABYTE));
        one.stop(Signal::SIGKILL);
        one.start_again();
        transfer.join().expect("the transfer survives");
    });
    assert_eq!(one.restarts(), 0);
    talk_about_everything(&b, &a);
    one.stop(Signal::SIGTERM);
    one.start_again();
    wait::until("the way is back", || talk::answers(&b.path, b.ipv4()).then_some(()));
}

#[test]
fn an_underlay_without_offloads_carries_the_same() {
    let underlay = Underlay::new();
    let ([one, other], [a, b]) = two(&underlay, Family::V4, &[]);
    for features in [
        &["tx-udp-segmentation", "off", "gso", "off", "gro", "off"][..],
        &["tx", "off", "tso", "off", "gso", "off", "gro", "off"],
    ] {
        [&one, &other].into_iter().for_each(|world| ethtool(world.host(), features));
        talk_about_everything(&a, &b);
        talk_about_everything(&b, &a);
    }
}

#[test]
fn the_underlays_mtu_is_followed() {
    let underlay = Underlay::new();
    let ([one, other], [a, b]) = two(&underlay, Family::V4, &[]);
    a.transfers(&b, b.ipv4(), MEGABYTE);
    for world in [&one, &other] {
        world.host().ip(&["link", "set", "wan0", "mtu", "1400"]);
    }
    let fits = |size: &str| talk::ping(&a.path, b.ipv4(), &["-c", "1", "-W", "1", "-M", "do", "-s", size]);
    wait::until("what does not fit is refused", || (!fits("1400")).then_some(()));
    assert!(fits("1322"), "1,350 bytes fit");
    a.transfers(&b, b.ipv4(), 4 * MEGABYTE);
    a.transfers(&b, b.ipv6(), 4 * MEGABYTE);
}

#[test]
fn a_connection_outlives_a_change_of_the_underlays_mtu() {
    let underlay = Underlay::new();
    let ([one, other], [a, b]) = two(&underlay, Family::V4, &[]);
    for (to, mtu) in [(b.ipv4(), "1400"), (b.ipv6(), "1360")] {
        let before = sent(&one);
        thread::scope(|scope| {
            let transfer = scope.spawn(|| a.transfers(&b, to, 128 * MEGABYTE));
            wait::until("traffic", || (sent(&one) > before + 100).then_some(()));
            for world in [&one, &other] {
                world.host().ip(&["link", "set", "wan0", "mtu", mtu]);
            }
            transfer.join().expect("the transfer survives");
        });
    }
}

#[test]
fn another_port_can_be_agreed_on() {
    let underlay = Underlay::new();
    let worlds = [1, 2].map(|number| {
        let options = ["--vxlan-port", "8472"];
        let (world, ()) = World::start_with(VSWITCH, &options, |host| underlay.connect(host, number));
        span(&world, number, &[3 - number], Family::V4, &[]);
        world
    });
    let (a, b) = (container(&worlds[0], "a"), container(&worlds[1], "b"));
    a.pings(b.ipv4());
    worlds[0].host().inside(|| UdpSocket::bind(("0.0.0.0", VXLAN_PORT)).expect("the other port is free"));
}

#[test]
fn hosts_that_are_only_listed_do_not_give_the_same_addresses() {
    let underlay = Underlay::new();
    let (v4, v6) = ("10.9.0.0/24", "fd09::/64");
    let worlds = [1, 2].map(|number| {
        let world = underlay.host(number);
        let peers = format!("vswitch.peers={}", Family::V4.address(3 - number));
        let (range, range_v6) = (format!("10.9.0.{}/28", 16 * number), format!("fd09::{number}00/120"));
        let overlay = |vni| ["-d", "overlay", "-o", vni, "-o", &peers, "--subnet", v4].map(str::to_owned);
        let network = |name, vni, more: &[&str]| {
            let words = overlay(vni);
            let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
            world.network(name, &words);
        };
        network("bare", "vswitch.vni=5", &["--subnet", v6]);
        world.vswitch(&["network", "inspect", "bare"]);
        for (asked, subnet) in [(&[][..], v4), (&["--ip", "10.9.0.9"], v6), (&["--ip6", "fd09::9"], v4)] {
            let create = ["sandbox", "create", "refused", "--network", "bare"];
            let message = world.refused(&[&create[..], asked].concat()).message;
            assert!(message.contains(&format!("an --ip-range of {subnet}")), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
        let (ip, ip6) = (format!("10.9.0.{number}2"), format!("fd09::{number}2"));
        let asked = world.sandbox("asked", &["--network", "bare", "--ip", &ip, "--ip6", &ip6]);
        assert_eq!((asked.ipv4().to_string(), asked.ipv6().to_string()), (ip, ip6));
        world.vswitch(&["sandbox", "rm", &asked.name]);
        world.vswitch(&["network", "rm", "bare"]);
        network("both", "vswitch.vni=6", &["--ip-range", &range, "--subnet", v6, "--ip-range", &range_v6]);
        world
    });
    let [a, b] = [0, 1].map(|host: usize| worlds[host].attach("c", &["--network", "both"]));
    assert!(a.ipv4() != b.ipv4() && a.ipv6() != b.ipv6(), "{} {}", a.ipv4(), a.ipv6());
    a.pings(b.ipv4());
    a.pings(b.ipv6());
}

#[test]
fn a_removed_network_leaves_the_port_to_others() {
    let underlay = Underlay::new();
    let world = underlay.host(1);
    span(&world, 1, &[2], Family::V4, &[]);
    assert_eq!(world.json(&["network", "inspect", "wide"])[0]["Driver"], "overlay");
    world.vswitch(&["network", "rm", "wide"]);
    world.host().inside(|| UdpSocket::bind(("0.0.0.0", VXLAN_PORT)).expect("the port is free"));
    let holder = world.host().inside(|| UdpSocket::bind(("0.0.0.0", VXLAN_PORT)).expect("the port is free"));
    let refusal = world.refused(&[
        "network",
        "create",
        "wide",
        "-d",
        "overlay",
        "-o",
        "vswitch.vni=5",
        "-o",
        "vswitch.peers=192.0.2.2",
    ]);
    assert!(refusal.message.contains("UDP port 4789 is in use"), "{refusal:?}");
    assert_eq!(world.json(&["network", "ls"]).as_array().map(Vec::len), Some(3), "nothing is left");
    drop(holder);
}
