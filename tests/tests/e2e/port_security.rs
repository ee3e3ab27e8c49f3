//! A container cannot pose as another, and what it sends in another's name changes nothing.

use vswitch_frame::DropReason;
use vswitch_tests::packets::Packet;
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::wait;

use super::world;

const FORGED: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];

fn arp(mac: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &address, &[0; 6], &[10, 68, 0, 9], &[0; 18]].concat();
    ethernet([0xff; 6], mac, 0x0806, &body)
}

#[test]
fn what_is_forged_is_dropped_and_counted() {
    for port_type in ["tap", "veth"] {
        let world = world();
        world.network("net1", &["--subnet", "10.68.0.0/24", "--subnet", "fd68::/64"]);
        let options = |ip| ["--network", "net1", "--port-type", port_type, "--ip", ip];
        let a = world.attach("a", &options("10.68.0.2"));
        let b = world.attach("b", &options("10.68.0.3"));
        a.pings(b.ipv4());
        a.pings(b.ipv6());
        let mut from = Wire::open(&a.path, &a.ifname());
        let mut to = Wire::open(&b.path, &b.ifname());
        let mut datagram = Packet::udp(vec![7; 40]).bytes();
        datagram[..12].copy_from_slice(&[b.mac().0, a.mac().0].concat());
        let forgeries = [
            (ethernet(b.mac().0, FORGED, 0x88b5, &[0; 46]), DropReason::SpoofedMac),
            (datagram, DropReason::SpoofedIp),
            (arp(a.mac().0, [10, 68, 0, 3]), DropReason::SpoofedArp),
        ];
        for (frame, reason) in forgeries {
            from.send(&frame);
            wait::until_equal(reason.label(), &1, || world.drops(&a, reason));
        }
        assert!(!world.json(&["fdb", "net1"]).to_string().contains("02:aa:00:00:00:01"));
        // A packet of its own passes, and nothing that was sent before it arrived.
        from.send(&arp(a.mac().0, [10, 68, 0, 2]));
        let sender = |frame: &[u8]| frame[12..14] == [8, 6] && frame[38..42] == [10, 68, 0, 9];
        let arrived = wait::until("the ARP packet", || to.receive(sender));
        assert_eq!(arrived[28..32], [10, 68, 0, 2]);
    }
}

#[test]
fn an_address_that_was_not_given_is_of_no_use_unless_the_network_says_so() {
    let world = world();
    world.network("strict", &[]);
    world.network("lenient", &["-o", "vswitch.port_security=off"]);
    for (network, reached) in [("strict", false), ("lenient", true)] {
        let [a, b] =
            ["a", "b"].map(|name| world.sandbox(&format!("{network}-{name}"), &["--network", network]));
        a.ip(&["address", "add", "192.0.2.1/24", "dev", &a.ifname()]);
        b.ip(&["address", "add", "192.0.2.2/24", "dev", &b.ifname()]);
        let address = [192, 0, 2, 2].into();
        if reached {
            a.pings(address);
        } else {
            a.cannot_ping(address);
            assert!(world.drops(&a, DropReason::SpoofedArp) > 0);
        }
        a.pings(b.ipv4());
    }
}
