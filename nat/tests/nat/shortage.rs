//! More flows than ports: who gives way to whom.

use std::collections::BTreeSet;

use vswitch_frame::DropReason;
use vswitch_nat::{Limits, Origin, Protocol};

use crate::support::{DMZ, Fate, HOST_4, Packet, World, ip, tcp, udp};

const TARGET: &str = "198.51.100.1:80";
/// Ports that a world has for each protocol.
const PORTS: u16 = 64;

fn world() -> World {
    World::with(Limits { flows: 1000, flows_per_sandbox: 1000, ..World::limits() })
}

/// The first segment of a connection to the one target.
fn begin(world: &mut World, port: u16) -> Packet {
    world.leaves(&tcp(&format!("10.1.0.2:{port}"), TARGET, "S", 100, 0))
}

/// A whole connection to the one target; returns the port it left with.
fn visit(world: &mut World, port: u16) -> u16 {
    let own = format!("10.1.0.2:{port}");
    let left = begin(world, port).source;
    world.enters(&tcp(TARGET, &left.to_string(), "SA", 500, 101));
    world.leaves(&tcp(&own, TARGET, "A", 101, 501));
    world.leaves(&tcp(&own, TARGET, "FA", 101, 501));
    world.enters(&tcp(TARGET, &left.to_string(), "FA", 501, 102));
    world.leaves(&tcp(&own, TARGET, "A", 102, 502));
    left.port()
}

#[test]
fn a_connection_may_follow_on_one_that_is_over() {
    let mut world = world();
    let first: Vec<u16> = (0..PORTS).map(|number| visit(&mut world, 1000 + number)).collect();
    let second: Vec<u16> = (0..PORTS).map(|number| visit(&mut world, 2000 + number)).collect();
    assert_eq!(first, second, "who was over first is followed first");
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), usize::from(PORTS));
    let stats = world.nat.stats();
    assert_eq!((stats.flows, stats.recycled, stats.overloaded, stats.refused), (64, 64, 0, 0));
}

#[test]
fn a_connection_that_goes_on_is_followed_by_none() {
    let mut world = world();
    for number in 0..PORTS {
        let source = format!("10.1.0.2:{}", 1000 + number);
        world.connect(&source, TARGET);
    }
    let out = world.out(&tcp("10.1.0.2:2000", TARGET, "S", 1, 0));
    assert_eq!(out.fate, Fate::Dropped(DropReason::NatNoPort), "in silence, so that it is tried again");
    assert_eq!(world.nat.stats().refused, 1);
    let elsewhere = world.leaves(&tcp("10.1.0.2:2000", "198.51.100.2:80", "S", 1, 0));
    assert_eq!(world.nat.stats().overloaded, 1);
    world.enters(&tcp("198.51.100.2:80", &elsewhere.source.to_string(), "SA", 1, 2));
}

#[test]
fn questions_of_names_follow_on_those_that_were_answered() {
    let mut world = world();
    for number in 0..10 * PORTS {
        let left = world.leaves(&udp(&format!("10.1.0.2:{}", 1000 + number), "198.51.100.1:53"));
        world.enters(&left.reply());
    }
    let stats = world.nat.stats();
    assert_eq!((stats.flows, stats.recycled, stats.refused), (64, 9 * 64, 0));
}

