//! Addresses: which a container gets, which it may ask for, and where they come from.

use serde_json::Value;
use vswitch_tests::world::{Container, World};

use super::world;

fn subnets(world: &World, name: &str) -> Vec<String> {
    let config = world.json(&["network", "inspect", name])[0]["IPAM"]["Config"].clone();
    let config = config.as_array().cloned().unwrap_or_default();
    config.iter().map(|entry| entry["Subnet"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The next hop of a container's default route of a family, `-4` or `-6`.
fn default_route(container: &Container, family: &str) -> Option<String> {
    let routes: Value =
        serde_json::from_str(&container.ip(&["-j", family, "route", "show", "default"])).expect("JSON");
    routes[0]["gateway"].as_str().map(str::to_owned)
}

#[test]
fn a_range_limits_what_is_given_but_not_what_may_be_asked_for() {
    let world = world();
    let reserved = ["--aux-address", "nas=10.1.0.9", "--aux-address", "printer=10.1.0.200"];
    world
        .network("lan", &[&["--subnet", "10.1.0.0/24", "--ip-range", "10.1.0.8/30"], &reserved[..]].concat());
    let attach = |name: &str, more: &[&str]| world.attach(name, &[&["--network", "lan"], more].concat());
    let given = ["a", "b", "c"].map(|name| attach(name, &[]));
    let addresses = given.each_ref().map(|container| container.ipv4().to_string());
    assert_eq!(addresses, ["10.1.0.8", "10.1.0.10", "10.1.0.11"]);
    let outside = attach("d", &["--ip", "10.1.0.100"]);
    given[0].pings(outside.ipv4());
    let full = world.refused(&["sandbox", "create", &world.global_name("e"), "--network", "lan"]);
    assert!(full.message.contains("no available addresses on this pool (10.1.0.0/24)"), "{}", full.message);
    let name = world.global_name("f");
    for (address, said) in [
        ("10.1.0.200", "Address already in use"),
        ("10.1.0.9", "Address already in use"),
        ("10.1.0.1", "Address already in use"),
        ("10.1.0.100", "Address already in use"),
        ("10.1.1.1", "It does not belong to any of this network's subnets"),
    ] {
        let refusal = world.refused(&["sandbox", "create", &name, "--network", "lan", "--ip", address]);
        assert!(refusal.message.contains(said), "{address}: {}", refusal.message);
    }
    world.vswitch(&["detach", "b"]);
    assert_eq!(attach("g", &[]).ipv4().to_string(), "10.1.0.10");
}

#[test]
fn sizes_and_default_subnets_keep_away_from_the_host() {
    let world = world();
    let host = world.host();
    host.ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
    host.ip(&["link", "set", "up0", "up"]);
    host.ip(&["link", "set", "up1", "up"]);
    host.ip(&["route", "add", "172.18.0.0/15", "dev", "up0"]);
    world.network("size", &["--subnet", "0.0.0.0/28", "--subnet", "::/80"]);
    world.network("sizes", &["--subnet", "0.0.0.0/28", "--subnet", "0.0.0.0/24"]);
    world.network("usual", &["--ipv6"]);
    assert_eq!(subnets(&world, "size")[0], "172.20.0.0/28");
    assert_eq!(subnets(&world, "sizes"), ["172.20.0.16/28", "172.20.1.0/24"]);
    let usual = subnets(&world, "usual");
    assert_eq!(usual[0], "172.21.0.0/16");
    assert!(usual[1].starts_with("fd") && usual[1].ends_with("/64"), "{usual:?}");
    assert!(subnets(&world, "size")[1].ends_with("/80"));
    let [a, b] = ["a", "b"].map(|name| world.attach(name, &["--network", "size"]));
    a.pings(b.ipv4());
    a.pings(b.ipv6());
}

#[test]
fn every_family_may_be_left_out() {
    let world = world();
    world.network("six", &["--ipv4=false", "--ipv6"]);
    let by_option = ["com.docker.network.enable_ipv4=false", "com.docker.network.enable_ipv6=true"];
    world.network("option", &["-o", by_option[0], "-o", by_option[1]]);
    for network in ["six", "option"] {
        let [a, b] =
            ["a", "b"].map(|name| world.attach(&format!("{network}-{name}"), &["--network", network]));
        a.pings(b.ipv6());
        assert_eq!(a.ip(&["-4", "address", "show", "dev", "eth0"]), "");
        assert!(default_route(&a, "-6").is_some() && default_route(&a, "-4").is_none());
    }
    world.network("four", &["--ipv4", "--ipv6=false"]);
    assert_eq!(subnets(&world, "four").len(), 1);
}

#[test]
fn reserved_addresses_may_be_the_default_gateway() {
    let world = world();
    let subnets = ["--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/64", "--gateway", "10.1.0.254"];
    let gateways =
        ["--aux-address", "DefaultGatewayIPv4=10.1.0.3", "--aux-address", "DefaultGatewayIPv6=fd00:1::3"];
    world.network("lan", &[&subnets[..], &gateways].concat());
    let container = world.attach("a", &["--network", "lan"]);
    assert_eq!(default_route(&container, "-4").as_deref(), Some("10.1.0.3"));
    assert_eq!(default_route(&container, "-6").as_deref(), Some("fd00:1::3"));
    assert_eq!(container.ipv4().to_string(), "10.1.0.1");
    assert_eq!(world.json(&["network", "inspect", "lan"])[0]["IPAM"]["Config"][0]["Gateway"], "10.1.0.254");
}

#[test]
fn the_smallest_subnets_serve() {
    let world = world();
    world.network("point", &["--subnet", "10.1.0.0/31", "--subnet", "fd00:1::/127"]);
    let container = world.attach("a", &["--network", "point"]);
    assert_eq!(
        (container.ipv4().to_string(), container.ipv6().to_string()),
        ("10.1.0.1".into(), "fd00:1::1".into())
    );
    world.network("none-left", &["--subnet", "10.1.0.2/32"]);
    let refusal = world.refused(&["network", "connect", "none-left", "a"]);
    assert!(refusal.message.contains("no available addresses on this pool"), "{}", refusal.message);
}
