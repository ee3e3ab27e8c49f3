//! Packets that are made here: resets and ICMP errors.
//!
//! An answer is made in the frame it answers, with the MAC addresses swapped. Followed: RFC 792, RFC 4443,
//! RFC 9293 (3.10.7.1), RFC 1191, RFC 8201.

use vswitch_frame::Frame;
use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::ethertype;

use crate::ip::Ip;
use crate::packet::{ICMP_HEADER, Named, pseudo_header};
use crate::rewrite::{put16, seal_icmp};
use crate::tcp::{ACK, RST, Segment};
use crate::tuple::{Address, Protocol, Tuple};

/// Bytes of a packet that an error quotes: its headers, with options.
const QUOTE: usize = 128;
/// A link header with two VLAN tags.
const LINK: usize = 22;
const TCP_HEADER: usize = 20;
const LONGEST: usize = LINK + 40 + ICMP_HEADER + QUOTE;

/// The complaint of an ICMP error, without the family: type, code and the word behind the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// Nobody listens (RFC 792, type 3, code 3; RFC 4443, 3.1, code 4).
    PortUnreachable,
    /// Not allowed, or no room for it (RFC 1812, 5.2.7.1, code 13; RFC 4443, 3.1, code 1).
    Prohibited,
    /// Larger than the way takes (RFC 1191, 4; RFC 4443, 3.2).
    TooBig(u16),
}

