//! Walls: containers with ICC off, and networks from each other.

use vswitch_frame::DropReason;
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::wait;

use super::world;

const MARK: u16 = 0x88b5;

fn is_marked(frame: &[u8]) -> bool {
    frame[12..14] == MARK.to_be_bytes()
}

fn icc_off(port_type: &str) {
    let world = world();
    world.network("quiet", &["--ipv6", "-o", "com.docker.network.bridge.enable_icc=false"]);
    let options = ["--network", "quiet", "--port-type", port_type];
    let a = world.attach("a", &options);
    let b = world.attach("b", &options);
    a.cannot_ping(b.ipv4());
    a.cannot_ping(b.ipv6());
    // Neither ARP nor neighbour discovery nor anything else arrives.
    let mut from = Wire::open(&a.path, &a.ifname());
    let mut to = Wire::open(&b.path, &b.ifname());
    let before = world.drops(&a, DropReason::Isolated);
    let all_nodes = [0x33, 0x33, 0, 0, 0, 1];
    // Frames for everybody go to the host, and to nobody else; the last one says when all were looked at.
    for target in [[0xff; 6], all_nodes, [2, 9, 9, 9, 9, 9], b.mac().0] {
        from.send(&ethernet(target, a.mac().0, MARK, &[0; 46]));
    }
    wait::until("the drop", || (world.drops(&a, DropReason::Isolated) > before).then_some(()));
    let mac = a.mac().0;
    assert_eq!(to.receive(|frame| frame[6..12] == mac), None);
}

#[test]
fn icc_off_blocks_everything_between_taps() {
    icc_off("tap");
}

#[test]
fn icc_off_blocks_everything_between_veths() {
    icc_off("veth");
}

#[test]
fn icc_on_lets_the_same_containers_talk() {
    let world = world();
    world.network("quiet", &["-o", "com.docker.network.bridge.enable_icc=false"]);
    world.network("loud", &["-o", "com.docker.network.bridge.enable_icc=true"]);
    let a = world.sandbox("a", &["--network", "quiet"]);
    let b = world.sandbox("b", &["--network", "quiet"]);
    a.cannot_ping(b.ipv4());
    for container in [&a, &b] {
        world.vswitch(&["network", "disconnect", "quiet", &container.name]);
        world.vswitch(&["network", "connect", "loud", &container.name]);
    }
    a.pings(b.ipv4());
}

#[test]
fn networks_with_the_same_addresses_never_see_each_others_frames() {
    let world = world();
    let macs = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
    let mut containers = Vec::new();
    for network in ["net1", "net2"] {
        // The containers use addresses that were not given to them.
        world.network(network, &["-o", "vswitch.port_security=off"]);
        for (number, mac) in macs.iter().enumerate() {
            let name = format!("{network}-{number}");
            let container = world.attach(&name, &["--network", network, "--mac", mac]);
            let address = format!("192.0.2.{}/24", number + 1);
            container.ip(&["address", "add", &address, "dev", &container.ifname()]);
            containers.push(container);
        }
    }
    let [a1, b1, a2, b2] = &containers[..] else { panic!("four containers") };
    let mut elsewhere = [Wire::open(&a2.path, &a2.ifname()), Wire::open(&b2.path, &b2.ifname())];
    let mut wire = Wire::open(&a1.path, &a1.ifname());
    let mut at_home = Wire::open(&b1.path, &b1.ifname());
    for target in [[0xff; 6], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 9]] {
        wire.send(&ethernet(target, a1.mac().0, MARK, &[0; 46]));
        wait::until("the frame at home", || at_home.receive(is_marked));
    }
    for wire in &mut elsewhere {
        assert_eq!(wire.receive(is_marked), None);
    }
    // One conversation in both, at once: a byte of the other's would be a wrong one.
    let address = [192, 0, 2, 2].into();
    std::thread::scope(|scope| {
        scope.spawn(|| a1.transfers(b1, address, 4 << 20));
        a2.transfers(b2, address, 3 << 20);
    });
}
