//! A packet's walk: from the frame to its fate.

use vswitch_frame::{DropReason, Frame, Instant, PortId};

use crate::answer::{self, Complaint};
use crate::flow::Class;
use crate::flow::{Flow, Origin, Side};
use crate::fragments::{Datagram, Next, Way};
use crate::ip::{Ip, Piece};
use crate::mss;
use crate::nat::{Nat, drop_lost};
use crate::packet::{self, Named, Packet, Quoting};
use crate::rewrite;
use crate::table::FlowId;
use crate::tcp;
use crate::tick::Tick;
use crate::too_big;
use crate::tuple::{Address, Protocol, Realm};
use crate::verdict::{Fate, Inside, Leaving, Verdicts};

/// Where a frame came from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    Inside(Inside),
    Outside(PortId),
}

impl Arrival {
    fn port(&self) -> PortId {
        match self {
            Self::Inside(inside) => inside.port,
            Self::Outside(port) => *port,
        }
    }

    fn realm(&self) -> Realm {
        match self {
            Self::Inside(inside) => Realm::network(inside.network),
            Self::Outside(_) => Realm::OUTSIDE,
        }
    }
}

impl Nat {
    /// Prepares for a burst of parsed frames from one realm, which come next: when there are more flows than
    /// fit the caches, most of a look-up is waiting for memory, and this waits for several frames at once.
    /// It changes nothing, and need not be done.
    pub fn prepare<'a>(&self, burst: impl IntoIterator<Item = &'a Frame>, realm: Realm) {
        const FLOWS_CACHED: usize = 8192;
        const AT_ONCE: usize = 16;
        if self.flows.len() < FLOWS_CACHED {
            return;
        }
        let mut names = burst.into_iter().filter_map(|frame| packet::name(frame, realm));
        while let Some(first) = names.next() {
            let mut some = [first; AT_ONCE];
            let mut count = 1;
            for (slot, name) in some[1..].iter_mut().zip(names.by_ref()) {
                *slot = name;
                count += 1;
            }
            self.flows.touch(&some[..count]);
        }
    }

    /// Takes a parsed frame from a network that is for outside, or for one of the host's addresses.
    pub fn outbound(&mut self, frame: Frame, from: Inside, now: Instant, verdicts: &mut Verdicts) {
        self.receive(frame, Arrival::Inside(from), now, verdicts);
    }

    /// Takes a parsed frame from the uplink.
    pub fn inbound(&mut self, frame: Frame, port: PortId, now: Instant, verdicts: &mut Verdicts) {
        self.receive(frame, Arrival::Outside(port), now, verdicts);
    }

    fn receive(&mut self, mut frame: Frame, from: Arrival, now: Instant, verdicts: &mut Verdicts) {
        let fate = match packet::read(&frame, from.realm()) {
            Err(reason) => Fate::Dropped(reason),
            Ok(Packet::Flow(packet)) => match packet.ip.fragment {
                None => self.decide(&mut frame, &packet, &from, now),
                Some(piece) => return self.lead(frame, &packet, piece, &from, now, verdicts),
            },
            Ok(Packet::Error(error)) => self.carry_error(&mut frame, &error, &from),
            Ok(Packet::Fragment(ip, piece)) => return self.follow(frame, &ip, piece, &from, now, verdicts),
        };
        verdicts.push(from.port(), fate, frame);
    }

    /// Decides about a packet that names a flow, and translates it.
    fn decide(&mut self, frame: &mut Frame, packet: &Named, from: &Arrival, now: Instant) -> Fate {
        if let Some(fate) = self.refuse_size(frame, packet, from) {
            return fate;
        }
        if let Some((id, side)) = self.flows.find(&packet.tuple)
            && self.flows.get(id).origin != Origin::Filtered
        {
            return self.carry(frame, packet, id, side, now);
        }
        let begun = match from {
            // One of our own addresses comes from inside only.
            Arrival::Outside(_) if self.host.contains(&packet.tuple.source) => {
                return Fate::Dropped(DropReason::NatBadAddress);
            }
            Arrival::Outside(_) => self.begin_inbound(frame, packet, now),
            Arrival::Inside(inside) => self.begin_outbound(packet, inside, now),
        };
        match begun {
            Ok(id) => self.carry(frame, packet, id, Side::Initiator, now),
            Err(Fate::Dropped(reason)) => self.refuse(frame, packet, from, reason),
            Err(fate) => fate,
        }
    }

    /// Answers a packet that may not be fragmented and does not fit the uplink (RFC 4787, REQ-13).
    fn refuse_size(&self, frame: &mut Frame, packet: &Named, from: &Arrival) -> Option<Fate> {
        let Arrival::Inside(inside) = from else { return None };
        let mtu = self.mtu_of(inside.address);
        let leaves = !self.host.contains(&packet.tuple.target);
        if mtu == 0 || frame.mtu_bytes() <= usize::from(mtu) || !leaves {
            return None;
        }
        let own = self.own_address(packet.ip.is_v4).unwrap_or(packet.ip.target);
        too_big::answer(frame, own.ip(), mtu).then_some(Fate::Answered(DropReason::TxTooBig))
    }

    /// Tells the sender why its packet is dropped, where that helps: a segment without a connection is
    /// reset, who may not leave is told (RFC 5508, REQ-8). What is filtered gets no answer, nor who finds no
    /// room: it tries again, and there may be some by then.
    fn refuse(&self, frame: &mut Frame, packet: &Named, from: &Arrival, reason: DropReason) -> Fate {
        match (reason, &packet.tcp, from) {
            (DropReason::NatNoFlow, Some(segment), _) if !segment.has(tcp::RST) => {
                answer::reset(frame, packet, segment);
                Fate::Answered(reason)
            }
            (DropReason::NatNoAddress | DropReason::NatRefused, _, Arrival::Inside(_)) => {
                let own = self.own_address(packet.ip.is_v4).unwrap_or(packet.ip.target);
                answer::complain(frame, &packet.ip, own, Complaint::Prohibited);
                Fate::Answered(reason)
            }
            _ => Fate::Dropped(reason),
        }
    }

    /// The address our own messages come from.
    fn own_address(&self, is_v4: bool) -> Option<Address> {
        if is_v4 { self.uplink.v4.map(Address::from) } else { self.uplink.v6.map(Address::from) }
    }

    /// Translates a packet of a flow, and notes it.
    fn carry(&mut self, frame: &mut Frame, packet: &Named, id: FlowId, side: Side, now: Instant) -> Fate {
        let flow = self.flows.get_mut(id);
        let before = (flow.handshake, flow.seen);
        let at = side.index();
        flow.frames[at] = flow.frames[at].saturating_add(1);
        flow.bytes[at] += (packet.ip.end - packet.ip.at) as u64;
        let new = flow.tuple(side.other()).reversed();
        if flow.seen & side.bit() == 0 {
            flow.seen |= side.bit();
            if flow.mappings[at].is_some() {
                self.mappings.permit(flow.mappings[at], packet.tuple.target);
            }
        }
        let class = advance(flow, side, packet);
        let is_noted = before == (flow.handshake, flow.seen);
        // Only the inside keeps a mapping alive (RFC 4787, REQ-6); a publication needs no keeping.
        let refreshes = packet.tuple.realm != Realm::OUTSIDE || flow.origin == Origin::Published;
        if refreshes || flow.class != class {
            self.flows.refresh(id, class, Tick::at(now));
        }
        self.flows.rank(id);
        if !is_noted {
            self.flows.note(id.number());
        }
        rewrite::translate(frame, packet, &new);
        if new.source != packet.tuple.source && rewrite::has_identification(frame.bytes(), &packet.ip) {
            let id = self.identifications.take(new.target, rewrite::packets(frame, &packet.ip));
            rewrite::write_identification(frame.bytes_mut(), &packet.ip, id);
        }
        let crosses = packet.tuple.realm == Realm::OUTSIDE || new.realm == Realm::OUTSIDE;
        if crosses && packet.tcp.is_some_and(|segment| segment.has(tcp::SYN)) {
            let comes = packet.tuple.realm == Realm::OUTSIDE;
            let mtu = self.mtu_of(Some(if comes { packet.tuple.target } else { new.source }.ip()));
            if mtu != 0 {
                mss::clamp(frame, mss::fitting(mtu, packet.ip.is_v4));
            }
        }
        Fate::to(new.realm)
    }

    /// Translates an ICMP error about a packet of a flow, which it neither refreshes nor ends (RFC 5508,
    /// REQ-4 to REQ-6).
    fn carry_error(&self, frame: &mut Frame, error: &Quoting, from: &Arrival) -> Fate {
        // It is for whoever sent what it quotes.
        if error.ip.target != error.quoted.source {
            return Fate::Dropped(DropReason::NatMalformed);
        }
        let found = self.flows.find(&error.answer).map(|(id, side)| (self.flows.get(id), side));
        let Some((flow, side)) = found.filter(|(flow, _)| flow.origin != Origin::Filtered) else {
            return match from {
                Arrival::Outside(_) => Fate::Host,
                Arrival::Inside(_) if self.host.contains(&error.ip.target) => Fate::Host,
                Arrival::Inside(Inside { leaving: Leaving::Plain, .. }) => Fate::Plain,
                Arrival::Inside(_) => Fate::Dropped(DropReason::NatNoFlow),
            };
        };
        // From outside anybody may say so, since it may be any router, but not in our name. From inside it is
        // whom the packet was for, or we ourselves on its way.
        let is_ours = self.host.contains(&error.ip.source);
        match from {
            Arrival::Outside(_) if is_ours => return Fate::Dropped(DropReason::NatBadAddress),
            Arrival::Inside(_) if !is_ours && error.ip.source != error.answer.source => {
                return Fate::Dropped(DropReason::NatNoFlow);
            }
            Arrival::Outside(_) | Arrival::Inside(_) => {}
        }
        // Nobody is told about what it has not sent.
        if flow.seen & side.other().bit() == 0 {
            return Fate::Dropped(DropReason::NatNoFlow);
        }
        let quoted = flow.tuple(side.other());
        // Inside addresses mean nothing elsewhere: there it comes from whom the packet was sent to. Neither
        // do those outside to who sees the gateway in their place.
        let source = match from {
            Arrival::Outside(_) if quoted.target == error.answer.source => error.ip.source,
            Arrival::Outside(_) | Arrival::Inside(_) => quoted.target,
        };
        rewrite::translate_error(frame, error, quoted, source);
        Fate::to(quoted.realm)
    }

    /// The first fragment of a datagram, and those that have waited for it.
    fn lead(
        &mut self,
        mut frame: Frame,
        packet: &Named,
        piece: Piece,
        from: &Arrival,
        now: Instant,
        verdicts: &mut Verdicts,
    ) {
        let datagram = Datagram::new(&packet.ip, &piece, from.realm());
        let noted = self.note(datagram, &piece, from, now, verdicts);
        let ended = self.fragments.way(&datagram).map(|way| way.fate);
        if let Some(fate) = noted.map_or_else(|reason| Some(Fate::Dropped(reason)), |()| ended) {
            return verdicts.push(from.port(), fate, frame);
        }
        let fate = self.decide(&mut frame, packet, from, now);
        let others = match fate {
            Fate::Answered(reason) => Fate::Dropped(reason),
            Fate::Outside | Fate::Inside(_) | Fate::Host | Fate::Plain | Fate::Dropped(_) => fate,
        };
        let ip = Ip::read(frame.bytes(), packet.ip.at).unwrap_or(packet.ip);
        let id = ip.fragment.map_or(piece.id, |piece| piece.id);
        let way = Way { fate: others, source: ip.source, target: ip.target, id };
        verdicts.push(from.port(), fate, frame);
        for (port, frame) in self.fragments.lead(&datagram, way) {
            send(port, frame, way, verdicts);
        }
        self.fragments.finish(&datagram);
    }

    /// A fragment behind the first.
    fn follow(
        &mut self,
        frame: Frame,
        ip: &Ip,
        piece: Piece,
        from: &Arrival,
        now: Instant,
        verdicts: &mut Verdicts,
    ) {
        let datagram = Datagram::new(ip, &piece, from.realm());
        if let Err(reason) = self.note(datagram, &piece, from, now, verdicts) {
            return verdicts.push(from.port(), Fate::Dropped(reason), frame);
        }
        let mut lost = Vec::new();
        let next = self.fragments.follow(&datagram, from.port(), frame, &mut lost);
        drop_lost(&mut lost, verdicts);
        match next {
            Next::Go(way, frame) => send(from.port(), frame, way, verdicts),
            Next::Wait => {}
            Next::Drop(reason, frame) => verdicts.push(from.port(), Fate::Dropped(reason), frame),
        }
        self.fragments.finish(&datagram);
    }

    fn note(
        &mut self,
        datagram: Datagram,
        piece: &Piece,
        from: &Arrival,
        now: Instant,
        verdicts: &mut Verdicts,
    ) -> Result<(), DropReason> {
        let mut lost = Vec::new();
        let noted = self.fragments.note(datagram, piece, from.port(), now, &mut lost);
        drop_lost(&mut lost, verdicts);
        noted
    }
}

