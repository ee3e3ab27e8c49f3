//! Errors to senders, and when there is none.

use std::time::Duration;

use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr,
    IpProtocol,
};
use vswitch_engine::gateway::FRAMES_MADE_MAX;
use vswitch_frame::DropReason;

use super::craft::{self, Link, Packet};
use super::*;

const TO_GATEWAY: Link = Link { source: Mac([2, 0, 0, 0, 0, 5]), target: Mac([2, 0xff, 0, 0, 0, 0]) };

/// Type and code of the error that Alice gets about a frame, after checking all else of it.
fn told(bench: &mut Bench, reason: (DropReason, PortId), about: &[u8]) -> (u8, u8) {
    let fates = bench.send(ALICE, about);
    assert_eq!(fates.drop, [reason]);
    let error = fates.answer(ALICE);
    let (link, packet, message) = craft::read_ip(&error);
    let (_, wrong, _) = craft::read_ip(about);
    assert_eq!(link, Link { source: gateway_mac(RED), target: mac(ALICE) });
    assert_eq!(packet.target, wrong.source);
    let (gateway, limit) = if wrong.source.is_ipv4() { (ip("10.1.0.1"), 576) } else { (ip("fd01::1"), 1280) };
    assert_eq!((packet.source, packet.ttl), (gateway, 64));
    let header = if wrong.source.is_ipv4() { 20 } else { 40 };
    let quoted = (about.len() - 14).min(limit - header - 8);
    assert_eq!(message[8..], about[14..14 + quoted], "as much of it as fits");
    let right = match (packet.source, packet.target) {
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            Icmpv6Packet::new_checked(message).expect("ICMPv6").verify_checksum(&source, &target)
        }
        _ => Icmpv4Packet::new_checked(message).expect("ICMP").verify_checksum(),
    };
    assert!(right, "its checksum");
    (message[0], message[1])
}

#[test]
fn the_sender_is_told_why() {
    let mut bench = Bench::new();
    let near = DropReason::NoRoute;
    for (what, target, ttl, reason, v4, v6) in [
        ("nobody on this network", ["10.1.0.77", "fd01::77"], 64, (near, ALICE), (3, 1), (1, 3)),
        ("nobody on another", ["10.2.0.77", "fd02::77"], 64, (near, ALICE), (3, 1), (1, 3)),
        ("no network", ["192.0.2.1", "2001:db8::1"], 64, (near, ALICE), (3, 0), (1, 0)),
        ("time", ["10.2.0.3", "fd02::3"], 1, (DropReason::TtlExceeded, ALICE), (11, 0), (3, 0)),
        ("no time", ["10.2.0.3", "fd02::3"], 0, (DropReason::TtlExceeded, ALICE), (11, 0), (3, 0)),
    ] {
        let [target_v4, target_v6] = target;
        let frame = craft::ping(TO_GATEWAY, "10.1.0.5", target_v4, ttl);
        assert_eq!(told(&mut bench, reason, &frame), v4, "{what}");
        let frame = craft::ping(TO_GATEWAY, "fd01::5", target_v6, ttl);
        assert_eq!(told(&mut bench, reason, &frame), v6, "{what}");
    }
    let frame = craft::udp(TO_GATEWAY, ("10.1.0.5", 7), ("10.1.0.1", 7), &[1; 900]);
    assert_eq!(told(&mut bench, (DropReason::NotServed, ALICE), &frame), (3, 3));
    let frame = craft::udp(TO_GATEWAY, ("fd01::5", 7), ("fd01::1", 7), &[1; 1400]);
    assert_eq!(told(&mut bench, (DropReason::NotServed, ALICE), &frame), (1, 4));
}

#[test]
fn a_packet_that_does_not_fit_is_said_how_large_it_may_be() {
    let mut bench = Bench::new();
    let narrow = PortId(6);
    bench.port(narrow, Port { mtu: 1300, ..container(BLUE, narrow) });
    let too_big = (DropReason::TxTooBig, narrow);
    let fits = craft::udp(TO_GATEWAY, ("10.1.0.5", 7), ("10.2.0.6", 7), &[1; 1272]);
    assert_eq!(bench.send(ALICE, &fits).forward.len(), 1);
    let frame = craft::udp(TO_GATEWAY, ("10.1.0.5", 7), ("10.2.0.6", 7), &[1; 1273]);
    assert_eq!(told(&mut bench, too_big, &frame), (3, 4));
    let fits = craft::udp(TO_GATEWAY, ("fd01::5", 7), ("fd02::6", 7), &[1; 1252]);
    assert_eq!(bench.send(ALICE, &fits).forward.len(), 1);
    let frame = craft::udp(TO_GATEWAY, ("fd01::5", 7), ("fd02::6", 7), &[1; 1253]);
    assert_eq!(told(&mut bench, too_big, &frame), (2, 0));
    let error = bench.send(ALICE, &frame).answer(ALICE);
    let (_, packet, message) = craft::read_ip(&error);
    let Icmpv6Repr::PktTooBig { mtu, .. } = craft::read_icmpv6(&packet, message) else {
        panic!("{message:?}")
    };
    assert_eq!(mtu, 1300);
}

