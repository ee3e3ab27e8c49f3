//! Packets between members: what the datagrams carry, once they are opened.
//!
//! # Theory of operation
//! Each begins with its kind and the time of day. One whose time is further off than [`AHEAD_MAX`] is not
//! read, so a packet that somebody recorded is worth nothing later: what it would bring back has a tombstone
//! by then, which stays for longer than that.

use std::time::Duration;

use super::super::id::Id;
use super::super::record::{AHEAD_MAX, HostId};
use super::ring::TREES;

/// The longest packet before it is sealed, in bytes: with what sealing adds and headers it fits every usual
/// link.
pub const PACKET_BYTES_MAX: usize = 1280;
/// Bytes before what a packet carries: kind and time.
pub const HEAD_BYTES: usize = 1 + 8;
/// Bytes of a packet of news before the first item: head and sender.
const SENDER_BYTES: usize = HEAD_BYTES + 16;
/// Bytes of an item of news before its text: tree, end of the part, length.
const ITEM_BYTES: usize = 1 + 8 + 2;
/// The longest text of an item, in bytes.
pub const TEXT_BYTES_MAX: usize = PACKET_BYTES_MAX - SENDER_BYTES - ITEM_BYTES;
/// Bytes of the sum of a network.
const NETWORK_BYTES: usize = 32 + 8;
/// The most networks whose sums one packet takes.
pub const SUMS_MAX: usize = (PACKET_BYTES_MAX - SENDER_BYTES - 8) / NETWORK_BYTES;
/// Marks the tree of an item that is a hint.
const HINT: u8 = 0x80;

/// The contents of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A packet of SWIM.
    Swim(&'a [u8]),
    /// News of a member.
    News(HostId, Vec<Item<'a>>),
    /// Sums of a member's records.
    Sums(HostId, Sums),
}

/// One piece of news, on its way along a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The tree.
    pub tree: u8,
    /// The place that the receiver's part of the ring ends before.
    pub before: u64,
    /// Whether the text is only the key and version of a record that does not fit a packet.
    pub is_hint: bool,
    /// The news, in JSON.
    pub text: &'a [u8],
}

/// Sums of what a member knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The sum of records that all hosts know.
    pub global: u64,
    /// The sums of some networks' endpoints.
    pub networks: Vec<(Id, u64)>,
}

/// The reason that a packet is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is none of ours.
    #[error("it is no packet of a vswitch of this version")]
    Foreign,
    /// Its time is another one.
    #[error("its time is another one than ours by {} minutes: set the clock of that host, or of this one", .0.as_secs() / 60)]
    Untimely(Duration),
}

fn head(kind: u8, since_epoch: Duration) -> Vec<u8> {
    let ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    [[kind].as_slice(), &ms.to_be_bytes()].concat()
}

/// A packet of SWIM.
pub fn swim(since_epoch: Duration, text: &[u8]) -> Vec<u8> {
    [head(0, since_epoch).as_slice(), text].concat()
}

/// Packets with items of news, as many as it takes. Texts are [`TEXT_BYTES_MAX`] long at most.
pub fn news<'a>(
    since_epoch: Duration,
    from: HostId,
    items: impl IntoIterator<Item = Item<'a>>,
) -> Vec<Vec<u8>> {
    let begun = [head(1, since_epoch).as_slice(), from.bytes()].concat();
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for item in items {
        let Ok(length) = u16::try_from(item.text.len()) else { continue };
        if packets.last().is_none_or(|last| last.len() + ITEM_BYTES + item.text.len() > PACKET_BYTES_MAX) {
            packets.push(begun.clone());
        }
        let Some(packet) = packets.last_mut() else { continue };
        packet.push(item.tree | if item.is_hint { HINT } else { 0 });
        packet.extend(item.before.to_be_bytes());
        packet.extend(length.to_be_bytes());
        packet.extend(item.text);
    }
    packets
}

/// A packet with sums, of [`SUMS_MAX`] networks at most.
pub fn sums(since_epoch: Duration, from: HostId, sums: &Sums) -> Vec<u8> {
    let mut packet = [head(2, since_epoch).as_slice(), from.bytes(), &sums.global.to_be_bytes()].concat();
    for (network, sum) in sums.networks.iter().take(SUMS_MAX) {
        packet.extend(network.bytes());
        packet.extend(sum.to_be_bytes());
    }
    packet
}

