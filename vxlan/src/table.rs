//! The table of a network: which VTEP a MAC address is behind, and which MAC address an IP address belongs
//! to.
//!
//! # Theory of operation
//!
//! One table a network. What it says of a MAC address comes from one of two sources:
//!
//! * **Control** sets and removes records, each with a version. The newest wins, whatever the order of
//!   arrival: an older one is *stale* and changes nothing, and the same again is no error. A container
//!   that moved is a record with a newer version and another VTEP, and the next frame goes there.
//!   Records of one version that differ are decided by the VTEP, alike on every host. What is removed
//!   leaves a *tombstone* for [`Limits::tombstone_age`], so that a record that was late does not revive it.
//! * **Learning** from frames, for networks without a control plane that knows everybody. An address
//!   moves to where it was last seen and is forgotten after [`Limits::age`]. A record outranks it, and so
//!   does a tombstone: frames that were on their way when a container went must not bring it back.
//!
//! An IP address belongs to the MAC whose record claimed it with the newest version. Versions of
//! different records are compared with each other there, so they must come from one clock of the cluster.
//! When the owner goes, the address is unknown until the next record that claims it.
//!
//! Addresses are chosen by containers, so hashes are seeded. At a limit nothing that is there goes: see
//! [`Limits`].

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use hashbrown::HashTable;
use vswitch_frame::hash::SeededHash;
use vswitch_frame::{Instant, Mac};

/// Bounds of one network's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records and tombstones. At the limit a new address is refused ([`Outcome::Full`]).
    pub records: usize,
    /// IP addresses of one record; a record with more is refused.
    pub addresses_per_record: usize,
    /// Learned addresses. At the limit a new one is not learned, and frames to it go to every VTEP.
    pub learned: usize,
    /// How long a learned address outlives the last frame from it, at least.
    pub age: Duration,
    /// How long a tombstone stands, at least: longer than a record can be late.
    pub tombstone_age: Duration,
}

impl Limits {
    /// Ageing looks at the table no more often than every `age / AGE_SLACK`.
    pub const AGE_SLACK: u32 = 16;
}

impl Default for Limits {
    /// 65,536 records with 64 addresses, 16,384 learned, forgotten after 300 seconds like tombstones.
    fn default() -> Self {
        Self {
            records: 65_536,
            addresses_per_record: 64,
            learned: 16_384,
            age: Duration::from_secs(300),
            tombstone_age: Duration::from_secs(300),
        }
    }
}

/// A record: what control says of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// Its MAC address.
    pub mac: Mac,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The VTEP of the host it lives on, which may be this one.
    pub vtep: IpAddr,
    /// The newer, the higher, across all records of the network.
    pub version: u64,
}

/// The outcome of a record or a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is what the table now says.
    Applied,
    /// The table knows the same or newer.
    Stale,
    /// A limit was reached; the table does not know of it.
    Full,
}

/// The outcome of learning a frame's source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The table says that the address is behind the VTEP the frame came from.
    Here,
    /// Control says something else.
    Outranked,
    /// A limit kept it from being learned.
    Full,
}

/// The origin of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A record.
    Control {
        /// Its version.
        version: u64,
    },
    /// A tombstone: the record was removed.
    Removed {
        /// Version of the removal.
        version: u64,
        /// When the table learned of it.
        at: Instant,
    },
    /// Frames.
    Learned {
        /// When the last one came.
        seen: Instant,
    },
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The MAC address.
    pub mac: Mac,
    /// The VTEP it is behind, or was; 0.0.0.0 in a tombstone of what was never known.
    pub vtep: IpAddr,
    /// The source that says so.
    pub origin: Origin,
    /// IP addresses of a record.
    pub addresses: Vec<IpAddr>,
}

/// The owner of an IP address.
#[derive(Clone, Copy, Debug)]
struct Owner {
    address: IpAddr,
    mac: Mac,
    version: u64,
}

