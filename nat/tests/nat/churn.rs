//! Traffic of all kinds while control publishes, claims, revokes and changes addresses: nothing panics,
//! nothing leaves but from an address of the host, and in the end nothing is held.

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::NetworkId;
use vswitch_nat::{Binding, Filtering, Leaving, Limits, Protocol, Uplink};

use crate::support::{DMZ, Fate, HOST_4, Kind, LAN, Out, Packet, World, binding, ip, packet};

#[derive(Clone, Debug)]
enum Step {
    Out(NetworkId, Leaving, Packet),
    In(Packet),
    Pass(u64),
    Publish(Binding),
    Unpublish(Binding),
    Forget(&'static str),
    Grant(Protocol, u16),
    Revoke(Protocol, u16),
    /// The uplink's address: the first or the second of the host's.
    Uplink(bool),
}

fn kind() -> impl Strategy<Value = Kind> {
    let flags = prop_oneof![Just("S"), Just("SA"), Just("A"), Just("FA"), Just("R")];
    prop_oneof![
        3 => Just(Kind::Udp),
        5 => (flags, 0..3u32, 0..3u32).prop_map(|(flags, sequence, ack)| Kind::Tcp(flags, sequence, ack)),
        1 => Just(Kind::Request),
        1 => Just(Kind::Reply),
    ]
}

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    prop::sample::select(from)
}

const HOST: &[&str] =
    &["192.0.2.1:8080", "192.0.2.1:40000", "192.0.2.1:40001", "192.0.2.2:8080", "192.0.2.2:40000"];
const REMOTE: &[&str] = &["198.51.100.1:80", "198.51.100.1:81", "203.0.113.1:9"];
const INSIDE: &[&str] = &["10.1.0.2:80", "10.1.0.2:40000", "10.1.0.3:40000", "10.1.0.3:40001"];

fn step() -> impl Strategy<Value = Step> {
    let leaving = prop_oneof![
        8 => Just(Leaving::Masqueraded),
        1 => Just(Leaving::Plain),
        1 => Just(Leaving::Refused),
    ];
    let network = prop_oneof![3 => Just(LAN), 1 => Just(DMZ)];
    let target = prop_oneof![pick(REMOTE), pick(HOST), Just("10.1.0.1:8080")];
    let out = (network, leaving, kind(), pick(INSIDE), target);
    let protocol = || prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    let bindings = || {
        (protocol(), prop_oneof![Just("0.0.0.0"), Just("192.0.2.2")])
            .prop_map(|(protocol, host)| Binding { host: ip(host), ..binding(protocol) })
    };
    prop_oneof![
        16 => out.prop_map(|(network, leaving, kind, source, target)| {
            Step::Out(network, leaving, packet(kind, source, target))
        }),
        16 => (kind(), pick(REMOTE), pick(HOST))
            .prop_map(|(kind, source, target)| Step::In(packet(kind, source, target))),
        3 => (1..200u64).prop_map(Step::Pass),
        1 => Just(Step::Pass(7441)),
        2 => bindings().prop_map(Step::Publish),
        1 => bindings().prop_map(Step::Unpublish),
        1 => prop_oneof![Just("10.1.0.2"), Just("10.1.0.3")].prop_map(Step::Forget),
        2 => (protocol(), 40_000..40_004u16).prop_map(|(protocol, port)| Step::Grant(protocol, port)),
        1 => (protocol(), 40_000..40_004u16).prop_map(|(protocol, port)| Step::Revoke(protocol, port)),
        1 => any::<bool>().prop_map(Step::Uplink),
    ]
}

fn uplink(second: bool) -> Uplink {
    let own = if second { "192.0.2.2" } else { HOST_4 };
    Uplink {
        v4: Some(own.parse().expect("IPv4")),
        v6: None,
        host: vec![ip("192.0.2.2"), ip("10.1.0.1")],
        mtu: 1500,
        mtus: [].into(),
    }
}

fn apply(world: &mut World, step: Step) -> Vec<Out> {
    match step {
        Step::Out(network, leaving, packet) => {
            world.leaving = leaving;
            return vec![world.out_of(network, &packet)];
        }
        Step::In(packet) => return vec![world.inn(&packet)],
        Step::Pass(seconds) => {
            world.seconds(seconds);
            return world.poll();
        }
        Step::Publish(binding) => drop(world.nat.add_binding(binding)),
        Step::Unpublish(binding) => drop(world.nat.remove_binding(&binding)),
        Step::Forget(address) => world.forget(address),
        Step::Grant(protocol, port) => {
            world.nat.grant(protocol, ip(HOST_4), [port]);
            world.nat.grant(protocol, ip("192.0.2.2"), [port]);
        }
        Step::Revoke(protocol, port) => world.nat.revoke(protocol, ip(HOST_4), &[port].into()),
        Step::Uplink(second) => world.nat.set_uplink(uplink(second)),
    }
    Vec::new()
}

proptest! {
    #[test]
    fn whatever_control_does_meanwhile_nothing_is_left_behind(
        filtering in prop_oneof![Just(Filtering::EndpointIndependent), Just(Filtering::AddressDependent)],
        flows in 2..20usize,
        steps in vec(step(), 1..100),
    ) {
        let limits = Limits { filtering, flows, flows_per_sandbox: 6, ..World::limits() };
        let mut world = World::with(limits);
        world.nat.set_uplink(Uplink::default());
        world.nat.set_uplink(uplink(false));
        for step in steps {
            for out in apply(&mut world, step) {
                let ours = matches!(out.bytes[26..30], [192, 0, 2, 1 | 2]);
                prop_assert!(out.fate != Fate::Outside || ours, "{out:?}");
                if out.fate == Fate::Outside || matches!(out.fate, Fate::Inside(_)) {
                    out.packet();
                }
            }
        }
        world.seconds(10_000);
        world.poll();
        let stats = world.nat.stats();
        prop_assert_eq!((stats.flows, stats.mappings, stats.permits), (0, 0, 0));
        prop_assert_eq!(stats.ports_free, stats.ports_claimed);
        prop_assert_eq!(world.nat.poll_at(), None);
    }
}
