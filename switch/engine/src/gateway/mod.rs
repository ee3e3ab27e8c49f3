//! The gateway of each network, which is the switch itself: it answers what is asked of its addresses, and
//! routes between networks.
//!
//! # Theory of operation
//!
//! [`Switch::process`] sets the frames that are for the gateway aside, in `Verdicts::local`:
//!
//! * what is sent to its MAC address;
//! * of what is sent to many: ARP and neighbour discovery about its addresses, router solicitations and what
//!   DHCP clients say. These are not flooded, so no container can answer in the gateway's place.
//!
//! [`Switch::serve`] then gives each a [`Fate`], and moves it to `forward`, `names`, `outbound` or `drop`:
//!
//! ```text
//!                 ┌► ARP, ND, RS, DHCP ──► answered ─────────────────────► the port it came from
//!  local ─────────┼► a gateway address ┬─► echo ─► answered ─────────────► the port it came from
//!  (burst of      │                    ├─► names ─► the resolver, see [`dns`](crate::dns)
//!   one port)     │                    └─► the rest, as it is ───────────► the host port
//!                 ├► the host's address ─► as it is ─────────────────────► the host port ([`host_gate`])
//!                 ├► another network's ──► route: policy, TTL, MTU, MACs ► an endpoint's port
//!                 └► any other address ──► leave: policy, TTL ───────────► `outbound`, see [`outside`]
//! ```
//!
//! * **In place.** An answer is the question's frame, rewritten. Only errors ([`error`]) and advertisements
//!   nobody asked for ([`advertise`]) are frames of the gateway's own; [`Switch::serve`] says how many it
//!   made, at most [`FRAMES_MADE_MAX`], so that the books can be kept.
//! * **The host** has the gateway's MAC address and addresses on its port. What comes from there is switched
//!   like anything else, and never set aside.
//! * **Isolated** gateways serve names and leases, and what is needed to find them (ARP, ND); nothing else.
//! * **Trust.** Who asks is known by the port, not by what the frame says. A source that is not of the
//!   network is dropped ([`DropReason::Martian`]); checksums of what is answered are checked; what is
//!   malformed is dropped and counted.
//! * **Tags.** The gateway is on the untagged network, and so is the host: a tagged frame to its MAC address
//!   goes nowhere.
//!
//! Nothing here keeps state, but the budget of errors and the time of the next advertisement of each network.

mod advertise;
mod arp;
pub(crate) mod budget;
mod dhcp;
mod echo;
mod error;
mod fate;
mod forwarded;
mod host_gate;
mod ndp;
pub(crate) mod outside;
mod packet;
mod relayed;
mod route;
pub(crate) mod schedule;
pub(crate) mod site;
pub mod way_out;

use vswitch_frame::headers::{ETHERNET_BYTES, ethertype};
use vswitch_frame::{DropReason, Frame, Instant, Pool, PortId};

use crate::dns::datagram::DNS_PORT;
use crate::switch::Switch;
use crate::verdicts::{Outbound, Verdicts};

pub use budget::FRAMES_MADE_MAX;
use error::Complaint;
use fate::{Fate, Onward, Refused};
use site::Site;

/// Whether a frame that is sent to many is for the gateway, and not to be flooded.
pub(crate) fn claims(site: &Site<'_>, frame: &Frame) -> bool {
    let headers = &frame.headers;
    if headers.network_offset() != ETHERNET_BYTES {
        return false;
    }
    match headers.ether_type() {
        ethertype::ARP => arp::concerns(site, frame),
        ethertype::IPV4 => dhcp::is_request(site, frame),
        ethertype::IPV6 => ndp::concerns(site, frame),
        _ => false,
    }
}