/// A network's table. See the [module](self) for how it works.
#[derive(Debug)]
pub struct Table {
    entries: HashTable<Entry>,
    owners: HashTable<Owner>,
    hash: SeededHash,
    limits: Limits,
    learned: usize,
    sweep_at: Option<Instant>,
}

impl Table {
    /// An empty table.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            entries: HashTable::new(),
            owners: HashTable::new(),
            hash: SeededHash::new(seed),
            limits,
            learned: 0,
            sweep_at: None,
        }
    }

    /// The VTEP an address is behind.
    #[inline]
    pub fn look_up(&self, mac: Mac) -> Option<IpAddr> {
        let entry = self.find(mac)?;
        (!matches!(entry.origin, Origin::Removed { .. })).then_some(entry.vtep)
    }

    /// The MAC address an IP address belongs to, and the VTEP that is behind; only records say so.
    pub fn resolve(&self, address: IpAddr) -> Option<(Mac, IpAddr)> {
        let hash = self.hash.of(&address);
        let owner = self.owners.find(hash, |owner| owner.address == address)?;
        Some((owner.mac, self.find(owner.mac)?.vtep))
    }

    /// The entry of an address, tombstones too.
    #[inline]
    pub fn find(&self, mac: Mac) -> Option<&Entry> {
        self.entries.find(self.hash.of(&mac), |entry| entry.mac == mac)
    }

    /// Control says who lives where.
    pub fn set(&mut self, record: Record) -> Outcome {
        let Record { mac, addresses, vtep, version } = record;
        if addresses.len() > self.limits.addresses_per_record {
            return Outcome::Full;
        }
        let known = self.find(mac).map(|entry| (entry.origin, entry.vtep));
        match known {
            Some((Origin::Control { version: held }, at)) if (held, at) >= (version, vtep) => {
                return Outcome::Stale;
            }
            Some((Origin::Removed { version: held, .. }, _)) if held >= version => return Outcome::Stale,
            None | Some((Origin::Learned { .. }, _)) if self.is_full() => return Outcome::Full,
            _ => {}
        }
        self.release(mac);
        addresses.iter().for_each(|&address| self.claim(Owner { address, mac, version }));
        self.put(Entry { mac, vtep, origin: Origin::Control { version }, addresses });
        Outcome::Applied
    }

    /// Control says that an endpoint is gone: the removal of this version and of all before it.
    pub fn remove(&mut self, mac: Mac, version: u64, now: Instant) -> Outcome {
        let known = self.find(mac).map(|entry| (entry.origin, entry.vtep));
        match known {
            Some((Origin::Control { version: held }, _)) if held > version => return Outcome::Stale,
            Some((Origin::Removed { version: held, .. }, _)) if held >= version => return Outcome::Stale,
            None | Some((Origin::Learned { .. }, _)) if self.is_full() => return Outcome::Full,
            _ => {}
        }
        self.release(mac);
        let vtep = known.map_or(Ipv4Addr::UNSPECIFIED.into(), |(_, vtep)| vtep);
        self.put(Entry { mac, vtep, origin: Origin::Removed { version, at: now }, addresses: vec![] });
        self.sweep_no_later_than(now + self.limits.tombstone_age);
        Outcome::Applied
    }

    /// Forgets all that control said of an address, tombstones included: the next record holds, whatever its
    /// version.
    pub fn erase(&mut self, mac: Mac) {
        let hash = self.hash.of(&mac);
        let is_said = |entry: &Entry| entry.mac == mac && !matches!(entry.origin, Origin::Learned { .. });
        if self.entries.find(hash, is_said).is_some() {
            self.release(mac);
            if let Ok(entry) = self.entries.find_entry(hash, is_said) {
                entry.remove();
            }
        }
    }

    /// A frame from this address came from a VTEP.
    #[inline]
    pub fn learn(&mut self, mac: Mac, vtep: IpAddr, now: Instant) -> Learned {
        let hash = self.hash.of(&mac);
        match self.entries.find_mut(hash, |entry| entry.mac == mac) {
            Some(Entry { origin: Origin::Learned { seen }, vtep: at, .. }) => {
                *seen = now;
                *at = vtep;
                Learned::Here
            }
            Some(Entry { origin: Origin::Control { .. }, vtep: at, .. }) if *at == vtep => Learned::Here,
            Some(_) => Learned::Outranked,
            None => self.learn_new(mac, vtep, now),
        }
    }

    /// The rare half of [`learn`](Self::learn).
    #[cold]
    fn learn_new(&mut self, mac: Mac, vtep: IpAddr, now: Instant) -> Learned {
        if self.learned >= self.limits.learned {
            return Learned::Full;
        }
        self.put(Entry { mac, vtep, origin: Origin::Learned { seen: now }, addresses: vec![] });
        self.sweep_no_later_than(now + self.limits.age);
        Learned::Here
    }

    /// Forgets what was learned from a VTEP.
    pub fn forget_learned_at(&mut self, vtep: IpAddr) {
        let Self { entries, learned, .. } = self;
        entries.retain(|entry| {
            let gone = entry.vtep == vtep && matches!(entry.origin, Origin::Learned { .. });
            *learned -= usize::from(gone);
            !gone
        });
    }

    /// When [`sweep`](Self::sweep) has something to do, if ever.
    pub fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Forgets what was not seen for too long, and tombstones that stood long enough.
    pub fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        let Self { entries, learned, limits, .. } = self;
        let mut next: Option<Instant> = None;
        entries.retain(|entry| {
            let until = match entry.origin {
                Origin::Control { .. } => return true,
                Origin::Removed { at, .. } => at + limits.tombstone_age,
                Origin::Learned { seen } => seen + limits.age,
            };
            let gone = until <= now;
            if gone {
                *learned -= usize::from(matches!(entry.origin, Origin::Learned { .. }));
            } else {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
            !gone
        });
        let soonest = now + limits.age / Limits::AGE_SLACK;
        self.sweep_at = next.map(|next| next.max(soonest));
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    fn is_full(&self) -> bool {
        self.entries.len() - self.learned >= self.limits.records
    }

    fn sweep_no_later_than(&mut self, at: Instant) {
        self.sweep_at = Some(self.sweep_at.map_or(at, |before| before.min(at)));
    }

    /// Puts an entry in the place of what was said of its address.
    fn put(&mut self, entry: Entry) {
        let is_learned = |entry: &Entry| usize::from(matches!(entry.origin, Origin::Learned { .. }));
        self.learned += is_learned(&entry);
        let hash = self.hash.of(&entry.mac);
        match self.entries.find_mut(hash, |old| old.mac == entry.mac) {
            Some(old) => {
                self.learned -= is_learned(old);
                *old = entry;
            }
            None => {
                self.entries.insert_unique(hash, entry, |entry| self.hash.of(&entry.mac));
            }
        }
    }

    /// Makes an IP address a MAC's, unless a newer record made it another's.
    fn claim(&mut self, owner: Owner) {
        let hash = self.hash.of(&owner.address);
        match self.owners.find_mut(hash, |old| old.address == owner.address) {
            Some(old) if (old.version, old.mac) > (owner.version, owner.mac) => {}
            Some(old) => *old = owner,
            None => {
                self.owners.insert_unique(hash, owner, |owner| self.hash.of(&owner.address));
            }
        }
    }

    /// Gives up the IP addresses that are a MAC's.
    fn release(&mut self, mac: Mac) {
        let hash = self.hash.of(&mac);
        let Some(entry) = self.entries.find(hash, |entry| entry.mac == mac) else { return };
        for &address in &entry.addresses {
            let hash = self.hash.of(&address);
            let is_its = |owner: &Owner| owner.address == address && owner.mac == mac;
            if let Ok(owner) = self.owners.find_entry(hash, is_its) {
                owner.remove();
            }
        }
    }
}
