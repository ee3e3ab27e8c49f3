//! All records that are known: of each key the newest.
//!
//! Tombstones stay, or a record that was late would bring back what is gone. Who has been away for longer
//! than [`TOMBSTONE_AGE`] may bring something back; its writer, which knows better, then removes it again. A
//! tombstone's age follows from its version, so all hosts forget it at about the same time.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vswitch_frame::Mac;

use super::id::Id;
use super::record::{HostId, Key, Record, Version};

/// The time that a tombstone stays.
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The most records that are kept; at the limit new ones are not taken in, and said so in the log.
pub const RECORDS_MAX: usize = 200_000;

/// The knowledge of one side in few bytes: the version of each key.
pub type Digest = Vec<(Key, Version, HostId)>;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    records: BTreeMap<Key, Record>,
    /// The sum of the records' marks, so that two sides see in one look whether they agree.
    mark: u64,
}

/// The difference between one side's records and another side's digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Records that the other side does not know.
    pub newer: Vec<Record>,
    /// Keys of records that only the other side knows.
    pub wanted: Vec<Key>,
}

impl Ledger {
    /// Takes a record in; says whether it was news.
    pub fn merge(&mut self, record: Record) -> bool {
        let known = self.records.get(&record.key);
        if known.is_some_and(|known| known.rank() >= record.rank()) {
            return false;
        }
        if known.is_none() && self.records.len() >= RECORDS_MAX {
            tracing::warn!(key = %record.key, "not taken in: {RECORDS_MAX} records is the most there can be");
            return false;
        }
        self.mark = self.mark.wrapping_sub(known.map_or(0, mark)).wrapping_add(mark(&record));
        self.records.insert(record.key.clone(), record);
        true
    }

    /// A record that is not a tombstone.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key).filter(|record| record.value.is_some())
    }

    /// A record or a tombstone.
    pub fn find(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// Every record and every tombstone, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The ranges of a network's addresses, by its identifier; tombstones, too.
    pub fn spaces(&self, network: Id) -> impl Iterator<Item = &Record> {
        let first = Key::Space(network, Ipv4Addr::UNSPECIFIED.into());
        self.of_network(first, network).take_while(|record| matches!(record.key, Key::Space(..)))
    }

    /// The subscriptions to a network, by its identifier; tombstones, too.
    pub fn subscriptions(&self, network: Id) -> impl Iterator<Item = &Record> {
        let first = Key::Subscription(network, HostId::new([0; 16]));
        self.of_network(first, network).take_while(|record| matches!(record.key, Key::Subscription(..)))
    }

    /// The endpoints of a network, by its identifier; tombstones, too.
    pub fn endpoints(&self, network: Id) -> impl Iterator<Item = &Record> {
        let first = Key::Endpoint(network, Mac::default());
        self.of_network(first, network).take_while(|record| matches!(record.key, Key::Endpoint(..)))
    }

    /// Forgets the endpoints of a network, tombstones, too, but for those that a host wrote.
    pub fn forget_endpoints(&mut self, network: Id, but: HostId) {
        let others = self.endpoints(network).filter(|record| record.host != but);
        for key in others.map(|record| record.key.clone()).collect::<Vec<_>>() {
            let forgotten = self.records.remove(&key);
            self.mark = self.mark.wrapping_sub(forgotten.as_ref().map_or(0, mark));
        }
    }

    fn of_network(&self, first: Key, network: Id) -> impl Iterator<Item = &Record> {
        let records = self.records.range(first..).map(|(_, record)| record);
        records.take_while(move |record| record.key.network() == Some(network))
    }

    /// The newest version.
    pub fn newest(&self) -> Version {
        self.records.values().map(|record| record.version).max().unwrap_or_default()
    }

    /// The sum of the records' marks: alike for two sides that know the same, and hardly ever otherwise.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// The records that are known, in few bytes.
    pub fn digest(&self) -> Digest {
        self.records.values().map(|record| (record.key.clone(), record.version, record.host)).collect()
    }

    /// The difference between this side and one with that digest.
    pub fn compare(&self, digest: &Digest) -> Difference {
        let other: BTreeMap<&Key, (Version, HostId)> =
            digest.iter().map(|(key, version, host)| (key, (*version, *host))).collect();
        let is_newer = |record: &&Record| other.get(&record.key).is_none_or(|rank| *rank < record.rank());
        let is_older = |key: &Key, rank: (Version, HostId)| {
            self.records.get(key).is_none_or(|record| record.rank() < rank)
        };
        Difference {
            newer: self.records.values().filter(is_newer).cloned().collect(),
            wanted: other
                .iter()
                .filter(|(key, rank)| is_older(key, **rank))
                .map(|(key, _)| (*key).clone())
                .collect(),
        }
    }

    /// Forgets tombstones that are old enough at this time of day.
    pub fn sweep(&mut self, since_epoch: Duration) {
        let old = Version::at(since_epoch.saturating_sub(TOMBSTONE_AGE));
        let Self { records, mark: sum } = self;
        records.retain(|_, record| {
            let stays = record.value.is_some() || record.version > old;
            if !stays {
                *sum = sum.wrapping_sub(mark(record));
            }
            stays
        });
    }
}

