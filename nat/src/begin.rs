//! The beginning of a flow: which mapping, which binding, or why not.

use vswitch_frame::{DropReason, Frame, Instant, NetworkId};

use crate::binding::Binding;
use crate::flow::{Class, Flow, Origin, Rank, Side};
use crate::limits::Filtering;
use crate::mapping::{Mapping, MappingId};
use crate::nat::Nat;
use crate::owners::Payer;
use crate::packet::Named;
use crate::ports::Pool;
use crate::slab::NONE;
use crate::table::FlowId;
use crate::tick::Tick;
use crate::tuple::{Address, End, Protocol, Realm, Tuple, reply_kind};
use crate::verdict::{Fate, Inside, Leaving};

/// The part of claimed ports that is left to sandboxes which have few.
const KEPT_BACK: usize = 16;
/// Ports that are tried before there is none.
const TRIES: u64 = 64;

/// A new flow, or what becomes of the packet instead.
type Begun = Result<FlowId, Fate>;

impl Nat {
    /// A flow that the inside begins.
    pub(crate) fn begin_outbound(&mut self, packet: &Named, from: &Inside, now: Instant) -> Begun {
        let tuple = &packet.tuple;
        if self.host.contains(&tuple.target) {
            return self.begin_hairpin(packet, from, now);
        }
        match from.leaving {
            Leaving::Plain => return Err(Fate::Plain),
            Leaving::Refused => return Err(Fate::Dropped(DropReason::NatRefused)),
            Leaving::Masqueraded => {}
        }
        may_begin(packet)?;
        self.make_room(Payer::own(from.sandbox)).map_err(Fate::Dropped)?;
        let (mapping, target) = self.leave(tuple, from, &|outside| outside_tuple(tuple, outside))?;
        self.unsolicited.forget(&target);
        let origin = if mapping.is_some() { Origin::Outbound } else { Origin::Overloaded };
        let flow = new_flow([*tuple, target], [mapping, MappingId::NONE], origin, now);
        Ok(self.add(flow, Payer::own(from.sandbox)))
    }

    /// A flow from inside to one of the host's addresses: to a published port or somebody's mapping, and so
    /// back inside (RFC 4787, REQ-9; RFC 5382, REQ-8), or to the host itself.
    fn begin_hairpin(&mut self, packet: &Named, from: &Inside, now: Instant) -> Begun {
        let end = outside_end(&packet.tuple);
        if let Some(binding) = self.bindings.find(&end).copied() {
            may_reach(from, binding.network)?;
            self.is_open(&binding)?;
            return self.begin_hairpin_to_binding(packet, from, &binding, now);
        }
        if !names_target(packet) {
            return Err(Fate::Host);
        }
        if self.mappings.by_outside(&end).is_none() {
            let is_claimed = self.ports.is_claimed(end.protocol, end.address, end.port);
            return Err(if is_claimed { no_mapping(packet) } else { Fate::Host });
        }
        may_begin(packet)?;
        self.make_room(Payer::own(from.sandbox)).map_err(Fate::Dropped)?;
        // Making room may have ended the very mapping.
        let mapping = self.mappings.by_outside(&end).ok_or(Fate::Dropped(DropReason::NatFiltered))?;
        if let Some(network) = self.mappings.get(mapping).realm.inside() {
            may_reach(from, network)?;
        }
        self.mappings.use_by(mapping);
        let begun = self.begin_hairpin_to_mapping(packet, from, mapping, now);
        self.release(mapping);
        begun
    }

    fn begin_hairpin_to_binding(
        &mut self,
        packet: &Named,
        from: &Inside,
        binding: &Binding,
        now: Instant,
    ) -> Begun {
        let tuple = &packet.tuple;
        may_begin(packet)?;
        self.make_room(Payer::own(from.sandbox)).map_err(Fate::Dropped)?;
        let container = binding.container_end(tuple.target_port);
        let gateway = Address::from(binding.gateway);
        let seen = |outside: End| answer_tuple(tuple, container, gateway, outside.port);
        let (mapping, target) = self.leave(tuple, from, &seen)?;
        let mappings = [mapping, MappingId::NONE];
        let flow = new_flow([*tuple, target], mappings, Origin::Published, now);
        Ok(self.add(flow, Payer::own(from.sandbox)))
    }

