//! Each limit, and what happens at it.

use vswitch_frame::{DropReason, Instant, Pool, PortId};
use vswitch_nat::{Class, Inside, Leaving, Limits, Nat, Origin, Protocol, Realm, Uplink, Verdicts, Wanted};

use crate::support::{Fate, HOST_4, LAN, Packet, World, binding, end, ip, syn, tcp, udp};

fn source(port: u16) -> String {
    format!("10.1.0.2:{port}")
}

#[test]
fn a_full_table_evicts_the_oldest_flow_that_is_not_established() {
    let mut world = World::with(Limits { flows: 3, ..World::limits() });
    let kept = world.connect("10.1.0.2:1000", "198.51.100.1:80");
    world.seconds(1);
    world.leaves(&udp("10.1.0.2:2000", "198.51.100.1:53"));
    world.seconds(1);
    world.leaves(&syn("10.1.0.2:3000", "198.51.100.1:80"));
    world.seconds(1);
    // Refreshed, so the SYN is the oldest now.
    world.leaves(&udp("10.1.0.2:2000", "198.51.100.1:53"));
    world.seconds(1);
    world.leaves(&udp("10.1.0.2:4000", "198.51.100.1:53"));
    let mut ports: Vec<u16> = world.nat.flows(world.now).map(|flow| flow.initiator.source_port).collect();
    ports.sort_unstable();
    assert_eq!((ports, world.nat.stats().evicted), (vec![1000, 2000, 4000], 1));
    world.enters(&tcp("198.51.100.1:80", &kept.source.to_string(), "A", 501, 101));
}

#[test]
fn a_table_full_of_established_flows_takes_no_more() {
    let mut world = World::with(Limits { flows: 2, ..World::limits() });
    world.connect("10.1.0.2:1000", "198.51.100.1:80");
    world.connect("10.1.0.2:2000", "198.51.100.1:80");
    let out = world.out(&syn("10.1.0.2:3000", "198.51.100.1:80"));
    assert_eq!(out.fate, Fate::Dropped(DropReason::NatTableFull));
    assert_eq!((world.flows(), world.nat.stats().evicted), (2, 0));
}

#[test]
fn without_a_free_port_flows_share_one_and_are_counted() {
    let mut world = World::new();
    for port in 1000..1064 {
        world.leaves(&udp(&source(port), "198.51.100.1:53"));
    }
    assert_eq!(world.nat.stats().ports_free, 64 * 3);
    let shared = world.leaves(&udp(&source(2000), "198.51.100.2:53"));
    assert_eq!(world.enters(&shared.reply()), udp(&source(2000), "198.51.100.2:53").reply());
    assert_eq!(world.nat.stats().overloaded, 1);
    assert_eq!(world.nat.flows(world.now).filter(|flow| flow.origin == Origin::Overloaded).count(), 1);
    let refused = world.out(&udp(&source(2000), "198.51.100.1:53"));
    assert_eq!(refused.fate, Fate::Dropped(DropReason::NatNoPort), "each port talks to that end already");
}

#[test]
fn more_claims_are_wanted_before_there_are_none() {
    let mut world = World::with(Limits { claims_ahead: 32, claims: 100, ..World::limits() });
    let udp_4 = |world: &World| {
        let mut wanted = world.nat.wanted();
        let of = |wanted: &Wanted| wanted.protocol == Protocol::Udp && wanted.address == ip(HOST_4);
        wanted.find(of).map_or(0, |wanted| wanted.ports)
    };
    for port in 1000..1032 {
        world.leaves(&udp(&source(port), "198.51.100.1:53"));
        assert_eq!(udp_4(&world), 0);
    }
    world.leaves(&udp(&source(1032), "198.51.100.1:53"));
    assert_eq!(udp_4(&world), 33);
    world.nat.grant(Protocol::Udp, ip(HOST_4), 50_000..50_010);
    assert_eq!(udp_4(&world), 0);
    for port in 1033..1060 {
        world.leaves(&udp(&source(port), "198.51.100.1:53"));
    }
    assert_eq!(udp_4(&world), 26, "no more than may be claimed");
}