/// Reads a packet.
///
/// # Errors
/// [`Unread`].
pub fn read(packet: &[u8], since_epoch: Duration) -> Result<Packet<'_>, Unread> {
    let (head, rest) = packet.split_first_chunk::<HEAD_BYTES>().ok_or(Unread::Foreign)?;
    let [kind, time @ ..] = *head;
    let off = Duration::from_millis(u64::from_be_bytes(time)).abs_diff(since_epoch);
    if off > AHEAD_MAX {
        return Err(Unread::Untimely(off));
    }
    let packet = match kind {
        0 => Some(Packet::Swim(rest)),
        1 => read_news(rest),
        2 => read_sums(rest),
        _ => None,
    };
    packet.ok_or(Unread::Foreign)
}

fn read_news(text: &[u8]) -> Option<Packet<'_>> {
    let (from, mut rest) = text.split_first_chunk::<16>()?;
    let mut items = Vec::new();
    while let Some((tree, after)) = rest.split_first() {
        let (before, after) = after.split_first_chunk::<8>()?;
        let (length, after) = after.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (tree, is_hint) = (tree & !HINT, tree & HINT != 0);
        if tree >= TREES {
            return None;
        }
        items.push(Item { tree, before: u64::from_be_bytes(*before), is_hint, text });
        rest = after;
    }
    Some(Packet::News(HostId::new(*from), items))
}

fn read_sums(text: &[u8]) -> Option<Packet<'_>> {
    let (from, rest) = text.split_first_chunk::<16>()?;
    let (global, rest) = rest.split_first_chunk::<8>()?;
    let networks = rest.chunks(NETWORK_BYTES).map(|chunk| {
        let (network, sum) = chunk.split_first_chunk::<32>()?;
        Some((Id::new(*network), u64::from_be_bytes(sum.try_into().ok()?)))
    });
    let networks = networks.collect::<Option<Vec<_>>>()?;
    Some(Packet::Sums(HostId::new(*from), Sums { global: u64::from_be_bytes(*global), networks }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::FileFailurePersistence;

    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);
    const ME: HostId = HostId::new([1; 16]);

    #[test]
    fn packets_are_read_as_they_are_written() {
        assert_eq!(read(&swim(NOW, b"text"), NOW), Ok(Packet::Swim(b"text")));
        let networks = vec![(Id::new([2; 32]), 3), (Id::new([4; 32]), 5)];
        let said = Sums { global: 6, networks };
        assert_eq!(read(&sums(NOW, ME, &said), NOW), Ok(Packet::Sums(ME, said)));
        let text = [7; TEXT_BYTES_MAX];
        let item = |tree, length| Item { tree, before: 9, is_hint: length > 500, text: &text[..length] };
        let items = [item(0, 400), item(1, 500), item(1, TEXT_BYTES_MAX), item(0, 1)];
        let packets = news(NOW, ME, items);
        assert!(packets.len() == 3 && packets.iter().all(|packet| packet.len() <= PACKET_BYTES_MAX));
        let read: Vec<Item<'_>> = packets
            .iter()
            .flat_map(|packet| match read(packet, NOW) {
                Ok(Packet::News(ME, items)) => items,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(read, items);
    }

    #[test]
    fn many_sums_fit_a_packet() {
        let networks = (0..100u8).map(|number| (Id::new([number; 32]), 1)).collect();
        let packet = sums(NOW, ME, &Sums { global: 0, networks });
        assert!(packet.len() <= PACKET_BYTES_MAX && packet.len() + NETWORK_BYTES > PACKET_BYTES_MAX);
    }

    #[test]
    fn a_recorded_packet_is_worth_nothing_later() {
        let packet = swim(NOW, b"text");
        assert!(read(&packet, NOW + AHEAD_MAX).is_ok() && read(&packet, NOW - AHEAD_MAX).is_ok());
        for time in [NOW + AHEAD_MAX + Duration::from_secs(1), NOW - AHEAD_MAX - Duration::from_secs(1)] {
            assert!(matches!(read(&packet, time), Err(Unread::Untimely(_))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
            ..ProptestConfig::default()
        })]

        #[test]
        fn nothing_breaks_the_reader(kind in 0..4u8, rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let packet = [head(kind, NOW), rest].concat();
            let _ = read(&packet, NOW);
        }
    }
}
