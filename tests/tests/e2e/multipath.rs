//! Routes with several next hops, with next hops of the other family, by nexthop objects, and very many.

use std::fmt::Write;
use std::process::Command;

use serde_json::Value;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::outside::{FAR, HOST, Outside, ROUTERS, UPLINK};
use vswitch_tests::talk;
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World};

use super::VSWITCH;

/// The other way into the world: its interface, and the router there.
const SECOND: &str = "up1";
const SECOND_HOST: [&str; 2] = ["198.18.0.2", "2001:db8:2::2"];
const SECOND_ROUTERS: [&str; 2] = ["198.18.0.1", "2001:db8:2::1"];

/// A host with two ways into one world, which it has no default route to yet.
fn two_ways(host: &Namespace) -> Outside {
    let outside = Outside::behind(host);
    let peer = ["type", "veth", "peer", "name", "down1", "netns", outside.namespace().name()];
    host.ip(&[&["link", "add", SECOND][..], &peer].concat());
    for (own, interface, addresses) in
        [(host, SECOND, SECOND_HOST), (outside.namespace(), "down1", SECOND_ROUTERS)]
    {
        own.ip(&["link", "set", interface, "up"]);
        own.ip(&["address", "add", &format!("{}/24", addresses[0]), "dev", interface]);
        own.ip(&["address", "add", &format!("{}/64", addresses[1]), "dev", interface, "nodad"]);
    }
    for family in ["-4", "-6"] {
        host.ip(&[family, "route", "del", "default"]);
    }
    outside
}

/// A container on a network with both families.
fn container(world: &World) -> Container {
    world.network("both", &["--ipv6"]);
    world.attach("one", &["--network", "both"])
}

fn reaches_the_world(container: &Container) {
    for far in FAR {
        let far = far.parse().expect("an address");
        wait::until("the world answers", || {
            talk::ping(&container.path, far, &["-c", "1", "-W", "1"]).then_some(())
        });
    }
}

/// The interfaces that are shown as uplinks.
fn uplinks(world: &World) -> Vec<String> {
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().cloned().unwrap_or_default().into_iter();
    let ports = ports.filter(|port| port["Sandbox"] == "(uplink)" && port["Gone"] == false);
    ports.filter_map(|port| port["Interface"].as_str().map(str::to_owned)).collect()
}