#[test]
fn a_translator_without_claims_asks_for_some_and_refuses_meanwhile() {
    let mut world = World::new();
    world.nat.set_uplink(Uplink { v4: Some("203.0.113.99".parse().expect("IPv4")), ..Uplink::default() });
    assert_eq!(world.nat.wanted().map(|wanted| wanted.ports).collect::<Vec<_>>(), [512, 512]);
    let out = world.out(&udp(&source(1), "198.51.100.1:53"));
    assert_eq!(out.fate, Fate::Dropped(DropReason::NatNoPort));
    let out = world.out(&udp("[fd01::2]:5000", "[2001:db8:9::1]:53"));
    assert_eq!(out.fate, Fate::Answered(DropReason::NatNoAddress));
}

#[test]
fn flows_end_with_their_outside_address() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    world.leaves(&udp(&source(1), "198.51.100.1:53"));
    world.enters(&udp("198.51.100.1:1", "192.0.2.2:8080"));
    let v4 = Some("192.0.2.2".parse().expect("IPv4"));
    world.nat.set_uplink(Uplink { v4, ..Uplink::default() });
    let flows: Vec<Origin> = world.nat.flows(world.now).map(|flow| flow.origin).collect();
    assert_eq!(flows, [Origin::Published]);
}

#[test]
fn a_revoked_claim_ends_its_flows_and_is_not_used_again() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:40001", "198.51.100.1:53"));
    assert_eq!(left.source, end("192.0.2.1:40001"));
    world.nat.revoke(Protocol::Udp, ip(HOST_4), &[40_001].into());
    assert_eq!((world.flows(), world.nat.stats().mappings), (0, 0));
    assert_eq!(world.inn(&left.reply()).fate, Fate::Host);
    for port in 0..63 {
        let left = world.leaves(&udp(&source(1000 + port), "198.51.100.1:53"));
        assert_ne!(left.source.port(), 40_001);
    }
    assert_eq!(world.nat.stats().overloaded, 0);
}

#[test]
fn networks_of_plain_addresses_are_not_translated_but_for_published_ports() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    world.leaving = Leaving::Plain;
    let sent = udp(&source(80), "198.51.100.1:53");
    let out = world.out(&sent);
    assert_eq!((out.fate, out.packet()), (Fate::Plain, sent));
    let came = world.enters(&udp("198.51.100.1:53", "192.0.2.1:8080"));
    assert_eq!(world.leaves(&came.reply()).source, end("192.0.2.1:8080"));
}

#[test]
fn a_network_may_leave_with_an_address_of_its_own() {
    let mut world = World::new();
    world.address = Some(ip("192.0.2.2"));
    let sent = udp("10.1.0.2:5000", "198.51.100.1:53");
    assert_eq!(world.out(&sent).fate, Fate::Dropped(DropReason::NatNoPort));
    let asked: Vec<Wanted> =
        world.nat.wanted().filter(|wanted| Some(wanted.address) == world.address).collect();
    assert_eq!(asked.iter().map(|wanted| wanted.protocol).collect::<Vec<_>>(), [Protocol::Udp]);
    world.nat.grant(Protocol::Udp, ip("192.0.2.2"), [41_000]);
    let left = world.leaves(&sent);
    assert_eq!(left.source, end("192.0.2.2:41000"));
    assert_eq!(world.enters(&left.reply()), sent.reply());
    // One that is not the host's is not used.
    world.address = Some(ip("203.0.113.77"));
    assert_eq!(world.leaves(&udp("10.1.0.3:5000", "198.51.100.1:53")).source.ip(), ip(HOST_4));
}

/// An SCTP packet without chunks: ports, verification tag, checksum.
fn sctp(source: &str, target: &str) -> Vec<u8> {
    let mut frame = Packet { payload: vec![9; 4], ..udp(source, target) }.frame();
    frame[23] = 132;
    crate::fragments::reseal_ip(&mut frame);
    frame
}

#[test]
fn sctp_keeps_its_ports_or_does_not_pass() {
    let offload = vswitch_frame::Offload::NONE;
    let mut world = World::new();
    let sent = sctp("10.1.0.2:5000", "198.51.100.1:7");
    let outs = world.outbound(LAN, &sent, offload);
    assert_eq!(outs[0].fate, Fate::Outside);
    assert_eq!(outs[0].bytes[26..30], [192, 0, 2, 1]);
    assert_eq!(outs[0].bytes[34..], sent[34..], "nothing behind the IP header");
    let mut back = sctp("198.51.100.1:7", "192.0.2.1:5000");
    assert_eq!(world.inbound(&back, offload)[0].fate, Fate::Inside(LAN));
    back[37] ^= 1;
    assert_eq!(world.inbound(&back, offload)[0].fate, Fate::Host, "another port");
    let same = sctp("10.1.0.3:5000", "198.51.100.1:7");
    assert_eq!(world.outbound(LAN, &same, offload)[0].fate, Fate::Dropped(DropReason::NatNoPort));
    let elsewhere = sctp("10.1.0.3:5000", "198.51.100.2:7");
    assert_eq!(world.outbound(LAN, &elsewhere, offload)[0].fate, Fate::Outside);
    assert_eq!(world.nat.flows(world.now).filter(|flow| flow.class == Class::Sctp).count(), 1);
}

