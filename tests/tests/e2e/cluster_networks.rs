//! Networks of a cluster on its hosts: made where somebody is on them, and nowhere else.

use std::net::IpAddr;

use nix::sys::signal::Signal;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::world::World;
use vswitch_tests::{talk, wait};

use super::cluster::{Underlay, answers, container, look_up, removes, sees, span};

/// The number of interfaces that networks have on a host, beside that of the default one.
fn interfaces(world: &World) -> usize {
    world.host().ip(&["-brief", "link"]).lines().filter(|line| line.starts_with("br-")).count()
}

/// The number of tunnels of a host.
fn tunnels(world: &World) -> usize {
    let stats = world.json(&["stats"]);
    let ports = stats["Ports"].as_array().cloned().unwrap_or_default();
    ports.iter().filter(|port| port["Sandbox"] == "(tunnel)").count()
}

/// Problems of the network on a host.
pub(super) fn problems(world: &World) -> Vec<String> {
    let shown = world.json(&["network", "inspect", "wide"]);
    let problems = shown[0]["Problems"].as_array().cloned().unwrap_or_default();
    problems.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect()
}

#[test]
fn a_network_costs_nothing_on_a_host_where_nobody_is_on_it() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<2>();
    span(&worlds, &["--subnet", "fd09::/64"]);
    let cost = |world: &World| (interfaces(world), tunnels(world));
    for world in &worlds {
        assert_eq!(cost(world), (0, 0));
        let shown = world.json(&["network", "inspect", "wide"]);
        let expected = ("overlay".into(), "swarm".into(), "10.9.0.0/24".into());
        let known = (&shown[0]["Driver"], &shown[0]["Scope"], &shown[0]["IPAM"]["Config"][0]["Subnet"]);
        assert_eq!(known, (&expected.0, &expected.1, &expected.2));
    }
    // Its name and its addresses are taken all the same.
    let message = worlds[1].refused(&["network", "create", "wide"]).message;
    assert!(message.contains("network with name wide already exists"), "{message}");
    let message = worlds[1].refused(&["network", "create", "--subnet", "10.9.0.0/25", "other"]).message;
    assert!(message.contains("Pool overlaps with other one on this address space"), "{message}");
    let a = container(&worlds[0], "a", &[]);
    assert_eq!((cost(&worlds[0]), cost(&worlds[1])), ((1, 1), (0, 0)));
    let message = worlds[1].refused(&["network", "rm", "wide"]).message;
    assert!(message.contains("has active endpoints") && message.contains("host1"), "{message}");
    // The first container makes it, by name or by identifier.
    let id = worlds[1].json(&["network", "inspect", "wide"])[0]["Id"].as_str().expect("one").to_owned();
    let b = worlds[1].attach("b", &["--network", &id[..12]]);
    assert_eq!(cost(&worlds[1]), (1, 1));
    for (from, to) in [(&a, &b), (&b, &a)] {
        answers(from, to.ipv4());
        answers(from, to.ipv6());
        wait::until_equal("a name", &Some(to.ipv4()), || look_up(from, &to.name));
    }
    // And the last one leaves nothing.
    worlds[1].vswitch(&["detach", "b"]);
    assert_eq!(cost(&worlds[1]), (0, 0));
    assert!(worlds[1].vswitch(&["network", "ls"]).contains("wide"));
    wait::until_equal("its name is gone", &None, || look_up(&a, "b"));
    let again = container(&worlds[1], "again", &[]);
    answers(&again, a.ipv4());
    wait::until_equal("a name", &Some(a.ipv4()), || look_up(&again, "a"));
}