    /// A flow to a mapping, which is in use. If it does not let the packet in, it is noted all the same that
    /// the sender has sent it, so that the other side gets in when it tries in turn.
    fn begin_hairpin_to_mapping(
        &mut self,
        packet: &Named,
        from: &Inside,
        mapping: MappingId,
        now: Instant,
    ) -> Begun {
        let tuple = &packet.tuple;
        let theirs = *self.mappings.get(mapping);
        let seen = |outside: End| answer_tuple(tuple, theirs.inside_end(), outside.address, outside.port);
        let own = self.mappings.by_inside(&tuple.source_end());
        let outside = own.map(|own| self.mappings.get(own).outside_end());
        let address = match outside {
            Some(outside) => outside.address,
            None => self.outside_address(from, tuple.source.is_v4()).map_err(Fate::Dropped)?,
        };
        let has_tried = outside.is_some_and(|outside| self.filtered_flow(&seen(outside)).is_some());
        if !has_tried && !self.lets_in(mapping, address) {
            return self.note_filtered(packet, from, now);
        }
        let (own, target) = self.leave(tuple, from, &seen)?;
        let mappings = [own, mapping];
        let flow = new_flow([*tuple, target], mappings, Origin::Hairpin, now);
        Ok(self.add(flow, Payer::own(from.sandbox)))
    }

    /// The flow of an attempt that was filtered, by the packets of who attempted it. It makes room for a flow
    /// with packets of the same name.
    pub(crate) fn filtered_flow(&self, tuple: &Tuple) -> Option<FlowId> {
        let (id, side) = self.flows.find(tuple)?;
        let is_attempt = self.flows.get(id).origin == Origin::Filtered && side == Side::Initiator;
        is_attempt.then_some(id)
    }

    fn note_filtered(&mut self, packet: &Named, from: &Inside, now: Instant) -> Begun {
        let tuple = &packet.tuple;
        if let Some(id) = self.filtered_flow(tuple) {
            let class = self.flows.get(id).class;
            self.flows.refresh(id, class, Tick::at(now));
        } else {
            let (mapping, target) = self.leave(tuple, from, &|outside| outside_tuple(tuple, outside))?;
            let mappings = [mapping, MappingId::NONE];
            let mut flow = new_flow([*tuple, target], mappings, Origin::Filtered, now);
            if mapping.is_some() {
                flow.seen = Side::Initiator.bit();
                self.mappings.permit(mapping, tuple.target);
            }
            self.add(flow, Payer::own(from.sandbox));
        }
        Err(Fate::Dropped(DropReason::NatFiltered))
    }

    /// A flow that the outside begins.
    pub(crate) fn begin_inbound(&mut self, frame: &Frame, packet: &Named, now: Instant) -> Begun {
        let tuple = &packet.tuple;
        if !self.host.contains(&tuple.target) {
            return Err(Fate::Host);
        }
        let end = tuple.target_end();
        if let Some(binding) = self.bindings.find(&end).copied() {
            self.is_open(&binding)?;
            may_begin(packet)?;
            let payer = Payer::publication(&binding);
            self.make_room(payer).map_err(Fate::Dropped)?;
            let target = self.inbound_target(tuple, &binding).map_err(Fate::Dropped)?;
            return self.let_in(tuple, target, MappingId::NONE, payer, now);
        }
        if !names_target(packet) {
            return Err(Fate::Host);
        }
        let Some(mapping) = self.mappings.by_outside(&end) else {
            let is_claimed = self.ports.is_claimed(end.protocol, end.address, end.port);
            return Err(if is_claimed { self.no_answer(frame, packet, now) } else { Fate::Host });
        };
        may_begin(packet)?;
        if !self.lets_in(mapping, tuple.source) {
            return Err(self.no_answer(frame, packet, now));
        }
        let Mapping { sandbox, .. } = *self.mappings.get(mapping);
        self.make_room(Payer::strangers(sandbox)).map_err(Fate::Dropped)?;
        let mapping = self.mappings.by_outside(&end).ok_or(Fate::Dropped(DropReason::NatFiltered))?;
        let inside = self.mappings.get(mapping).inside_end();
        let target = answer_tuple(tuple, inside, tuple.source, tuple.source_port);
        self.let_in(tuple, target, mapping, Payer::strangers(sandbox), now)
    }

