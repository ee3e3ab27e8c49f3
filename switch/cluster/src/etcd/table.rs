//! The state of each record's key in etcd, as far as this host knows it. Pure.

use std::collections::BTreeMap;

use vswitch_frame::Mac;

use super::super::id::Id;
use super::super::record::Key;

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// The revision of its last change; zero when that may have been another etcd's.
    pub(super) mod_revision: i64,
    /// The lease it goes with, zero for none.
    pub(super) lease: i64,
    /// The mark of the record that it has; zero for what is not taken in.
    pub(super) mark: u64,
    /// Whether that is live.
    pub(super) is_live: bool,
}

/// See the [module](self). Endpoints are the many, so their keys are not kept whole.
#[derive(Debug, Default)]
pub(super) struct Table {
    global: BTreeMap<Key, Stored>,
    endpoints: BTreeMap<Id, BTreeMap<Mac, Stored>>,
}

impl Table {
    pub(super) fn get(&self, key: &Key) -> Option<&Stored> {
        if let Key::Endpoint(network, mac) = key {
            return self.endpoints.get(network)?.get(mac);
        }
        self.global.get(key)
    }

    pub(super) fn insert(&mut self, key: &Key, stored: Stored) {
        if let Key::Endpoint(network, mac) = key {
            self.endpoints.entry(*network).or_default().insert(*mac, stored);
        } else {
            self.global.insert(key.clone(), stored);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Stored> {
        if let Key::Endpoint(network, mac) = key {
            return self.endpoints.get_mut(network)?.remove(mac);
        }
        self.global.remove(key)
    }

    /// Forgets the endpoints of a network.
    pub(super) fn forget(&mut self, network: Id) {
        self.endpoints.remove(&network);
    }

    /// Has all keys of a network's endpoints, or of all that is no endpoint and for which something holds,
    /// count as another etcd's.
    pub(super) fn doubt(&mut self, network: Option<Id>, holds: impl Fn(&Key) -> bool) {
        match network {
            Some(network) => {
                let endpoints = self.endpoints.get_mut(&network).into_iter().flatten();
                endpoints.for_each(|(_, stored)| stored.mod_revision = 0);
            }
            None => {
                let global = self.global.iter_mut().filter(|(key, _)| holds(key));
                global.for_each(|(_, stored)| stored.mod_revision = 0);
            }
        }
    }

    /// The keys of these that still do.
    pub(super) fn doubted(&self, network: Option<Id>, holds: impl Fn(&Key) -> bool) -> Vec<Key> {
        let is_doubted = |stored: &Stored| stored.mod_revision == 0;
        match network {
            Some(network) => {
                let endpoints = self.endpoints.get(&network).into_iter().flatten();
                let doubted = endpoints.filter(|(_, stored)| is_doubted(stored));
                doubted.map(|(mac, _)| Key::Endpoint(network, *mac)).collect()
            }
            None => {
                let global = self.global.iter().filter(|(key, stored)| is_doubted(stored) && holds(key));
                global.map(|(key, _)| key.clone()).collect()
            }
        }
    }
}
