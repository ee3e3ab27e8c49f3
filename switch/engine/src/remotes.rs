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

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashTable;
use vswitch_frame::NetworkId;
use vswitch_frame::hash::SeededHash;

use crate::security::Guard;
use crate::table::Key;

/// An endpoint beyond a tunnel.
#[derive(Debug)]
struct Known {
    key: Key,
    addresses: Vec<IpAddr>,
    guard: Option<Arc<Guard>>,
}

/// The endpoints beyond tunnels.
#[derive(Debug)]
pub(crate) struct Remotes {
    known: HashTable<Known>,
    hash: SeededHash,
}

impl Remotes {
    pub(crate) fn new(seed: u64) -> Self {
        Self { known: HashTable::new(), hash: SeededHash::new(seed) }
    }

    /// The guard of an endpoint.
    pub(crate) fn guard(&self, key: Key) -> Option<&Arc<Guard>> {
        self.known.find(self.hash.of(&key), |known| known.key == key)?.guard.as_ref()
    }

    /// Notes the addresses of an endpoint, and its guard, if it has one. Answers the addresses it had.
    pub(crate) fn set(&mut self, key: Key, addresses: Vec<IpAddr>, guard: Option<Guard>) -> Vec<IpAddr> {
        let before = self.forget(key);
        let known = Known { key, addresses, guard: guard.map(Arc::new) };
        self.known.insert_unique(self.hash.of(&key), known, |known| self.hash.of(&known.key));
        before
    }

    /// Forgets an endpoint; answers the addresses it had.
    pub(crate) fn forget(&mut self, key: Key) -> Vec<IpAddr> {
        match self.known.find_entry(self.hash.of(&key), |known| known.key == key) {
            Ok(found) => found.remove().0.addresses,
            Err(_) => Vec::new(),
        }
    }

    pub(crate) fn forget_network(&mut self, network: NetworkId) {
        self.known.retain(|known| known.key.network() != network);
    }
}