/// The packets that a container's network sent by an interface to be answered.
fn carried(outside: &Outside, interface: &str) -> u64 {
    let shown = outside.namespace().ip(&["-s", "-j", "link", "show", interface]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    shown[0]["stats64"]["rx"]["packets"].as_u64().expect("a number")
}

/// Takes each way down in turn, and expects the world to answer by the other.
fn survives_each(world: &World, outside: &Outside, one: &Container) {
    reaches_the_world(one);
    wait::until_equal("both are uplinks", &[UPLINK, SECOND].map(str::to_owned).to_vec(), || uplinks(world));
    for (down, up) in [("down0", "down1"), ("down1", "down0")] {
        outside.namespace().ip(&["link", "set", down, "down"]);
        let before = carried(outside, up);
        reaches_the_world(one);
        assert!(carried(outside, up) > before);
        outside.namespace().ip(&["link", "set", down, "up"]);
        // Routers that went down lose their address of IPv6.
        let (number, address) = if down == "down0" { (0, ROUTERS[1]) } else { (1, SECOND_ROUTERS[1]) };
        let net = format!("{address}/64");
        outside.namespace().ip(&["address", "replace", &net, "dev", &format!("down{number}"), "nodad"]);
        reaches_the_world(one);
    }
}

#[test]
fn containers_follow_a_default_route_with_several_next_hops() {
    let (world, outside) = World::start_prepared(VSWITCH, |host| {
        let outside = two_ways(host);
        for (first, second) in [(ROUTERS[0], SECOND_ROUTERS[0]), (ROUTERS[1], SECOND_ROUTERS[1])] {
            let hops = ["nexthop", "via", first, "dev", UPLINK, "nexthop", "via", second, "dev", SECOND];
            host.ip(&[&["route", "add", "default"][..], &hops].concat());
        }
        outside
    });
    let one = container(&world);
    survives_each(&world, &outside, &one);
}

#[test]
fn containers_follow_nexthop_objects_however_routes_show_them() {
    for shown in ["1", "0"] {
        let (world, outside) = World::start_prepared(VSWITCH, |host| {
            let outside = two_ways(host);
            let setting = format!("net.ipv4.nexthop_compat_mode={shown}");
            let set = host.output(Command::new("sysctl").args(["-w", &setting]));
            assert!(set.status.success(), "{set:?}");
            for (family, id) in [(0, "1"), (1, "2")] {
                let (first, second) = (format!("{id}1"), format!("{id}2"));
                host.ip(&["nexthop", "add", "id", &first, "via", ROUTERS[family], "dev", UPLINK]);
                host.ip(&["nexthop", "add", "id", &second, "via", SECOND_ROUTERS[family], "dev", SECOND]);
                host.ip(&["nexthop", "add", "id", id, "group", &format!("{first}/{second}")]);
                let version = if family == 0 { "-4" } else { "-6" };
                host.ip(&[version, "route", "add", "default", "nhid", id]);
            }
            outside
        });
        let one = container(&world);
        reaches_the_world(&one);
        wait::until_equal("both are uplinks", &2, || uplinks(&world).len());
        // The objects change, and no route does.
        for (id, second) in [("1", "12"), ("2", "22")] {
            world.host().ip(&["nexthop", "replace", "id", id, "group", second]);
        }
        wait::until_equal("one is left", &vec![SECOND.to_owned()], || uplinks(&world));
        let before = carried(&outside, "down1");
        reaches_the_world(&one);
        assert!(carried(&outside, "down1") > before);
    }
}

#[test]
fn containers_follow_an_ipv4_route_by_an_ipv6_next_hop() {
    const NEAR: &str = "fe80::2";
    const ROUTER: &str = "fe80::1";
    // As routing daemons set up links without addresses: the host's own are those of its loopback.
    let (world, outside) = World::start_prepared(VSWITCH, |host| {
        let outside = Outside::behind(host);
        let there = outside.namespace();
        for (namespace, interface, own) in [(host, UPLINK, NEAR), (there, "down0", ROUTER)] {
            namespace.ip(&["address", "flush", "dev", interface]);
            namespace.ip(&["address", "add", &format!("{own}/64"), "dev", interface, "nodad"]);
        }
        for (number, length) in [(0, 32), (1, 128)] {
            let own = format!("{}/{length}", HOST[number]);
            host.ip(&["address", "add", &own, "dev", "lo"]);
            let to_it = if number == 0 { ["via", "inet6", NEAR].to_vec() } else { ["via", NEAR].to_vec() };
            there.ip(&[&["route", "add", &own][..], &to_it, &["dev", "down0"]].concat());
        }
        host.ip(&["-4", "route", "replace", "default", "via", "inet6", ROUTER, "dev", UPLINK]);
        host.ip(&["-6", "route", "replace", "default", "via", ROUTER, "dev", UPLINK]);
        outside
    });
    let one = container(&world);
    assert_eq!(uplinks(&world), [UPLINK]);
    reaches_the_world(&one);
    let server = talk::listen(&outside.path(), FAR[0].parse().expect("an address"));
    let connection = talk::connect(&one.path, server.local_addr().expect("bound"));
    let (_, peer) = server.accept().expect("accept");
    assert_eq!(peer.ip().to_string(), HOST[0], "as the host is known there");
    drop(connection);
}

#[test]
fn no_number_of_routes_hides_a_default_route() {
    let (world, outside) = World::start_prepared(VSWITCH, |host| {
        let outside = Outside::behind(host);
        let mut batch = String::new();
        for number in 0..1000 {
            let net = format!("10.{}.{}.0/24", 128 + number / 250, number % 250);
            writeln!(batch, "route add {net} via {} metric 5", ROUTERS[0]).expect("a string");
        }
        let file = std::env::temp_dir().join(format!("{}-routes", host.name()));
        std::fs::write(&file, batch).expect("written");
        host.ip(&["-batch", file.to_str().expect("text")]);
        std::fs::remove_file(file).expect("ours");
        outside
    });
    let one = container(&world);
    reaches_the_world(&one);
    assert_eq!(
        world.logged().matches("routes of the host are not followed").count(),
        1,
        "{}",
        world.logged()
    );
    drop(outside);
}
