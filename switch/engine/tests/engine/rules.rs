//! The rules of the switch one by one, each test stating all that a burst changed.

use std::time::Duration;

use vswitch_engine::{Entry, Limits, Network, Port, Refusal, Switch, Verdicts};
use vswitch_frame::{DropReason, GroupId, Instant, Mac, NetworkId, Pool, PortId};

use crate::support::{Fates, Load, Sketch, drain};

const RED: NetworkId = NetworkId(0);
const BLUE: NetworkId = NetworkId(1);
const PLAIN: Load = Load::Plain(46);

/// The address of a station.
fn station(id: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, id])
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn learned(mac: Mac, port: u16, seen: Instant) -> Entry {
    Entry { mac, port: PortId(port), fixed: false, seen }
}

fn fixed(mac: Mac, port: u16) -> Entry {
    Entry { mac, port: PortId(port), fixed: true, seen: Instant::ZERO }
}

/// A switch with networks `RED` and `BLUE`, and what a test needs around it.
struct Bench {
    switch: Switch,
    pool: Pool,
    verdicts: Verdicts,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let mut switch = Switch::new(limits, 7);
        for network in [RED, BLUE] {
            switch.add_network(network, Network::default()).expect("a new network");
        }
        Self { switch, pool: Pool::new(16), verdicts: Verdicts::default() }
    }

    /// Adds a port in a group of its own.
    fn port(&mut self, network: NetworkId, id: u16, addresses: &[Mac]) {
        let port = port(network, id, addresses);
        self.switch.add_port(PortId(id), port).expect("a new port");
    }

    /// One burst; its frames are all alike but for their addresses.
    fn burst(&mut self, ingress: u16, now: Instant, load: Load, addresses: &[(Mac, Mac)]) -> Fates {
        let sketch = |&(source, destination): &(Mac, Mac)| Sketch { source, destination, load };
        let mut burst = addresses.iter().map(|pair| sketch(pair).frame(&mut self.pool)).collect();
        self.switch.process(PortId(ingress), &mut burst, &mut self.verdicts, now);
        assert!(burst.is_empty());
        drain(&mut self.verdicts, &mut self.pool)
    }

    fn table(&self, network: NetworkId) -> Vec<Entry> {
        let mut table: Vec<Entry> = self.switch.table(network).collect();
        table.sort_unstable_by_key(|entry| entry.mac);
        table
    }
}

fn port(network: NetworkId, id: u16, addresses: &[Mac]) -> Port {
    Port {
        network,
        group: GroupId::own(PortId(id)),
        mtu: 1500,
        addresses: addresses.to_vec(),
        ..Port::default()
    }
}

fn bytes(source: Mac, destination: Mac, load: Load) -> Vec<u8> {
    Sketch { source, destination, load }.bytes()
}

fn forwarded(egress: u16, frame: Vec<u8>) -> Fates {
    Fates { forward: vec![(PortId(egress), frame)], ..Fates::default() }
}

fn flooded(frame: Vec<u8>) -> Fates {
    Fates { flood: vec![frame], ..Fates::default() }
}

fn dropped(reason: DropReason, port: u16, frame: Vec<u8>) -> Fates {
    Fates { drop: vec![(reason, PortId(port), frame)], ..Fates::default() }
}

#[test]
fn an_unknown_destination_is_flooded_until_it_speaks() {
    let mut bench = Bench::new(Limits::default());
    (0..3).for_each(|id| bench.port(RED, id, &[]));
    let (one, two) = (station(1), station(2));
    assert_eq!(bench.burst(0, at(1), PLAIN, &[(one, two)]), flooded(bytes(one, two, PLAIN)));
    assert_eq!(bench.burst(1, at(2), PLAIN, &[(two, one)]), forwarded(0, bytes(two, one, PLAIN)));
    assert_eq!(bench.burst(0, at(3), PLAIN, &[(one, two)]), forwarded(1, bytes(one, two, PLAIN)));
    assert_eq!(bench.table(RED), [learned(one, 0, at(3)), learned(two, 1, at(2))]);
    assert_eq!(bench.table(BLUE), []);
}

