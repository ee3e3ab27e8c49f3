//! Neighbours on an uplink's link and their addresses, asked for by ARP (RFC 826) and neighbour solicitations
//! (RFC 4861).
//!
//! # Theory of operation
//! The host's stack has its own table, which is not ours to read here. A next hop is asked for when the first
//! packet goes there; packets wait meanwhile, a few. An answer is believed only if it was asked for. A known
//! address is asked for again once it is old and still used, and given up if nobody answers.
//!
//! | state | a packet for it | when time passes |
//! |---|---|---|
//! | asked | waits, or is dropped if too many do | asked again, then forgotten; what waits is dropped |
//! | known | goes; if it is old, the neighbour is asked again | forgotten once it is much too old and a place is needed |

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::{ETHERNET_BYTES, be16, ethertype, protocol};
use vswitch_frame::{Frame, Instant, Mac, PortId};

/// Packets that wait for answers at once.
pub(super) const WAITING_MAX: usize = 64;
/// Neighbours known or asked for at once.
const NEIGHBOURS_MAX: usize = 1024;
/// The time between two questions for one neighbour (RFC 4861, 10: `RETRANS_TIMER`).
const RETRY: Duration = Duration::from_secs(1);
/// Questions without an answer after which a neighbour is given up (RFC 4861, 10: `MAX_MULTICAST_SOLICIT`).
const TRIES: u8 = 3;
/// Age at which a known address is asked for again (RFC 4861, 10: `REACHABLE_TIME`).
const OLD: Duration = Duration::from_secs(30);
/// Age at which an address holds no longer.
const STALE: Duration = Duration::from_secs(60);

/// The party that asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) mac: Mac,
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

#[derive(Debug)]
enum Neighbour {
    Asked { at: Instant, tries: u8, waiting: Vec<(PortId, Frame)> },
    Known { mac: Mac, told: Instant, asked: Instant },
}

/// The next step of a packet.
#[derive(Debug)]
pub(super) enum Next {
    /// It goes to this address.
    Go(Mac, Frame),
    /// It is held until the neighbour has answered.
    Wait,
    /// There is no room for it to wait.
    Full(Frame),
}

/// The neighbours on the uplink's link.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    own: Own,
    table: BTreeMap<IpAddr, Neighbour>,
    waiting: usize,
    questions: Vec<IpAddr>,
    wake: Option<Instant>,
}

impl Neighbours {
    /// Asks as somebody else from now on. What was known of another link is forgotten; gives back what
    /// waited.
    pub(super) fn reset(&mut self, own: Own) -> Vec<(PortId, Frame)> {
        if own == self.own {
            return Vec::new();
        }
        let table = std::mem::take(self).table;
        self.own = own;
        table.into_values().flat_map(Neighbour::into_waiting).collect()
    }

    /// How many packets wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Finds the address for a packet that came in at a port.
    pub(super) fn find(&mut self, hop: IpAddr, port: PortId, frame: Frame, now: Instant) -> Next {
        match self.table.get_mut(&hop) {
            Some(Neighbour::Known { mac, told, asked }) if now.since(*told) < STALE => {
                if now.since(*told) >= OLD && now.since(*asked) >= RETRY {
                    *asked = now;
                    self.questions.push(hop);
                }
                return Next::Go(*mac, frame);
            }
            Some(Neighbour::Asked { waiting, .. }) if self.waiting < WAITING_MAX => {
                waiting.push((port, frame));
            }
            Some(Neighbour::Asked { .. }) => return Next::Full(frame),
            Some(Neighbour::Known { .. }) | None => {
                if self.waiting >= WAITING_MAX || !self.has_room(hop, now) {
                    return Next::Full(frame);
                }
                let waiting = vec![(port, frame)];
                self.table.insert(hop, Neighbour::Asked { at: now, tries: 1, waiting });
                self.questions.push(hop);
                self.wake = Some(self.wake.map_or(now + RETRY, |wake| wake.min(now + RETRY)));
            }
        }
        self.waiting += 1;
        Next::Wait
    }

    fn has_room(&mut self, hop: IpAddr, now: Instant) -> bool {
        if self.table.len() >= NEIGHBOURS_MAX && !self.table.contains_key(&hop) {
            self.table.retain(|_, neighbour| match neighbour {
                Neighbour::Asked { .. } => true,
                Neighbour::Known { told, .. } => now.since(*told) < STALE,
            });
        }
        self.table.len() < NEIGHBOURS_MAX || self.table.contains_key(&hop)
    }

    /// Notes what a parsed frame says of a neighbour that was asked for, and gives back what waited for it.
    /// `None` for a frame that is none of our business.
    pub(super) fn hear(&mut self, frame: &Frame, now: Instant) -> Option<(Mac, Vec<(PortId, Frame)>)> {
        let (hop, mac) = answer_of(frame)?;
        let neighbour = self.table.get_mut(&hop).filter(|_| mac.is_station())?;
        let known = Neighbour::Known { mac, told: now, asked: now };
        let waiting = std::mem::replace(neighbour, known).into_waiting();
        self.waiting -= waiting.len();
        Some((mac, waiting))
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.wake
    }