#[test]
fn a_listing_says_what_there_is() {
    let mut world = World::new();
    let left = world.connect("10.1.0.2:1000", "198.51.100.1:80");
    world.seconds(10);
    let flow = world.nat.flows(world.now).next().expect("a flow");
    assert_eq!((flow.class, flow.origin, flow.sandbox), (Class::Tcp, Origin::Outbound, 1));
    assert_eq!((flow.frames, flow.bytes), ([2, 1], [48 + 40, 48]));
    assert_eq!((flow.age.as_secs(), flow.left.as_secs()), (9, 7430));
    let seen = (flow.target.target.ip(), flow.target.target_port);
    assert_eq!(seen, (left.source.ip(), left.source.port()));
}

#[test]
fn preparing_for_a_burst_changes_nothing() {
    let mut nat = Nat::new(Limits { flows: 10_000, ..World::limits() }, 7);
    nat.set_uplink(Uplink { v4: Some("192.0.2.1".parse().expect("IPv4")), ..Uplink::default() });
    nat.grant(Protocol::Udp, ip(HOST_4), [40_000]);
    let mut pool = Pool::new(2);
    let from =
        Inside { port: PortId(1), network: LAN, sandbox: 1, leaving: Leaving::Masqueraded, address: None };
    let mut verdicts = Verdicts::default();
    for number in 0..9000u16 {
        let target = format!("198.51.100.1:{}", number + 1);
        let mut frame = pool.take().expect("a slot");
        frame.fill(&udp("10.1.0.2:5000", &target).frame());
        frame.parse().expect("a good frame");
        let before = nat.stats();
        nat.prepare([&frame, &frame], Realm::network(LAN));
        assert_eq!(nat.stats(), before);
        nat.outbound(frame, from, Instant::ZERO, &mut verdicts);
        verdicts.outside.drain(..).for_each(|(_, frame)| pool.free(frame));
    }
    assert_eq!((nat.stats().flows, nat.stats().mappings, pool.available()), (9000, 1, 2));
}

/// As many flows, each with a mapping of its own and somebody else to talk to.
#[test]
fn flows_of_which_there_are_200_000_take_at_most_256_bytes_each() {
    const FLOWS: u32 = 200_000;
    let limits = Limits { flows_per_sandbox: u32::MAX, claims: usize::MAX, ..Limits::default() };
    let mut nat = Nat::new(limits, 7);
    let host: Vec<std::net::IpAddr> = (1..=4).map(|last| ip(&format!("192.0.2.{last}"))).collect();
    nat.set_uplink(Uplink { host: host.clone(), mtu: 1500, ..Uplink::default() });
    for address in &host {
        nat.grant(Protocol::Udp, *address, 1..=u16::MAX);
    }
    let (mut pool, mut verdicts) = (Pool::new(1), Verdicts::default());
    let empty = nat.bytes();
    for number in 0..FLOWS {
        let [_, high, middle, low] = number.to_be_bytes();
        let (source, target) =
            (format!("10.{high}.{middle}.{low}:1000"), format!("198.{high}.{middle}.{low}:53"));
        let mut frame = pool.take().expect("a slot");
        frame.fill(&udp(&source, &target).frame());
        frame.parse().expect("a good frame");
        let address = Some(host[number as usize % host.len()]);
        let leaving = Leaving::Masqueraded;
        let from = Inside { port: PortId(1), network: LAN, sandbox: 1, leaving, address };
        nat.outbound(frame, from, Instant::ZERO, &mut verdicts);
        pool.free(verdicts.outside.pop().expect("it leaves").1);
    }
    let stats = nat.stats();
    assert_eq!((stats.flows, stats.mappings, stats.permits), (200_000, 200_000, 200_000));
    let each = (nat.bytes() - empty) / FLOWS as usize;
    assert!(each <= 256, "{each} bytes");
    assert!(empty < 100_000, "{empty} bytes without a flow");
}