#[test]
fn networks_with_the_same_addresses_stay_apart() {
    let mut bench = Bench::new(Limits::default());
    let (one, two) = (station(1), station(2));
    for (id, network, mac) in [(0, RED, one), (1, RED, two), (2, BLUE, one), (3, BLUE, two)] {
        bench.port(network, id, &[mac]);
    }
    assert_eq!(bench.burst(0, at(1), PLAIN, &[(one, two)]), forwarded(1, bytes(one, two, PLAIN)));
    assert_eq!(bench.burst(2, at(1), PLAIN, &[(one, two)]), forwarded(3, bytes(one, two, PLAIN)));
    assert_eq!(bench.switch.flood_targets(PortId(0)).collect::<Vec<_>>(), [(PortId(1), 1500)]);
    assert_eq!(bench.switch.remove_network(RED), [PortId(0), PortId(1)]);
    assert_eq!(bench.table(RED), []);
    assert_eq!(bench.table(BLUE), [fixed(one, 2), fixed(two, 3)]);
    assert_eq!(bench.burst(0, at(2), PLAIN, &[(one, two)]).drop[0].0, DropReason::NoReceiver);
}

#[test]
fn a_source_learned_within_a_burst_is_known_to_the_rest_of_it() {
    let mut bench = Bench::new(Limits::default());
    (0..2).for_each(|id| bench.port(RED, id, &[]));
    let (one, two) = (station(1), station(2));
    let fates = bench.burst(0, at(1), PLAIN, &[(one, two), (one, two), (two, two), (one, two)]);
    let to_two = |source| bytes(source, two, PLAIN);
    let reflected = |source| (DropReason::Reflected, PortId(0), to_two(source));
    let drop = vec![reflected(two), reflected(one)];
    assert_eq!(fates, Fates { flood: vec![to_two(one); 2], drop, ..Fates::default() });
}

#[test]
fn a_learned_address_moves_and_a_fixed_one_does_not() {
    let mut bench = Bench::new(Limits::default());
    let (roaming, bolted) = (station(1), station(2));
    bench.port(RED, 0, &[bolted]);
    (1..3).for_each(|id| bench.port(RED, id, &[]));
    bench.burst(1, at(1), PLAIN, &[(roaming, bolted)]);
    bench.burst(2, at(2), PLAIN, &[(roaming, bolted)]);
    let stolen = bench.burst(1, at(3), PLAIN, &[(bolted, roaming)]);
    assert_eq!(stolen, dropped(DropReason::SourceTaken, 1, bytes(bolted, roaming, PLAIN)));
    assert_eq!(bench.table(RED), [learned(roaming, 2, at(2)), fixed(bolted, 0)]);
}

#[test]
fn a_fixed_address_evicts_a_learned_one() {
    let mut bench = Bench::new(Limits { addresses_total: 1, ..Limits::default() });
    (0..2).for_each(|id| bench.port(RED, id, &[]));
    let (one, two) = (station(1), station(2));
    bench.burst(0, at(1), PLAIN, &[(one, two)]);
    bench.port(RED, 2, &[one]);
    assert_eq!(bench.table(RED), [fixed(one, 2)]);
    assert_eq!(bench.switch.poll_at(), None);
    bench.burst(0, at(2), PLAIN, &[(two, one)]);
    assert_eq!(bench.table(RED), [fixed(one, 2), learned(two, 0, at(2))], "it no longer counts as learned");
}

#[test]
fn at_a_limit_frames_flow_and_a_counter_moves() {
    let mut bench =
        Bench::new(Limits { addresses_total: 3, addresses_per_port: 2, age: at(300).since(at(0)) });
    (0..3).for_each(|id| bench.port(RED, id, &[]));
    let to = Mac::BROADCAST;
    let fates = bench.burst(0, at(1), PLAIN, &[(station(1), to), (station(2), to), (station(3), to)]);
    assert_eq!(fates.flood.len(), 3);
    assert_eq!(bench.switch.stats().unlearned, 1, "the port's limit");
    bench.burst(1, at(2), PLAIN, &[(station(4), to), (station(5), to), (station(5), to)]);
    assert_eq!(bench.switch.stats().unlearned, 3, "the switch's limit, counted for every frame");
    bench.burst(0, at(3), PLAIN, &[(station(4), to)]);
    assert_eq!(bench.switch.stats().unlearned, 4, "nothing moves to a port that is full");
    let table = [learned(station(1), 0, at(1)), learned(station(2), 0, at(1)), learned(station(4), 1, at(2))];
    assert_eq!(bench.table(RED), table);
    assert!(bench.switch.remove_port(PortId(0)));
    bench.burst(1, at(4), PLAIN, &[(station(5), to)]);
    assert_eq!(bench.switch.stats().unlearned, 4, "a port that left made room");
}