    /// Asks again, and gives back what waited for those that are given up.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<(PortId, Frame)> {
        if self.wake.is_none_or(|wake| now < wake) {
            return Vec::new();
        }
        let mut wake = None;
        let questions = &mut self.questions;
        let mut lost = Vec::new();
        self.table.retain(|hop, neighbour| {
            let Neighbour::Asked { at, tries, waiting } = neighbour else { return true };
            if now.since(*at) >= RETRY {
                if *tries >= TRIES {
                    lost.append(waiting);
                    return false;
                }
                (*at, *tries) = (now, *tries + 1);
                questions.push(*hop);
            }
            let due = *at + RETRY;
            wake = Some(wake.map_or(due, |wake: Instant| wake.min(due)));
            true
        });
        self.waiting -= lost.len();
        self.wake = wake;
        lost
    }

    /// The next question that is to be sent, as a frame; `None` when all were taken.
    pub(super) fn next_question(&mut self) -> Option<Vec<u8>> {
        loop {
            let question = match (self.questions.pop()?, self.own) {
                (IpAddr::V4(hop), Own { mac, v4: Some(own), .. }) => arp_request(mac, own, hop),
                (IpAddr::V6(hop), Own { mac, v6: Some(own), .. }) => solicitation(mac, own, hop),
                (IpAddr::V4(_) | IpAddr::V6(_), _) => continue,
            };
            return Some(question);
        }
    }
}

impl Neighbour {
    fn into_waiting(self) -> Vec<(PortId, Frame)> {
        match self {
            Self::Asked { waiting, .. } => waiting,
            Self::Known { .. } => Vec::new(),
        }
    }
}

const ARP_BYTES: usize = 28;
/// Ethernet and IPv4 as ARP names them, with the length of their addresses.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

fn arp_request(mac: Mac, own: Ipv4Addr, hop: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ETHERNET_BYTES + ARP_BYTES);
    bytes.extend(Mac::BROADCAST.0);
    bytes.extend(mac.0);
    bytes.extend(ethertype::ARP.to_be_bytes());
    bytes.extend(ARP_HEAD);
    bytes.extend(ARP_REQUEST.to_be_bytes());
    bytes.extend(mac.0);
    bytes.extend(own.octets());
    bytes.extend(Mac::ZERO.0);
    bytes.extend(hop.octets());
    bytes
}

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Bytes of a solicitation or advertisement before its options.
const DISCOVERY_BYTES: usize = 24;
const HOP_LIMIT: u8 = 255;

fn solicitation(mac: Mac, own: Ipv6Addr, hop: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = hop.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(hop.octets());
    message.extend([SOURCE_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac.0);
    let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let addresses = [own.octets(), group.octets()].concat();
    let sum = Sum::ZERO.add_bytes(&addresses).add_bytes(&length).add_word(u16::from(protocol::ICMPV6));
    let checksum = sum.add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut bytes = vec![0x33, 0x33, 0xff, x, y, z];
    bytes.extend(mac.0);
    bytes.extend(ethertype::IPV6.to_be_bytes());
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend(length);
    bytes.extend([protocol::ICMPV6, HOP_LIMIT]);
    bytes.extend(addresses);
    bytes.extend(message);
    bytes
}

/// The neighbour that a frame's answer is about, and its address.
fn answer_of(frame: &Frame) -> Option<(IpAddr, Mac)> {
    let packet = frame.bytes().get(frame.headers.network_offset()..)?;
    if frame.headers.ether_type() == ethertype::ARP {
        let is_reply = packet.len() >= ARP_BYTES && packet[..6] == ARP_HEAD && be16(packet, 6) == ARP_REPLY;
        let [a, b, c, d]: [u8; 4] = packet.get(14..18)?.try_into().ok()?;
        return is_reply.then_some((Ipv4Addr::new(a, b, c, d).into(), mac_at(packet, 8)?));
    }
    if !frame.headers.is_ipv6() || frame.headers.protocol() != protocol::ICMPV6 || packet[7] != HOP_LIMIT {
        return None;
    }
    let message = frame.bytes().get(frame.headers.transport_offset()..frame.headers.end_offset())?;
    if message.first() != Some(&ADVERTISEMENT) || !has_right_checksum(packet, message) {
        return None;
    }
    let hop: [u8; 16] = message.get(8..DISCOVERY_BYTES)?.try_into().ok()?;
    let mut options = message.get(DISCOVERY_BYTES..)?;
    while let [kind, length, ..] = options {
        if *length == 0 {
            return None;
        }
        if *kind == TARGET_LINK_LAYER_ADDRESS {
            return Some((Ipv6Addr::from(hop).into(), mac_at(options, 2)?));
        }
        options = options.get(8 * usize::from(*length)..)?;
    }
    Some((Ipv6Addr::from(hop).into(), frame.source()))
}

fn has_right_checksum(packet: &[u8], message: &[u8]) -> bool {
    let length = u16::try_from(message.len()).unwrap_or(0);
    let sum = Sum::ZERO.add_bytes(&packet[8..40]).add_word(length).add_word(u16::from(protocol::ICMPV6));
    sum.add_bytes(message).checksum() == 0
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6)?.try_into().ok().map(Mac)
}

