//! The translator: what control tells it, and what time does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Range, RangeInclusive};

use vswitch_frame::hash::{SeededHash, spread};
use vswitch_frame::{DropReason, Instant, NetworkId, Pool, PortId};

use crate::answer::{self, Complaint};
use crate::binding::{Binding, BindingError, Bindings};
use crate::flow::{Class, Flow, Origin, Side};
use crate::fragments::Fragments;
use crate::identification::Identifications;
use crate::limits::Limits;
use crate::listing::{Listed, Mapped};
use crate::mapping::{Mapping, MappingId, Mappings};
use crate::owners::Payer;
use crate::ports::{Pool as PortPool, Ports};
use crate::table::{FlowId, Table};
use crate::tuple::{Address, End, Protocol, Realm, Tuple};
use crate::unsolicited::Unsolicited;
use crate::verdict::{Fate, Verdicts};

/// Flows that one [`Nat::poll`] ends at most, so that it does not hold up the frames.
const EXPIRED_AT_ONCE: usize = 256;
/// Connections that were ended and whose ends are yet to be told. Those beyond find out for themselves.
const UNTOLD_MAX: usize = 65_536;

/// The way out of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Uplink {
    /// The address that IPv4 flows leave with; `None` where there is none.
    pub v4: Option<Ipv4Addr>,
    /// The address that IPv6 flows leave with; `None` where there is none.
    pub v6: Option<Ipv6Addr>,
    /// Every address of the host at which ports may be published, gateways of networks included.
    pub host: Vec<IpAddr>,
    /// The largest packet it takes, in bytes.
    pub mtu: u16,
    /// The largest packet that leaves with one of these addresses, where there are several ways out.
    pub mtus: BTreeMap<IpAddr, u16>,
}

/// Outside ports that are wanted of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Wanted {
    /// For which protocol.
    pub protocol: Protocol,
    /// On which of the host's addresses.
    pub address: IpAddr,
    /// How many more.
    pub ports: usize,
}

/// Numbers of things there are, and counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stats {
    /// Flows there are.
    pub flows: usize,
    /// Mappings there are.
    pub mappings: usize,
    /// Pairs of a mapping and an address that its inside has sent to.
    pub permits: usize,
    /// Fragments that wait for the first of their datagram.
    pub fragments_waiting: usize,
    /// Outside ports claimed.
    pub ports_claimed: usize,
    /// Outside ports claimed and free.
    pub ports_free: usize,
    /// Flows that had to make room for others.
    pub evicted: u64,
    /// Flows for which no port was free, so that they share one: their mapping depends on whom they talk to.
    pub overloaded: u64,
    /// Flows that had most likely said all, and ended for another that needed their port.
    pub recycled: u64,
    /// Flows that did not begin for want of a port.
    pub refused: u64,
    /// Connections whose ends were told by a reset: not used for too long, or no longer published.
    pub reset: u64,
}

/// The translator. See the [crate] for how it works.
#[derive(Debug)]
pub struct Nat {
    pub(crate) limits: Limits,
    pub(crate) flows: Table,
    pub(crate) mappings: Mappings,
    pub(crate) ports: Ports,
    pub(crate) bindings: Bindings,
    /// Publications that take no new flows.
    pub(crate) closed: BTreeSet<Binding>,
    pub(crate) fragments: Fragments,
    pub(crate) unsolicited: Unsolicited,
    pub(crate) identifications: Identifications,
    pub(crate) host: BTreeSet<Address>,
    pub(crate) uplink: Uplink,
    /// Connections that were ended, whose ends have not been told yet.
    untold: Vec<Flow>,
    random: u64,
    pub(crate) stats: Stats,
}

