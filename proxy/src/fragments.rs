//! Fragments of containers' datagrams, put together again.
//!
//! # Theory of operation
//!
//! Only the first fragment of a datagram has ports, and it may come late. A fragment is looked at here if
//! there is a session between its two addresses. It is held until the first one says whether the datagram is
//! a session's: then the last to come completes it. If it is not, what follows goes on, as it would have
//! without us; a fragment that had come before is lost.
//!
//! | limit | at the limit |
//! |---|---|
//! | [`OF_CONTAINER`] datagrams of a container | its oldest is given up |
//! | [`OF_ALL`] datagrams | the oldest is given up |
//! | [`PARTS`] fragments of a datagram | it is refused |
//! | [`PATIENCE`] | it is given up |
//!
//! Fragments that overlap, or disagree on the end, have a datagram refused with all that follows of it (RFC
//! 5722, 4); one that comes twice is dropped.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use vswitch_frame::headers::be16;
use vswitch_frame::{Frame, Instant, NetworkId};

use crate::deadlines::Deadlines;

/// Datagrams of one container that are put together at once.
pub const OF_CONTAINER: usize = 16;
/// Datagrams that are put together at once: with the largest ones, 16 MiB.
pub const OF_ALL: usize = 256;
/// Fragments of one datagram: the largest one has as many where the MTU is 576 bytes.
pub const PARTS: usize = 128;
/// How long a datagram may take, as in Linux (`net.ipv4.ipfrag_time`).
pub const PATIENCE: Duration = Duration::from_secs(30);

const DATAGRAM_BYTES_MAX: usize = 65_535;
const UDP_BYTES: usize = 8;

/// The name of a datagram in fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) network: NetworkId,
    pub(crate) container: IpAddr,
    pub(crate) target: IpAddr,
    pub(crate) identification: u32,
}

/// A fragment of a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) identification: u32,
    offset: usize,
    more: bool,
    bytes: &'a [u8],
}

/// The outcome of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is not ours.
    Others,
    /// It is held, or dropped as one that came before.
    Held,
    /// It is dropped, with its datagram.
    Refused,
    /// It completes these bytes, the UDP header and what is behind it.
    Whole(Vec<u8>),
}

#[derive(Debug)]
enum Datagram {
    /// On its way.
    Parts(Parts),
    /// Not ours: what follows goes on.
    Others,
    /// Dropped, with what follows.
    Refused,
}

#[derive(Debug, Default)]
struct Parts {
    bytes: Vec<u8>,
    /// Starts and ends of what has come, in order.
    ranges: Vec<(usize, usize)>,
    end: Option<usize>,
}

/// A fragment that does not fit with the others.
#[derive(Debug)]
struct Conflict;

/// Datagrams of which something is missing.
#[derive(Debug)]
pub(crate) struct Fragments {
    all: BTreeMap<Key, (Instant, Datagram)>,
    deadlines: Deadlines<Key>,
    /// Datagrams of ours that were given up.
    pub(crate) given_up: u64,
}

impl Fragments {
    pub(crate) fn new() -> Self {
        Self { all: BTreeMap::new(), deadlines: Deadlines::new(), given_up: 0 }
    }

    /// Takes a fragment. `is_ours` says of the ports of the first one whether they are a session's.
    pub(crate) fn take(
        &mut self,
        key: Key,
        part: &Part<'_>,
        is_ours: impl FnOnce(u16, u16) -> bool,
        now: Instant,
    ) -> Outcome {
        let ours = part.ports().map(|(from, to)| is_ours(from, to));
        match (self.all.get(&key), ours) {
            (Some((_, Datagram::Others)), None) => return Outcome::Others,
            (_, Some(false)) => {
                self.begin(key, Datagram::Others, now);
                return Outcome::Others;
            }
            (None, _) | (Some((_, Datagram::Others)), Some(true)) => {
                self.begin(key, Datagram::Parts(Parts::default()), now);
            }
            (Some(_), _) => {}
        }
        let Some((_, datagram)) = self.all.get_mut(&key) else { return Outcome::Refused };
        let Datagram::Parts(parts) = datagram else { return Outcome::Refused };
        match parts.add(part) {
            Ok(false) => Outcome::Held,
            Ok(true) => {
                let whole = std::mem::take(&mut parts.bytes);
                self.end(&key);
                Outcome::Whole(whole)
            }
            Err(Conflict) => {
                *datagram = Datagram::Refused;
                self.given_up += 1;
                Outcome::Refused
            }
        }
    }

    /// Datagrams of a container, and since when each is on its way.
    fn of(&self, network: NetworkId, container: IpAddr) -> impl Iterator<Item = (Key, Instant)> {
        let first = Key { network, container, target: IpAddr::from([0; 4]), identification: 0 };
        let its = self.all.range(first..).map(|(key, (since, _))| (*key, *since));
        its.take_while(move |(key, _)| (key.network, key.container) == (network, container))
    }

