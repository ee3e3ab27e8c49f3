//! Packets that leave the networks of this host, and packets that come in from beyond them.
//!
//! # Theory of operation
//! Control says the host's routes ([`Route`](super::way_out::Route)), as far as they lead through the uplink
//! or expressly elsewhere. A packet that a container sends to an address of nobody here *leaves* if the
//! longest matching route leads through the uplink, and policy lets it; it is then in `Verdicts::outbound`.
//! The owner of the uplink translates it and sends it to its [next hop](Switch::next_hop).
//!
//! A packet that comes in has been translated already where that was due. It *enters* the network that has
//! its target ([`Switch::enter`]), if policy lets it. Addresses of MAC and time to live are seen to here in
//! both directions, and work on a packet that was left for later is not touched. The sender of a packet that
//! comes too late or does not fit is told: the errors are in `Verdicts::errors`.
//!
//! A sender that may name a container by the container's own address gets answers from that address: policy
//! remembers such a flow, and its answers are not masqueraded, whatever the network says.

use std::net::IpAddr;

use vswitch_frame::headers::ETHERNET_BYTES;
use vswitch_frame::{DropReason, Frame, Instant, NetworkId, Pool, PortId};

use super::error::Complaint;
use super::fate::{Onward, Refused};
use super::site::Site;
use super::way_out::WayOut;
use super::{packet, route};
use crate::bindings::Owner;
use crate::network::{Family, Station};
use crate::policy::rules::{Party, Way};
use crate::policy::{Course, Ends, Place, Published, PublishedAs, Ruling, reject};
use crate::switch::Switch;
use crate::verdicts::{MadeError, Verdicts};

/// The way by which a packet comes in.
#[derive(Clone, Copy, Debug)]
pub struct Entrance {
    /// The network that it was translated to; `None` for a packet that names its target by the target's own
    /// address.
    pub network: Option<NetworkId>,
    /// The published port that it came through.
    pub published_as: PublishedAs,
}

impl From<Option<NetworkId>> for Entrance {
    fn from(network: Option<NetworkId>) -> Self {
        let published_as = network.map_or(PublishedAs::Nothing, |_| PublishedAs::Unknown);
        Self { network, published_as }
    }
}

impl Switch {
    /// Whether any rule asks through which published port a packet came.
    pub fn looks_at_published_ports(&self) -> bool {
        self.policy.looks_at_published()
    }

    /// Says where packets for outside go on. Without routes none leaves.
    pub fn set_way_out(&mut self, out: WayOut) {
        self.out = out.into();
    }

    /// The uplink by which a packet goes to an address, and the next hop on its link; `None` if it goes by
    /// none. One from the address of an uplink goes by that, if a route leads there: what answers goes the
    /// way that the question came.
    pub fn next_hop(&self, target: IpAddr, from: Option<IpAddr>) -> Option<(PortId, IpAddr)> {
        self.out.next_hop(target, from)
    }

    /// Whether an address is neither of a network of this host nor unreachable through the uplink.
    pub(super) fn is_outside(&self, target: IpAddr) -> bool {
        self.next_hop(target, None).is_some() && !self.ports.any_subnet_contains(target)
    }

    /// Whether an address is behind another interface of the host than an uplink, and of no network of this
    /// host.
    pub(super) fn is_elsewhere(&self, target: IpAddr) -> bool {
        let interface = self.out.interface_towards(target);
        let elsewhere = interface.is_some() && !self.out.is_uplink(interface);
        elsewhere && !self.ports.any_subnet_contains(target)
    }

