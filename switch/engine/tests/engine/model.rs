//! The switch against a reference so plain that it can be believed: random histories of networks, ports,
//! bursts and passing time, after each step of which both must agree on every verdict and on all state.
//!
//! Addresses, ports and limits are few, so that collisions, moves and full tables happen all the time.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use vswitch_engine::{Entry, Limits, Network, Port, Station, Switch, Verdicts};
use vswitch_frame::{GroupId, Instant, Mac, NetworkId, Pool, PortId};

use crate::reference::Reference;
use crate::support::{Fates, Load, Sketch, drain};

const LIMITS: Limits = Limits { addresses_total: 5, addresses_per_port: 3, age: Duration::from_secs(16) };
const NETWORKS: u16 = 3;
const PORTS: u16 = 6;

/// Something that happens to a switch.
#[derive(Clone, Debug)]
enum Transition {
    AddNetwork(NetworkId),
    RemoveNetwork(NetworkId),
    AddPort(PortId, Port),
    RemovePort(PortId),
    /// Each sketch so many times in a row.
    Burst(PortId, Vec<(Sketch, usize)>),
    Pass(Duration),
}

/// Few stations, so that they meet, and one of each address that is none.
fn mac() -> impl Strategy<Value = Mac> {
    let odd = prop_oneof![
        Just(Mac::BROADCAST),
        Just(Mac([0x33, 0x33, 0, 0, 0, 1])),
        Just(Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e])),
        Just(Mac::ZERO),
    ];
    prop_oneof![8 => (1..7u8).prop_map(|id| Mac([2, 0, 0, 0, 0, id])), 1 => odd]
}

fn load() -> impl Strategy<Value = Load> {
    prop_oneof![
        8 => prop_oneof![Just(46), Just(100), Just(101), Just(200)].prop_map(Load::Plain),
        2 => (1..300usize, 70..75u16).prop_map(|(payload, size)| Load::Super { payload, size }),
        1 => Just(Load::BrokenIpv4),
        1 => Just(Load::Runt),
    ]
}

fn network_id() -> impl Strategy<Value = NetworkId> {
    prop_oneof![40 => 0..NETWORKS, 1 => Just(1023), 1 => Just(1024)].prop_map(NetworkId)
}

fn port_id() -> impl Strategy<Value = PortId> {
    prop_oneof![40 => 0..PORTS, 1 => Just(4095), 1 => Just(4096)].prop_map(PortId)
}

fn port() -> impl Strategy<Value = Port> {
    let mtu = prop_oneof![Just(100), Just(200)];
    let addresses = prop_oneof![3 => Just(Vec::new()), 3 => vec(mac(), 1..3), 1 => vec(mac(), 3..5)];
    (network_id(), 0..3u32, mtu, addresses).prop_map(|(network, group, mtu, addresses)| Port {
        network,
        group: GroupId(group),
        mtu,
        addresses,
        station: Station::Unknown,
    })
}

fn burst() -> impl Strategy<Value = Vec<(Sketch, usize)>> {
    let sketch =
        (mac(), mac(), load()).prop_map(|(source, destination, load)| Sketch { source, destination, load });
    vec((sketch, 1..4usize), 1..8)
}

fn transition() -> impl Strategy<Value = Transition> {
    prop_oneof![
        2 => network_id().prop_map(Transition::AddNetwork),
        1 => network_id().prop_map(Transition::RemoveNetwork),
        6 => (port_id(), port()).prop_map(|(id, port)| Transition::AddPort(id, port)),
        2 => port_id().prop_map(Transition::RemovePort),
        12 => (port_id(), burst()).prop_map(|(port, burst)| Transition::Burst(port, burst)),
        3 => (0..20u64).prop_map(|seconds| Transition::Pass(Duration::from_secs(seconds))),
    ]
}

/// The switch and its reference, going through the same history.
struct Pair {
    switch: Switch,
    reference: Reference,
    pool: Pool,
    verdicts: Verdicts,
    now: Instant,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut pair = Self {
            switch: Switch::new(LIMITS, seed),
            reference: Reference::new(LIMITS),
            pool: Pool::new(32),
            verdicts: Verdicts::default(),
            now: Instant::from_nanos(1),
        };
        // Two networks from the start: a history on none is a dull one.
        for id in [NetworkId(0), NetworkId(1)] {
            pair.step(Transition::AddNetwork(id));
        }
        pair
    }

    fn step(&mut self, transition: Transition) {
        let Self { switch, reference, now, .. } = self;
        match transition {
            Transition::AddNetwork(id) => {
                assert_eq!(switch.add_network(id, Network::default()), reference.add_network(id))
            }
            Transition::RemoveNetwork(id) => {
                let mut removed = switch.remove_network(id);
                removed.sort_unstable();
                assert_eq!(removed, reference.remove_network(id));
            }
            Transition::AddPort(id, port) => {
                assert_eq!(switch.add_port(id, port.clone()), reference.add_port(id, port));
            }
            Transition::RemovePort(id) => assert_eq!(switch.remove_port(id), reference.remove_port(id)),
            Transition::Burst(ingress, runs) => self.burst(ingress, &runs),
            Transition::Pass(duration) => {
                *now = *now + duration;
                if switch.poll_at().is_some_and(|at| at <= *now) {
                    reference.age(*now);
                }
                switch.poll(*now);
            }
        }
        self.compare_state();
    }

    fn burst(&mut self, ingress: PortId, runs: &[(Sketch, usize)]) {
        let mut expected = Fates::default();
        let mut burst = Vec::new();
        for sketch in runs.iter().flat_map(|&(sketch, times)| std::iter::repeat_n(sketch, times)) {
            self.reference.frame(ingress, &sketch, self.now, &mut expected);
            burst.push(sketch.frame(&mut self.pool));
        }
        let received = burst.len();
        self.switch.process(ingress, &mut burst, &mut self.verdicts, self.now);
        assert!(burst.is_empty());
        assert_eq!(self.verdicts.len(), received, "received = forwarded + flooded + dropped");
        assert_eq!(drain(&mut self.verdicts, &mut self.pool), expected);
        assert_eq!(self.pool.available(), self.pool.capacity());
    }

    fn compare_state(&self) {
        let Self { switch, reference, now, .. } = self;
        for network in (0..NETWORKS).chain([1023, 1024]).map(NetworkId) {
            let mut table: Vec<Entry> = switch.table(network).collect();
            table.sort_unstable_by_key(|entry| entry.mac);
            assert_eq!(table, reference.table(network), "table of {network:?}");
        }
        for port in (0..PORTS).chain([4095, 4096]).map(PortId) {
            let mut targets: Vec<_> = switch.flood_targets(port).collect();
            targets.sort_unstable();
            assert_eq!(targets, reference.flood_targets(port), "flood targets of {port:?}");
        }
        assert_eq!(switch.stats().unlearned, reference.unlearned);
        match (switch.poll_at(), reference.oldest()) {
            (None, None) => {}
            (Some(at), Some(seen)) => {
                assert!(at > *now || at >= seen + LIMITS.age, "a sweep that is due and finds nothing");
                assert!(at <= seen + LIMITS.age + LIMITS.age / Limits::AGE_SLACK, "a sweep that is late");
            }
            (at, seen) => panic!("sweep at {at:?}, oldest address seen {seen:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_reference(seed: u64, history in vec(transition(), 1..120)) {
        let mut pair = Pair::new(seed);
        for transition in history {
            pair.step(transition);
        }
    }
}
