//! The way out joins the switch, the translator and the uplinks.
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
//! This is the only file that knows both the engine and the translator, neither of which knows the other.
//! Frames of an uplink are not switched: it is a port in nothing but its descriptor and its counters.
//!
//! * **Several uplinks.** Routes say by which of them a packet leaves, and with which address. A packet with
//!   the address of an uplink leaves by that one, so that an answer to the world goes the way the question
//!   came.
//! * **Books.** Every frame handed in ends up in `forward` or `drop` of the engine's verdicts, or is *held*:
//!   it waits for a neighbour's answer, or is a fragment that waits for its first. [`Uplinks::held`] says how
//!   many are.
//! * **The host's stack** gets a copy of every frame on the uplink. A frame that is not ours is dropped here
//!   in silence ([`DropReason::ForHost`]); one that is ours the stack does not answer, as control holds the
//!   ports ([`vswitch_sys::claim`]).
//! * **Claims** are asked for over a channel of their own as soon as the translator wants more, and asked for
//!   again if they do not come.

mod addresses;
mod neighbours;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use vswitch_contract::counters::Counters;
use vswitch_contract::mirror::FLOWS;
use vswitch_contract::reserved::{UPLINK, UPLINKS_MAX, is_uplink};
use vswitch_contract::uplink::UplinkSpec;
use vswitch_engine::{Entrance, MadeError, Outbound, PublishedAs, Route, Switch, Verdicts, WayOut};
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, DropReason, Frame, Instant, Mac, NetworkId, Pool, PortId};
use vswitch_nat::{CameBy, Inside, Leaving, Limits, Nat, Realm, too_big};
use vswitch_sys::seqpacket::Channel;

use addresses::{source, target};
use neighbours::{Neighbours, Next, Own, WAITING_MAX};

/// Frames held at most at the end of a burst.
pub(super) const HELD_MAX: usize = WAITING_MAX * UPLINKS_MAX as usize + FRAGMENTS_WAITING;
/// Fragments that wait for the first of their datagram.
const FRAGMENTS_WAITING: usize = 64;

/// Time after which claims that did not come are asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// One uplink.
#[derive(Debug)]
struct Leading {
    spec: UplinkSpec,
    neighbours: Neighbours,
}

/// The state of the way out from burst to burst, beside the translator.
#[derive(Debug)]
pub(crate) struct Uplinks {
    by_port: BTreeMap<PortId, Leading>,
    /// The host's addresses, as control says them.
    told_host: Vec<IpAddr>,
    /// The host's routes, as control said them last.
    routes: Vec<Route>,
    /// The addresses of the host that control says, and the uplinks'.
    host: BTreeSet<IpAddr>,
    verdicts: vswitch_nat::Verdicts,
    /// Frames that are asked about whether they lead back; empty between bursts.
    asked_about: Vec<Frame>,
    /// Frames made of others since the last were counted.
    made: usize,
    /// The channel on which claims are asked for.
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

impl Uplinks {
    pub(super) fn new() -> Self {
        Self {
            by_port: BTreeMap::new(),
            told_host: Vec::new(),
            routes: Vec::new(),
            host: BTreeSet::new(),
            verdicts: vswitch_nat::Verdicts::default(),
            asked_about: Vec::new(),
            made: 0,
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
        // A question that cannot be sent is asked again.
        if let Ok(text) = serde_json::to_vec(&wanted) {
            let _ = channel.send(&text, &[]);
        }
        self.asked = Some(now);
    }

    /// How many frames are held.
    pub(super) fn held(&self, nat: &Nat) -> usize {
        let waiting: usize = self.by_port.values().map(|uplink| uplink.neighbours.waiting()).sum();
        waiting + nat.stats().fragments_waiting
    }

    /// When there is something to do; see [`Uplink::poll`].
    pub(super) fn poll_at(&self, nat: &Nat) -> Option<Instant> {
        let neighbours = self.by_port.values().map(|uplink| uplink.neighbours.poll_at());
        neighbours.chain([nat.poll_at()]).flatten().min()
    }
}

/// The way out, with what one burst needs.
pub(super) struct Uplink<'a> {
    pub(super) switch: &'a mut Switch,
    pub(super) nat: &'a mut Nat,
    pub(super) uplinks: &'a mut Uplinks,
    pub(super) verdicts: &'a mut Verdicts,
    pub(super) pool: &'a mut Pool,
    pub(super) counters: &'a Counters,
    pub(super) now: Instant,
}

impl Uplink<'_> {
    /// Says which uplink is at a port, if there is one. Packets that waited for the old one's neighbours are
    /// dropped.
    pub(super) fn set_uplink(&mut self, port: PortId, spec: Option<UplinkSpec>) {
        let uplinks = &mut self.uplinks.by_port;
        if uplinks.get(&port).map(|uplink| &uplink.spec) != spec.as_ref() {
            // Control claims unasked now.
            self.uplinks.asked = Some(self.now);
        }
        let lost = match spec {
            Some(spec) => {
                self.uplinks.routes.clone_from(&spec.routes);
                let (mac, link_local) = (spec.mac.unwrap_or_default(), spec.link_local);
                let own = Own { mac, v4: spec.v4, v6: spec.v6, link_local };
                let neighbours = uplinks.remove(&port).map(|uplink| uplink.neighbours).unwrap_or_default();
                let uplink = uplinks.entry(port).or_insert(Leading { spec, neighbours });
                uplink.neighbours.reset(own)
            }
            None => uplinks
                .remove(&port)
                .map(|mut uplink| uplink.neighbours.reset(Own::default()))
                .unwrap_or_default(),
        };
        for (port, frame) in lost {
            self.drop(DropReason::NoNeighbour, port, frame);
        }
        self.wire();
    }

