//! Address space: the addresses of a network that this host may give to its endpoints.
//!
//! # Theory of operation
//! Every subnet of a network that spans hosts is cut in ranges, and each range has one owner, which alone
//! gives its addresses to endpoints, or some of them to another host that asks. So no address is given twice,
//! whoever is cut off from whom. At first all of it is its maker's; a host that needs addresses asks an
//! owner, and is given the upper half of the longest run that nobody uses, or the very address it asks for.
//!
//! A host that died takes its ranges with it until an operator says that it does not come back
//! (`vswitch cluster forget`), which gives them to the host where that is said.
//!
//! Everything here is pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::family::{Family, address_of, number};
use super::id::Id;
use super::record::{HostId, Key, Record, Value};
use super::view::Wish;

/// Addresses of one family from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first.
    pub first: IpAddr,
    /// The last.
    pub last: IpAddr,
}

/// The ranges of a network that a host owns, as records say.
pub fn owned<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    network: Id,
    host: Option<HostId>,
) -> Vec<Range> {
    let ranges = records.into_iter().filter_map(|record| match (&record.key, &record.value) {
        (Key::Space(of, first), Some(Value::Space(space)))
            if *of == network && host.is_some() && space.owner == host =>
        {
            Some(Range { first: *first, last: space.last })
        }
        _ => None,
    });
    ranges.collect()
}

/// A range of which some addresses are given away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gift {
    /// The rest below, if any: it begins where the range did.
    pub below: Option<Range>,
    /// The part that is given away.
    pub given: Range,
    /// The rest above, if any.
    pub above: Option<Range>,
}

impl Range {
    /// The range of a whole subnet.
    pub fn of(subnet: IpNet) -> Self {
        Self { first: subnet.network(), last: subnet.broadcast() }
    }

    /// Whether an address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == Family::of(self.first) && (self.first..=self.last).contains(&address)
    }

    /// The part of it that is in a subnet.
    pub(super) fn within(&self, subnet: IpNet) -> Option<Self> {
        let subnet = Self::of(subnet);
        let same = Family::of(self.first) == Family::of(subnet.first);
        let part = Self { first: self.first.max(subnet.first), last: self.last.min(subnet.last) };
        (same && part.first <= part.last).then_some(part)
    }

    /// The number of its addresses, less one.
    pub fn size(&self) -> u128 {
        number(self.last).saturating_sub(number(self.first))
    }

    /// Cuts the addresses from one number to another out.
    pub(super) fn cut(&self, from: u128, to: u128) -> Gift {
        let family = Family::of(self.first);
        let range = |first: u128, last: u128| Range {
            first: address_of(family, first),
            last: address_of(family, last),
        };
        let (first, last) = (number(self.first), number(self.last));
        Gift {
            below: (first < from).then(|| range(first, from - 1)),
            given: range(from, to),
            above: (to < last).then(|| range(to + 1, last)),
        }
    }
}

/// The gift of an owner of these ranges to a host that asks, if it can give any. `used` are the addresses it
/// has given to endpoints, and those that nobody is ever given.
pub fn give(owned: &[Range], used: &BTreeSet<IpAddr>, wish: Wish) -> Option<Gift> {
    match wish {
        Wish::Exact(address) => {
            let range = owned.iter().find(|range| range.contains(address))?;
            (!used.contains(&address)).then(|| range.cut(number(address), number(address)))
        }
        Wish::Some(subnet) => {
            let parts = owned.iter().filter_map(|range| Some((*range, range.within(subnet)?)));
            let free = parts.flat_map(|(range, part)| {
                runs(part, used).into_iter().map(move |(first, last)| (range, first, last))
            });
            let (range, first, last) = free.max_by_key(|(_, first, last)| last - first)?;
            let half = (last - first) / 2;
            Some(range.cut(last - half, last))
        }
    }
}

