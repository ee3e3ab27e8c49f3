//! Port security: a container speaks for itself, and never as a DHCP server or router.
//!
//! # Theory of operation
//!
//! A port has a [`Guard`] if a container's endpoint is behind it and its network wants port security. The
//! guard is made when control says who is behind the port. Per frame it compares bytes that parsing has just
//! brought into cache with the few addresses of the endpoint: no table, no allocation. It looks before the
//! switch learns, so a forged frame changes nothing. What is behind up to two VLAN tags is looked at alike;
//! with more than that a frame is refused, for its receiver might take off any number of them.
//!
//! | of a frame | must be |
//! |---|---|
//! | source MAC | one of the port's fixed addresses |
//! | IPv4 source | one of the endpoint's, or 0.0.0.0 in a DHCP client's message (RFC 2131, 4.1) |
//! | IPv6 source | one of the endpoint's, or link-local, or `::` in what has no address yet (RFC 4862, 5.4; RFC 3590) |
//! | link-local IPv6 address | made of the own MAC (RFC 4291, appendix A), or of no MAC at all, as private addresses (RFC 7217) are |
//! | ARP sender | the own MAC with an own address, or with 0.0.0.0 in a probe (RFC 5227, 2.1.1) |
//! | ND target and link-layer options | own address, own MAC (RFC 4861) |
//! | DHCP | nothing that a server says, by whatever port: no reply to a client's port (RFC 2131, 2; RFC 8415, 7.3) |
//! | DHCP | not from a server's port: UDP 67 or 547 |
//! | ICMP | no redirect, no router advertisement (RFC 6105) |
//!
//! A link-local address made of somebody else's MAC is refused because that is what gateways have.
//!
//! Fragments are told by their source. The first one of a datagram shows its ports, and what it does not show
//! of a message to a DHCP client is taken for a server's; neighbour discovery in fragments is ignored by
//! every host (RFC 6980). IPv6 extension headers beyond those the parser looks
//! through hide what is behind them, so such a packet is refused like what it may hide (RFC 7113).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_frame::headers::{be16, ethertype, protocol};
use vswitch_frame::{DropReason, Frame, Mac};

use crate::link_local::link_local;
use crate::network::{Network, Station};

/// The addresses that a container may send from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    macs: Vec<Mac>,
    ipv4: Vec<Ipv4Addr>,
    ipv6: Vec<Ipv6Addr>,
}

impl Guard {
    /// The guard of a port on a network with these fixed addresses, if it is to have one.
    pub(crate) fn new(network: &Network, macs: &[Mac], station: &Station) -> Option<Self> {
        match station {
            Station::Container(endpoint) if network.port_security => {
                Some(Self::of(macs.to_vec(), endpoint.addresses.iter().map(ipnet::IpNet::addr)))
            }
            Station::Container(_) | Station::Unknown | Station::Host | Station::Tunnel => None,
        }
    }

    /// The guard of an endpoint with these addresses.
    pub(crate) fn of(macs: Vec<Mac>, addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut guard = Self { macs, ipv4: Vec::new(), ipv6: Vec::new() };
        for address in addresses {
            match address {
                IpAddr::V4(address) => guard.ipv4.push(address),
                IpAddr::V6(address) => guard.ipv6.push(address),
            }
        }
        guard
    }

    /// Whether the endpoint may send a frame, which has been parsed.
    #[inline]
    pub(crate) fn check(&self, frame: &Frame) -> Result<(), DropReason> {
        if !self.owns_mac(frame.source()) {
            return Err(DropReason::SpoofedMac);
        }
        let headers = &frame.headers;
        let packet = &frame.bytes()[headers.network_offset()..];
        if headers.is_ipv4() {
            self.check_ipv4(frame, packet)
        } else if headers.is_ipv6() {
            self.check_ipv6(frame, packet)
        } else if headers.ether_type() == ethertype::ARP {
            self.check_arp(packet).ok_or(DropReason::SpoofedArp)
        } else if headers.is_still_tagged() {
            Err(DropReason::TooManyTags)
        } else {
            Ok(())
        }
    }

    #[inline]
    fn check_ipv4(&self, frame: &Frame, packet: &[u8]) -> Result<(), DropReason> {
        const REDIRECT: u8 = 5;
        let source = ipv4_at(packet, 12).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let segment = &frame.bytes()[frame.headers.transport_offset()..frame.headers.end_offset()];
        let begins = !frame.headers.is_later_fragment();
        match frame.headers.protocol() {
            protocol::UDP if begins => {
                if is_dhcp_server(segment) {
                    return Err(DropReason::RogueDhcp);
                }
                let asks_for_address = (word(segment, 0), word(segment, 2)) == (Some(68), Some(67));
                if source.is_unspecified() && asks_for_address {
                    return Ok(());
                }
            }
            protocol::ICMP if begins && segment.first() == Some(&REDIRECT) => {
                return Err(DropReason::RogueRa);
            }
            // A host that has no address yet joins groups from none (RFC 3376, 4.2.13).
            protocol::IGMP if source.is_unspecified() => return Ok(()),
            _ if frame.headers.is_hidden() => return Err(DropReason::RogueRa),
            _ => {}
        }
        if self.ipv4.contains(&source) { Ok(()) } else { Err(DropReason::SpoofedIp) }
    }

