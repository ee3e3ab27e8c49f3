//! The flows that were accepted, so that what answers them is let back.
//!
//! # Theory of operation
//!
//! A flow is two ends, a protocol and the networks it goes between, with the initiator's view kept. The
//! hash does not tell the two directions apart, so one probe finds a flow from either end.
//!
//! * **Entries** are made for the first packet of a flow that was accepted, and only while there is
//!   something to remember it for: rules of the user's, or a way between networks.
//! * **Owners.** A flow is the port's that its first packet came from, whatever address that named. One that
//!   began where the port does not tell who speaks (outside, the host, a tunnel) is the target's.
//! * **Limits.** [`FLOWS_MAX`] in all and [`FLOWS_PER_OWNER_MAX`] of one owner. At the second the owner's
//!   oldest makes room, at the first the oldest of whoever has most: no owner with less than an equal share
//!   loses one to another. Of the oldest, those that were answered are spared for a while.
//! * **Ends.** Each port has lists of the flows that it is an end of, so flows go with a port, and with an
//!   address of it, without a look at others.
//! * **Ageing.** A flow is forgotten when idle for longer than its protocol and phase allow (RFC 5382 for
//!   TCP, RFC 4787 for UDP, RFC 5508 for ICMP). Every [`SWEEP`] while there is any flow, all are looked at.
//! * **Mid-stream.** The first packet seen decides who the initiator is, also of a connection that is older
//!   than the first rule.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashTable;
use vswitch_frame::hash::SeededHash;
use vswitch_frame::headers::protocol;
use vswitch_frame::{Instant, PortId};

use super::chains::{Chains, Kind, Place};
use super::packet::{Packet, Tuple, flags};
use super::rules::{Kept, Ports, Scope};
use crate::gateway::site::Site;

/// Flows remembered at once.
pub(crate) const FLOWS_MAX: usize = 65_536;
/// Flows remembered of one owner.
pub(crate) const FLOWS_PER_OWNER_MAX: u32 = 8192;
/// Flows that are looked at to find one that was not answered, when one has to go.
const SPARED_MAX: usize = 8;
/// The time between two looks for idle flows.
pub(crate) const SWEEP: Duration = Duration::from_secs(15);

/// The ports of the two ends of a packet, as far as they are known. Of a flow they are its first packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// The port that the packet came in at, which may be an uplink.
    pub(crate) ingress: PortId,
    pub(crate) from: Option<PortId>,
    pub(crate) to: Option<PortId>,
    /// Whether the port it comes from does not tell who speaks.
    pub(crate) stranger: bool,
}

impl Ends {
    /// The ends of a packet that leaves the networks of this host.
    pub(crate) fn out_of(site: &Site<'_>, ingress: PortId) -> Self {
        Self { ingress, from: Some(ingress), to: None, stranger: site.from.is_edge() }
    }

    /// The lists of ports that a flow is on: of the one that began it, and of the other.
    fn places(self) -> [Option<Place>; 2] {
        let (first, second) = match (self.stranger, self.to) {
            (true, Some(_)) => (Kind::Sent, Kind::Entered),
            (true, None) | (false, _) => (Kind::Begun, Kind::Reached),
        };
        [self.from.map(|port| Place { port, kind: first }), self.to.map(|port| Place { port, kind: second })]
    }

    /// The list of its owner's.
    fn owner(self) -> Option<Place> {
        self.places().into_iter().flatten().find(|place| place.kind.is_owned())
    }
}

/// A flow that was accepted.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Its ends, as the initiator names them.
    pub(crate) tuple: Tuple,
    /// The networks of the initiator and of the target.
    pub(crate) scope: Scope,
    /// The place of the rule that accepted it, in the table of `generation`.
    pub(crate) rule: Option<usize>,
    /// The number of the table of rules that accepted it.
    pub(crate) generation: u64,
    /// The rest of its way.
    pub(crate) kept: Kept,
    /// Whether somebody outside began it, who named a container's own address: what answers it keeps that
    /// address.
    pub(crate) direct: bool,
    pub(crate) ends: Ends,
    phase: Phase,
    seen: Instant,
}

/// The phase of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Only the initiator was heard.
    Begun,
    /// Both ends were heard.
    Answered,
    /// An end of a TCP connection has said that it will say no more.
    Closing,
}

/// The end of a flow that a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Initiator,
    Target,
}

