//! Fragments: the first of a datagram names its flow, the others follow it (RFC 4787, REQ-14).
//!
//! # Theory of operation
//!
//! A datagram is known by addresses, protocol and identification. Its first fragment is translated like any
//! packet, and what became of it is noted: the others go the same way with the same addresses. Fragments that
//! come before the first wait for it, a bounded number of them.
//!
//! **Overlaps.** A receiver that keeps the first bytes and one that keeps the last see two datagrams, which
//! is how attacks get past whoever looks at the first. So no byte of a datagram passes twice: what is
//! there already is dropped, and what overlaps only partly ends the datagram (RFC 5722).
//!
//! **Limits.** At either limit the port that has most makes way. At the limit of datagrams its oldest is
//! forgotten, whose late fragments wait in vain. At that of waiting fragments its oldest datagram that waits
//! loses them, but if the next comes from the same port, that one is dropped. A datagram in more than
//! [`SPANS`] pieces that do not touch is ended.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vswitch_frame::{DropReason, Frame, Instant, PortId};

use crate::ip::{Ip, Piece};
use crate::tick::Tick;
use crate::tuple::{Address, Realm};
use crate::verdict::Fate;

/// Pieces of a datagram that do not touch each other.
const SPANS: usize = 16;

/// A datagram: source, target, identification, protocol, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Datagram {
    source: Address,
    target: Address,
    id: u32,
    protocol: u8,
    realm: Realm,
}

impl Datagram {
    pub(crate) fn new(ip: &Ip, piece: &Piece, realm: Realm) -> Self {
        Self { source: ip.source, target: ip.target, id: piece.id, protocol: ip.protocol, realm }
    }

    /// The way of what is dropped.
    fn dropped(&self, reason: DropReason) -> Way {
        Way { fate: Fate::Dropped(reason), source: self.source, target: self.target, id: self.id }
    }
}

/// Where the fragments of a datagram go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) fate: Fate,
    pub(crate) source: Address,
    pub(crate) target: Address,
    /// Their identification.
    pub(crate) id: u32,
}

#[derive(Debug)]
struct Known {
    /// The port at which it came in first.
    port: PortId,
    way: Option<Way>,
    /// Spans of it that there are, in order; pieces that touch are one.
    spans: Vec<(u32, u32)>,
    /// Where it ends, once the last piece was seen.
    end: Option<u32>,
    waiting: Vec<(PortId, Frame)>,
    since: Tick,
}

/// The next step of a fragment that is not the first.
#[derive(Debug)]
pub(crate) enum Next {
    /// Send it on its way.
    Go(Way, Frame),
    /// It waits.
    Wait,
    /// Drop it.
    Drop(DropReason, Frame),
}

/// All datagrams there are fragments of. See the [module](self) for how it works.
#[derive(Debug)]
pub(crate) struct Fragments {
    known: BTreeMap<Datagram, Known>,
    /// In the order of their age; some may be forgotten already.
    ages: VecDeque<(Tick, Datagram)>,
    /// Ages by the port they came in at, in the same way, and how many there are.
    by_port: BTreeMap<PortId, (usize, VecDeque<(Tick, Datagram)>)>,
    /// The datagram of each fragment that waits, in the order of their coming.
    queue: VecDeque<(PortId, Datagram)>,
    /// Frames that wait, and those that have waited in vain.
    waiting: usize,
    lost: Vec<(PortId, Frame)>,
    datagrams_max: usize,
    waiting_max: usize,
    timeout: Duration,
}

impl Fragments {
    pub(crate) fn new(datagrams_max: usize, waiting_max: usize, timeout: Duration) -> Self {
        Self {
            known: BTreeMap::new(),
            ages: VecDeque::new(),
            by_port: BTreeMap::new(),
            queue: VecDeque::new(),
            waiting: 0,
            lost: Vec::new(),
            datagrams_max,
            waiting_max,
            timeout,
        }
    }

