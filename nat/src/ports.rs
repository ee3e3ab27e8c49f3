//! Outside ports: those that control has claimed, and which of them are free.
//!
//! # Theory of operation
//!
//! Control holds a socket on every outside port in use, so that neither the host's stack nor its programs
//! use it. That takes time a packet has not, so control claims ahead of need: below a low-water mark more
//! are wanted. A port goes to a mapping and comes back with its end.
//!
//! The port that is asked for is preferred (port preservation), then one of the same parity (RFC 4787,
//! REQ-4), at random (RFC 6056). Identifiers of queries and the ports of SCTP are not claimed: there all are
//! free that no mapping has.

use std::collections::{BTreeMap, BTreeSet};

use crate::tuple::{Address, Protocol};

const UNCLAIMED: u32 = u32::MAX;
const IN_USE: u32 = u32::MAX - 1;

/// Ports of one protocol and address.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The place of every port among the free ones of its parity, or that it is not free.
    places: Vec<u32>,
    /// Free ports, even and odd.
    free: [Vec<u16>; 2],
    /// Claimed ports, in use or not.
    claimed: Vec<u16>,
}

impl Pool {
    fn new() -> Self {
        Self { places: vec![UNCLAIMED; 0x1_0000], free: [Vec::new(), Vec::new()], claimed: Vec::new() }
    }

    pub(crate) fn free(&self) -> usize {
        self.free[0].len() + self.free[1].len()
    }

    pub(crate) fn claimed(&self) -> usize {
        self.claimed.len()
    }

    /// Every claimed port, in use or not.
    pub(crate) fn all(&self) -> impl Iterator<Item = u16> {
        self.claimed.iter().copied()
    }

    /// So many free ports, if there are.
    pub(crate) fn some_free(&self, ports: usize) -> BTreeSet<u16> {
        self.free.iter().flatten().copied().take(ports).collect()
    }

    pub(crate) fn is_claimed(&self, port: u16) -> bool {
        self.places[usize::from(port)] != UNCLAIMED
    }

    /// Whether a port is claimed and a mapping has it.
    pub(crate) fn is_in_use(&self, port: u16) -> bool {
        self.places[usize::from(port)] == IN_USE
    }

    pub(crate) fn claim(&mut self, port: u16) {
        if port != 0 && !self.is_claimed(port) {
            self.claimed.push(port);
            self.put(port);
        }
    }

    fn put(&mut self, port: u16) {
        let free = &mut self.free[usize::from(port & 1)];
        self.places[usize::from(port)] = u32::try_from(free.len()).unwrap_or(IN_USE);
        free.push(port);
    }

    fn remove(&mut self, port: u16) {
        let place = std::mem::replace(&mut self.places[usize::from(port)], IN_USE);
        let free = &mut self.free[usize::from(port & 1)];
        free.swap_remove(place as usize);
        if let Some(&moved) = free.get(place as usize) {
            self.places[usize::from(moved)] = place;
        }
    }

    /// Takes a free port: the preferred one, one of its parity, or any.
    pub(crate) fn take(&mut self, preferred: u16, random: u64) -> Option<u16> {
        let port = if self.places[usize::from(preferred)] < IN_USE {
            preferred
        } else {
            let same = &self.free[usize::from(preferred & 1)];
            let among = if same.is_empty() { &self.free[usize::from(!preferred & 1)] } else { same };
            *among.get(below(random, among.len()))?
        };
        self.remove(port);
        Some(port)
    }

    /// Takes a port, if it is free.
    pub(crate) fn take_this(&mut self, port: u16) -> bool {
        let is_free = self.places[usize::from(port)] < IN_USE;
        if is_free {
            self.remove(port);
        }
        is_free
    }

    /// Gives a port back that was taken. One that was revoked meanwhile is gone.
    pub(crate) fn give_back(&mut self, port: u16) {
        if self.places[usize::from(port)] == IN_USE {
            self.put(port);
        }
    }

    /// No longer claims some ports. Who has one must give it up.
    pub(crate) fn revoke(&mut self, ports: &BTreeSet<u16>) {
        for &port in ports {
            if self.places[usize::from(port)] < IN_USE {
                self.remove(port);
            }
            self.places[usize::from(port)] = UNCLAIMED;
        }
        self.claimed.retain(|claimed| !ports.contains(claimed));
    }

    /// A claimed port, in use or not: the one that is `step` behind a random one.
    pub(crate) fn probe(&self, random: u64, step: u64) -> Option<u16> {
        self.claimed.get(below(random.wrapping_add(step), self.claimed.len())).copied()
    }
}

/// An index below `len`, or zero.
fn below(random: u64, len: usize) -> usize {
    usize::try_from(random.checked_rem(len as u64).unwrap_or(0)).unwrap_or(0)
}

/// All pools, and who has how much of each.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    pools: BTreeMap<(Protocol, Address), Pool>,
    /// Outside ends that each sandbox has: ports of its mappings, and those that its flows share.
    held: BTreeMap<(Protocol, Address), BTreeMap<u32, u32>>,
}

impl Ports {
    /// Notes that a sandbox has one more outside end at an address.
    pub(crate) fn hold(&mut self, protocol: Protocol, address: Address, sandbox: u32) {
        *self.held.entry((protocol, address)).or_default().entry(sandbox).or_default() += 1;
    }

    /// Notes that it has one less.
    pub(crate) fn let_go(&mut self, protocol: Protocol, address: Address, sandbox: u32) {
        let Some(held) = self.held.get_mut(&(protocol, address)) else { return };
        if let Some(ends) = held.get_mut(&sandbox) {
            *ends -= 1;
            if *ends == 0 {
                held.remove(&sandbox);
            }
        }
        if held.is_empty() {
            self.held.remove(&(protocol, address));
        }
    }

    /// How many a sandbox has.
    pub(crate) fn held_by(&self, protocol: Protocol, address: Address, sandbox: u32) -> u32 {
        self.held.get(&(protocol, address)).and_then(|held| held.get(&sandbox)).copied().unwrap_or(0)
    }

    /// How many one sandbox would have if all that have any had as many, and there was one more.
    pub(crate) fn share(&self, protocol: Protocol, address: Address) -> u32 {
        let all = if protocol.is_claimed() {
            self.get(protocol, address).map_or(0, Pool::claimed)
        } else {
            usize::from(u16::MAX)
        };
        let sandboxes = self.held.get(&(protocol, address)).map_or(0, BTreeMap::len);
        u32::try_from(all / (sandboxes + 1)).unwrap_or(u32::MAX)
    }

    pub(crate) fn pool(&mut self, protocol: Protocol, address: Address) -> &mut Pool {
        self.pools.entry((protocol, address)).or_insert_with(Pool::new)
    }

    pub(crate) fn get(&self, protocol: Protocol, address: Address) -> Option<&Pool> {
        self.pools.get(&(protocol, address))
    }

    pub(crate) fn get_mut(&mut self, protocol: Protocol, address: Address) -> Option<&mut Pool> {
        self.pools.get_mut(&(protocol, address))
    }

    pub(crate) fn is_claimed(&self, protocol: Protocol, address: Address, port: u16) -> bool {
        self.get(protocol, address).is_some_and(|pool| pool.is_claimed(port))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Protocol, Address, &Pool)> {
        self.pools.iter().map(|(&(protocol, address), pool)| (protocol, address, pool))
    }

    /// Forgets the pools without claims of addresses that are gone.
    pub(crate) fn forget_empty(&mut self, is_gone: impl Fn(Address) -> bool) {
        self.pools.retain(|&(_, address), pool| pool.claimed() > 0 || !is_gone(address));
    }
}
