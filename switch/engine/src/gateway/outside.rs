//! Beyond the networks of this host: which packets leave, and which come in from there.
//!
//! # Theory of operation
//! Control says the host's routes ([`Route`]), as far as they lead through the uplink or expressly elsewhere. A packet
//! that a container sends to an address of nobody here *leaves* if the longest matching route leads through
//! the uplink, and policy lets it; it is then in `Verdicts::outbound`. Whoever has the uplink translates it and sends it
//! to its [next hop](Switch::next_hop).
//!
//! What comes in has been translated already where that was due. It *enters* the network that has its target
//! ([`Switch::enter`]), if policy lets it. Addresses of MAC and time to live are seen to here in both directions, and
//! work on a packet that was left for later is not touched.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_frame::headers::ETHERNET_BYTES;
use vswitch_frame::{DropReason, Frame, Instant, NetworkId, PortId};

use super::error::Complaint;
use super::site::Site;
use super::{Onward, Refused, packet, route};
use crate::bindings::Owner;
use crate::network::{GatewayMode, Network, Station};
use crate::policy::{Family, Place, Published, Verdict, reject};
use crate::switch::Switch;
use crate::verdicts::Verdicts;

/// Where packets for some destinations go on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Route {
    /// Which destinations.
    pub destination: IpNet,
    /// Where to.
    pub hop: Hop,
}

/// The next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Hop {
    /// The destination itself, which is on the uplink's link.
    Link,
    /// This router on the uplink's link.
    Router(IpAddr),
    /// Not through the uplink.
    Elsewhere,
}

/// A packet that leaves the networks of this host.
#[derive(Debug)]
pub struct Outbound {
    /// The network it is from.
    pub network: NetworkId,
    /// The sandbox it is from.
    pub sandbox: u32,
    /// Whether it gets an address of the host.
    pub masqueraded: bool,
    /// Which one; `None` for the uplink's.
    pub address: Option<IpAddr>,
    /// The packet; its time to live has been counted down.
    pub frame: Frame,
}

/// The routes of the host, the longest prefixes first.
#[derive(Debug, Default)]
pub(crate) struct Routes(Vec<Route>);

impl Routes {
    fn new(mut routes: Vec<Route>) -> Self {
        // Stable: of routes to one destination, the kernel lists the one it prefers first.
        routes.sort_by_key(|route| std::cmp::Reverse(route.destination.prefix_len()));
        Self(routes)
    }

    fn next_hop(&self, target: IpAddr) -> Option<IpAddr> {
        let route = self.0.iter().find(|route| route.destination.contains(&target))?;
        match route.hop {
            Hop::Link => Some(target),
            Hop::Router(router) => Some(router),
            Hop::Elsewhere => None,
        }
    }
}

impl Network {
    /// Whether what leaves it for outside gets an address of the host.
    pub(crate) fn masquerades(&self, family: Family) -> bool {
        self.masquerade && self.mode(family) != GatewayMode::Routed
    }

    /// The address of the host that what leaves it gets; `None` for the uplink's.
    fn source(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.source_v4.map(IpAddr::from),
            Family::V6 => self.source_v6.map(IpAddr::from),
        }
    }

    /// Its subnets of which addresses may be seen outside: where containers leave with their own, or can be reached by
    /// them.
    pub fn subnets_in_sight(&self) -> impl Iterator<Item = IpNet> {
        let hidden = |subnet: &&IpNet| {
            let family = if matches!(subnet, IpNet::V4(_)) { Family::V4 } else { Family::V6 };
            self.internal || self.masquerades(family) && self.mode(family) == GatewayMode::Nat
        };
        self.subnets.iter().filter(move |subnet| !hidden(subnet)).copied()
    }
}

impl Switch {
    /// Says where packets for outside go on. Without routes none leaves.
    pub fn set_routes(&mut self, routes: Vec<Route>) {
        self.routes = Routes::new(routes);
    }

    /// Whom on the uplink's link a packet for an address goes to; `None` if it does not go there.
    pub fn next_hop(&self, target: IpAddr) -> Option<IpAddr> {
        self.routes.next_hop(target)
    }

    /// Whether an address is neither of a network of this host nor unreachable through the uplink.
    pub(super) fn is_outside(&self, target: IpAddr) -> bool {
        self.next_hop(target).is_some() && !self.ports.any_subnet_contains(target)
    }

