//! Rules on the way between networks and the world: which of them open a way, and what they see of it.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use vswitch_engine::{
    Action, End, Entrance, Field, Hop, Interface, Limit, Period, Protocol, PublishedAs, Route, Rule, State,
    Uplink, WayOut,
};

use super::craft::{self, Link};
use super::*;

const UPLINK: PortId = PortId(4095);
const TO_HOST: Link = Link { source: Mac([2, 9, 9, 9, 9, 1]), target: Mac([2, 9, 9, 9, 9, 2]) };
/// Alice and Carol, in each family.
const PAIRS: [[&str; 2]; 2] = [["10.1.0.5", "10.2.0.3"], ["fd01::5", "fd02::3"]];

fn from_alice() -> Link {
    Link { source: mac(ALICE), target: gateway_mac(RED) }
}

fn from_carol() -> Link {
    Link { source: mac(CAROL), target: gateway_mac(BLUE) }
}

/// Networks that protect their containers; each container's sandbox has the number of its port.
fn bench(change: impl Fn(&mut Network)) -> Bench {
    let mut bench = Bench::with(|network| {
        (network.mode_v4, network.mode_v6) = (GatewayMode::Nat, GatewayMode::Nat);
        change(network);
    });
    for (id, network) in [(ALICE, RED), (BOB, RED), (CAROL, BLUE)] {
        assert!(bench.switch.remove_port(id));
        let port = container(network, id);
        let Station::Container(endpoint) = port.station else { unreachable!("it is a container") };
        let station = Station::Container(Endpoint { sandbox: id.0.into(), ..endpoint });
        bench.port(id, Port { station, ..port });
    }
    let route = |text: &str, interface: &str, hop| Route {
        destination: text.parse().expect("a net"),
        interface: interface.to_owned(),
        hop,
    };
    let router = Hop::Router(ip("192.0.2.1"));
    let routes = vec![route("0.0.0.0/0", "eth0", router), route("203.0.113.0/24", "wg0", Hop::Elsewhere)];
    let uplink = Uplink { port: UPLINK, interface: "eth0".to_owned(), addresses: vec![ip("192.0.2.9")] };
    bench.switch.set_way_out(WayOut { uplinks: vec![uplink], routes });
    bench
}

fn named(network: NetworkId) -> Option<Interface> {
    Some(Interface { name: format!("br-{}", network.0), networks: vec![network] })
}

fn red_to_blue() -> Rule {
    Rule { from: End::Network(RED), to: End::Network(BLUE), ..Rule::new(1, Action::Accept) }
}

/// Rules that open the way from red to blue.
fn opening() -> Vec<Rule> {
    let accept = || Rule::new(1, Action::Accept);
    vec![
        red_to_blue(),
        Rule { from: End::Sandbox(ALICE.0.into()), to: End::Sandbox(CAROL.0.into()), ..accept() },
        Rule { from: End::Network(RED), to: End::Sandbox(CAROL.0.into()), ..accept() },
        Rule { in_interface: named(RED), out_interface: named(BLUE), ..accept() },
        Rule { in_interface: named(RED), to: End::Network(BLUE), ..accept() },
    ]
}

#[test]
fn an_accept_that_names_both_ends_opens_a_way_and_closes_it_when_it_goes() {
    for (rule, [alice, carol]) in
        opening().into_iter().flat_map(|rule| PAIRS.map(|pair| (rule.clone(), pair)))
    {
        let mut bench = bench(|_| {});
        let ask = craft::udp(from_alice(), (alice, 7), (carol, 9), b"hello");
        let reply = craft::udp(from_carol(), (carol, 9), (alice, 7), b"hello");
        let unasked = craft::udp(from_carol(), (carol, 9), (alice, 8), b"hello");
        let closed = |from| dropped(DropReason::Protected, from);
        assert_eq!(bench.send(ALICE, &ask), closed(ALICE));
        bench.switch.set_rules(vec![rule.clone()]);
        bench.send(ALICE, &ask).only(CAROL);
        bench.send(CAROL, &reply).only(ALICE);
        assert_eq!(bench.send(CAROL, &unasked), closed(CAROL), "one way: {rule:?}");
        bench.switch.set_rules(vec![Rule::new(2, Action::Accept), rule.clone()]);
        assert_eq!(bench.send(ALICE, &ask), closed(ALICE), "another rule decides");
        bench.switch.set_rules(vec![rule.clone()]);
        bench.send(ALICE, &ask).only(CAROL);
        bench.switch.set_rules(vec![]);
        assert_eq!(bench.send(CAROL, &reply), closed(CAROL));
        assert_eq!(bench.send(ALICE, &ask), closed(ALICE), "{rule:?}");
    }
}

