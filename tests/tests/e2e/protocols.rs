//! Payloads of frames: VLAN tags, large packets, protocols that are not IP.

use vswitch_frame::DropReason;
use vswitch_tests::packets::Packet;
use vswitch_tests::raw::{Capture, Wire, ethernet};
use vswitch_tests::wait;

use super::world;

/// Sends tagged frames of every kind and compares what arrives to the byte.
fn vlan_between(one: &str, other: &str) {
    let world = world();
    world.network("net1", &["-o", "vswitch.port_security=off"]);
    let a = world.attach("a", &["--network", "net1", "--port-type", one]);
    let b = world.attach("b", &["--network", "net1", "--port-type", other]);
    let mut wire = Wire::open(&a.path, &a.ifname());
    let mut capture = Capture::start(&b.path, &b.ifname(), "vlan");
    let udp = Packet { tags: vec![(0x8100, 0x6007)], ..Packet::udp(vec![1; 18]) };
    let double = Packet { tags: vec![(0x88a8, 7), (0x8100, 8)], ..Packet::tcp(1, vec![2; 600]) };
    let ipv6 = Packet { ipv6: true, tags: vec![(0x8100, 7)], ..Packet::udp(vec![3; 1000]) };
    for packet in [udp, double, ipv6] {
        let mut frame = packet.bytes();
        frame[..12].copy_from_slice(&[b.mac().0, a.mac().0].concat());
        wire.send(&frame);
        let arrived = capture.receive();
        assert!(arrived == frame, "{arrived:02x?} is not {frame:02x?}");
    }
}

#[test]
fn vlan_tags_pass_between_taps() {
    vlan_between("tap", "tap");
}

#[test]
fn vlan_tags_pass_between_tap_and_veth() {
    vlan_between("tap", "veth");
}

#[test]
fn vlan_tags_pass_between_veths() {
    vlan_between("veth", "veth");
}

#[test]
fn jumbo_frames_pass_where_the_network_allows_them() {
    for port_type in ["tap", "veth"] {
        let world = world();
        world.network("net1", &["-o", "com.docker.network.driver.mtu=9000"]);
        let a = world.attach("a", &["--network", "net1", "--port-type", port_type]);
        let b = world.attach("b", &["--network", "net1", "--port-type", port_type]);
        assert_eq!(a.interface()["mtu"], 9000);
        let before = world.counters(&b)["Drops"].clone();
        a.datagrams(&b, b.ipv4(), &[8972, 8972, 8972, 18]);
        a.transfers(&b, b.ipv4(), 4 << 20);
        assert_eq!(world.counters(&b)["Drops"], before);
    }
}

#[test]
fn a_frame_larger_than_the_receivers_mtu_is_dropped_and_counted() {
    let world = world();
    world.network("net1", &[]);
    let a = world.sandbox("a", &["--network", "net1"]);
    let b = world.sandbox("b", &["--network", "net1"]);
    let interface = a.ifname();
    a.ip(&["link", "set", &interface, "mtu", "9000"]);
    let mut wire = Wire::open(&a.path, &interface);
    let fits = ethernet(b.mac().0, a.mac().0, 0x88b5, &[0; 1500]);
    let too_big = ethernet(b.mac().0, a.mac().0, 0x88b5, &[0; 1501]);
    wire.send(&fits);
    wire.send(&too_big);
    wait::until_equal("one drop", &1, || world.drops(&b, DropReason::TxTooBig));
    assert_eq!(world.drops(&a, DropReason::TxTooBig), 0);
    // A broadcast is too big for each of its receivers.
    wire.send(&ethernet([0xff; 6], a.mac().0, 0x88b5, &[0; 1501]));
    wait::until_equal("two drops", &2, || world.drops(&b, DropReason::TxTooBig));
    // Super-frames are no larger than the segments they stand for.
    b.transfers(&a, a.ipv4(), 1 << 20);
}

#[test]
fn frames_that_are_not_ip_pass_to_the_byte() {
    for port_type in ["tap", "veth"] {
        let world = world();
        world.network("net1", &[]);
        let a = world.attach("a", &["--network", "net1", "--port-type", port_type]);
        let b = world.attach("b", &["--network", "net1", "--port-type", port_type]);
        let mut from = Wire::open(&a.path, &a.ifname());
        let mut to = Wire::open(&b.path, &b.ifname());
        for target in [b.mac().0, [0xff; 6], [0x01, 0, 0x5e, 1, 2, 3]] {
            for length in [46, 47, 1500] {
                let payload: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).expect("small")).collect();
                let frame = ethernet(target, a.mac().0, 0x88b5, &payload);
                from.send(&frame);
                let arrived = wait::until("the frame", || to.receive(|found| found[12..14] == [0x88, 0xb5]));
                assert!(arrived == frame, "{arrived:02x?}");
            }
        }
    }
}
