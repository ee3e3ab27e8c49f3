//! The table of flows: records, an index of both sides, and one queue a class.
//!
//! # Theory of operation
//!
//! * **Records** are a slab of plain data that never shrinks; free ones are a list.
//! * **Index.** One hash table holds every flow twice, under the tuple of either side: one look-up finds the
//!   flow of a packet and which side sent it. An entry is a record's number and the side, in 32 bits.
//! * **Queues.** A class has one time-out, so a list in the order of use is a list in the order of expiry:
//!   to refresh is to move to the end, to expire is to look at the front. All are of constant cost.
//! * **At the limit** the flow longest unused of those that are not established makes room.

use std::hint::black_box;
use std::ops::Range;

use hashbrown::HashTable;
use vswitch_frame::Instant;
use vswitch_frame::hash::SeededHash;

use crate::flow::{Class, Flow, Side};
use crate::limits::Timeouts;
use crate::tick::Tick;
use crate::tuple::Tuple;

/// No record.
pub(crate) const NONE: u32 = u32::MAX;

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
    index: HashTable<u32>,
    queues: [Queue; Class::ALL.len()],
    hash: SeededHash,
}

impl Table {
    pub(crate) fn new(limit: usize, hash: SeededHash) -> Self {
        let limit = limit.min((NONE / 2) as usize);
        Self {
            records: Vec::with_capacity(limit),
            vacant: NONE,
            len: 0,
            limit,
            index: HashTable::with_capacity(limit * 2),
            queues: [Queue { oldest: NONE, newest: NONE }; Class::ALL.len()],
            hash,
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
            // The tag of the first entry that fits is almost always that of the flow; its tuple is not compared.
            let Some(entry) = self.index.iter_hash(hash).next() else { continue };
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

    /// Adds a flow whose tuples no flow has, to a table that is not full.
    pub(crate) fn insert(&mut self, flow: Flow) -> FlowId {
        debug_assert!(!self.is_full() && flow.tuples.iter().all(|tuple| self.find(tuple).is_none()));
        let at = self.take_record(flow);
        for entry in [at << 1, at << 1 | 1] {
            let hash = self.hash.of_words(&entry_tuple(&self.records, entry).words());
            let Self { index, records, hash: hasher, .. } = self;
            index.insert_unique(hash, entry, |&entry| hasher.of(&entry_tuple(records, entry).words()));
        }
        self.append(at, flow.class);
        self.len += 1;
        FlowId(at)
    }

    fn take_record(&mut self, flow: Flow) -> u32 {
        if self.vacant == NONE {
            self.records.push(flow);
            return u32::try_from(self.records.len() - 1).unwrap_or(NONE);
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
        let record = &mut self.records[at as usize];
        let flow = *record;
        record.class = Class::Vacant;
        record.newer = self.vacant;
        self.vacant = at;
        self.len -= 1;
        flow
    }

    /// Puts a flow at the end of a class's queue, as used now.
    #[inline]
    pub(crate) fn refresh(&mut self, id: FlowId, class: Class, now: Tick) {
        let flow = self.get_mut(id);
        if flow.class == class && flow.used == now {
            return;
        }
        self.unlink(id.0);
        let flow = self.get_mut(id);
        flow.class = class;
        flow.used = now;
        self.append(id.0, class);
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

    /// The flow that makes room: of those that are not established the one longest unused.
    pub(crate) fn least_wanted(&self) -> Option<FlowId> {
        let classes = Class::ALL.into_iter().filter(|class| !class.is_established());
        classes.filter_map(|class| self.oldest(class)).min_by_key(|&id| self.get(id).used)
    }

    /// Of those that are not established and longest unused, one of a sandbox. Looks at a few of each class,
    /// which finds one when the sandbox has most of them.
    pub(crate) fn least_wanted_of(&self, sandbox: u32) -> Option<FlowId> {
        const LOOKS: usize = 32;
        let classes = Class::ALL.into_iter().filter(|class| !class.is_established());
        let next = |id: &FlowId| Some(self.get(*id).newer).filter(|&newer| newer != NONE).map(FlowId);
        let found = classes.filter_map(|class| {
            let queue = std::iter::successors(self.oldest(class), next);
            queue.take(LOOKS).find(|&id| self.get(id).sandbox == sandbox)
        });
        found.min_by_key(|&id| self.get(id).used)
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
