//! The records that etcd has, that this host wants it to have, and that control knows of. Pure.
//!
//! # Theory of operation
//! Each record is one key. etcd keeps of a key the newest record, since nobody writes but under the
//! condition that the key is as it was when it was compared: who loses a race compares again.
//!
//! * What others say goes through a [`Ledger`], which takes in what it may and keeps its limits; what it
//!   refuses is written over by who has something better to say of the key.
//! * Endpoints are known of the networks that this host subscribes to; its own of all.
//! * Records that an earlier start of this host has left are its own again, and go with its lease.
//! * Live records of hosts and endpoints go with their host's lease. When they go, nothing is said about
//!   them: the host is down, and when it is back it writes them again.
//! * Tombstones are written, so that all hear which version they have, and go with a lease of their own,
//!   which lasts as long as any ledger remembers them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::id::Id;
use super::super::ledger::{Ledger, Merge, Refusal};
use super::super::record::{HostId, Key, Record, Value, Version};
use super::super::view::{Event, Presence};
use super::layout::Layout;
use super::news::News;
use super::table::{Stored, Table};
use super::wire::{self, Condition, KeyRange, KeyValue, LeaseId};

/// Keys that one transaction writes; etcd takes 128 unless it is told otherwise.
pub(super) const BATCH: usize = 64;

/// The most bytes of a record that somebody else wrote.
const RECORD_BYTES_MAX: usize = 256 << 10;

/// The most complaints that are remembered, so as to be made once.
const COMPLAINTS_MAX: usize = 4_096;

/// The leases that this host writes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leases {
    /// The lease of records that live as long as this host does.
    pub(super) life: LeaseId,
    /// The lease of tombstones.
    pub(super) graves: LeaseId,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Mirror {
    me: HostId,
    layout: Layout,
    /// The newest record of each key that control has heard of, or has published.
    ledger: Ledger,
    stored: Table,
    /// Networks that this host subscribes to.
    networks: BTreeSet<Id>,
    /// Networks that it has subscribed to, or does no longer, since this was asked for.
    turned: Vec<(Id, bool)>,
    /// This host's live records that go with its lease.
    own: BTreeMap<Key, Arc<Record>>,
    /// Records to be written.
    pending: BTreeMap<Key, Arc<Record>>,
    /// The least version that was refused because it is ahead of its time.
    ahead: Option<Version>,
    complaints: BTreeSet<(HostId, Refusal)>,
}

/// The way by which a key has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It was there when its range was read.
    Read,
    /// It was changed.
    Changed,
    /// It is what stands against something that this host writes.
    Met,
}

impl Mirror {
    /// The mirror of a host that knows nothing.
    pub(super) fn new(me: HostId, layout: Layout) -> Self {
        Self {
            me,
            layout,
            ledger: Ledger::of(me),
            stored: Table::default(),
            networks: BTreeSet::new(),
            turned: Vec::new(),
            own: BTreeMap::new(),
            pending: BTreeMap::new(),
            ahead: None,
            complaints: BTreeSet::new(),
        }
    }

    /// Takes a record that control wants all to know.
    pub(super) fn publish(&mut self, record: Record) {
        let is_outranked = |known: &Record| known.rank() > record.rank() && known.host != record.host;
        if self.ledger.find(&record.key).is_some_and(is_outranked) {
            return;
        }
        if is_leased(&record) && record.host != self.me {
            // With our lease it would be there as long as we are, whether that host is or not.
            return;
        }
        self.heed(&record);
        let (key, record) = (record.key.clone(), Arc::new(record));
        self.ledger.restate(Arc::clone(&record));
        if is_leased(&record) {
            self.own.insert(key.clone(), Arc::clone(&record));
        } else {
            self.own.remove(&key);
        }
        self.pending.insert(key, record);
    }

    /// Takes in a network's endpoints if this host subscribes to it, and forgets those of other hosts if it
    /// does no longer.
    fn heed(&mut self, record: &Record) {
        let Key::Subscription(network, host) = record.key else { return };
        if (host, record.host) != (self.me, self.me) {
            return;
        }
        let is_wanted = record.value.is_some();
        let has_turned =
            if is_wanted { self.networks.insert(network) } else { self.networks.remove(&network) };
        if !is_wanted {
            self.stored.forget(network);
            self.ledger.forget_endpoints(network);
        }
        if has_turned {
            self.turned.push((network, is_wanted));
        }
    }

    /// The networks whose endpoints are to be followed, or no longer, since this was asked last.
    pub(super) fn turned(&mut self) -> Vec<(Id, bool)> {
        std::mem::take(&mut self.turned)
    }

    /// Has everything that goes with the lease written again: there is a new one, perhaps of the same number.
    pub(super) fn publish_again(&mut self) {
        for (key, record) in &self.own {
            if let Some(stored) = self.stored.get(key).copied() {
                self.stored.insert(key, Stored { lease: 0, ..stored });
            }
            self.pending.entry(key.clone()).or_insert_with(|| Arc::clone(record));
        }
    }

