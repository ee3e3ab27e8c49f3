//! The way out: what joins the switch, the translator and the uplink.
//!
//! # Theory of operation
//! ```text
//!  a container's burst ─► engine ─► outbound ─► nat ─┬► outside ─► next hop's MAC ─► uplink
//!                                                    └► inside ──┐
//!  the uplink's burst ─► answers of neighbours       ┌► inside ──┴► engine: policy, MACs ─► endpoint's port
//!                     └► for the host's address ─► nat
//!                     └► for a container's own ──────────────────► engine
//!
//!  a container's packet for the host that leads to a container ─► nat ─► inside ─► engine
//! ```
//! This is the only file that knows both the engine and the translator, neither of which knows the other. Frames of
//! the uplink are not switched: it is a port in nothing but its descriptor and its counters.
//!
//! * **Books.** Every frame handed in ends up in `forward` or `drop` of the engine's verdicts, or is *held*: it waits for a
//!   neighbour's answer, or is a fragment that waits for its first. [`Outside::held`] says how many are.
//! * **The host's stack** gets a copy of every frame on the uplink. What is not ours is dropped here in silence
//!   ([`DropReason::ForHost`]); what is ours it does not answer, as control holds the ports ([`vswitch_sys::claim`]).
//! * **Claims** are asked for over a channel of their own as soon as the translator wants more, and asked for again if
//!   they do not come.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vswitch_engine::{MadeError, Outbound, Route, Switch, Verdicts, WayOut};
use vswitch_frame::{DropReason, Frame, Instant, Mac, NetworkId, Pool, PortId};
use vswitch_nat::{Inside, Leaving, Limits, Nat, Protocol, Realm, Uplink};
use vswitch_sys::seqpacket::Channel;

use super::counters::Counters;
use super::neighbours::{Neighbours, Next, Own, WAITING_MAX};
use super::reserved::UPLINK;

/// Frames held at most at the end of a burst.
pub(super) const HELD_MAX: usize = WAITING_MAX + FRAGMENTS_WAITING;
/// Fragments that wait for the first of their datagram.
const FRAGMENTS_WAITING: usize = 64;

/// Flows there may be.
pub(super) const FLOWS: usize = 1_000_000;

/// Time after which claims that did not come are asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The way out of the host, as control describes it. Its descriptor is a packet socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkSpec {
    /// The name of the interface.
    pub interface: String,
    /// The MAC address of the interface.
    pub mac: Mac,
    /// The largest packet it takes, in bytes.
    pub mtu: u16,
    /// The address that IPv4 flows leave with.
    pub v4: Option<Ipv4Addr>,
    /// The address that IPv6 flows leave with.
    pub v6: Option<Ipv6Addr>,
    /// The host's routes; of those to one destination the preferred one first.
    pub routes: Vec<Route>,
}

/// Ports that control has claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// For which protocol.
    pub protocol: Protocol,
    /// At which of the host's addresses.
    pub address: IpAddr,
    /// Which ports.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// The translator, and what else the way out needs from burst to burst.
#[derive(Debug)]
pub(crate) struct Outside {
    spec: Option<UplinkSpec>,
    /// The host's addresses, as control says them.
    told_host: Vec<IpAddr>,
    /// Those, and the uplink's.
    host: BTreeSet<IpAddr>,
    neighbours: Neighbours,
    verdicts: vswitch_nat::Verdicts,
    /// Where claims are asked for.
    claims: Option<Channel>,
    asked: Option<Instant>,
}

/// A translator without an uplink, whose changes the mirror follows. `seed` is secret and random.
pub(super) fn translator(seed: u64) -> Nat {
    let limits = Limits { flows: FLOWS, fragments_waiting: FRAGMENTS_WAITING, ..Limits::default() };
    let mut nat = Nat::new(limits, seed);
    nat.note_changes();
    nat
}

impl Outside {
    pub(super) fn new() -> Self {
        Self {
            spec: None,
            told_host: Vec::new(),
            host: BTreeSet::new(),
            neighbours: Neighbours::default(),
            verdicts: vswitch_nat::Verdicts::default(),
            claims: None,
            asked: None,
        }
    }

