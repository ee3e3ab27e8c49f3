//! Routing: from the gateway of one network to the host, or to an endpoint of another network.

use std::net::IpAddr;

use vswitch_frame::headers::be16;
use vswitch_frame::{DropReason, Frame, Mac, PortId};

use super::error::Complaint;
use super::site::{Site, is_link_local};
use super::{Fate, Refused, packet, policy};
use crate::bindings::Owner;
use crate::network::Network;
use crate::ports::Port;
use crate::switch::Switch;

impl Switch {
    /// Where a packet goes whose target is not an address of this network's gateway. `source` is a station's.
    pub(super) fn route(
        &self,
        site: &Site<'_>,
        frame: &mut Frame,
        source: IpAddr,
        target: IpAddr,
    ) -> Result<Fate, Refused> {
        if site.gateway.isolated || target.is_multicast() || is_link_local(target) || is_link_local(source) {
            return Err(DropReason::NotServed.into());
        }
        if matches!(target, IpAddr::V4(target) if target.is_broadcast() || target.is_unspecified()) {
            return Err(DropReason::NotServed.into());
        }
        match self.bindings.find(site.id(), target) {
            Some((_, Owner::Gateway)) => to_host(site),
            Some((_, Owner::Port(port))) => self.forward(site, frame, port),
            None if self.hosts.contains(&target) => to_host(site),
            None => Err(self.unknown(site, target)),
        }
    }

    /// Sends a packet to the endpoint behind a port.
    fn forward(&self, site: &Site<'_>, frame: &mut Frame, egress: PortId) -> Result<Fate, Refused> {
        let Some(to) = self.ports.get(egress) else { return Err(DropReason::NoReceiver.into()) };
        let network = self.ports.network(to.network).ok_or(DropReason::NoReceiver)?;
        permit(site, network, egress, to, frame.headers.is_ipv4())?;
        let own = network.gateway.as_ref().filter(|gateway| !gateway.isolated).map(|gateway| gateway.mac);
        let (Some(own), Some(station)) = (own, to.addresses.first()) else {
            return Err(Refused::told(DropReason::NoRoute, Complaint::HostUnreachable));
        };
        if frame.headers.is_ipv4() {
            packet::check_ipv4_header(frame)?;
        }
        if time_to_live(frame) <= 1 {
            return Err(Refused::told(DropReason::TtlExceeded, Complaint::TimeExceeded));
        }
        if frame.mtu_bytes() > to.mtu {
            let complaint = Some(Complaint::TooBig(to.mtu));
            return Err(Refused { reason: DropReason::TxTooBig, port: Some(egress), complaint });
        }
        pass_on(frame, own, *station);
        Ok(Fate::Forward(egress))
    }

    /// Why there is no way to an address.
    fn unknown(&self, site: &Site<'_>, target: IpAddr) -> Refused {
        let near = site.network.subnets.iter().any(|subnet| subnet.contains(&target));
        if site.network.internal && !near {
            return DropReason::Forbidden.into();
        }
        if near || self.ports.any_subnet_contains(target) {
            return Refused::told(DropReason::NoRoute, Complaint::HostUnreachable);
        }
        Refused::told(DropReason::NoRoute, Complaint::NetworkUnreachable)
    }
}

/// The host's other addresses can be reached where anything beyond the network can.
fn to_host(site: &Site<'_>) -> Result<Fate, Refused> {
    if site.network.internal { Err(DropReason::Forbidden.into()) } else { Ok(Fate::Host) }
}

/// Whether packets may go to an endpoint: through the gateway there is no way around the isolation groups.
fn permit(
    site: &Site<'_>,
    network: &Network,
    egress: PortId,
    to: &Port,
    ipv4: bool,
) -> Result<(), DropReason> {
    if egress == site.ingress {
        return Err(DropReason::Reflected);
    }
    if to.network == site.id() {
        return if to.group == site.from.group { Err(DropReason::Isolated) } else { Ok(()) };
    }
    if policy::allows(site.network, network, ipv4) { Ok(()) } else { Err(DropReason::Forbidden) }
}

fn time_to_live(frame: &Frame) -> u8 {
    let at = frame.headers.network_offset() + if frame.headers.is_ipv4() { 8 } else { 7 };
    frame.bytes()[at]
}

/// Counts the packet's time down and gives it the addresses of the next link. What it carries is not touched, so
/// neither is work on it that was left for later.
fn pass_on(frame: &mut Frame, own: Mac, station: Mac) {
    let (network, ipv4) = (frame.headers.network_offset(), frame.headers.is_ipv4());
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&station.0);
    bytes[6..12].copy_from_slice(&own.0);
    if ipv4 {
        let counted_down = be16(bytes, network + 8) - 0x0100;
        packet::replace16(bytes, network + 8, counted_down, network + 10);
    } else {
        bytes[network + 7] -= 1;
    }
}
