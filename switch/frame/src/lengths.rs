//! Sets the fields of a TCP or UDP frame that depend on its length, after bytes came or went.
//!
//! Checksums are carried on incrementally (RFC 1624, equation 3), so one that was wrong stays wrong.

use crate::checksum::Sum;
use crate::frame::Frame;
use crate::headers::{Transport, be16};
use crate::offload::{Checksum, TCP_CHECKSUM_AT, UDP_CHECKSUM_AT};

/// What becomes of the transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The field holds the pseudo-header's sum; the rest is left to the receiver.
    Partial,
    /// The field holds the finished checksum.
    Complete,
}

/// Writes lengths, IPv4 header checksum and transport checksum of a frame whose headers are those of an
/// IP packet that carries TCP or UDP and ends at the frame's last byte. `pseudo` is the sum of its
/// pseudo-header without the length.
pub(crate) fn seal(frame: &mut Frame, pseudo: Sum, finish: Finish) {
    let headers = frame.headers;
    let (network, transport, end) = (headers.network_offset(), headers.transport_offset(), frame.len());
    let bytes = frame.bytes_mut();
    if headers.is_ipv4() {
        replace_ipv4(bytes, network, network + 2, narrow(end - network));
    } else {
        const IPV6_HEADER: usize = 40;
        put16(bytes, network + 4, narrow(end - network - IPV6_HEADER));
    }
    let length = narrow(end - transport);
    let is_udp = headers.transport() == Transport::Udp;
    if is_udp {
        put16(bytes, transport + 4, length);
    }
    let offset = checksum_offset(headers.transport());
    let field = transport + usize::from(offset);
    put16(bytes, field, pseudo.add_word(length).folded());
    let mut checksum = Checksum::Partial { start: narrow(transport), offset };
    if finish == Finish::Complete {
        let sum = Sum::ZERO.add_bytes(&bytes[transport..]).checksum();
        // A UDP checksum of zero means "none" (RFC 768).
        put16(bytes, field, if is_udp && sum == 0 { 0xffff } else { sum });
        checksum = Checksum::Complete;
    }
    frame.headers.set_end(end);
    frame.offload.checksum = checksum;
}

/// Where, in a TCP or UDP header, the checksum is.
pub(crate) fn checksum_offset(transport: Transport) -> u16 {
    if transport == Transport::Udp { UDP_CHECKSUM_AT } else { TCP_CHECKSUM_AT }
}

/// Writes a 16-bit field of the IPv4 header at `network` and updates the header's checksum for it.
pub(crate) fn replace_ipv4(bytes: &mut [u8], network: usize, at: usize, new: u16) {
    let checksum_at = network + 10;
    let (old, checksum) = (be16(bytes, at), be16(bytes, checksum_at));
    put16(bytes, at, new);
    put16(bytes, checksum_at, Sum::ZERO.add_word(!checksum).add_word(!old).add_word(new).checksum());
}

/// Writes a big-endian 16-bit field.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A length or an offset within an IP packet, whose own length field is 16 bits wide.
#[expect(clippy::cast_possible_truncation, reason = "callers keep IP packets within 65,535 bytes")]
pub(crate) fn narrow(length: usize) -> u16 {
    debug_assert!(length <= usize::from(u16::MAX));
    length as u16
}