impl Flow {
    pub(crate) fn new(
        scope: Scope,
        ends: Ends,
        packet: &Packet,
        rule: Option<usize>,
        generation: u64,
        now: Instant,
    ) -> Self {
        let tuple = packet.tuple;
        let (kept, direct) = (Kept::default(), false);
        Self { tuple, scope, ends, rule, generation, kept, direct, phase: Phase::Begun, seen: now }
    }

    /// Notes a packet of the flow.
    pub(crate) fn touch(&mut self, side: Side, packet: &Packet, now: Instant) {
        self.seen = now;
        if packet.flags & (flags::FIN | flags::RST) != 0 {
            self.phase = Phase::Closing;
        } else if side == Side::Target && self.phase == Phase::Begun {
            self.phase = Phase::Answered;
        } else if packet.is_opening() && self.phase == Phase::Closing {
            self.phase = Phase::Begun;
        }
    }

    /// Whether a packet from a side belongs to a conversation, and does not merely begin one.
    pub(crate) fn is_established(&self, side: Side) -> bool {
        side == Side::Target || self.phase != Phase::Begun
    }

    /// Whether an ICMP error about a packet of the flow, which a side sent, may be this one: it goes to who
    /// sent the packet, and comes from the port that the packet went to. Where that does not tell who
    /// speaks, it names the packet's target as its sender; but outside anybody may have seen the packet.
    pub(crate) fn may_tell(&self, side: Side, error: &Packet, quoted: &Tuple, ends: &Ends) -> bool {
        let ahead = match side {
            Side::Initiator => self.ends.to,
            Side::Target => self.ends.from,
        };
        let is_target = error.tuple.from.0 == quoted.to.0;
        let has_seen = match (ends.from, ahead) {
            (None, _) => true,
            (Some(port), Some(ahead)) => port == ahead && (is_target || !ends.stranger),
            (Some(_), None) => is_target,
        };
        has_seen && error.tuple.to.0 == quoted.from.0
    }

    fn idle_max(&self) -> Duration {
        Duration::from_secs(match (self.tuple.protocol, self.phase) {
            (protocol::TCP, Phase::Answered) => 7440,
            (protocol::TCP, Phase::Begun | Phase::Closing) => 240,
            (protocol::UDP, _) => 300,
            (protocol::ICMP | protocol::ICMPV6, _) => 60,
            _ => 600,
        })
    }

    /// The side a packet of this scope and tuple comes from, if it is one of the flow's.
    fn side_of(&self, scope: Scope, tuple: &Tuple) -> Option<Side> {
        if self.tuple == *tuple && self.scope == scope {
            return Some(Side::Initiator);
        }
        (self.tuple == tuple.reversed() && self.scope == scope.reversed()).then_some(Side::Target)
    }
}

/// The flows that were accepted. See the [module](self) for how it works.
#[derive(Debug)]
pub(crate) struct Tracker {
    /// Where each flow is, by its hash.
    index: HashTable<u32>,
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    chains: Chains,
    hash: SeededHash,
    sweep_at: Option<Instant>,
    /// Flows that made room for others.
    displaced: u64,
}

/// The hash of a flow, the same from both ends.
fn hash_of(hash: &SeededHash, scope: Scope, Tuple { from, to, protocol }: &Tuple) -> u64 {
    let (from, to) = ((scope.from, from), (scope.to, to));
    hash.of(&(from.min(to), from.max(to), protocol))
}

