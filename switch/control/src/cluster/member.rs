//! A host's part in its cluster: all that was said, and its own word on the way out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use vswitch_cluster::Options;
use vswitch_cluster::id::Id;
use vswitch_cluster::ledger::{Ledger, TOMBSTONE_AGE};
use vswitch_cluster::record::{Clock, Endpoint, Host, HostId, Key, Record, Value};
use vswitch_cluster::view::{Ask, View};
use vswitch_frame::{Instant, Mac};
use vswitch_sys::wallclock;

use crate::cluster::index::{Index, Touched};

/// Complaints that are remembered so that each is made once; past that many they may be made again.
const COMPLAINTS_MAX: usize = 1000;

/// This host in its cluster.
#[derive(Debug)]
pub struct Cluster {
    /// This host.
    pub me: HostId,
    /// Its name, for people.
    pub host: String,
    /// The cluster's name.
    pub name: String,
    /// The address that this host's tunnels end at.
    pub vtep: IpAddr,
    /// The source.
    pub view: View,
    /// Records that were said, by any host.
    pub known: Ledger,
    /// Hosts that can be reached, but for this one.
    pub up: BTreeSet<HostId>,
    /// The request to the host that must give something before the job that was refused can succeed.
    pub wanted: Option<Ask>,
    pub(crate) clock: Clock,
    /// Records that are to go out when they are written down.
    pub(crate) outbox: Vec<Record>,
    /// Everything that follows from records.
    pub(crate) index: Index,
    /// Everything that has changed since the datapath was told.
    pub(crate) touched: Touched,
    /// Facts that the datapath had no room for, by network: told when there may be some.
    pub(crate) late: BTreeMap<Id, BTreeSet<Late>>,
    /// Networks that are made on this host, by their identifiers.
    pub(crate) here: BTreeMap<Id, String>,
    /// Networks that are made here for a container that waits for addresses of another host.
    pub(crate) awaited: BTreeSet<Id>,
    /// Networks that have gone while this host owns addresses of them, and since when.
    pub(crate) orphans: BTreeMap<Id, Instant>,
    /// Endpoints of this host whose addresses another host's have, too, one line for each, by network.
    pub(crate) problems: BTreeMap<Id, Vec<String>>,
    /// The number of changes of what clients are shown without a job: networks, and their problems.
    pub(crate) changes: u64,
    /// Complaints made so far, so that each is made once.
    complaints: BTreeSet<String>,
}

/// A thing of a network that the datapath was not told, for it had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Late {
    /// A peer.
    Peer(IpAddr),
    /// An endpoint.
    Endpoint(Mac),
}

