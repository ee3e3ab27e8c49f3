//! Random hairpins between containers behind filters: what arrives comes from the sender's outside end,
//! answers find back, and nothing leaks.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::DropReason;
use vswitch_nat::{Filtering, Limits, Nat};

use crate::support::{Fate, LAN, World, end, ip, udp};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A container talks to somebody outside, and so gets a mapping.
    Out(usize),
    /// A container talks to another one's mapping.
    Across(usize, usize),
    Pass(u64),
    Forget(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3usize).prop_map(Step::Out),
        8 => (0..3usize, 0..3usize).prop_map(|(from, to)| Step::Across(from, to)),
        2 => (1..3u64).prop_map(Step::Pass),
        1 => (0..3usize).prop_map(Step::Forget),
    ]
}

const CONTAINERS: [&str; 3] = ["10.1.0.2:5000", "10.1.0.3:5000", "10.1.0.4:5001"];

/// Flows there may be: of each with somebody outside, and with each.
const ALL_PAIRS: usize = 3 + 3 * 3;

fn outside(nat: &Nat, container: usize) -> Option<SocketAddr> {
    let inside = end(CONTAINERS[container]);
    let mut mapped = nat.mappings().filter(|mapped| SocketAddr::from(mapped.inside) == inside);
    mapped.next().map(|mapped| mapped.outside.into())
}

fn across(world: &mut World, filtering: Filtering, from: usize, to: usize) -> Result<(), TestCaseError> {
    let Some(theirs) = outside(&world.nat, to) else {
        return Ok(());
    };
    let sent = udp(CONTAINERS[from], &theirs.to_string());
    let came = world.out(&sent);
    let mine = outside(&world.nat, from);
    prop_assert!(mine.is_some(), "who sends has a mapping, even when it is filtered");
    if came.fate != Fate::Inside(LAN) {
        prop_assert_eq!(came.fate, Fate::Dropped(DropReason::NatFiltered));
        let attempts =
            world.nat.flows(world.now).filter(|flow| flow.initiator.target.ip() == ip("192.0.2.1"));
        prop_assert!(filtering != Filtering::EndpointIndependent || attempts.count() > 0);
        return Ok(());
    }
    let came = came.packet();
    prop_assert_eq!((Some(came.source), came.target), (mine, end(CONTAINERS[to])));
    let back = world.out(&came.reply());
    prop_assert_eq!(back.fate, Fate::Inside(LAN));
    prop_assert_eq!(back.packet(), sent.reply());
    Ok(())
}

#[test]
fn a_container_reaches_its_own_mapping() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    let sent = udp("10.1.0.2:5000", &left.source.to_string());
    // Once it has sent there, that end may send to it.
    assert_eq!(world.out(&sent).fate, Fate::Dropped(DropReason::NatFiltered));
    for _ in 0..3 {
        let came = world.out(&sent);
        assert_eq!((came.fate, came.packet().source), (Fate::Inside(LAN), left.source));
        assert_eq!(came.packet().target, end("10.1.0.2:5000"));
    }
    world.forget("10.1.0.2");
    assert_eq!((world.flows(), world.nat.stats().permits), (0, 0));
}

#[test]
fn an_attempt_to_reach_who_had_a_port_before_is_in_nobodys_way() {
    let mut world = World::new();
    world.leaves(&udp("10.1.0.3:40000", "198.51.100.1:53"));
    world.leaves(&udp("10.1.0.4:40001", "198.51.100.1:53"));
    let attempt = udp("10.1.0.4:40001", "192.0.2.1:40000");
    assert_eq!(world.out(&attempt).fate, Fate::Dropped(DropReason::NatFiltered));
    world.forget("10.1.0.3");
    let came = world.out(&udp("10.1.0.2:40000", "192.0.2.1:40001"));
    assert_eq!(came.fate, Fate::Inside(LAN));
    assert_eq!(came.packet(), udp("192.0.2.1:40000", "10.1.0.4:40001"));
    assert_eq!(world.nat.stats().overloaded, 0);
}

fn filtering() -> impl Strategy<Value = Filtering> {
    prop_oneof![
        Just(Filtering::EndpointIndependent),
        Just(Filtering::AddressDependent),
        Just(Filtering::AddressAndPortDependent),
    ]
}

proptest! {
    #[test]
    fn hairpins_find_there_and_back_and_leak_nothing(
        filtering in filtering(),
        flows in 3..24usize,
        steps in vec(step(), 1..60),
    ) {
        let mut world = World::with(Limits { filtering, flows, ..World::limits() });
        for step in steps {
            match step {
                Step::Out(container) => {
                    let out = world.out(&udp(CONTAINERS[container], "198.51.100.1:53"));
                    prop_assert!(matches!(
                        out.fate,
                        Fate::Outside | Fate::Answered(DropReason::NatTableFull)
                    ));
                }
                Step::Across(from, to) if flows >= ALL_PAIRS => across(&mut world, filtering, from, to)?,
                // With hardly any room, all that counts is that nothing leaks.
                Step::Across(from, to) => {
                    if let Some(theirs) = outside(&world.nat, to) {
                        world.out(&udp(CONTAINERS[from], &theirs.to_string()));
                    }
                }
                Step::Pass(minutes) => {
                    world.seconds(minutes * 61);
                    world.poll();
                }
                Step::Forget(container) => world.forget(&end(CONTAINERS[container]).ip().to_string()),
            }
        }
        world.seconds(1000);
        world.poll();
        let stats = world.nat.stats();
        prop_assert_eq!((stats.flows, stats.mappings, stats.permits), (0, 0, 0));
        prop_assert_eq!(stats.ports_free, stats.ports_claimed);
    }
}
