//! Tables that others can fill: who fills one pays, and nobody else does.

use vswitch_frame::{DropReason, Offload};
use vswitch_nat::{Binding, Class, Limits, Origin, Protocol};

use crate::fragments::three;
use crate::support::{DMZ, Fate, Kind, LAN, Packet, World, binding, packet, syn, tcp, udp};

const SERVICE: &str = "192.0.2.1:8080";
const TARGET: &str = "198.51.100.1:4430";
/// Ports that a world has for each protocol and address.
const PORTS: u16 = 64;

fn world(flows_per_sandbox: u32) -> World {
    World::with(Limits { flows_per_sandbox, ..World::limits() })
}

/// A source that is not there: it sends once, and never again.
fn forged(number: u16) -> String {
    let [high, low] = number.to_be_bytes();
    format!("203.0.{high}.{low}:999")
}

/// Questions of forged sources to a published service, which answers each.
fn flood(world: &mut World, numbers: std::ops::Range<u16>) {
    for number in numbers {
        let came = world.enters(&udp(&forged(number), SERVICE));
        world.leaves(&came.reply());
    }
}

/// A client that asks, is answered, and asks again.
fn converse(world: &mut World, client: &str) {
    for _ in 0..2 {
        let came = world.enters(&udp(client, SERVICE));
        world.leaves(&came.reply());
    }
}

#[test]
fn who_asks_once_from_outside_is_not_established() {
    let mut world = world(1000);
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    flood(&mut world, 1..2);
    let class = |world: &World| world.nat.flows(world.now).next().map(|flow| flow.class);
    assert_eq!(class(&world), Some(Class::UdpExchange));
    world.seconds(31);
    world.poll();
    assert_eq!(world.flows(), 0, "a source that was forged does not last");
    converse(&mut world, &forged(2));
    assert_eq!(class(&world), Some(Class::Udp));
    world.seconds(299);
    world.poll();
    assert_eq!(world.flows(), 1);
}

#[test]
fn forged_sources_take_a_service_neither_from_its_clients_nor_from_itself() {
    let mut world = world(50);
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    converse(&mut world, "198.51.100.7:1000");
    flood(&mut world, 0..500);
    converse(&mut world, "198.51.100.8:1000");
    flood(&mut world, 500..520);
    // Clients that were there go on, with what the container sends on its own account, too.
    for client in ["198.51.100.7:1000", "198.51.100.8:1000"] {
        assert_eq!(world.leaves(&udp("10.1.0.2:80", client)).source.to_string(), SERVICE);
    }
    for port in 1000..1050 {
        world.leaves(&udp(&format!("10.1.0.2:{port}"), "198.51.100.1:53"));
    }
    assert!(world.flows() <= 100, "a share each: {}", world.flows());
}

#[test]
fn who_comes_puts_out_those_who_were_not_heard_of_for_longest() {
    let mut world = world(10);
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    let own = "198.51.100.7:1000";
    converse(&mut world, own);
    for number in 0..100 {
        world.seconds(1);
        world.enters(&udp(own, SERVICE));
        converse(&mut world, &forged(number));
    }
    assert_eq!(world.leaves(&udp("10.1.0.2:80", own)).source.to_string(), SERVICE);
    assert_eq!(world.nat.stats().evicted, 91);
}

#[test]
fn connections_are_not_put_out_by_those_who_come() {
    let mut world = world(2);
    world.nat.add_binding(binding(Protocol::Tcp)).expect("a binding");
    let connect = |world: &mut World, client: &str| {
        let came = world.inn(&syn(client, SERVICE));
        if let Fate::Dropped(reason) = came.fate {
            return Err(reason);
        }
        world.leaves(&came.packet().reply());
        world.enters(&tcp(client, SERVICE, "A", 101, 501));
        Ok(())
    };
    for client in ["198.51.100.7:1", "198.51.100.7:2"] {
        assert_eq!(connect(&mut world, client), Ok(()));
    }
    assert_eq!(connect(&mut world, "198.51.100.7:3"), Err(DropReason::NatSandboxFull));
}

#[test]
fn forged_sources_do_not_hold_the_ports_of_hidden_clients() {
    let mut world = world(1000);
    world.nat.add_binding(Binding { keeps_client: false, ..binding(Protocol::Udp) }).expect("a binding");
    converse(&mut world, "198.51.100.7:1000");
    flood(&mut world, 0..500);
    converse(&mut world, "198.51.100.8:1000");
    let firm: Vec<Class> =
        world.nat.flows(world.now).map(|flow| flow.class).filter(|class| class.is_established()).collect();
    assert_eq!(firm, [Class::Udp; 2]);
}

#[test]
fn strangers_at_a_mapping_do_not_fill_the_share_of_its_sandbox() {
    let mut world = world(10);
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:5353"));
    world.enters(&left.reply());
    for port in 1..200 {
        world.inn(&udp(&format!("198.51.100.1:{port}"), &left.source.to_string()));
    }
    for port in 5001..5010 {
        world.leaves(&udp(&format!("10.1.0.2:{port}"), "198.51.100.1:5353"));
    }
    world.enters(&left.reply());
}

