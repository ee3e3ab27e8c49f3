//! Packets that the host's own kernel forwards: between containers and who is behind another interface of the
//! host than the uplink.
//!
//! # Theory of operation
//! Where forwarding is on (`ip_forward`), the kernel of the host passes packets on to the host ports of
//! networks, from whatever interface. They have an address of somebody else's as source, which what the host
//! itself sends has not. That must be no way around the walls: such a packet is asked about as one from
//! outside. By which interface it came is found as a router finds it (RFC 3704): the one that the host's
//! route to its source leads to.
//!
//! * **The uplink**: the packet socket there has heard it, too, so this is a second copy.
//! * **Another interface**: it passes if the gateway mode, or the network's trust in that interface, lets it.
//!   Its answers go back by the host port. Containers begin nothing there.

use std::net::IpAddr;

use vswitch_frame::{DropReason, Frame, Instant, PortId};

use super::fate::Refused;
use super::packet;
use super::site::Site;
use crate::link_local::is_link_local;
use crate::network::Station;
use crate::policy::rules::{Party, Way};
use crate::policy::{Course, Ends, Place, Published, Ruling};
use crate::switch::Switch;
use crate::verdicts::Verdict;

impl Switch {
    /// Whether a port is the host's, on a network with a gateway, through which alone others can come.
    pub(crate) fn is_host(&self, port: PortId) -> bool {
        Site::of(&self.ports, port).is_some_and(|site| site.from.station == Station::Host)
    }

    /// The verdict on a frame of the host's port, of which `verdict` is the one were it the host's own.
    pub(crate) fn vet_forwarded(
        &mut self,
        ingress: PortId,
        frame: &Frame,
        verdict: Verdict,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if matches!(verdict, Verdict::Drop(_)) || !frame.headers.is_ip() {
            return Ok(verdict);
        }
        let (sender, target) = packet::addresses(frame);
        if self.is_the_hosts(ingress, sender) {
            return Ok(verdict);
        }
        if self.ports.any_subnet_contains(sender) {
            return Err(DropReason::Martian);
        }
        let Verdict::Forward { egress, .. } = verdict else { return Err(DropReason::Protected) };
        let Self { ports, policy, out, bindings, .. } = self;
        let to = ports.get(egress).ok_or(DropReason::NoReceiver)?;
        let network = ports.network(to.network).ok_or(DropReason::NoReceiver)?;
        let interface = out.interface_towards(sender);
        let heard = out.is_uplink(interface);
        if heard && network.subnets_in_sight(interface).any(|subnet| subnet.contains(&target)) {
            return Err(DropReason::AlreadyTaken);
        }
        let published = policy.published_to(frame, to.network, network);
        let from = Place::Outside { trusted: !heard && network.trusts(interface) };
        let ends = Ends { ingress, from: Some(ingress), to: Some(egress), stranger: true };
        let way = Way::between(Party::behind(interface), Party::at(to));
        let places = [from, Place::Network(to.network, network)];
        match policy.rule(frame, places, published, &Course { way, ends, bindings, now }) {
            Ruling::Accept => Ok(verdict),
            Ruling::Drop(reason) => Err(reason),
            Ruling::Reject => Err(DropReason::Rule),
        }
    }

    /// Whether the host itself may send from an address on a network. One that no router forwards from is its
    /// own, too.
    fn is_the_hosts(&self, port: PortId, sender: IpAddr) -> bool {
        let near = match sender {
            IpAddr::V4(sender) => sender.is_unspecified() || sender.is_link_local() || sender.is_loopback(),
            IpAddr::V6(sender) => sender.is_unspecified() || sender.is_loopback(),
        };
        let own = || Site::of(&self.ports, port).is_some_and(|site| site.owns(sender));
        near || is_link_local(sender) || self.hosts.contains(&sender) || own()
    }

    /// Says by which port a packet goes to somebody behind another interface of the host: the host's, if it
    /// answers what came from there.
    pub(super) fn leave_by_host(
        &mut self,
        ingress: PortId,
        frame: &Frame,
        now: Instant,
    ) -> Result<PortId, Refused> {
        let site = Site::of(&self.ports, ingress).ok_or(DropReason::NoReceiver)?;
        let Some(host) = site.host.filter(|_| self.policy.answers_directly(site.id(), ingress, frame)) else {
            let (_, target) = packet::addresses(frame);
            return Err(self.unknown(&site, target));
        };
        let Self { policy, out, bindings, .. } = self;
        let (_, target) = packet::addresses(frame);
        let way = Way::between(Party::at(site.from), Party::behind(out.interface_towards(target)));
        let places = [Place::Network(site.id(), site.network), Place::Outside { trusted: false }];
        let course = Course { way, ends: Ends::out_of(&site, ingress), bindings, now };
        match policy.rule(frame, places, Published::No, &course) {
            Ruling::Accept => Ok(host),
            Ruling::Drop(reason) => Err(reason.into()),
            Ruling::Reject => Err(DropReason::Rule.into()),
        }
    }
}
