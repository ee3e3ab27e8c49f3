//! The forwarding table: which port an address of a network is behind.
//!
//! # Theory of operation
//!
//! One hash table for all networks, keyed by *(network, address)* packed into 64 bits. Containers choose
//! the addresses, so the hash is seeded: with a secret seed nobody can aim at one bucket.
//!
//! * **Fixed** entries come from configuration, when a port is added. They never age or move, and
//!   they replace a learned entry. No frame creates or changes one.
//! * **Learned** entries come from the source addresses of frames. An address moves to the port it was
//!   last seen at.
//! * **Limits.** At the limit of a port or of the switch a new address is not learned, and an address of
//!   another port does not move to a port that is at its limit.
//! * **Ageing.** `sweep_at` is a moment before which nothing can be too old. A sweep looks at every entry,
//!   forgets what was not seen for `age`, and sets the moment anew from the oldest that is left, though
//!   not to less than `age / AGE_SLACK` from now: under a flood of addresses, sweeps stay rare.
//! * Forgetting a port or a network scans the table, which is as large as the most addresses there ever
//!   were. A port at which nothing was learned costs nothing, one with `n` addresses ends the scan at
//!   the `n`th.

use hashbrown::HashTable;
use hashbrown::hash_table;
use vswitch_frame::hash::SeededHash;
use vswitch_frame::{Instant, Mac, NetworkId, PortId};

use crate::limits::Limits;

/// One line of the forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The address.
    pub mac: Mac,
    /// The port it is behind.
    pub port: PortId,
    /// Known by configuration; never ages, never moves.
    pub fixed: bool,
    /// The time when a frame came from it last; [`Instant::ZERO`] for a fixed address.
    pub seen: Instant,
}

/// An address of a network: the network in the high 16 bits, the address in the low 48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

impl Key {
    #[inline]
    pub(crate) fn new(network: NetworkId, mac: Mac) -> Self {
        Self(u64::from(network.0) << 48 | mac.as_u64())
    }

    pub(crate) fn network(self) -> NetworkId {
        let [high, low, ..] = self.0.to_be_bytes();
        NetworkId(u16::from_be_bytes([high, low]))
    }

    fn mac(self) -> Mac {
        let [_, _, mac @ ..] = self.0.to_be_bytes();
        Mac(mac)
    }
}

/// 24 bytes, so that a probe is one or two cache lines.
#[derive(Clone, Copy, Debug)]
struct Line {
    key: Key,
    seen: Instant,
    port: PortId,
    fixed: bool,
}

/// The outcome of learning a frame's source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// The table says that the address is behind the port the frame came from.
    Here,
    /// The address belongs to another port by configuration.
    Taken,
    /// A limit kept it from being learned.
    Full,
}

/// The forwarding table. See the [module](self) for how it works.
#[derive(Debug)]
pub(crate) struct Table {
    lines: HashTable<Line>,
    hash: SeededHash,
    limits: Limits,
    learned_total: usize,
    learned_at: Vec<usize>,
    sweep_at: Option<Instant>,
}

impl Table {
    pub(crate) fn new(limits: Limits, seed: u64) -> Self {
        Self {
            lines: HashTable::new(),
            hash: SeededHash::new(seed),
            limits,
            learned_total: 0,
            learned_at: vec![0; PortId::LIMIT],
            sweep_at: None,
        }
    }

    /// The port an address is behind.
    #[inline]
    pub(crate) fn look_up(&self, key: Key) -> Option<PortId> {
        let hash = self.hash.of(&key);
        self.lines.find(hash, |line| line.key == key).map(|line| line.port)
    }

    /// The port at which an address is fixed.
    pub(crate) fn fixed_at(&self, key: Key) -> Option<PortId> {
        let hash = self.hash.of(&key);
        self.lines.find(hash, |line| line.key == key && line.fixed).map(|line| line.port)
    }

    /// Learns that a frame from an address came in at a port, which must exist.
    #[inline]
    pub(crate) fn learn(&mut self, key: Key, port: PortId, now: Instant) -> Learned {
        let hash = self.hash.of(&key);
        match self.lines.find_mut(hash, |line| line.key == key) {
            Some(line) if line.fixed && line.port == port => Learned::Here,
            Some(line) if line.fixed => Learned::Taken,
            Some(line) if line.port == port => {
                line.seen = now;
                Learned::Here
            }
            _ => self.learn_new(hash, key, port, now),
        }
    }

