//! Containers that are gone: everything that they had on the way out ends with them, and nothing else.

use vswitch_frame::{DropReason, Offload};
use vswitch_nat::{Filtering, Limits, Nat, Protocol};

use crate::fragments::three;
use crate::support::{DMZ, Fate, LAN, Packet, World, binding, ip, syn, tcp, udp};

fn tell(nat: &mut Nat) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        nat.add_binding(binding(protocol)).expect("published");
    }
}

/// A container, 10.1.0.2 of sandbox 1, with flows of every kind, and another one with two of its own.
fn busy() -> World {
    let mut world = World::with(Limits { filtering: Filtering::EndpointIndependent, ..World::limits() });
    tell(&mut world.nat);
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:5353"));
    world.enters(&udp("198.51.100.9:1", &left.source.to_string()));
    world.connect("10.1.0.2:1000", "198.51.100.1:80");
    world.enters(&syn("198.51.100.9:999", "192.0.2.1:8080"));
    world.enters(&udp("198.51.100.9:999", "192.0.2.1:8080"));
    let to_mapping = left.source.to_string();
    for target in ["192.0.2.1:8080", &to_mapping] {
        assert_eq!(world.out_of(DMZ, &udp("10.2.0.9:5000", target)).fate, Fate::Inside(LAN));
        assert_eq!(world.out(&udp("10.1.0.2:6000", target)).fate, Fate::Inside(LAN), "to itself");
    }
    for port in [5000, 5001] {
        assert_eq!(
            world.out_of(DMZ, &udp(&format!("10.2.0.9:{port}"), "198.51.100.1:53")).fate,
            Fate::Outside
        );
    }
    assert_eq!(world.flows(), 11);
    world
}

#[test]
fn everything_of_a_container_ends_with_it_and_nothing_of_others() {
    for goes_on in [false, true] {
        let mut world = busy();
        if goes_on {
            world.restart(|nat| {
                tell(nat);
            });
            assert_eq!(world.flows(), 11);
        }
        world.nat.forget(DMZ, 1, &[ip("10.1.0.2")], &[]);
        world.nat.forget(LAN, 2, &[ip("10.1.0.2")], &[]);
        world.nat.forget(LAN, 1, &[], &[ip("10.1.0.2")]);
        assert_eq!(world.flows(), 11, "another network, another sandbox, another address");
        world.nat.forget(LAN, 1, &[ip("10.1.0.2")], &[]);
        let stats = world.nat.stats();
        assert_eq!((stats.flows, stats.mappings, stats.permits), (2, 2, 2));
        assert_eq!(stats.ports_free, stats.ports_claimed - 2);
        let sandboxes: Vec<u32> = world.nat.flows(world.now).map(|flow| flow.sandbox).collect();
        assert_eq!(sandboxes, [2, 2]);
        let told: Vec<Fate> = world.poll().iter().map(|out| out.fate).collect();
        assert_eq!(told, [Fate::Inside(LAN), Fate::Outside], "both ends of what was established");
        assert_eq!(world.inn(&tcp("198.51.100.9:999", "192.0.2.1:8080", "A", 101, 501)).packet().kind, {
            crate::support::Kind::Tcp("R", 501, 0)
        });
    }
}

#[test]
fn a_publication_is_in_use_by_clients_from_inside_too_and_ends_for_them() {
    let mut world = busy();
    assert!(world.nat.is_in_use(&binding(Protocol::Udp)));
    assert!(world.nat.remove_binding(&binding(Protocol::Udp)));
    assert_eq!(world.flows(), 8);
    assert!(!world.nat.is_in_use(&binding(Protocol::Udp)));
    tell_one(&mut world.nat);
    assert!(!world.nat.is_in_use(&binding(Protocol::Udp)));
    assert_eq!(world.out_of(DMZ, &udp("10.2.0.9:7000", "192.0.2.1:8080")).fate, Fate::Inside(LAN));
    assert!(world.nat.is_in_use(&binding(Protocol::Udp)));
}

fn tell_one(nat: &mut Nat) {
    nat.add_binding(binding(Protocol::Udp)).expect("published");
}

#[test]
fn late_fragments_reach_nobody() {
    let mut world = World::new();
    tell(&mut world.nat);
    let long =
        |source: &str, target: &str| three(&Packet { payload: vec![7; 100], ..udp(source, target) }.frame());
    let [first, middle, last] = long("198.51.100.9:999", "192.0.2.1:8080");
    assert_eq!(world.inbound(&first, Offload::NONE)[0].fate, Fate::Inside(LAN));
    // Of the container's own two wait.
    let [own_first, own_middle, own_last] = long("10.1.0.2:5000", "198.51.100.1:53");
    for fragment in [&own_middle, &own_last] {
        assert!(world.outbound(LAN, fragment, Offload::NONE).is_empty());
    }
    assert_eq!(world.inbound(&middle, Offload::NONE)[0].fate, Fate::Inside(LAN), "while it is there");
    world.nat.forget(LAN, 1, &[ip("10.1.0.2")], &[]);
    let lost = Fate::Dropped(DropReason::NatFragmentLost);
    assert_eq!(world.inbound(&last, Offload::NONE)[0].fate, lost);
    assert_eq!(world.outbound(LAN, &own_first, Offload::NONE)[0].fate, lost);
    let waited: Vec<Fate> = world.poll().iter().map(|out| out.fate).collect();
    assert_eq!((waited, world.nat.stats().fragments_waiting), (vec![lost; 2], 0));
}
