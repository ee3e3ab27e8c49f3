//! A flow as it is written down, so that another translator can go on with it.
//!
//! # Theory of operation
//!
//! A record is words of 64 bits, because its writer may be killed between any two of them, but not within
//! one:
//!
//! ```text
//!  0 1 2 3 4    identity: addresses, ports, realms, origin, sandbox, a check over all of it; never changes
//!  5            time of last use, class, handshake, who has sent; zero without a flow
//!  6 7          TCP: acknowledgements and windows
//!  8 … 13       IPv6 only: what its addresses have more than those of IPv4
//! ```
//!
//! The writer of a new flow writes word 5 last, and the writer of its end writes it first. Then a record is
//! whole or none; a change of the other words is good in any combination. What is not here is lost: counters,
//! the age, waiting fragments.

use vswitch_frame::hash::spread;

use crate::flow::{Class, Flow, Origin, Rank, Side};
use crate::mapping::MappingId;
use crate::slab::NONE;
use crate::tick::Tick;
use crate::tuple::{Address, Protocol, Realm, Tuple, reply_kind};

/// Says which flows are behind a mapping: a bit for each side.
const MAPPED: [u8; 2] = [1, 2];
const IS_V6: u8 = 4;

/// A flow, written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    words: [u64; Self::WORDS],
}

/// A flow that was read, whose mappings are yet to be found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) flow: Flow,
    /// The sandbox that is charged with it.
    pub(crate) sandbox: u32,
    /// Whether each side was behind a mapping.
    pub(crate) mapped: [bool; 2],
}

impl Record {
    /// Words of a record.
    pub const WORDS: usize = 14;
    /// Words of a record of IPv4; the others are zero.
    pub const WORDS_V4: usize = 8;
    /// The word that is zero without a flow, and is to be written last, or first when the flow ends.
    pub const LIFE: usize = 5;
    /// The layout: another number, another meaning.
    pub const LAYOUT: u64 = 1;

    /// The record that is these words.
    pub fn from_words(words: [u64; Self::WORDS]) -> Self {
        Self { words }
    }

    /// Its words.
    pub fn words(&self) -> &[u64; Self::WORDS] {
        &self.words
    }

    /// Whether it is of IPv6, so that its last words are not zero.
    pub fn is_v6(&self) -> bool {
        self.bytes(3)[7] & IS_V6 != 0
    }

    pub(crate) fn of(flow: &Flow, sandbox: u32) -> Self {
        let [initiator, target] = &flow.tuples;
        let addresses = [initiator.source, initiator.target, target.source, target.target];
        let is_v6 = !addresses.iter().all(|address| address.is_v4());
        let mut marks = if is_v6 { IS_V6 } else { 0 };
        for (mapping, bit) in flow.mappings.iter().zip(MAPPED) {
            marks |= if mapping.is_some() { bit } else { 0 };
        }
        let mut record = Self::default();
        let [low, high] = [[addresses[0], addresses[1]], [addresses[2], addresses[3]]];
        record.words[0] = low_words(low);
        record.words[1] = low_words(high);
        let ports = [initiator.source_port, initiator.target_port, target.source_port, target.target_port];
        record.words[2] = shorts(ports);
        let [a, b] = initiator.realm.bits().to_le_bytes();
        let [c, d] = target.realm.bits().to_le_bytes();
        let (protocol, origin) = (initiator.protocol as u8, flow.origin as u8);
        record.words[3] = u64::from_le_bytes([a, b, c, d, protocol, initiator.kind, origin, marks]);
        if is_v6 {
            record.write_high(&addresses);
        }
        record.words[4] = u64::from(sandbox) << 32 | u64::from(record.check(sandbox));
        let state = [flow.class as u8 + 1, flow.handshake, flow.seen, 0];
        record.words[5] = u64::from(flow.used.number()) << 32 | u64::from(u32::from_le_bytes(state));
        record.words[6] = u64::from(flow.acked[0]) << 32 | u64::from(flow.acked[1]);
        let scales = u16::from_le_bytes(flow.scales);
        record.words[7] = shorts([flow.windows[0], flow.windows[1], scales, 0]);
        record
    }