impl Nat {
    /// A translator without an uplink, which translates nothing. `seed` is secret and random.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let hash = SeededHash::new(seed);
        Self {
            flows: Table::new(limits.flows, hash.clone()),
            mappings: Mappings::new(limits.flows, hash.clone()),
            identifications: Identifications::new(hash),
            ports: Ports::default(),
            bindings: Bindings::default(),
            closed: BTreeSet::new(),
            fragments: Fragments::new(limits.datagrams, limits.fragments_waiting, limits.timeouts.datagram),
            unsolicited: Unsolicited::new(limits.unsolicited, limits.timeouts.unsolicited),
            host: BTreeSet::new(),
            uplink: Uplink::default(),
            untold: Vec::new(),
            random: seed,
            stats: Stats::default(),
            limits,
        }
    }

    /// Says what the way out is. Flows through addresses that are gone end; claims stay until they are taken
    /// [back](Self::revoke).
    pub fn set_uplink(&mut self, uplink: Uplink) {
        let own = [uplink.v4.map(IpAddr::from), uplink.v6.map(IpAddr::from)].into_iter().flatten();
        let before = std::mem::take(&mut self.host);
        self.host = uplink.host.iter().copied().chain(own.clone()).map(Address::from).collect();
        let host = &self.host;
        self.ports.forget_empty(|address| !host.contains(&address));
        for address in own {
            self.ports.pool(Protocol::Tcp, address.into());
            self.ports.pool(Protocol::Udp, address.into());
        }
        self.uplink = uplink;
        if before.is_subset(&self.host) {
            return;
        }
        let host = self.host.clone();
        self.end_flows(|flow, mappings| {
            let mut outside = flow.tuples.iter().filter(|tuple| tuple.realm == Realm::OUTSIDE);
            let mut mapped = flow.mappings.iter().filter(|id| id.is_some());
            outside.any(|tuple| !host.contains(&tuple.target))
                || mapped.any(|id| !host.contains(&mappings.get(*id).outside))
        });
    }

    /// Publishes ports.
    ///
    /// # Errors
    /// [`BindingError`]; nothing has changed.
    pub fn add_binding(&mut self, binding: Binding) -> Result<(), BindingError> {
        self.bindings.add(binding)
    }

    /// Ends a publication with its flows, whose ends are told by a reset in the next [`poll`](Self::poll).
    /// Says whether there was one.
    pub fn remove_binding(&mut self, binding: &Binding) -> bool {
        let is_there = self.bindings.has(binding);
        if is_there {
            self.closed.remove(binding);
            self.flows_of(binding).into_iter().for_each(|id| self.end(id));
            self.bindings.remove(binding);
        }
        is_there
    }

    /// The flows of a publication: those that outside began, and those of other sandboxes.
    fn flows_of(&self, binding: &Binding) -> Vec<FlowId> {
        let mut flows = self.flows.all_of(Payer::publication(binding));
        let crossing = self.flows.crossing_to(binding.sandbox);
        flows.extend(crossing.filter(|id| is_of(self.flows.get(*id), binding)));
        flows
    }

    /// Has a publication take no new flows, or take some again. Those there are go on.
    pub fn set_closed(&mut self, binding: &Binding, closed: bool) {
        if closed {
            self.closed.insert(*binding);
        } else {
            self.closed.remove(binding);
        }
    }

    /// Whether a publication has any flow that has not said all.
    pub fn is_in_use(&self, binding: &Binding) -> bool {
        let mut crossing = self.flows.crossing_to(binding.sandbox).map(|id| self.flows.get(id));
        self.flows.owners.has_unspent(Payer::publication(binding))
            || crossing.any(|flow| !flow.is_spent() && is_of(flow, binding))
    }

    /// The published ports.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter()
    }

    /// The ports that control has claimed for a protocol at an address, of the host's or not: these, and no
    /// others. Flows through others end.
    pub fn set_claims(&mut self, protocol: Protocol, address: IpAddr, ports: &[RangeInclusive<u16>]) {
        let mut stays = vec![false; 0x1_0000];
        ports.iter().cloned().flatten().for_each(|port| stays[usize::from(port)] = true);
        let held = self.ports.get(protocol, address.into()).into_iter().flat_map(PortPool::all);
        let gone: BTreeSet<u16> = held.filter(|port| !stays[usize::from(*port)]).collect();
        self.revoke(protocol, address, &gone);
        self.grant(protocol, address, ports.iter().cloned().flatten());
    }

    /// Further ports that control has claimed. One that is claimed already, or zero, changes nothing. The
    /// host should leave them to us at its gateways' addresses, too: hairpins have the same port there.
    pub fn grant(&mut self, protocol: Protocol, address: IpAddr, ports: impl IntoIterator<Item = u16>) {
        if protocol.is_claimed() {
            let pool = self.ports.pool(protocol, address.into());
            ports.into_iter().for_each(|port| pool.claim(port));
        }
    }

    /// Gives up claimed ports. Their flows end.
    pub fn revoke(&mut self, protocol: Protocol, address: IpAddr, ports: &BTreeSet<u16>) {
        let address = Address::from(address);
        if ports.is_empty() {
            return;
        }
        if let Some(pool) = self.ports.get_mut(protocol, address) {
            pool.revoke(ports);
        }
        self.end_flows(|flow, mappings| {
            let goes =
                |end: End| (end.protocol, end.address) == (protocol, address) && ports.contains(&end.port);
            let mut mapped = flow.mappings.iter().filter(|id| id.is_some());
            let shares = flow.origin == Origin::Overloaded && goes(flow.tuple(Side::Target).target_end());
            shares || mapped.any(|id| goes(mappings.get(*id).outside_end()))
        });
    }

    /// Takes up to so many ports out of use that no flow has, and more than are to be ahead of need, for
    /// another protocol or address to have them claimed instead. Says which.
    pub fn give_back(&mut self, protocol: Protocol, address: IpAddr, most: usize) -> BTreeSet<u16> {
        let limits = self.limits;
        let Some(pool) = self.ports.get_mut(protocol, address.into()) else { return BTreeSet::new() };
        let spare = pool.free().saturating_sub(2 * low_water(&limits, pool));
        let ports = pool.some_free(spare.min(most));
        pool.revoke(&ports);
        ports
    }

    /// How many more claims are wanted: below the low-water mark, up to twice as many. Says the same until
    /// they are [granted](Self::grant), so who asks for them must know what is asked for already.
    pub fn wanted(&self) -> impl Iterator<Item = Wanted> {
        let own = self.ports.iter().filter(|(_, address, _)| self.host.contains(address));
        own.filter_map(|(protocol, address, pool)| {
            let ahead = low_water(&self.limits, pool);
            let most = self.limits.claims.saturating_sub(pool.claimed());
            let missing = if pool.free() < ahead { (2 * ahead - pool.free()).min(most) } else { 0 };
            let wanted = Wanted { protocol, address: address.ip(), ports: missing };
            (missing > 0).then_some(wanted)
        })
    }

    /// Ends everything of a sandbox on a network, where it has these addresses no more and others, if any,
    /// still: flows with their mappings and permits, and the ways of fragments. Ends of connections are told
    /// by a reset in the next [`poll`](Self::poll). An address may be given to another behind that.
    pub fn forget(&mut self, network: NetworkId, sandbox: u32, gone: &[IpAddr], stays: &[IpAddr]) {
        let realm = Realm::network(network);
        let goes = |flow: &Flow, side: Side| {
            let tuple = flow.tuple(side);
            tuple.realm == realm && !stays.contains(&tuple.source.ip())
        };
        let mut going = Vec::new();
        for payer in self.flows.owners.of_sandbox(sandbox) {
            let side = if payer.is_own() { Side::Initiator } else { Side::Target };
            let all = self.flows.all_of(payer).into_iter();
            going.extend(all.filter(|id| goes(self.flows.get(*id), side)));
        }
        let crossing = self.flows.crossing_to(sandbox);
        going.extend(crossing.filter(|id| goes(self.flows.get(*id), Side::Target)));
        // A flow from the sandbox to itself is there twice.
        going.sort_unstable_by_key(|id| id.number());
        going.dedup();
        going.into_iter().for_each(|id| self.end(id));
        self.fragments.forget(realm, |address| gone.contains(&address.ip()));
    }

    fn end_flows(&mut self, goes: impl Fn(&Flow, &Mappings) -> bool) {
        let going = self.flows.iter().filter(|(_, flow)| goes(flow, &self.mappings));
        let going: Vec<FlowId> = going.map(|(id, _)| id).collect();
        going.into_iter().for_each(|id| {
            self.remove(id);
        });
    }

    /// Every flow, in no order.
    pub fn flows(&self, now: Instant) -> impl Iterator<Item = Listed> {
        self.flows.iter().map(move |(_, flow)| self.listed(flow, now))
    }

    /// How many records of flows there are. A record has a flow or none, and keeps its number.
    pub fn records(&self) -> u32 {
        self.flows.records()
    }

    /// The flows that some records have, each with the number of its record.
    pub fn flows_in(&self, records: Range<u32>, now: Instant) -> impl Iterator<Item = (u32, Listed)> {
        let flows = self.flows.iter_in(records);
        flows.map(move |(id, flow)| (id.number(), self.listed(flow, now)))
    }

    fn listed(&self, flow: &Flow, now: Instant) -> Listed {
        Listed::new(flow, self.flows.owners.payer(flow).sandbox, &self.limits.timeouts, now)
    }

    /// Ends the flow that a record has, if it has one.
    pub fn end_flow(&mut self, record: u32) {
        let found = self.flows.iter_in(record..record.saturating_add(1)).next().map(|(id, _)| id);
        if let Some(id) = found {
            self.remove(id);
        }
    }

    /// How many flows there may be.
    pub fn flow_limit(&self) -> usize {
        self.limits.flows
    }

    /// Bytes that flows, mappings and all their indices take.
    pub fn bytes(&self) -> usize {
        self.flows.bytes() + self.mappings.bytes()
    }

    /// Every mapping: inside and outside end, as address and port.
    pub fn mappings(&self) -> impl Iterator<Item = Mapped> {
        self.mappings.iter().map(Mapped::new)
    }

    /// Whether there is any mapping.
    pub fn has_mappings(&self) -> bool {
        self.mappings.len() > 0
    }

    /// Numbers of things there are, and counters.
    pub fn stats(&self) -> Stats {
        Stats {
            flows: self.flows.len(),
            mappings: self.mappings.len(),
            permits: self.mappings.permits(),
            fragments_waiting: self.fragments.waiting(),
            ports_claimed: self.ports.iter().map(|(.., pool)| pool.claimed()).sum(),
            ports_free: self.ports.iter().map(|(.., pool)| pool.free()).sum(),
            ..self.stats
        }
    }

    /// When [`poll`](Self::poll) has something to do; `None` while there is nothing.
    pub fn poll_at(&self) -> Option<Instant> {
        let flows = self.flows.expires_next(&self.limits.timeouts);
        let untold = (!self.untold.is_empty()).then_some(Instant::ZERO);
        [flows, untold, self.unsolicited.due(), self.fragments.due()].into_iter().flatten().min()
    }

    /// Ends what was not used for too long, and tells who must know. Without free slots nobody is told.
    pub fn poll(&mut self, now: Instant, pool: &mut Pool, verdicts: &mut Verdicts) {
        for _ in 0..EXPIRED_AT_ONCE.min(pool.available() / 2) {
            let Some(flow) = self.untold.pop() else { break };
            self.tell_of_end(&flow, pool, verdicts);
        }
        for _ in 0..EXPIRED_AT_ONCE {
            let Some(id) = self.flows.expired(&self.limits.timeouts, now) else {
                break;
            };
            let flow = self.remove(id);
            if flow.class == Class::Tcp {
                self.tell_of_end(&flow, pool, verdicts);
            }
        }
        while let Some(syn) = self.unsolicited.take(now) {
            if let Some(mut frame) = pool.take() {
                let Tuple { source, target, .. } = syn.tuple;
                answer::make_error(&mut frame, target, source, Complaint::PortUnreachable, syn.quote());
                verdicts.made.push((Realm::OUTSIDE, frame));
            }
        }
        let mut lost = Vec::new();
        self.fragments.expire(now, &mut lost);
        drop_lost(&mut lost, verdicts);
    }

    /// Resets both ends of a connection that is over, so that they do not wait for nothing.
    fn tell_of_end(&mut self, flow: &Flow, pool: &mut Pool, verdicts: &mut Verdicts) {
        self.stats.reset += 1;
        for side in [Side::Initiator, Side::Target] {
            if let Some(mut frame) = pool.take() {
                let tuple = flow.tuple(side).reversed();
                answer::make_reset(&mut frame, &tuple, flow.acked[side.index()]);
                verdicts.made.push((tuple.realm, frame));
            }
        }
    }

    /// Makes sure that one more flow of a payer's has room. It is the payer's own that goes at its limit, and
    /// one of who has most when the table is full.
    pub(crate) fn make_room(&mut self, payer: Payer) -> Result<(), DropReason> {
        let flows = self.flows.owners.flows_of(payer);
        let evicted = if flows >= self.limits.flows_per_sandbox {
            self.least_wanted_of(payer).ok_or(DropReason::NatSandboxFull)?
        } else if self.flows.is_full() {
            let greatest = self.flows.owners.greatest().ok_or(DropReason::NatTableFull)?;
            let has_most = flows >= self.flows.owners.flows_of(greatest);
            let payer = if has_most { payer } else { greatest };
            let found = self.least_wanted_of(payer);
            let found = found.or_else(|| if has_most { None } else { self.flows.least_used_of(greatest) });
            found.ok_or(DropReason::NatTableFull)?
        } else {
            return Ok(());
        };
        self.end(evicted);
        self.stats.evicted += 1;
        Ok(())
    }

    /// The flow that a payer gives up for another of its own. A connection that goes on is none, nor is
    /// anything that a sandbox began and that goes on; of datagrams from outside it is that longest unused,
    /// because nobody knows whether their sources are there.
    fn least_wanted_of(&mut self, payer: Payer) -> Option<FlowId> {
        let found = self.flows.least_wanted_of(payer);
        if found.is_some() || payer.is_own() {
            return found;
        }
        let least_used = self.flows.least_used_of(payer);
        least_used.filter(|id| self.flows.get(*id).class != Class::Tcp)
    }

    /// Adds a flow, for which there is room, and charges it to somebody. It takes the place of the
    /// initiator's attempts that were filtered.
    pub(crate) fn add(&mut self, flow: Flow, payer: Payer) -> FlowId {
        for mapping in flow.mappings.into_iter().filter(|mapping| mapping.is_some()) {
            self.mappings.use_by(mapping);
        }
        if let Some(attempt) = self.filtered_flow(flow.tuple(Side::Initiator)) {
            self.remove(attempt);
        }
        let id = self.flows.insert(flow, payer);
        self.note_held(id);
        id
    }

    /// Notes to whom a flow crosses, and the outside end that it shares.
    pub(crate) fn note_held(&mut self, id: FlowId) {
        let flow = *self.flows.get(id);
        if let Some(sandbox) = self.crosses_to(&flow) {
            self.flows.owners.cross(sandbox, id.number());
        }
        if flow.origin == Origin::Overloaded {
            let Tuple { protocol, target, .. } = *flow.tuple(Side::Target);
            self.ports.hold(protocol, target, self.flows.owners.payer(&flow).sandbox);
        }
    }

    /// The sandbox that another begins a flow to.
    fn crosses_to(&self, flow: &Flow) -> Option<u32> {
        let [initiator, target] = &flow.tuples;
        initiator.realm.inside().and(target.realm.inside())?;
        let mapping = flow.mappings[Side::Target.index()];
        if mapping.is_some() {
            return Some(self.mappings.get(mapping).sandbox);
        }
        let end = End { realm: Realm::OUTSIDE, ..initiator.target_end() };
        self.bindings.find(&end).map(|binding| binding.sandbox)
    }

    /// Ends a flow before its time; the ends of a connection are told.
    pub(crate) fn end(&mut self, id: FlowId) {
        let flow = self.remove(id);
        if flow.class == Class::Tcp && self.untold.len() < UNTOLD_MAX {
            self.untold.push(flow);
        }
    }

    /// Removes a flow with all it held.
    pub(crate) fn remove(&mut self, id: FlowId) -> Flow {
        let flow = *self.flows.get(id);
        if let Some(sandbox) = self.crosses_to(&flow) {
            self.flows.owners.uncross(sandbox, id.number());
        }
        if flow.origin == Origin::Overloaded {
            let Tuple { protocol, target, .. } = *flow.tuple(Side::Target);
            self.ports.let_go(protocol, target, self.flows.owners.payer(&flow).sandbox);
        }
        self.flows.remove(id);
        for side in [Side::Initiator, Side::Target] {
            let mapping = flow.mappings[side.index()];
            if mapping.is_some() {
                if flow.seen & side.bit() != 0 {
                    self.mappings.forbid(mapping, flow.tuple(side).target);
                }
                self.release(mapping);
            }
        }
        flow
    }

    /// Notes one use of a mapping less; without any it ends, and its port is free.
    pub(crate) fn release(&mut self, mapping: MappingId) {
        let Some(mapping) = self.mappings.unuse_by(mapping) else { return };
        self.ports.let_go(mapping.protocol, mapping.outside, mapping.sandbox);
        if let Some(pool) = self.ports.get_mut(mapping.protocol, mapping.outside) {
            pool.give_back(mapping.outside_port);
        }
    }

    /// Adds a mapping, whose port it has taken.
    pub(crate) fn insert_mapping(&mut self, mapping: Mapping) -> MappingId {
        self.ports.hold(mapping.protocol, mapping.outside, mapping.sandbox);
        self.mappings.insert(mapping)
    }

    /// The largest packet of what leaves with an address, in bytes; zero while nobody knows.
    pub(crate) fn mtu_of(&self, outside: Option<IpAddr>) -> u16 {
        let own = outside.and_then(|address| self.uplink.mtus.get(&address));
        own.copied().unwrap_or(self.uplink.mtu)
    }

    /// A number that nobody outside can foresee: splitmix64 under a secret seed.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        spread(self.random)
    }
}

/// Whether a flow is one of a publication's.
fn is_of(flow: &Flow, binding: &Binding) -> bool {
    let end = End { realm: Realm::OUTSIDE, ..flow.tuple(Side::Initiator).target_end() };
    flow.origin == Origin::Published && binding.holds(&end)
}

/// Free ports below which more are wanted: who uses many soon needs many.
fn low_water(limits: &Limits, pool: &PortPool) -> usize {
    limits.claims_ahead.max((pool.claimed() - pool.free()) / 4)
}

/// Drops fragments whose first one did not come.
pub(crate) fn drop_lost(lost: &mut Vec<(PortId, vswitch_frame::Frame)>, verdicts: &mut Verdicts) {
    for (port, frame) in lost.drain(..) {
        verdicts.push(port, Fate::Dropped(DropReason::NatFragmentLost), frame);
    }
}
