//! Writes a translation into a frame, and keeps every checksum as right as it was.

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::be16;
use vswitch_frame::{Checksum, Frame};

use crate::checksum::Change;
use crate::ip::Ip;
use crate::packet::{ICMP_HEADER, Named, Quoting, pseudo_header};
use crate::tuple::{Address, Protocol, Tuple};

/// Translates a packet: `old` is its name, `new` what it is to be named.
pub(crate) fn translate(frame: &mut Frame, packet: &Named, new: &Tuple) {
    let field = packet.ip.transport_at + checksum_at(packet.tuple.protocol);
    // Elsewhere, as behind the header of a tunnel, the outer checksum is a finished one.
    let is_partial = matches!(frame.offload.checksum,
        Checksum::Partial { start, offset } if usize::from(start) + usize::from(offset) == field);
    let addresses = write_addresses(frame.bytes_mut(), &packet.ip, new.source, new.target);
    write_transport(frame.bytes_mut(), &packet.ip, &packet.tuple, new, addresses, is_partial);
}

/// Writes the addresses into a header and its checksum; returns the change for the pseudo-header.
pub(crate) fn write_addresses(bytes: &mut [u8], ip: &Ip, source: Address, target: Address) -> Change {
    if !ip.is_v4 {
        bytes[ip.at + 8..ip.at + 24].copy_from_slice(&source.v6_bytes());
        bytes[ip.at + 24..ip.at + 40].copy_from_slice(&target.v6_bytes());
        let wide = |address: Address| u128::from_be_bytes(address.v6_bytes());
        return Change::NONE
            .field_128(wide(ip.source), wide(source))
            .field_128(wide(ip.target), wide(target));
    }
    let wide = |address: Address| u32::from_be_bytes(address.v4_bytes());
    let change = Change::NONE.field_32(wide(ip.source), wide(source)).field_32(wide(ip.target), wide(target));
    bytes[ip.at + 12..ip.at + 16].copy_from_slice(&source.v4_bytes());
    bytes[ip.at + 16..ip.at + 20].copy_from_slice(&target.v4_bytes());
    let checksum = change.apply(be16(bytes, ip.at + 10));
    put16(bytes, ip.at + 10, checksum);
    change
}

/// Whether the identification of a packet may matter to its receiver (RFC 6864, 4): it is IPv4, and a
/// fragment or may become one.
pub(crate) fn has_identification(bytes: &[u8], ip: &Ip) -> bool {
    ip.is_v4 && (ip.fragment.is_some() || !ip.is_whole_only(bytes))
}

/// How many identifications a frame takes up: a super-frame one for each packet, or a few more.
pub(crate) fn packets(frame: &Frame, ip: &Ip) -> u16 {
    let counting = frame.offload.gso.filter(|gso| !gso.same_id);
    let packets = counting.map_or(1, |gso| (ip.end - ip.transport_at).div_ceil(usize::from(gso.size.max(1))));
    u16::try_from(packets).unwrap_or(u16::MAX)
}

/// Writes the identification of an IPv4 packet.
pub(crate) fn write_identification(bytes: &mut [u8], ip: &Ip, id: u16) {
    let change = Change::NONE.field_16(be16(bytes, ip.at + 4), id);
    put16(bytes, ip.at + 4, id);
    let checksum = change.apply(be16(bytes, ip.at + 10));
    put16(bytes, ip.at + 10, checksum);
}

/// Where a transport header keeps its checksum.
fn checksum_at(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
        Protocol::Icmp | Protocol::Icmp6 => 2,
        Protocol::Sctp => 8,
    }
}

/// Writes ports or identifier, and the checksum as far as the bytes reach: a quoted header may be cut short.
fn write_transport(bytes: &mut [u8], ip: &Ip, old: &Tuple, new: &Tuple, addresses: Change, is_partial: bool) {
    let at = ip.transport_at;
    let ports = match old.protocol {
        Protocol::Tcp | Protocol::Udp => {
            put16(bytes, at, new.source_port);
            put16(bytes, at + 2, new.target_port);
            let source = Change::NONE.field_16(old.source_port, new.source_port);
            source.field_16(old.target_port, new.target_port)
        }
        Protocol::Icmp | Protocol::Icmp6 => {
            // One of the two is zero.
            let (old, new) = (old.source_port | old.target_port, new.source_port | new.target_port);
            put16(bytes, at + 4, new);
            Change::NONE.field_16(old, new)
        }
        Protocol::Sctp => return,
    };
    let field = at + checksum_at(old.protocol);
    if field + 2 > ip.end {
        return;
    }
    let checksum = be16(bytes, field);
    let checksum = match old.protocol {
        _ if is_partial => addresses.apply_partial(checksum),
        Protocol::Udp => addresses.and(ports).apply_udp(checksum),
        Protocol::Icmp => ports.apply(checksum),
        Protocol::Tcp | Protocol::Icmp6 | Protocol::Sctp => addresses.and(ports).apply(checksum),
    };
    put16(bytes, field, checksum);
}

/// Translates an ICMP error and the packet it quotes, whose new name is `quoted`; the error is to go from
/// `source` to whoever sent that packet. Its own checksum changes by what is rewritten and no more: of what
/// an offload says is right nobody has looked at the bytes.
pub(crate) fn translate_error(frame: &mut Frame, error: &Quoting, quoted: &Tuple, source: Address) {
    /// Bytes of a transport header in which anything is rewritten.
    const TRANSPORT: usize = 18;
    let bytes = frame.bytes_mut();
    let rewritten = error.quoted.at..error.quoted.end.min(error.quoted.transport_at + TRANSPORT);
    let old = Sum::ZERO.add_bytes(&bytes[rewritten.clone()]);
    let change = write_addresses(bytes, &error.quoted, quoted.source, quoted.target);
    write_transport(bytes, &error.quoted, &error.answer.reversed(), quoted, change, false);
    let new = Sum::ZERO.add_bytes(&bytes[rewritten]);
    let mut change = Change::NONE.sums(old, new);
    let addresses = write_addresses(bytes, &error.ip, source, quoted.source);
    if error.protocol == Protocol::Icmp6 {
        change = change.and(addresses);
    }
    let field = error.ip.transport_at + checksum_at(error.protocol);
    put16(bytes, field, change.apply(be16(bytes, field)));
}

/// Computes the checksum of an ICMP message.
pub(crate) fn seal_icmp(bytes: &mut [u8], ip: &Ip, protocol: Protocol) {
    debug_assert!(ip.transport_at + ICMP_HEADER <= ip.end);
    let field = ip.transport_at + checksum_at(protocol);
    put16(bytes, field, 0);
    let message = &bytes[ip.transport_at..ip.end];
    let checksum = pseudo_header(ip, protocol, message.len()).add_bytes(message).checksum();
    put16(bytes, field, checksum);
}

/// Writes a big-endian 16-bit field.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
