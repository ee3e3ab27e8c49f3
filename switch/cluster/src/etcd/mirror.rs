//! The records that etcd has, that this host wants it to have, and that control knows of. Pure.
//!
//! # Theory of operation
//! Each record is one key. etcd keeps of a key the newest record, since nobody writes but under the
//! condition that the key is as it was when it was compared: who loses a race compares again.
//!
//! * Live records of hosts and endpoints go with their host's lease. When they go, nothing is said about
//!   them: the host is down, and when it is back it writes them again.
//! * Tombstones are written, so that all hear which version they have, and go with a lease of their own,
//!   which lasts as long as any ledger remembers them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::record::{HostId, Key, Record, Version};
use super::super::view::{Event, Presence};
use super::wire::{self, Condition, KeyValue, LeaseId};

/// Keys that one transaction writes; etcd takes 128 unless it is told otherwise.
pub const BATCH: usize = 64;

/// A record with its key's state in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    record: Record,
    mod_revision: i64,
    lease: i64,
}

/// The leases that this host writes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leases {
    /// The lease of records that live as long as this host does.
    pub life: LeaseId,
    /// The lease of tombstones.
    pub graves: LeaseId,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Mirror {
    me: HostId,
    /// The beginning of all keys of records.
    prefix: String,
    entries: BTreeMap<Key, Entry>,
    /// The newest rank of each key that control has heard of, or has published.
    told: BTreeMap<Key, (Version, HostId)>,
    /// This host's live records that go with its lease.
    own: BTreeMap<Key, Record>,
    /// Records to be written.
    pending: BTreeMap<Key, Record>,
}

