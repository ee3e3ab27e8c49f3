//! The places of a frame's headers: parsed once, checked, then trusted.
//!
//! # Contract
//! [`Headers::parse`] succeeds only when every header it names lies wholly inside the frame and agrees
//! with its own lengths. Whoever holds `Headers` of a frame may index its bytes by these offsets.
//! A frame without IP, or without TCP or UDP, is no error: a switch forwards it. A fragment has no transport,
//! nor has a packet with an authentication header, which nobody on the way may change.
//!
//! A receiver's kernel may look further than the parser does: through any number of VLAN tags, and through
//! any chain of extension headers. What it might find there is unknown here, and whoever decides by what a
//! frame carries must ask: [`Headers::is_still_tagged`], [`Headers::is_hidden`].
//!
//! Followed: IEEE 802.1Q (up to two tags), RFC 791, RFC 8200, RFC 4302, RFC 9293, RFC 768.

use std::num::NonZeroU16;

use crate::drop::DropReason;

/// Shortest frame: two MACs and an EtherType.
pub const ETHERNET_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
/// Extension headers looked through for the transport; behind more there is none for us.
const IPV6_EXTENSIONS_MAX: usize = 8;

/// EtherTypes this crate tells apart.
pub mod ethertype {
    /// Internet protocol, version 4.
    pub const IPV4: u16 = 0x0800;
    /// Internet protocol, version 6.
    pub const IPV6: u16 = 0x86dd;
    /// Address resolution protocol.
    pub const ARP: u16 = 0x0806;
    /// IEEE 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// IP protocol numbers this crate tells apart.
pub mod protocol {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    /// Internet control message protocol.
    pub const ICMP: u8 = 1;
    /// Internet group management protocol.
    pub const IGMP: u8 = 2;
    /// Transmission control protocol.
    pub const TCP: u8 = 6;
    /// User datagram protocol.
    pub const UDP: u8 = 17;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AUTHENTICATION: u8 = 51;
    /// Internet control message protocol for IPv6.
    pub const ICMPV6: u8 = 58;
    pub(crate) const DESTINATION: u8 = 60;
}

/// Whether an IP protocol number is one of the IPv6 extension headers that are looked through. Behind
/// [`Headers::parse`] there is none left, unless there were too many or a fragment begins with one.
#[inline]
pub fn is_extension(number: u8) -> bool {
    use protocol::{AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
    matches!(number, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// The network protocol of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Network {
    #[default]
    Other,
    Ipv4,
    Ipv6,
}

/// The transport protocol of a frame, as far as the switch tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Not IP, a fragment, or another protocol.
    #[default]
    Other,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A packet's part in its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Whole,
    First,
    Later,
}

/// Offsets into a frame's bytes. See the [module](self) for what they promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    ether_type: u16,
    network_at: u16,
    transport_at: u16,
    payload_at: u16,
    end: usize,
    network: Network,
    transport: Transport,
    protocol: u8,
    part: Part,
    /// The place of the fragment header of IPv6.
    fragment_at: Option<NonZeroU16>,
    hidden: bool,
    authenticated: bool,
    routed: bool,
}

impl Headers {
    /// Parses the headers of a frame.
    ///
    /// # Errors
    /// [`DropReason::Runt`] or one of the `Malformed…` reasons.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        if bytes.len() < ETHERNET_BYTES {
            return Err(DropReason::Runt);
        }
        let mut network_at = ETHERNET_BYTES;
        let mut ether_type = be16(bytes, 12);
        for _ in 0..2 {
            if !is_tag(ether_type) {
                break;
            }
            ether_type = bytes
                .get(network_at + 2..network_at + VLAN_TAG_BYTES)
                .map(|at| be16(at, 0))
                .ok_or(DropReason::Runt)?;
            network_at += VLAN_TAG_BYTES;
        }
        let at = narrow(network_at);
        let headers =
            Self { ether_type, network_at: at, transport_at: at, payload_at: at, ..Self::default() };
        match ether_type {
            ethertype::IPV4 => headers.parse_ipv4(bytes),
            ethertype::IPV6 => headers.parse_ipv6(bytes),
            _ => Ok(Self { end: bytes.len(), ..headers }),
        }
    }

    #[inline]
    fn parse_ipv4(mut self, bytes: &[u8]) -> Result<Self, DropReason> {
        let packet = &bytes[usize::from(self.network_at)..];
        if packet.len() < 20 || packet[0] >> 4 != 4 {
            return Err(DropReason::MalformedIpv4);
        }
        let header = usize::from(packet[0] & 0xf) * 4;
        let total = usize::from(be16(packet, 2));
        if header < 20 || total < header || total > packet.len() {
            return Err(DropReason::MalformedIpv4);
        }
        self.network = Network::Ipv4;
        self.end = usize::from(self.network_at) + total;
        const MORE: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        let flags = be16(packet, 6);
        self.part = match (flags & OFFSET, flags & MORE) {
            (0, 0) => Part::Whole,
            (0, _) => Part::First,
            _ => Part::Later,
        };
        self.routed = header > 20 && has_source_route(&packet[20..header]);
        let mut next = packet[9];
        let mut at = header;
        if next == protocol::AUTHENTICATION && self.part != Part::Later {
            self.authenticated = true;
            match extension(packet, next, at).filter(|length| *length <= total - at) {
                Some(length) => (next, at) = (packet[at], at + length),
                None if self.part == Part::Whole => return Err(DropReason::MalformedIpv4),
                None => {}
            }
        }
        // More than one, or one that is cut short.
        self.hidden = next == protocol::AUTHENTICATION && self.part != Part::Later;
        self.transport_at = self.network_at + narrow(at);
        self.payload_at = self.transport_at;
        self.parse_transport(bytes, next)
    }

    #[inline]
    fn parse_ipv6(mut self, bytes: &[u8]) -> Result<Self, DropReason> {
        const HEADER: usize = 40;
        let packet = &bytes[usize::from(self.network_at)..];
        if packet.len() < HEADER || packet[0] >> 4 != 6 {
            return Err(DropReason::MalformedIpv6);
        }
        let total = HEADER + usize::from(be16(packet, 4));
        if total > packet.len() {
            return Err(DropReason::MalformedIpv6);
        }
        self.network = Network::Ipv6;
        self.end = usize::from(self.network_at) + total;
        let (mut next, mut at) = (packet[6], HEADER);
        if is_extension(next) {
            (next, at) = self.walk(&packet[..total], next)?;
        }
        self.transport_at = self.network_at + narrow(at);
        self.payload_at = self.transport_at;
        self.parse_transport(bytes, next)
    }

    /// Walks the extension headers of an IPv6 packet, and answers what is behind them and where.
    fn walk(&mut self, packet: &[u8], first: u8) -> Result<(u8, usize), DropReason> {
        const SEGMENTS_LEFT_AT: usize = 3;
        let (mut next, mut at) = (first, 40);
        for _ in 0..IPV6_EXTENSIONS_MAX {
            if !is_extension(next) || next == protocol::FRAGMENT && self.part != Part::Whole {
                break;
            }
            let Some(length) = extension(packet, next, at).filter(|length| *length <= packet.len() - at)
            else {
                // The first fragment has to show all of them (RFC 7112).
                if self.part == Part::Whole {
                    return Err(DropReason::MalformedIpv6);
                }
                break;
            };
            self.authenticated |= next == protocol::AUTHENTICATION;
            self.routed |= next == protocol::ROUTING && packet[at + SEGMENTS_LEFT_AT] > 0;
            if next == protocol::FRAGMENT {
                self.fragment_at = NonZeroU16::new(self.network_at + narrow(at));
                self.part = match be16(packet, at + 2) & 0xfff9 {
                    0 => Part::Whole,
                    1 => Part::First,
                    _ => Part::Later,
                };
            }
            next = packet[at];
            at += length;
            if self.part == Part::Later {
                break;
            }
        }
        self.hidden = is_extension(next);
        Ok((next, at))
    }

    #[inline]
    fn parse_transport(mut self, bytes: &[u8], number: u8) -> Result<Self, DropReason> {
        self.protocol = number;
        if self.is_fragment() || self.authenticated {
            return Ok(self);
        }
        let segment = &bytes[usize::from(self.transport_at)..self.end];
        match number {
            protocol::TCP => {
                let header = segment.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
                if header < 20 || header > segment.len() {
                    return Err(DropReason::MalformedTcp);
                }
                self.transport = Transport::Tcp;
                self.payload_at = self.transport_at + narrow(header);
            }
            protocol::UDP => {
                let length = segment.get(4..6).map_or(0, |at| usize::from(be16(at, 0)));
                if length < 8 || length > segment.len() {
                    return Err(DropReason::MalformedUdp);
                }
                self.transport = Transport::Udp;
                self.payload_at = self.transport_at + 8;
            }
            _ => {}
        }
        Ok(self)
    }

    /// The EtherType behind the VLAN tags that are looked through.
    pub fn ether_type(&self) -> u16 {
        self.ether_type
    }

    /// Whether there is another VLAN tag behind those that are looked through. A receiver may take off any
    /// number of them: Linux does, where their VLAN is 0.
    #[inline]
    pub fn is_still_tagged(&self) -> bool {
        is_tag(self.ether_type)
    }

    /// The start of the network header: behind the Ethernet header and its VLAN tags.
    #[inline]
    pub fn network_offset(&self) -> usize {
        usize::from(self.network_at)
    }

    /// The start of the transport header, or where it would be.
    #[inline]
    pub fn transport_offset(&self) -> usize {
        usize::from(self.transport_at)
    }

    /// The start of the transport's payload, where the headers we know end.
    #[inline]
    pub fn payload_offset(&self) -> usize {
        usize::from(self.payload_at)
    }

    /// The end of the network packet; behind it is padding.
    #[inline]
    pub fn end_offset(&self) -> usize {
        self.end
    }

    /// Notes that the network packet now ends at `end`.
    pub(crate) fn set_end(&mut self, end: usize) {
        self.end = end;
    }

    /// Whether it is IPv4.
    #[inline]
    pub fn is_ipv4(&self) -> bool {
        self.network == Network::Ipv4
    }

    /// Whether it is IPv6.
    #[inline]
    pub fn is_ipv6(&self) -> bool {
        self.network == Network::Ipv6
    }

    /// Whether it is IPv4 or IPv6.
    #[inline]
    pub fn is_ip(&self) -> bool {
        self.network != Network::Other
    }

    /// Whether it is one of several fragments of an IP packet, or its transport is beyond our reach as if
    /// it were.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.part != Part::Whole || self.hidden
    }

    /// Whether it is the first of several fragments, which shows the transport's header.
    #[inline]
    pub fn is_first_fragment(&self) -> bool {
        self.part == Part::First
    }

    /// Whether it is one of several fragments, and not the first of them: it shows nothing of the transport.
    #[inline]
    pub fn is_later_fragment(&self) -> bool {
        self.part == Part::Later
    }

    /// The identification of a fragment of IPv6; `None` if it is none. `bytes` are those of its frame.
    pub fn fragment_id(&self, bytes: &[u8]) -> Option<u32> {
        let at = usize::from(self.fragment_at?.get());
        bytes.get(at + 4..at + 8)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Whether what the IP packet carries cannot be told: there are more extension headers than are looked
    /// through, or a fragment ends among them.
    #[inline]
    pub fn is_hidden(&self) -> bool {
        self.hidden
    }

    /// Whether the packet names further stations to be sent on to (RFC 791, 3.1; RFC 8200, 4.4).
    #[inline]
    pub fn is_source_routed(&self) -> bool {
        self.routed
    }

    /// The IP protocol number of what is at [`transport_offset`](Self::transport_offset), in fragments and
    /// behind an authentication header, too; 0 if it is not IP.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The transport protocol.
    #[inline]
    pub fn transport(&self) -> Transport {
        self.transport
    }
}