#[cfg(test)]
mod tests {
    use vswitch_frame::Pool;

    use super::*;

    const OWN: Own = Own {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const PORT: PortId = PortId(3);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn neighbours() -> (Neighbours, Pool) {
        let mut neighbours = Neighbours::default();
        assert!(neighbours.reset(OWN).is_empty());
        (neighbours, Pool::new(2 * WAITING_MAX))
    }

    fn frame(pool: &mut Pool, bytes: &[u8]) -> Frame {
        let mut frame = pool.take().expect("a slot");
        frame.fill(bytes);
        frame.parse().expect("well-formed");
        frame
    }

    /// The answer to a question.
    fn answer(question: &[u8]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        if bytes.len() == ETHERNET_BYTES + ARP_BYTES {
            bytes[21] = 2;
            bytes.copy_within(38..42, 28);
            bytes[22..28].copy_from_slice(&ROUTER.0);
            return bytes;
        }
        bytes[54] = ADVERTISEMENT;
        bytes[78] = TARGET_LINK_LAYER_ADDRESS;
        bytes[80..86].copy_from_slice(&ROUTER.0);
        bytes[56..58].copy_from_slice(&[0, 0]);
        let sum = Sum::ZERO.add_bytes(&bytes[22..54]).add_word(32).add_word(58).add_bytes(&bytes[54..]);
        bytes[56..58].copy_from_slice(&sum.checksum().to_be_bytes());
        bytes
    }

    #[test]
    fn packets_wait_for_the_answer_and_then_go() {
        for hop in ["192.0.2.9", "2001:db8::9", "fe80::9"] {
            let hop: IpAddr = hop.parse().expect("an address");
            let (mut neighbours, mut pool) = neighbours();
            let packet = frame(&mut pool, &[1; 60]);
            assert!(matches!(neighbours.find(hop, PORT, packet, at(1)), Next::Wait));
            let question = neighbours.next_question().expect("a question");
            assert_eq!(neighbours.next_question(), None);
            let said = frame(&mut pool, &answer(&question));
            let (mac, waited) = neighbours.hear(&said, at(1)).expect("an answer");
            assert_eq!((mac, waited.len(), neighbours.waiting()), (ROUTER, 1, 0), "{hop}");
            let packet = frame(&mut pool, &[1; 60]);
            assert!(matches!(neighbours.find(hop, PORT, packet, at(2)), Next::Go(ROUTER, _)));
            assert_eq!(neighbours.next_question(), None);
            let packet = frame(&mut pool, &[1; 60]);
            assert!(matches!(neighbours.find(hop, PORT, packet, at(40)), Next::Go(ROUTER, _)));
            assert_eq!(neighbours.next_question(), Some(question), "it is old");
            let packet = frame(&mut pool, &[1; 60]);
            assert!(matches!(neighbours.find(hop, PORT, packet, at(90)), Next::Wait), "it is stale");
        }
    }

    #[test]
    fn who_does_not_answer_is_given_up() {
        let (mut neighbours, mut pool) = neighbours();
        let hop: IpAddr = [192, 0, 2, 9].into();
        let packet = frame(&mut pool, &[1; 60]);
        assert!(matches!(neighbours.find(hop, PORT, packet, at(1)), Next::Wait));
        let mut questions = 0;
        for second in 1..4 {
            assert!(neighbours.poll(at(second)).is_empty());
            questions += std::iter::from_fn(|| neighbours.next_question()).count();
        }
        assert_eq!((questions, neighbours.poll_at()), (3, Some(at(4))));
        assert_eq!(neighbours.poll(at(4)).len(), 1);
        assert_eq!((neighbours.waiting(), neighbours.poll_at()), (0, None));
    }

    #[test]
    fn few_packets_wait_and_nobody_speaks_unasked() {
        let (mut neighbours, mut pool) = neighbours();
        for number in 0..WAITING_MAX + 1 {
            let hop = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).expect("small"));
            let packet = frame(&mut pool, &[1; 60]);
            let next = neighbours.find(hop.into(), PORT, packet, at(1));
            assert_eq!(matches!(next, Next::Full(_)), number == WAITING_MAX, "{number}");
        }
        let unasked = answer(&arp_request(OWN.mac, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 8)));
        let unasked = frame(&mut pool, &unasked);
        assert!(neighbours.hear(&unasked, at(1)).is_none());
    }
}
