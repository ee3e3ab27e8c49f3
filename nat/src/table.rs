//! The table of flows: records, an index of both sides, and one queue a class.
//!
//! # Theory of operation
//!
//! * **Records** are a slab of plain data that never shrinks; free ones are a list. Its addresses are
//!   reserved for the limit, and take memory once used.
//! * **Index.** One hash table ([`Index`]) holds every flow twice, under the tuple of either side: one
//!   look-up finds the flow of a packet and which side sent it. An entry is a record's number and the side,
//!   in 32 bits.
//! * **Queues.** A class has one time-out, so a list in the order of use is a list in the order of expiry:
//!   to refresh is to move to the end, to expire is to look at the front. All are of constant cost.
//! * **Changes** are noted by the number of the record, if anybody wants to know them: each beginning, end
//!   and change of state, and of a flow in use the time, now and then.
//! * **At the limit** who has most flows makes room ([`Owners`]).

use std::hint::black_box;
use std::ops::Range;

use vswitch_frame::Instant;
use vswitch_frame::hash::SeededHash;

use crate::flow::{Class, Flow, Rank, Side};
use crate::index::Index;
use crate::limits::Timeouts;
use crate::owners::{Owners, Payer};
use crate::slab::{self, NONE};
use crate::tick::Tick;
use crate::tuple::Tuple;

/// A flow's number: good until the flow is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowId(u32);

impl FlowId {
    /// The number of its record.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
}

/// The table. See the [module](self) for how it works.
#[derive(Debug)]
pub(crate) struct Table {
    records: Vec<Flow>,
    vacant: u32,
    len: usize,
    limit: usize,
    index: Index<u32>,
    queues: [Queue; Class::ALL.len()],
    /// Payers of flows, each with the rings of its own.
    pub(crate) owners: Owners,
    hash: SeededHash,
    /// Records that have changed; `None` while nobody wants to know.
    changed: Option<Vec<u32>>,
}