/// Whether an EtherType is that of a VLAN tag.
#[inline]
fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, ethertype::VLAN | ethertype::SERVICE_VLAN)
}

/// The length of an extension header; `None` when the packet ends before it says.
fn extension(packet: &[u8], number: u8, at: usize) -> Option<usize> {
    let units = usize::from(*packet.get(at + 1)?);
    Some(match number {
        protocol::FRAGMENT => 8,
        protocol::AUTHENTICATION => (units + 2) * 4,
        _ => (units + 1) * 8,
    })
}

/// Whether options of IPv4 name a route, loose or strict.
fn has_source_route(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const ROUTES: [u8; 2] = [131, 137];
    while let [kind, ref rest @ ..] = *options {
        match (kind, rest.first()) {
            (END, _) => return false,
            (NOTHING, _) => options = rest,
            (kind, _) if ROUTES.contains(&kind) => return true,
            (_, Some(length)) if *length >= 2 => options = options.get(usize::from(*length)..).unwrap_or(&[]),
            _ => return false,
        }
    }
    false
}

/// A big-endian 16-bit field.
///
/// # Panics
/// When `bytes` ends before it.
#[inline]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// An offset of a header.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "eight extension headers of 2 KiB end far below 65,535")]
fn narrow(offset: usize) -> u16 {
    debug_assert!(offset <= usize::from(u16::MAX));
    offset as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(ether_type: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(ether_type.to_be_bytes());
        frame.extend(rest);
        frame
    }

    #[test]
    fn short_frames_are_runts() {
        for len in 0..ETHERNET_BYTES {
            assert_eq!(Headers::parse(&vec![0; len]), Err(DropReason::Runt));
        }
        assert_eq!(Headers::parse(&ethernet(ethertype::VLAN, &[0, 1, 8])), Err(DropReason::Runt));
    }

    #[test]
    fn what_is_not_ip_is_forwarded() {
        let headers = Headers::parse(&ethernet(0x88b5, b"anything")).expect("not IP");
        assert!(!headers.is_ip());
        assert_eq!(headers.end_offset(), 22);
    }

    /// An IPv6 packet that begins with the header of this number.
    fn ipv6(next: u8, body: &[u8]) -> Headers {
        let [high, low] = u16::try_from(body.len()).expect("short").to_be_bytes();
        let packet = [&[0x60, 0, 0, 0, high, low, next, 64][..], &[0; 32], body].concat();
        Headers::parse(&ethernet(ethertype::IPV6, &packet)).expect("a packet")
    }

    #[test]
    fn what_is_behind_an_authentication_header_is_told_and_left_alone() {
        let body = [&[protocol::UDP, 4, 0, 0][..], &[0; 20], &[0, 7, 0, 9, 0, 8, 0, 0]].concat();
        let headers = ipv6(protocol::AUTHENTICATION, &body);
        assert_eq!((headers.protocol(), headers.transport()), (protocol::UDP, Transport::Other));
        assert_eq!(
            (headers.transport_offset(), headers.is_hidden(), headers.is_fragment()),
            (78, false, false)
        );
    }

    #[test]
    fn a_first_fragment_shows_what_it_carries_or_is_hidden() {
        let first = [protocol::DESTINATION, 0, 0, 1, 0, 0, 0, 9];
        let options = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
        let headers = ipv6(protocol::FRAGMENT, &[&first[..], &options, &[0; 8]].concat());
        assert!(headers.is_first_fragment() && !headers.is_hidden());
        assert_eq!((headers.protocol(), headers.transport_offset()), (protocol::UDP, 70));
        let cut = ipv6(protocol::FRAGMENT, &first);
        assert!(cut.is_first_fragment() && cut.is_hidden());
        let frame = ethernet(ethertype::IPV6, &[&[0; 40][..], &first].concat());
        assert_eq!(cut.fragment_id(&frame), Some(9));
    }

    #[test]
    fn a_route_and_a_third_tag_are_seen() {
        let route = |left| ipv6(protocol::ROUTING, &[59, 0, 4, left, 0, 0, 0, 0]);
        assert!(route(1).is_source_routed() && !route(0).is_source_routed());
        let tags = |count| [0x81, 0, 0, 0].repeat(count);
        for count in 0..5 {
            let frame = [&[2; 12][..], &tags(count), &[0x88, 0xb5]].concat();
            let headers = Headers::parse(&frame).expect("a frame");
            assert_eq!(headers.is_still_tagged(), count > 2);
        }
    }

    #[test]
    fn lengths_that_contradict_are_malformed() {
        let mut ip = [0u8; 28];
        (ip[0], ip[3], ip[9]) = (0x45, 28, protocol::UDP);
        ip[25] = 8;
        let parse = |ip: &[u8]| Headers::parse(&ethernet(ethertype::IPV4, ip));
        assert_eq!(parse(&ip).map(|headers| headers.transport()), Ok(Transport::Udp));
        assert_eq!(parse(&ip[..19]), Err(DropReason::MalformedIpv4));
        assert_eq!(parse(&ip[..27]), Err(DropReason::MalformedIpv4));
        ip[25] = 9;
        assert_eq!(parse(&ip), Err(DropReason::MalformedUdp));
        ip[9] = protocol::TCP;
        assert_eq!(parse(&ip), Err(DropReason::MalformedTcp));
        ip[0] = 0x44;
        assert_eq!(parse(&ip), Err(DropReason::MalformedIpv4));
    }
}
