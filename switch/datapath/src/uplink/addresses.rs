//! The addresses of the packet in a frame.

use std::net::IpAddr;

use vswitch_frame::Frame;
use vswitch_frame::headers::ETHERNET_BYTES;

/// The address that an IP packet without VLAN tags is for.
pub(super) fn target(frame: &Frame) -> Option<IpAddr> {
    address(frame, 16, 24)
}

/// The address that it is from.
pub(super) fn source(frame: &Frame) -> Option<IpAddr> {
    address(frame, 12, 8)
}

/// The address at an offset of an IPv4 or IPv6 header.
fn address(frame: &Frame, v4: usize, v6: usize) -> Option<IpAddr> {
    if frame.headers.network_offset() != ETHERNET_BYTES {
        return None;
    }
    let packet = &frame.bytes()[ETHERNET_BYTES..];
    if frame.headers.is_ipv4() {
        let bytes: [u8; 4] = packet.get(v4..v4 + 4)?.try_into().ok()?;
        return Some(bytes.into());
    }
    if !frame.headers.is_ipv6() {
        return None;
    }
    let bytes: [u8; 16] = packet.get(v6..v6 + 16)?.try_into().ok()?;
    Some(bytes.into())
}