impl Table {
    pub(crate) fn new(limit: usize, hash: SeededHash) -> Self {
        let limit = limit.min((NONE / 2) as usize);
        Self {
            records: Vec::with_capacity(limit),
            vacant: NONE,
            len: 0,
            limit,
            index: Index::new(),
            queues: [Queue { oldest: NONE, newest: NONE }; Class::ALL.len()],
            owners: Owners::default(),
            hash,
            changed: None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    /// The flow of a packet, and the side that sent it.
    #[inline]
    pub(crate) fn find(&self, tuple: &Tuple) -> Option<(FlowId, Side)> {
        let hash = self.hash.of_words(&tuple.words());
        let entry = *self.index.find(hash, |&entry| entry_tuple(&self.records, entry) == tuple)?;
        let side = if entry & 1 == 0 { Side::Initiator } else { Side::Target };
        Some((FlowId(entry >> 1), side))
    }

    /// Touches what looking up these tuples will touch. The look-ups do not depend on each other, so the
    /// processor waits for the memory of several at once.
    pub(crate) fn touch(&self, tuples: &[Tuple]) {
        for tuple in tuples {
            let hash = self.hash.of_words(&tuple.words());
            // The tag of the first entry that fits is almost always that of the flow; its tuple is not
            // compared.
            let Some(entry) = self.index.likely(hash) else { continue };
            let flow = &self.records[(entry >> 1) as usize];
            black_box((flow.tuples[0].kind, flow.tuples[1].kind, flow.class));
        }
    }

    #[inline]
    pub(crate) fn get(&self, id: FlowId) -> &Flow {
        &self.records[id.0 as usize]
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: FlowId) -> &mut Flow {
        &mut self.records[id.0 as usize]
    }

    /// Adds a flow whose tuples no flow has, to a table that is not full, and charges somebody with it.
    pub(crate) fn insert(&mut self, flow: Flow, payer: Payer) -> FlowId {
        debug_assert!(!self.is_full() && flow.tuples.iter().all(|tuple| self.find(tuple).is_none()));
        let at = self.take_record(flow);
        self.index(at);
        self.append(at, flow.class);
        self.owners.add(&mut self.records, at, payer);
        self.len += 1;
        self.note(at);
        FlowId(at)
    }

    /// Whether a flow may be [placed](Self::place) at a record.
    pub(crate) fn has_room_at(&self, number: u32) -> bool {
        (number as usize) < self.limit && !self.is_full() && self.iter_in(number..number + 1).next().is_none()
    }

    /// Adds a flow whose tuples no flow has at a record that [has room](Self::has_room_at). The table is not
    /// to be used before all are [linked](Self::link_all).
    pub(crate) fn place(&mut self, number: u32, flow: Flow, payer: Payer) -> FlowId {
        let vacant = Flow { class: Class::Vacant, ..flow };
        let needed = number as usize + 1;
        self.records.resize(self.records.len().max(needed), vacant);
        self.records[number as usize] = flow;
        self.index(number);
        self.owners.add(&mut self.records, number, payer);
        self.len += 1;
        FlowId(number)
    }

    /// Puts every flow in the queue of its class, in the order of use, and every other record among the
    /// vacant.
    pub(crate) fn link_all(&mut self) {
        self.queues = [Queue { oldest: NONE, newest: NONE }; Class::ALL.len()];
        self.vacant = NONE;
        let mut used: Vec<(Tick, u32)> = self.iter().map(|(id, flow)| (flow.used, id.0)).collect();
        used.sort_unstable();
        for (_, at) in used {
            self.append(at, self.records[at as usize].class);
        }
        for at in (0..self.records()).rev() {
            let record = &mut self.records[at as usize];
            if record.class == Class::Vacant {
                record.newer = std::mem::replace(&mut self.vacant, at);
            }
        }
    }

    /// Bytes that it takes; of records those that were ever used.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.records[..]) + self.index.bytes()
    }

    pub(crate) fn note_changes(&mut self) {
        self.changed = Some(Vec::new());
    }

    /// Notes that a record has changed.
    #[inline]
    pub(crate) fn note(&mut self, number: u32) {
        if let Some(changed) = &mut self.changed {
            changed.push(number);
        }
    }

    #[inline]
    pub(crate) fn has_changes(&self) -> bool {
        self.changed.as_ref().is_some_and(|changed| !changed.is_empty())
    }

    /// The records that have changed since the last time, some of them twice.
    pub(crate) fn take_changed(&mut self) -> Vec<u32> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Gives a vector back, so that its memory is used again.
    pub(crate) fn give_back_changed(&mut self, empty: Vec<u32>) {
        if let Some(changed) = &mut self.changed {
            *changed = empty;
        }
    }

    fn index(&mut self, at: u32) {
        for entry in [at << 1, at << 1 | 1] {
            let hash = self.hash.of_words(&entry_tuple(&self.records, entry).words());
            let Self { index, records, hash: hasher, .. } = self;
            index.insert_unique(hash, entry, |&entry| hasher.of_words(&entry_tuple(records, entry).words()));
        }
    }

    fn take_record(&mut self, flow: Flow) -> u32 {
        if self.vacant == NONE {
            return slab::append(&mut self.records, flow);
        }
        let at = self.vacant;
        let record = &mut self.records[at as usize];
        self.vacant = record.newer;
        *record = flow;
        at
    }

    /// Removes a flow, and returns what it was.
    pub(crate) fn remove(&mut self, id: FlowId) -> Flow {
        let at = id.0;
        debug_assert_ne!(self.get(id).class, Class::Vacant, "removed before");
        for entry in [at << 1, at << 1 | 1] {
            let hash = self.hash.of_words(&entry_tuple(&self.records, entry).words());
            if let Ok(found) = self.index.find_entry(hash, |&other| other == entry) {
                found.remove();
            }
        }
        self.unlink(at);
        self.owners.remove(&mut self.records, at);
        let record = &mut self.records[at as usize];
        let flow = *record;
        record.class = Class::Vacant;
        record.newer = self.vacant;
        self.vacant = at;
        self.len -= 1;
        self.note(at);
        flow
    }

    /// Puts a flow at the end of a class's queue, as used now.
    #[inline]
    pub(crate) fn refresh(&mut self, id: FlowId, class: Class, now: Tick) {
        let flow = self.get_mut(id);
        if flow.class == class && flow.used == now {
            return;
        }
        let is_noted = flow.class == class && !flow.used.is_noted_again_at(now);
        self.unlink(id.0);
        let flow = self.get_mut(id);
        flow.class = class;
        flow.used = now;
        self.append(id.0, class);
        if self.get(id).rank == Rank::Opening {
            self.owners.renew(&mut self.records, id.0);
        }
        if !is_noted {
            self.note(id.0);
        }
    }

    /// Puts a flow that has changed where it is looked for when room is needed.
    #[inline]
    pub(crate) fn rank(&mut self, id: FlowId) {
        let flow = self.get(id);
        if flow.rank != Rank::of(flow) {
            self.owners.renew(&mut self.records, id.0);
        }
    }

    fn append(&mut self, at: u32, class: Class) {
        let queue = &mut self.queues[class as usize];
        let newest = std::mem::replace(&mut queue.newest, at);
        match newest {
            NONE => queue.oldest = at,
            newest => self.records[newest as usize].newer = at,
        }
        let flow = &mut self.records[at as usize];
        (flow.older, flow.newer) = (newest, NONE);
    }

    fn unlink(&mut self, at: u32) {
        let Flow { older, newer, class, .. } = self.records[at as usize];
        let queue = &mut self.queues[class as usize];
        match older {
            NONE => queue.oldest = newer,
            older => self.records[older as usize].newer = newer,
        }
        match newer {
            NONE => queue.newest = older,
            newer => self.records[newer as usize].older = older,
        }
    }

    /// The flow longest unused of a class.
    fn oldest(&self, class: Class) -> Option<FlowId> {
        let oldest = self.queues[class as usize].oldest;
        (oldest != NONE).then_some(FlowId(oldest))
    }

    /// The flow of a payer that makes room: one that is spent, or else the opening one longest unused.
    pub(crate) fn least_wanted_of(&self, payer: Payer) -> Option<FlowId> {
        self.owners.least_wanted(payer).map(FlowId)
    }

    /// The established flow of a payer that was not used for longest, of a few.
    pub(crate) fn least_used_of(&mut self, payer: Payer) -> Option<FlowId> {
        self.owners.least_used(&self.records, payer).map(FlowId)
    }

    /// A spent flow of a payer that fits, if there is one among a few.
    pub(crate) fn find_spent_of(&mut self, payer: Payer, fits: impl Fn(&Flow) -> bool) -> Option<FlowId> {
        self.owners.find_spent(&self.records, payer, fits).map(FlowId)
    }

    /// All flows that a payer is charged with.
    pub(crate) fn all_of(&self, payer: Payer) -> Vec<FlowId> {
        self.owners.all_of(&self.records, payer).into_iter().map(FlowId).collect()
    }

    /// The flows that others began and that cross to a sandbox.
    pub(crate) fn crossing_to(&self, sandbox: u32) -> impl Iterator<Item = FlowId> {
        self.owners.crossing_to(sandbox).map(FlowId)
    }

    /// A spent flow that fits, if there is one among a few of those longest unused.
    pub(crate) fn find_spent(&self, fits: impl Fn(&Flow) -> bool) -> Option<FlowId> {
        const LOOKS: usize = 16;
        let next = |id: &FlowId| Some(self.get(*id).newer).filter(|&newer| newer != NONE).map(FlowId);
        Class::ALL.into_iter().filter(|class| class.may_be_spent()).find_map(|class| {
            let queue = std::iter::successors(self.oldest(class), next);
            queue.take(LOOKS).find(|&id| fits(self.get(id)))
        })
    }

    /// A flow whose time is over.
    pub(crate) fn expired(&self, timeouts: &Timeouts, now: Instant) -> Option<FlowId> {
        let fronts = Class::ALL.into_iter().filter_map(|class| self.oldest(class));
        fronts.into_iter().find(|&id| self.expires(id, timeouts) <= now)
    }

    /// When the next flow's time is over.
    pub(crate) fn expires_next(&self, timeouts: &Timeouts) -> Option<Instant> {
        let fronts = Class::ALL.into_iter().filter_map(|class| self.oldest(class));
        fronts.map(|id| self.expires(id, timeouts)).min()
    }

    fn expires(&self, id: FlowId, timeouts: &Timeouts) -> Instant {
        let flow = self.get(id);
        flow.used.after(flow.class.timeout(timeouts)).instant()
    }

    /// How many records there are, with flows and without.
    pub(crate) fn records(&self) -> u32 {
        u32::try_from(self.records.len()).unwrap_or(NONE)
    }

    /// Every flow, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FlowId, &Flow)> {
        self.iter_in(0..NONE)
    }

    /// The flows of some records, by their numbers.
    pub(crate) fn iter_in(&self, numbers: Range<u32>) -> impl Iterator<Item = (FlowId, &Flow)> {
        let end = numbers.end.min(self.records()) as usize;
        let records = self.records.get(numbers.start as usize..end).unwrap_or_default();
        let records = (numbers.start..).zip(records);
        records.filter(|(_, flow)| flow.class != Class::Vacant).map(|(at, flow)| (FlowId(at), flow))
    }
}

#[inline]
fn entry_tuple(records: &[Flow], entry: u32) -> &Tuple {
    &records[(entry >> 1) as usize].tuples[(entry & 1) as usize]
}
