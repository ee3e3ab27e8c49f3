//! Tests of ledgers.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use vswitch_frame::Mac;

use super::super::record::{AHEAD_MAX, Space, Subscription, Value};
use super::*;

const ME: HostId = HostId::new([9; 16]);
const NETWORK: Id = Id::new([7; 32]);
/// Some time of day.
const NOW: Duration = Duration::from_secs(1_700_000_000);

fn host(number: u8) -> HostId {
    HostId::new([number; 16])
}

fn record(key: u32, version: u64, host: u8, gone: bool) -> Record {
    // A writer says one thing under one version.
    let value = (!gone).then(|| Value::Vni { network: format!("{version}-{host}") });
    Record { key: Key::Vni(key), version: Version(version), host: HostId::new([host; 16]), value }
}

fn endpoint(number: u32, version: Version, writer: HostId, gone: bool) -> Record {
    let [a, b, c, d] = number.to_be_bytes();
    let value = (!gone).then_some(Value::Other(serde_json::Value::Null));
    Record { key: Key::Endpoint(NETWORK, Mac([2, 0, a, b, c, d])), version, host: writer, value }
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let one = (0..6u32, 1..8u64, 0..3u8)
        .prop_map(|(key, version, host)| record(key, version, host, (version + u64::from(host)) % 3 == 0));
    prop::collection::vec(one, 0..40)
}

fn of(records: &[Record]) -> Ledger {
    let mut ledger = Ledger::of(ME);
    for record in records {
        ledger.merge(record.clone(), Duration::ZERO);
    }
    ledger
}

fn contents(ledger: &Ledger) -> Vec<Record> {
    ledger.iter().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_newest_wins_in_any_order(
        (records, shuffled) in records().prop_flat_map(|records| {
            (Just(records.clone()), Just(records).prop_shuffle())
        })
    ) {
        let (one, other) = (of(&records), of(&shuffled));
        prop_assert_eq!(contents(&one), contents(&other));
        prop_assert_eq!(one.sum(Scope::Global), other.sum(Scope::Global));
        for record in one.iter() {
            let newest = records.iter().filter(|other| other.key == record.key).map(Record::rank).max();
            prop_assert_eq!(Some(record.rank()), newest);
        }
    }

    #[test]
    fn sums_are_alike_for_those_who_know_the_same(one in records(), other in records()) {
        let (one, other) = (of(&one), of(&other));
        let agreed = contents(&one) == contents(&other);
        prop_assert_eq!(one.sum(Scope::Global) == other.sum(Scope::Global), agreed);
    }
}

#[test]
fn old_tombstones_are_forgotten_all_of_a_step_at_once() {
    let at = |ms: u64| ms << 16;
    let step = u64::try_from(TOMBSTONE_STEP.as_millis()).expect("short");
    let (early, late) = (record(1, at(5), 0, true), record(3, at(step), 0, true));
    let mut ledger = of(&[early.clone(), record(2, at(5), 0, false), late.clone()]);
    ledger.sweep(TOMBSTONE_AGE + TOMBSTONE_STEP - Duration::from_millis(1));
    assert_eq!(ledger.len(), 3);
    ledger.sweep(TOMBSTONE_AGE + TOMBSTONE_STEP);
    let left: BTreeSet<Key> = ledger.iter().map(|record| record.key.clone()).collect();
    assert_eq!(left, [Key::Vni(2), Key::Vni(3)].into());
    let same = of(&[record(2, at(5), 0, false), late]);
    assert_eq!(ledger.sum(Scope::Global), same.sum(Scope::Global));
    assert_eq!((ledger.get(&Key::Vni(3)), ledger.find(&Key::Vni(3)).is_some()), (None, true));
}

#[test]
fn a_tombstone_that_others_have_still_is_not_taken_back() {
    let gone = record(1, Version::at(NOW).0, 0, true);
    let (mut here, mut there) = (of(&[]), of(&[]));
    assert_eq!(here.merge(gone.clone(), NOW), Merge::News);
    assert_eq!(there.merge(gone.clone(), NOW), Merge::News);
    let later = NOW + TOMBSTONE_AGE + 2 * TOMBSTONE_STEP;
    here.sweep(later);
    assert_eq!(here.merge(gone.clone(), later), Merge::Refused(Refusal::Old));
    there.sweep(later);
    assert_eq!(here.sum(Scope::Global), there.sum(Scope::Global));
    // A host that slept through the removal still learns of it.
    let mut asleep = of(&[]);
    assert_eq!(asleep.merge(record(1, 5, 0, false), NOW), Merge::News);
    assert_eq!(asleep.merge(gone, later), Merge::News);
    assert!(asleep.is_empty());
}

#[test]
fn a_version_ahead_of_its_time_is_refused_but_in_a_word_of_our_own() {
    let mut ledger = Ledger::of(ME);
    for version in [Version(u64::MAX), Version::at(NOW + AHEAD_MAX + Duration::from_millis(1))] {
        // Both when it says that we wrote it, and when another host did.
        for writer in [ME, host(1)] {
            let forged = endpoint(1, version, writer, false);
            assert_eq!(ledger.merge(forged, NOW), Merge::Refused(Refusal::Ahead));
        }
    }
    assert!(ledger.is_empty());
    assert_eq!(ledger.merge(endpoint(1, Version::at(NOW + AHEAD_MAX), host(1), false), NOW), Merge::News);
    assert!(ledger.say(endpoint(2, Version(u64::MAX), ME, false)));
}

