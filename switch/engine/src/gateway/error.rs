//! Errors to the sender of a packet that the gateway cannot deliver: ICMP (RFC 792, RFC 1812 4.3) and ICMPv6
//! (RFC 4443) errors.
//!
//! # Theory of operation
//!
//! An error is a frame of its own, and the packet it is about is dropped and counted. A sender is told
//! nothing about errors, about fragments behind the first (in IPv6: about no fragment), about what was not
//! sent to one station, or by one. Each network has a budget of errors that a token bucket refills; beyond it
//! packets are dropped in silence.

use std::net::IpAddr;

use vswitch_frame::headers::{ETHERNET_BYTES, be16};
use vswitch_frame::{Frame, Instant, Mac, Pool, PortId};

use super::packet::{self, IPV4_BYTES, IPV6_BYTES, Link, protocol, put16};
use super::site::Site;
use crate::switch::Switch;

/// Bytes of the header of an error.
const HEADER: usize = 8;
/// Largest ICMP error (RFC 1812, 4.3.2.3), from the IP header on.
const BYTES_V4: usize = 576;
/// Largest ICMPv6 error (RFC 4443, 2.4 c), from the IP header on: every link carries it.
const BYTES_V6: usize = 1280;

/// The reason that a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Complaint {
    /// There is no such network.
    NetworkUnreachable,
    /// There is nobody with this address on its network.
    HostUnreachable,
    /// Nobody listens there.
    PortUnreachable,
    /// Its time to live or hop limit ended here.
    TimeExceeded,
    /// It is larger than this MTU.
    TooBig(usize),
}

impl Complaint {
    /// Type and code of ICMP.
    fn icmp(self) -> [u8; 2] {
        match self {
            Self::NetworkUnreachable => [3, 0],
            Self::HostUnreachable => [3, 1],
            Self::PortUnreachable => [3, 3],
            Self::TimeExceeded => [11, 0],
            Self::TooBig(_) => [3, 4],
        }
    }

    /// Type and code of ICMPv6.
    fn icmpv6(self) -> [u8; 2] {
        match self {
            Self::NetworkUnreachable => [1, 0],
            Self::HostUnreachable => [1, 3],
            Self::PortUnreachable => [1, 4],
            Self::TimeExceeded => [3, 0],
            Self::TooBig(_) => [2, 0],
        }
    }

    /// The second half of the header: the MTU of a packet that is too big (RFC 1191, RFC 4443 3.2).
    fn rest(self) -> [u8; 4] {
        let mtu = if let Self::TooBig(mtu) = self { packet::length(mtu) } else { 0 };
        u32::from(mtu).to_be_bytes()
    }
}

impl Switch {
    /// Whether the sender of a packet that came from a port may be told that it is too large for what is
    /// ahead: nobody there may cut it up, and no rule forbids an error about it. The frame must have been
    /// parsed. The budget is another question.
    pub fn can_refuse(&self, ingress: PortId, frame: &Frame) -> bool {
        const DONT_FRAGMENT: u16 = 0x4000;
        let headers = &frame.headers;
        let at = headers.network_offset();
        if !headers.is_ip() || at != ETHERNET_BYTES {
            return false;
        }
        let is_whole_only = !headers.is_ipv4() || be16(frame.bytes(), at + 6) & DONT_FRAGMENT != 0;
        let (source, _) = packet::addresses(frame);
        let is_known = Site::of(&self.ports, ingress).is_some_and(|site| !site.is_martian(source));
        is_whole_only && is_known && may_be_told(frame)
    }

    /// The error for the sender of a packet, if it may be told, there is budget for it, and there is a slot.
    pub(super) fn complain(
        &mut self,
        ingress: PortId,
        about: &Frame,
        complaint: Complaint,
        pool: &mut Pool,
        now: Instant,
    ) -> Option<Frame> {
        let site = Site::of(&self.ports, ingress)?;
        let (source, target) = packet::addresses(about);
        if site.is_martian(source) || !may_be_told(about) {
            return None;
        }
        // Without a gateway of the family, a receiver beyond a tunnel says itself what does not fit.
        let spoken_for = matches!(complaint, Complaint::TooBig(_)).then_some(target);
        let own = site.own_address(source).or(spoken_for)?;
        let link = Link { source: site.gateway.mac, target: about.source() };
        if !self.ports.budget(ingress)?.take(now) {
            return None;
        }
        make(link, [own, source], about, complaint, pool)
    }

