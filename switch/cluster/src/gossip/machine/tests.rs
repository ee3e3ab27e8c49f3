//! Twenty hosts in one process, with a network and a time of their own.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use vswitch_frame::Mac;

use super::super::super::id::Id;
use super::super::super::ledger::TOMBSTONE_AGE;
use super::super::super::record::{Subscription, Value};
use super::super::packet::PACKET_BYTES_MAX;
use super::super::world::World;
use super::*;

const HOSTS: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// A world in which all know each other.
fn settled(hosts: usize, seed: u64) -> World {
    let mut world = World::new(hosts, seed);
    for host in 0..hosts {
        world.start(host);
        world.join(host);
    }
    let all_up = |world: &mut World| (0..hosts).all(|host| world.up(host) == hosts - 1);
    assert!(world.until(MINUTE, all_up), "all are up");
    world
}

fn record(world: &World, host: usize, number: u32, step: u64) -> Record {
    let value = Some(Value::Vni { network: format!("{step}") });
    let version = Version(Version::at(world.since_epoch).0 + step);
    Record { key: Key::Vni(number), version, host: World::id(host), value }
}

fn network(number: u8) -> Id {
    Id::new([number; 32])
}

fn subscription(world: &World, host: usize, to: Id, live: bool) -> Record {
    Record {
        key: Key::Subscription(to, World::id(host)),
        version: Version::at(world.since_epoch),
        host: World::id(host),
        value: live.then(|| Value::Subscription(Subscription::default())),
    }
}

fn endpoint(world: &World, host: usize, of: Id, last: u8) -> Record {
    Record {
        key: Key::Endpoint(of, Mac([2, 0, 0, 0, 0, last])),
        version: Version::at(world.since_epoch),
        host: World::id(host),
        value: Some(Value::Other("an endpoint".into())),
    }
}

/// The time it took until each running host knew a record.
fn spread(world: &mut World, record: &Record) -> Vec<Duration> {
    let from = world.now;
    let mut missing: Vec<usize> =
        (0..world.hosts.len()).filter(|host| world.hosts[*host].machine.is_some()).collect();
    let (all, mut took) = (missing.len(), Vec::new());
    let done = world.until(MINUTE, |world| {
        missing.retain(|host| !world.knows(*host, record));
        took.resize(all - missing.len(), world.now.since(from));
        missing.is_empty()
    });
    assert!(done, "all know");
    took
}

fn percentile(mut took: Vec<Duration>, hundredths: usize) -> Duration {
    took.sort();
    took[(took.len() - 1) * hundredths / 100]
}

#[test]
fn a_change_is_seen_by_all_within_a_second() {
    let mut world = settled(HOSTS, 1);
    let mut took = Vec::new();
    for change in 0..100u64 {
        let host = usize::try_from(change).expect("small") % HOSTS;
        let record = record(&world, host, 1, change + 1);
        world.publish(host, vec![record.clone()]);
        took.extend(spread(&mut world, &record));
        world.wait(Duration::from_millis(200));
    }
    let (half, most) = (percentile(took.clone(), 50), percentile(took, 99));
    assert!(half <= Duration::from_millis(100), "half within {half:?}");
    assert!(most <= Duration::from_secs(1), "99 of 100 within {most:?}");
}

#[test]
fn a_burst_of_changes_is_seen_by_all() {
    let mut world = settled(3, 2);
    let records: Vec<Record> = (0..500).map(|number| record(&world, 0, number, 1)).collect();
    world.publish(0, records.clone());
    let all_know =
        |world: &mut World| (0..3).all(|host| records.iter().all(|record| world.knows(host, record)));
    assert!(world.until(Duration::from_secs(5), all_know));
}

#[test]
fn what_does_not_fit_a_packet_arrives_too() {
    let mut world = settled(HOSTS, 3);
    let mut long = record(&world, 4, 1, 1);
    long.value = Some(Value::Vni { network: "x".repeat(10 * PACKET_BYTES_MAX) });
    world.publish(4, vec![long.clone()]);
    let most = percentile(spread(&mut world, &long), 99);
    assert!(most <= Duration::from_secs(1), "{most:?}");
}