impl Switch {
    /// Gives every frame in `local` and `too_big` a fate, and moves it to `forward`, `names`, `outbound` or
    /// `drop`. `ingress` is the port they came from. Returns how many frames of its own the gateway made,
    /// from slots of the pool; they are in `forward`, too.
    pub fn serve(
        &mut self,
        ingress: PortId,
        verdicts: &mut Verdicts,
        pool: &mut Pool,
        now: Instant,
    ) -> usize {
        let Verdicts { local, names, outbound, too_big, forward, drop, answered, .. } = verdicts;
        let mut made = 0;
        for (egress, mtu, frame) in too_big.drain(..) {
            // No station but the gateway would tell: within a network nobody expects packets to be too big.
            let tellable = frame.headers.is_ip() && frame.headers.network_offset() == ETHERNET_BYTES;
            let error = tellable.then_some(Complaint::TooBig(mtu));
            let error = error.and_then(|complaint| self.complain(ingress, &frame, complaint, pool, now));
            made += usize::from(error.is_some());
            forward.extend(error.map(|error| (ingress, error)));
            drop.push((DropReason::TxTooBig, egress, frame));
        }
        for mut frame in local.drain(..) {
            match self.fate(ingress, &mut frame, now) {
                Ok(Onward::To(egress)) => forward.push((egress, frame)),
                Ok(Onward::Rejected) => {
                    forward.push((ingress, frame));
                    answered.push((DropReason::Rule, ingress));
                }
                Ok(Onward::Names) => names.push(frame),
                Ok(Onward::Outside { network, sandbox, masqueraded, address }) => {
                    outbound.push(Outbound { network, sandbox, masqueraded, address, frame });
                }
                Err(Refused { reason, port, complaint, .. }) => {
                    let error =
                        complaint.and_then(|complaint| self.complain(ingress, &frame, complaint, pool, now));
                    made += usize::from(error.is_some());
                    forward.extend(error.map(|error| (ingress, error)));
                    drop.push((reason, port.unwrap_or(ingress), frame));
                }
            }
        }
        made
    }

    /// The way on of one frame.
    fn fate(&mut self, ingress: PortId, frame: &mut Frame, now: Instant) -> Result<Onward, Refused> {
        let site = Site::of(&self.ports, ingress).ok_or(DropReason::NoReceiver)?;
        let egress = match self.answer(&site, frame)? {
            Fate::Answer => {
                frame.parse()?;
                ingress
            }
            Fate::Names => return Ok(Onward::Names),
            Fate::Host => host(&site, frame)?,
            Fate::Route(egress) => match self.forward(ingress, frame, egress, now)? {
                Onward::To(egress) => egress,
                onward @ (Onward::Rejected | Onward::Names | Onward::Outside { .. }) => return Ok(onward),
            },
            Fate::Outside => return self.leave(ingress, frame, now),
            Fate::Elsewhere => {
                host_gate::admit(&site, frame)?;
                self.leave_by_host(ingress, frame, now)?
            }
        };
        let to = self.ports.get(egress).ok_or(DropReason::NoReceiver)?;
        if frame.mtu_bytes() > to.mtu {
            return Err(Refused { port: Some(egress), ..DropReason::TxTooBig.into() });
        }
        Ok(Onward::To(egress))
    }

    fn answer(&self, site: &Site<'_>, frame: &mut Frame) -> Result<Fate, Refused> {
        let headers = frame.headers;
        if headers.network_offset() != ETHERNET_BYTES {
            return Err(DropReason::HostGate.into());
        }
        if headers.ether_type() == ethertype::ARP {
            return Ok(arp::answer(site, frame)?);
        }
        if !headers.is_ip() {
            return Ok(Fate::Host);
        }
        if dhcp::is_request(site, frame) {
            return Ok(dhcp::answer(site, frame)?);
        }
        if ndp::concerns(site, frame) {
            return Ok(ndp::answer(site, frame)?);
        }
        let (source, target) = packet::addresses(frame);
        if site.is_martian(source) {
            return Err(DropReason::Martian.into());
        }
        if !site.owns(target) {
            return self.route(site, source, target);
        }
        match packet::target_port(frame) {
            Some(DNS_PORT) => Ok(Fate::Names),
            _ if site.gateway.isolated => Err(DropReason::NotServed.into()),
            _ if echo::is_request(frame) => Ok(echo::answer(site, frame)?),
            _ => Ok(Fate::Host),
        }
    }
}

/// The host port. Where there is none, an IP packet's sender is told that nobody listens.
fn host(site: &Site<'_>, frame: &Frame) -> Result<PortId, Refused> {
    let tell = frame.headers.is_ip() && !site.gateway.isolated;
    let complaint = tell.then_some(Complaint::PortUnreachable);
    let host = site.host.ok_or(Refused { complaint, ..DropReason::NotServed.into() })?;
    host_gate::admit(site, frame)?;
    Ok(host)
}