#[test]
fn no_rule_opens_an_internal_or_isolated_network() {
    let is_blue =
        |network: &Network| network.gateway.as_ref().is_some_and(|own| own.mac == gateway_mac(BLUE));
    for rule in opening() {
        for blue in [true, false] {
            let mut internal = bench(|network| network.internal = is_blue(network) == blue);
            let mut isolated = bench(|network| {
                if is_blue(network) == blue {
                    network.mode_v4 = GatewayMode::Isolated;
                }
            });
            for bench in [&mut internal, &mut isolated] {
                bench.switch.set_rules(vec![rule.clone()]);
                let ask = craft::udp(from_alice(), ("10.1.0.5", 7), ("10.2.0.3", 9), b"hello");
                assert_eq!(bench.send(ALICE, &ask), dropped(DropReason::Internal, ALICE), "{rule:?}");
            }
        }
    }
}

fn ends(own: NetworkId, port: PortId, subnet: &'static str) -> impl Strategy<Value = End> {
    let all = "0.0.0.0/0".parse().expect("a net");
    let subnet = subnet.parse().expect("a net");
    let sandbox = End::Sandbox(port.0.into());
    select(vec![End::Any, End::Network(own), sandbox, End::Subnet(subnet), End::Subnet(all)])
}

fn interfaces(own: NetworkId) -> impl Strategy<Value = Option<Interface>> {
    let every = Interface { name: "br-+".to_owned(), networks: vec![RED, BLUE] };
    let one = Interface { name: "br-+".to_owned(), networks: vec![own] };
    select(vec![None, named(own), Some(every), Some(one)])
}

fn rules() -> impl Strategy<Value = Rule> {
    let fields = vec![Field::From, Field::To, Field::InInterface, Field::OutInterface, Field::Network];
    let limit = Limit { flows: 1, per: Period::Day, burst: 1 };
    let from = (ends(RED, ALICE, "10.1.0.0/24"), interfaces(RED));
    let to = (ends(BLUE, CAROL, "10.2.0.3/32"), interfaces(BLUE));
    let rest = (
        select(vec![None, Some(RED), Some(BLUE)]),
        select(vec![Protocol::Any, Protocol::Udp]),
        proptest::sample::subsequence(fields, 0..=2),
        select(vec![None, Some(limit)]),
        select(vec![None, Some(State::New), Some(State::Established)]),
        select(vec![Action::Accept, Action::Accept, Action::Drop, Action::Reject]),
    );
    (from, to, rest).prop_map(|((from, in_interface), (to, out_interface), rest)| {
        let (network, protocol, not, limit, state, action) = rest;
        Rule {
            from,
            to,
            in_interface,
            out_interface,
            network,
            protocol,
            not,
            limit,
            state,
            ..Rule::new(1, action)
        }
    })
}

/// Whether a rule names an end, by its match of the end itself or of the interface.
fn names(rule: &Rule, end: (End, Field), interface: (&Option<Interface>, Field)) -> bool {
    let is_said = |field| !rule.not.contains(&field);
    let by_end = matches!(end.0, End::Network(_) | End::Sandbox(_)) && is_said(end.1);
    let whole = interface.0.as_ref().is_some_and(|interface| !interface.name.contains('+'));
    by_end || whole && is_said(interface.1)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_rule_opens_a_wall_but_an_accept_that_names_both_ends(rule in rules()) {
        let mut bench = bench(|_| {});
        bench.switch.set_rules(vec![rule.clone()]);
        let ask = craft::udp(from_alice(), ("10.1.0.5", 7), ("10.2.0.3", 9), b"hello");
        let reaches = |fates: Fates| fates.forward.iter().any(|(port, _)| *port == CAROL);
        let passed = reaches(bench.send(ALICE, &ask));
        let named = names(&rule, (rule.from, Field::From), (&rule.in_interface, Field::InInterface))
            && names(&rule, (rule.to, Field::To), (&rule.out_interface, Field::OutInterface));
        let matched = bench.switch.rule_counts().all(|(_, count)| count.frames == 1);
        let expected = matched && named && rule.action == Action::Accept;
        prop_assert_eq!(passed, expected, "{:?}", rule);
    }
}

/// The fates of a packet that comes in from outside, for the red network.
fn enter(bench: &mut Bench, published_as: PublishedAs, bytes: &[u8]) -> Fates {
    let mut frame = bench.pool.take().expect("a slot");
    frame.fill(bytes);
    frame.parse().expect("well-formed");
    let by = Entrance { network: Some(RED), published_as };
    bench.switch.enter(UPLINK, by, frame, &mut bench.verdicts, &mut bench.pool, bench.now);
    bench.drain()
}

fn interface(name: &str) -> Option<Interface> {
    Some(Interface { name: name.to_owned(), networks: vec![] })
}

