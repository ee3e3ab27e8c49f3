//! Mappings: which outside end an inside end is behind, whoever it talks to (RFC 4787, 4.1).
//!
//! # Theory of operation
//!
//! A mapping lives while a flow uses it. It lets new packets in only while there is a flow in which its
//! inside has sent something, so strangers cannot keep it alive: only the inside refreshes (RFC 4787, REQ-6).
//!
//! A *permit* says that the inside of a mapping has sent to an address, for address-dependent filtering. It
//! is found by a hash of 32 bits under a secret seed: of four thousand million strangers one gets in that
//! should not, and does not know it.

use vswitch_frame::hash::SeededHash;

use crate::index::Index;
use crate::slab::{self, NONE};
use crate::tuple::{Address, End, Protocol, Realm};

/// A mapping's number: good until the mapping is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct MappingId(u32);

impl MappingId {
    /// No mapping.
    pub(crate) const NONE: MappingId = MappingId(NONE);

    pub(crate) fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// A mapping: plain data.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Mapping {
    pub(crate) inside: Address,
    pub(crate) outside: Address,
    pub(crate) inside_port: u16,
    pub(crate) outside_port: u16,
    pub(crate) realm: Realm,
    pub(crate) protocol: Protocol,
    /// Flows that use it; zero when the record is free.
    pub(crate) flows: u32,
    /// Flows in which its inside has sent something; of a free record the next free one.
    pub(crate) holders: u32,
    /// The sandbox it belongs to.
    pub(crate) sandbox: u32,
}

impl Mapping {
    pub(crate) fn inside_end(&self) -> End {
        End { address: self.inside, port: self.inside_port, realm: self.realm, protocol: self.protocol }
    }

    pub(crate) fn outside_end(&self) -> End {
        End { address: self.outside, port: self.outside_port, realm: Realm::OUTSIDE, protocol: self.protocol }
    }
}

/// A permit: a mapping's inside has sent to an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Permit {
    mapping: MappingId,
    address: u32,
    flows: u32,
}

/// All mappings. See the [module](self) for how it works.
#[derive(Debug)]
pub(crate) struct Mappings {
    records: Vec<Mapping>,
    vacant: u32,
    len: usize,
    by_inside: Index<u32>,
    by_outside: Index<u32>,
    permits: Index<Permit>,
    hash: SeededHash,
}

impl Mappings {
    /// No more than `limit` are ever there, because each has a flow.
    pub(crate) fn new(limit: usize, hash: SeededHash) -> Self {
        Self {
            records: Vec::with_capacity(limit),
            vacant: NONE,
            len: 0,
            by_inside: Index::new(),
            by_outside: Index::new(),
            permits: Index::new(),
            hash,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that they take; of records those that were ever used.
    pub(crate) fn bytes(&self) -> usize {
        let indices = self.by_inside.bytes() + self.by_outside.bytes();
        size_of_val(&self.records[..]) + indices + self.permits.bytes()
    }

    /// How many permits there are.
    pub(crate) fn permits(&self) -> usize {
        self.permits.len()
    }

    pub(crate) fn get(&self, id: MappingId) -> &Mapping {
        &self.records[id.0 as usize]
    }

    pub(crate) fn by_inside(&self, end: &End) -> Option<MappingId> {
        let hash = self.hash.of_words(&end.words());
        let found = self.by_inside.find(hash, |&at| self.records[at as usize].inside_end() == *end);
        found.copied().map(MappingId)
    }

    pub(crate) fn by_outside(&self, end: &End) -> Option<MappingId> {
        let hash = self.hash.of_words(&end.words());
        let found = self.by_outside.find(hash, |&at| self.records[at as usize].outside_end() == *end);
        found.copied().map(MappingId)
    }

    /// Adds a mapping, neither of whose ends has one. It must be [used](Self::use_by) before it is unused.
    pub(crate) fn insert(&mut self, mapping: Mapping) -> MappingId {
        let at = if self.vacant == NONE {
            slab::append(&mut self.records, mapping)
        } else {
            let at = self.vacant;
            let record = &mut self.records[at as usize];
            self.vacant = record.holders;
            *record = mapping;
            at
        };
        self.len += 1;
        let Self { records, by_inside, by_outside, hash, .. } = self;
        let inside = |&at: &u32| hash.of_words(&records[at as usize].inside_end().words());
        by_inside.insert_unique(inside(&at), at, inside);
        let outside = |&at: &u32| hash.of_words(&records[at as usize].outside_end().words());
        by_outside.insert_unique(outside(&at), at, outside);
        MappingId(at)
    }

    /// Notes one more flow that uses a mapping.
    pub(crate) fn use_by(&mut self, id: MappingId) {
        self.records[id.0 as usize].flows += 1;
    }

    /// Notes one flow less; a mapping without any is removed and returned.
    #[must_use]
    pub(crate) fn unuse_by(&mut self, id: MappingId) -> Option<Mapping> {
        let record = &mut self.records[id.0 as usize];
        record.flows -= 1;
        if record.flows > 0 {
            return None;
        }
        let mapping = *record;
        record.holders = self.vacant;
        self.vacant = id.0;
        self.len -= 1;
        let inside = self.hash.of_words(&mapping.inside_end().words());
        if let Ok(found) = self.by_inside.find_entry(inside, |&at| at == id.0) {
            found.remove();
        }
        let outside = self.hash.of_words(&mapping.outside_end().words());
        if let Ok(found) = self.by_outside.find_entry(outside, |&at| at == id.0) {
            found.remove();
        }
        Some(mapping)
    }

    /// Notes that the inside has sent to an address, in one more flow.
    pub(crate) fn permit(&mut self, id: MappingId, address: Address) {
        self.records[id.0 as usize].holders += 1;
        let (hash, digest) = self.permit_key(id, address);
        let same = |permit: &Permit| permit.mapping == id && permit.address == digest;
        if let Some(permit) = self.permits.find_mut(hash, same) {
            permit.flows += 1;
            return;
        }
        let permit = Permit { mapping: id, address: digest, flows: 1 };
        let Self { permits, hash: hasher, .. } = self;
        permits.insert_unique(hash, permit, |permit| permit_hash(hasher, permit.mapping, permit.address));
    }

    /// Takes back one [`permit`](Self::permit).
    pub(crate) fn forbid(&mut self, id: MappingId, address: Address) {
        self.records[id.0 as usize].holders -= 1;
        let (hash, digest) = self.permit_key(id, address);
        let same = |permit: &Permit| permit.mapping == id && permit.address == digest;
        if let Ok(mut found) = self.permits.find_entry(hash, same) {
            found.get_mut().flows -= 1;
            if found.get().flows == 0 {
                found.remove();
            }
        }
    }

    /// Whether the inside has sent to an address.
    pub(crate) fn is_permitted(&self, id: MappingId, address: Address) -> bool {
        let (hash, digest) = self.permit_key(id, address);
        self.permits.find(hash, |permit| permit.mapping == id && permit.address == digest).is_some()
    }

    fn permit_key(&self, id: MappingId, address: Address) -> (u64, u32) {
        let [a, b, c, d, ..] = self.hash.of_words(&address.words()).to_le_bytes();
        let digest = u32::from_le_bytes([a, b, c, d]);
        (permit_hash(&self.hash, id, digest), digest)
    }

    /// Every mapping, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.records.iter().filter(|mapping| mapping.flows > 0)
    }
}

fn permit_hash(hash: &SeededHash, id: MappingId, digest: u32) -> u64 {
    hash.of_words(&[u64::from(id.0) << 32 | u64::from(digest)])
}