    /// Lets a packet leave, if it may.
    pub(super) fn leave(
        &mut self,
        ingress: PortId,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<Onward, Refused> {
        let Self { ports, policy, .. } = self;
        let site = Site::of(ports, ingress).ok_or(DropReason::NoReceiver)?;
        if frame.headers.is_ipv4() {
            packet::check_ipv4_header(frame)?;
        }
        let from = Place::Network(site.id(), site.network);
        match policy.rule(frame, from, Place::Outside { trusted: false }, Published::No, now) {
            Verdict::Accept | Verdict::AcceptMasqueraded => {}
            Verdict::Drop(reason) => return Err(reason.into()),
            Verdict::Reject if reject::turn_round(frame, &site.gateway.addresses) => {
                return Ok(Onward::To(ingress));
            }
            Verdict::Reject => return Err(DropReason::Rule.into()),
        }
        if route::time_to_live(frame) <= 1 {
            return Err(Refused::told(DropReason::TtlExceeded, Complaint::TimeExceeded));
        }
        route::count_down(frame);
        let family = family(frame);
        let (masqueraded, address) = (site.network.masquerades(family), site.network.source(family));
        Ok(Onward::Outside { network: site.id(), sandbox: sandbox(&site), masqueraded, address })
    }

    /// Takes a parsed packet into the network of its target, and moves it to `forward` or `drop`. `ingress` is the port
    /// it came in at: one of a network's, or the uplink's. `network` is where it was translated to; `None` for a packet
    /// that names its target by the target's own address.
    pub fn enter(
        &mut self,
        ingress: PortId,
        network: Option<NetworkId>,
        mut frame: Frame,
        verdicts: &mut Verdicts,
        now: Instant,
    ) {
        match self.entrance(ingress, network, &mut frame, now) {
            Ok(egress) => verdicts.forward.push((egress, frame)),
            Err(Refused { reason, port, .. }) => {
                verdicts.drop.push((reason, port.unwrap_or(ingress), frame));
            }
        }
    }

    fn entrance(
        &mut self,
        ingress: PortId,
        network: Option<NetworkId>,
        frame: &mut Frame,
        now: Instant,
    ) -> Result<PortId, Refused> {
        if frame.headers.is_ipv4() {
            packet::check_ipv4_header(frame)?;
        }
        // Nobody outside is on a network of this host.
        let (sender, _) = packet::addresses(frame);
        if self.ports.get(ingress).is_none() && self.ports.any_subnet_contains(sender) {
            return Err(DropReason::Martian.into());
        }
        let egress = self.behind(network, frame)?;
        let Self { ports, policy, .. } = self;
        let to = ports.get(egress).ok_or(DropReason::NoReceiver)?;
        let home = ports.network(to.network).ok_or(DropReason::NoReceiver)?;
        let source = Site::of(ports, ingress);
        let from = match &source {
            Some(site) => Place::Network(site.id(), site.network),
            None => Place::Outside { trusted: false },
        };
        let published =
            if network.is_some() { Published::Translated { loopback: false } } else { Published::No };
        match policy.rule(frame, from, Place::Network(to.network, home), published, now) {
            Verdict::Accept | Verdict::AcceptMasqueraded => {}
            Verdict::Drop(reason) => return Err(reason.into()),
            Verdict::Reject => return Err(DropReason::Rule.into()),
        }
        if route::time_to_live(frame) <= 1 {
            return Err(DropReason::TtlExceeded.into());
        }
        if frame.mtu_bytes() > to.mtu {
            return Err(Refused { port: Some(egress), ..DropReason::TxTooBig.into() });
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

    /// Whose a parsed packet is that came from a port: its network and sandbox. `None` if it is not IP, or no station of the
    /// network may send it, or its gateway serves none.
    pub fn sender(&self, ingress: PortId, frame: &Frame) -> Option<(NetworkId, u32)> {
        let site = Site::of(&self.ports, ingress).filter(|site| !site.gateway.isolated)?;
        if !frame.headers.is_ip() || frame.headers.network_offset() != ETHERNET_BYTES {
            return None;
        }
        let (source, _) = packet::addresses(frame);
        (!site.is_martian(source)).then(|| (site.id(), sandbox(&site)))
    }

    /// The port by which the host is reached from the network of a port.
    pub fn host_port(&self, ingress: PortId) -> Option<PortId> {
        Site::of(&self.ports, ingress)?.host
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_leads() {
        let route = |destination: &str, hop| Route { destination: destination.parse().expect("net"), hop };
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let routes = Routes::new(vec![
            route("0.0.0.0/0", Hop::Router(ip("192.0.2.1"))),
            route("192.0.2.0/24", Hop::Link),
            route("10.0.0.0/8", Hop::Elsewhere),
            route("10.9.0.0/16", Hop::Router(ip("192.0.2.2"))),
        ]);
        for (target, hop) in [
            ("198.51.100.1", Some("192.0.2.1")),
            ("192.0.2.77", Some("192.0.2.77")),
            ("10.1.0.1", None),
            ("10.9.0.1", Some("192.0.2.2")),
            ("2001:db8::1", None),
        ] {
            assert_eq!(routes.next_hop(ip(target)), hop.map(ip), "{target}");
        }
    }
}
