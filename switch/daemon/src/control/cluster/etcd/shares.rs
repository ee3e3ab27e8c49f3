//! Whose addresses are: ranges without an owner are taken in shares, by who changes their record first. Pure.
//!
//! A share is an eighth of the longest free range, so that many hosts find something and few ranges arise.

use std::net::IpAddr;

use super::super::record::{Clock, HostId, Key, Record, Space, Value, Version};
use super::super::space::Range;
use super::super::view::{Ask, Wish};

/// Addresses in a share, if there are as many.
const SHARE_MIN: u128 = 16;
/// Most addresses in a share.
const SHARE_MAX: u128 = 4096;

/// The records to write so that the host that asks has what it wants.
///
/// # Errors
/// One line that says why it cannot be had, and the mend.
pub(super) fn take(
    spaces: &[(Range, Option<HostId>)],
    ask: &Ask,
    mut version: impl FnMut() -> Version,
) -> Result<Vec<Record>, String> {
    let free = spaces.iter().filter(|(_, owner)| owner.is_none()).map(|(range, _)| *range);
    let gift = match ask.wish {
        Wish::Exact(address) => {
            let one = Range { first: address, last: address };
            free.clone().find(|range| range.contains(address)).map(|range| range.without(one))
        }
        Wish::Some(subnet) => {
            let longest = free.filter(|range| subnet.contains(&range.first)).max_by_key(Range::size);
            longest.map(|range| range.without(range.start(share(range.size()))))
        }
    };
    let Some(gift) = gift else { return Err(refusal(spaces, ask)) };
    let parts = [(gift.below, None), (Some(gift.given), Some(ask.host)), (gift.above, None)];
    let record = |(range, owner): (Range, Option<HostId>)| Record {
        key: Key::Space(ask.network.clone(), range.first),
        version: version(),
        host: ask.host,
        value: Some(Value::Space(Space { last: range.last, owner })),
    };
    Ok(parts.into_iter().filter_map(|(range, owner)| Some((range?, owner))).map(record).collect())
}

fn share(size: u128) -> u128 {
    (size / 8).clamp(SHARE_MIN, SHARE_MAX).min(size)
}
