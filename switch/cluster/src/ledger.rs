//! All records that are known: of each key the newest.
//!
//! # Theory of operation
//! Records are kept by [`Scope`], and there by the [position](super::record::Key::position) of their keys. A
//! sum for each scope says in one look whether two hosts know the same; sums of ranges of positions say where
//! they do not, so that comparing costs what differs. Two keys of one position, should there ever be any, are
//! taken for one, of which the newer record stays, on every host.
//!
//! Records are shared: two ledgers of one process that know the same have it once.
//!
//! **Tombstones** stay, or a record that was late would bring back what is gone. Those that are older than
//! [`TOMBSTONE_AGE`] are forgotten and never taken in again, all of [`TOMBSTONE_STEP`] at once: so hosts
//! whose clocks differ by a little disagree for that little only. Who has been away for longer may bring
//! something back; its writer, which knows better, then removes it again.
//!
//! **Outsiders** may say what they like: a version that is ahead of its time is not believed
//! ([`Version::is_ahead`]), and there is a limit to the records of each kind, of which one writer gets half
//! of what the others leave ([`shares`]). What this host says itself is always taken.

pub mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::id::Id;
use super::record::{HostId, Key, Record, Scope, Version};
use shares::{Grave, Shares};

/// The time that a tombstone stays.
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The time between two moments at which tombstones are forgotten, the same ones on every host.
pub const TOMBSTONE_STEP: Duration = Duration::from_secs(600);
/// Every position.
pub const EVERYWHERE: RangeInclusive<u64> = 0..=u64::MAX;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    me: Option<HostId>,
    parts: BTreeMap<Scope, Part>,
    /// The first addresses of ranges, by network; those with tombstones, too.
    spaces: BTreeMap<Id, BTreeSet<IpAddr>>,
    /// Hosts with a live subscription, by network.
    subscribers: BTreeMap<Id, BTreeSet<HostId>>,
    shares: Shares,
}

/// The records of one scope.
#[derive(Clone, Debug, Default)]
struct Part {
    records: BTreeMap<u64, Arc<Record>>,
    /// The sum of the records' marks.
    sum: u64,
}

/// The fate of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// It was news.
    News,
    /// It, or a newer one, was known.
    Known,
    /// It was not taken in.
    Refused(Refusal),
}

/// The reason that a record is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// Its version is ahead of its time.
    #[error("they are of a time that has not come: set that host's clock, or this one's")]
    Ahead,
    /// It is a tombstone that everybody has forgotten.
    #[error("they are tombstones that everybody has forgotten")]
    Old,
    /// There is no room for it.
    #[error("there are as many of their kind as there can be, or that host has half of what others leave")]
    Full,
}

impl Merge {
    /// Whether it was news.
    pub fn is_news(self) -> bool {
        self == Self::News
    }
}

/// The oldest version that a tombstone may have at this time of day.
pub fn oldest_tombstone(since_epoch: Duration) -> Version {
    let step = TOMBSTONE_STEP.as_secs();
    let begun = Duration::from_secs(since_epoch.as_secs() / step * step);
    Version::at(begun.saturating_sub(TOMBSTONE_AGE))
}

impl Ledger {
    /// The ledger of a host that knows nothing.
    pub fn of(me: HostId) -> Self {
        Self { me: Some(me), ..Self::default() }
    }

    /// Takes a record in that somebody else says.
    pub fn merge(&mut self, record: impl Into<Arc<Record>>, since_epoch: Duration) -> Merge {
        let record = record.into();
        let at = (record.key.scope(), record.key.position());
        let known = self.at(at);
        if known.is_some_and(|known| known.rank() >= record.rank()) {
            return Merge::Known;
        }
        if record.version.is_ahead(since_epoch) {
            return Merge::Refused(Refusal::Ahead);
        }
        if record.value.is_none() && record.version < oldest_tombstone(since_epoch) {
            let is_live = known.is_some_and(|known| known.value.is_some());
            if is_live {
                self.remove(at);
            }
            return if is_live { Merge::News } else { Merge::Refused(Refusal::Old) };
        }
        let newcomer = known.is_none_or(|known| known.host != record.host);
        if newcomer && !self.shares.has_room(&record) {
            // A tombstone is the least that can be lost, and the oldest of them first.
            let Some(grave) = self.shares.oldest_grave(&record).filter(|grave| grave.0 < record.version)
            else {
                return Merge::Refused(Refusal::Full);
            };
            self.remove((grave.1, grave.2));
        }
        self.insert(at, record);
        Merge::News
    }

    /// Takes in what this host says itself, whatever the limits; says whether it was news.
    pub fn say(&mut self, record: impl Into<Arc<Record>>) -> bool {
        let record = record.into();
        let at = (record.key.scope(), record.key.position());
        let is_news = self.at(at).is_none_or(|known| known.rank() < record.rank());
        if is_news {
            self.insert(at, record);
        }
        is_news
    }

    /// As [`say`](Self::say), and in place of what this host said before, whatever its version: that may be
    /// of a time at which its clock was ahead.
    pub fn restate(&mut self, record: impl Into<Arc<Record>>) -> bool {
        let record = record.into();
        let at = (record.key.scope(), record.key.position());
        let is_own =
            self.at(at).is_some_and(|known| known.host == record.host && known.rank() > record.rank());
        if is_own {
            self.insert(at, record);
            return true;
        }
        self.say(record)
    }

