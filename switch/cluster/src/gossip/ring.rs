//! The trees by which news goes to all whom it concerns.
//!
//! # Theory of operation
//! Hosts stand on a ring, in an order that follows from their identifiers. Who has news is responsible for
//! all others whom it concerns; it cuts its part of the ring into [`CHILDREN`] of equal size and hands each
//! to the first host of it, which does likewise. So news reaches a thousand hosts in four steps, nobody
//! tells more than [`CHILDREN`] others, and everybody hears it once.
//!
//! There are [`TREES`], each with an order of its own. A host that is down, or a packet that is lost, costs
//! those behind it in one tree the news, but hardly in the other. What both lose is found by comparing.
//! Hosts that disagree on who is there do no harm: a part only ever gets smaller on its way.

use super::super::record::{Fnv, HostId};

/// Trees that news goes by.
pub const TREES: u8 = 2;
/// The most hosts that one tells.
pub const CHILDREN: usize = 8;

/// The place of a host on the ring of a tree.
pub fn place(host: HostId, tree: u8) -> u64 {
    let mut hash = Fnv::default();
    hash.feed(&[tree]).feed(host.bytes());
    hash.finish()
}

/// A part of the ring: from a place to another, without either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The place that it begins behind.
    pub behind: u64,
    /// The place that it ends before.
    pub before: u64,
}

impl Part {
    /// All of the ring but for a place.
    pub fn all_but(place: u64) -> Self {
        Self { behind: place, before: place }
    }

    /// How far a place is into the part, if it is in it.
    fn into(self, place: u64) -> Option<u64> {
        let (at, length) = (place.wrapping_sub(self.behind), self.before.wrapping_sub(self.behind));
        // A part as long as nothing is the whole ring.
        (at > 0 && (length == 0 || at < length)).then_some(at)
    }
}

/// The hosts to tell of those at some places, each with the place that its part ends before.
pub fn children<T>(part: Part, places: impl Iterator<Item = (u64, T)>) -> Vec<(T, u64)> {
    let inside = places.filter_map(|(place, host)| Some((part.into(place)?, place, host)));
    let mut inside: Vec<(u64, u64, T)> = inside.collect();
    inside.sort_unstable_by_key(|(at, ..)| *at);
    let (count, parts) = (inside.len(), inside.len().min(CHILDREN));
    let firsts: Vec<usize> = (0..parts).map(|part| part * count / parts).collect();
    let ends = firsts.iter().skip(1).map(|first| inside[*first].1).chain([part.before]);
    let ends: Vec<u64> = ends.collect();
    let mut hosts = inside.into_iter().enumerate();
    firsts
        .into_iter()
        .zip(ends)
        .filter_map(|(first, end)| {
            let (_, (.., host)) = hosts.find(|(index, _)| *index == first)?;
            Some((host, end))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::*;

    fn host(number: usize) -> HostId {
        HostId::new(u128::try_from(number).expect("few").to_be_bytes())
    }

    /// Tells everybody; how often each was told, in how many steps, and by how many at most one told.
    fn tell(hosts: usize, origin: usize, tree: u8) -> (BTreeMap<usize, usize>, usize, usize) {
        let places = |me: usize| {
            (0..hosts).filter(move |other| *other != me).map(move |other| (place(host(other), tree), other))
        };
        let mut told = BTreeMap::new();
        let (mut steps, mut most) = (0, 0);
        let mut now = vec![(origin, place(host(origin), tree))];
        while !now.is_empty() {
            let mut next = Vec::new();
            for (teller, before) in now {
                let part = Part { behind: place(host(teller), tree), before };
                let children = children(part, places(teller));
                most = most.max(children.len());
                children.iter().for_each(|(child, _)| *told.entry(*child).or_default() += 1);
                next.extend(children);
            }
            steps += usize::from(!next.is_empty());
            now = next;
        }
        (told, steps, most)
    }

    #[test]
    fn a_thousand_are_told_in_four_steps() {
        let (told, steps, most) = tell(1000, 7, 0);
        assert_eq!((told.len(), steps, most), (999, 4, CHILDREN));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn everybody_is_told_once(hosts in 1..200usize, origin in 0..200usize, tree in 0..TREES) {
            let (told, _, most) = tell(hosts, origin % hosts, tree);
            prop_assert_eq!(told.len(), hosts - 1);
            prop_assert!(told.values().all(|times| *times == 1) && most <= CHILDREN);
        }

        /// A host that is told has a smaller part than who told it, whatever a packet says: it comes to an
        /// end.
        #[test]
        fn parts_get_smaller(behind: u64, before: u64, places in prop::collection::vec(any::<u64>(), 0..40)) {
            let part = Part { behind, before };
            for (place, end) in children(part, places.into_iter().map(|place| (place, place))) {
                let (whole, rest) = (before.wrapping_sub(behind), end.wrapping_sub(place));
                prop_assert!(rest != 0 && (whole == 0 || rest < whole));
            }
        }
    }
}
