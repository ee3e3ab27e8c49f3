//! Neighbours on an uplink's link and their addresses, asked for by ARP (RFC 826) and neighbour solicitations
//! (RFC 4861).
//!
//! # Theory of operation
//! The host's stack has its own table, which is not ours to read here. A next hop is asked for when the first
//! packet goes there; packets wait meanwhile, a few. A known address is asked for again once it is old and
//! still used: itself first, then everybody. It is given up if nobody answers.
//!
//! | state | a packet for it | an answer | when time passes |
//! |---|---|---|---|
//! | asked | waits, or is dropped if too many do | is believed: known | asked again, then forgotten; what waits is dropped |
//! | known | goes; if it is old or doubted, the neighbour is asked again | is believed within [`RETRY`] of a question; otherwise another address raises doubt, no more | forgotten once it is much too old and a place is needed |
//!
//! Shares: absent neighbours cost who asks for them, and nobody else.
//!
//! | of | may have |
//! |---|---|
//! | a station on the link | [`WAITING_PER_HOP_MAX`] packets that wait |
//! | a router | [`WAITING_FOR_ROUTERS`] of them |
//! | a port | [`WAITING_PER_PORT_MAX`] of them, and [`NEIGHBOURS_PER_PORT_MAX`] neighbours that it asked for first: its oldest goes |
//! | routers | the last [`WAITING_FOR_ROUTERS`] of them, and their places in the table |

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::{ETHERNET_BYTES, be16, ethertype, protocol};
use vswitch_frame::{Frame, Instant, Mac, PortId};

use super::addresses::target;

/// Packets that wait for answers at once.
pub(super) const WAITING_MAX: usize = 256;
/// Of these, packets to one station on the link.
const WAITING_PER_HOP_MAX: usize = 32;
/// Packets that wait of one port: two absent neighbours' worth.
const WAITING_PER_PORT_MAX: usize = 64;
/// Packets for which there is room only if a router is their next hop. To one router there may be as many:
/// all containers begin there at once.
const WAITING_FOR_ROUTERS: usize = 128;
/// Neighbours known or asked for at once.
const NEIGHBOURS_MAX: usize = 1024;
/// Of these, neighbours that one port was the first to need.
const NEIGHBOURS_PER_PORT_MAX: usize = 256;
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
    pub(super) link_local: Option<Ipv6Addr>,
}

impl Own {
    /// The address with which a neighbour is asked: the interface may have none but that of its link, and
    /// those of the host may be elsewhere.
    fn asks(&self, hop: Ipv6Addr) -> Option<Ipv6Addr> {
        let own = if hop.is_unicast_link_local() { self.link_local.or(self.v6) } else { self.v6 };
        own.or(self.link_local)
    }
}

#[derive(Debug)]
struct Neighbour {
    /// The port that needed it first; `None` for a router, which all need.
    owner: Option<PortId>,
    state: State,
}

