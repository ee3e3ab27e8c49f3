//! The forwarding table as an operator sees it: addresses given, learned, moved, forgotten.

use serde_json::Value;
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World};

use super::world;

/// A network whose containers may send from addresses that are not theirs.
const FORGEABLE: &[&str] = &["-o", "vswitch.port_security=off"];
const STATION: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];
const STATION_TEXT: &str = "02:aa:00:00:00:01";

fn entry(world: &World, mac: &str) -> Option<Value> {
    let table = world.json(&["fdb", "net1"]);
    table.as_array().and_then(|all| all.iter().find(|entry| entry["MacAddress"] == mac).cloned())
}

/// Sends a broadcast from an address that is nobody's by configuration.
fn appears_at(container: &Container) {
    let mut wire = Wire::open(&container.path, &container.ifname());
    wire.send(&ethernet([0xff; 6], STATION, 0x88b5, &[0; 46]));
}

fn is_at(world: &World, container: &Container) -> bool {
    entry(world, STATION_TEXT).is_some_and(|entry| entry["Sandbox"] == container.name.as_str())
}

#[test]
fn addresses_are_learned_and_move_and_are_forgotten_with_their_port() {
    let world = world();
    world.network("net1", FORGEABLE);
    let [a, b, c] = ["a", "b", "c"].map(|name| world.attach(name, &["--network", "net1"]));
    let given = entry(&world, &a.mac().to_string()).expect("the address a was given");
    assert_eq!((&given["Static"], &given["Sandbox"]), (&true.into(), &"a".into()));
    assert_eq!(entry(&world, STATION_TEXT), None);

    appears_at(&a);
    wait::until("learned at a", || is_at(&world, &a).then_some(()));
    let learned = entry(&world, STATION_TEXT).expect("learned");
    assert_eq!(learned["Static"], false);

    // Frames to it now go to a alone.
    let (mut at_a, mut at_c) = (Wire::open(&a.path, &a.ifname()), Wire::open(&c.path, &c.ifname()));
    let mut wire = Wire::open(&b.path, &b.ifname());
    let to_station = ethernet(STATION, b.mac().0, 0x88b6, &[0; 46]);
    wire.send(&to_station);
    let sent = |frame: &[u8]| frame[12..14] == [0x88, 0xb6];
    assert_eq!(wait::until("the frame at a", || at_a.receive(sent)), to_station);
    assert_eq!(at_c.receive(sent), None);

    appears_at(&b);
    wait::until("moved to b", || is_at(&world, &b).then_some(()));
    world.vswitch(&["detach", "b"]);
    assert_eq!(entry(&world, STATION_TEXT), None);
    assert_eq!(entry(&world, &c.mac().to_string()).expect("c stays")["Sandbox"], "c");
}

#[test]
fn an_address_given_to_one_port_cannot_be_taken_by_another() {
    use vswitch_frame::DropReason;
    let world = world();
    world.network("net1", FORGEABLE);
    let a = world.attach("a", &["--network", "net1"]);
    let b = world.attach("b", &["--network", "net1"]);
    let mut wire = Wire::open(&b.path, &b.ifname());
    wire.send(&ethernet([0xff; 6], a.mac().0, 0x88b5, &[0; 46]));
    wait::until_equal("the frame is dropped", &1, || world.drops(&b, DropReason::SourceTaken));
    assert_eq!(entry(&world, &a.mac().to_string()).expect("given")["Sandbox"], "a");
    b.pings(a.ipv4());
}
