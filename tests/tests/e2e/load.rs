//! Many ports, and ports that come and go under load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use vswitch_tests::talk;
use vswitch_tests::world::Container;

use super::world;

#[test]
fn ports_come_and_go_while_a_transfer_runs() {
    let world = world();
    world.network("net1", &[]);
    let a = world.sandbox("a", &["--network", "net1"]);
    let b = world.sandbox("b", &["--network", "net1"]);
    let done = AtomicBool::new(false);
    let churned = thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                for port_type in ["tap", "veth", "tap-moved"] {
                    let passing = world.attach("passing", &["--network", "net1", "--port-type", port_type]);
                    world.vswitch(&["detach", &passing.name]);
                    rounds += 1;
                }
            }
            rounds
        });
        a.transfers(&b, b.ipv4(), 512 << 20);
        done.store(true, Ordering::Relaxed);
        churn.join().expect("churn without an error")
    });
    assert!(churned >= 3, "{churned} ports came and went");
    assert_eq!(world.restarts(), 0, "the datapath died on the way");
    assert_eq!(world.json(&["ps"]).as_array().map(Vec::len), Some(2));
}

#[test]
fn each_of_five_hundred_sandboxes_answers() {
    const SANDBOXES: usize = 500;
    let world = world();
    world.network("net1", &["--subnet", "10.5.0.0/16"]);
    let probe = world.sandbox("probe", &["--network", "net1"]);
    let others: Vec<Container> =
        (0..SANDBOXES).map(|number| world.sandbox(&number.to_string(), &["--network", "net1"])).collect();
    let endpoints = world.json(&["ps"]);
    let endpoints = endpoints.as_array().expect("a list");
    assert_eq!(endpoints.len(), SANDBOXES + 1);
    for other in &others {
        let endpoint =
            endpoints.iter().find(|found| found["Sandbox"] == other.name.as_str()).expect("listed");
        let address = endpoint["IPAddress"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        assert!(talk::ping(&probe.path, address, &["-c", "1", "-W", "5"]), "{} is silent", other.name);
    }
    assert_eq!(world.restarts(), 0);
}

#[test]
fn many_flows_of_datagrams_keep_their_order() {
    let world = world();
    let a = world.sandbox("a", &[]);
    let b = world.sandbox("b", &[]);
    let address = b.ipv4();
    // The neighbour is known before many send at once: while it is not, the kernel holds few datagrams.
    a.pings(address);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| a.datagrams(&b, address, &[18; 40]));
        }
    });
}