    /// Asks for claims over another channel from now on.
    pub(super) fn set_claims(&mut self, channel: OwnedFd) {
        self.claims = Some(Channel::from_fd(channel));
        self.asked = None;
    }

    /// Notes that claims have come.
    pub(super) fn granted(&mut self) {
        self.asked = None;
    }

    /// Asks for claims, if the translator wants any and has not asked.
    pub(super) fn ask_for_claims(&mut self, nat: &Nat, now: Instant) {
        let Some(channel) = &self.claims else { return };
        if self.asked.is_some_and(|at| now.since(at) < ASK_AGAIN) {
            return;
        }
        let wanted: Vec<_> = nat.wanted().collect();
        if wanted.is_empty() {
            return;
        }
        // What cannot be sent is asked for again.
        if let Ok(text) = serde_json::to_vec(&wanted) {
            let _ = channel.send(&text, &[]);
        }
        self.asked = Some(now);
    }

    /// How many frames are held.
    pub(super) fn held(&self, nat: &Nat) -> usize {
        self.neighbours.waiting() + nat.stats().fragments_waiting
    }

    /// What control said the way out is.
    pub(super) fn spec(&self) -> Option<UplinkSpec> {
        self.spec.clone()
    }

    /// The host's addresses, as control said them.
    pub(super) fn told_host(&self) -> Vec<IpAddr> {
        self.told_host.clone()
    }

    /// When there is something to do; see [`Wiring::poll`].
    pub(super) fn poll_at(&self, nat: &Nat) -> Option<Instant> {
        [nat.poll_at(), self.neighbours.poll_at()].into_iter().flatten().min()
    }
}

/// The way out, with what one burst needs.
pub(super) struct Wiring<'a> {
    pub(super) switch: &'a mut Switch,
    pub(super) nat: &'a mut Nat,
    pub(super) outside: &'a mut Outside,
    pub(super) verdicts: &'a mut Verdicts,
    pub(super) pool: &'a mut Pool,
    pub(super) counters: &'a Counters,
    pub(super) now: Instant,
}