    /// Whether a publication takes new flows. Who begins one all the same is told like one at a port that
    /// nobody listens on.
    fn is_open(&self, binding: &Binding) -> Result<(), Fate> {
        let closed = self.closed.contains(binding);
        if closed { Err(Fate::Dropped(DropReason::NatNoFlow)) } else { Ok(()) }
    }

    /// The packets that a published port's container sends to a client outside.
    fn inbound_target(&mut self, tuple: &Tuple, binding: &Binding) -> Result<Tuple, DropReason> {
        let container = binding.container_end(tuple.target_port);
        if binding.keeps_client {
            return Ok(answer_tuple(tuple, container, tuple.source, tuple.source_port));
        }
        let gateway = Address::from(binding.gateway);
        // A port of ours, which the host itself does not use at the gateway's address.
        let own = if tuple.source.is_v4() {
            self.uplink.v4.map(Address::from)
        } else {
            self.uplink.v6.map(Address::from)
        };
        let own = own.ok_or(DropReason::NatNoAddress)?;
        let seen = |outside: End| answer_tuple(tuple, container, gateway, outside.port);
        self.shared_port(tuple, own, Payer::publication(binding), &|_, _| true, &seen)
    }

    fn let_in(
        &mut self,
        tuple: &Tuple,
        target: Tuple,
        mapping: MappingId,
        payer: Payer,
        now: Instant,
    ) -> Begun {
        if self.flows.find(&target).is_some() {
            return Err(Fate::Dropped(DropReason::NatConflict));
        }
        let origin = if mapping.is_some() { Origin::Inbound } else { Origin::Published };
        Ok(self.add(new_flow([*tuple, target], [MappingId::NONE, mapping], origin, now), payer))
    }

    /// Nobody inside wants it. A connection is told so, but late (RFC 5382, REQ-4).
    fn no_answer(&mut self, frame: &Frame, packet: &Named, now: Instant) -> Fate {
        if packet.tcp.is_some_and(|segment| segment.begins()) {
            let bytes = &frame.bytes()[packet.ip.at..packet.ip.end];
            self.unsolicited.note(packet.tuple, bytes, now);
        }
        no_mapping(packet)
    }

    /// Whether a mapping lets in somebody of whom there is no flow (RFC 4787, REQ-8).
    fn lets_in(&self, mapping: MappingId, stranger: Address) -> bool {
        self.mappings.get(mapping).holders > 0
            && match self.limits.filtering {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => self.mappings.is_permitted(mapping, stranger),
                Filtering::AddressAndPortDependent => false,
            }
    }

    /// Finds the outside end for a flow from inside: that of the sender's mapping, a new one, or, when no
    /// port is free, one that others use, too. `seen` makes of it the tuple of the target's packets.
    fn leave(
        &mut self,
        tuple: &Tuple,
        from: &Inside,
        seen: &dyn Fn(End) -> Tuple,
    ) -> Result<(MappingId, Tuple), Fate> {
        let known = self.mappings.by_inside(&tuple.source_end());
        let mapping = match known {
            // By another way out it has another address; a mapping has one.
            Some(mapping) if self.is_elsewhere(mapping, from) => None,
            Some(mapping) => Some(mapping),
            None => self.map(tuple, from).map_err(Fate::Dropped)?,
        };
        if let Some(mapping) = mapping {
            let target = seen(self.mappings.get(mapping).outside_end());
            if let Some(attempt) = self.filtered_flow(&target) {
                self.remove(attempt);
            }
            if self.flows.find(&target).is_none() {
                return Ok((mapping, target));
            }
            // Somebody who shares the port talks to the very same end.
            self.mappings.use_by(mapping);
            self.release(mapping);
        }
        self.overload(tuple, from, seen).map_err(Fate::Dropped)
    }

