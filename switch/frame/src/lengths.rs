//! Sets the fields of a TCP or UDP frame that depend on its length, after bytes came or went.
//!
//! Checksums are carried on incrementally (RFC 1624, equation 3), so one that was wrong stays wrong.

use crate::checksum::Sum;
use crate::headers::{Headers, Transport, be16};
use crate::offload::{Checksum, TCP_CHECKSUM_AT, UDP_CHECKSUM_AT};

/// The fate of the transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The field holds the pseudo-header's sum; the rest is left to the receiver.
    Partial,
    /// The field holds the finished checksum.
    Complete,
}

/// Writes lengths, IPv4 header checksum and transport checksum of an IP packet that carries TCP or UDP.
/// `head` holds its headers, and `payload` is all that is behind them. `pseudo` is the sum of its
/// pseudo-header without the length. The answer is the state of the checksum.
pub(crate) fn seal(
    head: &mut [u8],
    headers: &Headers,
    payload: &[u8],
    pseudo: Sum,
    finish: Finish,
) -> Checksum {
    let partial = seal_headers(head, headers, payload.len(), pseudo);
    if finish == Finish::Partial {
        return partial;
    }
    let (transport, is_udp) = (headers.transport_offset(), headers.transport() == Transport::Udp);
    let head = &mut head[transport..headers.payload_offset()];
    let sum = Sum::ZERO.add_bytes(head).add_bytes(payload).checksum();
    // A UDP checksum of zero means "none" (RFC 768).
    let sum = if is_udp && sum == 0 { 0xffff } else { sum };
    put16(head, usize::from(checksum_offset(headers.transport())), sum);
    Checksum::Complete
}

/// Does the same without the payload, of which only the length is known: the checksum stays partial.
pub(crate) fn seal_headers(head: &mut [u8], headers: &Headers, payload: usize, pseudo: Sum) -> Checksum {
    let (network, transport) = (headers.network_offset(), headers.transport_offset());
    let end = headers.payload_offset() + payload;
    if headers.is_ipv4() {
        replace_ipv4(head, network, network + 2, narrow(end - network));
    } else {
        const IPV6_HEADER: usize = 40;
        put16(head, network + 4, narrow(end - network - IPV6_HEADER));
    }
    let length = narrow(end - transport);
    if headers.transport() == Transport::Udp {
        put16(head, transport + 4, length);
    }
    let offset = checksum_offset(headers.transport());
    put16(head, transport + usize::from(offset), pseudo.add_word(length).folded());
    Checksum::Partial { start: narrow(transport), offset }
}

/// The place of the checksum in a TCP or UDP header.
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