#[test]
fn some_are_told_nothing() {
    let mut bench = Bench::new();
    let (from, nowhere) = ("10.1.0.5", "192.0.2.1");
    let about = Packet { source: ip(from), target: ip(nowhere), ttl: 64, protocol: IpProtocol::Icmp };
    let quoted = craft::ip(TO_GATEWAY, Packet { protocol: IpProtocol::Udp, ..about }, &[0; 8]);
    let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
    error.extend(&quoted[14..]);
    let later_fragment = {
        let mut frame = craft::ping(TO_GATEWAY, from, nowhere, 64);
        frame[21] = 5;
        frame[24..26].fill(0);
        frame
    };
    let v6 =
        Packet { source: ip("fd01::5"), target: ip("2001:db8::1"), ttl: 64, protocol: IpProtocol::Icmpv6 };
    for (what, frame, reason) in [
        ("an error", craft::ip(TO_GATEWAY, about, &error), DropReason::NoRoute),
        ("an empty message", craft::ip(TO_GATEWAY, about, &[]), DropReason::NoRoute),
        ("a fragment", later_fragment, DropReason::NoRoute),
        ("an error of IPv6", craft::ip(TO_GATEWAY, v6, &[1, 0, 0, 0, 0, 0, 0, 0]), DropReason::NoRoute),
        ("a redirect", craft::ip(TO_GATEWAY, v6, &[137, 0, 0, 0, 0, 0, 0, 0]), DropReason::NoRoute),
        ("a group", craft::ping(TO_GATEWAY, from, "224.1.1.1", 64), DropReason::NotServed),
        ("all", craft::ping(TO_GATEWAY, from, "255.255.255.255", 64), DropReason::NotServed),
        ("a neighbour's own", craft::ping(TO_GATEWAY, "fe80::5", "fd02::3", 64), DropReason::NotServed),
    ] {
        assert_eq!(bench.send(ALICE, &frame), dropped(reason, ALICE), "{what}");
    }
}

#[test]
fn errors_have_a_budget() {
    let mut bench = Bench::new();
    bench.now = Instant::ZERO + Duration::from_secs(100);
    let frame = craft::ping(TO_GATEWAY, "10.1.0.5", "192.0.2.1", 64);
    let told = |bench: &mut Bench| (0..100).filter(|_| !bench.send(ALICE, &frame).forward.is_empty()).count();
    assert_eq!(told(&mut bench), FRAMES_MADE_MAX);
    bench.now = bench.now + Duration::from_millis(50);
    assert_eq!(told(&mut bench), 5);
    let near = craft::ping(Link { source: mac(BOB), ..TO_GATEWAY }, "10.1.0.6", "192.0.2.1", 64);
    assert_eq!(bench.send(BOB, &near).forward.len(), 1, "another port has its own");
    let blue = Link { source: mac(CAROL), target: gateway_mac(BLUE) };
    let other = craft::ping(blue, "10.2.0.3", "192.0.2.1", 64);
    assert_eq!(bench.send(CAROL, &other).forward.len(), 1, "another network has its own");
}

#[test]
fn without_a_slot_a_packet_is_dropped_in_silence() {
    let mut bench = Bench::new();
    bench.pool = Pool::new(1);
    let frame = craft::ping(TO_GATEWAY, "10.1.0.5", "192.0.2.1", 64);
    assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::NoRoute, ALICE));
}

#[test]
fn the_words_of_an_error_are_those_of_the_rfc() {
    let mut bench = Bench::new();
    let error = bench.send(ALICE, &craft::ping(TO_GATEWAY, "10.1.0.5", "192.0.2.1", 64)).answer(ALICE);
    let (_, _, message) = craft::read_ip(&error);
    let Icmpv4Repr::DstUnreachable { reason, header, .. } = craft::read_icmp(message) else {
        panic!("{message:?}")
    };
    assert_eq!(reason, Icmpv4DstUnreachable::NetUnreachable);
    assert_eq!(IpAddr::from(header.dst_addr), ip("192.0.2.1"));
    let error = bench.send(ALICE, &craft::ping(TO_GATEWAY, "fd01::5", "2001:db8::1", 64)).answer(ALICE);
    let (_, packet, message) = craft::read_ip(&error);
    let Icmpv6Repr::DstUnreachable { reason, header, .. } = craft::read_icmpv6(&packet, message) else {
        panic!("{message:?}")
    };
    assert_eq!(reason, Icmpv6DstUnreachable::NoRoute);
    assert_eq!(IpAddr::from(header.dst_addr), ip("2001:db8::1"));
}