    /// The rare half of [`learn`](Self::learn): the address is unknown, or was learned at another port.
    #[cold]
    fn learn_new(&mut self, hash: u64, key: Key, port: PortId, now: Instant) -> Learned {
        if self.learned_at[port.index()] >= self.limits.addresses_per_port {
            return Learned::Full;
        }
        let new = Line { key, seen: now, port, fixed: false };
        match self.lines.find_mut(hash, |line| line.key == key) {
            Some(line) => {
                self.learned_at[line.port.index()] -= 1;
                *line = new;
            }
            None if self.learned_total >= self.limits.addresses_total => return Learned::Full,
            None => {
                self.lines.insert_unique(hash, new, |line| self.hash.of(&line.key));
                self.learned_total += 1;
            }
        }
        self.learned_at[port.index()] += 1;
        self.sweep_at.get_or_insert(now + self.limits.age);
        Learned::Here
    }

    /// Fixes an address at a port, whatever was known of it. It must not be fixed at another one, but for a
    /// tunnel.
    pub(crate) fn fix(&mut self, key: Key, port: PortId) {
        let hash = self.hash.of(&key);
        let line = Line { key, seen: Instant::ZERO, port, fixed: true };
        let same = |line: &Line| line.key == key;
        match self.lines.entry(hash, same, |line| self.hash.of(&line.key)) {
            hash_table::Entry::Occupied(mut old) => {
                let old = std::mem::replace(old.get_mut(), line);
                if !old.fixed {
                    self.learned_total -= 1;
                    self.learned_at[old.port.index()] -= 1;
                }
            }
            hash_table::Entry::Vacant(vacant) => {
                vacant.insert(line);
            }
        }
        self.rest_if_empty();
    }

    /// Forgets an address that is fixed at a port.
    pub(crate) fn unfix(&mut self, key: Key) {
        let hash = self.hash.of(&key);
        if let Ok(line) = self.lines.find_entry(hash, |line| line.key == key && line.fixed) {
            line.remove();
        }
    }

    /// Forgets every address of a network that is fixed at a port.
    pub(crate) fn unfix_port(&mut self, network: NetworkId, port: PortId) {
        self.lines.retain(|line| !(line.fixed && line.port == port && line.key.network() == network));
    }

    /// Forgets what was learned at a port.
    pub(crate) fn forget_port(&mut self, port: PortId) {
        let learned = std::mem::take(&mut self.learned_at[port.index()]);
        self.learned_total -= learned;
        // The scan ends at the last of them, so for a port without any there is none.
        self.lines.extract_if(|line| !line.fixed && line.port == port).take(learned).for_each(drop);
        self.rest_if_empty();
    }

    /// Forgets every address of a network, fixed ones too.
    pub(crate) fn forget_network(&mut self, network: NetworkId) {
        let Self { lines, learned_total, learned_at, .. } = self;
        lines.retain(|line| {
            let gone = line.key.network() == network;
            if gone && !line.fixed {
                *learned_total -= 1;
                learned_at[line.port.index()] -= 1;
            }
            !gone
        });
        self.rest_if_empty();
    }

    /// With nothing learned there is nothing to age.
    fn rest_if_empty(&mut self) {
        if self.learned_total == 0 {
            self.sweep_at = None;
        }
    }

    pub(crate) fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Forgets what was not seen for too long, if it is time to look.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        let Self { lines, limits, learned_total, learned_at, .. } = self;
        let mut oldest = None;
        lines.retain(|line| {
            if line.fixed {
                return true;
            }
            let old = now.since(line.seen) >= limits.age;
            if old {
                *learned_total -= 1;
                learned_at[line.port.index()] -= 1;
            } else {
                oldest = Some(oldest.map_or(line.seen, |seen: Instant| seen.min(line.seen)));
            }
            !old
        });
        let soonest = now + limits.age / Limits::AGE_SLACK;
        self.sweep_at = oldest.map(|seen| (seen + limits.age).max(soonest));
    }

    /// The entries of a network, in no order.
    pub(crate) fn entries(&self, network: NetworkId) -> impl Iterator<Item = Entry> {
        let lines = self.lines.iter().filter(move |line| line.key.network() == network);
        lines.map(|line| Entry { mac: line.key.mac(), port: line.port, fixed: line.fixed, seen: line.seen })
    }
}
