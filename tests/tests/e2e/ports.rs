//! Every kind of port to every other: pings, TCP both ways, datagrams of all sizes, over IPv4 and IPv6.

use std::os::fd::AsRawFd;

use tun_tap::{Iface, Mode};
use vswitch_tests::namespace::Namespace;
use vswitch_tests::world::{Container, World};

use super::world;

const MEGABYTES: usize = 1 << 20;

/// Datagrams that fit, that are fragmented by the sender, that may be coalesced, that are empty.
const SIZES: &[usize] = &[18, 18, 18, 18, 18, 1472, 1472, 1472, 100, 0, 1, 5000, 18];

const SUBNETS: &[&str] = &["--ipv6", "--subnet", "10.1.0.0/16", "--subnet", "fd00:1::/64"];

fn talk_both_ways(world: &World, one: &Container, other: &Container) {
    let drops = || [one, other].map(|container| world.counters(container)["Drops"].clone());
    let before = drops();
    for (from, to) in [(one, other), (other, one)] {
        for address in [to.ipv4(), to.ipv6()] {
            from.pings(address);
            from.datagrams(to, address, SIZES);
        }
    }
    one.transfers(other, other.ipv4(), 8 * MEGABYTES);
    other.transfers(one, one.ipv6(), 8 * MEGABYTES);
    assert_eq!(drops(), before, "frames were dropped");
}

fn pair(one: &str, other: &str) {
    let world = world();
    world.network("net1", SUBNETS);
    let a = world.attach("a", &["--network", "net1", "--port-type", one]);
    let b = world.attach("b", &["--network", "net1", "--port-type", other]);
    talk_both_ways(&world, &a, &b);
}

#[test]
fn tap_to_tap() {
    pair("tap", "tap");
}

#[test]
fn tap_to_veth() {
    pair("tap", "veth");
}

#[test]
fn veth_to_veth() {
    pair("veth", "veth");
}

#[test]
fn tap_moved_to_tap() {
    pair("tap-moved", "tap");
}

#[test]
fn tap_moved_to_veth() {
    pair("tap-moved", "veth");
}

#[test]
fn sandboxes_made_by_the_switch_reach_each_other() {
    let world = world();
    let a = world.sandbox("a", &[]);
    let b = world.sandbox("b", &[]);
    a.pings(b.ipv4());
    let output = world.exec(&a, &["ping", "-c", "1", &b.ipv4().to_string()]);
    assert!(output.contains(" 0% packet loss"), "{output}");
    assert_eq!(world.exec(&b, &["hostname"]).trim(), b.name);
}

#[test]
fn super_frames_pass_untouched_and_are_split_for_nobody_who_takes_them() {
    let world = world();
    let a = world.sandbox("a", &[]);
    let b = world.sandbox("b", &[]);
    a.transfers(&b, b.ipv4(), 8 * MEGABYTES);
    let counters = world.counters(&b);
    let count = |name: &str| counters[name].as_u64().expect("a counter");
    assert_eq!(count("Split"), 0);
    let mean = count("SentBytes") / count("SentFrames");
    assert!(mean > 1514, "{mean} bytes a frame: super-frames were split on the way");
}

/// A TAP as a virtual machine monitor makes it, attached by its descriptor.
struct Foreign {
    container: Container,
    _tap: Iface,
}

fn foreign(world: &World, make: fn(&str, Mode) -> std::io::Result<Iface>) -> Foreign {
    let namespace = Namespace::new();
    let tap = namespace.inside(|| make("tap0", Mode::Tap)).expect("a TAP");
    let fd = format!("{}:{}", std::process::id(), tap.as_raw_fd());
    world.vswitch(&["attach", "vm", "--fd", &fd, "--network", "net1"]);
    let endpoints = world.json(&["ps"]);
    let endpoint = endpoints.as_array().and_then(|all| all.iter().find(|found| found["Sandbox"] == "vm"));
    let endpoint = endpoint.expect("the endpoint of vm");
    let text = |key: &str| endpoint[key].as_str().expect("text").to_owned();
    namespace.ip(&["link", "set", "tap0", "address", &text("MacAddress"), "up"]);
    namespace.ip(&["address", "add", &format!("{}/16", text("IPAddress")), "dev", "tap0"]);
    let ipv6 = format!("{}/64", text("GlobalIPv6Address"));
    namespace.ip(&["address", "add", &ipv6, "dev", "tap0", "nodad"]);
    Foreign { container: Container::attached("vm", namespace), _tap: tap }
}

#[test]
fn a_foreign_tap_without_offloads_gets_finished_frames() {
    let world = world();
    world.network("net1", SUBNETS);
    let vm = foreign(&world, Iface::without_packet_info);
    let a = world.attach("a", &["--network", "net1"]);
    talk_both_ways(&world, &a, &vm.container);
    let split = world.counters(&vm.container)["Split"].as_u64().expect("a counter");
    assert!(split > 0, "the transfer must have been split for a port without offloads");
}

#[test]
fn a_container_may_have_interfaces_on_two_networks() {
    let world = world();
    world.network("net1", &["--subnet", "10.1.0.0/16"]);
    world.network("net2", &["--subnet", "10.2.0.0/16"]);
    let a = world.sandbox("a", &["--network", "net1", "--network", "net2"]);
    let b = world.sandbox("b", &["--network", "net1"]);
    let c = world.sandbox("c", &["--network", "net2"]);
    a.pings(b.ipv4());
    a.pings(c.ipv4());
    b.cannot_ping(c.ipv4());
    world.vswitch(&["network", "connect", "net2", &b.name]);
    b.pings(c.ipv4());
    world.vswitch(&["network", "disconnect", "net2", &b.name]);
    b.cannot_ping(c.ipv4());
}
