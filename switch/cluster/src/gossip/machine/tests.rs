//! Twenty hosts in one process, with a network and a time of their own.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::super::super::record::Value;
use super::*;

const HOSTS: usize = 20;
/// The time a packet takes, in microseconds, at least and at most.
const DELAY_US: (u64, u64) = (100, 2_000);

/// Something that arrives.
enum Arrival {
    Packet(Vec<u8>),
    /// The wish to compare records with this host.
    Compare(usize),
}

/// A network of hosts.
struct World {
    now: Instant,
    hosts: Vec<Option<Machine>>,
    lives: u64,
    arrivals: BTreeMap<(Instant, u64), (usize, Arrival)>,
    sent: u64,
    /// The side of a partition that a host is on.
    sides: Vec<u8>,
    /// Packets of a hundred that are lost.
    loss: u64,
    /// The time at which hosts that are alone try to join again.
    join_at: Instant,
    chance: u64,
}

impl World {
    fn new(hosts: usize, seed: u64) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            hosts: (0..hosts).map(|_| None).collect(),
            lives: 0,
            arrivals: BTreeMap::new(),
            sent: 0,
            sides: vec![0; hosts],
            loss: 1,
            join_at: Instant::ZERO + super::super::JOIN_EVERY,
            chance: seed,
        };
        for host in 0..hosts {
            world.start(host);
        }
        world
    }

    /// A world in which all know each other.
    fn settled(hosts: usize, seed: u64) -> Self {
        let mut world = Self::new(hosts, seed);
        world.until("all are up", |world| (0..hosts).all(|host| world.up(host) == hosts - 1));
        world
    }

    fn random(&mut self, below: u64) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % below
    }

    /// Starts a host, which has forgotten everything, and joins it to the first other one that runs.
    fn start(&mut self, host: usize) {
        self.lives += 1;
        let me = Member { address: address(host), host: id(host), life: self.lives };
        self.hosts[host] = Some(Machine::new(me, self.lives, self.time()));
        self.join(host);
    }

    fn join(&mut self, host: usize) {
        let now = self.time();
        let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != host);
        let other = others.filter_map(|(_, machine)| machine.as_ref()).next().map(Machine::me);
        if let Some(other) = other {
            self.machine(host).join(other, now);
            self.carry_out(host);
        }
    }

    /// Hosts that found nobody look again.
    fn join_again(&mut self) {
        if self.now >= self.join_at {
            self.join_at = self.now + super::super::JOIN_EVERY;
            for host in 0..self.hosts.len() {
                if self.hosts[host].is_some() && self.up(host) == 0 {
                    self.join(host);
                }
            }
        }
    }

    fn time(&self) -> Now {
        Now { instant: self.now, since_epoch: Duration::from_secs(1) }
    }

    fn kill(&mut self, host: usize) {
        self.hosts[host] = None;
    }

    fn machine(&mut self, host: usize) -> &mut Machine {
        self.hosts[host].as_mut().expect("it runs")
    }

    fn up(&self, host: usize) -> usize {
        self.hosts[host].as_ref().map_or(0, |machine| machine.up().len())
    }

    fn publish(&mut self, host: usize, record: Record) {
        let now = self.time();
        self.machine(host).publish(vec![record], now);
        self.carry_out(host);
    }

    fn knows(&self, host: usize, record: &Record) -> bool {
        let known =
            self.hosts[host].as_ref().map(|machine| machine.records(std::slice::from_ref(&record.key)));
        known.is_some_and(|known| known.first() == Some(record))
    }

    /// The time it took until each running host knew a record.
    fn spread(&mut self, record: &Record) -> Vec<Duration> {
        let from = self.now;
        let mut missing: Vec<usize> =
            (0..self.hosts.len()).filter(|host| self.hosts[*host].is_some()).collect();
        let mut took = Vec::new();
        self.until("all know", |world| {
            missing.retain(|host| !world.knows(*host, record));
            let known = world.hosts.iter().flatten().count() - missing.len();
            took.resize(known, world.now.since(from));
            missing.is_empty()
        });
        took
    }

    fn carry_out(&mut self, host: usize) {
        let effects = self.machine(host).effects();
        let packets = effects.packets.into_iter().map(|(to, packet)| (index(to), Arrival::Packet(packet)));
        let compares = effects.compare.into_iter().map(|with| (host, Arrival::Compare(index(with))));
        for (to, arrival) in packets.chain(compares).collect::<Vec<_>>() {
            let is_packet = matches!(arrival, Arrival::Packet(_));
            let is_cut = self.sides[host] != self.sides[to];
            if is_packet && (is_cut || self.random(100) < self.loss) {
                continue;
            }
            let delay = DELAY_US.0 + self.random(DELAY_US.1 - DELAY_US.0);
            self.sent += 1;
            self.arrivals.insert((self.now + Duration::from_micros(delay), self.sent), (to, arrival));
        }
    }

    /// The next thing that happens.
    fn step(&mut self) {
        self.join_again();
        let timer = self.hosts.iter().enumerate();
        let timer = timer.filter_map(|(host, machine)| Some((machine.as_ref()?.poll_at(), host))).min();
        let arrival = self.arrivals.keys().next().copied();
        match (timer, arrival) {
            (Some((at, host)), arrival) if arrival.is_none_or(|(arrives, _)| at <= arrives) => {
                self.now = self.now.max(at);
                let now = self.time();
                self.machine(host).tick(now);
                self.carry_out(host);
            }
            (_, Some(key)) => {
                let (host, arrival) = self.arrivals.remove(&key).expect("it is there");
                self.now = self.now.max(key.0);
                if self.hosts[host].is_some() {
                    self.arrive(host, arrival);
                }
            }
            (_, None) => panic!("nothing happens any more"),
        }
    }

    fn arrive(&mut self, host: usize, arrival: Arrival) {
        let now = self.time();
        match arrival {
            Arrival::Packet(packet) => self.machine(host).receive(&packet, now),
            Arrival::Compare(with) => {
                if self.hosts[with].is_none() || self.sides[host] != self.sides[with] {
                    return;
                }
                let digest = self.machine(host).digest();
                let difference = self.machine(with).compare(&digest);
                let wanted = self.machine(host).records(&difference.wanted);
                self.machine(with).merge(wanted, now);
                self.carry_out(with);
                self.machine(host).merge(difference.newer, now);
            }
        }
        self.carry_out(host);
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = self.now + Duration::from_secs(60);
        while !done(self) {
            assert!(self.now < deadline, "in vain: {what}");
            self.step();
        }
    }

    fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.step();
        }
    }
}

