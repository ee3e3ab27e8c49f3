//! Routing: from the gateway of one network to the host, to an endpoint of another network, or outside.

use std::net::IpAddr;

use vswitch_frame::headers::be16;
use vswitch_frame::{DropReason, Frame, Instant, Mac, PortId};

use super::error::Complaint;
use super::fate::{Fate, Onward, Refused};
use super::packet;
use super::site::Site;
use crate::bindings::Owner;
use crate::link_local::is_link_local;
use crate::policy::rules::{Party, Way};
use crate::policy::{Course, Ends, Place, Ruling};
use crate::switch::Switch;

impl Switch {
    /// The fate of a packet whose target is not an address of this network's gateway. `source` is a
    /// station's.
    pub(super) fn route(&self, site: &Site<'_>, source: IpAddr, target: IpAddr) -> Result<Fate, Refused> {
        if site.gateway.isolated || target.is_multicast() || is_link_local(target) || is_link_local(source) {
            return Err(DropReason::NotServed.into());
        }
        if matches!(target, IpAddr::V4(target) if target.is_broadcast() || target.is_unspecified()) {
            return Err(DropReason::NotServed.into());
        }
        match self.bindings.find(site.id(), target) {
            Some((_, Owner::Gateway)) => to_host(site),
            Some((_, Owner::Port(port))) => Ok(Fate::Route(port)),
            None if self.hosts.contains(&target) => to_host(site),
            None if self.is_outside(target) => Ok(Fate::Outside),
            None if self.is_elsewhere(target) => Ok(Fate::Elsewhere),
            None => Err(self.unknown(site, target)),
        }
    }

    /// Sends a packet to the endpoint behind a port, if it may go there; says which port it goes to. One that
    /// a rule rejects becomes the answer to its sender.
    pub(super) fn forward(
        &mut self,
        ingress: PortId,
        frame: &mut Frame,
        egress: PortId,
        now: Instant,
    ) -> Result<Onward, Refused> {
        let Self { ports, policy, bindings, .. } = self;
        let site = Site::of(ports, ingress).ok_or(DropReason::NoReceiver)?;
        let to = ports.get(egress).ok_or(DropReason::NoReceiver)?;
        let network = ports.network(to.network).ok_or(DropReason::NoReceiver)?;
        // Through the gateway there is no way around the isolation groups.
        if egress == ingress {
            return Err(DropReason::Reflected.into());
        }
        if to.network == site.id() && to.is_apart_from(site.from) {
            return Err(DropReason::Isolated.into());
        }
        if frame.headers.is_ipv4() {
            packet::check_ipv4_header(frame)?;
        }
        let (from, place) = (Place::Network(site.id(), site.network), Place::Network(to.network, network));
        let published = policy.published_to(frame, to.network, network);
        let ends = Ends { ingress, from: Some(ingress), to: Some(egress), stranger: site.from.is_edge() };
        let way = Way::between(Party::at(site.from), Party::at(to));
        match policy.rule(frame, [from, place], published, &Course { way, ends, bindings, now }) {
            Ruling::Accept => {}
            Ruling::Drop(reason) => return Err(reason.into()),
            Ruling::Reject if self.turn_round(ingress, frame, now) => return Ok(Onward::Rejected),
            Ruling::Reject => return Err(DropReason::Rule.into()),
        }
        let own = network.gateway.as_ref().filter(|gateway| !gateway.isolated).map(|gateway| gateway.mac);
        let (Some(own), Some(station)) = (own, to.addresses.first()) else {
            return Err(Refused::told(DropReason::NoRoute, Complaint::HostUnreachable));
        };
        if time_to_live(frame) <= 1 {
            return Err(Refused::told(DropReason::TtlExceeded, Complaint::TimeExceeded));
        }
        if frame.mtu_bytes() > to.mtu {
            let complaint = Some(Complaint::TooBig(to.mtu));
            return Err(Refused { port: Some(egress), complaint, ..DropReason::TxTooBig.into() });
        }
        address(frame, own, *station);
        count_down(frame);
        Ok(Onward::To(egress))
    }

    /// Why there is no way to an address.
    pub(super) fn unknown(&self, site: &Site<'_>, target: IpAddr) -> Refused {
        let near = site.network.subnets.iter().any(|subnet| subnet.contains(&target));
        if site.network.internal && !near {
            return DropReason::Internal.into();
        }
        if near || self.ports.any_subnet_contains(target) {
            return Refused::told(DropReason::NoRoute, Complaint::HostUnreachable);
        }
        Refused::told(DropReason::NoRoute, Complaint::NetworkUnreachable)
    }
}

/// The host's other addresses can be reached where anything beyond the network can.
fn to_host(site: &Site<'_>) -> Result<Fate, Refused> {
    if site.network.internal { Err(DropReason::Internal.into()) } else { Ok(Fate::Host) }
}

pub(super) fn time_to_live(frame: &Frame) -> u8 {
    let at = frame.headers.network_offset() + if frame.headers.is_ipv4() { 8 } else { 7 };
    frame.bytes()[at]
}

/// Gives a packet the addresses of the next link.
pub(super) fn address(frame: &mut Frame, own: Mac, station: Mac) {
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&station.0);
    bytes[6..12].copy_from_slice(&own.0);
}

/// Counts a packet's time to live down, which must not be zero. What it carries is not touched, so neither is
/// work on it that was left for later.
pub(super) fn count_down(frame: &mut Frame) {
    let (network, ipv4) = (frame.headers.network_offset(), frame.headers.is_ipv4());
    let bytes = frame.bytes_mut();
    if ipv4 {
        let counted_down = be16(bytes, network + 8) - 0x0100;
        packet::replace16(bytes, network + 8, counted_down, network + 10);
    } else {
        bytes[network + 7] -= 1;
    }
}
