//! The members that are up, and whom a record concerns.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;

use super::super::ledger::Ledger;
use super::super::record::{HostId, Scope};
use super::ring::{self, TREES};

/// Other hosts that are up.
#[derive(Clone, Debug)]
pub struct Members {
    me: HostId,
    up: BTreeMap<HostId, Up>,
}

/// A host that is up.
#[derive(Clone, Copy, Debug)]
struct Up {
    address: SocketAddr,
    /// Its place on the ring of each tree.
    places: [u64; TREES as usize],
}

impl Members {
    /// None.
    pub fn new(me: HostId) -> Self {
        Self { me, up: BTreeMap::new() }
    }

    /// This host.
    pub fn me(&self) -> HostId {
        self.me
    }

    /// A host is up, at an address, or not. Says whether that is news.
    pub fn follow(&mut self, host: HostId, address: Option<SocketAddr>) -> bool {
        if host == self.me {
            return false;
        }
        let places = || std::array::from_fn(|tree| ring::place(host, u8::try_from(tree).unwrap_or_default()));
        match address {
            Some(address) => self.up.insert(host, Up { address, places: places() }).is_none(),
            None => self.up.remove(&host).is_some(),
        }
    }

    /// The number of hosts that are up.
    pub fn len(&self) -> usize {
        self.up.len()
    }

    /// Whether this host is alone.
    pub fn is_empty(&self) -> bool {
        self.up.is_empty()
    }

    /// The address where a host is reached, if it is up.
    pub fn address_of(&self, host: HostId) -> Option<SocketAddr> {
        self.up.get(&host).map(|up| up.address)
    }

    /// Hosts that are up, with the addresses where they are reached.
    pub fn iter(&self) -> impl Iterator<Item = (HostId, SocketAddr)> {
        self.up.iter().map(|(host, up)| (*host, up.address))
    }

    /// Hosts that are up and have the records of a scope, each with its places.
    pub fn concerned(&self, scope: Scope, ledger: &Ledger) -> Vec<(HostId, [u64; TREES as usize])> {
        match scope {
            Scope::Global => self.up.iter().map(|(host, up)| (*host, up.places)).collect(),
            Scope::Network(network) => {
                let subscribers = ledger.subscribers(network);
                subscribers.filter_map(|host| Some((host, self.up.get(&host)?.places))).collect()
            }
        }
    }

    /// One of the hosts that are up and have the records of a scope.
    pub fn any(&self, scope: Scope, ledger: &Ledger, rng: &mut SmallRng) -> Option<HostId> {
        match scope {
            Scope::Global => self.up.keys().copied().choose(rng),
            Scope::Network(network) => {
                ledger.subscribers(network).filter(|host| self.up.contains_key(host)).choose(rng)
            }
        }
    }
}