    /// The error for somebody outside, or behind the translator, from `own`; its MAC addresses are zero. The
    /// budget is one for all of them, so that they cannot use up a port's.
    pub(super) fn complain_outside(
        &mut self,
        own: IpAddr,
        about: &Frame,
        complaint: Complaint,
        pool: &mut Pool,
        now: Instant,
    ) -> Option<Frame> {
        if !may_be_told(about) || !self.errors.take(now) {
            return None;
        }
        let (source, _) = packet::addresses(about);
        make(Link { source: Mac::ZERO, target: Mac::ZERO }, [own, source], about, complaint, pool)
    }
}

fn make(
    link: Link,
    addresses: [IpAddr; 2],
    about: &Frame,
    complaint: Complaint,
    pool: &mut Pool,
) -> Option<Frame> {
    let mut error = pool.take()?;
    write(&mut error, link, addresses, about, complaint);
    if error.parse().is_err() {
        debug_assert!(false, "an error of ours is malformed");
        pool.free(error);
        return None;
    }
    Some(error)
}

/// Whether the rules allow an error about a packet (RFC 1812, 4.3.2.7; RFC 4443, 2.4 e).
fn may_be_told(about: &Frame) -> bool {
    let (_, target) = packet::addresses(about);
    let to_many = match target {
        IpAddr::V4(target) => target.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    let message = packet::payload(about).first().copied();
    let headers = &about.headers;
    let (error, later_fragment) = if headers.is_ipv4() {
        const OFFSET: u16 = 0x1fff;
        let offset = be16(about.bytes(), headers.network_offset() + 6) & OFFSET;
        let is_error = matches!(message, None | Some(3 | 4 | 5 | 11 | 12));
        (headers.protocol() == protocol::ICMP && is_error, offset != 0)
    } else {
        const REDIRECT: u8 = 137;
        let is_error = message.is_none_or(|kind| kind < 128 || kind == REDIRECT);
        (headers.protocol() == protocol::ICMPV6 && is_error, headers.is_fragment())
    };
    let to_one = !target.is_multicast() && !to_many;
    to_one && !about.destination().is_multicast() && !error && !later_fragment
}

/// Writes the error: its header, and as much of the packet as fits.
fn write(error: &mut Frame, link: Link, addresses: [IpAddr; 2], about: &Frame, complaint: Complaint) {
    let quote = &about.bytes()[about.headers.network_offset()..about.headers.end_offset()];
    let mut message = [0; BYTES_V6 - IPV6_BYTES];
    let room = match addresses {
        [IpAddr::V4(_), IpAddr::V4(_)] => BYTES_V4 - IPV4_BYTES,
        _ => BYTES_V6 - IPV6_BYTES,
    };
    let quoted = quote.len().min(room - HEADER);
    let message = &mut message[..HEADER + quoted];
    message[4..HEADER].copy_from_slice(&complaint.rest());
    message[HEADER..].copy_from_slice(&quote[..quoted]);
    match addresses {
        [IpAddr::V4(source), IpAddr::V4(target)] => {
            message[..2].copy_from_slice(&complaint.icmp());
            let checksum = vswitch_frame::checksum::Sum::ZERO.add_bytes(message).checksum();
            put16(message, 2, checksum);
            packet::fill_ipv4(error, link, [source, target], protocol::ICMP, message);
        }
        [IpAddr::V6(source), IpAddr::V6(target)] => {
            message[..2].copy_from_slice(&complaint.icmpv6());
            let hops = packet::default_hop_limit();
            packet::fill_icmpv6(error, link, [source, target], hops, message);
        }
        [IpAddr::V4(_), IpAddr::V6(_)] | [IpAddr::V6(_), IpAddr::V4(_)] => {
            debug_assert!(false, "source and target are of one family");
        }
    }
}
