//! Out of the networks of this host, and in from there.

use std::collections::BTreeMap;

use vswitch_engine::{Hop, PublishedPorts, Route, Uplink, WayOut};

use super::craft::{self, Link};
use super::*;

const TO_GATEWAY: Link = Link { source: Mac([2, 0, 0, 0, 0, 5]), target: Mac([2, 0xff, 0, 0, 0, 0]) };
/// The link of frames from the uplink, which are addressed to the host's interface.
const TO_HOST: Link = Link { source: Mac([2, 9, 9, 9, 9, 1]), target: Mac([2, 9, 9, 9, 9, 2]) };
const UPLINK: PortId = PortId(4095);
const FAR: [(&str, &str); 2] = [("10.1.0.5", "198.51.100.1"), ("fd01::5", "2001:db8::1")];

/// A switch with default routes, and something behind another interface.
fn bench(change: impl Fn(&mut Network)) -> Bench {
    let mut bench = Bench::with(change);
    let route = |text: &str, hop| {
        let interface = if hop == Hop::Elsewhere { "wg0" } else { "eth0" };
        Route { destination: text.parse().expect("a net"), interface: interface.to_owned(), hop }
    };
    let routes = vec![
        route("0.0.0.0/0", Hop::Router(ip("192.0.2.1"))),
        route("::/0", Hop::Router(ip("fe80::1"))),
        route("203.0.113.0/24", Hop::Elsewhere),
        route("2001:db8:9::/48", Hop::Elsewhere),
    ];
    let addresses = vec![ip("192.0.2.9"), ip("2001:db8:1::9")];
    bench.switch.set_host_addresses(addresses.clone());
    let uplinks = vec![Uplink { port: UPLINK, interface: "eth0".to_owned(), addresses }];
    bench.switch.set_way_out(WayOut { uplinks, routes });
    bench
}

/// The fates of a packet that comes in from outside; translated to the red network or not.
fn enter(bench: &mut Bench, translated: bool, bytes: &[u8]) -> Fates {
    let mut frame = bench.pool.take().expect("a slot");
    frame.fill(bytes);
    frame.parse().expect("well-formed");
    let network = translated.then_some(RED);
    let made = bench.switch.enter(UPLINK, network, frame, &mut bench.verdicts, &mut bench.pool, bench.now);
    assert_eq!(bench.verdicts.len(), 1 + made);
    bench.drain()
}

#[test]
fn what_leaves_is_masqueraded_as_its_network_says() {
    use GatewayMode::{Nat, NatUnprotected, Routed};
    for (masquerade, mode, expected) in
        [(true, Nat, true), (true, NatUnprotected, true), (true, Routed, false), (false, Nat, false)]
    {
        let mut bench = bench(|network| {
            network.masquerade = masquerade;
            (network.mode_v4, network.mode_v6) = (mode, mode);
        });
        for (source, target) in FAR {
            let fates = bench.send(ALICE, &craft::ping(TO_GATEWAY, source, target, 64));
            let left = craft::ping(TO_GATEWAY, source, target, 63);
            assert_eq!(fates, Fates { outbound: vec![(expected, left)], ..Fates::default() });
        }
    }
}

#[test]
fn what_may_not_leave_does_not() {
    let refused = |bench: &mut Bench, target, ttl| {
        let source = "10.1.0.5";
        let fates = bench.send(ALICE, &craft::ping(TO_GATEWAY, source, target, ttl));
        assert_eq!(fates.outbound, [], "{target}");
        fates.drop
    };
    let mut open = bench(|_| {});
    assert_eq!(refused(&mut open, "198.51.100.1", 1), [(DropReason::TtlExceeded, ALICE)]);
    assert_eq!(refused(&mut open, "203.0.113.9", 64), [(DropReason::NoRoute, ALICE)]);
    assert_eq!(refused(&mut open, "10.2.0.77", 64), [(DropReason::NoRoute, ALICE)], "one of our networks");
    open.switch.set_way_out(WayOut::default());
    assert_eq!(refused(&mut open, "198.51.100.1", 64), [(DropReason::NoRoute, ALICE)]);
    let mut internal = bench(|network| network.internal = true);
    assert_eq!(refused(&mut internal, "198.51.100.1", 64), [(DropReason::Internal, ALICE)]);
}