#[test]
fn endpoints_go_to_those_who_subscribe_and_to_nobody_else() {
    let mut world = settled(HOSTS, 4);
    for host in 0..5 {
        let subscription = subscription(&world, host, network(1), true);
        world.publish(host, vec![subscription]);
    }
    world.wait(Duration::from_secs(2));
    let (early, own) = (endpoint(&world, 0, network(1), 1), endpoint(&world, 9, network(1), 9));
    world.publish(0, vec![early.clone()]);
    world.publish(9, vec![own.clone()]);
    assert!(
        world.until(MINUTE, |world| (0..5).all(|host| world.knows(host, &early) && world.knows(host, &own)))
    );
    world.wait(Duration::from_secs(10));
    assert!((5..HOSTS).all(|host| !world.knows(host, &early)), "others do not hear of it");
    assert!(world.knows(9, &own), "a writer keeps its own");
    // A later subscriber gets what is there, at once.
    let late = subscription(&world, 12, network(1), true);
    world.publish(12, vec![late]);
    assert!(world.until(Duration::from_secs(1), |world| world.knows(12, &early) && world.knows(12, &own)));
    // A host that takes its subscription back forgets, and hears of no more.
    world.wait(Duration::from_secs(1));
    let end = subscription(&world, 12, network(1), false);
    world.publish(12, vec![end]);
    assert!(!world.knows(12, &early));
    let after = endpoint(&world, 0, network(1), 2);
    world.publish(0, vec![after.clone()]);
    assert!(world.until(MINUTE, |world| (0..5).all(|host| world.knows(host, &after))));
    world.wait(Duration::from_secs(10));
    assert!(!world.knows(12, &after) && !world.knows(12, &early));
}

#[test]
fn a_partition_heals() {
    let mut world = settled(HOSTS, 4);
    for host in 0..HOSTS {
        let subscription = subscription(&world, host, network(1), true);
        world.publish(host, vec![subscription]);
    }
    world.wait(Duration::from_secs(2));
    for host in 0..HOSTS / 2 {
        world.hosts[host].side = 1;
    }
    let apart = |world: &mut World| (0..HOSTS).all(|host| world.up(host) == HOSTS / 2 - 1);
    assert!(world.until(MINUTE, apart), "each side knows");
    let (here, there) = (record(&world, 0, 1, 5), record(&world, HOSTS - 1, 2, 5));
    let (older, newer) = (record(&world, 1, 3, 6), record(&world, HOSTS - 2, 3, 7));
    let scoped = endpoint(&world, 2, network(1), 1);
    for (host, record) in [(0, &here), (HOSTS - 1, &there), (1, &older), (HOSTS - 2, &newer), (2, &scoped)] {
        world.publish(host, vec![record.clone()]);
    }
    world.wait(Duration::from_secs(30));
    assert!(world.knows(1, &older) && !world.knows(0, &there) && !world.knows(HOSTS - 1, &scoped));
    world.hosts.iter_mut().for_each(|seat| seat.side = 0);
    let together = |world: &mut World| (0..HOSTS).all(|host| world.up(host) == HOSTS - 1);
    assert!(world.until(MINUTE, together), "all are up again");
    let all = [&here, &there, &newer, &scoped];
    let agree = |world: &mut World| (0..HOSTS).all(|host| all.iter().all(|record| world.knows(host, record)));
    assert!(world.until(MINUTE, agree), "all know the newest");
}

