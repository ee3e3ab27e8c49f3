//! What a control that ends, by whatever cause, leaves to the one that comes after it.

use std::fs;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use vswitch_tests::namespace::inside;
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World, send_signal};

use super::world;

const PORT_TYPES: [&str; 3] = ["tap", "tap-moved", "veth"];

/// A network with a sandbox and an attached container for each port type.
fn populate(world: &World) -> Vec<Container> {
    world.network("net1", &["--subnet", "10.7.0.0/24", "--subnet", "fd07::/64", "--label", "a=b"]);
    let mut containers = Vec::new();
    for port_type in PORT_TYPES {
        let options = ["--network", "net1", "--port-type", port_type, "--alias", "other"];
        containers.push(world.attach(&format!("attached-{port_type}"), &options));
    }
    containers.push(world.sandbox("made", &["--network", "net1"]));
    containers.push(world.sandbox("default", &[]));
    world.vswitch(&["network", "connect", "net1", &containers[4].name]);
    containers
}

/// All that clients can see of the configuration.
fn seen(world: &World) -> [serde_json::Value; 3] {
    ["/networks", "/sandboxes", "/endpoints"].map(|path| world.curl("GET", path, None).1)
}

fn all_reach_the_first(containers: &[Container]) {
    for container in &containers[1..4] {
        container.pings(containers[0].ipv4());
        container.pings(containers[0].ipv6());
    }
}

#[test]
fn a_killed_control_costs_no_connection() {
    let mut world = world();
    let containers = populate(&world);
    let (a, b) = (&containers[0], &containers[2]);
    let before = seen(&world);
    let counted = || world.counters(a)["ReceivedBytes"].as_u64().expect("a counter");
    let received = counted();
    let datapath = world.datapath_pid();
    thread::scope(|scope| {
        let transfer = scope.spawn(|| a.transfers(b, b.ipv4(), 512 << 20));
        wait::until("traffic", || (counted() > received + (8 << 20)).then_some(()));
        world.stop(Signal::SIGKILL);
        world.start_again();
        assert!(!transfer.is_finished(), "the transfer was over before control was back");
        transfer.join().expect("the transfer survives");
    });
    assert_eq!(world.datapath_pid(), datapath, "the datapath was replaced");
    assert!(world.counters(a)["ReceivedBytes"].as_u64().expect("a counter") > received + (512 << 20));
    assert_eq!(seen(&world), before);
    all_reach_the_first(&containers);
}