#[test]
fn what_comes_in_reaches_its_station_if_policy_lets_it() {
    use GatewayMode::{Nat, NatUnprotected};
    for (mode, translated, enters) in [(NatUnprotected, false, true), (Nat, false, false), (Nat, true, true)]
    {
        for (own, far) in FAR {
            let mut bench = bench(|network| (network.mode_v4, network.mode_v6) = (mode, mode));
            let fates = enter(&mut bench, translated, &craft::ping(TO_HOST, far, own, 64));
            if enters {
                let link = Link { source: gateway_mac(RED), target: mac(ALICE) };
                assert_eq!(fates.only(ALICE), craft::ping(link, far, own, 63));
            } else {
                assert_eq!(fates, dropped(DropReason::Protected, UPLINK), "{mode:?}");
            }
        }
    }
}

#[test]
fn nobody_outside_is_on_a_network_of_ours_and_nobody_there_is_found() {
    let mut bench = bench(|_| {});
    for (source, target, ttl, reason) in [
        ("10.2.0.3", "10.1.0.5", 64, DropReason::Martian),
        ("192.0.2.9", "10.1.0.5", 64, DropReason::Martian),
        ("127.0.0.1", "10.1.0.5", 64, DropReason::Martian),
        ("0.0.0.0", "10.1.0.5", 64, DropReason::Martian),
        ("224.0.0.1", "10.1.0.5", 64, DropReason::Martian),
        ("255.255.255.255", "10.1.0.5", 64, DropReason::Martian),
        ("169.254.0.1", "10.1.0.5", 64, DropReason::Martian),
        ("fd02::3", "fd01::5", 64, DropReason::Martian),
        ("2001:db8:1::9", "fd01::5", 64, DropReason::Martian),
        ("::1", "fd01::5", 64, DropReason::Martian),
        ("fe80::1", "fd01::5", 64, DropReason::Martian),
        ("ff02::1", "fd01::5", 64, DropReason::Martian),
        ("198.51.100.1", "10.1.0.77", 64, DropReason::NoRoute),
        ("198.51.100.1", "10.1.0.1", 64, DropReason::NoRoute),
    ] {
        let fates = enter(&mut bench, false, &craft::ping(TO_HOST, source, target, ttl));
        assert_eq!(fates, dropped(reason, UPLINK), "{source} to {target}");
    }
}

#[test]
fn answers_come_back_to_who_has_asked() {
    use GatewayMode::Nat;
    let mut bench = bench(|network| (network.mode_v4, network.mode_v6) = (Nat, Nat));
    let (own, far) = ((FAR[0].0, 5000), (FAR[0].1, 53));
    let stray = craft::udp(TO_HOST, far, own, b"x");
    assert_eq!(enter(&mut bench, false, &stray), dropped(DropReason::Protected, UPLINK));
    let question = craft::udp(TO_GATEWAY, own, far, b"x");
    assert_eq!(bench.send(ALICE, &question).outbound.len(), 1);
    assert_eq!(enter(&mut bench, false, &stray).forward.len(), 1);
}

#[test]
fn the_gateway_stands_for_clients_that_were_translated() {
    let mut bench = bench(|network| network.internal = true);
    for (translated, source, enters) in [
        (true, "10.1.0.1", true),
        (false, "10.1.0.1", false),
        (true, "10.2.0.1", false),
        (true, "10.1.0.2", false),
    ] {
        let fates = enter(&mut bench, translated, &craft::ping(TO_HOST, source, "10.1.0.5", 64));
        assert_eq!(fates.forward.len(), usize::from(enters), "{source}, {translated}: {fates:?}");
    }
}

/// A packet of either family, from somebody outside to Alice, and her answer.
fn dialogue(far: [&str; 2]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    [("10.1.0.5", far[0]), ("fd01::5", far[1])].into_iter().map(|(own, far)| {
        let question = craft::udp(TO_HOST, (far, 999), (own, 80), b"question");
        (question, craft::udp(TO_GATEWAY, (own, 80), (far, 999), b"answer"))
    })
}

