//! Between networks, and what stands in the way.

use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Repr};
use vswitch_engine::{Action, End, Rule};
use vswitch_frame::{Checksum, DropReason, Gso, GsoKind};

use super::craft::{self, Link};
use super::*;

const TO_GATEWAY: Link = Link { source: Mac([2, 0, 0, 0, 0, 5]), target: Mac([2, 0xff, 0, 0, 0, 0]) };

/// A ping as it arrives when it is routed to Carol.
fn routed(source: &str, target: &str, ttl: u8) -> Vec<u8> {
    craft::ping(Link { source: gateway_mac(BLUE), target: mac(CAROL) }, source, target, ttl)
}

#[test]
fn routed_networks_reach_each_other() {
    let mut bench = Bench::new();
    for (source, target) in [("10.1.0.5", "10.2.0.3"), ("fd01::5", "fd02::3")] {
        for ttl in [2, 64, 255] {
            let frame = craft::ping(TO_GATEWAY, source, target, ttl);
            assert_eq!(bench.send(ALICE, &frame).only(CAROL), routed(source, target, ttl - 1));
        }
    }
}

#[test]
fn policy_is_asked_with_both_networks_as_they_are() {
    use DropReason::{Internal, Protected};
    use GatewayMode::{Isolated, Nat, NatUnprotected, Routed};
    let cases = [
        (Nat, Nat, None, Err(Protected)),
        (Nat, Routed, None, Ok(())),
        (Routed, Nat, None, Err(Protected)),
        (Routed, Routed, None, Ok(())),
        (Nat, NatUnprotected, None, Ok(())),
        (Isolated, Routed, None, Err(Internal)),
        (Routed, Isolated, None, Err(Internal)),
        (Routed, Routed, Some(RED), Err(Internal)),
        (Routed, Routed, Some(BLUE), Err(Internal)),
    ];
    for (from, to, internal, expected) in cases {
        let mut bench = Bench::with(|network| {
            let red = network.gateway.as_ref().is_some_and(|gateway| gateway.mac == gateway_mac(RED));
            network.mode_v4 = if red { from } else { to };
            network.internal = internal == Some(if red { RED } else { BLUE });
        });
        let fates = bench.send(ALICE, &craft::ping(TO_GATEWAY, "10.1.0.5", "10.2.0.3", 64));
        match expected {
            Ok(()) => assert_eq!(fates.only(CAROL), routed("10.1.0.5", "10.2.0.3", 63)),
            Err(reason) => assert_eq!(fates, dropped(reason, ALICE), "{from:?} {to:?} {internal:?}"),
        }
    }
}

#[test]
fn within_a_network_the_gateway_is_no_way_around_isolation() {
    let mut bench = Bench::new();
    let to_bob = craft::ping(TO_GATEWAY, "10.1.0.5", "10.1.0.2", 64);
    let arrives =
        craft::ping(Link { source: gateway_mac(RED), target: mac(BOB) }, "10.1.0.5", "10.1.0.2", 63);
    assert_eq!(bench.send(ALICE, &to_bob).only(BOB), arrives);
    let own = craft::ping(TO_GATEWAY, "10.1.0.5", "10.1.0.1", 64);
    assert_eq!(bench.send(ALICE, &own).forward.len(), 1);
    let group = GroupId::containers_of(RED);
    for port in [ALICE, BOB] {
        assert!(bench.switch.remove_port(port));
        bench.port(port, Port { group, ..container(RED, port) });
    }
    assert_eq!(bench.send(ALICE, &to_bob), dropped(DropReason::Isolated, ALICE));
    let dave = PortId(6);
    let moved = Station::Container(Endpoint {
        addresses: vec!["10.1.0.2/24".parse().expect("an address")],
        ..Endpoint::default()
    });
    bench.port(dave, container(RED, dave));
    assert!(bench.switch.set_station(dave, moved));
    assert_eq!(bench.send(ALICE, &to_bob).forward.len(), 1, "the address is another's now");
    assert!(bench.switch.remove_port(dave));
    assert_eq!(bench.send(ALICE, &to_bob).drop, [(DropReason::NoRoute, ALICE)]);
}

#[test]
fn other_networks_gateways_are_the_host() {
    let mut bench = Bench::new();
    bench.plug_host();
    let frame = craft::ping(TO_GATEWAY, "10.1.0.5", "10.2.0.1", 64);
    assert_eq!(bench.send(ALICE, &frame).only(HOST), frame);
    let mut bench = Bench::with(|network| network.internal = true);
    bench.plug_host();
    assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::Internal, ALICE));
    let own = craft::udp(TO_GATEWAY, ("10.1.0.5", 7), ("10.1.0.1", 7), b"hello");
    assert_eq!(bench.send(ALICE, &own).only(HOST), own, "its own gateway is within reach");
}

