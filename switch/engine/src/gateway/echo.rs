//! Echo requests to the gateway: ICMP (RFC 792, RFC 1812 4.3.3.6) and ICMPv6 (RFC 4443, 4).

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::be16;
use vswitch_frame::{DropReason, Frame};

use super::fate::Fate;
use super::packet::{self, protocol};
use super::site::Site;

const REQUEST_V4: u8 = 8;
const REQUEST_V6: u8 = 128;
const REPLY_V4: u16 = 0;
const REPLY_V6: u16 = 129 << 8;
const BYTES: usize = 8;

/// Whether this is an echo request. One in fragments, with IPv4 options, or whose checksum the sender left to
/// others is not for us but for the host.
pub(super) fn is_request(frame: &Frame) -> bool {
    let headers = &frame.headers;
    let kind = packet::payload(frame).first().copied();
    let network = headers.transport_offset() - headers.network_offset();
    let request = if headers.is_ipv4() {
        headers.protocol() == protocol::ICMP && kind == Some(REQUEST_V4) && network == packet::IPV4_BYTES
    } else {
        headers.protocol() == protocol::ICMPV6 && kind == Some(REQUEST_V6) && network == packet::IPV6_BYTES
    };
    request && packet::is_plain(frame)
}

/// Turns an echo request into its reply, in place: its checksum is checked first, then carried on.
pub(super) fn answer(site: &Site<'_>, frame: &mut Frame) -> Result<Fate, DropReason> {
    let message = packet::payload(frame);
    if message.len() < BYTES || message[1] != 0 {
        return Err(DropReason::MalformedIcmp);
    }
    let (network, transport, ipv4) =
        (frame.headers.network_offset(), frame.headers.transport_offset(), frame.headers.is_ipv4());
    let sum = if ipv4 {
        packet::check_ipv4_header(frame)?;
        Sum::ZERO.add_bytes(message)
    } else {
        packet::icmpv6_sum(&frame.bytes()[network + 8..network + packet::IPV6_BYTES], message)
    };
    if sum.checksum() != 0 {
        return Err(DropReason::BadChecksum);
    }
    let asker = frame.source();
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&asker.0);
    bytes[6..12].copy_from_slice(&site.gateway.mac.0);
    let ttl = packet::default_hop_limit();
    if ipv4 {
        let (source, target) = bytes[network + 12..network + 20].split_at_mut(4);
        source.swap_with_slice(target);
        let with_ttl = u16::from_be_bytes([ttl, protocol::ICMP]);
        packet::replace16(bytes, network + 8, with_ttl, network + 10);
        packet::replace16(bytes, transport, REPLY_V4, transport + 2);
    } else {
        let (source, target) = bytes[network + 8..network + 40].split_at_mut(16);
        source.swap_with_slice(target);
        bytes[network + 7] = ttl;
        packet::replace16(bytes, transport, REPLY_V6, transport + 2);
    }
    debug_assert_eq!(be16(bytes, transport) & 0xff, 0);
    Ok(Fate::Answer)
}
