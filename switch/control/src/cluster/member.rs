//! A host's part in its cluster: all that was said, and its own word on the way out.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vswitch_cluster::Options;
use vswitch_cluster::id::Id;
use vswitch_cluster::ledger::Ledger;
use vswitch_cluster::record::{Clock, Host, HostId, Key, Record, Value};
use vswitch_cluster::view::{Ask, View};
use vswitch_sys::wallclock;

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
    /// Networks that this host has said to have endpoints on.
    subscribed: BTreeSet<Id>,
    /// Networks, by their identifiers, of which something has changed since the datapath was told.
    pub(crate) touched: BTreeSet<Id>,
    /// Whether a network has come, gone or changed.
    pub(crate) networks_touched: bool,
    /// Complaints made so far, so that each is made once.
    complaints: BTreeSet<String>,
}

impl Cluster {
    /// A host that knows what it has written down.
    pub fn new<'a>(
        me: HostId,
        options: &Options,
        view: View,
        said: impl Iterator<Item = &'a Record>,
    ) -> Self {
        let mut cluster = Self {
            me,
            host: options.host.clone(),
            name: options.name.clone(),
            vtep: options.vtep,
            view,
            known: Ledger::default(),
            up: BTreeSet::new(),
            wanted: None,
            clock: Clock::default(),
            outbox: Vec::new(),
            subscribed: BTreeSet::new(),
            touched: BTreeSet::new(),
            networks_touched: true,
            complaints: BTreeSet::new(),
        };
        for record in said {
            cluster.take_in(record.clone());
            cluster.outbox.push(record.clone());
        }
        cluster
    }

    /// Merges a record; says whether it was news. What another host says of a network that this one has no
    /// endpoints on is none.
    pub(crate) fn take_in(&mut self, record: Record) -> bool {
        self.clock.see(record.version);
        if let Key::Endpoint(network, _) = record.key
            && record.host != self.me
            && !self.subscribed.contains(&network)
        {
            return false;
        }
        let (network, key) = (record.key.network(), record.key.clone());
        if !self.known.merge(record) {
            return false;
        }
        self.touched.extend(network);
        if let Key::Subscription(network, host) = key
            && host == self.me
        {
            match self.known.get(&key) {
                Some(_) => self.subscribed.insert(network),
                None => self.subscribed.remove(&network),
            };
        }
        if let Key::Host(host) = key {
            let subscribed = self.known.iter().filter_map(|record| match record.key {
                Key::Subscription(network, of) if of == host => Some(network),
                _ => None,
            });
            self.touched.extend(subscribed);
        }
        self.networks_touched |= matches!(key, Key::Network(_) | Key::Vni(_));
        true
    }

    /// A new record of this host's, as it would be said now.
    pub fn draft(&mut self, key: Key, value: Option<Value>) -> Record {
        let version = self.clock.next(wallclock::since_epoch());
        Record { key, version, host: self.me, value }
    }

    /// Networks that this host has said to have endpoints on.
    pub(crate) fn subscribed(&self) -> impl Iterator<Item = Id> {
        self.subscribed.iter().copied()
    }

    /// The address that the tunnels of a host end at, if it is known.
    pub(crate) fn vtep_of(&self, host: HostId) -> Option<IpAddr> {
        match self.known.get(&Key::Host(host)).and_then(|record| record.value.as_ref()) {
            Some(Value::Host(host)) => Some(host.vtep),
            _ => None,
        }
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
        if self.complaints.insert(line.clone()) {
            tracing::warn!("{line}");
        }
    }
}