impl Mirror {
    /// The mirror of a host that knows nothing.
    pub fn new(me: HostId, prefix: String) -> Self {
        Self {
            me,
            prefix,
            entries: BTreeMap::new(),
            told: BTreeMap::new(),
            own: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Takes a record that control wants all to know.
    pub fn publish(&mut self, record: Record) {
        if self.told.get(&record.key).is_some_and(|rank| *rank > record.rank()) {
            return;
        }
        self.told.insert(record.key.clone(), record.rank());
        if is_leased(&record) {
            self.own.insert(record.key.clone(), record.clone());
        } else {
            self.own.remove(&record.key);
        }
        self.pending.insert(record.key.clone(), record);
    }

    /// Has everything that goes with the lease written again: there is a new one.
    pub fn publish_again(&mut self) {
        for (key, record) in &self.own {
            self.pending.entry(key.clone()).or_insert_with(|| record.clone());
        }
    }

    /// Has all written again that can be known to be missing in an etcd that has lost everything.
    pub fn restore(&mut self, lost: Vec<Record>) {
        for record in lost.into_iter().filter(|record| !is_leased(record)) {
            self.pending.entry(record.key.clone()).or_insert(record);
        }
        self.publish_again();
    }

    /// Records that are known to be live.
    pub fn live(&self) -> impl Iterator<Item = &Record> {
        self.entries.values().map(|entry| &entry.record).filter(|record| record.value.is_some())
    }

    /// The live record of a key.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.entries.get(key).map(|entry| &entry.record).filter(|record| record.value.is_some())
    }

    /// Whether there is nothing to write.
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// The next records to write with these leases, at most [`BATCH`].
    pub fn batch(&mut self, leases: Leases) -> Vec<Record> {
        let Self { pending, entries, .. } = self;
        pending.retain(|key, record| {
            entries.get(key).is_none_or(|entry| {
                let is_same = entry.record.rank() == record.rank()
                    && (record.value.is_none() || entry.lease == lease(record, leases));
                !is_same && entry.record.rank() <= record.rank()
            })
        });
        pending.values().take(BATCH).cloned().collect()
    }

    /// The conditions that the keys of these records are as they are known to be.
    pub fn conditions(&self, records: &[Record]) -> Vec<Condition> {
        let condition = |record: &Record| Condition {
            key: self.path(&record.key),
            mod_revision: self.entries.get(&record.key).map_or(0, |entry| entry.mod_revision),
        };
        records.iter().map(condition).collect()
    }

    /// The changes that write these records.
    pub fn changes(&self, records: &[Record], leases: Leases) -> Vec<wire::Change> {
        let put = |record: &Record| wire::Change::Put {
            key: self.path(&record.key),
            // The record was read from JSON or could be sent as such to a client.
            value: serde_json::to_vec(record).unwrap_or_default(),
            lease: Some(lease(record, leases)).filter(|lease| *lease != 0).map(LeaseId),
        };
        records.iter().map(put).collect()
    }

    /// Notes that these records were written, by this revision.
    pub fn wrote(&mut self, records: Vec<Record>, leases: Leases, mod_revision: i64) {
        for record in records {
            let key = record.key.clone();
            let rank = record.rank();
            if self.pending.get(&key).is_some_and(|pending| pending.rank() <= rank) {
                self.pending.remove(&key);
            }
            let known = self.told.entry(key.clone()).or_insert(rank);
            *known = rank.max(*known);
            if is_leased(&record) {
                self.own.insert(key.clone(), record.clone());
            }
            let lease = lease(&record, leases);
            if self.entries.get(&key).is_none_or(|entry| entry.mod_revision < mod_revision) {
                self.entries.insert(key, Entry { record, mod_revision, lease });
            }
        }
    }

    /// Notes that the conditions of these records do not hold: their keys are so.
    pub fn missed(&mut self, records: &[Record], now: &[KeyValue]) -> Vec<Event> {
        for record in records {
            let path = self.path(&record.key);
            if !now.iter().any(|found| found.key == path) {
                self.entries.remove(&record.key);
            }
        }
        let mut news = News::default();
        now.iter().for_each(|found| self.put(found, &mut news));
        news.into_events()
    }

    /// Takes in every key there is.
    pub fn snapshot(&mut self, all: &[KeyValue]) -> Vec<Event> {
        let there: BTreeSet<&str> = all.iter().map(|found| found.key.as_str()).collect();
        let gone: Vec<Key> =
            self.entries.keys().filter(|key| !there.contains(self.path(key).as_str())).cloned().collect();
        let mut news = News::default();
        // Revisions are another etcd's, perhaps.
        self.entries.values_mut().for_each(|entry| entry.mod_revision = 0);
        all.iter().for_each(|found| self.put(found, &mut news));
        gone.iter().for_each(|key| self.delete(key, &mut news));
        news.into_events()
    }

    /// Takes in changes.
    pub fn follow(&mut self, changes: &[wire::Event]) -> Vec<Event> {
        let mut news = News::default();
        for change in changes {
            if !change.is_delete() {
                self.put(&change.kv, &mut news);
            } else if let Some(key) = self.key(&change.kv.key) {
                let known = self.entries.get(&key);
                if known.is_some_and(|entry| entry.mod_revision < change.kv.mod_revision) {
                    self.delete(&key, &mut news);
                }
            }
        }
        news.into_events()
    }

    fn put(&mut self, found: &KeyValue, news: &mut News) {
        let Some(key) = self.key(&found.key) else { return };
        if self.entries.get(&key).is_some_and(|entry| entry.mod_revision >= found.mod_revision) {
            return;
        }
        let record = match serde_json::from_slice::<Record>(&found.value) {
            Ok(record) if record.key == key => record,
            Ok(_) => {
                return tracing::warn!("etcd has a record under another key than its own: {}", found.key);
            }
            Err(error) => return tracing::warn!("etcd has what is no record under {}: {error}", found.key),
        };
        let (rank, is_live) = (record.rank(), record.value.is_some());
        if self.told.get(&key).is_none_or(|told| *told < rank) {
            self.told.insert(key.clone(), rank);
            self.own.remove(&key);
            news.records.push(record.clone());
        }
        if let Key::Host(host) = key
            && host != self.me
        {
            let was_live = self.get(&key).is_some();
            match (was_live, is_live) {
                (false, true) => news.hosts.push((host, Presence::Up)),
                (true, false) => news.hosts.push((host, Presence::Down)),
                _ => {}
            }
        }
        let entry = Entry { record, mod_revision: found.mod_revision, lease: found.lease };
        self.entries.insert(key, entry);
    }

    fn delete(&mut self, key: &Key, news: &mut News) {
        let Some(entry) = self.entries.remove(key) else { return };
        if entry.record.value.is_none() {
            // No ledger remembers it any more.
            if self.told.get(key) == Some(&entry.record.rank()) {
                self.told.remove(key);
            }
            return;
        }
        if let Key::Host(host) = key
            && *host != self.me
        {
            news.hosts.push((*host, Presence::Down));
        }
        if let Some(record) = self.own.get(key) {
            // The lease ended, or somebody has removed it by hand.
            self.pending.entry(key.clone()).or_insert_with(|| record.clone());
        }
    }

    fn path(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    fn key(&self, path: &str) -> Option<Key> {
        path.strip_prefix(&self.prefix).map(|key| Key::from(key.to_owned()))
    }
}

/// News for control.
#[derive(Debug, Default)]
struct News {
    records: Vec<Record>,
    hosts: Vec<(HostId, Presence)>,
}

impl News {
    /// The events, records first: a host that is up is known then, and so is what it has.
    fn into_events(self) -> Vec<Event> {
        let records = self.records.into_iter().map(Arc::new).collect::<Vec<_>>();
        let records = (!records.is_empty()).then_some(Event::Records(records));
        let hosts = self.hosts.into_iter().map(|(host, presence)| Event::Host(host, presence));
        records.into_iter().chain(hosts).collect()
    }
}

/// Whether a record goes with its host.
fn is_leased(record: &Record) -> bool {
    match record.key {
        Key::Host(_) | Key::Subscription(..) | Key::Endpoint(..) => record.value.is_some(),
        Key::Network(_) | Key::Vni(_) | Key::Space(..) | Key::Other(_) => false,
    }
}

/// The lease that a record is written with; zero for none.
fn lease(record: &Record, leases: Leases) -> i64 {
    match record.value {
        None => leases.graves.0,
        Some(_) if is_leased(record) => leases.life.0,
        Some(_) => 0,
    }
}