#[test]
fn a_network_that_would_cut_a_host_off_is_refused_there_and_nowhere_else() {
    let underlay = Underlay::new();
    let mut worlds = underlay.cluster::<3>();
    let route = ["10.9.0.0/25", "via", "192.0.2.1"];
    worlds[2].host().ip(&[&["route", "add"], &route[..]].concat());
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let spare = Namespace::new();
    let attach = ["attach", "c", "--netns", spare.name(), "--network", "wide"];
    for _ in 0..2 {
        let message = worlds[2].refused(&attach).message;
        assert!(message.contains("Pool overlaps with other one on this address space"), "{message}");
        assert!(message.contains("10.9.0.0/25"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let said = worlds[2].logged().lines().filter(|line| line.contains("cannot be on this host")).count();
    assert_eq!(said, 1, "{}", worlds[2].logged());
    assert!(problems(&worlds[2])[0].contains("10.9.0.0/25"));
    assert_eq!(problems(&worlds[1]), <[&str; 0]>::default());
    let b = container(&worlds[1], "b", &[]);
    answers(&a, b.ipv4());
    worlds[2].host().ip(&["route", "delete", "10.9.0.0/25"]);
    assert_eq!(problems(&worlds[2]), <[&str; 0]>::default());
    let c = container(&worlds[2], "c", &[]);
    answers(&c, b.ipv4());
    // Nor after a start: containers reach each other, and the host what it did.
    worlds[2].stop(Signal::SIGTERM);
    worlds[2].host().ip(&[&["route", "add"], &route[..]].concat());
    worlds[2].start_again();
    answers(&c, b.ipv4());
    let way = worlds[2].host().ip(&["route", "get", "10.9.0.5"]);
    assert!(way.contains("via 192.0.2.1"), "{way}");
    assert!(problems(&worlds[2])[0].contains("10.9.0.0/25"));
    worlds[2].host().ip(&[&["route", "delete"], &route[..]].concat());
    wait::until("the host is on it again", || (interfaces(&worlds[2]) == 1).then_some(()));
}

#[test]
fn rules_outlive_a_network_that_another_host_removes_and_hold_from_the_first_packet_of_the_next() {
    let underlay = Underlay::new();
    let worlds = underlay.cluster::<2>();
    span(&worlds, &[]);
    worlds[1]
        .vswitch(&["rule", "add", "--from", "wide", "--to", "wide", "--proto", "icmp", "--action", "drop"]);
    let blocked = |round: usize| {
        let near = worlds[1].attach(&format!("near{round}"), &["--network", "wide"]);
        let also = worlds[1].attach(&format!("also{round}"), &["--network", "wide"]);
        assert!(!talk::answers(&near.path, also.ipv4()), "round {round}");
        for name in ["near", "also"] {
            worlds[1].vswitch(&["detach", &format!("{name}{round}")]);
        }
    };
    blocked(1);
    removes(&worlds[0]);
    wait::until("it is gone", || (!worlds[1].vswitch(&["network", "ls"]).contains("wide")).then_some(()));
    assert!(worlds[1].vswitch(&["rule", "ls"]).contains("wide"), "the rule stays");
    span(&worlds, &[]);
    blocked(2);
    worlds[1].vswitch(&["rule", "rm", "1"]);
    let near = container(&worlds[1], "near", &[]);
    let also = container(&worlds[1], "also", &[]);
    answers(&near, also.ipv4());
}

#[test]
fn a_host_that_is_advertised_at_another_address_is_reached_there() {
    let underlay = Underlay::new();
    let mut worlds = underlay.cluster::<2>();
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let b = container(&worlds[1], "b", &[]);
    answers(&a, b.ipv4());
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let (before, after) = if signal == Signal::SIGKILL { ("2", "22") } else { ("22", "2") };
        let [before, after] = [before, after].map(|last| format!("192.0.2.{last}"));
        worlds[1].stop(signal);
        worlds[1].host().ip(&["address", "add", &format!("{after}/24"), "dev", "wan0"]);
        worlds[1].host().ip(&["address", "delete", &format!("{before}/24"), "dev", "wan0"]);
        // The kernel deletes what was secondary with the first one.
        drop(worlds[1].host().output(std::process::Command::new("ip").args([
            "address",
            "add",
            &format!("{after}/24"),
            "dev",
            "wan0",
        ])));
        let arguments = underlay.gossips(2);
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|word| if *word == "192.0.2.2" { after.as_str() } else { word.as_str() })
            .collect();
        worlds[1].set_options(&arguments);
        worlds[1].start_again();
        worlds.iter().for_each(|world| sees(world, 1));
        answers(&a, b.ipv4());
        answers(&b, a.ipv4());
        wait::until_equal("its name", &Some(b.ipv4()), || look_up(&a, "b"));
        let peers = worlds[0].json(&["network", "inspect", "wide"])[0]["Peers"][0]["IP"].clone();
        assert_eq!(peers, after.as_str());
    }
}

#[test]
fn a_host_that_was_installed_again_at_its_address_keeps_nobody_from_the_others() {
    let underlay = Underlay::new();
    let [first, second, third] = underlay.cluster::<3>();
    let worlds = [first, second, third];
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let lost = container(&worlds[1], "lost", &[]);
    answers(&a, lost.ipv4());
    let [first, second, third] = worlds;
    drop(second);
    // The kernel takes a namespace's interfaces away some time after it is gone.
    wait::until("its cable is gone", || {
        (!underlay.bridge.ip(&["-o", "link"]).contains("port2")).then_some(())
    });
    let second = underlay.host(2);
    sees(&second, 2);
    wait::until("the network is there", || second.vswitch(&["network", "ls"]).contains("wide").then_some(()));
    let b = container(&second, "b", &[]);
    let c = container(&third, "c", &[]);
    for (from, to) in [(&a, &b), (&b, &c), (&c, &a)] {
        answers(from, to.ipv4());
        wait::until_equal("a name", &Some(to.ipv4()), || look_up(from, &to.name));
    }
    let line = "192.0.2.2 is this host's own tunnel address";
    assert!(second.logged().contains(line), "{}", second.logged());
    let peers = first.json(&["network", "inspect", "wide"])[0]["Peers"].clone();
    let peers: Vec<IpAddr> =
        peers.as_array().into_iter().flatten().filter_map(|peer| peer["IP"].as_str()?.parse().ok()).collect();
    assert_eq!(peers, [IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 3])]);
}