fn address(host: usize) -> SocketAddr {
    let [high, low] = u16::try_from(host).expect("few hosts").to_be_bytes();
    SocketAddr::from(([192, 0, high, low], super::super::PORT))
}

fn index(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]),
        SocketAddr::V6(_) => panic!("no such host"),
    }
}

fn id(host: usize) -> HostId {
    HostId::new([u8::try_from(host).expect("few hosts"); 16])
}

fn record(host: usize, number: u32, version: u64) -> Record {
    let value = Some(Value::Vni { network: format!("{version}") });
    Record { key: Key::Vni(number), version: Version(version), host: id(host), value }
}

fn percentile(mut took: Vec<Duration>, hundredths: usize) -> Duration {
    took.sort();
    took[(took.len() - 1) * hundredths / 100]
}

#[test]
fn a_change_is_seen_by_all_within_a_second() {
    let mut world = World::settled(HOSTS, 1);
    let mut took = Vec::new();
    for change in 0..100u64 {
        let host = usize::try_from(change).expect("small") % HOSTS;
        let record = record(host, 1, change + 1);
        world.publish(host, record.clone());
        took.extend(world.spread(&record));
        world.wait(Duration::from_millis(200));
    }
    let (half, most) = (percentile(took.clone(), 50), percentile(took, 99));
    assert!(half <= Duration::from_millis(100), "half within {half:?}");
    assert!(most <= Duration::from_secs(1), "99 of 100 within {most:?}");
}

#[test]
fn a_burst_of_changes_is_seen_by_all() {
    let mut world = World::settled(3, 2);
    let records: Vec<Record> = (0..50).map(|number| record(0, number, 1)).collect();
    let now = world.time();
    world.machine(0).publish(records.clone(), now);
    world.carry_out(0);
    let from = world.now;
    world
        .until("all know", |world| (0..3).all(|host| records.iter().all(|record| world.knows(host, record))));
    assert!(world.now.since(from) <= Duration::from_secs(2), "{:?}", world.now.since(from));
}

#[test]
fn what_does_not_fit_a_packet_arrives_too() {
    let mut world = World::settled(HOSTS, 3);
    let mut long = record(4, 1, 1);
    long.value = Some(Value::Vni { network: "x".repeat(10 * PACKET_BYTES_MAX) });
    world.publish(4, long.clone());
    let most = world.spread(&long).into_iter().max();
    assert!(most <= Some(Duration::from_secs(1)), "{most:?}");
}