/// Both sides find each other at the same moment: all begin another life at once.
#[test]
fn a_partition_heals_when_all_clocks_tick_at_once() {
    let mut world = World::new(HOSTS, 11);
    (world.delay, world.loss) = ((Duration::from_millis(1), Duration::from_millis(1)), 0);
    world.start_all();
    let up = |count: usize| move |world: &mut World| (0..HOSTS).all(|host| world.up(host) == count);
    world.hosts.iter_mut().step_by(2).for_each(|seat| seat.side = 1);
    assert!(world.until(MINUTE, up(HOSTS / 2 - 1)), "each side knows");
    world.hosts.iter_mut().for_each(|seat| seat.side = 0);
    assert!(world.until(MINUTE, up(HOSTS - 1)), "all are up again");
}

#[test]
fn a_host_is_killed_and_back() {
    let mut world = settled(HOSTS, 5);
    let own = record(&world, 7, 1, 1);
    world.publish(7, vec![own.clone()]);
    spread(&mut world, &own);
    world.kill(7);
    let down =
        |world: &mut World| (0..HOSTS).filter(|host| *host != 7).all(|host| world.up(host) == HOSTS - 2);
    assert!(world.until(Duration::from_secs(15), down), "all see that it is down");
    let meanwhile = record(&world, 3, 2, 1);
    world.publish(3, vec![meanwhile.clone()]);
    world.start(7);
    world.join(7);
    let back = |world: &mut World| (0..HOSTS).all(|host| world.up(host) == HOSTS - 1);
    assert!(world.until(Duration::from_secs(5), back), "it is back");
    let heard = |world: &mut World| world.knows(7, &meanwhile) && world.knows(7, &own);
    assert!(world.until(Duration::from_secs(5), heard), "it has heard");
}

#[test]
fn a_host_that_is_back_before_it_was_missed_goes_on() {
    let mut world = settled(5, 6);
    world.kill(2);
    world.wait(Duration::from_millis(500));
    world.start(2);
    world.join(2);
    assert!(world.until(MINUTE, |world| world.up(2) == 4), "it knows all");
    world.wait(Duration::from_secs(20));
    assert!((0..5).all(|host| world.up(host) == 4));
}

#[test]
fn who_leaves_is_gone_at_once() {
    let mut world = settled(5, 7);
    world.act(2, Machine::leave);
    world.kill(2);
    let gone = |world: &mut World| (0..5).filter(|host| *host != 2).all(|host| world.up(host) == 3);
    assert!(world.until(Duration::from_secs(1), gone));
}

/// Hosts whose clocks differ forget a tombstone at different moments, and at no moment fetch it back for
/// ever.
#[test]
fn a_tombstone_is_forgotten_by_all_whatever_their_clocks() {
    let mut world = World::new(5, 8);
    for host in 0..5u32 {
        world.hosts[host as usize].ahead = Duration::from_secs(100) * host;
    }
    world.start_all();
    let live = record(&world, 0, 1, 1);
    let gone = Record { version: Version(live.version.0 + 1), value: None, ..live.clone() };
    world.publish(0, vec![live]);
    world.publish(0, vec![gone.clone()]);
    spread(&mut world, &gone);
    // A day passes while nothing happens.
    world.since_epoch += TOMBSTONE_AGE - Duration::from_secs(60);
    for _ in 0..150 {
        world.wait(Duration::from_secs(10));
        for host in 0..5 {
            // Packets of yesterday would be refused; there are none.
            assert_eq!(world.up(host), 4);
        }
    }
    assert!(
        (0..5).all(|host| world.hosts[host]
            .machine
            .as_ref()
            .is_some_and(|machine| machine.ledger().is_empty()))
    );
    let before: Vec<u64> = world.hosts.iter().map(|seat| seat.talks).collect();
    world.wait(MINUTE);
    let after: Vec<u64> = world.hosts.iter().map(|seat| seat.talks).collect();
    assert_eq!(before, after, "there is nothing to compare");
}

#[test]
fn a_record_ahead_of_its_time_freezes_nobody() {
    let mut world = settled(3, 9);
    let forged = Record { version: Version(u64::MAX), ..record(&world, 1, 1, 1) };
    world.publish(1, vec![forged.clone()]);
    world.wait(Duration::from_secs(10));
    assert!(!world.knows(0, &forged) && !world.knows(2, &forged));
    let right = record(&world, 2, 1, 1);
    world.publish(2, vec![right.clone()]);
    assert!(world.until(Duration::from_secs(5), |world| world.knows(0, &right)));
}