    /// Notes a piece of a datagram, before it is looked at. Frames that waited for a datagram that had to
    /// be forgotten go to `lost`.
    ///
    /// # Errors
    /// When it may not pass, because it overlaps what is there.
    pub(crate) fn note(
        &mut self,
        datagram: Datagram,
        piece: &Piece,
        port: PortId,
        now: Instant,
        lost: &mut Vec<(PortId, Frame)>,
    ) -> Result<(), DropReason> {
        if !self.known.contains_key(&datagram) {
            if self.known.len() >= self.datagrams_max {
                self.forget_of_greatest(lost);
            }
            self.begin(datagram, port, Tick::at(now));
        }
        let Some(known) = self.known.get_mut(&datagram) else {
            return Err(DropReason::NatFragmentLost);
        };
        match known.add(piece) {
            Ok(()) => Ok(()),
            Err(Overlap::Whole) => Err(DropReason::NatFragmentOverlap),
            Err(Overlap::Part) => {
                known.way = Some(datagram.dropped(DropReason::NatFragmentOverlap));
                lost.extend(self.take_waiting(&datagram));
                Err(DropReason::NatFragmentOverlap)
            }
        }
    }

    /// The way of a datagram whose first fragment was seen.
    pub(crate) fn way(&self, datagram: &Datagram) -> Option<Way> {
        self.known.get(datagram).and_then(|known| known.way)
    }

    /// A noted fragment behind the first: goes on, or waits.
    pub(crate) fn follow(
        &mut self,
        datagram: &Datagram,
        port: PortId,
        frame: Frame,
        lost: &mut Vec<(PortId, Frame)>,
    ) -> Next {
        if let Some(way) = self.way(datagram) {
            return Next::Go(way, frame);
        }
        if self.waiting >= self.waiting_max {
            match self.waiting_most().filter(|(greatest, _)| *greatest != port) {
                Some((_, oldest)) => lost.extend(self.take_waiting(&oldest)),
                None => return Next::Drop(DropReason::NatFragmentLost, frame),
            }
        }
        let Some(known) = self.known.get_mut(datagram) else {
            return Next::Drop(DropReason::NatFragmentLost, frame);
        };
        known.waiting.push((port, frame));
        self.queue.push_back((port, *datagram));
        self.waiting += 1;
        Next::Wait
    }

    /// The port of which most fragments wait, and its oldest datagram that does.
    fn waiting_most(&self) -> Option<(PortId, Datagram)> {
        let mut counts = BTreeMap::new();
        self.queue.iter().for_each(|(port, _)| *counts.entry(*port).or_insert(0) += 1);
        let (greatest, _) = counts.into_iter().max_by_key(|&(_, count): &(PortId, usize)| count)?;
        self.queue.iter().find(|(port, _)| *port == greatest).copied()
    }

    /// The fragments of a datagram that have waited: they do no more.
    fn take_waiting(&mut self, datagram: &Datagram) -> Vec<(PortId, Frame)> {
        let Some(known) = self.known.get_mut(datagram) else { return Vec::new() };
        let waiting = std::mem::take(&mut known.waiting);
        if !waiting.is_empty() {
            self.waiting -= waiting.len();
            self.queue.retain(|(_, other)| other != datagram);
        }
        waiting
    }

    /// The first fragment went a way: returns those that waited for it.
    pub(crate) fn lead(&mut self, datagram: &Datagram, way: Way) -> Vec<(PortId, Frame)> {
        if let Some(known) = self.known.get_mut(datagram) {
            known.way = Some(way);
        }
        self.take_waiting(datagram)
    }

    /// Forgets a datagram all of which was seen: its identification may come again soon.
    pub(crate) fn finish(&mut self, datagram: &Datagram) {
        let is_whole = |known: &Known| known.end.is_some_and(|end| known.spans == [(0, end)]);
        if self.known.get(datagram).is_some_and(is_whole) {
            self.remove(datagram);
        }
    }

    fn begin(&mut self, datagram: Datagram, port: PortId, since: Tick) {
        let known = Known { port, way: None, spans: Vec::new(), end: None, waiting: Vec::new(), since };
        self.known.insert(datagram, known);
        let Self { known, ages, by_port, datagrams_max, .. } = self;
        let (count, own) = by_port.entry(port).or_default();
        *count += 1;
        for ages in [ages, own] {
            ages.push_back((since, datagram));
            // Ages of datagrams that were seen as a whole go when there are more of them than of others.
            if ages.len() > 2 * *datagrams_max {
                ages.retain(|(since, datagram)| is_since(known, *since, datagram));
            }
        }
    }