const BEHIND_UPLINK: [&str; 2] = ["198.51.100.1", "2001:db8::1"];
const BEHIND_TUNNEL: [&str; 2] = ["203.0.113.7", "2001:db8:9::7"];

/// Publishes UDP port 80 of Alice's.
fn publish(bench: &mut Bench) {
    for address in ["10.1.0.5", "fd01::5"] {
        let (network, address) = (RED, ip(address));
        bench.switch.publish(PublishedPorts { network, address, protocol: 17, ports: 80..=80 });
    }
}

#[test]
fn a_published_port_is_open_to_those_whom_mode_or_trust_lets_name_it() {
    use GatewayMode::{Isolated, Nat, NatUnprotected, Routed};
    for (mode, trusted, published, enters) in [
        (Nat, false, true, false),
        (Nat, true, false, false),
        (Nat, true, true, true),
        (NatUnprotected, false, false, true),
        (Routed, false, false, false),
        (Routed, false, true, true),
        (Isolated, true, true, false),
    ] {
        let mut bench = bench(|network| {
            (network.mode_v4, network.mode_v6) = (mode, mode);
            network.masquerade = true;
            network.trusted = if trusted { vec!["eth0".to_owned()] } else { vec!["eth1".to_owned()] };
        });
        if published {
            publish(&mut bench);
        }
        for (question, answer) in dialogue(BEHIND_UPLINK) {
            let entered = enter(&mut bench, false, &question).forward.len() == 1;
            assert_eq!(entered, enters, "{mode:?} {trusted} {published}");
            if enters {
                let outbound = bench.send(ALICE, &answer).outbound;
                assert!(matches!(outbound[..], [(false, _)]), "answered as who was asked: {mode:?}");
            }
        }
    }
}

#[test]
fn what_answers_nobody_is_masqueraded_as_ever() {
    let mut bench = bench(|network| network.masquerade = true);
    let masqueraded = |bench: &mut Bench, bytes: &[u8]| bench.send(ALICE, bytes).outbound[0].0;
    for (question, answer) in dialogue(BEHIND_UPLINK) {
        // A translated question is answered by the translator.
        enter(&mut bench, true, &question);
        assert!(masqueraded(&mut bench, &answer));
    }
    for (_, answer) in dialogue(["198.51.100.2", "2001:db8::2"]) {
        assert!(masqueraded(&mut bench, &answer));
    }
}

#[test]
fn ends_of_a_publication_end_its_flows() {
    let mut bench = bench(|network| {
        (network.mode_v4, network.mode_v6) = (GatewayMode::Routed, GatewayMode::Routed);
    });
    publish(&mut bench);
    let questions: Vec<_> = dialogue(BEHIND_UPLINK).map(|(question, _)| question).collect();
    for question in &questions {
        assert_eq!(enter(&mut bench, false, question).forward.len(), 1);
    }
    let (network, ports) = (RED, 80..=80);
    bench.switch.unpublish(&PublishedPorts { network, address: ip("10.1.0.5"), protocol: 17, ports });
    assert_eq!(enter(&mut bench, false, &questions[0]), dropped(DropReason::Protected, UPLINK));
    assert_eq!(enter(&mut bench, false, &questions[1]).forward.len(), 1, "the other family's goes on");
}