    /// Whether a mapping is at another address than what leaves now is to get.
    fn is_elsewhere(&self, mapping: MappingId, from: &Inside) -> bool {
        let outside = self.mappings.get(mapping).outside;
        let told = from.address.and_then(|_| self.outside_address(from, outside.is_v4()).ok());
        told.is_some_and(|address| address != outside)
    }

    /// Makes a mapping; `None` when no port is free.
    fn map(&mut self, tuple: &Tuple, from: &Inside) -> Result<Option<MappingId>, DropReason> {
        let outside = self.outside_address(from, tuple.source.is_v4())?;
        let port = if tuple.protocol.is_claimed() {
            self.claimed_port(tuple, outside, from.sandbox)
        } else {
            self.unclaimed_port(tuple, outside)
        };
        let mapping = port.map(|outside_port| Mapping {
            inside: tuple.source,
            outside,
            inside_port: tuple.source_port,
            outside_port,
            realm: tuple.realm,
            protocol: tuple.protocol,
            flows: 0,
            holders: 0,
            sandbox: from.sandbox,
        });
        Ok(mapping.map(|mapping| self.insert_mapping(mapping)))
    }

    /// A claimed port that is free; when there is none for this sandbox, that of a flow which is spent.
    fn claimed_port(&mut self, tuple: &Tuple, address: Address, sandbox: u32) -> Option<u16> {
        let random = self.random();
        if self.may_take(tuple.protocol, address, sandbox) {
            return self.ports.pool(tuple.protocol, address).take(tuple.source_port, random);
        }
        let port = self.recycle(tuple.protocol, address, sandbox)?;
        self.ports.get_mut(tuple.protocol, address)?.take_this(port).then_some(port)
    }

    /// Whether a sandbox may have one more of the free ports: some are kept back for those who have few.
    fn may_take(&mut self, protocol: Protocol, address: Address, sandbox: u32) -> bool {
        let has_few = self.has_few(protocol, address, sandbox);
        let pool = self.ports.pool(protocol, address);
        let is_stock = pool.claimed() >= 2 * self.limits.claims_ahead;
        let kept_back = if is_stock && !has_few { pool.claimed() / KEPT_BACK } else { 0 };
        pool.free() > kept_back
    }

    /// Whether a sandbox has less than its share of the outside ends at an address.
    fn has_few(&self, protocol: Protocol, address: Address, sandbox: u32) -> bool {
        self.ports.held_by(protocol, address, sandbox) < self.ports.share(protocol, address)
    }

    /// Ends a flow that is spent and has a port to itself: of this sandbox, or else of one that has more than
    /// its share. Says which port is free now. RFC 6191 says why a connection may follow on another so early:
    /// its target, which may wait for the old one's last segments, takes a SYN that is newer.
    fn recycle(&mut self, protocol: Protocol, address: Address, sandbox: u32) -> Option<u16> {
        let share = self.ports.share(protocol, address);
        let Self { flows, mappings, ports, .. } = &mut *self;
        let is_spent = |flow: &Flow| {
            let mapping = flow.mappings[Side::Initiator.index()];
            flow.is_spent() && mapping.is_some() && {
                let mapping = mappings.get(mapping);
                (mapping.flows, mapping.protocol, mapping.outside) == (1, protocol, address)
            }
        };
        let found = flows.find_spent_of(Payer::own(sandbox), is_spent).or_else(|| {
            let has_many =
                |flow: &Flow| ports.held_by(protocol, address, flows.owners.payer(flow).sandbox) > share;
            flows.find_spent(|flow| is_spent(flow) && has_many(flow))
        })?;
        self.stats.recycled += 1;
        let ended = self.flows.get(found).mappings[Side::Initiator.index()];
        let port = self.mappings.get(ended).outside_port;
        self.remove(found);
        Some(port)
    }

