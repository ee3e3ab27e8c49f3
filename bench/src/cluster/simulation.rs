//! A cluster in one process, with a time of its own: what it costs and how long it takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use vswitch_cluster::gossip::world::World;
use vswitch_cluster::record::{HostId, Key, Record, Scope, Version};
use vswitch_cluster::view::Event;
use vswitch_frame::Instant;

use super::layout::{Layout, endpoint, id};
use crate::error::BenchError;

/// The time for which a cluster at rest is looked at.
const REST: Duration = Duration::from_secs(30);
/// The time for which changes are made.
const CHANGES: Duration = Duration::from_secs(20);
/// The time between two changes, in all.
const CHANGE_EVERY: Duration = Duration::from_millis(100);
/// The time for which half of the hosts are cut off.
const PARTITION: Duration = Duration::from_secs(30);
/// The time between two looks whether all agree.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Findings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Records that a host has.
    pub records: usize,
    /// Records that there are in all.
    pub records_in_all: usize,
    /// Bytes a second that a host sends and receives at rest.
    pub rest: Cost,
    /// Bytes a second with ten changes a second.
    pub changes: Cost,
    /// The time until all whom a change concerns have heard of it: half of them, 99 of 100, and all.
    pub heard: [Duration; 3],
    /// The time until a host that joins knows everything, and the processor time of all for it.
    pub join: (Duration, Duration),
    /// The bytes that a host that joins sends and receives.
    pub join_bytes: u64,
    /// The time until all see each other after a partition of half, and until they agree.
    pub heal: (Duration, Duration),
    /// The bytes that a host sent and received for that.
    pub heal_bytes: u64,
}

/// The needs of a host, each second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Bytes that it sends.
    pub sent: f64,
    /// Bytes that it receives.
    pub received: f64,
    /// Processor time, in microseconds.
    pub processor_us: f64,
}

/// Simulates a cluster.
///
/// # Errors
/// When something does not happen in time.
pub fn run(layout: Layout) -> Result<Found, BenchError> {
    let mut world = settle(layout);
    let mut found = Found {
        records: world.hosts[0].machine.as_ref().map_or(0, |machine| machine.ledger().len()),
        records_in_all: layout.global().len() + layout.hosts * layout.endpoints,
        ..Found::default()
    };
    found.rest = cost(&mut world, REST, |world| world.wait(REST));
    world.news.clear();
    let mut changes = Changes::new(layout);
    found.changes = cost(&mut world, CHANGES, |world| changes.make(world, CHANGES));
    world.wait(Duration::from_secs(30));
    found.heard = changes.heard(&mut world)?;
    (found.join, found.join_bytes) = join(&mut world, layout)?;
    (found.heal, found.heal_bytes) = heal(&mut world, layout, &mut changes)?;
    Ok(found)
}

/// A cluster in which all know each other, and all that they should.
fn settle(layout: Layout) -> World {
    let mut world = World::new(layout.hosts, 1);
    (world.delay, world.loss) = ((Duration::from_millis(1), Duration::from_millis(1)), 0);
    let global = layout.global();
    let mut endpoints = BTreeMap::<usize, Vec<Arc<Record>>>::new();
    for (network, record) in (0..layout.hosts).flat_map(|host| layout.endpoints(host)) {
        endpoints.entry(network).or_default().push(Arc::new(record));
    }
    for host in 0..layout.hosts {
        world.start(host);
        world.act(host, |machine, now| machine.merge(global.clone(), now));
        for network in layout.networks_of(host) {
            let records = endpoints.get(&network).cloned().unwrap_or_default();
            world.act(host, |machine, now| machine.merge(records, now));
        }
        world.news.clear();
    }
    world.meet_all();
    world.news.clear();
    world.wait(Duration::from_secs(40));
    world
}

/// The cost of a host while something goes on that takes so long.
fn cost(world: &mut World, takes: Duration, act: impl FnOnce(&mut World)) -> Cost {
    world.hosts.iter_mut().for_each(|seat| seat.bytes = (0, 0));
    let before = processor_time();
    act(world);
    let spent = processor_time().saturating_sub(before);
    let (sent, received) = traffic(world);
    let each = |total: f64| total / as_float(world.hosts.len()) / takes.as_secs_f64();
    Cost { sent: each(sent), received: each(received), processor_us: each(spent.as_secs_f64() * 1e6) }
}

/// Bytes that all hosts sent and received.
fn traffic(world: &World) -> (f64, f64) {
    let sum = |of: fn(&(u64, u64)) -> u64| world.hosts.iter().map(|seat| of(&seat.bytes)).sum::<u64>();
    #[expect(clippy::cast_precision_loss, reason = "bytes of a few minutes")]
    let float = |bytes: u64| bytes as f64;
    (float(sum(|bytes| bytes.0)), float(sum(|bytes| bytes.1)))
}

fn as_float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The processor time of this process.
pub fn processor_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(us).unwrap_or_default())
}

/// Changes of endpoints, one host after the other.
struct Changes {
    layout: Layout,
    subscribers: Vec<Vec<usize>>,
    made: u64,
    /// When each was made, and how many it concerns that have not heard of it.
    open: BTreeMap<(Version, HostId), (Instant, usize)>,
    delays: Vec<Duration>,
}

impl Changes {
    fn new(layout: Layout) -> Self {
        let (subscribers, open) = (layout.subscribers(), BTreeMap::new());
        Self { layout, subscribers, made: 0, open, delays: Vec::new() }
    }

