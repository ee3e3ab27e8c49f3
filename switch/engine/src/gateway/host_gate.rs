//! The gate in front of the host's stack, which every frame for a host port passes.
//!
//! # Theory of operation
//! The host trusts what comes in by its interfaces, so its kernel must not be shown what the gateway has not
//! looked at. Who makes frames by hand can say the same thing to it in many ways: Linux takes off any number
//! of VLAN tags whose VLAN is 0, takes a packet for one of its addresses also from a frame to a group, and
//! does what extension headers ask. So there is one way in for what is sent to one, and one for what is sent
//! to many; whatever does not go by these, never goes to the host.
//!
//! | frame | reaches the host |
//! |---|---|
//! | with a VLAN tag | never |
//! | to one, but not to the gateway's MAC address | never |
//! | to the gateway's MAC address, IP | if the gateway has found that its network may reach the address |
//! | to the gateway's MAC address, ARP | if it answers the host: not as a question, which the gateway answers |
//! | to many, IP | if its target is many, too (RFC 1122, 3.3.6), and its source a station or nobody yet |
//! | to many, ARP and ND | if its sender is a station or nobody yet, and nobody else here has what it asks for |
//! | IP with a route of its own | never (RFC 1812, 5.3.13.4; RFC 5095) |
//! | IP that hides what it carries | never |
//! | a router's word: advertisement, redirect | never |
//! | anything else | never |
//!
//! [`HostGate`](DropReason::HostGate) is the reason where nobody else gets the frame. One to many that the
//! host does not get goes to the others as ever. On a network without a host port, and for frames of the
//! host, of tunnels and to other ports, there is nothing to ask.

use std::net::IpAddr;

use vswitch_frame::headers::{ETHERNET_BYTES, ethertype};
use vswitch_frame::{DropReason, Frame, PortId};

use super::packet::{self, protocol};
use super::site::Site;
use super::{arp, ndp};
use crate::snoop::{Audience, Listeners};
use crate::switch::Switch;
use crate::verdicts::Verdict;

/// Whether a frame that the gateway has looked at may go to the host.
pub(super) fn admit(site: &Site<'_>, frame: &Frame) -> Result<(), DropReason> {
    let to_gateway = frame.destination() == site.gateway.mac;
    let sound = match frame.headers.ether_type() {
        ethertype::ARP => arp::is_reply(frame),
        _ => is_sound_ip(frame),
    };
    if to_gateway && is_untagged(frame) && sound { Ok(()) } else { Err(DropReason::HostGate) }
}

fn is_untagged(frame: &Frame) -> bool {
    frame.headers.network_offset() == ETHERNET_BYTES
}

/// Whether a frame carries IP, and nothing that a container has to say to the kernel of the host.
fn is_sound_ip(frame: &Frame) -> bool {
    const REDIRECT_V4: u8 = 5;
    let headers = &frame.headers;
    let kind = packet::payload(frame).first();
    let rules = match headers.protocol() {
        protocol::ICMP => kind == Some(&REDIRECT_V4),
        protocol::ICMPV6 => kind.is_some_and(|kind| ndp::ROUTERS_WORD.contains(kind)),
        _ => false,
    };
    headers.is_ip() && !headers.is_source_routed() && !headers.is_hidden() && !rules
}

impl Switch {
    /// The port of the host, if frames from this port may reach it by way of the switch.
    pub(crate) fn gated_host(&self, ingress: PortId) -> Option<PortId> {
        let from = self.ports.get(ingress)?;
        let host = self.ports.host(from.network).filter(|host| *host != ingress)?;
        self.ports.get(host).is_some_and(|to| !to.is_apart_from(from)).then_some(host)
    }

    /// The verdict on a frame that would have this one if the host were a port like others.
    #[inline]
    pub(crate) fn pass_gate(
        &self,
        host: PortId,
        ingress: PortId,
        frame: &Frame,
        verdict: Verdict,
    ) -> Result<Verdict, DropReason> {
        match verdict {
            Verdict::Forward { egress, .. } if egress == host => Err(DropReason::HostGate),
            Verdict::Forward { .. } | Verdict::Local | Verdict::Drop(_) => Ok(verdict),
            Verdict::Flood => self.spare_host(host, ingress, frame, Listeners::All, verdict),
            Verdict::Multicast(audience) => self.spare_host(host, ingress, frame, audience.of, verdict),
        }
    }

    /// The verdict on a frame to many, which the host gets only if that is not a way around the gate.
    fn spare_host(
        &self,
        host: PortId,
        ingress: PortId,
        frame: &Frame,
        of: Listeners,
        verdict: Verdict,
    ) -> Result<Verdict, DropReason> {
        if Site::of(&self.ports, ingress).is_some_and(|site| self.may_hear(&site, frame)) {
            return Ok(verdict);
        }
        let others = Audience { of, host: false };
        if self.multicast_targets(ingress, others).next().is_some() {
            return Ok(Verdict::Multicast(others));
        }
        Err(match of {
            Listeners::All if self.ports.has_others(ingress, host) => DropReason::Isolated,
            Listeners::All if !frame.destination().is_multicast() => DropReason::NoReceiver,
            Listeners::All | Listeners::Group(_) | Listeners::Routers => DropReason::HostGate,
        })
    }

    /// Whether the host may hear a frame that goes to many.
    #[inline(never)]
    fn may_hear(&self, site: &Site<'_>, frame: &Frame) -> bool {
        if !frame.destination().is_multicast() || !is_untagged(frame) {
            return false;
        }
        let is_elsewhere = |address: IpAddr| self.bindings.port_of(site.id(), address).is_some();
        let may_send = |source: IpAddr| source.is_unspecified() || !site.is_martian(source);
        if frame.headers.ether_type() == ethertype::ARP {
            return arp::read(frame).is_some_and(|arp| {
                may_send(arp.sender.into()) && !arp.question().is_some_and(|asked| is_elsewhere(asked.into()))
            });
        }
        if !is_sound_ip(frame) {
            return false;
        }
        let (source, target) = packet::addresses(frame);
        let question = ndp::question(frame).filter(|asked| is_elsewhere((*asked).into()));
        site.is_many(target) && may_send(source) && question.is_none()
    }

    /// The port by which the host is reached from the network of a port, for a packet that goes there after
    /// all.
    ///
    /// # Errors
    /// Why the packet may not go there.
    pub fn host_for(&self, ingress: PortId, frame: &Frame) -> Result<PortId, DropReason> {
        let site = Site::of(&self.ports, ingress).ok_or(DropReason::NotServed)?;
        let host = site.host.ok_or(DropReason::NotServed)?;
        admit(&site, frame)?;
        let (_, target) = packet::addresses(frame);
        if site.network.internal && !site.owns(target) { Err(DropReason::Internal) } else { Ok(host) }
    }
}
