//! Shares: who has how many relays or sessions, and who gives way when all are taken.
//!
//! # Theory of operation
//!
//! A *holder* is a client's address, of IPv6 its /64, at one publication. As long as there is enough for all,
//! nobody's share is limited. When all is taken, a newcomer counts as if it had come in; then who has the
//! most gives way:
//!
//! 1. the publication that has the most, and in it
//! 2. the holder that has the most, of several the one that was silent for longest, and of its own
//! 3. the one that was silent for longest.
//!
//! So who wants less than the others gets it, whoever came first, and who fills the table loses its own. A
//! newcomer that would itself have the most, or as many as who does, gets a place only from one that was
//! silent for [`IDLE_MIN`]; else it is refused.
//!
//! Silence is not written down with each byte. One is looked at before it gives way, and if it has spoken
//! since, it goes to the end of its row: [`LOOKS`] times at most, so that no newcomer costs more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use vswitch_frame::Instant;

use crate::token::Token;

/// After so much silence one gives way to a newcomer that has no smaller share.
pub const IDLE_MIN: Duration = Duration::from_secs(10);
/// Looks before one gives way.
const LOOKS: usize = 16;
/// Bits of an IPv6 address that one client may choose at will.
const CHOSEN_BITS: u32 = 64;

/// A client at a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    publication: u64,
    client: IpAddr,
}

impl Holder {
    pub(crate) fn new(publication: u64, client: IpAddr) -> Self {
        let client = match client.to_canonical() {
            IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() >> CHOSEN_BITS << CHOSEN_BITS).into(),
            four @ IpAddr::V4(_) => four,
        };
        Self { publication, client }
    }
}

/// The part of one holder, or of one publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) count: usize,
    /// Bytes beyond the least that each one has.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
struct Entry {
    holder: Holder,
    /// It has spoken then, or later.
    since: Instant,
    bytes: usize,
}

/// Holders by what they have, the largest last, and of those the one that was silent for longest.
type Largest = BTreeSet<(u64, usize, Reverse<Instant>, IpAddr)>;

/// All that is taken, and by whom.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    all: BTreeMap<Token, Entry>,
    holders: BTreeMap<Holder, (Part, BTreeSet<(Instant, Token)>)>,
    largest: Largest,
    publications: BTreeMap<u64, Part>,
    largest_publications: BTreeSet<(usize, u64)>,
}

impl Shares {
    /// The part of a holder, and that of its publication.
    pub(crate) fn of(&self, holder: Holder) -> (Part, Part) {
        let own = self.holders.get(&holder).map_or(Part::default(), |(part, _)| *part);
        (own, self.publications.get(&holder.publication).copied().unwrap_or_default())
    }

    /// Gives a holder one more.
    pub(crate) fn add(&mut self, token: Token, holder: Holder, bytes: usize, now: Instant) {
        self.put(token, Entry { holder, since: now, bytes });
    }

    /// Takes one back.
    pub(crate) fn remove(&mut self, token: Token) {
        self.take(token);
    }

    /// The one that gives way to a newcomer, if one does. `spoken` says when one has spoken last.
    pub(crate) fn giving_way(
        &mut self,
        newcomer: Holder,
        spoken: impl Fn(Token) -> Instant,
        now: Instant,
    ) -> Option<Token> {
        for look in 1.. {
            let (holder, has_more) = self.largest_beside(newcomer)?;
            let (since, token) = *self.holders.get(&holder)?.1.first()?;
            let last = spoken(token);
            if last <= since || look == LOOKS {
                return (has_more || last + IDLE_MIN <= now).then_some(token);
            }
            if let Some(entry) = self.take(token) {
                self.put(token, Entry { since: last, ..entry });
            }
        }
        None
    }

