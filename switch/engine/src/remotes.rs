//! Endpoints beyond a tunnel, as control knows them: where they are, and what they may send from.
//!
//! # Theory of operation
//!
//! A tunnel is one port with many endpoints behind it. Each one of which control says who it is has its MAC
//! address fixed at the tunnel, so that nobody here can take it and frames to it are not flooded, and a
//! [`Guard`] of its own, where the network wants port security: the tables of neighbours of this host's
//! containers are no easier to poison from another host than from this one. Endpoints that control
//! says nothing about are learned as at any port, and one of which it says no address is not guarded.
//!
//! An endpoint of this host outranks one beyond a tunnel: it is known first-hand.

use std::sync::Arc;

use hashbrown::HashTable;
use vswitch_frame::NetworkId;
use vswitch_frame::hash::SeededHash;

use crate::security::Guard;
use crate::table::Key;

/// The guards of endpoints beyond tunnels.
#[derive(Debug)]
pub(crate) struct Remotes {
    guards: HashTable<(Key, Arc<Guard>)>,
    hash: SeededHash,
}

impl Remotes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { guards: HashTable::new(), hash: SeededHash::new(seed) }
    }

    /// The guard of an endpoint.
    pub(crate) fn guard(&self, key: Key) -> Option<&Arc<Guard>> {
        self.guards.find(self.hash.of(&key), |(known, _)| *known == key).map(|(_, guard)| guard)
    }

    /// Notes the guard of an endpoint, in place of the one it had.
    pub(crate) fn set(&mut self, key: Key, guard: Guard) {
        self.forget(key);
        let hash = self.hash.of(&key);
        self.guards.insert_unique(hash, (key, Arc::new(guard)), |(known, _)| self.hash.of(known));
    }

    pub(crate) fn forget(&mut self, key: Key) {
        if let Ok(found) = self.guards.find_entry(self.hash.of(&key), |(known, _)| *known == key) {
            found.remove();
        }
    }

    pub(crate) fn forget_network(&mut self, network: NetworkId) {
        self.guards.retain(|(key, _)| key.network() != network);
    }
}