/// Sends a fragment behind the first the way the first went.
fn send(port: PortId, mut frame: Frame, way: Way, verdicts: &mut Verdicts) {
    if let Some(ip) = Ip::read(frame.bytes(), frame.headers.network_offset()) {
        rewrite::write_addresses(frame.bytes_mut(), &ip, way.source, way.target);
        if let (true, Ok(id)) = (ip.is_v4, u16::try_from(way.id)) {
            rewrite::write_identification(frame.bytes_mut(), &ip, id);
        }
    }
    verdicts.push(port, way.fate, frame);
}

/// Whether a flow of UDP is an exchange with a well-known port: a few frames of either side.
fn is_exchange(flow: &Flow) -> bool {
    const WELL_KNOWN: u16 = 1024;
    const FRAMES: u32 = 4;
    flow.tuple(Side::Initiator).target_port < WELL_KNOWN && flow.frames.iter().all(|&frames| frames <= FRAMES)
}

/// The class of a flow after a packet of one side. What outside begins is established by something more of
/// the client's after an answer: a forged source has not heard it.
fn advance(flow: &mut Flow, side: Side, packet: &Named) -> Class {
    const BOTH: u8 = Side::Initiator.bit() | Side::Target.bit();
    let answered = flow.seen == BOTH;
    let is_inside = flow.tuple(Side::Initiator).realm != Realm::OUTSIDE;
    let goes_on = answered && (is_inside || side == Side::Initiator || flow.class.is_established());
    match (packet.tuple.protocol, &packet.tcp) {
        (Protocol::Tcp, Some(segment)) => tcp::advance(flow, side, segment),
        (Protocol::Tcp, None) => flow.class,
        (Protocol::Udp, _) if answered && is_exchange(flow) => Class::UdpExchange,
        (Protocol::Udp, _) if goes_on => Class::Udp,
        (Protocol::Udp, _) if answered => Class::UdpExchange,
        (Protocol::Udp, _) => Class::UdpOpening,
        (Protocol::Sctp, _) if goes_on => Class::Sctp,
        (Protocol::Sctp, _) => Class::SctpOpening,
        (Protocol::Icmp | Protocol::Icmp6, _) => Class::Query,
    }
}