#[test]
fn interfaces_of_the_host_are_matched_both_ways() {
    let out = craft::udp(from_alice(), ("10.1.0.5", 7), ("198.51.100.1", 9), b"hello");
    let into = craft::udp(TO_HOST, ("198.51.100.1", 7), ("10.1.0.5", 9), b"hello");
    let drop = || Rule::new(1, Action::Drop);
    for (rule, leaves, enters) in [
        (Rule { out_interface: interface("eth0"), ..drop() }, false, true),
        (Rule { out_interface: interface("et+"), ..drop() }, false, true),
        (Rule { out_interface: interface("eth"), ..drop() }, true, true),
        (Rule { out_interface: interface("eth0"), not: vec![Field::OutInterface], ..drop() }, true, false),
        (Rule { in_interface: interface("eth0"), ..drop() }, true, false),
        (Rule { in_interface: interface("wg+"), ..drop() }, true, true),
        (Rule { in_interface: named(RED), ..drop() }, false, true),
        (Rule { out_interface: named(RED), ..drop() }, true, false),
        (Rule { in_interface: named(BLUE), ..drop() }, true, true),
        (Rule { in_interface: interface("eth0"), out_interface: named(RED), ..drop() }, true, false),
    ] {
        let mut bench = bench(|_| {});
        bench.switch.set_rules(vec![rule.clone()]);
        assert_eq!(bench.send(ALICE, &out).outbound.len(), usize::from(leaves), "{rule:?}");
        let fates = enter(&mut bench, PublishedAs::Port(8080), &into);
        assert_eq!(fates.forward.len(), usize::from(enters), "{rule:?}");
    }
}

#[test]
fn a_published_port_is_told_from_the_containers_own() {
    let into = craft::udp(TO_HOST, ("198.51.100.1", 7), ("10.1.0.5", 80), b"hello");
    let udp = |action| Rule { protocol: Protocol::Udp, ..Rule::new(1, action) };
    let published = |action| Rule { published_ports: vec![8080..=8081], ..udp(action) };
    let not = |action| Rule { not: vec![Field::PublishedPorts], ..published(action) };
    let own = Rule { target_ports: vec![8080..=8080], ..udp(Action::Drop) };
    let (port, unknown) = (PublishedAs::Port, PublishedAs::Unknown);
    let then_drop = |rule: Rule| vec![rule, Rule { id: 2, ..udp(Action::Drop) }];
    for (rules, published_as, enters) in [
        (vec![published(Action::Drop)], port(8080), false),
        (vec![published(Action::Drop)], port(80), true),
        (vec![published(Action::Drop)], PublishedAs::Nothing, true),
        (vec![published(Action::Drop)], unknown, false),
        (then_drop(published(Action::Accept)), port(8081), true),
        (then_drop(published(Action::Accept)), unknown, false),
        (vec![not(Action::Drop)], port(8080), true),
        (vec![not(Action::Drop)], port(80), false),
        (vec![not(Action::Drop)], PublishedAs::Nothing, true),
        (vec![not(Action::Drop)], unknown, false),
        (vec![own], port(8080), true),
    ] {
        let mut bench = bench(|_| {});
        bench.switch.set_rules(rules.clone());
        assert_eq!(enter(&mut bench, published_as, &into).forward.len(), usize::from(enters), "{rules:?}");
    }
}

#[test]
fn another_table_sees_the_whole_way_of_a_flow_from_both_sides() {
    let into = craft::udp(TO_HOST, ("198.51.100.1", 7), ("10.1.0.5", 80), b"hello");
    let reply = craft::udp(from_alice(), ("10.1.0.5", 80), ("198.51.100.1", 7), b"hello");
    let drop = || Rule::new(1, Action::Drop);
    for (rule, goes_on) in [
        (Rule { published_ports: vec![8080..=8080], ..drop() }, false),
        (Rule { published_ports: vec![8081..=8081], ..drop() }, true),
        (Rule { in_interface: interface("eth0"), ..drop() }, false),
        (Rule { out_interface: interface("eth0"), ..drop() }, true),
        (Rule { to: End::Sandbox(ALICE.0.into()), ..drop() }, false),
        (Rule { from: End::Sandbox(ALICE.0.into()), ..drop() }, true),
    ] {
        for replies_first in [true, false] {
            let mut bench = bench(|_| {});
            enter(&mut bench, PublishedAs::Port(8080), &into).only(ALICE);
            assert_eq!(bench.send(ALICE, &reply).outbound.len(), 1);
            bench.switch.set_rules(vec![rule.clone()]);
            if replies_first {
                assert_eq!(bench.send(ALICE, &reply).outbound.len(), usize::from(goes_on), "{rule:?}");
            }
            let enters = enter(&mut bench, PublishedAs::Port(8080), &into).forward.len();
            assert_eq!(enters, usize::from(goes_on), "{rule:?}");
        }
    }
}