    /// Says which other addresses the host has.
    pub(super) fn set_host(&mut self, host: Vec<IpAddr>) {
        self.uplinks.told_host = host;
        self.wire();
    }

    /// Tells translator and switch what the uplinks are. Where they know of one only, it is the first.
    fn wire(&mut self) {
        let Uplinks { by_port, told_host, routes, host, .. } = &mut *self.uplinks;
        if by_port.is_empty() {
            routes.clear();
        }
        let specs = || by_port.values().rev().map(|uplink| &uplink.spec);
        *host = told_host.iter().copied().chain(specs().flat_map(UplinkSpec::addresses)).collect();
        self.nat.set_uplink(vswitch_nat::Uplink {
            v4: specs().find_map(|spec| spec.v4),
            v6: specs().find_map(|spec| spec.v6),
            host: host.iter().copied().collect(),
            mtu: specs().map(|spec| spec.mtu).min().unwrap_or(0),
            mtus: specs().flat_map(|spec| spec.addresses().map(|address| (address, spec.mtu))).collect(),
        });
        let described = by_port.iter().rev().map(|(port, Leading { spec, .. })| vswitch_engine::Uplink {
            port: *port,
            interface: spec.interface.clone(),
            addresses: spec.addresses().collect(),
        });
        let routes = routes.clone();
        self.switch.set_way_out(WayOut { uplinks: described.collect(), routes });
    }

    /// Takes the frames for the gateway or the host that lead back inside, to a published port or to
    /// somebody's mapping, and those that answer such, or a client outside that is hidden behind the gateway.
    /// They are the translator's until [`leave`](Self::leave) gives them a fate.
    pub(super) fn turn_back(&mut self, ingress: PortId) {
        let leads_anywhere = self.nat.bindings().next().is_some() || self.nat.has_mappings();
        if self.verdicts.local.is_empty() || !leads_anywhere {
            return;
        }
        let Self { switch, nat, uplinks, verdicts, now, .. } = self;
        std::mem::swap(&mut verdicts.local, &mut uplinks.asked_about);
        // One after another: fragments go the way of the first, which may be in the same burst.
        for frame in uplinks.asked_about.drain(..) {
            let host = target(&frame).filter(|target| uplinks.host.contains(target));
            let back = host.and_then(|_| switch.sender(ingress, &frame)).filter(|(network, _)| {
                nat.destination(&frame, Realm::network(*network)).is_some()
                    || nat.has_flow_of(&frame, *network)
            });
            let Some((network, sandbox)) = back else {
                verdicts.local.push(frame);
                continue;
            };
            // Policy is asked whether it may go there.
            let leaving = Leaving::Masqueraded;
            let from = Inside { port: ingress, network, sandbox, leaving, address: None };
            nat.outbound(frame, from, *now, &mut uplinks.verdicts);
        }
    }

    /// Gives every packet that leaves a fate. Returns how many frames were made meanwhile.
    pub(super) fn leave(&mut self, ingress: PortId) -> usize {
        let mut outbound = std::mem::take(&mut self.verdicts.outbound);
        if let Some(network) = outbound.first().map(|first| first.network) {
            self.nat.prepare(outbound.iter().map(|outbound| &outbound.frame), Realm::network(network));
        }
        for Outbound { network, sandbox, masqueraded, address, frame } in outbound.drain(..) {
            let leaving = if masqueraded { Leaving::Masqueraded } else { Leaving::Plain };
            let from = Inside { port: ingress, network, sandbox, leaving, address };
            self.nat.outbound(frame, from, self.now, &mut self.uplinks.verdicts);
        }
        self.verdicts.outbound = outbound;
        self.settle()
    }