    fn make(&mut self, world: &mut World, during: Duration) {
        let until = world.now + during;
        while world.now < until {
            self.made += 1;
            let made = usize::try_from(self.made).unwrap_or_default();
            // Large steps, so that hosts and networks come in no order.
            let host = made * 7_919 % self.layout.hosts;
            let networks = self.layout.networks_of(host);
            let number = made % networks.len().min(self.layout.endpoints);
            let record = endpoint(host, networks[number], number, self.made);
            let others = self.subscribers[networks[number]].len() - 1;
            self.open.insert(record.rank(), (world.now, others));
            world.publish(host, vec![record]);
            world.wait(CHANGE_EVERY);
            self.note(world);
        }
    }

    /// Notes who has heard of what.
    fn note(&mut self, world: &mut World) {
        for (at, _, event) in world.news.drain(..) {
            let Event::Records(records) = event else { continue };
            for record in records {
                if let Some((made, others)) = self.open.get_mut(&record.rank()) {
                    self.delays.push(at.since(*made));
                    *others -= 1;
                }
            }
        }
        self.open.retain(|_, (_, others)| *others > 0);
    }

    /// How long it took until half, 99 of 100 and all had heard.
    fn heard(&mut self, world: &mut World) -> Result<[Duration; 3], BenchError> {
        self.note(world);
        if !self.open.is_empty() {
            return Err(BenchError::Fault(format!("{} changes were not heard by all", self.open.len())));
        }
        self.delays.sort_unstable();
        let last = self.delays.len().saturating_sub(1);
        let at = |part: usize| self.delays.get(last * part / 100).copied().unwrap_or_default();
        Ok([at(50), at(99), at(100)])
    }
}

/// A host comes back that remembers what is its own, and nothing else.
fn join(world: &mut World, layout: Layout) -> Result<((Duration, Duration), u64), BenchError> {
    let host = layout.hosts - 1;
    world.kill(host);
    world.wait(Duration::from_secs(20));
    world.news.clear();
    let (begun, spent) = (world.now, processor_time());
    world.hosts[host].bytes = (0, 0);
    world.start(host);
    let mut own = layout.own(host);
    own.extend(layout.endpoints(host).into_iter().map(|(_, record)| record));
    world.publish(host, own);
    world.join(host);
    let joined = world.until(PATIENCE, |world| {
        world.wait(LOOK_EVERY);
        world.up(host) == layout.hosts - 1 && agrees(world, layout, host, 0)
    });
    let took = (world.now.since(begun), processor_time().saturating_sub(spent));
    let (sent, received) = world.hosts[host].bytes;
    if joined { Ok((took, sent + received)) } else { Err(vain("a host to know everything")) }
}

/// Half of the hosts are cut off, while changes go on, and then no longer.
fn heal(
    world: &mut World,
    layout: Layout,
    changes: &mut Changes,
) -> Result<((Duration, Duration), u64), BenchError> {
    let sides = |world: &mut World, side: u8| {
        world.hosts.iter_mut().step_by(2).for_each(|seat| seat.side = side);
    };
    sides(world, 1);
    changes.make(world, PARTITION);
    world.news.clear();
    sides(world, 0);
    world.hosts.iter_mut().for_each(|seat| seat.bytes = (0, 0));
    let begun = world.now;
    let all_up = world.until(PATIENCE, |world| {
        world.wait(LOOK_EVERY);
        world.news.clear();
        (0..layout.hosts).all(|host| world.up(host) == layout.hosts - 1)
    });
    let seen = world.now.since(begun);
    let agreed = world.until(PATIENCE, |world| {
        world.wait(LOOK_EVERY);
        world.news.clear();
        all_agree(world, layout)
    });
    if !all_up || !agreed {
        return Err(vain(if all_up {
            "all to agree after a partition"
        } else {
            "all to see each other again"
        }));
    }
    let bytes: u64 = world.hosts.iter().map(|seat| seat.bytes.0 + seat.bytes.1).sum();
    Ok(((seen, world.now.since(begun)), bytes / u64::try_from(layout.hosts).unwrap_or(1)))
}

fn vain(what: &str) -> BenchError {
    BenchError::Fault(format!("{} s are not enough for {what}", PATIENCE.as_secs()))
}

/// Whether a host knows what another one does, of all that both have.
fn agrees(world: &World, layout: Layout, host: usize, other: usize) -> bool {
    let sum =
        |host: usize, scope| world.hosts[host].machine.as_ref().map(|machine| machine.ledger().sum(scope));
    let networks = layout.networks_of(host);
    let subscribers = layout.subscribers();
    let neighbour = |network: usize| subscribers[network].iter().find(|other| **other != host);
    sum(host, Scope::Global) == sum(other, Scope::Global)
        && networks.iter().all(|network| {
            let scope = Scope::Network(id(*network));
            neighbour(*network).is_none_or(|other| sum(host, scope) == sum(*other, scope))
        })
}

fn all_agree(world: &World, layout: Layout) -> bool {
    let alike = |hosts: Vec<usize>, scope| {
        let sum =
            |host: &usize| world.hosts[*host].machine.as_ref().map(|machine| machine.ledger().sum(scope));
        hosts.iter().all(|host| sum(host) == sum(&hosts[0]))
    };
    let mut networks = layout.subscribers().into_iter().enumerate();
    alike((0..layout.hosts).collect(), Scope::Global)
        && networks.all(|(network, hosts)| alike(hosts, Scope::Network(id(network))))
}

/// Whether a host on some networks has a record.
pub fn is_had(record: &Record, networks: &[usize]) -> bool {
    match record.key {
        Key::Endpoint(network, _) => networks.iter().any(|of| id(*of) == network),
        Key::Host(_)
        | Key::Network(_)
        | Key::Vni(_)
        | Key::Space(..)
        | Key::Subscription(..)
        | Key::Other(_) => true,
    }
}