    /// A port nobody need claim: the sender's own, or for queries, whose identifiers can be translated,
    /// another.
    fn unclaimed_port(&mut self, tuple: &Tuple, address: Address) -> Option<u16> {
        let end = End { port: tuple.source_port, realm: Realm::OUTSIDE, address, protocol: tuple.protocol };
        let is_free = |nat: &Self, port: u16| nat.mappings.by_outside(&End { port, ..end }).is_none();
        if is_free(self, tuple.source_port) {
            return Some(tuple.source_port);
        }
        if tuple.protocol == Protocol::Sctp {
            return None;
        }
        (0..TRIES).find_map(|_| {
            let [low, high, ..] = self.random().to_le_bytes();
            Some(u16::from_le_bytes([low, high])).filter(|&port| is_free(self, port))
        })
    }

    /// Finds a port that others use, too, though not with the same target.
    fn overload(
        &mut self,
        tuple: &Tuple,
        from: &Inside,
        seen: &dyn Fn(End) -> Tuple,
    ) -> Result<(MappingId, Tuple), DropReason> {
        let address = self.outside_address(from, tuple.source.is_v4())?;
        // Free ones may be kept back for others.
        let may_take = tuple.protocol.is_claimed() && self.may_take(tuple.protocol, address, from.sandbox);
        let may_share = |pool: &Pool, port: u16| may_take || pool.is_in_use(port);
        let target = self.shared_port(tuple, address, Payer::own(from.sandbox), &may_share, seen)?;
        self.stats.overloaded += 1;
        Ok((MappingId::NONE, target))
    }

    /// Finds a port of ours at an address that makes a tuple which no flow has, or one whose flow
    /// [makes way](Self::makes_way), and ends. Others may use it, too.
    fn shared_port(
        &mut self,
        tuple: &Tuple,
        address: Address,
        payer: Payer,
        may_share: &dyn Fn(&Pool, u16) -> bool,
        seen: &dyn Fn(End) -> Tuple,
    ) -> Result<Tuple, DropReason> {
        let protocol = tuple.protocol;
        let random = self.random();
        let pool = self.ports.get(protocol, address);
        let port = |step: u64| match pool {
            Some(pool) => pool.probe(random, step).filter(|port| may_share(pool, *port)),
            None if step == 0 => Some(tuple.source_port),
            // The ports of SCTP are not ours to choose.
            None if protocol == Protocol::Sctp => None,
            None => {
                let [low, high, ..] = random.wrapping_add(step).to_le_bytes();
                Some(u16::from_le_bytes([low, high]))
            }
        };
        let end = |port: u16| seen(End { port, realm: Realm::OUTSIDE, address, protocol });
        let targets = (0..TRIES).filter_map(port).map(end);
        if let Some(free) = targets.clone().find(|target| self.flows.find(target).is_none()) {
            return Ok(free);
        }
        let few = payer.is_own() && self.has_few(protocol, address, payer.sandbox);
        let least = if few { self.ports.share(protocol, address) } else { u32::MAX };
        let there = targets.filter_map(|target| Some((self.flows.find(&target)?.0, target)));
        let making = there.filter(|(id, _)| self.makes_way(*id, payer, (protocol, address), least));
        let wanted = |id: FlowId| (self.flows.get(id).rank, self.flows.get(id).used);
        let Some((id, target)) = making.min_by_key(|(id, _)| wanted(*id)) else {
            self.stats.refused += 1;
            return Err(DropReason::NatNoPort);
        };
        let is_spent = self.flows.get(id).rank == Rank::Spent;
        let counter = if is_spent { &mut self.stats.recycled } else { &mut self.stats.evicted };
        *counter += 1;
        self.end(id);
        Ok(target)
    }

    /// Whether a flow that has the very ends which another one wants makes way for it: a spent one of the
    /// same payer; one that outside began and that may come to nothing; and any of a sandbox that has more
    /// outside ends than `least`.
    fn makes_way(&self, id: FlowId, payer: Payer, pool: (Protocol, Address), least: u32) -> bool {
        let flow = self.flows.get(id);
        let theirs = self.flows.owners.payer(flow);
        if !theirs.is_own() {
            return flow.rank != Rank::Established;
        }
        let is_own_spent = theirs == payer && flow.origin == Origin::Overloaded && flow.rank == Rank::Spent;
        is_own_spent || theirs != payer && self.ports.held_by(pool.0, pool.1, theirs.sandbox) > least
    }