/// A number that is another one for every other record: FNV-1a over its key and rank.
fn mark(record: &Record) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn write(&mut self, bytes: &[u8]) {
            let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            self.0 = bytes.iter().fold(self.0, step);
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    format!("{} {} {}", record.key, record.version.0, record.host).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::super::record::Value;
    use super::*;

    fn record(key: u32, version: u64, host: u8, gone: bool) -> Record {
        // A writer says one thing under one version.
        let value = (!gone).then(|| Value::Vni { network: format!("{version}-{host}") });
        Record { key: Key::Vni(key), version: Version(version), host: HostId::new([host; 16]), value }
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let one = (0..6u32, 1..8u64, 0..3u8).prop_map(|(key, version, host)| {
            record(key, version, host, (version + u64::from(host)) % 3 == 0)
        });
        prop::collection::vec(one, 0..40)
    }

    fn of(records: &[Record]) -> Ledger {
        let mut ledger = Ledger::default();
        for record in records {
            ledger.merge(record.clone());
        }
        ledger
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
            prop_assert_eq!(&one.records, &other.records);
            prop_assert_eq!(one.mark(), other.mark());
            for record in one.iter() {
                let newest = records.iter().filter(|other| other.key == record.key).map(Record::rank).max();
                prop_assert_eq!(Some(record.rank()), newest);
            }
        }

        #[test]
        fn two_sides_that_exchanged_their_differences_agree(one in records(), other in records()) {
            let (mut one, mut other) = (of(&one), of(&other));
            let agreed = one.records == other.records;
            prop_assert_eq!(one.mark() == other.mark(), agreed);
            let difference = other.compare(&one.digest());
            for key in &difference.wanted {
                other.merge(one.find(key).expect("it has what is wanted").clone());
            }
            difference.newer.into_iter().for_each(|record| assert!(one.merge(record)));
            prop_assert_eq!(&one.records, &other.records);
            prop_assert_eq!(one.mark(), other.mark());
        }
    }

    #[test]
    fn old_tombstones_are_forgotten() {
        let at = |ms: u64| ms << 16;
        let mut ledger =
            of(&[record(1, at(5), 0, true), record(2, at(5), 0, false), record(3, at(9), 0, true)]);
        ledger.sweep(TOMBSTONE_AGE + Duration::from_millis(7));
        let left: Vec<Key> = ledger.iter().map(|record| record.key.clone()).collect();
        assert_eq!(left, [Key::Vni(2), Key::Vni(3)]);
        assert_eq!(ledger.mark(), of(&[record(2, at(5), 0, false), record(3, at(9), 0, true)]).mark());
        assert_eq!((ledger.get(&Key::Vni(3)), ledger.find(&Key::Vni(3)).is_some()), (None, true));
    }
}