    /// Gives every frame of an uplink's burst a fate, and drains it. Returns how many frames were made
    /// meanwhile.
    pub(super) fn arrive(&mut self, ingress: PortId, burst: &mut Vec<Frame>) -> usize {
        let mut made = 0;
        for mut frame in burst.extract_if(.., |frame| frame.parse().is_err()) {
            if let Err(reason) = frame.parse() {
                self.drop(reason, ingress, frame);
            }
        }
        self.nat.prepare(burst.iter(), Realm::OUTSIDE);
        for frame in burst.drain(..) {
            made += self.receive(ingress, frame);
        }
        made + self.settle()
    }

    /// Takes one frame of an uplink's in. Returns how many frames were made.
    fn receive(&mut self, ingress: PortId, frame: Frame) -> usize {
        let uplink = self.uplinks.by_port.get_mut(&ingress);
        if let Some((mac, waited)) = uplink.and_then(|uplink| uplink.neighbours.hear(&frame, self.now)) {
            self.drop(DropReason::Consumed, ingress, frame);
            waited.into_iter().for_each(|(_, packet)| self.hand_over(ingress, mac, packet));
            return 0;
        }
        match target(&frame) {
            Some(target) if self.uplinks.host.contains(&target) => {
                self.nat.inbound(frame, ingress, self.now, &mut self.uplinks.verdicts);
            }
            Some(_) => return self.enter(ingress, Entrance::from(None), frame),
            None => self.drop(DropReason::ForHost, ingress, frame),
        }
        0
    }

    /// Does what time brings: ends flows, asks neighbours again. Returns how many frames were made.
    pub(super) fn poll(&mut self) -> usize {
        if self.uplinks.poll_at(self.nat).is_some_and(|at| at <= self.now) {
            self.nat.poll(self.now, self.pool, &mut self.uplinks.verdicts);
        }
        let uplinks = self.uplinks.by_port.values_mut();
        let lost: Vec<_> = uplinks.flat_map(|uplink| uplink.neighbours.poll(self.now)).collect();
        for (port, frame) in lost {
            self.drop(DropReason::NoNeighbour, port, frame);
        }
        self.settle()
    }

    /// The published port that a translated packet came through, if a rule asks for it.
    fn published_as(&self, frame: &Frame, network: NetworkId) -> PublishedAs {
        if !self.switch.looks_at_published_ports() {
            return PublishedAs::Unknown;
        }
        match self.nat.came_by(frame, network) {
            Some(CameBy::Published(port)) => PublishedAs::Port(port),
            Some(CameBy::Mapping) => PublishedAs::Nothing,
            None => PublishedAs::Unknown,
        }
    }

    /// Takes a packet into a network. One that may be fragmented is, if the port it goes to takes less: rules
    /// were asked about the whole of it.
    fn enter(&mut self, port: PortId, by: Entrance, frame: Frame) -> usize {
        let before = self.verdicts.forward.len();
        let made = self.switch.enter(port, by, frame, self.verdicts, self.pool, self.now);
        let entered = self.verdicts.forward.get(before).filter(|_| is_uplink(port));
        let mtu = entered.and_then(|(egress, _)| Some(self.switch.port(*egress)?.mtu));
        let narrow = mtu.zip(entered).filter(|(mtu, (_, frame))| frame.mtu_bytes() > *mtu);
        if let Some(mtu) = narrow.and_then(|(mtu, _)| u16::try_from(mtu).ok())
            && let Some((egress, frame)) = self.verdicts.forward.pop()
        {
            self.send_in_fragments(egress, frame, mtu);
        }
        made
    }

