//! Router advertisements (RFC 4861, 4.2 and 6.2): what the switch tells containers of an IPv6 network.
//!
//! # Theory of operation
//!
//! They say which prefixes are on the link, its MTU, and whether the gateway leads further: not on an
//! internal network, and not to a container whose default route leads elsewhere. Addresses are control's to
//! give, so no prefix is for making addresses of (the A flag is off).
//!
//! They are sent when asked for ([`super::ndp`]), and from time to time to all; at once when it may have
//! changed whom the gateway leads further. Then there is one frame for those whom the gateway leads further,
//! and one for those whom it does not: [`Switch::poll`] says of which networks it is time,
//! [`Switch::next_advertisement`] makes the frames one at a time.

use std::net::Ipv6Addr;

use ipnet::IpNet;
use vswitch_frame::{Frame, Instant, NetworkId, Pool, PortId};

use super::packet::{self, HOP_LIMIT_MAX, Link, put16};
use super::schedule::{Due, mix};
use crate::link_local::{ALL_NODES, ALL_NODES_MAC, link_local};
use crate::network::{Gateway, Network, Station};
use crate::ports::Port;
use crate::switch::Switch;

/// Prefixes that one advertisement names at most; more subnets are not advertised.
const PREFIXES_MAX: usize = 16;

/// Seconds for which the gateway is a default router: three of the longest intervals (RFC 4861, 6.2.1).
const LIFETIME: u16 = 1800;

const HEADER: usize = 16;
const OPTION_MAC: usize = 8;
const OPTION_MTU: usize = 8;
const OPTION_PREFIX: usize = 32;

impl Switch {
    /// Lets a network be told of its router at the next poll, for what is to be said may have changed.
    pub(crate) fn advertise_soon(&mut self, network: NetworkId) {
        let mut schedules = self.ports.schedules();
        if let Some((_, schedule)) = schedules.find(|(id, _)| *id == network) {
            schedule.at = Instant::ZERO;
            self.advertise_at = Some(Instant::ZERO);
        }
    }

    /// Notes of which networks it is time to advertise the router.
    pub(crate) fn schedule_advertisements(&mut self, now: Instant) {
        if self.advertise_at.is_none_or(|at| now < at) {
            return;
        }
        let mut next: Option<Instant> = None;
        for (network, schedule) in self.ports.schedules() {
            if schedule.at <= now {
                let both = [true, false].map(|leads_further| Due { network, leads_further });
                self.advertisements.extend(both);
                schedule.advance(now, mix(self.seed ^ u64::from(network.0) ^ now.as_nanos()));
            }
            next = Some(next.map_or(schedule.at, |next| next.min(schedule.at)));
        }
        self.advertise_at = next;
    }

    /// The next router advertisement that is due, with the ports it is for and their MTU. Asked again until
    /// there is none; one for which there is no slot is left out.
    pub fn next_advertisement(&mut self, pool: &mut Pool) -> Option<(Frame, Vec<(PortId, usize)>)> {
        while let Some(Due { network: id, leads_further }) = self.advertisements.pop() {
            let Some(network) = self.ports.network(id) else { continue };
            let Some(gateway) = &network.gateway else { continue };
            let meant = |port: &Port| {
                !matches!(port.station, Station::Host | Station::Tunnel)
                    && (lifetime(network, gateway, port) > 0) == leads_further
            };
            let targets: Vec<(PortId, usize)> = self.ports.members_where(id, meant).collect();
            if targets.is_empty() {
                continue;
            }
            let mut frame = pool.take()?;
            let link = Link { source: gateway.mac, target: ALL_NODES_MAC };
            write(&mut frame, network, gateway, link, ALL_NODES, if leads_further { LIFETIME } else { 0 });
            if frame.parse().is_ok() {
                return Some((frame, targets));
            }
            pool.free(frame);
        }
        None
    }
}

/// The seconds for which the gateway is a default router of the station behind a port: of a container, if one
/// of its default routes leads to an IPv6 address of the gateway's.
pub(super) fn lifetime(network: &Network, gateway: &Gateway, port: &Port) -> u16 {
    let mut own = gateway.addresses.iter().filter(|address| address.is_ipv6());
    let further = match &port.station {
        Station::Container(endpoint) => own.any(|own| endpoint.gateways.contains(own)),
        Station::Unknown | Station::Host | Station::Tunnel => own.next().is_some(),
    };
    if further && !network.internal && !gateway.isolated { LIFETIME } else { 0 }
}

/// Makes the frame an advertisement to `target`.
pub(super) fn write(
    frame: &mut Frame,
    network: &Network,
    gateway: &Gateway,
    link: Link,
    target: Ipv6Addr,
    lifetime: u16,
) {
    const TYPE: u8 = 134;
    let mut message = [0; HEADER + OPTION_MAC + OPTION_MTU + PREFIXES_MAX * OPTION_PREFIX];
    message[0] = TYPE;
    message[4] = packet::default_hop_limit();
    put16(&mut message, 6, lifetime);
    let (mac, rest) = message[HEADER..].split_at_mut(OPTION_MAC);
    mac[..2].copy_from_slice(&[1, 1]);
    mac[2..].copy_from_slice(&gateway.mac.0);
    let (mtu, rest) = rest.split_at_mut(OPTION_MTU);
    mtu[..2].copy_from_slice(&[5, 1]);
    put16(mtu, 6, network.mtu);
    let prefixes = network.subnets.iter().filter_map(|subnet| match subnet {
        IpNet::V6(subnet) => Some(subnet),
        IpNet::V4(_) => None,
    });
    let mut length = HEADER + OPTION_MAC + OPTION_MTU;
    for (option, prefix) in rest.chunks_exact_mut(OPTION_PREFIX).zip(prefixes) {
        const ON_LINK: u8 = 0x80;
        option[..4].copy_from_slice(&[3, 4, prefix.prefix_len(), ON_LINK]);
        // Valid, and would be preferred, for ever.
        option[4..12].fill(0xff);
        option[16..].copy_from_slice(&prefix.network().octets());
        length += OPTION_PREFIX;
    }
    let source = link_local(gateway.mac);
    packet::fill_icmpv6(frame, link, [source, target], HOP_LIMIT_MAX, &mut message[..length]);
}