    /// Gives up all that is held of a container's.
    pub(crate) fn forget(&mut self, network: NetworkId, container: IpAddr) {
        let its: Vec<_> = self.of(network, container).map(|(key, _)| key).collect();
        its.iter().for_each(|key| self.give_up(key));
    }

    /// Makes room for a datagram, and notes it.
    fn begin(&mut self, key: Key, datagram: Datagram, now: Instant) {
        self.give_up(&key);
        let its = self.of(key.network, key.container);
        let (count, oldest) = its.fold((0, None), |(count, oldest): (usize, Option<(Key, Instant)>), one| {
            (count + 1, oldest.filter(|(_, since)| *since <= one.1).or(Some(one)))
        });
        if count >= OF_CONTAINER {
            oldest.inspect(|(oldest, _)| self.give_up(oldest));
        }
        if self.all.len() >= OF_ALL {
            self.deadlines.first_key().inspect(|oldest| self.give_up(oldest));
        }
        self.all.insert(key, (now, datagram));
        self.deadlines.set(key, Some(now + PATIENCE));
    }

    fn give_up(&mut self, key: &Key) {
        let ended = self.end(key);
        self.given_up += u64::from(matches!(ended, Some(Datagram::Parts(_))));
    }

    fn end(&mut self, key: &Key) -> Option<Datagram> {
        self.deadlines.set(*key, None);
        self.all.remove(key).map(|(_, datagram)| datagram)
    }

    /// Gives up those that take too long.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.take(now) {
            self.give_up(&key);
        }
    }

    /// When [`expire`](Self::expire) is due.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.deadlines.first()
    }
}

impl<'a> Part<'a> {
    /// The fragment of a datagram that a frame is, if it is one.
    pub(crate) fn of(frame: &'a Frame) -> Option<Self> {
        let (bytes, headers) = (frame.bytes(), &frame.headers);
        let (network, transport) = (headers.network_offset(), headers.transport_offset());
        let payload = bytes.get(transport..headers.end_offset())?;
        if headers.is_ipv4() {
            let (identification, place) = (be16(bytes, network + 4), be16(bytes, network + 6));
            return Some(Self {
                identification: identification.into(),
                offset: usize::from(place & 0x1fff) * 8,
                more: place & 0x2000 != 0,
                bytes: payload,
            });
        }
        // The header of a fragment is the last before its payload.
        let header = bytes.get(transport.checked_sub(8)?..transport)?;
        let (place, high, low) = (be16(header, 2), be16(header, 4), be16(header, 6));
        Some(Self {
            identification: u32::from(high) << 16 | u32::from(low),
            offset: usize::from(place & !7),
            more: place & 1 != 0,
            bytes: payload,
        })
    }

    /// The ports of the two ends, in the first fragment.
    fn ports(&self) -> Option<(u16, u16)> {
        let has_ports = self.offset == 0 && self.bytes.len() >= UDP_BYTES;
        has_ports.then(|| (be16(self.bytes, 0), be16(self.bytes, 2)))
    }
}

impl Parts {
    /// Adds a fragment, and says whether it completes the datagram.
    fn add(&mut self, part: &Part<'_>) -> Result<bool, Conflict> {
        let range @ (start, end) = (part.offset, part.offset + part.bytes.len());
        let has_right_size = start < end && (!part.more || end % 8 == 0) && end <= DATAGRAM_BYTES_MAX;
        let is_short = start == 0 && end < UDP_BYTES;
        if !has_right_size || is_short {
            return Err(Conflict);
        }
        let place = self.ranges.partition_point(|(before, _)| *before < start);
        if self.ranges.get(place) == Some(&range) {
            return Ok(false);
        }
        let overlaps = place.checked_sub(1).is_some_and(|before| self.ranges[before].1 > start)
            || self.ranges.get(place).is_some_and(|(next, _)| *next < end);
        let is_beyond = self.end.is_some_and(|last| end > last || !part.more);
        let is_last_before_others = !part.more && self.bytes.len() > end;
        if overlaps || is_beyond || is_last_before_others || self.ranges.len() >= PARTS {
            return Err(Conflict);
        }
        if !part.more {
            self.end = Some(end);
        }
        self.ranges.insert(place, range);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(part.bytes);
        let has: usize = self.ranges.iter().map(|(start, end)| end - start).sum();
        Ok(self.end == Some(has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1);

    fn key(container: u8, identification: u32) -> Key {
        let [container, target] = [container, 1].map(|last| IpAddr::from([172, 17, 0, last]));
        Key { network: NetworkId(1), container, target, identification }
    }

    fn part(offset: usize, bytes: &[u8], more: bool) -> Part<'_> {
        Part { identification: 0, offset, more, bytes }
    }

    fn take(fragments: &mut Fragments, key: Key, part: Part<'_>) -> Outcome {
        fragments.take(key, &part, |from, _| from == 0x0101, START)
    }

    #[test]
    fn fragments_in_any_order_make_the_datagram() {
        let bytes: Vec<u8> = [[1; 8], [2; 8], [3; 8]].concat();
        let parts =
            [part(0, &bytes[..8], true), part(8, &bytes[8..16], true), part(16, &bytes[16..23], false)];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut fragments = Fragments::new();
            for nth in &order[..2] {
                assert_eq!(take(&mut fragments, key(2, 7), parts[*nth]), Outcome::Held, "{order:?}");
                assert_eq!(take(&mut fragments, key(2, 7), parts[*nth]), Outcome::Held, "it comes twice");
            }
            let whole = take(&mut fragments, key(2, 7), parts[order[2]]);
            assert_eq!(whole, Outcome::Whole(bytes[..23].to_vec()), "{order:?}");
            assert_eq!((fragments.all.len(), fragments.poll_at()), (0, None));
        }
    }