#[test]
fn an_exchange_whose_last_question_is_open_is_followed_by_none() {
    let mut world = world();
    for number in 0..PORTS {
        let question = udp(&format!("10.1.0.2:{}", 1000 + number), "198.51.100.1:53");
        let left = world.leaves(&question);
        world.enters(&left.reply());
        world.leaves(&question);
    }
    let refused = world.out(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    assert_eq!(refused.fate, Fate::Dropped(DropReason::NatNoPort));
}

#[test]
fn a_shared_port_is_used_again_when_its_flow_is_over() {
    let mut world = world();
    // All ports are held by flows that go on, to somewhere else.
    for number in 0..PORTS {
        world.connect(&format!("10.1.0.2:{}", 1000 + number), "198.51.100.2:80");
    }
    (0..4 * PORTS).for_each(|number| {
        visit(&mut world, 2000 + number);
    });
    let stats = world.nat.stats();
    assert_eq!((stats.refused, stats.recycled > 0), (0, true));
    let shared = world.nat.flows(world.now).filter(|flow| flow.origin == Origin::Overloaded).count();
    assert!(shared <= usize::from(PORTS), "{shared}");
}

#[test]
fn who_has_few_ports_gets_one_of_who_has_many() {
    let mut world = world();
    (0..PORTS).for_each(|number| {
        visit(&mut world, 1000 + number);
    });
    for number in 0..=PORTS / 3 {
        let left = world.out_of(DMZ, &tcp(&format!("10.1.0.3:{}", 1000 + number), TARGET, "S", 100, 0));
        assert_eq!(left.fate, Fate::Outside);
        world.inn(&tcp(TARGET, &left.packet().source.to_string(), "SA", 500, 101));
    }
    assert_eq!(world.nat.stats().refused, 0, "up to its share");
    let of_first = world.nat.flows(world.now).filter(|flow| flow.sandbox == 1).count();
    assert_eq!(of_first, usize::from(PORTS - PORTS / 3 - 1));
}

#[test]
fn some_ports_are_kept_back_for_who_has_few() {
    let mut world = World::with(Limits { claims_ahead: 32, ..World::limits() });
    for number in 0..PORTS {
        let sent = tcp(&format!("10.1.0.2:{}", 1000 + number), "198.51.100.9:1", "S", 1, 0);
        let is_kept_back = number >= PORTS - PORTS / 16;
        let expected = if is_kept_back { Fate::Dropped(DropReason::NatNoPort) } else { Fate::Outside };
        assert_eq!(world.out(&sent).fate, expected, "{number}");
    }
    let kept = (0..PORTS / 16).map(|number| {
        let sent = tcp(&format!("10.1.0.3:{}", 1000 + number), "198.51.100.9:1", "S", 1, 0);
        world.out_of(DMZ, &sent).packet().source.port()
    });
    assert_eq!(kept.collect::<BTreeSet<_>>().len(), usize::from(PORTS / 16));
    assert_eq!(world.nat.stats().overloaded, 0);
}

#[test]
fn claims_are_those_that_were_said_last() {
    let mut world = World::new();
    let kept = world.leaves(&udp("10.1.0.2:40001", "198.51.100.1:5353"));
    let gone = world.leaves(&udp("10.1.0.2:40060", "198.51.100.1:5353"));
    assert_eq!((kept.source.port(), gone.source.port()), (40_001, 40_060));
    world.nat.set_claims(Protocol::Udp, ip(HOST_4), &[40_000..=40_003, 50_000..=50_001]);
    world.enters(&kept.reply());
    assert_eq!(world.inn(&gone.reply()).fate, Fate::Host, "the port is the host's again");
    let left: BTreeSet<u16> = (1..6)
        .map(|number| world.leaves(&udp(&format!("10.1.0.2:{number}000"), "198.51.100.1:5353")).source.port())
        .collect();
    assert_eq!(left, [40_000, 40_002, 40_003, 50_000, 50_001].into());
}

#[test]
fn an_uplink_that_is_away_for_a_while_costs_no_claim() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:40001", "198.51.100.1:5353"));
    let before = world.nat.stats();
    let host = vec![ip(HOST_4), ip("192.0.2.2")];
    world.nat.set_uplink(vswitch_nat::Uplink { host: host.clone(), ..Default::default() });
    assert_eq!(world.nat.stats(), before, "its address is still the host's");
    let v4 = Some("192.0.2.1".parse().expect("IPv4"));
    world.nat.set_uplink(vswitch_nat::Uplink { v4, host, ..Default::default() });
    world.enters(&left.reply());
    world.nat.set_uplink(vswitch_nat::Uplink::default());
    assert_eq!((world.nat.stats().flows, world.nat.stats().ports_claimed), (0, before.ports_claimed));
}

#[test]
fn ports_that_nobody_needs_are_given_back() {
    let mut world = World::with(Limits { claims_ahead: 8, ..World::limits() });
    world.leaves(&udp("10.1.0.2:40001", "198.51.100.1:5353"));
    let given = world.nat.give_back(Protocol::Udp, ip(HOST_4), 20);
    assert_eq!(given.len(), 20);
    assert!(!given.contains(&40_001), "nobody has them");
    let given = world.nat.give_back(Protocol::Udp, ip(HOST_4), 1000);
    assert_eq!(given.len(), 63 - 20 - 16, "what is to be ahead of need stays");
    assert!(world.nat.give_back(Protocol::Udp, ip(HOST_4), 1000).is_empty());
}