#[test]
fn what_is_not_heard_from_is_forgotten() {
    let mut bench = Bench::new(Limits::default());
    bench.port(RED, 0, &[station(9)]);
    bench.port(RED, 1, &[]);
    assert_eq!(bench.switch.poll_at(), None);
    bench.burst(1, at(10), PLAIN, &[(station(1), station(9)), (station(2), station(9))]);
    bench.burst(1, at(200), PLAIN, &[(station(2), station(9))]);
    assert_eq!(bench.switch.poll_at(), Some(at(310)));
    bench.switch.poll(at(309));
    assert_eq!(bench.table(RED).len(), 3);
    bench.switch.poll(at(310));
    assert_eq!(bench.table(RED), [learned(station(2), 1, at(200)), fixed(station(9), 0)]);
    assert_eq!(bench.switch.poll_at(), Some(at(500)));
    bench.switch.poll(at(500));
    assert_eq!((bench.table(RED), bench.switch.poll_at()), (vec![fixed(station(9), 0)], None));
}

#[test]
fn ports_of_one_group_hear_nothing_of_each_other() {
    let mut bench = Bench::new(Limits::default());
    let group = GroupId::containers_of(RED);
    for id in 0..2u16 {
        let mac = station(u8::try_from(id).expect("a small number"));
        bench.switch.add_port(PortId(id), Port { group, ..port(RED, id, &[mac]) }).expect("a new port");
    }
    let broadcast = bytes(station(0), Mac::BROADCAST, PLAIN);
    let direct = bytes(station(0), station(1), PLAIN);
    let isolated = |frame| dropped(DropReason::Isolated, 0, frame);
    assert_eq!(bench.burst(0, at(1), PLAIN, &[(station(0), Mac::BROADCAST)]), isolated(broadcast.clone()));
    assert_eq!(bench.burst(0, at(1), PLAIN, &[(station(0), station(1))]), isolated(direct));
    bench.port(RED, 2, &[]);
    assert_eq!(bench.burst(0, at(1), PLAIN, &[(station(0), Mac::BROADCAST)]), flooded(broadcast));
    assert_eq!(bench.switch.flood_targets(PortId(0)).collect::<Vec<_>>(), [(PortId(2), 1500)]);
    assert_eq!(bench.switch.flood_targets(PortId(2)).count(), 2);
}

#[test]
fn the_mtu_bounds_packets_and_the_segments_of_super_frames() {
    let mut bench = Bench::new(Limits::default());
    bench.port(RED, 0, &[station(1)]);
    bench.port(RED, 1, &[station(2)]);
    let pair = (station(1), station(2));
    let segments = |size| Load::Super { payload: 60_000, size };
    for fitting in [Load::Plain(1500), segments(1472)] {
        let frame = bytes(pair.0, pair.1, fitting);
        assert_eq!(bench.burst(0, at(1), fitting, &[pair]), forwarded(1, frame));
    }
    for over in [Load::Plain(1501), segments(1473)] {
        let frame = bytes(pair.0, pair.1, over);
        assert_eq!(bench.burst(0, at(1), over, &[pair]), dropped(DropReason::TxTooBig, 1, frame));
    }
}

#[test]
fn a_refused_port_changes_nothing() {
    let mut bench = Bench::new(Limits { addresses_per_port: 2, ..Limits::default() });
    bench.port(RED, 0, &[station(1)]);
    let mut refuse = |addresses: &[Mac]| bench.switch.add_port(PortId(1), port(RED, 1, addresses));
    assert_eq!(refuse(&[station(2), station(1)]), Err(Refusal::AddressTaken(station(1), PortId(0))));
    assert_eq!(refuse(&[station(2), Mac::BROADCAST]), Err(Refusal::NoStation(Mac::BROADCAST)));
    assert_eq!(refuse(&[station(2); 3]), Err(Refusal::TooManyAddresses(2)));
    assert_eq!(bench.table(RED), [fixed(station(1), 0)]);
    assert_eq!(bench.switch.flood_targets(PortId(0)).count(), 0);
    bench.port(BLUE, 1, &[station(1), station(1)]);
    assert_eq!(bench.table(BLUE), [fixed(station(1), 1)], "free on another network, and once is enough");
}