#[test]
fn a_corrupt_header_is_not_passed_on() {
    let mut bench = Bench::new();
    let mut frame = craft::ping(TO_GATEWAY, "10.1.0.5", "10.2.0.3", 64);
    frame[24] ^= 1;
    assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::BadChecksum, ALICE));
}

#[test]
fn super_frames_are_routed_as_they_are() {
    let mut bench = Bench::new();
    let payload = vec![9; 30_000];
    let frame = craft::udp(TO_GATEWAY, ("10.1.0.5", 1), ("10.2.0.3", 2), &payload);
    let checksum = Checksum::Partial { start: 34, offset: 6 };
    for (size, fits) in [(1472, true), (1473, false)] {
        let gso = Some(Gso { kind: GsoKind::Udp, size, ecn: false, same_id: false });
        let fates = bench.send_with(ALICE, &frame, Offload { checksum, gso });
        if fits {
            let arrived = fates.only(CAROL);
            assert_eq!(arrived[34..], frame[34..], "what is left to do is left as it was");
            let (link, packet, _) = craft::read_ip(&arrived);
            assert_eq!(link, Link { source: gateway_mac(BLUE), target: mac(CAROL) });
            assert_eq!(packet.ttl, 63);
        } else {
            assert_eq!(fates.drop, [(DropReason::TxTooBig, CAROL)]);
            let error = fates.answer(ALICE);
            let (_, packet, message) = craft::read_ip(&error);
            assert_eq!((packet.source, packet.target), (ip("10.1.0.1"), ip("10.1.0.5")));
            assert_eq!((message[0], message[1], &message[6..8]), (3, 4, &1500u16.to_be_bytes()[..]));
        }
    }
}

#[test]
fn answers_find_their_way_back() {
    let mut bench = Bench::new();
    let there = bench.send(ALICE, &craft::ping(TO_GATEWAY, "10.1.0.1", "10.2.0.3", 64));
    assert_eq!(there, dropped(DropReason::Martian, ALICE), "an address that is the gateway's");
    let link = Link { source: mac(CAROL), target: gateway_mac(BLUE) };
    let back = bench.send(CAROL, &craft::ping(link, "10.2.0.3", "10.1.0.2", 64)).only(BOB);
    let (link, packet, payload) = craft::read_ip(&back);
    assert_eq!(link, Link { source: gateway_mac(RED), target: mac(BOB) });
    assert_eq!(packet.ttl, 63);
    assert!(matches!(craft::read_icmp(payload), Icmpv4Repr::EchoRequest { .. }));
}

/// A rule about packets from the red network to the blue one.
fn red_to_blue(action: Action) -> Rule {
    Rule { from: End::Network(RED), to: End::Network(BLUE), ..Rule::new(1, action) }
}

#[test]
fn replies_enter_a_network_that_is_closed_and_rules_hold_on_the_way() {
    let mut bench = Bench::with(|network| {
        if network.gateway.as_ref().is_some_and(|gateway| gateway.mac == gateway_mac(RED)) {
            network.mode_v4 = GatewayMode::Nat;
        }
    });
    let (alice, carol) = (("10.1.0.5", 7), ("10.2.0.3", 9));
    let back_by = Link { source: mac(CAROL), target: gateway_mac(BLUE) };
    let ask = craft::udp(TO_GATEWAY, alice, carol, b"hello");
    let reply = craft::udp(back_by, carol, alice, b"hello");
    let unasked = craft::udp(back_by, carol, (alice.0, 8), b"hello");
    assert_eq!(bench.send(CAROL, &reply), dropped(DropReason::Protected, CAROL));
    assert_eq!(bench.send(ALICE, &ask).forward.len(), 1);
    assert_eq!(bench.send(CAROL, &reply).forward.len(), 1);
    assert_eq!(bench.send(CAROL, &unasked), dropped(DropReason::Protected, CAROL));
    bench.switch.set_rules(vec![red_to_blue(Action::Accept)]);
    assert_eq!(bench.send(CAROL, &reply).forward.len(), 1, "still accepted");
    assert_eq!(bench.send(CAROL, &unasked), dropped(DropReason::Protected, CAROL), "a rule opens no wall");
    bench.switch.set_rules(vec![red_to_blue(Action::Drop)]);
    assert_eq!(bench.send(ALICE, &ask), dropped(DropReason::Rule, ALICE));
    assert_eq!(bench.send(CAROL, &reply), dropped(DropReason::Rule, CAROL));
    bench.switch.set_rules(vec![red_to_blue(Action::Reject)]);
    let error = bench.send(ALICE, &ask).only(ALICE);
    let (link, packet, message) = craft::read_ip(&error);
    assert_eq!(link, Link { source: gateway_mac(RED), target: mac(ALICE) });
    assert_eq!((packet.source, packet.target), (ip("10.1.0.1"), ip("10.1.0.5")));
    let Icmpv4Repr::DstUnreachable { reason, .. } = craft::read_icmp(message) else { panic!("{message:?}") };
    assert_eq!(reason, Icmpv4DstUnreachable::CommProhibited);
}
