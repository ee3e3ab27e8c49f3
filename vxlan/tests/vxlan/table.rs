//! The table's rules one by one, and random histories against a reference.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::{Instant, Mac};
use vswitch_vxlan::table::{Learned, Origin};
use vswitch_vxlan::{Limits, Outcome, Record, Table};

use crate::support::{ALICE, BOB, NOW, record, vtep};

fn table() -> Table {
    Table::new(Limits::default(), 7)
}

#[test]
fn the_newest_version_wins_whatever_the_order() {
    let (old, new) = (record(BOB, &["10.0.0.2"], vtep(2), 1), record(BOB, &["10.0.0.3"], vtep(3), 2));
    for order in [[&old, &new], [&new, &old]] {
        let mut table = table();
        for record in order {
            table.set(record.clone());
        }
        assert_eq!(table.look_up(BOB), Some(vtep(3)));
        assert_eq!(table.resolve([10, 0, 0, 2].into()), None);
        assert_eq!(table.resolve([10, 0, 0, 3].into()), Some((BOB, vtep(3))));
    }
}

#[test]
fn the_same_again_is_no_error() {
    let mut table = table();
    let bob = record(BOB, &["10.0.0.2"], vtep(2), 1);
    assert_eq!(table.set(bob.clone()), Outcome::Applied);
    assert_eq!(table.set(bob), Outcome::Stale);
    assert_eq!(table.resolve([10, 0, 0, 2].into()), Some((BOB, vtep(2))));
    assert_eq!(table.remove(BOB, 1, NOW), Outcome::Applied);
    assert_eq!(table.remove(BOB, 1, NOW), Outcome::Stale);
}

#[test]
fn a_late_record_does_not_revive_what_was_removed() {
    let mut table = table();
    assert_eq!(table.remove(BOB, 5, NOW), Outcome::Applied);
    assert_eq!(table.set(record(BOB, &[], vtep(2), 5)), Outcome::Stale);
    assert_eq!(table.learn(BOB, vtep(2), NOW), Learned::Outranked);
    assert_eq!(table.look_up(BOB), None);
    assert_eq!(table.set(record(BOB, &[], vtep(2), 6)), Outcome::Applied);
    assert_eq!(table.remove(BOB, 5, NOW), Outcome::Stale);
    assert_eq!(table.look_up(BOB), Some(vtep(2)));
}

#[test]
fn one_version_with_two_tales_ends_alike_everywhere() {
    let tales = [record(BOB, &[], vtep(2), 1), record(BOB, &[], vtep(3), 1)];
    let [one, other] = [[0, 1], [1, 0]].map(|order: [usize; 2]| {
        let mut table = table();
        for tale in order {
            table.set(tales[tale].clone());
        }
        table.look_up(BOB)
    });
    assert_eq!(one, other);
}

#[test]
fn control_outranks_learning() {
    let mut table = table();
    assert_eq!(table.learn(BOB, vtep(2), NOW), Learned::Here);
    assert_eq!(table.set(record(BOB, &[], vtep(3), 0)), Outcome::Applied);
    assert_eq!(table.learn(BOB, vtep(2), NOW), Learned::Outranked);
    assert_eq!(table.learn(BOB, vtep(3), NOW), Learned::Here);
    assert_eq!(table.look_up(BOB), Some(vtep(3)));
    table.sweep(NOW + Duration::from_secs(10_000));
    assert_eq!(table.look_up(BOB), Some(vtep(3)), "and never ages");
}

#[test]
fn an_address_is_its_newest_claimants() {
    for order in [[0usize, 1], [1, 0]] {
        let mut table = table();
        let claims = [record(ALICE, &["10.0.0.9"], vtep(2), 1), record(BOB, &["10.0.0.9"], vtep(3), 2)];
        for claim in order {
            table.set(claims[claim].clone());
        }
        assert_eq!(table.resolve([10, 0, 0, 9].into()), Some((BOB, vtep(3))));
        table.remove(ALICE, 3, NOW);
        assert_eq!(table.resolve([10, 0, 0, 9].into()), Some((BOB, vtep(3))));
        table.remove(BOB, 3, NOW);
        assert_eq!(table.resolve([10, 0, 0, 9].into()), None);
    }
}

#[test]
fn tombstones_and_learned_addresses_age() {
    let limits = Limits::default();
    let mut table = table();
    table.learn(ALICE, vtep(2), NOW);
    table.remove(BOB, 1, NOW);
    assert_eq!(table.sweep_at(), Some(NOW + limits.age));
    table.sweep(NOW + (limits.age - Duration::from_nanos(1)));
    assert_eq!(table.entries().count(), 2);
    table.sweep(NOW + limits.age);
    assert_eq!((table.entries().count(), table.sweep_at()), (0, None));
}

#[test]
fn at_a_limit_nothing_that_is_there_goes() {
    let limits = Limits { records: 2, learned: 1, addresses_per_record: 1, ..Limits::default() };
    let mut table = Table::new(limits, 7);
    let mac = |last: u8| Mac([2, 0, 0, 0, 1, last]);
    assert_eq!(table.set(record(mac(1), &["10.0.0.1", "10.0.0.2"], vtep(2), 1)), Outcome::Full);
    assert_eq!(table.set(record(mac(1), &["10.0.0.1"], vtep(2), 1)), Outcome::Applied);
    assert_eq!(table.remove(mac(2), 1, NOW), Outcome::Applied);
    assert_eq!(table.learn(mac(3), vtep(2), NOW), Learned::Here);
    assert_eq!(table.learn(mac(4), vtep(2), NOW), Learned::Full);
    for full in [3, 5] {
        assert_eq!(table.set(record(mac(full), &[], vtep(2), 1)), Outcome::Full);
        assert_eq!(table.remove(mac(full), 1, NOW), Outcome::Full);
    }
    assert_eq!(table.set(record(mac(1), &[], vtep(3), 2)), Outcome::Applied, "what is there may change");
    assert_eq!(table.look_up(mac(3)), Some(vtep(2)));
    table.forget_learned_at(vtep(2));
    assert_eq!(table.learn(mac(4), vtep(2), NOW), Learned::Here);
}