    /// Puts back what was known of a key before something was drafted that nobody else was told.
    pub fn put_back(&mut self, key: &Key, record: Option<impl Into<Arc<Record>>>) {
        let at = (key.scope(), key.position());
        self.remove(at);
        record.into_iter().for_each(|record| self.insert(at, record.into()));
    }

    /// A record that is not a tombstone.
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.find(key).filter(|record| record.value.is_some())
    }

    /// A record or a tombstone.
    pub fn find(&self, key: &Key) -> Option<&Record> {
        self.share(key).map(|record| &**record)
    }

    /// A record or a tombstone, to be shared.
    pub fn share(&self, key: &Key) -> Option<&Arc<Record>> {
        self.at((key.scope(), key.position())).filter(|record| record.key == *key)
    }

    /// The number of records and tombstones.
    pub fn len(&self) -> usize {
        self.parts.values().map(|part| part.records.len()).sum()
    }

    /// Whether it knows nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every record and every tombstone.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.parts.values().flat_map(|part| part.records.values()).map(|record| &**record)
    }

    /// Records and tombstones that every host knows: all but those of endpoints.
    pub fn global(&self) -> impl Iterator<Item = &Record> {
        self.within(Scope::Global, EVERYWHERE).map(|(_, record)| &**record)
    }

    /// Records and tombstones of a scope whose keys are within a range of positions, in the order of these.
    pub fn within(
        &self,
        scope: Scope,
        range: RangeInclusive<u64>,
    ) -> impl Iterator<Item = (u64, &Arc<Record>)> {
        let records = self.parts.get(&scope).map(|part| part.records.range(range));
        records.into_iter().flatten().map(|(position, record)| (*position, record))
    }

    /// The ranges of a network's addresses, by its identifier; tombstones, too.
    pub fn spaces(&self, network: Id) -> impl Iterator<Item = &Record> {
        let firsts = self.spaces.get(&network).into_iter().flatten();
        firsts.filter_map(move |first| self.find(&Key::Space(network, *first)))
    }

    /// The endpoints of a network, by its identifier; tombstones, too.
    pub fn endpoints(&self, network: Id) -> impl Iterator<Item = &Record> {
        self.within(Scope::Network(network), EVERYWHERE).map(|(_, record)| &**record)
    }

    /// The hosts that subscribe to a network, by its identifier.
    pub fn subscribers(&self, network: Id) -> impl Iterator<Item = HostId> {
        self.subscribers.get(&network).into_iter().flatten().copied()
    }

    /// Whether a host subscribes to a network.
    pub fn subscribes(&self, host: HostId, network: Id) -> bool {
        self.subscribers.get(&network).is_some_and(|hosts| hosts.contains(&host))
    }

    /// The sum of the marks of a scope's records: alike for two that know the same, and hardly ever
    /// otherwise.
    pub fn sum(&self, scope: Scope) -> u64 {
        self.parts.get(&scope).map_or(0, |part| part.sum)
    }

    /// Forgets the endpoints of a network, by its identifier, but for this host's own.
    pub fn forget_endpoints(&mut self, network: Id) {
        let scope = Scope::Network(network);
        let others = self.within(scope, EVERYWHERE).filter(|(_, record)| Some(record.host) != self.me);
        for position in others.map(|(position, _)| position).collect::<Vec<_>>() {
            self.remove((scope, position));
        }
    }

    /// Forgets tombstones that are old enough at this time of day.
    pub fn sweep(&mut self, since_epoch: Duration) {
        for Grave(_, scope, position) in self.shares.graves_before(oldest_tombstone(since_epoch)) {
            self.remove((scope, position));
        }
    }

    fn at(&self, (scope, position): (Scope, u64)) -> Option<&Arc<Record>> {
        self.parts.get(&scope)?.records.get(&position)
    }

    fn insert(&mut self, at: (Scope, u64), record: Arc<Record>) {
        self.remove(at);
        self.shares.enter(&record, at);
        match &record.key {
            Key::Space(network, first) => {
                self.spaces.entry(*network).or_default().insert(*first);
            }
            Key::Subscription(network, host) if record.value.is_some() => {
                self.subscribers.entry(*network).or_default().insert(*host);
            }
            Key::Subscription(..)
            | Key::Host(_)
            | Key::Network(_)
            | Key::Vni(_)
            | Key::Endpoint(..)
            | Key::Other(_) => {}
        }
        let part = self.parts.entry(at.0).or_default();
        part.sum = part.sum.wrapping_add(record.mark());
        part.records.insert(at.1, record);
    }

    fn remove(&mut self, at: (Scope, u64)) {
        let Some(part) = self.parts.get_mut(&at.0) else { return };
        let Some(record) = part.records.remove(&at.1) else { return };
        part.sum = part.sum.wrapping_sub(record.mark());
        if part.records.is_empty() {
            self.parts.remove(&at.0);
        }
        self.shares.leave(&record, at);
        match &record.key {
            Key::Space(network, first) => take_out(&mut self.spaces, *network, first),
            Key::Subscription(network, host) => take_out(&mut self.subscribers, *network, host),
            Key::Host(_) | Key::Network(_) | Key::Vni(_) | Key::Endpoint(..) | Key::Other(_) => {}
        }
    }
}

fn take_out<T: Ord>(index: &mut BTreeMap<Id, BTreeSet<T>>, network: Id, value: &T) {
    if let Some(values) = index.get_mut(&network) {
        values.remove(value);
        if values.is_empty() {
            index.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests;