    /// The holder that has the most if the newcomer counts as one that came in, and whether it has more than
    /// the newcomer then.
    fn largest_beside(&self, newcomer: Holder) -> Option<(Holder, bool)> {
        let (own, own_publication) = self.of(newcomer);
        let (count, publication) = *self.largest_publications.last()?;
        if count > own_publication.count + 1 {
            let (_, _, client) = self.largest_of(publication)?;
            return Some((Holder { publication, client }, true));
        }
        let (count, _, client) = self.largest_of(newcomer.publication)?;
        if count < own.count + 1 {
            return Some((newcomer, false));
        }
        Some((Holder { client, ..newcomer }, count > own.count + 1))
    }

    fn largest_of(&self, publication: u64) -> Option<(usize, Reverse<Instant>, IpAddr)> {
        let first = (publication, 0, Reverse(Instant::from_nanos(u64::MAX)), IpAddr::from([0; 4]));
        let next = (publication.checked_add(1)?, first.1, first.2, first.3);
        self.largest.range(first..next).next_back().map(|&(_, count, since, client)| (count, since, client))
    }

    fn put(&mut self, token: Token, entry: Entry) {
        let Entry { holder, since, bytes } = entry;
        self.change(holder, |part, its| {
            its.insert((since, token));
            part.count += 1;
            part.bytes += bytes;
        });
        self.all.insert(token, entry);
    }

    fn take(&mut self, token: Token) -> Option<Entry> {
        let entry = self.all.remove(&token)?;
        self.change(entry.holder, |part, its| {
            its.remove(&(entry.since, token));
            part.count -= 1;
            part.bytes -= entry.bytes;
        });
        Some(entry)
    }

