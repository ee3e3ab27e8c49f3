//! Out of the networks of this host, and in from there.

use vswitch_engine::{Hop, Route};

use super::craft::{self, Link};
use super::*;

const TO_GATEWAY: Link = Link { source: Mac([2, 0, 0, 0, 0, 5]), target: Mac([2, 0xff, 0, 0, 0, 0]) };
/// What comes from the uplink is addressed to the host's interface.
const TO_HOST: Link = Link { source: Mac([2, 9, 9, 9, 9, 1]), target: Mac([2, 9, 9, 9, 9, 2]) };
const UPLINK: PortId = PortId(4095);
const FAR: [(&str, &str); 2] = [("10.1.0.5", "198.51.100.1"), ("fd01::5", "2001:db8::1")];

/// A switch with default routes, and something behind another interface.
fn bench(change: impl Fn(&mut Network)) -> Bench {
    let mut bench = Bench::with(change);
    let route = |text: &str, hop| Route { destination: text.parse().expect("a net"), hop };
    bench.switch.set_routes(vec![
        route("0.0.0.0/0", Hop::Router(ip("192.0.2.1"))),
        route("::/0", Hop::Router(ip("fe80::1"))),
        route("203.0.113.0/24", Hop::Elsewhere),
    ]);
    bench
}

/// What becomes of a packet that comes in from outside; translated to the red network or not.
fn enter(bench: &mut Bench, translated: bool, bytes: &[u8]) -> Fates {
    let mut frame = bench.pool.take().expect("a slot");
    frame.fill(bytes);
    frame.parse().expect("well-formed");
    bench.switch.enter(UPLINK, translated.then_some(RED), frame, &mut bench.verdicts, bench.now);
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
    open.switch.set_routes(Vec::new());
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
        ("198.51.100.1", "10.1.0.77", 64, DropReason::NoRoute),
        ("198.51.100.1", "10.1.0.1", 64, DropReason::NoRoute),
        ("198.51.100.1", "10.1.0.5", 1, DropReason::TtlExceeded),
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