/// The first container takes every way to the target that it can get; says how many.
fn take_all(world: &mut World, protocol: Protocol, answered: bool) -> usize {
    let taken = (0..200u16).filter(|number| {
        let own = format!("10.1.0.2:{}", 1000 + number);
        let first = if protocol == Protocol::Tcp { syn(&own, TARGET) } else { udp(&own, TARGET) };
        let left = world.out(&first);
        if left.fate != Fate::Outside {
            return false;
        }
        let left = left.packet();
        if answered {
            world.enters(&left.reply());
            if protocol == Protocol::Tcp {
                world.leaves(&tcp(&own, TARGET, "A", 101, 501));
            }
        }
        true
    });
    taken.count()
}

#[test]
fn who_takes_every_port_to_a_target_makes_way_for_others() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for answered in [false, true] {
            let mut world = world(1000);
            assert_eq!(take_all(&mut world, protocol, answered), usize::from(PORTS));
            let share = PORTS / 3;
            for number in 0..share {
                let own = format!("10.2.0.9:{}", 1000 + number);
                let first = if protocol == Protocol::Tcp { syn(&own, TARGET) } else { udp(&own, TARGET) };
                let left = world.out_of(DMZ, &first);
                assert_eq!(left.fate, Fate::Outside, "{protocol:?} {answered} {number}");
                let came = world.inn(&left.packet().reply());
                assert_eq!(came.fate, Fate::Inside(DMZ));
            }
            let of_first = world.nat.flows(world.now).filter(|flow| flow.sandbox == 1).count();
            assert_eq!(of_first, usize::from(PORTS - share), "{protocol:?} {answered}");
            // And it does not get back what it had beyond its share.
            take_all(&mut world, protocol, answered);
            let of_second = world.nat.flows(world.now).filter(|flow| flow.sandbox == 2).count();
            assert_eq!(of_second, usize::from(share), "{protocol:?} {answered}");
        }
    }
}

#[test]
fn who_takes_every_identifier_to_a_target_makes_way_for_others() {
    let mut world = world(1000);
    // Nobody has to hold identifiers, so any number of them may be taken; these are in the way.
    for number in 0..600 {
        world.leaves(&packet(Kind::Request, &format!("10.1.0.2:{number}"), "198.51.100.1"));
    }
    let query = packet(Kind::Request, "10.2.0.9:5", "198.51.100.1");
    let left = world.out_of(DMZ, &query);
    assert_eq!(left.fate, Fate::Outside);
    assert_eq!(world.inn(&left.packet().reply()).fate, Fate::Inside(DMZ));
}

#[test]
fn a_full_table_costs_who_has_most() {
    let mut world = World::with(Limits { flows: 60, flows_per_sandbox: 1000, ..World::limits() });
    (0..20).for_each(|number| {
        world.out_of(DMZ, &udp(&format!("10.2.0.9:{}", 1000 + number), "198.51.100.1:53"));
    });
    world.seconds(10);
    for number in 0..40 {
        world.connect(&format!("10.1.0.2:{}", 1000 + number), TARGET);
    }
    world.seconds(10);
    for number in 0..10 {
        let left = world.out_of(DMZ, &udp(&format!("10.2.0.9:{}", 2000 + number), "198.51.100.1:53"));
        assert_eq!(left.fate, Fate::Outside, "{number}");
    }
    let of_second = world.nat.flows(world.now).filter(|flow| flow.sandbox == 2).count();
    assert_eq!(of_second, 30, "none of its own went");
    // Flows beyond its share end, and both ends hear of it.
    assert_eq!(world.nat.stats().evicted, 10);
    assert!(!world.poll().is_empty());
}

#[test]
fn fragments_of_one_leave_room_for_those_of_others() {
    let mut world = World::with(Limits { datagrams: 16, fragments_waiting: 8, ..World::limits() });
    let of =
        |source: &str| three(&Packet { payload: vec![7; 100], ..udp(source, "198.51.100.1:53") }.frame());
    // Without their first fragment they wait, each of another datagram.
    let flood = |world: &mut World, ids: std::ops::Range<u16>| {
        for id in ids {
            let [_, middle, _] = of("10.1.0.2:1000");
            world.outbound(LAN, &with_id(middle, id), Offload::NONE);
        }
    };
    flood(&mut world, 0..40);
    let [first, middle, last] = of("10.2.0.9:1000").map(|fragment| with_id(fragment, 7));
    for late in [last, middle] {
        let outs = world.outbound(DMZ, &late, Offload::NONE);
        assert_eq!(outs[0].fate, Fate::Dropped(DropReason::NatFragmentLost));
        assert_ne!(outs[0].bytes[26..30], late[26..30], "it waits, and who has most makes way");
    }
    flood(&mut world, 40..80);
    let outs = world.outbound(DMZ, &first, Offload::NONE);
    assert_eq!(outs.iter().filter(|out| out.fate == Fate::Outside).count(), 3, "all of it");
}

/// A fragment of another datagram.
fn with_id(mut fragment: Vec<u8>, id: u16) -> Vec<u8> {
    fragment[18..20].copy_from_slice(&id.to_be_bytes());
    crate::fragments::reseal_ip(&mut fragment);
    fragment
}

#[test]
fn what_was_shared_is_not_charged_as_if_it_were_a_port() {
    let mut world = world(1000);
    take_all(&mut world, Protocol::Tcp, true);
    let left = world.out_of(DMZ, &syn("10.2.0.9:1000", "198.51.100.9:443"));
    assert_eq!(left.fate, Fate::Outside);
    let shared = world.nat.flows(world.now).filter(|flow| flow.origin == Origin::Overloaded).count();
    assert_eq!((shared, world.nat.stats().evicted), (1, 0), "a port that another uses, and nobody pays");
}