#[test]
fn one_writer_cannot_fill_the_table_and_our_own_word_is_always_taken() {
    let mut ledger = Ledger::of(ME);
    let version = Version::at(NOW);
    let mut taken = 0;
    for number in 0..u32::try_from(shares::ENDPOINTS_MAX).expect("few") {
        taken += usize::from(ledger.merge(endpoint(number, version, host(1), false), NOW).is_news());
    }
    assert_eq!(taken, shares::ENDPOINTS_MAX / 2);
    let late = |number: u32| endpoint(1 << 24 | number, version, host(2), false);
    assert!((0..1000).all(|number| ledger.merge(late(number), NOW).is_news()), "others have room");
    let update = endpoint(0, Version(version.0 + 1), host(1), false);
    assert_eq!(ledger.merge(update, NOW), Merge::News, "what is known may change at the limit");
    // Hosts enough to fill it: each gets less.
    for writer in 3..40 {
        for number in 0..u32::MAX {
            let one = endpoint(u32::from(writer) << 24 | number, version, host(writer), false);
            if !ledger.merge(one, NOW).is_news() {
                break;
            }
        }
    }
    let refused = endpoint(u32::MAX, version, host(50), false);
    assert_eq!(ledger.merge(refused, NOW), Merge::Refused(Refusal::Full));
    assert!(ledger.say(endpoint(u32::MAX, version, ME, false)), "our own is always taken");
}

#[test]
fn at_the_limit_the_oldest_tombstones_of_a_writer_give_way() {
    let mut ledger = Ledger::of(ME);
    let half = u32::try_from(shares::ENDPOINTS_MAX / 2).expect("few");
    for number in 0..half {
        let version = Version(Version::at(NOW).0 + u64::from(number));
        assert!(ledger.merge(endpoint(number, version, host(1), true), NOW).is_news());
    }
    let newest = Version(Version::at(NOW).0 + u64::from(half));
    assert!(ledger.merge(endpoint(half, newest, host(1), false), NOW).is_news());
    let key = |number| endpoint(number, newest, host(1), true).key;
    assert!(ledger.find(&key(0)).is_none() && ledger.find(&key(1)).is_some());
    let old = endpoint(0, Version::at(NOW), host(1), true);
    assert_eq!(ledger.merge(old, NOW), Merge::Refused(Refusal::Full), "and it is not taken back");
}

#[test]
fn endpoints_are_forgotten_but_for_our_own() {
    let version = Version::at(NOW);
    let other = Id::new([8; 32]);
    let elsewhere =
        Record { key: Key::Endpoint(other, Mac::default()), ..endpoint(0, version, host(1), false) };
    let (own, foreign) = (endpoint(1, version, ME, false), endpoint(2, version, host(1), true));
    let mut ledger = of(&[]);
    for record in [&own, &foreign, &elsewhere] {
        assert!(ledger.merge(record.clone(), NOW).is_news());
    }
    ledger.forget_endpoints(NETWORK);
    assert_eq!(ledger.endpoints(NETWORK).collect::<Vec<_>>(), [&own]);
    assert_eq!(ledger.endpoints(other).collect::<Vec<_>>(), [&elsewhere]);
    assert_eq!(ledger.sum(Scope::Network(NETWORK)), own.mark());
}

#[test]
fn spaces_and_subscribers_of_a_network_are_found() {
    let version = Version::at(NOW);
    let last: IpAddr = [10, 0, 0, 255].into();
    let space = |first: [u8; 4], version| Record {
        key: Key::Space(NETWORK, first.into()),
        version,
        host: ME,
        value: Some(Value::Space(Space { last, owner: None })),
    };
    let subscription = |number: u8, version, gone: bool| Record {
        key: Key::Subscription(NETWORK, host(number)),
        version,
        host: host(number),
        value: (!gone).then(|| Value::Subscription(Subscription::default())),
    };
    let mut ledger = Ledger::of(ME);
    for record in
        [space([10, 0, 0, 128], version), space([10, 0, 0, 0], version), subscription(2, version, false)]
    {
        assert!(ledger.merge(record, NOW).is_news());
    }
    assert!(ledger.merge(subscription(1, version, false), NOW).is_news());
    assert_eq!(ledger.spaces(NETWORK).count(), 2);
    assert_eq!(ledger.spaces(Id::new([8; 32])).count(), 0);
    assert_eq!(ledger.subscribers(NETWORK).collect::<Vec<_>>(), [host(1), host(2)]);
    assert!(ledger.merge(subscription(1, Version(version.0 + 1), true), NOW).is_news());
    assert_eq!(ledger.subscribers(NETWORK).collect::<Vec<_>>(), [host(2)]);
    assert!(ledger.subscribes(host(2), NETWORK) && !ledger.subscribes(host(1), NETWORK));
}
