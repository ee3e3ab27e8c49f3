//! Malformed frames are counted drops: the right reason, once, and nothing else changes.

use serde_json::{Value, json};
use vswitch_frame::DropReason;
use vswitch_tests::packets::{Packet, Transport};
use vswitch_tests::raw::{Wire, ethernet};
use vswitch_tests::wait;
use vswitch_tests::world::{Container, World};

use super::world;

/// The changes of the drops of a port.
fn difference(before: &Value, after: &Value) -> Value {
    let mut changed = json!({});
    for reason in DropReason::ALL {
        let count = |drops: &Value| drops[reason.label()].as_u64().unwrap_or(0);
        if count(after) != count(before) {
            changed[reason.label()] = (count(after) - count(before)).into();
        }
    }
    changed
}

fn is_dropped(world: &World, from: &Container, others: &[&Container], frame: &[u8], reason: DropReason) {
    let drops = |container: &Container| world.counters(container)["Drops"].clone();
    let before = drops(from);
    let before_of_others: Vec<Value> = others.iter().map(|other| drops(other)).collect();
    Wire::open(&from.path, &from.ifname()).send(frame);
    let expected = json!({ reason.label(): 1 });
    wait::until_equal(reason.label(), &expected, || difference(&before, &drops(from)));
    let after_of_others: Vec<Value> = others.iter().map(|other| drops(other)).collect();
    assert_eq!(before_of_others, after_of_others, "{reason}: counted elsewhere, too");
}

/// A frame from one container to another with this behind the Ethernet header.
fn packet(from: &Container, to: &Container, packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.bytes();
    bytes[..6].copy_from_slice(&to.mac().0);
    bytes[6..12].copy_from_slice(&from.mac().0);
    bytes
}

fn every_malformation(port_type: &str) {
    let world = world();
    world.network("net1", &["-o", "vswitch.port_security=off"]);
    let options = ["--network", "net1", "--port-type", port_type];
    let a = world.attach("a", &options);
    let b = world.attach("b", &options);
    let drop = |frame: &[u8], reason| is_dropped(&world, &a, &[&b], frame, reason);
    let plain = |target, initiator| ethernet(target, initiator, 0x88b5, &[0; 46]);

    drop(&plain(b.mac().0, [3, 0, 0, 0, 0, 1]), DropReason::BadSource);
    drop(&plain(b.mac().0, [0; 6]), DropReason::BadSource);
    drop(&plain([0x01, 0x80, 0xc2, 0, 0, 0], a.mac().0), DropReason::LinkLocal);
    drop(&plain(a.mac().0, [2, 0, 0, 0, 0, 9]), DropReason::Reflected);
    drop(&plain([0xff; 6], b.mac().0), DropReason::SourceTaken);

    let mut cut = packet(&a, &b, &Packet::udp(vec![0; 40]));
    cut.truncate(60);
    drop(&cut, DropReason::MalformedIpv4);
    let mut cut = packet(&a, &b, &Packet { ipv6: true, ..Packet::udp(vec![0; 40]) });
    cut.truncate(70);
    drop(&cut, DropReason::MalformedIpv6);
    let mut wrong = packet(&a, &b, &Packet::udp(vec![0; 40]));
    wrong[14 + 20 + 5] += 1;
    drop(&wrong, DropReason::MalformedUdp);
    let mut wrong = packet(&a, &b, &Packet::tcp(1, vec![0; 40]));
    wrong[14 + 20 + 12] = 0x40;
    drop(&wrong, DropReason::MalformedTcp);

    a.pings(b.ipv4());
    assert_eq!(world.restarts(), 0);
}

#[test]
fn malformed_frames_from_a_tap_are_counted() {
    every_malformation("tap");
}

#[test]
fn malformed_frames_from_a_veth_are_counted() {
    every_malformation("veth");
}

#[test]
fn a_tag_cut_short_makes_a_runt() {
    let world = world();
    world.network("net1", &["-o", "vswitch.port_security=off"]);
    let a = world.attach("a", &["--network", "net1"]);
    let b = world.attach("b", &["--network", "net1"]);
    let frame = ethernet(b.mac().0, a.mac().0, 0x8100, &[]);
    is_dropped(&world, &a, &[&b], &frame, DropReason::Runt);
}

/// A wrong checksum must arrive wrong: the receiver's stack is the one to notice.
#[test]
fn corrupt_datagrams_are_not_made_right() {
    let world = world();
    world.network("net1", &["-o", "vswitch.port_security=off"]);
    let a = world.attach("a", &["--network", "net1"]);
    let b = world.attach("b", &["--network", "net1"]);
    let (mut from, mut to) = (Wire::open(&a.path, &a.ifname()), Wire::open(&b.path, &b.ifname()));
    let mut sent = Vec::new();
    for number in 0..32u8 {
        let content = Packet { flow: (1, 2, 5000, 6000), ..Packet::udp(vec![number; 100]) };
        assert_eq!(content.transport, Transport::Udp);
        let mut bytes = packet(&a, &b, &content);
        if number % 3 == 0 {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }
        from.send(&bytes);
        sent.push(bytes);
    }
    // A packet socket on the receiver sees what the switch wrote: super-frames only of right datagrams.
    let ours = |frame: &[u8]| frame.len() >= 142 && frame[34..38] == [0x13, 0x88, 0x17, 0x70];
    let mut arrived = Vec::new();
    let total: usize = sent.iter().map(|frame| frame.len() - 42).sum();
    while arrived.len() < total {
        let frame = wait::until("all payload", || to.receive(ours));
        arrived.extend_from_slice(&frame[42..]);
    }
    let expected: Vec<u8> = sent.iter().flat_map(|frame| frame[42..].to_vec()).collect();
    assert!(arrived == expected, "payload changed on the way");
}