#[test]
fn a_partition_heals() {
    let mut world = World::settled(HOSTS, 4);
    for host in 0..HOSTS / 2 {
        world.sides[host] = 1;
    }
    world.until("each side knows", |world| (0..HOSTS).all(|host| world.up(host) == HOSTS / 2 - 1));
    let (here, there) = (record(0, 1, 5), record(HOSTS - 1, 2, 5));
    let (older, newer) = (record(1, 3, 6), record(HOSTS - 2, 3, 7));
    for (host, record) in [(0, &here), (HOSTS - 1, &there), (1, &older), (HOSTS - 2, &newer)] {
        world.publish(host, record.clone());
    }
    world.wait(Duration::from_secs(30));
    assert!(world.knows(1, &older) && !world.knows(0, &there));
    world.sides.fill(0);
    world.until("all are up again", |world| (0..HOSTS).all(|host| world.up(host) == HOSTS - 1));
    world.until("all know the newest", |world| {
        (0..HOSTS).all(|host| [&here, &there, &newer].iter().all(|record| world.knows(host, record)))
    });
}

#[test]
fn a_host_is_killed_and_back() {
    let mut world = World::settled(HOSTS, 5);
    let own = record(7, 1, 1);
    world.publish(7, own.clone());
    world.spread(&own);
    world.kill(7);
    let from = world.now;
    world.until("all see that it is down", |world| {
        (0..HOSTS).filter(|host| *host != 7).all(|host| world.up(host) == HOSTS - 2)
    });
    assert!(world.now.since(from) <= Duration::from_secs(15), "{:?}", world.now.since(from));
    let meanwhile = record(3, 2, 1);
    world.publish(3, meanwhile.clone());
    world.start(7);
    let from = world.now;
    world.until("it is back", |world| (0..HOSTS).all(|host| world.up(host) == HOSTS - 1));
    world.until("it has heard", |world| world.knows(7, &meanwhile) && world.knows(7, &own));
    assert!(world.now.since(from) <= Duration::from_secs(5), "{:?}", world.now.since(from));
}

#[test]
fn a_host_that_is_back_before_it_was_missed_goes_on() {
    let mut world = World::settled(5, 6);
    world.kill(2);
    world.wait(Duration::from_millis(500));
    world.start(2);
    world.until("it knows all", |world| world.up(2) == 4);
    world.wait(Duration::from_secs(20));
    assert!((0..5).all(|host| world.up(host) == 4));
}

#[test]
fn who_leaves_is_gone_at_once() {
    let mut world = World::settled(5, 7);
    let now = world.time();
    world.machine(2).leave(now);
    world.carry_out(2);
    world.kill(2);
    world.until("all know", |world| (0..5).filter(|host| *host != 2).all(|host| world.up(host) == 3));
    assert!(world.now.since(now.instant) <= Duration::from_secs(1), "{:?}", world.now.since(now.instant));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// In the end all agree on the newest, whoever says what, dies, comes back or is cut off.
    #[test]
    fn in_the_end_all_agree_on_the_newest(
        seed in any::<u64>(),
        loss in 0..20u64,
        deeds in prop::collection::vec((0..6usize, 0..5usize, 1..4u32, 0..3000u64), 1..25),
    ) {
        let mut world = World::settled(5, seed);
        world.loss = loss;
        let mut newest: BTreeMap<u32, Record> = BTreeMap::new();
        for (version, (deed, host, number, wait)) in (1..).zip(deeds) {
            match deed {
                0 => world.sides[host] ^= 1,
                // The first stays, so that there is always somebody to join and nothing said is lost.
                1 if host > 0 => world.kill(host),
                2 if world.hosts[host].is_none() => world.start(host),
                // A record that is known only to a host that dies next is not compared.
                _ => {
                    let said = record(0, number, version);
                    newest.insert(number, said.clone());
                    world.publish(0, said);
                }
            }
            world.wait(Duration::from_millis(wait));
        }
        world.sides.fill(0);
        world.loss = 1;
        for host in 0..5 {
            if world.hosts[host].is_none() {
                world.start(host);
            }
        }
        world.until("all are up", |world| (0..5).all(|host| world.up(host) == 4));
        world.until("all agree", |world| {
            (0..5).all(|host| newest.values().all(|record| world.knows(host, record)))
        });
    }
}
