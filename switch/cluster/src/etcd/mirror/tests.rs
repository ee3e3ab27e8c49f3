//! Records that are taken in, that are refused, and that are written all the same.

use vswitch_frame::Mac;

use super::super::super::record::AHEAD_MAX;
use super::*;

const ME: HostId = HostId::new([1; 16]);
const OTHER: HostId = HostId::new([2; 16]);
const NETWORK: Id = Id::new([7; 32]);
const LEASES: Leases = Leases { life: LeaseId(1), graves: LeaseId(2) };
const NOW: Duration = Duration::from_secs(1_800_000_000);

fn mirror() -> Mirror {
    Mirror::new(ME, Layout::new("/p/".to_owned(), ME))
}

fn record(key: Key, host: HostId, at: Duration) -> Record {
    let value = Some(Value::Vni { network: "n".to_owned() });
    Record { key, version: Version::at(at), host, value }
}

fn found(record: &Record, mod_revision: i64) -> KeyValue {
    let value = serde_json::to_vec(record).expect("json");
    KeyValue::new(&format!("/p/records/{}", record.key), value, mod_revision, 9)
}

fn change(found: KeyValue) -> wire::Event {
    wire::Event { kv: found, ..wire::Event::default() }
}

fn told(events: &[Event]) -> Vec<Key> {
    let records = events.iter().flat_map(|event| match event {
        Event::Records(records) => records.as_slice(),
        Event::Host(..) | Event::Asked(..) => &[],
    });
    records.map(|record| record.key.clone()).collect()
}

#[test]
fn what_is_no_record_is_written_over() {
    let mut mirror = mirror();
    mirror.publish(record(Key::Vni(7), ME, NOW));
    let first = mirror.batch(LEASES);
    assert_eq!(mirror.conditions(&first)[0].mod_revision, 0);
    let junk = KeyValue::new("/p/records/vni/7", b"junk".to_vec(), 5, 0);
    mirror.missed(&first, &[junk], NOW);
    let again = mirror.batch(LEASES);
    assert_eq!((again.len(), mirror.conditions(&again)[0].mod_revision), (1, 5));
    mirror.wrote(again, LEASES, 6);
    assert!(mirror.is_settled());
}

#[test]
fn what_is_ahead_of_its_time_is_refused_and_written_over_and_taken_when_its_time_has_come() {
    let mut mirror = mirror();
    let later = NOW + AHEAD_MAX + Duration::from_secs(1);
    let ahead = record(Key::Vni(7), OTHER, later);
    let endless = Record { version: Version(u64::MAX), ..record(Key::Vni(8), OTHER, NOW) };
    let changes = [change(found(&ahead, 3)), change(found(&endless, 4))];
    assert_eq!(told(&mirror.follow(&changes, NOW)), []);
    assert_eq!(mirror.get(&Key::Vni(7)), None);
    assert!(!mirror.sweep(NOW));

    mirror.publish(record(Key::Vni(8), ME, NOW));
    let batch = mirror.batch(LEASES);
    mirror.missed(&batch, &[found(&endless, 4)], NOW);
    let batch = mirror.batch(LEASES);
    assert_eq!(mirror.conditions(&batch)[0].mod_revision, 4);
    mirror.wrote(batch, LEASES, 5);

    assert!(mirror.sweep(NOW + Duration::from_secs(1)), "to be read again");
    assert!(!mirror.sweep(NOW + Duration::from_secs(2)), "once");
    let events = mirror.follow(&[change(found(&ahead, 3))], NOW + Duration::from_secs(1));
    assert_eq!(told(&events), [Key::Vni(7)]);
}

#[test]
fn a_tombstone_that_all_have_forgotten_is_nothing() {
    let mut mirror = mirror();
    let old = Record { value: None, ..record(Key::Vni(7), OTHER, NOW - Duration::from_secs(2 * 24 * 3600)) };
    assert_eq!(told(&mirror.follow(&[change(found(&old, 3))], NOW)), []);
    let fresh = Record { value: None, ..record(Key::Vni(8), OTHER, NOW) };
    assert_eq!(told(&mirror.follow(&[change(found(&fresh, 4))], NOW)), [Key::Vni(8)]);
}