    fn remove(&mut self, datagram: &Datagram) {
        let Some(Known { port, .. }) = self.known.remove(datagram) else { return };
        if let Some((count, _)) = self.by_port.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.by_port.remove(&port);
            }
        }
    }

    /// Forgets the oldest datagram of the port that has most.
    fn forget_of_greatest(&mut self, lost: &mut Vec<(PortId, Frame)>) {
        let Some((_, ages)) = self.by_port.values_mut().max_by_key(|(count, _)| *count) else { return };
        while let Some((since, datagram)) = ages.pop_front() {
            if is_since(&self.known, since, &datagram) {
                lost.extend(self.take_waiting(&datagram));
                return self.remove(&datagram);
            }
        }
    }

    /// Forgets datagrams that are too old.
    pub(crate) fn expire(&mut self, now: Instant, lost: &mut Vec<(PortId, Frame)>) {
        self.waiting -= self.lost.len();
        lost.append(&mut self.lost);
        while self.due().is_some_and(|due| due <= now) {
            let Some((since, datagram)) = self.ages.pop_front() else {
                return;
            };
            if is_since(&self.known, since, &datagram) {
                lost.extend(self.take_waiting(&datagram));
                self.remove(&datagram);
            }
        }
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        if !self.lost.is_empty() {
            return Some(Instant::ZERO);
        }
        self.ages.front().map(|(since, _)| since.after(self.timeout).instant())
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Has what is still to come of datagrams from and to an address of a realm dropped: it is somebody
    /// else's, or soon will be.
    pub(crate) fn forget(&mut self, realm: Realm, is_gone: impl Fn(Address) -> bool) {
        let mut going = Vec::new();
        for (datagram, known) in &mut self.known {
            let leads = known.way.filter(|way| Fate::to(realm) == way.fate);
            let own = (datagram.realm == realm).then_some(datagram.source);
            if own.is_some_and(&is_gone) || leads.is_some_and(|way| is_gone(way.target)) {
                known.way = Some(datagram.dropped(DropReason::NatFragmentLost));
                going.push(*datagram);
            }
        }
        for datagram in going {
            let mut waited = self.take_waiting(&datagram);
            self.waiting += waited.len();
            self.lost.append(&mut waited);
        }
    }
}

/// Whether an age is that of a datagram as it is known now.
fn is_since(known: &BTreeMap<Datagram, Known>, since: Tick, datagram: &Datagram) -> bool {
    known.get(datagram).is_some_and(|known| known.since == since)
}

impl Known {
    /// Notes a piece. Behind the last one there is nothing.
    fn add(&mut self, piece: &Piece) -> Result<(), Overlap> {
        let reached = self.spans.last().map_or(0, |span| span.1);
        let is_behind = self.end.is_some_and(|end| piece.to > end || !piece.more && piece.to != end);
        if is_behind || !piece.more && reached > piece.to {
            return Err(Overlap::Part);
        }
        add_span(&mut self.spans, (piece.from, piece.to))?;
        if !piece.more {
            self.end = Some(piece.to);
        }
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Overlap {
    /// All of it is there.
    Whole,
    /// Some of it is there, or there are too many pieces.
    Part,
}

/// Adds a piece to those there are.
fn add_span(spans: &mut Vec<(u32, u32)>, (from, to): (u32, u32)) -> Result<(), Overlap> {
    let at = spans.partition_point(|span| span.1 < from);
    if spans.iter().any(|span| span.0 <= from && to <= span.1) {
        return Err(Overlap::Whole);
    }
    if spans.iter().any(|span| span.0 < to && from < span.1) || spans.len() >= SPANS {
        return Err(Overlap::Part);
    }
    let touches_before = spans.get(at).is_some_and(|span| span.1 == from);
    let next = at + usize::from(touches_before);
    let touches_behind = spans.get(next).is_some_and(|span| span.0 == to);
    match (touches_before, touches_behind) {
        (true, true) => {
            spans[at].1 = spans[next].1;
            spans.remove(next);
        }
        (true, false) => spans[at].1 = to,
        (false, true) => spans[next].0 = from,
        (false, false) => spans.insert(at, (from, to)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_touch_become_one_and_overlaps_are_found() {
        let mut spans = Vec::new();
        for span in [(16, 24), (0, 8), (32, 40), (8, 16)] {
            assert_eq!(add_span(&mut spans, span), Ok(()));
        }
        assert_eq!(spans, [(0, 24), (32, 40)]);
        assert_eq!(add_span(&mut spans, (8, 16)), Err(Overlap::Whole));
        assert_eq!(add_span(&mut spans, (16, 32)), Err(Overlap::Part));
        assert_eq!(add_span(&mut spans, (24, 40)), Err(Overlap::Part));
        assert_eq!(add_span(&mut spans, (0, 48)), Err(Overlap::Part));
        assert_eq!(add_span(&mut spans, (24, 32)), Ok(()));
        assert_eq!(spans, [(0, 40)]);
    }
}
