//! Another translator goes on with the flows of one that is no more.

use vswitch_frame::DropReason;
use vswitch_nat::{Binding, Filtering, Limits, Nat, Origin, Protocol, Uplink};

use crate::support::{DMZ, Fate, HOST_4, Kind, LAN, World, binding, end, ip, packet, syn, tcp, udp};

/// Tells a translator what these tests need beside its uplink.
fn tell(nat: &mut Nat) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        nat.add_binding(binding(protocol)).expect("published");
    }
}

fn published() -> World {
    let mut world = World::with(Limits { filtering: Filtering::EndpointIndependent, ..World::limits() });
    tell(&mut world.nat);
    world
}

/// Flows, mappings, permits and ports that there are, apart from counters.
fn held(world: &World) -> (Vec<String>, Vec<String>, [usize; 5]) {
    let flows = world.nat.flows(world.now).map(|flow| {
        let (state, sandbox) = ((flow.class, flow.state, flow.answered), flow.sandbox);
        format!("{:?} {:?} {:?} {state:?} {sandbox}", flow.initiator, flow.target, flow.origin)
    });
    let mappings = world.nat.mappings().map(|mapping| format!("{mapping:?}"));
    let (mut flows, mut mappings): (Vec<_>, Vec<_>) = (flows.collect(), mappings.collect());
    flows.sort_unstable();
    mappings.sort_unstable();
    let stats = world.nat.stats();
    let numbers = [stats.flows, stats.mappings, stats.permits, stats.ports_claimed, stats.ports_free];
    (flows, mappings, numbers)
}

#[test]
fn every_kind_of_flow_goes_on() {
    let mut world = published();
    let connected = world.connect("10.1.0.2:1000", "198.51.100.1:80");
    let asked = world.leaves(&udp("[fd01::2]:40001", "[2001:db8:9::1]:53"));
    let pinged = world.leaves(&packet(Kind::Request, "10.1.0.3:77", "198.51.100.1"));
    world.enters(&syn("198.51.100.9:999", "192.0.2.1:8080"));
    // Inbound, through the mapping of a datagram.
    let mapped = world.leaves(&udp("10.1.0.4:2000", "198.51.100.1:53"));
    let stranger = udp("198.51.100.1:54", &mapped.source.to_string());
    let arrived = world.enters(&stranger);
    // From inside to a published port, and to somebody's mapping.
    let hairpin = world.out_of(DMZ, &udp("10.2.0.9:5000", "192.0.2.1:8080")).packet();
    let to_mapping = udp("10.2.0.9:6000", &mapped.source.to_string());
    assert_eq!(world.out_of(DMZ, &to_mapping).fate, Fate::Inside(LAN));
    let before = held(&world);
    let origins = [Origin::Outbound, Origin::Published, Origin::Inbound, Origin::Hairpin];
    for origin in origins {
        assert!(world.nat.flows(world.now).any(|flow| flow.origin == origin), "{origin:?}");
    }
    world.restart(tell);
    assert_eq!(held(&world), before);

    world.enters(&tcp("198.51.100.1:80", &connected.source.to_string(), "A", 501, 101));
    assert_eq!(
        world.leaves(&tcp("10.1.0.2:1000", "198.51.100.1:80", "A", 101, 501)).source,
        connected.source
    );
    assert_eq!(world.enters(&asked.reply()).target, end("[fd01::2]:40001"));
    assert_eq!(world.enters(&pinged.reply()).target, end("10.1.0.3:77"));
    let answer = world.leaves(&tcp("10.1.0.2:80", "198.51.100.9:999", "SA", 500, 101));
    assert_eq!(answer.source, end("192.0.2.1:8080"));
    assert_eq!(world.enters(&stranger), arrived);
    let answer = world.out(&udp("10.1.0.2:80", &hairpin.source.to_string()));
    assert_eq!(answer.fate, Fate::Inside(DMZ));
    assert_eq!(answer.packet().source, end("192.0.2.1:8080"));
    assert_eq!(held(&world).2[0], before.2[0], "nothing new began");
}

#[test]
fn a_flow_is_not_forgotten_too_early_and_not_kept_for_ever() {
    let mut world = published();
    let asked = world.leaves(&udp("10.1.0.2:40000", "198.51.100.1:53"));
    world.seconds(33);
    world.leaves(&udp("10.1.0.2:40000", "198.51.100.1:53"));
    world.seconds(60);
    world.restart(tell);
    world.seconds(59);
    world.poll();
    assert_eq!(world.enters(&asked.reply()).target, end("10.1.0.2:40000"));
    world.seconds(400);
    world.poll();
    assert_eq!(held(&world).2[..3], [0; 3]);
}

#[test]
fn what_could_not_begin_today_ends() {
    let mut world = published();
    world.connect("10.1.0.2:1000", "198.51.100.1:80");
    world.enters(&syn("198.51.100.9:999", "192.0.2.1:8080"));
    world.leaves(&udp("10.1.0.3:40000", "198.51.100.1:53"));
    world.leaves(&udp("10.1.0.99:2000", "198.51.100.1:53"));
    let free = world.nat.stats().ports_free;
    // 10.1.0.99 is nobody's, the port is not published any more, and 40000 of UDP is not claimed.
    world.restart(|nat| {
        nat.revoke(Protocol::Udp, ip(HOST_4), &[40_000].into());
    });
    assert_eq!(world.nat.stats().flows, 1);
    assert_eq!(world.nat.stats().ports_free, free + 1);
    world.restart(tell);
    assert_eq!(world.nat.stats().flows, 1, "what has ended is not taken up again");
    assert_eq!(world.out(&tcp("10.1.0.2:1000", "198.51.100.1:80", "A", 101, 501)).fate, Fate::Outside);
}

#[test]
fn another_address_ends_what_left_with_the_old_one() {
    let mut world = published();
    world.connect("10.1.0.2:1000", "198.51.100.1:80");
    world.restart(|nat| {
        nat.set_uplink(Uplink { v4: Some([203, 0, 113, 9].into()), mtu: 1500, ..Uplink::default() });
    });
    assert_eq!(world.nat.stats().flows, 0);
    let out = world.out(&tcp("10.1.0.2:1000", "198.51.100.1:80", "A", 101, 501));
    assert_eq!(out.fate, Fate::Answered(DropReason::NatNoFlow));
}

#[test]
fn a_publication_that_leads_elsewhere_ends_its_flows() {
    let mut world = published();
    world.enters(&syn("198.51.100.9:999", "192.0.2.1:8080"));
    world.restart(|nat| {
        let elsewhere = Binding { container: ip("10.1.0.3"), ..binding(Protocol::Tcp) };
        nat.add_binding(elsewhere).expect("published");
    });
    assert_eq!(world.nat.stats().flows, 0);
    assert_eq!(world.inn(&syn("198.51.100.9:999", "192.0.2.1:8080")).packet().target, end("10.1.0.3:80"));
}

#[test]
fn an_end_is_noted_and_its_record_used_again() {
    let mut world = published();
    for port in 2000..2010 {
        world.leaves(&udp(&format!("10.1.0.2:{port}"), "198.51.100.1:53"));
    }
    world.restart(tell);
    world.forget("10.1.0.2");
    assert_eq!(world.nat.stats().flows, 0);
    world.leaves(&udp("10.1.0.3:3000", "198.51.100.1:53"));
    assert_eq!(world.nat.records(), 10, "the record of one that has ended");
    world.restart(tell);
    assert_eq!(world.nat.stats().flows, 1);
}