impl Cluster {
    /// A host that knows what it has written down.
    pub fn new<'a>(
        me: HostId,
        options: &Options,
        view: View,
        said: impl Iterator<Item = &'a Record>,
    ) -> Self {
        let mut cluster = Self::blank(me, options.host.clone(), options.name.clone(), options.vtep, view);
        for record in said {
            cluster.take_in(record.clone());
            cluster.outbox.push(record.clone());
        }
        cluster
    }

    /// A host that knows nothing.
    fn blank(me: HostId, host: String, name: String, vtep: IpAddr, view: View) -> Self {
        Self {
            me,
            host,
            name,
            vtep,
            view,
            known: Ledger::of(me),
            up: BTreeSet::new(),
            wanted: None,
            clock: Clock::default(),
            outbox: Vec::new(),
            index: Index::new(me),
            touched: Touched::default(),
            late: BTreeMap::new(),
            here: BTreeMap::new(),
            awaited: BTreeSet::new(),
            orphans: BTreeMap::new(),
            problems: BTreeMap::new(),
            changes: 0,
            complaints: BTreeSet::new(),
        }
    }

    /// Merges a record; says whether it was news. What another host says of endpoints on a network that this
    /// one has none on is none.
    pub(crate) fn take_in(&mut self, record: impl Into<Arc<Record>>) -> bool {
        let record = record.into();
        if let Key::Endpoint(network, _) = record.key
            && record.host != self.me
            && !self.here.contains_key(&network)
        {
            return false;
        }
        let (version, key, before) =
            (record.version, record.key.clone(), self.known.share(&record.key).cloned());
        let is_news = match record.host == self.me {
            true => self.known.say(record),
            false => self.known.merge(record, wallclock::since_epoch()).is_news(),
        };
        if !is_news {
            return false;
        }
        self.clock.see(version);
        self.follow(&key, before.as_deref());
        true
    }

    /// Follows a change of a key, of which this was known before.
    fn follow(&mut self, key: &Key, before: Option<&Record>) {
        self.changes += u64::from(matches!(key, Key::Network(_)));
        self.index.follow(before, self.known.find(key), &mut self.touched);
    }

    /// As much of it as those see who only look on: the networks there are, and their problems.
    pub(crate) fn onlooker(&self) -> Self {
        let (host, name) = (self.host.clone(), self.name.clone());
        let mut seen = Self::blank(self.me, host, name, self.vtep, self.view.clone());
        (seen.here, seen.problems) = (self.here.clone(), self.problems.clone());
        for (name, _) in self.index.networks() {
            let key = Key::Network(name.to_owned());
            if let Some(record) = self.known.share(&key) {
                seen.known.say(record.clone());
                seen.follow(&key, None);
            }
        }
        seen.changes = self.changes;
        seen
    }

    /// Puts back what was known of a key before something was drafted that nobody else was told.
    pub(crate) fn put_back(&mut self, key: &Key, record: Option<Record>) {
        let drafted = self.known.share(key).cloned();
        self.known.put_back(key, record);
        self.follow(key, drafted.as_deref());
    }

    /// An endpoint, unless its host was given up.
    pub(crate) fn endpoint(&self, network: Id, mac: Mac) -> Option<(&Record, &Endpoint)> {
        let record = self.known.get(&Key::Endpoint(network, mac))?;
        match &record.value {
            Some(Value::Endpoint(endpoint)) if self.index.is_host(record.host) => Some((record, endpoint)),
            _ => None,
        }
    }

    /// The endpoints, on networks here, of hosts that were given up, if this host is the one to say that they
    /// are gone: the first of those on a network that can be reached. Who gave a host up may be on none.
    pub(crate) fn take_forgotten(&mut self) -> Vec<Key> {
        let mut gone = Vec::new();
        for host in std::mem::take(&mut self.touched.hosts) {
            if self.index.is_host(host) {
                continue;
            }
            for (network, mac) in self.index.all_endpoints(host) {
                let mut others = self.known.subscribers(network).filter(|host| self.up.contains(host));
                if others.all(|other| other > self.me) {
                    gone.push(Key::Endpoint(network, mac));
                }
            }
        }
        gone
    }

    /// Ranges of addresses, said by this host, of networks that have been gone for as long as a tombstone
    /// stays.
    pub(crate) fn take_orphans(&mut self, now: Instant) -> Vec<Key> {
        let said = self.index.spaces_said();
        let is_known = |network: &Id| self.index.name(*network).is_some() || self.here.contains_key(network);
        self.orphans.retain(|network, _| said.contains_key(network) && !is_known(network));
        let mut over = Vec::new();
        for (network, ranges) in said.into_iter().filter(|(network, _)| !is_known(network)) {
            let since = *self.orphans.entry(network).or_insert(now);
            if now.since(since) >= TOMBSTONE_AGE {
                over.extend(ranges.into_iter().map(|first| Key::Space(network, first)));
            }
        }
        over
    }

    /// Forgets what others say of the endpoints of a network.
    pub(crate) fn forget_endpoints(&mut self, network: Id) {
        let others = self.known.endpoints(network).filter(|record| record.host != self.me);
        let others: Vec<Record> = others.cloned().collect();
        for record in &others {
            self.index.follow(Some(record), None, &mut self.touched);
        }
        self.known.forget_endpoints(network);
    }

    /// A host can be reached, or no longer: then names of its endpoints are answered or no longer.
    pub(crate) fn follow_presence(&mut self, host: HostId, is_up: bool) {
        let changed = if is_up { self.up.insert(host) } else { self.up.remove(&host) };
        if !changed {
            return;
        }
        for network in self.index.subscriptions(host).filter(|network| self.here.contains_key(network)) {
            let endpoints = self.index.endpoints(host, network);
            self.touched.endpoints.extend(endpoints.map(|mac| (network, mac)));
        }
    }

    /// A network is made on this host: all that is known of it is to be told.
    pub(crate) fn touch(&mut self, network: Id) {
        self.touched.peers.extend(self.index.peers(network).map(|vtep| (network, vtep)));
        let endpoints = self.known.endpoints(network).filter_map(|record| {
            if let Key::Endpoint(_, mac) = record.key { Some((network, mac)) } else { None }
        });
        self.touched.endpoints.extend(endpoints);
        self.touched.spaces.insert(network);
    }

    /// A new record of this host's, as it would be said now.
    pub fn draft(&mut self, key: Key, value: Option<Value>) -> Record {
        let version = self.clock.next(wallclock::since_epoch());
        Record { key, version, host: self.me, value }
    }

    /// The addresses at which the tunnels of the other hosts end.
    pub fn other_hosts(&self) -> Vec<IpAddr> {
        let others = self.known.iter().filter(|record| record.host != self.me);
        let vtep = |record: &Record| match &record.value {
            Some(Value::Host(host)) => Some(host.vtep),
            _ => None,
        };
        others.filter_map(vtep).collect()
    }

    /// Whether a record is to be written down.
    pub(crate) fn is_kept(&self, record: &Record) -> bool {
        match &record.value {
            None => false,
            Some(Value::Space(space)) => record.host == self.me || space.owner == Some(self.me),
            Some(Value::Host(_) | Value::Network(_) | Value::Vni { .. }) => true,
            Some(Value::Subscription(_) | Value::Endpoint(_) | Value::Other(_)) => record.host == self.me,
        }
    }

    /// Sends the records of the outbox, now that they are written down.
    pub fn send(&mut self) {
        self.view.publish(std::mem::take(&mut self.outbox));
    }

    /// The name of a host, for people.
    pub fn name_of(&self, host: HostId) -> String {
        match self.known.get(&Key::Host(host)).and_then(|record| record.value.as_ref()) {
            Some(Value::Host(Host { name, .. })) => name.clone(),
            _ => host.short(),
        }
    }

    /// Says something in the log, once.
    pub(crate) fn complain(&mut self, line: String) {
        if self.complaints.len() >= COMPLAINTS_MAX {
            self.complaints.clear();
        }
        if self.complaints.insert(line.clone()) {
            tracing::warn!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vswitch_cluster::record::{Space, Value};

    use super::*;
    use crate::cluster::fixtures::*;

    #[test]
    fn whose_addresses_are_is_kept_for_as_long_as_a_removed_network_may_come_back() {
        let mut cluster = cluster();
        let space = |owner| Some(Value::Space(Space { last: IpAddr::from([10, 0, 0, 255]), owner }));
        let key = |last| Key::Space(NETWORK, IpAddr::from([10, 0, 0, last]));
        cluster.take_in(said(key(0), OTHER, 1, space(Some(ME))));
        cluster.take_in(said(key(1), OTHER, 1, space(Some(OTHER))));
        cluster.take_in(said(key(2), ME, 1, space(None)));
        cluster.take_in(said(key(3), OTHER, 1, space(None)));
        let at = |age: Duration| Instant::ZERO + age;
        let hour = Duration::from_secs(3600);
        assert_eq!(cluster.take_orphans(at(hour)), [], "it is here");
        cluster.here.clear();
        assert_eq!(cluster.take_orphans(at(2 * hour)), []);
        assert_eq!(cluster.take_orphans(at(hour + TOMBSTONE_AGE)), [], "an hour is left");
        cluster.here.insert(NETWORK, "wide".to_owned());
        assert_eq!(cluster.take_orphans(at(2 * hour + TOMBSTONE_AGE)), [], "it is back");
        cluster.here.clear();
        assert_eq!(cluster.take_orphans(at(3 * hour + TOMBSTONE_AGE)), [], "and gone again");
        assert_eq!(cluster.take_orphans(at(3 * hour + 2 * TOMBSTONE_AGE)), [key(0), key(2)]);
    }

    #[test]
    fn endpoints_of_a_host_that_was_given_up_are_taken_back_by_the_first_who_knows_them() {
        let mut cluster = cluster();
        let theirs = endpoint(OTHER, 2, 2, 1);
        cluster.take_in(theirs.clone());
        cluster.take_in(gone(is_at(OTHER, vtep(OTHER), 1), 2));
        cluster.take_in(gone(subscribes(OTHER, NETWORK), 2));
        assert_eq!(cluster.endpoint(NETWORK, mac(2)).map(|(record, _)| record.host), None);
        let before = HostId::new([0; 16]);
        for record in [is_at(before, vtep(OTHER), 1), subscribes(before, NETWORK)] {
            cluster.take_in(record);
        }
        cluster.follow_presence(before, true);
        assert_eq!(cluster.take_forgotten(), [], "another host does");
        cluster.touched.hosts.insert(OTHER);
        cluster.follow_presence(before, false);
        assert_eq!(cluster.take_forgotten(), [theirs.key]);
        assert_eq!(cluster.take_forgotten(), []);
    }
}