/// An event that may happen to a table.
#[derive(Clone, Debug)]
enum Transition {
    Set { mac: u8, addresses: Vec<u8>, vtep: u8, version: u64 },
    Remove { mac: u8, version: u64 },
    Learn { mac: u8, vtep: u8 },
    ForgetPeer(u8),
    Wait(u64),
}

fn transitions() -> impl Strategy<Value = Transition> {
    let set = (0..4u8, vec(0..4u8, 0..3), 2..5u8, 0..6u64);
    prop_oneof![
        4 => set.prop_map(|(mac, addresses, vtep, version)| Transition::Set { mac, addresses, vtep, version }),
        2 => (0..4u8, 0..6u64).prop_map(|(mac, version)| Transition::Remove { mac, version }),
        3 => (0..4u8, 2..5u8).prop_map(|(mac, vtep)| Transition::Learn { mac, vtep }),
        1 => (2..5u8).prop_map(Transition::ForgetPeer),
        1 => (0..200u64).prop_map(Transition::Wait),
    ]
}

/// The reference: what the table should say, written down as plainly as possible: the best that control ever
/// said of each address (version, whether removed, VTEP), who claimed what, and what was seen.
#[derive(Default)]
struct Reference {
    said: BTreeMap<u8, (u64, bool, IpAddr, Instant)>,
    claims: BTreeMap<u8, (u64, u8)>,
    seen: BTreeMap<u8, (IpAddr, Instant)>,
}

fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 2, number])
}

fn address(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

impl Reference {
    fn apply(&mut self, transition: &Transition, now: Instant) {
        match transition {
            Transition::Set { mac, addresses, vtep: host, version } => {
                if self.is_news(*mac, (*version, false, vtep(*host))) {
                    self.say(*mac, (*version, false, vtep(*host), now));
                    for address in addresses {
                        let claim = self.claims.entry(*address).or_insert((*version, *mac));
                        *claim = (*claim).max((*version, *mac));
                    }
                }
            }
            Transition::Remove { mac, version } => {
                let host = self.said.get(mac).map_or(IpAddr::from([0; 4]), |said| said.2);
                let known = self.said.get(mac).map(|said| (said.0, said.1));
                if known.is_none_or(|known| known < (*version, true)) {
                    self.say(*mac, (*version, true, host, now));
                }
            }
            Transition::Learn { mac, vtep: host } => {
                if !self.said.contains_key(mac) {
                    self.seen.insert(*mac, (vtep(*host), now));
                }
            }
            Transition::ForgetPeer(host) => self.seen.retain(|_, seen| seen.0 != vtep(*host)),
            Transition::Wait(_) => {}
        }
    }

    fn is_news(&self, mac: u8, new: (u64, bool, IpAddr)) -> bool {
        self.said
            .get(&mac)
            .is_none_or(|said| (said.0, said.1) < (new.0, false) || (said.0, said.1, said.2) < new)
    }

    fn say(&mut self, mac: u8, what: (u64, bool, IpAddr, Instant)) {
        self.said.insert(mac, what);
        self.seen.remove(&mac);
        self.claims.retain(|_, (_, owner)| *owner != mac);
    }

    fn age(&mut self, now: Instant, limits: Limits) {
        self.said.retain(|_, said| !said.1 || now < said.3 + limits.tombstone_age);
        self.seen.retain(|_, seen| now < seen.1 + limits.age);
    }

    fn look_up(&self, mac: u8) -> Option<IpAddr> {
        let seen = self.seen.get(&mac).map(|seen| seen.0);
        self.said.get(&mac).map_or(seen, |said| (!said.1).then_some(said.2))
    }
}

proptest! {
    #[test]
    fn histories_end_as_the_reference_says(history in vec(transitions(), 0..60)) {
        let limits = Limits { tombstone_age: Duration::from_secs(500), ..Limits::default() };
        let (mut table, mut reference, mut now) = (Table::new(limits, 7), Reference::default(), NOW);
        for transition in &history {
            reference.apply(transition, now);
            match transition {
                Transition::Set { mac: of, addresses, vtep: host, version } => {
                    let addresses = addresses.iter().map(|&number| address(number)).collect();
                    table.set(Record { mac: mac(*of), addresses, vtep: vtep(*host), version: *version });
                }
                Transition::Remove { mac: of, version } => {
                    table.remove(mac(*of), *version, now);
                }
                Transition::Learn { mac: of, vtep: host } => {
                    table.learn(mac(*of), vtep(*host), now);
                }
                Transition::ForgetPeer(host) => table.forget_learned_at(vtep(*host)),
                Transition::Wait(seconds) => {
                    now = now + Duration::from_secs(*seconds);
                    // A sweep may come late by the slack; the reference sweeps when the table does.
                    if table.sweep_at().is_some_and(|at| at <= now) {
                        table.sweep(now);
                        reference.age(now, limits);
                    }
                }
            }
            for number in 0..4 {
                prop_assert_eq!(table.look_up(mac(number)), reference.look_up(number));
                let owner = reference.claims.get(&number).map(|(_, owner)| mac(*owner));
                prop_assert_eq!(table.resolve(address(number)).map(|found| found.0), owner);
            }
            let learned = table.entries().filter(|entry| matches!(entry.origin, Origin::Learned { .. })).count();
            prop_assert_eq!(learned, reference.seen.len());
        }
    }
}
