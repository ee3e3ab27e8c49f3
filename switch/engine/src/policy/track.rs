//! The flows that were accepted, so that what answers them is let back.
//!
//! # Theory of operation
//!
//! A flow is two ends, a protocol and the networks it goes between, with the initiator's view kept. The
//! hash does not tell the two directions apart, so one probe finds a flow from either end.
//!
//! * **Entries** are made for the first packet of a flow that was accepted, and only while there is
//!   something to remember it for: rules of the user's, or a way between networks.
//! * **Limits.** [`FLOWS_MAX`] in all and [`FLOWS_PER_INITIATOR_MAX`] of one address, so that one container
//!   cannot use up what is there for all. A flow beyond them is decided anew for every packet: its initiator
//!   notices nothing, but its replies are no replies to us.
//! * **Ageing.** A flow is forgotten when idle for longer than its protocol and phase allow (RFC 5382 for
//!   TCP, RFC 4787 for UDP, RFC 5508 for ICMP). Every [`SWEEP`] while there is any flow, all are looked at.
//! * **Mid-stream.** The first packet seen decides who the initiator is, also of a connection that is older
//!   than the first rule.

use std::net::IpAddr;
use std::time::Duration;

use hashbrown::HashTable;
use vswitch_frame::hash::SeededHash;
use vswitch_frame::headers::protocol;
use vswitch_frame::{Instant, NetworkId};

use super::packet::{Packet, Tuple, flags};
use super::published::PublishedPorts;
use super::rules::{Kept, Scope};

/// Flows remembered at once.
pub(crate) const FLOWS_MAX: usize = 65_536;
/// Flows remembered of one initiator.
pub(crate) const FLOWS_PER_INITIATOR_MAX: u32 = 8192;
/// The time between two looks for idle flows.
pub(crate) const SWEEP: Duration = Duration::from_secs(15);

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
        packet: &Packet,
        rule: Option<usize>,
        generation: u64,
        now: Instant,
    ) -> Self {
        let tuple = packet.tuple;
        let (kept, direct) = (Kept::default(), false);
        Self { tuple, scope, rule, generation, kept, direct, phase: Phase::Begun, seen: now }
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
    flows: HashTable<Flow>,
    /// The number of flows of each initiator.
    per_initiator: HashTable<(IpAddr, u32)>,
    hash: SeededHash,
    sweep_at: Option<Instant>,
}

/// The hash of a flow, the same from both ends.
fn hash_of(hash: &SeededHash, Tuple { from, to, protocol }: &Tuple) -> u64 {
    hash.of(&(from.min(to), from.max(to), protocol))
}

impl Tracker {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            flows: HashTable::new(),
            per_initiator: HashTable::new(),
            hash: SeededHash::new(seed),
            sweep_at: None,
        }
    }

    /// The flow a packet belongs to, and the side it comes from.
    pub(crate) fn find(&mut self, scope: Scope, tuple: &Tuple) -> Option<(&mut Flow, Side)> {
        if self.flows.is_empty() {
            return None;
        }
        let hash = hash_of(&self.hash, tuple);
        let flow = self.flows.find_mut(hash, |flow| flow.side_of(scope, tuple).is_some())?;
        let side = flow.side_of(scope, tuple)?;
        Some((flow, side))
    }

    /// Remembers a flow in place of what was known of its two ends. At a limit it is not remembered.
    pub(crate) fn insert(&mut self, flow: Flow) {
        self.remove(flow.scope, &flow.tuple);
        let Self { flows, per_initiator, hash, sweep_at } = self;
        let initiator = flow.tuple.from.0;
        if flows.len() >= FLOWS_MAX {
            return;
        }
        match per_initiator.find_mut(hash.of(&initiator), |(of, _)| *of == initiator) {
            Some((_, count)) if *count >= FLOWS_PER_INITIATOR_MAX => return,
            Some((_, count)) => *count += 1,
            None => {
                per_initiator.insert_unique(hash.of(&initiator), (initiator, 1), |(of, _)| hash.of(of));
            }
        }
        sweep_at.get_or_insert(flow.seen + SWEEP);
        flows.insert_unique(hash_of(hash, &flow.tuple), flow, |flow| hash_of(hash, &flow.tuple));
    }

    /// Forgets the flow between two ends, whichever began it.
    pub(crate) fn remove(&mut self, scope: Scope, tuple: &Tuple) {
        let hash = hash_of(&self.hash, tuple);
        if let Ok(entry) = self.flows.find_entry(hash, |flow| flow.side_of(scope, tuple).is_some()) {
            let (flow, _) = entry.remove();
            uncount(&mut self.per_initiator, &self.hash, &flow);
        }
    }

    /// Forgets every flow into or out of a network.
    pub(crate) fn forget_network(&mut self, network: NetworkId) {
        let gone = |flow: &Flow| [flow.scope.from, flow.scope.to].contains(&Some(network));
        self.retain(|flow| !gone(flow));
    }

    /// Forgets every flow that was begun elsewhere to ports that are published no longer.
    pub(crate) fn forget_published(&mut self, published: &PublishedPorts) {
        let PublishedPorts { network, address, protocol, ports } = published;
        self.retain(|flow| {
            let Tuple { to, protocol: of, .. } = &flow.tuple;
            let there = flow.scope.to == Some(*network) && flow.scope.from != Some(*network);
            !(there && of == protocol && to.0 == *address && ports.contains(&to.1))
        });
    }

    pub(crate) fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Forgets what was idle for too long, if it is time to look.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        self.retain(|flow| now.since(flow.seen) < flow.idle_max());
        self.sweep_at = (!self.flows.is_empty()).then(|| now + SWEEP);
    }

    fn retain(&mut self, keep: impl Fn(&Flow) -> bool) {
        let Self { flows, per_initiator, hash, .. } = self;
        flows.retain(|flow| {
            let kept = keep(flow);
            if !kept {
                uncount(per_initiator, hash, flow);
            }
            kept
        });
    }
}

fn uncount(per_initiator: &mut HashTable<(IpAddr, u32)>, hash: &SeededHash, flow: &Flow) {
    let initiator = flow.tuple.from.0;
    if let Ok(mut entry) = per_initiator.find_entry(hash.of(&initiator), |(of, _)| *of == initiator) {
        entry.get_mut().1 -= 1;
        if entry.get().1 == 0 {
            entry.remove();
        }
    }
}