    /// The flow; `None` if there is none, or if it is not one that was written whole.
    pub(crate) fn read(&self) -> Option<Read> {
        let [class, handshake, seen, ..] = self.bytes(5);
        let class = Class::ALL.into_iter().find(|known| *known as u8 + 1 == class)?;
        let (sandbox, check) = halves(self.words[4]);
        if check != self.check(sandbox) {
            return None;
        }
        let [a, b, c, d, protocol, kind, origin, marks] = self.bytes(3);
        let realms = [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])].map(Realm::from_bits);
        let protocol = Protocol::from_number(protocol)?;
        let origin = Origin::ALL.into_iter().find(|known| *known as u8 == origin)?;
        let addresses = self.addresses();
        let ports = self.shorts(2);
        let tuple = |at: usize, kind: u8| Tuple {
            source: addresses[2 * at],
            target: addresses[2 * at + 1],
            source_port: ports[2 * at],
            target_port: ports[2 * at + 1],
            realm: realms[at],
            protocol,
            kind,
        };
        let (used, _) = halves(self.words[5]);
        let (first, second) = halves(self.words[6]);
        let [one, other, scales, _] = self.shorts(7);
        let flow = Flow {
            tuples: [tuple(0, kind), tuple(1, reply_kind(protocol, kind))],
            bytes: [0; 2],
            frames: [0; 2],
            acked: [first, second],
            mappings: [MappingId::NONE; 2],
            owner: NONE,
            born: Tick::from_number(used),
            used: Tick::from_number(used),
            older: NONE,
            newer: NONE,
            before: NONE,
            behind: NONE,
            windows: [one, other],
            scales: scales.to_le_bytes().map(|scale| scale.min(14)),
            handshake,
            seen: seen & (Side::Initiator.bit() | Side::Target.bit()),
            class,
            origin,
            rank: Rank::Opening,
        };
        Some(Read { flow, sandbox, mapped: MAPPED.map(|bit| marks & bit != 0) })
    }

    fn bytes(&self, word: usize) -> [u8; 8] {
        self.words[word].to_le_bytes()
    }

    fn shorts(&self, word: usize) -> [u16; 4] {
        let [a, b, c, d, e, f, g, h] = self.bytes(word);
        [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes)
    }

    /// The check over all that must be whole.
    fn check(&self, sandbox: u32) -> u32 {
        let identity = self.words[..4].iter().chain(&self.words[Self::WORDS_V4..]);
        let digest = identity.fold(u64::from(sandbox), |digest, word| spread(digest ^ word));
        halves(digest).0
    }

    fn write_high(&mut self, addresses: &[Address; 4]) {
        let mut high = [0; 48];
        for (part, address) in high.chunks_exact_mut(12).zip(addresses) {
            part.copy_from_slice(&address.v6_bytes()[..12]);
        }
        let (words, _) = high.as_chunks::<8>();
        for (word, bytes) in self.words[Self::WORDS_V4..].iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
    }

    fn addresses(&self) -> [Address; 4] {
        let mut high = [0; 48];
        for (bytes, word) in high.chunks_exact_mut(8).zip(&self.words[Self::WORDS_V4..]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let [low, last] = [self.bytes(0), self.bytes(1)];
        std::array::from_fn(|at| {
            let bytes = if at < 2 { low } else { last };
            let from = at % 2 * 4;
            let low = [bytes[from], bytes[from + 1], bytes[from + 2], bytes[from + 3]];
            if !self.is_v6() {
                return Address::v4(low);
            }
            let mut address = [0; 16];
            address[..12].copy_from_slice(&high[at * 12..at * 12 + 12]);
            address[12..].copy_from_slice(&low);
            Address::v6(address)
        })
    }
}

/// The last four bytes of two addresses.
fn low_words(addresses: [Address; 2]) -> u64 {
    let [one, other] = addresses.map(|address| u32::from_le_bytes(address.v4_bytes()));
    u64::from(other) << 32 | u64::from(one)
}

fn shorts(numbers: [u16; 4]) -> u64 {
    let [[a, b], [c, d], [e, f], [g, h]] = numbers.map(u16::to_le_bytes);
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The upper and the lower half.
fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use vswitch_frame::NetworkId;

    use super::*;

    fn flow(addresses: [&str; 4]) -> Flow {
        let [a, b, c, d] = addresses.map(|text| Address::from(text.parse::<IpAddr>().expect("an address")));
        let realm = Realm::network(NetworkId(7));
        let initiator = Tuple {
            source: a,
            target: b,
            source_port: 1,
            target_port: 2,
            realm,
            protocol: Protocol::Icmp,
            kind: 8,
        };
        let target = Tuple { source: c, target: d, source_port: 3, target_port: 4, kind: 0, ..initiator };
        Flow {
            tuples: [initiator, Tuple { realm: Realm::OUTSIDE, ..target }],
            bytes: [0; 2],
            frames: [0; 2],
            acked: [5, 6],
            mappings: [MappingId::NONE; 2],
            owner: NONE,
            born: Tick::from_number(77),
            used: Tick::from_number(77),
            older: NONE,
            newer: NONE,
            before: NONE,
            behind: NONE,
            windows: [10, 11],
            scales: [12, 13],
            handshake: 0b11,
            seen: 0b01,
            class: Class::Query,
            origin: Origin::Hairpin,
            rank: Rank::Opening,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let v4 = flow(["10.0.0.2", "192.0.2.1", "10.0.0.3", "192.0.2.2"]);
        let v6 = flow(["fd00::2", "2001:db8::1", "fd00::3", "2001:db8::2"]);
        for (flow, is_v6) in [(v4, false), (v6, true)] {
            let record = Record::of(&flow, 9);
            let read = record.read().expect("it is whole");
            assert_eq!(format!("{:?}", read.flow), format!("{flow:?}"));
            assert_eq!((record.is_v6(), read.sandbox, read.mapped), (is_v6, 9, [false; 2]));
            assert_eq!(record.words()[Record::WORDS_V4..].iter().any(|word| *word != 0), is_v6);
        }
    }

    #[test]
    fn what_is_not_whole_is_not_read() {
        assert!(Record::default().read().is_none());
        let record = Record::of(&flow(["fd00::2", "2001:db8::1", "fd00::3", "2001:db8::2"]), 9);
        for word in (0..5).chain(8..Record::WORDS) {
            let mut words = *record.words();
            words[word] ^= 1 << 40;
            assert!(Record::from_words(words).read().is_none(), "word {word}");
        }
    }
}