impl Complaint {
    fn encode(self, is_v4: bool) -> [u8; ICMP_HEADER] {
        let (kind, code, word) = match (self, is_v4) {
            (Self::PortUnreachable, true) => (3, 3, 0),
            (Self::Prohibited, true) => (3, 13, 0),
            (Self::TooBig(mtu), true) => (3, 4, mtu),
            (Self::PortUnreachable, false) => (1, 4, 0),
            (Self::Prohibited, false) => (1, 1, 0),
            (Self::TooBig(mtu), false) => (2, 0, mtu),
        };
        let [high, low] = word.to_be_bytes();
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

/// A packet to be: a link header, an IP header, and what is appended.
struct Draft {
    bytes: [u8; LONGEST],
    length: usize,
    ip: Ip,
    protocol: Protocol,
}

impl Draft {
    fn new(link: &[u8], source: Address, target: Address, protocol: Protocol) -> Self {
        let at = link.len().min(LINK);
        let is_v4 = source.is_v4();
        let transport_at = at + if is_v4 { 20 } else { 40 };
        let mut bytes = [0; LONGEST];
        bytes[..at].copy_from_slice(&link[..at]);
        let ip = Ip {
            is_v4,
            at,
            source,
            target,
            protocol: protocol as u8,
            transport_at,
            end: transport_at,
            fragment: None,
        };
        Self { bytes, length: transport_at, ip, protocol }
    }

    fn append(&mut self, part: &[u8]) {
        let end = (self.length + part.len()).min(LONGEST);
        self.bytes[self.length..end].copy_from_slice(&part[..end - self.length]);
        self.length = end;
    }

    /// Writes the headers and their checksums, and makes `frame` this packet.
    fn finish(mut self, frame: &mut Frame) {
        const TTL: u8 = 64;
        const DO_NOT_FRAGMENT: u8 = 0x40;
        let Self { ip, protocol, .. } = self;
        let ip = Ip { end: self.length, ..ip };
        let header = &mut self.bytes[ip.at..ip.transport_at];
        if ip.is_v4 {
            (header[0], header[6], header[8], header[9]) = (0x45, DO_NOT_FRAGMENT, TTL, protocol as u8);
            put16(header, 2, length(ip.end - ip.at));
            header[12..16].copy_from_slice(&ip.source.v4_bytes());
            header[16..20].copy_from_slice(&ip.target.v4_bytes());
            let checksum = Sum::ZERO.add_bytes(header).checksum();
            put16(header, 10, checksum);
        } else {
            (header[0], header[6], header[7]) = (0x60, protocol as u8, TTL);
            put16(header, 4, length(ip.end - ip.transport_at));
            header[8..24].copy_from_slice(&ip.source.v6_bytes());
            header[24..40].copy_from_slice(&ip.target.v6_bytes());
        }
        if protocol == Protocol::Tcp {
            let segment = &self.bytes[ip.transport_at..ip.end];
            let checksum = pseudo_header(&ip, protocol, segment.len()).add_bytes(segment).checksum();
            put16(&mut self.bytes, ip.transport_at + 16, checksum);
        } else {
            seal_icmp(&mut self.bytes, &ip, protocol);
        }
        frame.fill(&self.bytes[..self.length]);
        let parsed = frame.parse();
        debug_assert_eq!(parsed, Ok(()), "our own packet");
    }
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

/// The link header of an answer to a frame.
fn link_back(frame: &Frame) -> ([u8; LINK], usize) {
    let at = frame.headers.network_offset().min(LINK);
    let mut link = [0; LINK];
    link[..at].copy_from_slice(&frame.bytes()[..at]);
    link[..6].copy_from_slice(&frame.source().0);
    link[6..12].copy_from_slice(&frame.destination().0);
    (link, at)
}

/// The link header of a frame that goes to a realm: whoever sends it fills in the MAC addresses.
fn link_anew(is_v4: bool) -> [u8; 14] {
    let mut link = [0; 14];
    put16(&mut link, 12, if is_v4 { ethertype::IPV4 } else { ethertype::IPV6 });
    link
}

fn reset_header(from: u16, to: u16, sequence: u32, acknowledgement: Option<u32>) -> [u8; TCP_HEADER] {
    let mut header = [0; TCP_HEADER];
    put16(&mut header, 0, from);
    put16(&mut header, 2, to);
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[8..12].copy_from_slice(&acknowledgement.unwrap_or(0).to_be_bytes());
    header[12] = 5 << 4;
    header[13] = if acknowledgement.is_some() { RST | ACK } else { RST };
    header
}

/// Makes of a segment the reset that answers it, as a host does for which there is no connection.
pub(crate) fn reset(frame: &mut Frame, packet: &Named, segment: &Segment) {
    let tuple = packet.tuple.reversed();
    let (link, at) = link_back(frame);
    let mut draft = Draft::new(&link[..at], tuple.source, tuple.target, Protocol::Tcp);
    let (sequence, acknowledgement) = if segment.has(ACK) {
        (segment.acknowledgement, None)
    } else {
        (0, Some(segment.sequence.wrapping_add(segment.length)))
    };
    draft.append(&reset_header(tuple.source_port, tuple.target_port, sequence, acknowledgement));
    draft.finish(frame);
}

/// Makes an empty frame the reset that tells one end of a flow, in the name of the other, that it is over.
pub(crate) fn make_reset(frame: &mut Frame, tuple: &Tuple, sequence: u32) {
    let mut draft = Draft::new(&link_anew(tuple.source.is_v4()), tuple.source, tuple.target, Protocol::Tcp);
    draft.append(&reset_header(tuple.source_port, tuple.target_port, sequence, None));
    draft.finish(frame);
}

fn error(frame: &mut Frame, link: &[u8], from: Address, to: Address, complaint: Complaint, quote: &[u8]) {
    let protocol = if from.is_v4() { Protocol::Icmp } else { Protocol::Icmp6 };
    let mut draft = Draft::new(link, from, to, protocol);
    draft.append(&complaint.encode(from.is_v4()));
    draft.append(&quote[..quote.len().min(QUOTE)]);
    draft.finish(frame);
}

/// Makes of a packet the ICMP error about it, from one of our addresses to its sender.
pub(crate) fn complain(frame: &mut Frame, ip: &Ip, from: Address, complaint: Complaint) {
    let mut quote = [0; QUOTE];
    let length = QUOTE.min(ip.end - ip.at);
    quote[..length].copy_from_slice(&frame.bytes()[ip.at..ip.at + length]);
    let (link, at) = link_back(frame);
    error(frame, &link[..at], from, ip.source, complaint, &quote[..length]);
}

/// Makes an empty frame the ICMP error about a packet of which the first bytes were kept.
pub(crate) fn make_error(frame: &mut Frame, from: Address, to: Address, complaint: Complaint, quote: &[u8]) {
    error(frame, &link_anew(from.is_v4()), from, to, complaint, quote);
}