    /// Gives a fate to every frame that the translator or the switch made of those it was handed. Returns how
    /// many were made.
    fn settle(&mut self) -> usize {
        let mut made = self.settle_translated();
        if !self.verdicts.errors.is_empty() {
            self.pass_errors();
            // There are no errors about errors.
            made += self.settle_translated();
        }
        made += self.ask_neighbours();
        made + std::mem::take(&mut self.uplinks.made)
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
            self.nat.outbound(frame, from, self.now, &mut self.uplinks.verdicts);
        }
        self.verdicts.errors = errors;
    }

    /// Gives frames their fates: one straight loop for each that the translator knows.
    fn settle_translated(&mut self) -> usize {
        let mut fates = std::mem::take(&mut self.uplinks.verdicts);
        let mut made = fates.made.len();
        for (port, frame) in fates.outside.drain(..) {
            self.send(port, frame);
        }
        for (port, frame) in fates.plain.drain(..) {
            self.send(port, frame);
        }
        for (port, network, frame) in fates.inside.drain(..) {
            let published_as = self.published_as(&frame, network);
            made += self.enter(port, Entrance { network: Some(network), published_as }, frame);
        }
        for (port, frame) in fates.host.drain(..) {
            match self.switch.host_for(port, &frame) {
                Ok(host) => self.verdicts.forward.push((host, frame)),
                Err(_) if is_uplink(port) => self.drop(DropReason::ForHost, port, frame),
                Err(reason) => self.drop(reason, port, frame),
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
        self.uplinks.verdicts = fates;
        made
    }

    /// Sends a packet to its next hop, or holds it until that has said its address.
    fn send(&mut self, ingress: PortId, frame: Frame) {
        let way = target(&frame).and_then(|target| self.switch.next_hop(target, source(&frame)));
        let found = way.and_then(|(port, hop)| Some((port, hop, self.uplinks.by_port.get_mut(&port)?)));
        let Some((egress, hop, uplink)) = found else {
            return self.drop(DropReason::NoRoute, ingress, frame);
        };
        if uplink.spec.mac.is_none() {
            return self.hand_over(egress, Mac::ZERO, frame);
        }
        match uplink.neighbours.find(hop, ingress, frame, self.now) {
            Next::Go(mac, frame) => self.hand_over(egress, mac, frame),
            Next::Wait => {}
            Next::Full(frame) => self.drop(DropReason::NoNeighbour, ingress, frame),
        }
    }

    fn hand_over(&mut self, egress: PortId, mac: Mac, mut frame: Frame) {
        let Some(UplinkSpec { mac: own, mtu, .. }) =
            self.uplinks.by_port.get(&egress).map(|uplink| &uplink.spec)
        else {
            return self.drop(DropReason::NoRoute, egress, frame);
        };
        let (own, mtu) = (own.unwrap_or_default(), *mtu);
        let bytes = frame.bytes_mut();
        bytes[..6].copy_from_slice(&mac.0);
        bytes[6..12].copy_from_slice(&own.0);
        if frame.mtu_bytes() > usize::from(mtu) {
            self.send_in_fragments(egress, frame, mtu);
        } else {
            self.verdicts.forward.push((egress, frame));
        }
    }

    /// Sends a packet that may be fragmented in fragments: one that may not was answered before. Of a
    /// super-frame that is each of the packets it stands for.
    fn send_in_fragments(&mut self, egress: PortId, frame: Frame, mtu: u16) {
        let before = self.verdicts.forward.len() + self.verdicts.drop.len();
        match self.split(frame) {
            Ok(packets) => packets.into_iter().for_each(|packet| self.fragment(egress, packet, mtu)),
            Err((reason, frame)) => self.drop(reason, egress, frame),
        }
        self.uplinks.made += self.verdicts.forward.len() + self.verdicts.drop.len() - before - 1;
    }

    /// The packets that a frame stands for, or the frame if they cannot be made of it.
    fn split(&mut self, frame: Frame) -> Result<Vec<Frame>, (DropReason, Frame)> {
        if frame.offload.gso.is_none() {
            return Ok(vec![frame]);
        }
        let mut packets = Vec::new();
        let mut splitter = Splitter::new(&frame, Accepts::NONE);
        loop {
            match splitter.next_batch(self.pool, &mut packets) {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => {
                    packets.into_iter().for_each(|packet| self.pool.free(packet));
                    return Err((reason, frame));
                }
            }
        }
        self.pool.free(frame);
        Ok(packets)
    }

    fn fragment(&mut self, egress: PortId, mut packet: Frame, mtu: u16) {
        if let Err(reason) = packet.parse() {
            return self.drop(reason, egress, packet);
        }
        let mut fragments = Vec::new();
        match too_big::fragment(packet, mtu, self.pool, &mut fragments) {
            Ok(()) => {
                self.verdicts.forward.extend(fragments.into_iter().map(|fragment| (egress, fragment)));
            }
            Err(packet) => self.drop(DropReason::TxTooBig, egress, packet),
        }
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
        let Self { uplinks, pool, verdicts, .. } = self;
        for (port, uplink) in &mut uplinks.by_port {
            while let Some(question) = uplink.neighbours.next_question() {
                let Some(mut frame) = pool.take() else { continue };
                frame.fill(&question);
                match frame.parse() {
                    Ok(()) => verdicts.forward.push((*port, frame)),
                    Err(reason) => verdicts.drop.push((reason, *port, frame)),
                }
                made += 1;
            }
        }
        made
    }

    fn drop(&mut self, reason: DropReason, port: PortId, frame: Frame) {
        self.verdicts.drop.push((reason, port, frame));
    }
}