#[test]
fn what_the_hosts_kernel_forwards_is_from_outside() {
    use GatewayMode::{Nat, NatUnprotected};
    let mut counts = BTreeMap::new();
    for (mode, trusted, far, expected) in [
        (Nat, "wg0", BEHIND_TUNNEL, None),
        (Nat, "eth0", BEHIND_TUNNEL, Some(DropReason::Protected)),
        (Nat, "wg0", BEHIND_UPLINK, Some(DropReason::Protected)),
        (Nat, "eth0", BEHIND_UPLINK, Some(DropReason::AlreadyTaken)),
        (NatUnprotected, "", BEHIND_TUNNEL, None),
        (NatUnprotected, "", BEHIND_UPLINK, Some(DropReason::AlreadyTaken)),
        (NatUnprotected, "", ["10.2.0.3", "fd02::3"], Some(DropReason::Martian)),
        (Nat, "", ["192.0.2.9", "2001:db8:1::9"], None),
        (Nat, "", ["10.1.0.1", "fd01::1"], None),
    ] {
        let mut bench = bench(|network| {
            (network.mode_v4, network.mode_v6) = (mode, mode);
            (network.masquerade, network.trusted) = (true, vec![trusted.to_owned()]);
        });
        bench.plug_host();
        publish(&mut bench);
        for (question, answer) in dialogue(far) {
            let mut question = question;
            question[..6].copy_from_slice(&mac(ALICE).0);
            question[6..12].copy_from_slice(&gateway_mac(RED).0);
            let fates = bench.send(HOST, &question);
            match expected {
                None => assert_eq!(fates.only(ALICE), question, "{mode:?} {trusted} {far:?}"),
                Some(reason) => assert_eq!(fates, dropped(reason, HOST), "{mode:?} {trusted} {far:?}"),
            }
            let forward = bench.send(ALICE, &answer).forward;
            let back = forward.iter().any(|(port, bytes)| *port == HOST && *bytes == answer);
            let leads_there = expected.is_none();
            assert_eq!(back, leads_there, "the answer: {mode:?} {trusted} {far:?}");
            *counts.entry(leads_there).or_insert(0) += 1;
        }
    }
    assert!(counts[&true] > 0 && counts[&false] > 0);
}

#[test]
fn containers_begin_nothing_behind_other_interfaces() {
    let mut bench = bench(|_| {});
    bench.plug_host();
    for (_, answer) in dialogue(BEHIND_TUNNEL) {
        assert_eq!(bench.send(ALICE, &answer).drop, [(DropReason::NoRoute, ALICE)]);
    }
}

#[test]
fn senders_outside_are_told_what_did_not_get_in() {
    let narrow = PortId(6);
    for translated in [false, true] {
        let mut bench = bench(|_| {});
        bench.port(narrow, Port { mtu: 1300, ..container(RED, narrow) });
        let late = |own: &str, far: &str| craft::ping(TO_HOST, far, own, 1);
        let large = |own: &str, far: &str| craft::udp(TO_HOST, (far, 7), (own, 7), &[1; 1280]);
        let speakers = if translated { ["10.1.0.1", "fd01::1"] } else { ["192.0.2.9", "2001:db8:1::9"] };
        for (about, speaker, reason, kind) in [
            (late("10.1.0.5", "198.51.100.1"), speakers[0], (DropReason::TtlExceeded, UPLINK), (11, 0)),
            (late("fd01::5", "2001:db8::1"), speakers[1], (DropReason::TtlExceeded, UPLINK), (3, 0)),
            (large("10.1.0.6", "198.51.100.1"), speakers[0], (DropReason::TxTooBig, narrow), (3, 4)),
            (large("fd01::6", "2001:db8::1"), speakers[1], (DropReason::TxTooBig, narrow), (2, 0)),
        ] {
            let mut fates = enter(&mut bench, translated, &about);
            assert_eq!((fates.drop, fates.forward.len()), (vec![reason], 0));
            let (network, error) = fates.errors.remove(0);
            assert_eq!(network, translated.then_some(RED));
            let (_, packet, message) = craft::read_ip(&error);
            let (_, wrong, _) = craft::read_ip(&about);
            assert_eq!((packet.source, packet.target), (ip(speaker), wrong.source));
            assert_eq!((message[0], message[1]), kind);
            let quoted = message.len() - 8;
            assert_eq!(message[8..], about[14..14 + quoted]);
            if reason.0 == DropReason::TxTooBig {
                assert_eq!(message[6..8], 1300u16.to_be_bytes());
            }
        }
    }
}

#[test]
fn errors_for_outside_have_a_budget() {
    let mut bench = bench(|_| {});
    let late = craft::ping(TO_HOST, "198.51.100.1", "10.1.0.5", 1);
    let told = |bench: &mut Bench| (0..100).map(|_| enter(bench, false, &late).errors.len()).sum::<usize>();
    assert_eq!(told(&mut bench), vswitch_engine::gateway::FRAMES_MADE_MAX);
    // Containers' is another.
    let lost = craft::ping(TO_GATEWAY, "10.1.0.5", "10.1.0.77", 64);
    assert_eq!(bench.send(ALICE, &lost).forward.len(), 1);
}