#[test]
fn endpoints_are_taken_in_for_as_long_as_their_network_is_subscribed_to() {
    let mut mirror = mirror();
    let layout = Layout::new("/p/".to_owned(), ME);
    let range = layout.endpoints(NETWORK);
    let theirs = record(Key::Endpoint(NETWORK, Mac([2; 6])), OTHER, NOW);
    let mine = record(Key::Endpoint(NETWORK, Mac([4; 6])), ME, NOW);
    assert_eq!(told(&mirror.follow(&[change(found(&theirs, 3))], NOW)), []);
    let subscription = record(Key::Subscription(NETWORK, ME), ME, NOW);
    mirror.publish(subscription.clone());
    assert_eq!((mirror.turned(), mirror.turned()), (vec![(NETWORK, true)], vec![]));
    mirror.publish(mine.clone());
    let batch = mirror.batch(LEASES);
    assert_eq!(batch.len(), 2);
    mirror.wrote(batch, LEASES, 4);
    let all = [found(&theirs, 3), found(&mine, 4)];
    assert_eq!(told(&mirror.page(&range, &all, (true, true), NOW)), std::slice::from_ref(&theirs.key));
    assert_eq!(mirror.get(&theirs.key), Some(&theirs));

    let over = Record { value: None, ..record(subscription.key, ME, NOW + Duration::from_secs(1)) };
    mirror.publish(over);
    assert_eq!((mirror.turned(), mirror.turned()), (vec![(NETWORK, false)], vec![]));
    let batch = mirror.batch(LEASES);
    mirror.wrote(batch, LEASES, 5);
    assert_eq!((mirror.get(&theirs.key), mirror.ledger.find(&mine.key)), (None, Some(&mine)));
    // Changes that were on their way are late.
    assert_eq!(told(&mirror.follow(&[change(found(&theirs, 5))], NOW)), []);
    // Its own are taken back all the same, and nothing is left of them.
    let gone = Record { value: None, ..record(mine.key.clone(), ME, NOW + Duration::from_secs(1)) };
    mirror.publish(gone);
    let batch = mirror.batch(LEASES);
    mirror.missed(&batch, &[found(&mine, 4)], NOW);
    let batch = mirror.batch(LEASES);
    assert_eq!(mirror.conditions(&batch)[0].mod_revision, 4);
    mirror.wrote(batch, LEASES, 6);
    assert!(mirror.is_settled() && mirror.stored.get(&mine.key).is_none());
}

#[test]
fn what_an_etcd_has_lost_is_written_again() {
    let mut mirror = mirror();
    let layout = Layout::new("/p/".to_owned(), ME);
    let [_, _, records, ..] = layout.global();
    let theirs = record(Key::Vni(7), OTHER, NOW);
    let host = record(Key::Host(OTHER), OTHER, NOW);
    let events = mirror.page(&records, &[found(&theirs, 30), found(&host, 31)], (true, true), NOW);
    assert!(matches!(events.last(), Some(Event::Host(OTHER, Presence::Up))));
    // Set back to an older record, then without any.
    let older = Record { version: Version::at(NOW - Duration::from_secs(9)), ..theirs.clone() };
    mirror.page(&records, &[found(&older, 3)], (true, true), NOW);
    let batch = mirror.batch(LEASES);
    assert_eq!((batch.len(), &*batch[0], mirror.conditions(&batch)[0].mod_revision), (1, &theirs, 3));
    mirror.wrote(batch, LEASES, 4);
    let events = mirror.page(&records, &[], (true, true), NOW);
    assert!(told(&events).is_empty());
    let batch = mirror.batch(LEASES);
    assert_eq!((batch.len(), mirror.conditions(&batch)[0].mod_revision), (1, 0));
}

#[test]
fn what_an_earlier_start_has_left_goes_with_the_lease_of_this_one() {
    let mut mirror = mirror();
    let subscription = record(Key::Subscription(NETWORK, ME), ME, NOW);
    assert_eq!(told(&mirror.follow(&[change(found(&subscription, 3))], NOW)), [subscription.key]);
    assert_eq!(mirror.turned(), [(NETWORK, true)]);
    let batch = mirror.batch(LEASES);
    assert_eq!((batch.len(), mirror.conditions(&batch)[0].mod_revision), (1, 3));
    mirror.wrote(batch, LEASES, 4);
    assert!(mirror.is_settled());
    // Nobody subscribes for somebody else.
    let foreign = Record { value: None, ..record(Key::Subscription(NETWORK, ME), OTHER, NOW * 2) };
    mirror.follow(&[change(found(&foreign, 5))], NOW * 2);
    assert_eq!(mirror.turned(), []);
}

#[test]
fn what_goes_with_the_lease_of_another_host_is_written_by_nobody_else() {
    let mut mirror = mirror();
    mirror.publish(record(Key::Host(OTHER), OTHER, NOW));
    assert!(mirror.is_settled(), "a host that is gone would be there for ever");
    mirror.publish(record(Key::Host(ME), ME, NOW));
    mirror.publish(record(Key::Vni(7), OTHER, NOW));
    let written: Vec<Key> = mirror.batch(LEASES).iter().map(|record| record.key.clone()).collect();
    assert_eq!(written, [Key::Host(ME), Key::Vni(7)]);
}

#[test]
fn what_goes_with_a_lease_is_written_again_with_a_new_one_of_its_number() {
    let mut mirror = mirror();
    mirror.publish(record(Key::Host(ME), ME, NOW));
    let written = mirror.batch(LEASES);
    mirror.wrote(written, LEASES, 3);
    mirror.publish_again();
    let again: Vec<Key> = mirror.batch(LEASES).iter().map(|record| record.key.clone()).collect();
    assert_eq!(again, [Key::Host(ME)], "it went with the old lease");
}