    /// The address flows of a network leave with: always the same, so that all of a container's do
    /// (RFC 4787, REQ-2).
    fn outside_address(&self, from: &Inside, is_v4: bool) -> Result<Address, DropReason> {
        let own = from.address.map(Address::from).filter(|address| address.is_v4() == is_v4);
        let uplink =
            if is_v4 { self.uplink.v4.map(Address::from) } else { self.uplink.v6.map(Address::from) };
        own.filter(|address| self.host.contains(address)).or(uplink).ok_or(DropReason::NatNoAddress)
    }
}

/// Whether a packet may be the first of a flow: for TCP a SYN, for ICMP a query.
fn may_begin(packet: &Named) -> Result<(), Fate> {
    let begins = match packet.tuple.protocol {
        Protocol::Tcp => packet.tcp.is_some_and(|segment| segment.begins()),
        Protocol::Icmp => matches!(packet.tuple.kind, 8 | 13),
        Protocol::Icmp6 => packet.tuple.kind == 128,
        Protocol::Udp | Protocol::Sctp => true,
    };
    if begins { Ok(()) } else { Err(Fate::Dropped(DropReason::NatNoFlow)) }
}

/// Whether a flow may go to a network by way of the host: what does not leave does not reach another one.
fn may_reach(from: &Inside, network: NetworkId) -> Result<(), Fate> {
    let leaves = from.network != network;
    if leaves && from.leaving == Leaving::Refused {
        Err(Fate::Dropped(DropReason::NatRefused))
    } else {
        Ok(())
    }
}

/// Whether the port it is sent to may be that of a mapping. A query of ICMP is for the host itself.
fn names_target(packet: &Named) -> bool {
    !matches!(packet.tuple.protocol, Protocol::Icmp | Protocol::Icmp6)
}

/// The fate of a packet to a port that is ours, but nobody's.
fn no_mapping(packet: &Named) -> Fate {
    match packet.tcp {
        Some(segment) if !segment.begins() => Fate::Dropped(DropReason::NatNoFlow),
        _ => Fate::Dropped(DropReason::NatFiltered),
    }
}

/// The end a packet from inside is sent to, as the outside sees it.
fn outside_end(tuple: &Tuple) -> End {
    End { realm: Realm::OUTSIDE, ..tuple.target_end() }
}

/// The packets that come back to `outside` when `tuple` leaves through it.
fn outside_tuple(tuple: &Tuple, outside: End) -> Tuple {
    answer_tuple(tuple, outside_end(tuple), outside.address, outside.port)
}

/// The packets that `from` sends to an address and port, in answer to `tuple`.
fn answer_tuple(tuple: &Tuple, from: End, address: Address, port: u16) -> Tuple {
    Tuple {
        source: from.address,
        source_port: from.port,
        target: address,
        target_port: port,
        realm: from.realm,
        protocol: tuple.protocol,
        kind: reply_kind(tuple.protocol, tuple.kind),
    }
}

fn new_flow(tuples: [Tuple; 2], mappings: [MappingId; 2], origin: Origin, now: Instant) -> Flow {
    let class = match tuples[0].protocol {
        Protocol::Tcp => Class::TcpOpening,
        Protocol::Udp => Class::UdpOpening,
        Protocol::Sctp => Class::SctpOpening,
        Protocol::Icmp | Protocol::Icmp6 => Class::Query,
    };
    let now = Tick::at(now);
    Flow {
        tuples,
        mappings,
        origin,
        owner: NONE,
        rank: Rank::Opening,
        class,
        born: now,
        used: now,
        older: NONE,
        newer: NONE,
        before: NONE,
        behind: NONE,
        bytes: [0; 2],
        frames: [0; 2],
        acked: [0; 2],
        windows: [0; 2],
        scales: [0; 2],
        handshake: 0,
        seen: 0,
    }
}