#[test]
fn a_packet_that_comes_again_is_not_sent_on_again() {
    let mut world = settled(HOSTS, 10);
    let said = record(&world, 0, 1, 1);
    let text = serde_json::to_vec(&said).expect("text");
    let item = Item { tree: 0, before: u64::MAX, is_hint: false, text: &text };
    let packets = packet::news(world.since_epoch, World::id(0), [item]);
    let sent = |world: &mut World| {
        let now = world.time(5);
        let machine = world.hosts[5].machine.as_mut().expect("it runs");
        machine.effects();
        machine.receive(&packets[0], now).expect("it is read");
        machine.effects().packets.len()
    };
    assert!(sent(&mut world) > 0);
    assert_eq!(sent(&mut world), 0);
    world.wait(MINUTE);
    assert_eq!(sent(&mut world), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 30,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// In the end all agree on the newest, whoever says what, subscribes, dies, comes back or is cut off.
    #[test]
    fn in_the_end_all_agree_on_the_newest(
        seed in any::<u64>(),
        loss in 0..200u32,
        deeds in prop::collection::vec((0..8usize, 0..5usize, 1..4u32, 0..3000u64), 1..25),
    ) {
        let mut world = settled(5, seed);
        world.loss = loss;
        let mut newest: BTreeMap<Key, Record> = BTreeMap::new();
        for (step, (deed, host, number, wait)) in (1..).zip(deeds) {
            match deed {
                0 => world.hosts[host].side ^= 1,
                // The first stays, so that there is always somebody to join and nothing said is lost.
                1 if host > 0 => world.kill(host),
                2 if world.hosts[host].machine.is_none() => {
                    world.start(host);
                    world.join(host);
                }
                3 if host > 0 && world.hosts[host].machine.is_some() => {
                    let to = network(u8::try_from(number).expect("small"));
                    let said = subscription(&world, host, to, step % 3 != 0);
                    world.publish(host, vec![said]);
                }
                4 | 5 => {
                    let of = network(u8::try_from(number).expect("small"));
                    let mut said = endpoint(&world, 0, of, u8::try_from(host).expect("small"));
                    said.value = said.value.filter(|_| step % 4 != 0);
                    newest.insert(said.key.clone(), said.clone());
                    // A host with endpoints on a network subscribes to it.
                    let own = subscription(&world, 0, of, true);
                    world.publish(0, vec![own, said]);
                }
                // A record that is known only to a host that dies next is not compared.
                _ => {
                    let said = record(&world, 0, number, step);
                    newest.insert(said.key.clone(), said.clone());
                    world.publish(0, vec![said]);
                }
            }
            world.wait(Duration::from_millis(wait + 1));
        }
        world.hosts.iter_mut().for_each(|seat| seat.side = 0);
        world.loss = 10;
        for host in 0..5 {
            if world.hosts[host].machine.is_none() {
                world.start(host);
                world.join(host);
            }
        }
        prop_assert!(world.until(MINUTE, |world| (0..5).all(|host| world.up(host) == 4)), "all are up");
        let agree = |world: &mut World| (0..5).all(|host| newest.values().all(|record| {
            let machine = world.hosts[host].machine.as_ref().expect("it runs");
            let concerned = host == 0 || machine.has(record.key.scope());
            let known = machine.ledger().find(&record.key);
            if concerned { known == Some(record) } else { known.is_none() }
        }));
        prop_assert!(world.until(MINUTE, agree), "all agree");
        let sums = |world: &mut World| (0..5).all(|host| {
            let sum = |host: usize| world.hosts[host].machine.as_ref().map(|machine| machine.ledger().sum(Scope::Global));
            sum(host) == sum(0)
        });
        prop_assert!(world.until(MINUTE, sums), "sums agree");
    }
}