/// The runs of numbers within a range that are not in use.
fn runs(range: Range, used: &BTreeSet<IpAddr>) -> Vec<(u128, u128)> {
    let mut runs = Vec::new();
    let mut next = Some(number(range.first));
    for address in used.range(range.first..=range.last) {
        let (at, from) = (number(*address), next.unwrap_or(u128::MAX));
        if from < at {
            runs.push((from, at - 1));
        }
        next = at.checked_add(1);
    }
    runs.extend(next.map(|from| (from, number(range.last))).filter(|(from, last)| from <= last));
    runs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn range(first: &str, last: &str) -> Range {
        Range { first: ip(first), last: ip(last) }
    }

    #[test]
    fn half_of_the_longest_free_run_is_given() {
        let subnet: IpNet = "10.0.0.0/24".parse().expect("net");
        let owned = [Range::of(subnet)];
        let used: BTreeSet<IpAddr> = ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.255"].map(ip).into();
        let gift = give(&owned, &used, Wish::Some(subnet)).expect("given");
        assert_eq!(gift.given, range("10.0.0.129", "10.0.0.254"));
        assert_eq!(gift.below, Some(range("10.0.0.0", "10.0.0.128")));
        assert_eq!(gift.above, Some(range("10.0.0.255", "10.0.0.255")));
        let other: IpNet = "10.1.0.0/24".parse().expect("net");
        assert_eq!(give(&owned, &used, Wish::Some(other)), None);
    }

    #[test]
    fn the_very_address_is_given_if_it_is_free() {
        let owned = [range("fd00::", "fd00::ffff")];
        let used: BTreeSet<IpAddr> = [ip("fd00::5")].into();
        assert_eq!(give(&owned, &used, Wish::Exact(ip("fd00::5"))), None);
        assert_eq!(give(&owned, &used, Wish::Exact(ip("fd00::1:0"))), None);
        let gift = give(&owned, &used, Wish::Exact(ip("fd00::"))).expect("given");
        assert_eq!((gift.below, gift.above), (None, Some(range("fd00::1", "fd00::ffff"))));
    }

    #[test]
    fn the_last_address_is_given_and_then_there_is_none() {
        let all: IpNet = "::/0".parse().expect("net");
        let last =
            range("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        let gift = give(&[last], &BTreeSet::new(), Wish::Some(all)).expect("given");
        assert_eq!(gift, Gift { below: None, given: last, above: None });
        assert_eq!(give(&[last], &[last.first].into(), Wish::Some(all)), None);
        assert_eq!(give(&[], &BTreeSet::new(), Wish::Some(all)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
            ..ProptestConfig::default()
        })]

        /// Hosts ask each other as they like; each address has one owner all along, and what is in use is
        /// never given away.
        #[test]
        fn no_address_ever_has_two_owners(
            asks in prop::collection::vec((0..4usize, 0..4usize, prop::option::of(0..64u8)), 0..60),
            used in prop::collection::btree_set(0..64u8, 0..20),
        ) {
            let subnet: IpNet = "10.0.0.0/26".parse().expect("net");
            let used: BTreeSet<IpAddr> = used.into_iter().map(|last| ip(&format!("10.0.0.{last}"))).collect();
            let mut hosts = [vec![Range::of(subnet)], vec![], vec![], vec![]];
            for (owner, asker, exact) in asks {
                let exact = exact.map(|last| Wish::Exact(ip(&format!("10.0.0.{last}"))));
                let Some(gift) = give(&hosts[owner], &used, exact.unwrap_or(Wish::Some(subnet))) else { continue };
                prop_assert!(!used.iter().any(|address| gift.given.contains(*address)));
                let first = gift.below.unwrap_or(gift.given).first;
                hosts[owner].retain(|range| range.first != first);
                hosts[owner].extend(gift.below.into_iter().chain(gift.above));
                hosts[asker].push(gift.given);
            }
            for address in subnet.hosts() {
                let owners = hosts.iter().flatten().filter(|range| range.contains(address)).count();
                prop_assert_eq!(owners, 1, "{}", address);
            }
        }
    }
}