#[derive(Debug)]
enum State {
    Asked {
        at: Instant,
        tries: u8,
        waiting: Vec<(PortId, Frame)>,
    },
    Known {
        mac: Mac,
        told: Instant,
        /// The last question since then.
        asked: Option<Instant>,
        /// Somebody else has claimed the address, unasked.
        doubted: bool,
    },
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
    /// Each with the address that it goes to.
    questions: Vec<(IpAddr, Mac)>,
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
        table.into_values().flat_map(|neighbour| neighbour.state.into_waiting()).collect()
    }

    /// How many packets wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Finds the address for a packet that came in at a port.
    pub(super) fn find(&mut self, hop: IpAddr, port: PortId, frame: Frame, now: Instant) -> Next {
        let is_router = target(&frame) != Some(hop);
        if let Some(Neighbour { owner, state: State::Known { mac, told, asked, doubted } }) =
            self.table.get_mut(&hop)
            && now.since(*told) < STALE
        {
            if is_router {
                *owner = None;
            }
            let is_due = asked.is_none_or(|asked| now.since(asked) >= RETRY);
            if (*doubted || now.since(*told) >= OLD) && is_due {
                let to = if asked.is_none() { *mac } else { Mac::BROADCAST };
                *asked = Some(now);
                self.questions.push((hop, to));
            }
            return Next::Go(*mac, frame);
        }
        if !self.may_wait(hop, port, is_router) {
            return Next::Full(frame);
        }
        if let Some(Neighbour { state: State::Asked { waiting, .. }, .. }) = self.table.get_mut(&hop) {
            waiting.push((port, frame));
        } else {
            if !self.has_room(hop, port, is_router) {
                return Next::Full(frame);
            }
            let state = State::Asked { at: now, tries: 1, waiting: vec![(port, frame)] };
            let owner = (!is_router).then_some(port);
            self.table.insert(hop, Neighbour { owner, state });
            self.questions.push((hop, Mac::BROADCAST));
            self.wake = Some(self.wake.map_or(now + RETRY, |wake| wake.min(now + RETRY)));
        }
        self.waiting += 1;
        Next::Wait
    }

    /// Whether one more packet of a port may wait for a next hop.
    fn may_wait(&self, hop: IpAddr, port: PortId, is_router: bool) -> bool {
        let room = if is_router { WAITING_MAX } else { WAITING_MAX - WAITING_FOR_ROUTERS };
        let of_hop = self.table.get(&hop).map_or(0, |neighbour| neighbour.waiting().len());
        let most = if is_router { WAITING_FOR_ROUTERS } else { WAITING_PER_HOP_MAX };
        if self.waiting >= room || of_hop >= most {
            return false;
        }
        // Few are asked for at once, since a packet waits for each.
        let waiting = self.table.values().flat_map(Neighbour::waiting);
        is_router || waiting.filter(|(of, _)| *of == port).count() < WAITING_PER_PORT_MAX
    }

    /// Makes room for a neighbour that a port needs: the oldest of its own goes, or the oldest of all, but no
    /// router.
    fn has_room(&mut self, hop: IpAddr, port: PortId, is_router: bool) -> bool {
        if self.table.contains_key(&hop) {
            return true;
        }
        let of_port = self.table.values().filter(|neighbour| neighbour.owner == Some(port)).count();
        let has_share = is_router || of_port < NEIGHBOURS_PER_PORT_MAX;
        if has_share && self.table.len() < NEIGHBOURS_MAX {
            return true;
        }
        let known = self.table.iter().filter_map(|(hop, neighbour)| match neighbour {
            Neighbour { owner: Some(owner), state: State::Known { told, .. } } => {
                (has_share || *owner == port).then_some((*told, *hop))
            }
            Neighbour { .. } => None,
        });
        let oldest = known.min();
        oldest.and_then(|(_, hop)| self.table.remove(&hop)).is_some()
    }

    /// Notes what a parsed frame says of a neighbour that was asked for, and gives back what waited for it.
    /// `None` for a frame that is none of our business.
    pub(super) fn hear(&mut self, frame: &Frame, now: Instant) -> Option<(Mac, Vec<(PortId, Frame)>)> {
        let (hop, mac) = answer_of(frame)?;
        let neighbour = self.table.get_mut(&hop).filter(|_| mac.is_station())?;
        if let State::Known { mac: known, asked, doubted, .. } = &mut neighbour.state
            && asked.is_none_or(|asked| now.since(asked) >= RETRY)
        {
            *doubted |= *known != mac;
            return None;
        }
        let known = State::Known { mac, told: now, asked: None, doubted: false };
        let waiting = std::mem::replace(&mut neighbour.state, known).into_waiting();
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
            let State::Asked { at, tries, waiting } = &mut neighbour.state else { return true };
            if now.since(*at) >= RETRY {
                if *tries >= TRIES {
                    lost.append(waiting);
                    return false;
                }
                (*at, *tries) = (now, *tries + 1);
                questions.push((*hop, Mac::BROADCAST));
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
            let (hop, to) = self.questions.pop()?;
            let mac = self.own.mac;
            let question = match hop {
                IpAddr::V4(hop) => self.own.v4.map(|own| arp_request(to, mac, own, hop)),
                IpAddr::V6(hop) => self.own.asks(hop).map(|own| solicitation(to, mac, own, hop)),
            };
            if question.is_some() {
                return question;
            }
        }
    }
}

impl Neighbour {
    /// The packets that wait for it, each with the port it came in at.
    fn waiting(&self) -> &[(PortId, Frame)] {
        match &self.state {
            State::Asked { waiting, .. } => waiting,
            State::Known { .. } => &[],
        }
    }
}

impl State {
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

fn arp_request(to: Mac, mac: Mac, own: Ipv4Addr, hop: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ETHERNET_BYTES + ARP_BYTES);
    bytes.extend(to.0);
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

/// A question to a neighbour itself, or in place of the broadcast address to the group of its kind.
fn solicitation(to: Mac, mac: Mac, own: Ipv6Addr, hop: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = hop.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(x), u16::from_be_bytes([y, z]));
    let (to, target) =
        if to == Mac::BROADCAST { (Mac([0x33, 0x33, 0xff, x, y, z]), group) } else { (to, hop) };
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(hop.octets());
    message.extend([SOURCE_LINK_LAYER_ADDRESS, 1]);
    message.extend(mac.0);
    let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let addresses = [own.octets(), target.octets()].concat();
    let sum = Sum::ZERO.add_bytes(&addresses).add_bytes(&length).add_word(u16::from(protocol::ICMPV6));
    let checksum = sum.add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut bytes = to.0.to_vec();
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
        link_local: None,
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
            let probe = neighbours.next_question().expect("it is old");
            assert_eq!(probe[..6], ROUTER.0, "itself is asked");
            let packet = frame(&mut pool, &[1; 60]);
            assert!(matches!(neighbours.find(hop, PORT, packet, at(41)), Next::Go(ROUTER, _)));
            assert_eq!(neighbours.next_question(), Some(question), "it does not answer: everybody is");
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

