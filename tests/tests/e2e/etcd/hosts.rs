//! Switches whose cluster is in an etcd, each in a host namespace of its own; etcd is on the underlay.

use std::net::IpAddr;
use std::time::Duration;

use vswitch_sys::clock;
use vswitch_tests::etcd::Etcd;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::wait;
use vswitch_tests::world::World;

use crate::VSWITCH;
use crate::cluster::{Underlay, answers, container, kill_and_start_again, look_up, sees, span};

/// etcd's address, on the underlay's bridge.
const ETCD: &str = "192.0.2.100";
/// Longer than any lease here: whoever has to be given up on is given up on.
const LONG: Duration = Duration::from_secs(60);

fn etcd(underlay: &Underlay) -> Etcd {
    underlay.bridge.ip(&["address", "add", &format!("{ETCD}/24"), "dev", "br0"]);
    Etcd::start(&underlay.bridge, ETCD)
}

fn host(underlay: &Underlay, etcd: &Etcd, number: usize) -> World {
    let (url, name) = (etcd.url(), format!("host{number}"));
    let arguments = ["--uplink", "none", "--cluster", &url, "--cluster-host", &name, "--cluster-lease", "5"];
    World::start_with(VSWITCH, &arguments, |host| underlay.connect(host, number)).0
}

fn cluster<const HOSTS: usize>(underlay: &Underlay, etcd: &Etcd) -> [World; HOSTS] {
    let worlds = std::array::from_fn(|index| host(underlay, etcd, index + 1));
    worlds.iter().for_each(|world| sees(world, HOSTS - 1));
    worlds
}

#[test]
fn containers_reach_each_other_and_go_on_while_etcd_is_away() {
    let underlay = Underlay::new();
    let mut etcd = etcd(&underlay);
    let worlds = cluster::<2>(&underlay, &etcd);
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let b = container(&worlds[1], "b", &["--ip", "10.9.0.200"]);
    assert_ne!(a.ipv4(), b.ipv4());
    answers(&a, b.ipv4());
    wait::until_equal("a name is answered", &Some(b.ipv4()), || look_up(&a, "b"));

    let spare = Namespace::new();
    let attach = ["attach", "again", "--netns", spare.name(), "--network", "wide", "--ip", "10.9.0.200"];
    let message = worlds[0].refused(&attach).message;
    assert!(message.contains("address 10.9.0.200 is taken by b on host host2"), "{message}");

    etcd.stop();
    let from = clock::now();
    while clock::now().since(from) < LONG {
        a.transfers(&b, b.ipv4(), 1 << 20);
    }
    let late = container(&worlds[0], "late", &[]);
    answers(&a, late.ipv4());
    let message = worlds[0].refused(&["network", "create", "new", "-d", "overlay"]).message;
    assert!(message.contains("no etcd answers on 192.0.2.100:2379"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    etcd.start_again();
    worlds.iter().for_each(|world| sees(world, 1));
    answers(&b, late.ipv4());
    wait::until_equal("a name is answered", &Some(late.ipv4()), || look_up(&b, "late"));
}

#[test]
fn a_container_that_moved_is_followed() {
    let underlay = Underlay::new();
    let etcd = etcd(&underlay);
    let worlds = cluster::<3>(&underlay, &etcd);
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let options = ["--ip", "10.9.0.100", "--mac-address", "02:42:0a:09:00:64", "--alias", "mover"];
    let first = container(&worlds[1], "mover-1", &options);
    let address = first.ipv4();
    answers(&a, address);
    worlds[1].vswitch(&["detach", "mover-1"]);
    let second = wait::until("the address is free again", || {
        let namespace = Namespace::new();
        let attach = ["attach", "mover-2", "--netns", namespace.name(), "--network", "wide"];
        let output = worlds[2].command(&[&attach, &options[..]].concat()).output().expect("vswitch starts");
        output.status.success().then_some(namespace)
    });
    answers(&a, address);
    wait::until_equal("its name", &Some(address), || look_up(&a, "mover"));
    drop(second);
}

#[test]
fn a_host_is_killed_and_back_and_another_is_cut_off() {
    let underlay = Underlay::new();
    let etcd = etcd(&underlay);
    let mut worlds = cluster::<3>(&underlay, &etcd);
    span(&worlds, &[]);
    let a = container(&worlds[0], "a", &[]);
    let c = container(&worlds[2], "c", &[]);
    kill_and_start_again(&mut worlds, &a, &c);

    underlay.set(3, "down");
    sees(&worlds[0], 1);
    let here = container(&worlds[0], "here", &[]);
    let there = container(&worlds[2], "there", &[]);
    assert_ne!(here.ipv4(), there.ipv4());
    underlay.set(3, "up");
    worlds.iter().for_each(|world| sees(world, 2));
    answers(&here, there.ipv4());
    wait::until_equal("a name", &Some(there.ipv4()), || look_up(&a, "there"));
    let addresses: std::collections::BTreeSet<IpAddr> = [&a, &c, &here, &there].map(|it| it.ipv4()).into();
    assert_eq!(addresses.len(), 4, "{addresses:?}");
}
