//! Shares: addresses that nobody has, and that a host takes for itself. Pure.
//!
//! A share is taken by the first host to change the record. It is an eighth of the longest range, so that
//! many hosts find something, and the ranges stay few.

use super::super::family::number;
use super::super::id::Id;
use super::super::record::{HostId, Key, Record, Space, Value, Version};
use super::super::space::{Gift, Range};
use super::super::view::{Ask, Wish};

/// The fewest addresses of a share, where there are as many.
const SHARE_MIN: u128 = 16;
/// The most addresses of a share.
const SHARE_MAX: u128 = 4096;

/// The records to write so that the host that asks has what it wants, if it can have it.
pub(super) fn take<'a>(
    records: impl Iterator<Item = &'a Record>,
    ask: &Ask,
    mut version: impl FnMut() -> Version,
) -> Option<Vec<Record>> {
    let free = free(records, ask.network);
    let Gift { below, given, above } = match ask.wish {
        Wish::Exact(address) => {
            let range = free.iter().find(|range| range.contains(address))?;
            range.cut(number(address), number(address))
        }
        Wish::Some(subnet) => {
            let parts = free.iter().filter_map(|range| Some((range, range.within(subnet)?)));
            let (range, part) = parts.max_by_key(|(_, part)| part.size())?;
            let first = number(part.first);
            range.cut(first, first + share(part))
        }
    };
    let parts = [(below, None), (Some(given), Some(ask.host)), (above, None)];
    let record = |(range, owner): (Option<Range>, Option<HostId>)| {
        let range = range?;
        let value = Some(Value::Space(Space { last: range.last, owner }));
        let key = Key::Space(ask.network, range.first);
        Some(Record { key, version: version(), host: ask.host, value })
    };
    Some(parts.into_iter().filter_map(record).collect())
}

/// The ranges of a network that nobody has.
fn free<'a>(records: impl Iterator<Item = &'a Record>, network: Id) -> Vec<Range> {
    let ranges = records.filter_map(|record| match (&record.key, &record.value) {
        (Key::Space(of, first), Some(Value::Space(Space { last, owner: None }))) if *of == network => {
            Some(Range { first: *first, last: *last })
        }
        _ => None,
    });
    ranges.collect()
}

/// The number of a range's addresses that a share has, less one.
fn share(range: Range) -> u128 {
    let size = range.size();
    (size / 8).clamp(SHARE_MIN - 1, SHARE_MAX - 1).min(size)
}

/// The other hosts that have what is asked for, the one with most of it first.
pub(super) fn owners<'a>(records: impl Iterator<Item = &'a Record>, ask: &Ask) -> Vec<HostId> {
    let mut found: Vec<(u128, HostId)> = records
        .filter_map(|record| match (&record.key, &record.value) {
            (Key::Space(network, first), Some(Value::Space(space))) if *network == ask.network => {
                let range = Range { first: *first, last: space.last };
                let part = match ask.wish {
                    Wish::Exact(address) => range.contains(address).then_some(range),
                    Wish::Some(subnet) => range.within(subnet),
                }?;
                Some((part.size(), space.owner.filter(|owner| *owner != ask.host)?))
            }
            _ => None,
        })
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    let mut owners: Vec<HostId> = Vec::new();
    for (_, owner) in found {
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostId = HostId::new([1; 16]);
    const NETWORK: Id = Id::new([3; 32]);
    const OTHER: HostId = HostId::new([2; 16]);

    fn space(first: &str, last: &str, owner: Option<HostId>) -> Record {
        let value = Some(Value::Space(Space { last: last.parse().expect("address"), owner }));
        let key = Key::Space(NETWORK, first.parse().expect("address"));
        Record { key, version: Version(1), host: OTHER, value }
    }

    fn ask(wish: Wish) -> Ask {
        Ask { network: NETWORK, name: "front".to_owned(), host: HOST, wish }
    }

    fn some(subnet: &str) -> Wish {
        Wish::Some(subnet.parse().expect("subnet"))
    }

    fn taken(records: &[Record], wish: Wish) -> Option<Vec<(String, String, Option<HostId>)>> {
        let records = take(records.iter(), &ask(wish), || Version(2))?;
        let shown = records.into_iter().map(|record| match (record.key, record.value) {
            (Key::Space(_, first), Some(Value::Space(space))) => {
                (first.to_string(), space.last.to_string(), space.owner)
            }
            other => panic!("{other:?}"),
        });
        Some(shown.collect())
    }

    fn part(first: &str, last: &str, owner: Option<HostId>) -> (String, String, Option<HostId>) {
        (first.to_owned(), last.to_owned(), owner)
    }

    #[test]
    fn shares_come_from_the_longest_range_that_nobody_has() {
        let records = [
            space("10.0.0.0", "10.0.0.31", Some(OTHER)),
            space("10.0.0.32", "10.0.0.40", None),
            space("10.0.0.41", "10.0.0.255", None),
            space("10.0.1.0", "10.0.1.255", None),
        ];
        assert_eq!(
            taken(&records, some("10.0.0.0/24")),
            Some(vec![part("10.0.0.41", "10.0.0.67", Some(HOST)), part("10.0.0.68", "10.0.0.255", None)])
        );
        assert_eq!(taken(&records, some("10.0.2.0/24")), None);
        assert_eq!(taken(&records[..1], some("10.0.0.0/24")), None);
        assert_eq!(
            taken(&records[1..2], some("10.0.0.0/24")),
            Some(vec![part("10.0.0.32", "10.0.0.40", Some(HOST))])
        );
    }

    #[test]
    fn the_very_address_is_cut_out() {
        let records = [space("fd00::", "fd00::ff", None), space("fd00::100", "fd00::1ff", Some(OTHER))];
        let exact = |text: &str| Wish::Exact(text.parse().expect("address"));
        assert_eq!(
            taken(&records, exact("fd00::7")),
            Some(vec![
                part("fd00::", "fd00::6", None),
                part("fd00::7", "fd00::7", Some(HOST)),
                part("fd00::8", "fd00::ff", None)
            ])
        );
        assert_eq!(taken(&records, exact("fd00::100")), None);
        assert_eq!(owners(records.iter(), &ask(exact("fd00::100"))), [OTHER]);
        assert_eq!(owners(records.iter(), &ask(exact("fd00::7"))), []);
    }
}