impl Tracker {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            index: HashTable::new(),
            flows: Vec::new(),
            free: Vec::new(),
            chains: Chains::default(),
            hash: SeededHash::new(seed),
            sweep_at: None,
            displaced: 0,
        }
    }

    /// The flow a packet belongs to, and the side it comes from.
    pub(crate) fn find(&mut self, scope: Scope, tuple: &Tuple) -> Option<(&mut Flow, Side)> {
        let (number, side) = self.place_of(scope, tuple)?;
        Some((self.flows.get_mut(number as usize)?.as_mut()?, side))
    }

    fn place_of(&self, scope: Scope, tuple: &Tuple) -> Option<(u32, Side)> {
        if self.index.is_empty() {
            return None;
        }
        let hash = hash_of(&self.hash, scope, tuple);
        let side = |number: &u32| self.get(*number)?.side_of(scope, tuple);
        let number = *self.index.find(hash, |number| side(number).is_some())?;
        Some((number, side(&number)?))
    }

    fn get(&self, number: u32) -> Option<&Flow> {
        self.flows.get(number as usize)?.as_ref()
    }

    /// Remembers a flow in place of what was known of its two ends.
    pub(crate) fn insert(&mut self, flow: Flow) {
        if let Some((known, _)) = self.place_of(flow.scope, &flow.tuple) {
            self.remove(known);
        }
        let Some(owner) = flow.ends.owner() else { return };
        if self.chains.len(owner) >= FLOWS_PER_OWNER_MAX {
            self.make_room(owner);
        } else if self.index.len() >= FLOWS_MAX {
            let largest = self.chains.largest_owner();
            self.make_room(largest.unwrap_or(owner));
        }
        self.sweep_at.get_or_insert(flow.seen + SWEEP);
        let number = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.chains.grow()
        });
        for (end, place) in flow.ends.places().into_iter().enumerate() {
            place.into_iter().for_each(|place| self.chains.append(place, end, number));
        }
        let Self { index, flows, hash, .. } = self;
        let of = hash_of(hash, flow.scope, &flow.tuple);
        flows[number as usize] = Some(flow);
        index.insert_unique(of, number, |number| {
            flows[*number as usize].as_ref().map_or(0, |flow| hash_of(hash, flow.scope, &flow.tuple))
        });
    }

    /// Forgets the oldest flow of an owner, or one of the oldest.
    fn make_room(&mut self, owner: Place) {
        let end = owner.kind.end();
        for _ in 0..SPARED_MAX {
            let Some(oldest) = self.chains.oldest(owner) else { return };
            if self.get(oldest).is_none_or(|flow| flow.phase != Phase::Answered) {
                break;
            }
            self.chains.unlink(owner, end, oldest);
            self.chains.append(owner, end, oldest);
        }
        if let Some(oldest) = self.chains.oldest(owner) {
            self.remove(oldest);
            self.displaced += 1;
        }
    }

    fn remove(&mut self, number: u32) {
        let Some(flow) = self.flows.get_mut(number as usize).and_then(Option::take) else { return };
        let hash = hash_of(&self.hash, flow.scope, &flow.tuple);
        if let Ok(entry) = self.index.find_entry(hash, |found| *found == number) {
            entry.remove();
        }
        for (end, place) in flow.ends.places().into_iter().enumerate() {
            place.into_iter().for_each(|place| self.chains.unlink(place, end, number));
        }
        self.free.push(number);
    }

    /// Forgets every flow that a port is an end of.
    pub(crate) fn forget_port(&mut self, port: PortId) {
        self.forget_at(port, &Kind::ALL, |_| true);
    }

    /// Forgets every flow that a port is an end of, by this address.
    pub(crate) fn forget_address(&mut self, port: PortId, address: IpAddr) {
        self.forget_at(port, &[Kind::Begun, Kind::Sent], |flow| flow.tuple.from.0 == address);
        self.forget_at(port, &[Kind::Entered, Kind::Reached], |flow| flow.tuple.to.0 == address);
    }

    /// Forgets every flow that was begun elsewhere to these ports of an address, which is behind `port`.
    pub(crate) fn forget_published(&mut self, port: PortId, address: IpAddr, protocol: u8, ports: &Ports) {
        self.forget_at(port, &[Kind::Entered, Kind::Reached], |flow| {
            let Tuple { to, protocol: of, .. } = flow.tuple;
            let from_elsewhere = flow.scope.from != flow.scope.to;
            from_elsewhere && of == protocol && to.0 == address && ports.contains(&to.1)
        });
    }

    /// Forgets flows on lists of a port.
    fn forget_at(&mut self, port: PortId, kinds: &[Kind], gone: impl Fn(&Flow) -> bool) {
        for kind in kinds {
            let place = Place { port, kind: *kind };
            let mut next = self.chains.oldest(place);
            while let Some(number) = next {
                next = self.chains.newer(kind.end(), number);
                if self.get(number).is_some_and(&gone) {
                    self.remove(number);
                }
            }
        }
    }

    /// The number of flows that have made room for others.
    pub(crate) fn displaced(&self) -> u64 {
        self.displaced
    }

    pub(crate) fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Forgets what was idle for too long, if it is time to look.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        let idle = |flow: &Flow| now.since(flow.seen) >= flow.idle_max();
        for number in (0..).take(self.flows.len()) {
            if self.get(number).is_some_and(idle) {
                self.remove(number);
            }
        }
        self.sweep_at = (!self.index.is_empty()).then(|| now + SWEEP);
    }
}