    #[inline]
    fn check_ipv6(&self, frame: &Frame, packet: &[u8]) -> Result<(), DropReason> {
        let source = ipv6_at(packet, 8).unwrap_or(Ipv6Addr::UNSPECIFIED);
        let (headers, bytes) = (&frame.headers, frame.bytes());
        let segment = &bytes[headers.transport_offset()..headers.end_offset()];
        match headers.protocol() {
            _ if headers.is_hidden() => return Err(DropReason::RogueRa),
            protocol::UDP if !headers.is_later_fragment() && is_dhcpv6_server(segment) => {
                return Err(DropReason::RogueDhcp);
            }
            protocol::ICMPV6 if !headers.is_fragment() => return self.check_icmpv6(source, segment),
            _ => {}
        }
        if self.owns_ipv6(source) { Ok(()) } else { Err(DropReason::SpoofedIp) }
    }

    fn check_icmpv6(&self, source: Ipv6Addr, segment: &[u8]) -> Result<(), DropReason> {
        const ROUTER_SOLICITATION: u8 = 133;
        const ROUTER_ADVERTISEMENT: u8 = 134;
        const SOLICITATION: u8 = 135;
        const ADVERTISEMENT: u8 = 136;
        const REDIRECT: u8 = 137;
        const MLD_REPORTS: [u8; 3] = [131, 132, 143];
        let kind = segment.first().copied().unwrap_or(0);
        let may_have_no_address =
            matches!(kind, ROUTER_SOLICITATION | SOLICITATION) || MLD_REPORTS.contains(&kind);
        let is_own = self.owns_ipv6(source) || source.is_unspecified() && may_have_no_address;
        if !is_own {
            return Err(DropReason::SpoofedIp);
        }
        let honest = match kind {
            ROUTER_ADVERTISEMENT | REDIRECT => return Err(DropReason::RogueRa),
            ROUTER_SOLICITATION => self.owns_options(segment.get(8..)),
            SOLICITATION => self.owns_options(segment.get(24..)),
            ADVERTISEMENT => {
                ipv6_at(segment, 8).is_some_and(|target| self.owns_ipv6(target))
                    && self.owns_options(segment.get(24..))
            }
            _ => true,
        };
        if honest { Ok(()) } else { Err(DropReason::SpoofedNd) }
    }

    /// Whether the link-layer addresses among options of neighbour discovery are own ones (RFC 4861, 4.6).
    fn owns_options(&self, options: Option<&[u8]>) -> bool {
        let Some(mut options) = options else { return false };
        while let [kind, units, ..] = *options {
            let length = usize::from(units) * 8;
            let Some(option) = options.get(..length).filter(|option| !option.is_empty()) else {
                return false;
            };
            if matches!(kind, 1 | 2) && !mac_at(option, 2).is_some_and(|mac| self.owns_mac(mac)) {
                return false;
            }
            options = &options[length..];
        }
        options.is_empty()
    }

    /// RFC 826, for Ethernet and IPv4.
    fn check_arp(&self, packet: &[u8]) -> Option<()> {
        const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
        let sender = (mac_at(packet, 8)?, ipv4_at(packet, 14)?);
        let owned = self.owns_mac(sender.0) && (sender.1.is_unspecified() || self.ipv4.contains(&sender.1));
        (packet.get(..6)? == ETHERNET_IPV4 && packet.len() >= 28 && owned).then_some(())
    }

    #[inline]
    fn owns_mac(&self, mac: Mac) -> bool {
        self.macs.contains(&mac)
    }

    #[inline]
    fn owns_ipv6(&self, address: Ipv6Addr) -> bool {
        self.ipv6.contains(&address) || self.owns_link_local(address)
    }

    fn owns_link_local(&self, address: Ipv6Addr) -> bool {
        let octets = address.octets();
        let made_of_mac = octets[11..13] == [0xff, 0xfe];
        address.is_unicast_link_local()
            && (!made_of_mac || self.macs.iter().any(|mac| link_local(*mac) == address))
    }
}

/// Bytes of a UDP header, behind which a message begins with its kind.
const UDP_BYTES: usize = 8;

/// Whether a datagram is what only a DHCP server sends: from its port, or a reply to a client's.
#[inline]
fn is_dhcp_server(datagram: &[u8]) -> bool {
    const REQUEST: u8 = 1;
    word(datagram, 0) == Some(67)
        || word(datagram, 2) == Some(68) && datagram.get(UDP_BYTES) != Some(&REQUEST)
}

/// Whether a datagram is what only a DHCPv6 server or relay sends.
#[inline]
fn is_dhcpv6_server(datagram: &[u8]) -> bool {
    const ADVERTISE: u8 = 2;
    const REPLY: u8 = 7;
    const RECONFIGURE: u8 = 10;
    const RELAY_REPLY: u8 = 13;
    let says = datagram.get(UDP_BYTES);
    let serves = matches!(says, None | Some(&(ADVERTISE | REPLY | RECONFIGURE | RELAY_REPLY)));
    word(datagram, 0) == Some(547) || word(datagram, 2) == Some(546) && serves
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|word| be16(word, 0))
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..at + 6)?.try_into().ok().map(Mac)
}

fn ipv4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}