impl Wiring<'_> {
    /// Says what the way out is, if there is one; `host` are the host's other addresses. Packets that waited for the old one's
    /// neighbours are dropped.
    pub(super) fn set(&mut self, spec: Option<UplinkSpec>, host: Vec<IpAddr>) {
        let told = spec.clone().unwrap_or_default();
        let own = [told.v4.map(IpAddr::from), told.v6.map(IpAddr::from)];
        self.outside.host = host.iter().copied().chain(own.into_iter().flatten()).collect();
        self.outside.told_host.clone_from(&host);
        self.nat.set_uplink(Uplink { v4: told.v4, v6: told.v6, host, mtu: told.mtu });
        if self.outside.spec != spec {
            // Control claims unasked now.
            self.outside.asked = Some(self.now);
        }
        for (port, frame) in self.outside.neighbours.reset(Own { mac: told.mac, v4: told.v4, v6: told.v6 }) {
            self.drop(DropReason::NoNeighbour, port, frame);
        }
        let interface = spec.as_ref().map(|spec| spec.interface.clone());
        let addresses = own.into_iter().flatten().collect();
        self.switch.set_way_out(WayOut { interface, addresses, routes: told.routes });
        self.outside.spec = spec;
    }

    /// Takes of what is for the gateway or the host what leads back inside: to a published port or to somebody's mapping, or is
    /// an answer to such. It is the translator's until [`leave`](Self::leave) gives it a fate.
    pub(super) fn turn_back(&mut self, ingress: PortId) {
        let leads_anywhere = self.nat.bindings().next().is_some() || self.nat.mappings().next().is_some();
        if self.verdicts.local.is_empty() || !leads_anywhere {
            return;
        }
        let Self { switch, nat, outside, verdicts, now, .. } = self;
        let back = |frame: &mut Frame| {
            let host = target(frame).filter(|target| outside.host.contains(target));
            let (network, _) = host.and_then(|_| switch.sender(ingress, frame))?;
            nat.destination(frame, Realm::network(network))
        };
        let taken: Vec<Frame> = verdicts.local.extract_if(.., |frame| back(frame).is_some()).collect();
        for frame in taken {
            let (network, sandbox) = switch.sender(ingress, &frame).unwrap_or_default();
            // Whether it may go there is asked of policy.
            let leaving = Leaving::Masqueraded;
            let from = Inside { port: ingress, network, sandbox, leaving, address: None };
            nat.outbound(frame, from, *now, &mut outside.verdicts);
        }
    }

    /// Gives every packet that leaves a fate. Returns how many frames were made meanwhile.
    pub(super) fn leave(&mut self, ingress: PortId) -> usize {
        let mut outbound = std::mem::take(&mut self.verdicts.outbound);
        for Outbound { network, sandbox, masqueraded, address, frame } in outbound.drain(..) {
            let leaving = if masqueraded { Leaving::Masqueraded } else { Leaving::Plain };
            let from = Inside { port: ingress, network, sandbox, leaving, address };
            self.nat.outbound(frame, from, self.now, &mut self.outside.verdicts);
        }
        self.verdicts.outbound = outbound;
        self.settle()
    }

    /// Gives every frame of the uplink's burst a fate, and drains it. Returns how many frames were made meanwhile.
    pub(super) fn arrive(&mut self, burst: &mut Vec<Frame>) -> usize {
        let mut made = 0;
        for mut frame in burst.drain(..) {
            match frame.parse() {
                Ok(()) => made += self.receive(frame),
                Err(reason) => self.drop(reason, UPLINK, frame),
            }
        }
        made + self.settle()
    }

    /// Takes one frame of the uplink's in. Returns how many frames were made.
    fn receive(&mut self, frame: Frame) -> usize {
        if let Some((mac, waited)) = self.outside.neighbours.hear(&frame, self.now) {
            self.drop(DropReason::Consumed, UPLINK, frame);
            waited.into_iter().for_each(|(_, packet)| self.hand_over(mac, packet));
            return 0;
        }
        match target(&frame) {
            Some(target) if self.outside.host.contains(&target) => {
                self.nat.inbound(frame, UPLINK, self.now, &mut self.outside.verdicts);
            }
            Some(_) => return self.enter(UPLINK, None, frame),
            None => self.drop(DropReason::ForHost, UPLINK, frame),
        }
        0
    }

    /// Does what time brings: ends flows, asks neighbours again. Returns how many frames were made.
    pub(super) fn poll(&mut self) -> usize {
        if self.outside.poll_at(self.nat).is_some_and(|at| at <= self.now) {
            self.nat.poll(self.now, self.pool, &mut self.outside.verdicts);
        }
        for (port, frame) in self.outside.neighbours.poll(self.now) {
            self.drop(DropReason::NoNeighbour, port, frame);
        }
        self.settle()
    }

    fn enter(&mut self, port: PortId, network: Option<NetworkId>, frame: Frame) -> usize {
        self.switch.enter(port, network, frame, self.verdicts, self.pool, self.now)
    }

    /// Gives every frame a fate that the translator or the switch made of those it was handed. Returns how many were made.
    fn settle(&mut self) -> usize {
        let mut made = self.settle_translated();
        if !self.verdicts.errors.is_empty() {
            self.pass_errors();
            // There are no errors about errors.
            made += self.settle_translated();
        }
        made + self.ask_neighbours()
    }

    /// Sends errors on: through the translator if they are about what it had translated.
    fn pass_errors(&mut self) {
        let mut errors = std::mem::take(&mut self.verdicts.errors);
        for MadeError { port, network, frame } in errors.drain(..) {
            let Some(network) = network else {
                self.send(port, frame);
                continue;
            };
            let from = Inside { port, network, sandbox: 0, leaving: Leaving::Refused, address: None };
            self.nat.outbound(frame, from, self.now, &mut self.outside.verdicts);
        }
        self.verdicts.errors = errors;
    }

    /// One straight loop for each fate the translator knows.
    fn settle_translated(&mut self) -> usize {
        let mut fates = std::mem::take(&mut self.outside.verdicts);
        let mut made = fates.made.len();
        for (port, frame) in fates.outside.drain(..) {
            self.send(port, frame);
        }
        for (port, frame) in fates.plain.drain(..) {
            self.send(port, frame);
        }
        for (port, network, frame) in fates.inside.drain(..) {
            made += self.enter(port, Some(network), frame);
        }
        for (port, frame) in fates.host.drain(..) {
            match self.switch.host_port(port) {
                Some(host) => self.verdicts.forward.push((host, frame)),
                None if port == UPLINK => self.drop(DropReason::ForHost, port, frame),
                None => self.drop(DropReason::NotServed, port, frame),
            }
        }
        for (port, reason, frame) in fates.dropped.drain(..) {
            self.drop(reason, port, frame);
        }
        for (port, reason, frame) in fates.answered.drain(..) {
            self.answer(port, reason, frame);
        }
        for (realm, frame) in fates.made.drain(..) {
            self.send_made(realm, frame);
        }
        self.outside.verdicts = fates;
        made
    }

    /// Sends a packet to its next hop, or holds it until that has said its address.
    fn send(&mut self, ingress: PortId, frame: Frame) {
        let Some(hop) = target(&frame).and_then(|target| self.switch.next_hop(target)) else {
            return self.drop(DropReason::NoRoute, ingress, frame);
        };
        match self.outside.neighbours.find(hop, ingress, frame, self.now) {
            Next::Go(mac, frame) => self.hand_over(mac, frame),
            Next::Wait => {}
            Next::Full(frame) => self.drop(DropReason::NoNeighbour, ingress, frame),
        }
    }

    fn hand_over(&mut self, mac: Mac, mut frame: Frame) {
        let own = self.outside.spec.as_ref().map_or(Mac::ZERO, |spec| spec.mac);
        let bytes = frame.bytes_mut();
        bytes[..6].copy_from_slice(&mac.0);
        bytes[6..12].copy_from_slice(&own.0);
        self.verdicts.forward.push((UPLINK, frame));
    }

    /// Sends back what a dropped frame has become.
    fn answer(&mut self, port: PortId, reason: DropReason, mut frame: Frame) {
        match frame.parse() {
            Ok(()) => {
                self.counters.drop(port, reason, 1);
                self.verdicts.forward.push((port, frame));
            }
            Err(_) => self.drop(reason, port, frame),
        }
    }

    fn send_made(&mut self, realm: Realm, mut frame: Frame) {
        if let Err(reason) = frame.parse() {
            debug_assert!(false, "a frame of the translator's own is malformed: {reason}");
            return self.drop(reason, UPLINK, frame);
        }
        match realm.inside() {
            Some(network) => self.deliver(network, frame),
            None => self.send(UPLINK, frame),
        }
    }

    fn deliver(&mut self, network: NetworkId, frame: Frame) {
        self.switch.deliver(UPLINK, network, frame, self.verdicts);
    }

    /// Sends the questions for neighbours that are due. Without a slot one is left out: it is asked again.
    fn ask_neighbours(&mut self) -> usize {
        let mut made = 0;
        while let Some(question) = self.outside.neighbours.next_question() {
            let Some(mut frame) = self.pool.take() else { continue };
            frame.fill(&question);
            match frame.parse() {
                Ok(()) => self.verdicts.forward.push((UPLINK, frame)),
                Err(reason) => self.drop(reason, UPLINK, frame),
            }
            made += 1;
        }
        made
    }

    fn drop(&mut self, reason: DropReason, port: PortId, frame: Frame) {
        self.verdicts.drop.push((reason, port, frame));
    }
}

/// Whom an IP packet without VLAN tags is for.
fn target(frame: &Frame) -> Option<IpAddr> {
    const ETHERNET: usize = vswitch_frame::headers::ETHERNET_BYTES;
    if frame.headers.network_offset() != ETHERNET {
        return None;
    }
    let packet = &frame.bytes()[ETHERNET..];
    if frame.headers.is_ipv4() {
        let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        return Some(bytes.into());
    }
    if !frame.headers.is_ipv6() {
        return None;
    }
    let bytes: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    Some(bytes.into())
}