    /// The ranges of a network's addresses that etcd has.
    pub(super) fn spaces(&self, network: Id) -> impl Iterator<Item = &Record> {
        let live = self.ledger.spaces(network).filter(|record| record.value.is_some());
        live.filter(|record| self.is_there(&record.key))
    }

    /// The live record of a key, if etcd has it.
    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.ledger.get(key).filter(|record| self.is_there(&record.key))
    }

    fn is_there(&self, key: &Key) -> bool {
        self.stored.get(key).is_some_and(|stored| stored.is_live)
    }

    /// Whether there is nothing to write.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// The next records to write with these leases, at most [`BATCH`].
    pub(super) fn batch(&mut self, leases: Leases) -> Vec<Arc<Record>> {
        let Self { pending, stored, ledger, .. } = self;
        pending.retain(|key, record| {
            let is_outranked = ledger.find(key).is_some_and(|known| known.rank() > record.rank());
            let is_same = stored.get(key).is_some_and(|stored| {
                stored.mark == record.mark()
                    && (record.value.is_none() || stored.lease == lease(record, leases))
            });
            !is_outranked && !is_same
        });
        pending.values().take(BATCH).cloned().collect()
    }

    /// The conditions that the keys of these records are as they are known to be.
    pub(super) fn conditions(&self, records: &[Arc<Record>]) -> Vec<Condition> {
        let condition = |record: &Arc<Record>| Condition {
            key: self.layout.path(&record.key),
            mod_revision: self.stored.get(&record.key).map_or(0, |stored| stored.mod_revision),
        };
        records.iter().map(condition).collect()
    }

    /// The changes that write these records.
    pub(super) fn changes(&self, records: &[Arc<Record>], leases: Leases) -> Vec<wire::Change> {
        let put = |record: &Arc<Record>| wire::Change::Put {
            key: self.layout.path(&record.key),
            // The record was read from JSON or could be sent as such to a client.
            value: serde_json::to_vec(&**record).unwrap_or_default(),
            lease: Some(lease(record, leases)).filter(|lease| *lease != 0).map(LeaseId),
        };
        records.iter().map(put).collect()
    }

    /// Notes that these records were written, by this revision.
    pub(super) fn wrote(&mut self, records: Vec<Arc<Record>>, leases: Leases, mod_revision: i64) {
        for record in records {
            let key = &record.key;
            if self.pending.get(key).is_some_and(|pending| pending.rank() <= record.rank()) {
                self.pending.remove(key);
            }
            self.ledger.say(Arc::clone(&record));
            if is_leased(&record) {
                self.own.insert(key.clone(), Arc::clone(&record));
            }
            if !self.follows(key) {
                self.stored.remove(key);
            } else if self.stored.get(key).is_none_or(|stored| stored.mod_revision < mod_revision) {
                let (lease, mark) = (lease(&record, leases), record.mark());
                let stored = Stored { mod_revision, lease, mark, is_live: record.value.is_some() };
                self.stored.insert(key, stored);
            }
        }
    }

    /// Notes that the conditions of these records do not hold: their keys are so.
    pub(super) fn missed(&mut self, records: &[Arc<Record>], now: &[KeyValue], time: Duration) -> Vec<Event> {
        for record in records {
            let path = self.layout.path(&record.key);
            if !now.iter().any(|found| found.key == path) {
                self.stored.remove(&record.key);
            }
        }
        let mut news = News::default();
        now.iter().for_each(|found| self.put(found, Way::Met, time, &mut news));
        news.into_events()
    }

    /// Takes in a page of a range's keys, and what is gone after the last one.
    pub(super) fn page(
        &mut self,
        range: &KeyRange,
        found: &[KeyValue],
        (is_first, is_last): (bool, bool),
        time: Duration,
    ) -> Vec<Event> {
        let Self { layout, stored, .. } = self;
        let network = layout.network(range);
        let holds = |key: &Key| range.contains(&layout.path(key));
        if is_first {
            // Revisions are another etcd's, perhaps.
            stored.doubt(network, holds);
        }
        let mut news = News::default();
        found.iter().for_each(|found| self.put(found, Way::Read, time, &mut news));
        if is_last {
            let Self { layout, stored, .. } = self;
            for key in stored.doubted(network, |key| range.contains(&layout.path(key))) {
                self.delete(&key, &mut news);
                // An etcd that has lost everything is given again what is known.
                if let Some(record) = self.ledger.share(&key)
                    && record.value.is_some()
                    && !is_leased(record)
                {
                    self.pending.entry(key).or_insert_with(|| Arc::clone(record));
                }
            }
        }
        news.into_events()
    }

    /// Takes in changes.
    pub(super) fn follow(&mut self, changes: &[wire::Event], time: Duration) -> Vec<Event> {
        let mut news = News::default();
        for change in changes {
            if !change.is_delete() {
                self.put(&change.kv, Way::Changed, time, &mut news);
            } else if let Some(key) = self.layout.key(&change.kv.key) {
                let known = self.stored.get(&key);
                if known.is_some_and(|stored| stored.mod_revision < change.kv.mod_revision) {
                    self.delete(&key, &mut news);
                }
            }
        }
        news.into_events()
    }

    /// Forgets what is old at this time; says whether something is to be read again: its time has come.
    pub(super) fn sweep(&mut self, time: Duration) -> bool {
        self.ledger.sweep(time);
        self.ahead.take_if(|version| !version.is_ahead(time)).is_some()
    }

    /// Whether changes of a key are heard of.
    fn follows(&self, key: &Key) -> bool {
        if let Key::Endpoint(network, _) = key { self.networks.contains(network) } else { true }
    }

    fn put(&mut self, found: &KeyValue, way: Way, time: Duration, news: &mut News) {
        let Some(key) = self.layout.key(&found.key) else { return };
        if self.stored.get(&key).is_some_and(|stored| stored.mod_revision >= found.mod_revision) {
            return;
        }
        let is_wanted = way == Way::Met || self.pending.contains_key(&key) || self.own.contains_key(&key);
        if !is_wanted && !self.follows(&key) {
            return;
        }
        let record = self.take_in(&key, found, way, time, news);
        let is_live = record.as_ref().is_some_and(|record| record.value.is_some());
        let was_live = self.is_there(&key);
        if let Key::Host(host) = key
            && host != self.me
            && is_live != was_live
        {
            news.hosts.push((host, if is_live { Presence::Up } else { Presence::Down }));
        }
        if record.is_some() || is_wanted {
            let mark = record.map_or(0, |record| record.mark());
            let stored = Stored { mod_revision: found.mod_revision, lease: found.lease, mark, is_live };
            self.stored.insert(&key, stored);
        } else {
            self.stored.remove(&key);
        }
    }

    /// Takes in the record that a key has, unless it is none, or refused.
    fn take_in(
        &mut self,
        key: &Key,
        found: &KeyValue,
        way: Way,
        time: Duration,
        news: &mut News,
    ) -> Option<Arc<Record>> {
        if found.value.len() > RECORD_BYTES_MAX {
            tracing::warn!("etcd has more than {RECORD_BYTES_MAX} bytes under {}: not taken in", found.key);
            return None;
        }
        let record = match serde_json::from_slice::<Record>(&found.value) {
            Ok(record) if record.key == *key => Arc::new(record),
            Ok(_) => {
                tracing::warn!("etcd has a record under another key than its own: {}", found.key);
                return None;
            }
            Err(error) => {
                tracing::warn!("etcd has what is no record under {}: {error}", found.key);
                return None;
            }
        };
        match self.ledger.merge(Arc::clone(&record), time) {
            Merge::News => {
                self.own.remove(key);
                if record.host == self.me && is_leased(&record) {
                    // Of an earlier start; control takes back what is no longer so.
                    self.heed(&record);
                    self.own.insert(key.clone(), Arc::clone(&record));
                    self.pending.insert(key.clone(), Arc::clone(&record));
                }
                news.records.push(Arc::clone(&record));
            }
            Merge::Known => {
                // An etcd that was set back is given again what is known.
                let known = self.ledger.share(key).filter(|known| known.rank() > record.rank());
                if let Some(known) = known.filter(|known| way == Way::Read && !is_leased(known)) {
                    self.pending.entry(key.clone()).or_insert_with(|| Arc::clone(known));
                }
            }
            Merge::Refused(refusal) => {
                self.complain(&record, refusal);
                return None;
            }
        }
        Some(record)
    }

    /// Says once of each host that something it wrote is refused.
    fn complain(&mut self, record: &Record, refusal: Refusal) {
        match refusal {
            // Remains of hosts that have gone are nothing to be told.
            Refusal::Old => return,
            Refusal::Ahead => {
                self.ahead = Some(self.ahead.map_or(record.version, |least| least.min(record.version)));
            }
            Refusal::Full => {}
        }
        let host = record.host;
        if self.complaints.len() < COMPLAINTS_MAX && self.complaints.insert((host, refusal)) {
            let name = match self.ledger.get(&Key::Host(host)).and_then(|record| record.value.as_ref()) {
                Some(Value::Host(host)) => host.name.clone(),
                _ => host.short(),
            };
            tracing::warn!("records of host {name} are not taken in, as {}: {refusal}", record.key);
        }
    }

    fn delete(&mut self, key: &Key, news: &mut News) {
        let Some(stored) = self.stored.remove(key) else { return };
        if !stored.is_live {
            return;
        }
        if let Key::Host(host) = key
            && *host != self.me
        {
            news.hosts.push((*host, Presence::Down));
        }
        if let Some(record) = self.own.get(key) {
            // The lease ended, or somebody has removed it by hand.
            self.pending.entry(key.clone()).or_insert_with(|| Arc::clone(record));
        }
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

#[cfg(test)]
mod tests;