    #[test]
    fn a_datagram_of_another_goes_on() {
        let mut fragments = Fragments::new();
        for more in [true, true, false] {
            assert_eq!(take(&mut fragments, key(2, 7), part(0, &[9; 8], more)), Outcome::Others);
            assert_eq!(take(&mut fragments, key(2, 7), part(8, &[1; 8], more)), Outcome::Others);
        }
        // Again the name, now a session's.
        assert_eq!(take(&mut fragments, key(2, 7), part(0, &[1; 8], true)), Outcome::Held);
        assert_eq!(take(&mut fragments, key(2, 7), part(8, &[1; 8], false)), Outcome::Whole(vec![1; 16]));
        assert_eq!(fragments.given_up, 0);
    }

    #[test]
    fn fragments_that_do_not_fit_have_their_datagram_refused() {
        let first = part(0, &[1; 16], true);
        for (before, wrong) in [
            (first, part(8, &[1; 16], true)),
            (first, part(0, &[1; 8], true)),
            (part(8, &[1; 16], true), part(0, &[1; 16], true)),
            (part(8, &[1; 8], true), part(0, &[1; 32], true)),
            (part(32, &[1; 8], true), part(16, &[1; 8], false)),
            (part(16, &[1; 8], false), part(32, &[1; 8], true)),
            (part(16, &[1; 8], false), part(8, &[1; 8], false)),
            (first, part(16, &[1; 9], true)),
            (first, part(16, &[], false)),
            (first, part(65_528, &[1; 8], true)),
            (part(8, &[1; 8], true), part(0, &[1; 7], false)),
        ] {
            let mut fragments = Fragments::new();
            assert_eq!(take(&mut fragments, key(2, 7), before), Outcome::Held);
            assert_eq!(take(&mut fragments, key(2, 7), wrong), Outcome::Refused, "{before:?} {wrong:?}");
            assert_eq!(take(&mut fragments, key(2, 7), first), Outcome::Refused, "and what follows");
            assert_eq!(fragments.given_up, 1);
        }
    }

    #[test]
    fn a_hostile_container_takes_no_more_than_its_part() {
        let mut fragments = Fragments::new();
        assert_eq!(take(&mut fragments, key(2, 0), part(0, &[1; 8], true)), Outcome::Held);
        for identification in 1..1000 {
            take(&mut fragments, key(3, identification), part(65_504, &[1; 8], true));
        }
        assert_eq!(fragments.all.len(), 1 + OF_CONTAINER);
        let held: usize = fragments.all.values().map(|(_, datagram)| size(datagram)).sum();
        assert!(held <= (1 + OF_CONTAINER) * DATAGRAM_BYTES_MAX, "{held} bytes");
        let whole = take(&mut fragments, key(2, 0), part(8, &[1; 8], false));
        assert_eq!(whole, Outcome::Whole(vec![1; 16]), "others are not harmed");
        // As small as they come.
        let outcomes: Vec<Outcome> =
            (0..1000).map(|nth| take(&mut fragments, key(4, 0), part(nth * 16, &[1; 8], true))).collect();
        let held = outcomes.iter().filter(|outcome| **outcome == Outcome::Held).count();
        assert_eq!((held, &outcomes[PARTS]), (PARTS, &Outcome::Refused));
    }

    #[test]
    fn many_hostile_containers_take_no_more_than_all_may() {
        let mut fragments = Fragments::new();
        for container in 2..200 {
            (0..20).for_each(|n| drop(take(&mut fragments, key(container, n), part(8, &[1; 8], true))));
        }
        assert_eq!(fragments.all.len(), OF_ALL);
        fragments.expire(START + PATIENCE.saturating_sub(Duration::from_nanos(1)));
        assert_eq!(fragments.all.len(), OF_ALL);
        assert_eq!(fragments.poll_at(), Some(START + PATIENCE));
        fragments.expire(START + PATIENCE);
        assert_eq!((fragments.all.len(), fragments.poll_at()), (0, None));
        assert_eq!(fragments.given_up, 198 * 20, "each is counted");
    }

    fn size(datagram: &Datagram) -> usize {
        match datagram {
            Datagram::Parts(parts) => parts.bytes.capacity(),
            Datagram::Others | Datagram::Refused => 0,
        }
    }
}