    /// Lets a packet leave, if it may.
    pub(super) fn leave(
        &mut self,
        ingress: PortId,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Onward, Refused> {
        let Self { ports, policy, out, bindings, .. } = self;
        let site = Site::of(ports, ingress).ok_or(DropReason::NoReceiver)?;
        if frame.headers.is_ipv4() {
            packet::check_ipv4_header(frame)?;
        }
        let (_, target) = packet::addresses(frame);
        let interface = out.interface_from(target, site.network.source(family(frame)));
        let way = Way::between(Party::at(site.from), Party::behind(interface));
        let places = [Place::Network(site.id(), site.network), Place::Outside { trusted: false }];
        let course = Course { way, ends: Ends::out_of(&site, ingress), bindings, now };
        match policy.rule(frame, places, Published::No, &course) {
            Ruling::Accept => {}
            Ruling::Drop(reason) => return Err(reason.into()),
            Ruling::Reject if self.turn_round(ingress, frame, now) => return Ok(Onward::Rejected),
            Ruling::Reject => return Err(DropReason::Rule.into()),
        }
        if route::time_to_live(frame) <= 1 {
            return Err(Refused::told(DropReason::TtlExceeded, Complaint::TimeExceeded));
        }
        route::count_down(frame);
        let family = family(frame);
        let (_, target) = packet::addresses(frame);
        let by = out.interface_towards(target).and_then(|interface| out.named(interface));
        let address = site.network.source(family).or_else(|| by?.address(target));
        let direct = site.network.is_open(family) && policy.answers_directly(site.id(), ingress, frame);
        let masqueraded = site.network.masquerades(family) && !direct;
        Ok(Onward::Outside { network: site.id(), sandbox: sandbox(&site), masqueraded, address })
    }

    /// Takes a parsed packet into the network of its target, and moves it to `forward` or `drop`. `ingress`
    /// is the port it came in at: one of a network's, or the uplink's. Returns how many frames were made:
    /// errors, in `errors`.
    pub fn enter(
        &mut self,
        ingress: PortId,
        by: impl Into<Entrance>,
        mut frame: Frame,
        verdicts: &mut Verdicts,
        pool: &mut Pool,
        now: Instant,
    ) -> usize {
        let mut made = 0;
        let by @ Entrance { network, .. } = by.into();
        match self.entrance(ingress, by, &mut frame, now) {
            Ok(egress) => verdicts.forward.push((egress, frame)),
            Err(Refused { rejected: true, reason, .. }) if self.reject(network, &mut frame, now) => {
                verdicts.answered.push((reason, ingress));
                verdicts.errors.push(MadeError { port: ingress, network, frame });
            }
            Err(Refused { reason, port, complaint, .. }) => {
                let error = complaint.and_then(|complaint| {
                    let own = self.speaker(ingress, network, &frame)?;
                    self.complain_outside(own, &frame, complaint, pool, now)
                });
                made += usize::from(error.is_some());
                verdicts.errors.extend(error.map(|frame| MadeError { port: ingress, network, frame }));
                verdicts.drop.push((reason, port.unwrap_or(ingress), frame));
            }
        }
        made
    }

    /// Makes of a packet that a rule rejected the answer to its sender, within the budget of errors.
    pub(super) fn reject(&mut self, network: Option<NetworkId>, frame: &mut Frame, now: Instant) -> bool {
        let (_, target) = packet::addresses(frame);
        let gateway = match self.bindings.find(network.unwrap_or_default(), target) {
            Some((_, Owner::Port(port))) => {
                Site::of(&self.ports, port).and_then(|site| site.own_address(target))
            }
            Some((_, Owner::Gateway)) | None => None,
        };
        self.errors.take(now) && reject::turn_round(frame, gateway.as_slice())
    }

    /// The address that tells the sender of a packet that it did not get in: the gateway's in the network it
    /// was translated to, otherwise the host's.
    fn speaker(&self, ingress: PortId, network: Option<NetworkId>, about: &Frame) -> Option<IpAddr> {
        let (sender, target) = packet::addresses(about);
        let Some(network) = network else { return self.out.at(ingress)?.address(sender) };
        match self.bindings.find(network, target)? {
            (_, Owner::Port(port)) => Site::of(&self.ports, port)?.own_address(target),
            (_, Owner::Gateway) => None,
        }
    }

    /// Whether an address cannot be that of somebody outside: it is one of ours, or one that no router
    /// forwards from (RFC 1812, 5.3.7).
    fn is_impossible_outside(&self, sender: IpAddr) -> bool {
        let unroutable = match sender {
            IpAddr::V4(sender) => {
                let [first, ..] = sender.octets();
                first == 0 || first == 127 || first >= 224 || sender.is_link_local()
            }
            IpAddr::V6(sender) => {
                sender.is_unspecified()
                    || sender.is_loopback()
                    || sender.is_multicast()
                    || sender.is_unicast_link_local()
            }
        };
        unroutable || self.hosts.contains(&sender) || self.ports.any_subnet_contains(sender)
    }

    pub(super) fn entrance(
        &mut self,
        ingress: PortId,
        Entrance { network, published_as }: Entrance,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<PortId, Refused> {
        if frame.headers.is_ipv4() {
            packet::check_ipv4_header(frame)?;
        }
        let (sender, _) = packet::addresses(frame);
        // The translator puts the gateway in the place of clients to whom a container has no way back.
        let stands_for_client = network
            .is_some_and(|network| self.bindings.find(network, sender) == Some((network, Owner::Gateway)));
        if self.ports.get(ingress).is_none() && !stands_for_client && self.is_impossible_outside(sender) {
            return Err(DropReason::Martian.into());
        }
        let egress = self.behind(network, frame)?;
        let Self { ports, policy, out, bindings, .. } = self;
        let to = ports.get(egress).ok_or(DropReason::NoReceiver)?;
        let home = ports.network(to.network).ok_or(DropReason::NoReceiver)?;
        let source = Site::of(ports, ingress);
        let uplink = out.at(ingress).map(|uplink| uplink.interface.as_str());
        let (from, sender) = match &source {
            Some(site) => (Place::Network(site.id(), site.network), Party::at(site.from)),
            // A relay's client is where the host's route to it leads.
            None => {
                let behind = Party::behind(uplink.or_else(|| out.interface_towards(sender)));
                (Place::Outside { trusted: home.trusts(uplink) }, behind)
            }
        };
        let way = Way { published_as, ..Way::between(sender, Party::at(to)) };
        let published = match network {
            Some(_) => Published::Translated,
            None => policy.published_to(frame, to.network, home),
        };
        let (port, stranger) = source.map_or((None, true), |site| (Some(ingress), site.from.is_edge()));
        let ends = Ends { ingress, from: port, to: Some(egress), stranger };
        let places = [from, Place::Network(to.network, home)];
        match policy.rule(frame, places, published, &Course { way, ends, bindings, now }) {
            Ruling::Accept => {}
            Ruling::Drop(reason) => return Err(reason.into()),
            Ruling::Reject => return Err(Refused::rejected()),
        }
        if route::time_to_live(frame) <= 1 {
            return Err(Refused::told(DropReason::TtlExceeded, Complaint::TimeExceeded));
        }
        // A packet of an uplink that may be fragmented is, by whoever joins the uplink to the networks.
        let may_be_cut = || out.at(ingress).is_some() && packet::may_be_fragmented(frame);
        if frame.mtu_bytes() > to.mtu && !may_be_cut() {
            let complaint = Some(Complaint::TooBig(to.mtu));
            return Err(Refused { port: Some(egress), complaint, ..DropReason::TxTooBig.into() });
        }
        self.address(egress, frame)?;
        route::count_down(frame);
        Ok(egress)
    }

    /// The port of the station that a packet is for.
    fn behind(&self, network: Option<NetworkId>, frame: &Frame) -> Result<PortId, DropReason> {
        let (_, target) = packet::addresses(frame);
        let found = self.bindings.find(network.unwrap_or_default(), target);
        match found.filter(|(home, _)| network.is_none_or(|network| network == *home)) {
            Some((_, Owner::Port(port))) => Ok(port),
            Some((_, Owner::Gateway)) | None => Err(DropReason::NoRoute),
        }
    }

    /// Takes a packet made here to the station it is for, past policy.
    pub fn deliver(
        &mut self,
        ingress: PortId,
        network: NetworkId,
        mut frame: Frame,
        verdicts: &mut Verdicts,
    ) {
        let egress = self.behind(Some(network), &frame);
        match egress.and_then(|egress| self.address(egress, &mut frame).map(|()| egress)) {
            Ok(egress) => verdicts.forward.push((egress, frame)),
            Err(reason) => verdicts.drop.push((reason, ingress, frame)),
        }
    }

    /// Gives a packet the MAC addresses of the way from the gateway to the station behind a port.
    fn address(&self, egress: PortId, frame: &mut Frame) -> Result<(), DropReason> {
        let site = Site::of(&self.ports, egress).filter(|site| !site.gateway.isolated);
        let (site, station) =
            site.and_then(|site| Some((site, *site.from.addresses.first()?))).ok_or(DropReason::NoRoute)?;
        route::address(frame, site.gateway.mac, station);
        Ok(())
    }

    /// The sender of a parsed packet that came from a port: its network and sandbox. `None` if it is not IP,
    /// or no station of the network may send it, or its gateway serves none.
    pub fn sender(&self, ingress: PortId, frame: &Frame) -> Option<(NetworkId, u32)> {
        let site = Site::of(&self.ports, ingress).filter(|site| !site.gateway.isolated)?;
        if !frame.headers.is_ip() || frame.headers.network_offset() != ETHERNET_BYTES {
            return None;
        }
        let (source, _) = packet::addresses(frame);
        (!site.is_martian(source)).then(|| (site.id(), sandbox(&site)))
    }
}

/// The sandbox behind a port; zero, which is nobody's alone, for a station of which nothing is known.
fn sandbox(site: &Site<'_>) -> u32 {
    match &site.from.station {
        Station::Container(endpoint) => endpoint.sandbox,
        Station::Unknown | Station::Host | Station::Tunnel => 0,
    }
}

fn family(frame: &Frame) -> Family {
    if frame.headers.is_ipv4() { Family::V4 } else { Family::V6 }
}