    /// A packet to this address.
    fn to(pool: &mut Pool, target: Ipv4Addr) -> Frame {
        let mut ip = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 2, 0, 0, 0, 0];
        ip[16..].copy_from_slice(&target.octets());
        frame(pool, &[&[2; 12][..], &[8, 0], &ip].concat())
    }

    fn hop(number: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).expect("small"))
    }

    #[test]
    fn absent_neighbours_cost_who_asks_for_them() {
        let (mut neighbours, mut pool) = neighbours();
        let other = PortId(4);
        let mut wait = |hop: Ipv4Addr, target: Ipv4Addr, port| {
            let packet = to(&mut pool, target);
            match neighbours.find(hop.into(), port, packet, at(1)) {
                Next::Wait => true,
                Next::Full(packet) | Next::Go(_, packet) => {
                    pool.free(packet);
                    false
                }
            }
        };
        let waits = (0..WAITING_MAX).filter(|number| wait(hop(*number), hop(*number), PORT)).count();
        assert_eq!(waits, WAITING_PER_PORT_MAX);
        assert!(wait(hop(200), hop(200), other), "another port has its share");
        let waits = (0..WAITING_MAX).filter(|_| wait(hop(201), hop(201), other)).count();
        assert_eq!(waits, WAITING_PER_HOP_MAX);
        for number in 0..WAITING_MAX {
            wait(hop(300 + number), hop(300 + number), PortId(u16::try_from(number).expect("small")));
        }
        let router = Ipv4Addr::new(192, 0, 2, 9);
        let waits = (0..WAITING_MAX).filter(|_| wait(router, hop(1), PORT)).count();
        assert_eq!(waits, WAITING_FOR_ROUTERS, "a router has room in any case");
        assert!(neighbours.waiting() <= WAITING_MAX);
    }

    #[test]
    fn a_router_keeps_its_place_and_a_port_its_share() {
        let (mut neighbours, mut pool) = neighbours();
        let router = Ipv4Addr::new(192, 0, 2, 9);
        let mut know = |hop: Ipv4Addr, target, port, seconds| {
            let packet = to(&mut pool, target);
            match neighbours.find(hop.into(), port, packet, at(seconds)) {
                Next::Go(_, packet) | Next::Full(packet) => pool.free(packet),
                Next::Wait => {
                    let question = neighbours.next_question().expect("a question");
                    let said = frame(&mut pool, &answer(&question));
                    let (_, waited) = neighbours.hear(&said, at(seconds)).expect("an answer");
                    waited.into_iter().for_each(|(_, packet)| pool.free(packet));
                    pool.free(said);
                }
            }
            neighbours.table.len()
        };
        know(router, hop(1), PortId(9), 1);
        know(hop(5000), hop(5000), PortId(9), 1);
        let known =
            (0..2 * NEIGHBOURS_PER_PORT_MAX).map(|number| know(hop(number), hop(number), PORT, 2)).max();
        assert_eq!(known, Some(2 + NEIGHBOURS_PER_PORT_MAX));
        for number in 0..2 * NEIGHBOURS_MAX {
            let port = PortId(u16::try_from(number / 100).expect("small"));
            assert!(know(hop(number), hop(number), port, 3) <= NEIGHBOURS_MAX);
        }
        assert!(neighbours.table.contains_key(&router.into()));
    }

    #[test]
    fn nobody_is_believed_who_was_not_asked() {
        let (mut neighbours, mut pool) = neighbours();
        let router = Ipv4Addr::new(192, 0, 2, 9);
        let question = arp_request(Mac::BROADCAST, OWN.mac, Ipv4Addr::new(192, 0, 2, 1), router);
        let said = frame(&mut pool, &answer(&question));
        assert!(neighbours.hear(&said, at(1)).is_none(), "of a stranger");
        let packet = to(&mut pool, hop(1));
        assert!(matches!(neighbours.find(router.into(), PORT, packet, at(1)), Next::Wait));
        assert!(neighbours.hear(&said, at(1)).is_some());
        let mut forged = answer(&question);
        forged[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 66]);
        let forged = frame(&mut pool, &forged);
        neighbours.questions.clear();
        assert!(neighbours.hear(&forged, at(2)).is_none());
        let packet = to(&mut pool, hop(1));
        assert!(matches!(neighbours.find(router.into(), PORT, packet, at(3)), Next::Go(ROUTER, _)));
        let probe = neighbours.next_question().expect("it is doubted, and asked itself");
        assert_eq!(probe[..6], ROUTER.0);
        assert!(neighbours.hear(&said, at(3)).is_some());
        let packet = to(&mut pool, hop(1));
        assert!(matches!(neighbours.find(router.into(), PORT, packet, at(5)), Next::Go(ROUTER, _)));
        assert_eq!(neighbours.next_question(), None, "the doubt is over");
    }
}
