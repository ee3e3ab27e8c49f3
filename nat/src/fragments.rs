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
//! **Limits.** At the limit of datagrams the oldest is forgotten; its late fragments wait in vain. At the
//! limit of waiting fragments the next is dropped. A datagram in more than [`SPANS`] pieces that do not
//! touch is ended.

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
    waiting: usize,
    datagrams_max: usize,
    waiting_max: usize,
    timeout: Duration,
}

impl Fragments {
    pub(crate) fn new(datagrams_max: usize, waiting_max: usize, timeout: Duration) -> Self {
        let (known, ages) = (BTreeMap::new(), VecDeque::new());
        Self { known, ages, waiting: 0, datagrams_max, waiting_max, timeout }
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
        now: Instant,
        lost: &mut Vec<(PortId, Frame)>,
    ) -> Result<(), DropReason> {
        if !self.known.contains_key(&datagram) {
            if self.known.len() >= self.datagrams_max {
                self.forget_oldest(lost);
            }
            let since = Tick::at(now);
            let known = Known { way: None, spans: Vec::new(), end: None, waiting: Vec::new(), since };
            self.known.insert(datagram, known);
            self.ages.push_back((since, datagram));
            self.prune_ages();
        }
        let Some(known) = self.known.get_mut(&datagram) else {
            return Err(DropReason::NatFragmentLost);
        };
        match known.add(piece) {
            Ok(()) => Ok(()),
            Err(Overlap::Whole) => Err(DropReason::NatFragmentOverlap),
            Err(Overlap::Part) => {
                let way = Way {
                    fate: Fate::Dropped(DropReason::NatFragmentOverlap),
                    source: datagram.source,
                    target: datagram.target,
                    id: datagram.id,
                };
                known.way = Some(way);
                self.waiting -= known.waiting.len();
                lost.append(&mut known.waiting);
                Err(DropReason::NatFragmentOverlap)
            }
        }
    }

    /// The way of a datagram whose first fragment was seen.
    pub(crate) fn way(&self, datagram: &Datagram) -> Option<Way> {
        self.known.get(datagram).and_then(|known| known.way)
    }

    /// A noted fragment behind the first: goes on, or waits.
    pub(crate) fn follow(&mut self, datagram: &Datagram, port: PortId, frame: Frame) -> Next {
        match self.known.get_mut(datagram) {
            Some(Known { way: Some(way), .. }) => Next::Go(*way, frame),
            Some(known) if self.waiting < self.waiting_max => {
                self.waiting += 1;
                known.waiting.push((port, frame));
                Next::Wait
            }
            _ => Next::Drop(DropReason::NatFragmentLost, frame),
        }
    }

    /// The first fragment went a way: returns those that waited for it.
    pub(crate) fn lead(&mut self, datagram: &Datagram, way: Way) -> Vec<(PortId, Frame)> {
        let Some(known) = self.known.get_mut(datagram) else {
            return Vec::new();
        };
        known.way = Some(way);
        self.waiting -= known.waiting.len();
        std::mem::take(&mut known.waiting)
    }

    /// Forgets a datagram all of which was seen: its identification may come again soon.
    pub(crate) fn finish(&mut self, datagram: &Datagram) {
        let is_whole = |known: &Known| known.end.is_some_and(|end| known.spans == [(0, end)]);
        if self.known.get(datagram).is_some_and(is_whole) {
            self.known.remove(datagram);
        }
    }

    /// Drops ages of datagrams that were seen as a whole, when there are more of them than of others.
    fn prune_ages(&mut self) {
        if self.ages.len() > 2 * self.datagrams_max {
            let Self { ages, known, .. } = self;
            ages.retain(|(since, datagram)| known.get(datagram).is_some_and(|known| known.since == *since));
        }
    }

    fn forget_oldest(&mut self, lost: &mut Vec<(PortId, Frame)>) {
        while let Some((since, datagram)) = self.ages.pop_front() {
            if self.known.get(&datagram).is_some_and(|known| known.since == since)
                && let Some(mut known) = self.known.remove(&datagram)
            {
                self.waiting -= known.waiting.len();
                lost.append(&mut known.waiting);
                return;
            }
        }
    }

    /// Forgets datagrams that are too old.
    pub(crate) fn expire(&mut self, now: Instant, lost: &mut Vec<(PortId, Frame)>) {
        while self.due().is_some_and(|due| due <= now) {
            let Some((since, datagram)) = self.ages.pop_front() else {
                return;
            };
            if self.known.get(&datagram).is_some_and(|known| known.since == since) {
                self.ages.push_front((since, datagram));
                self.forget_oldest(lost);
            }
        }
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.ages.front().map(|(since, _)| since.after(self.timeout).instant())
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }
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
