//! News on its way along the trees.
//!
//! # Theory of operation
//! A record that is said here begins at the top of each tree; one that comes in is sent on to the part of the
//! ring that its packet says ([`ring`]). Each record is sent on once in each tree, whatever comes in twice.
//! A record that does not fit a packet travels as a *hint* of its key and version: who lacks it gets it from
//! who told, and only then sends the hint on.
//!
//! What goes to one host at one time shares packets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vswitch_frame::Instant;

use super::super::ledger::Ledger;
use super::super::record::{HostId, Key, Record, Version, mark};
use super::members::Members;
use super::packet::{self, Item, TEXT_BYTES_MAX};
use super::ring::{Part, TREES, children, place};

/// The time for which a record that is new here may be sent on, at least.
const NEW_FOR: Duration = Duration::from_secs(10);
/// The most records that are new at once; those that came before are not sent on any more.
const NEW_MAX: usize = 8_192;
/// The most hints whose records are awaited.
const AWAITED_MAX: usize = 1_024;

/// A record that does not fit a packet, in few words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Its key.
    pub key: Key,
    /// Its version.
    pub version: Version,
    /// The host that wrote it.
    pub host: HostId,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Spread {
    /// Trees by which each new record was sent on, a bit for each; those that came lately, and those before.
    new: [BTreeMap<u64, u8>; 2],
    aged_at: Instant,
    /// Ways on which hints wait for their records.
    awaited: BTreeMap<u64, Vec<(u8, u64)>>,
    outbox: BTreeMap<HostId, Vec<Parcel>>,
}

/// An item for one host.
#[derive(Clone, Debug)]
struct Parcel {
    tree: u8,
    before: u64,
    is_hint: bool,
    text: Arc<[u8]>,
}

impl Spread {
    /// Nothing on its way.
    pub fn new(now: Instant) -> Self {
        Self {
            new: <[BTreeMap<u64, u8>; 2]>::default(),
            aged_at: now,
            awaited: BTreeMap::new(),
            outbox: BTreeMap::new(),
        }
    }

    /// A record is new here: it may be sent on. Hints that waited for it are.
    pub fn learned(&mut self, record: &Record, members: &Members, ledger: &Ledger) {
        let mark = record.mark();
        self.note(mark);
        for (tree, before) in self.awaited.remove(&mark).unwrap_or_default() {
            if let Some(text) = hint(record) {
                self.send_on(record, members, ledger, (tree, before), true, &text);
            }
        }
    }

    /// Begins to tell a record to all whom it concerns, unless that was begun a moment ago.
    pub fn begin(&mut self, record: &Record, members: &Members, ledger: &Ledger) {
        self.note(record.mark());
        let text = serde_json::to_vec(record).unwrap_or_default();
        let is_hint = text.len() > TEXT_BYTES_MAX;
        let text = if is_hint { hint(record) } else { Some(text.into()) };
        // A record that nobody can be told of in a packet is found by comparing.
        let Some(text) = text else { return };
        for tree in 0..TREES {
            self.send_on(record, members, ledger, (tree, place(members.me(), tree)), is_hint, &text);
        }
    }

    /// Sends a record on that came in an item of a packet.
    pub fn pass(&mut self, record: &Record, members: &Members, ledger: &Ledger, item: Item<'_>) {
        if item.before != place(members.me(), item.tree) {
            self.send_on(record, members, ledger, (item.tree, item.before), item.is_hint, &item.text.into());
        }
    }

    /// Waits for the record of a hint; says whether it is to be fetched.
    pub fn wait(&mut self, hint: &Hint, item: Item<'_>) -> bool {
        let mark = mark(hint.key.position(), hint.version, hint.host);
        if self.awaited.len() >= AWAITED_MAX && !self.awaited.contains_key(&mark) {
            return false;
        }
        let ways = self.awaited.entry(mark).or_default();
        if ways.len() < usize::from(TREES) {
            ways.push((item.tree, item.before));
        }
        ways.len() == 1
    }

    /// Forgets what has been on its way for long.
    pub fn age(&mut self, now: Instant) {
        if now.since(self.aged_at) >= NEW_FOR {
            self.aged_at = now;
            self.turn();
            self.awaited.clear();
        }
    }

    /// The packets that are to be sent.
    pub fn flush(&mut self, since_epoch: Duration, me: HostId) -> Vec<(HostId, Vec<u8>)> {
        let mut packets = Vec::new();
        for (host, parcels) in std::mem::take(&mut self.outbox) {
            let items = parcels.iter().map(|parcel| Item {
                tree: parcel.tree,
                before: parcel.before,
                is_hint: parcel.is_hint,
                text: &parcel.text,
            });
            packets.extend(packet::news(since_epoch, me, items).into_iter().map(|packet| (host, packet)));
        }
        packets
    }

    fn note(&mut self, mark: u64) {
        if !self.new.iter().any(|new| new.contains_key(&mark)) {
            if self.new[0].len() >= NEW_MAX / 2 {
                self.turn();
            }
            self.new[0].insert(mark, 0);
        }
    }

    fn turn(&mut self) {
        self.new.swap(0, 1);
        self.new[0].clear();
    }

    fn send_on(
        &mut self,
        record: &Record,
        members: &Members,
        ledger: &Ledger,
        (tree, before): (u8, u64),
        is_hint: bool,
        text: &Arc<[u8]>,
    ) {
        let mark = record.mark();
        let trees = self.new.iter_mut().find_map(|new| new.get_mut(&mark));
        let Some(trees) = trees.filter(|trees| **trees & (1 << tree) == 0) else { return };
        *trees |= 1 << tree;
        let part = Part { behind: place(members.me(), tree), before };
        let concerned = members.concerned(record.key.scope(), ledger);
        let places = concerned.into_iter().map(|(host, places)| (places[usize::from(tree)], host));
        for (child, before) in children(part, places) {
            let parcel = Parcel { tree, before, is_hint, text: Arc::clone(text) };
            self.outbox.entry(child).or_default().push(parcel);
        }
    }
}

/// The hint of a record, if it is short enough.
fn hint(record: &Record) -> Option<Arc<[u8]>> {
    let hint = Hint { key: record.key.clone(), version: record.version, host: record.host };
    let text = serde_json::to_vec(&hint).ok()?;
    (text.len() <= TEXT_BYTES_MAX).then(|| text.into())
}