    /// Changes what a holder has, and all that says how much that is.
    fn change(&mut self, holder: Holder, change: impl FnOnce(&mut Part, &mut BTreeSet<(Instant, Token)>)) {
        let Holder { publication, client } = holder;
        let place = |part: &Part, its: &BTreeSet<(Instant, Token)>| {
            its.first().map(|(since, _)| (publication, part.count, Reverse(*since), client))
        };
        let (part, its) = self.holders.entry(holder).or_default();
        let (before, was) = (*part, place(part, its));
        change(part, its);
        let (after, is) = (*part, place(part, its));
        if let Some(was) = was {
            self.largest.remove(&was);
        }
        match is {
            Some(is) => _ = self.largest.insert(is),
            None => _ = self.holders.remove(&holder),
        }
        let whole = self.publications.entry(publication).or_default();
        self.largest_publications.remove(&(whole.count, publication));
        whole.count = whole.count + after.count - before.count;
        whole.bytes = whole.bytes + after.bytes - before.bytes;
        if whole.count == 0 {
            self.publications.remove(&publication);
        } else {
            self.largest_publications.insert((whole.count, publication));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1);

    fn holder(publication: u64, client: &str) -> Holder {
        Holder::new(publication, client.parse().expect("an address"))
    }

    /// A table of so many places, in which nobody ever speaks again.
    struct Table {
        shares: Shares,
        places: usize,
        next: u64,
    }

    impl Table {
        fn new(places: usize) -> Self {
            Self { shares: Shares::default(), places, next: 0 }
        }

        /// Says whether a newcomer gets a place, and whose.
        fn come(&mut self, newcomer: Holder, now: Instant) -> Result<Option<Token>, ()> {
            let mut gone = None;
            if self.shares.all.len() >= self.places {
                let token = self.shares.giving_way(newcomer, |_| START, now).ok_or(())?;
                self.shares.remove(token);
                gone = Some(token);
            }
            self.next += 1;
            self.shares.add(Token(self.next), newcomer, 1, now);
            Ok(gone)
        }

        fn count(&self, holder: Holder) -> usize {
            self.shares.of(holder).0.count
        }
    }

    #[test]
    fn who_is_alone_may_have_all_and_loses_half_to_another() {
        for other in [holder(1, "10.0.0.2"), holder(2, "10.0.0.1"), holder(2, "2001:db8::1")] {
            let (mut table, filler) = (Table::new(100), holder(1, "10.0.0.1"));
            assert!((0..100).all(|_| table.come(filler, START) == Ok(None)));
            assert_eq!(table.come(filler, START), Err(()), "it is refused, and keeps what it has");
            for nth in 1..=50 {
                assert_eq!(table.come(other, START), Ok(Some(Token(nth))), "the oldest of the filler");
            }
            assert_eq!(table.come(other, START), Err(()), "now it would have more");
            assert_eq!(table.come(filler, START), Err(()));
            assert_eq!((table.count(filler), table.count(other)), (50, 50));
        }
    }

    #[test]
    fn many_addresses_of_one_client_are_one() {
        let mut table = Table::new(100);
        for n in 0..100 {
            assert_eq!(table.come(holder(1, &format!("2001:db8::{n:x}")), START), Ok(None));
        }
        assert_eq!(table.come(holder(1, "2001:db8::ffff"), START), Err(()));
        assert!(table.come(holder(1, "2001:db8:0:1::1"), START).is_ok(), "another client");
        assert_eq!(holder(1, "::ffff:10.0.0.1"), holder(1, "10.0.0.1"));
    }

    #[test]
    fn many_clients_of_one_publication_harm_no_other() {
        let mut table = Table::new(100);
        let quiet = holder(2, "10.9.9.9");
        assert!((0..3).all(|_| table.come(quiet, START) == Ok(None)));
        for n in 0..1000 {
            let _ = table.come(holder(1, &format!("10.0.{}.{}", n / 250, n % 250)), START + IDLE_MIN);
        }
        assert_eq!(table.count(quiet), 3);
        assert!(table.come(holder(3, "10.8.8.8"), START).is_ok());
        assert_eq!(table.count(quiet), 3);
    }

    #[test]
    fn among_equals_who_was_silent_for_long_gives_way() {
        let mut table = Table::new(3);
        for (nth, client) in ["10.0.0.3", "10.0.0.1", "10.0.0.2"].into_iter().enumerate() {
            let later = Duration::from_secs(u64::try_from(nth).expect("few"));
            table.come(holder(1, client), START + later).expect("a place");
        }
        let newcomer = holder(1, "10.0.0.9");
        let early = START + IDLE_MIN.saturating_sub(Duration::from_nanos(1));
        assert_eq!(table.come(newcomer, early), Err(()), "nobody was silent for long");
        assert_eq!(table.come(newcomer, START + IDLE_MIN), Ok(Some(Token(1))));
    }

    #[test]
    fn who_has_spoken_since_goes_to_the_end_of_the_row() {
        let (mut shares, filler) = (Shares::default(), holder(1, "10.0.0.1"));
        (1..=10).for_each(|nth| shares.add(Token(nth), filler, 0, START));
        let newcomer = holder(2, "10.0.0.2");
        let spoken = |token: Token| {
            let silent = token.0 == 7;
            if silent { START } else { START + Duration::from_secs(token.0) }
        };
        assert_eq!(shares.giving_way(newcomer, spoken, START), Some(Token(7)));
        shares.remove(Token(7));
        assert_eq!(shares.giving_way(newcomer, spoken, START), Some(Token(1)));
    }

    #[test]
    fn what_is_given_back_is_gone_from_every_list() {
        let (mut shares, one) = (Shares::default(), holder(1, "10.0.0.1"));
        shares.add(Token(1), one, 5, START);
        shares.add(Token(2), one, 7, START);
        assert_eq!(shares.of(one), (Part { count: 2, bytes: 12 }, Part { count: 2, bytes: 12 }));
        [1, 2, 2].into_iter().for_each(|nth| shares.remove(Token(nth)));
        assert!(shares.all.is_empty() && shares.holders.is_empty() && shares.publications.is_empty());
        assert!(shares.largest.is_empty() && shares.largest_publications.is_empty());
        assert_eq!(shares.giving_way(one, |_| START, START), None);
    }
}
