//! Which interface leads out: none, or one by name.

use serde_json::Value;
use vswitch_tests::outside::{FAR, Outside, ROUTERS, UPLINK};
use vswitch_tests::wait;
use vswitch_tests::world::World;
use vswitch_tests::{namespace::Namespace, talk};

use super::VSWITCH;

/// The interface that is shown as the way out.
fn uplink(world: &World) -> Option<String> {
    let stats = world.json(&["stats"]);
    let port = stats["Ports"].as_array().into_iter().flatten().find(|port| port["Sandbox"] == "(uplink)");
    port.and_then(|port| port["Interface"].as_str().map(str::to_owned))
}

#[test]
fn without_an_uplink_containers_reach_this_host_only() {
    let (world, outside) = World::start_with(VSWITCH, &["--uplink", "none"], Outside::behind);
    let [one, two] = ["one", "two"].map(|name| world.attach(name, &[]));
    assert_eq!(uplink(&world), None);
    one.pings(two.ipv4());
    one.pings(vswitch_tests::outside::HOST[0].parse().expect("an address"));
    for far in [ROUTERS[0], FAR[0]] {
        one.cannot_ping(far.parse().expect("an address"));
    }
    let drops = world.counters(&one)["Drops"].clone();
    assert!(drops["no-route"].as_u64() > Some(0), "{drops}");
    assert_eq!(ports_of(&world, "(uplink)"), [] as [Value; 0]);
    drop(outside);
}

fn ports_of(world: &World, sandbox: &str) -> Vec<Value> {
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().cloned().unwrap_or_default();
    ports.into_iter().filter(|port| port["Sandbox"] == sandbox).collect()
}

/// A host with two ways out: the default routes lead through the first, a net behind the second is said by a route.
fn two_ways(host: &Namespace) -> (Outside, Namespace) {
    let outside = Outside::behind(host);
    let second = Namespace::new();
    let peer = ["type", "veth", "peer", "name", "s0", "netns", second.name()];
    host.ip(&[&["link", "add", "up1"][..], &peer].concat());
    for (own, interface, address) in [(host, "up1", "198.18.0.1/24"), (&second, "s0", "198.18.0.2/24")] {
        own.ip(&["link", "set", interface, "up"]);
        own.ip(&["address", "add", address, "dev", interface]);
    }
    second.ip(&["address", "add", "198.51.100.9/32", "dev", "lo"]);
    host.ip(&["route", "add", "198.51.100.0/24", "via", "198.18.0.2"]);
    (outside, second)
}

#[test]
fn an_uplink_by_name_need_not_have_the_default_route() {
    let (world, (outside, second)) = World::start_with(VSWITCH, &["--uplink", "up1"], two_ways);
    let container = world.sandbox("one", &["-p", "8080:80"]);
    assert_eq!(uplink(&world).as_deref(), Some("up1"));
    for target in ["198.18.0.2", "198.51.100.9"] {
        container.pings(target.parse().expect("an address"));
    }
    container.cannot_ping(FAR[0].parse().expect("an address"));
    let listener = talk::listen(&second.path(), "198.51.100.9".parse().expect("an address"));
    let connection = talk::connect(&container.path, listener.local_addr().expect("bound"));
    let (_, peer) = listener.accept().expect("accept");
    assert_eq!(peer.ip().to_string(), "198.18.0.1", "as the host is known there");
    drop((connection, outside));
}

#[test]
fn an_uplink_by_name_may_come_and_go() {
    let (world, outside) = World::start_with(VSWITCH, &["--uplink", "later0"], Outside::behind);
    let container = world.attach("one", &[]);
    let far = FAR[0].parse().expect("an address");
    container.cannot_ping(far);
    assert_eq!(uplink(&world), None);
    world.host().ip(&["link", "set", UPLINK, "down"]);
    world.host().ip(&["link", "set", UPLINK, "name", "later0"]);
    world.host().ip(&["link", "set", "later0", "up"]);
    world.host().ip(&["route", "replace", "default", "via", ROUTERS[0]]);
    wait::until("a way out", || talk::answers(&container.path, far).then_some(()));
    assert_eq!(uplink(&world).as_deref(), Some("later0"));
    drop(outside);
}
