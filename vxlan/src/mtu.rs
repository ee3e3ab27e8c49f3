//! The MTU that a tunnel leaves of the underlay's, and connections that are told so.
//!
//! A VXLAN packet must not be fragmented (RFC 7348, 4.3), so what is too large for the tunnel must not
//! enter it. Containers get the smaller MTU with their address; a connection whose ends have a larger one
//! all the same is opened with a segment size that fits ([`clamp_mss`]).

use std::net::IpAddr;

use vswitch_frame::Headers;
use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::{ETHERNET_BYTES, Transport, be16};

use crate::header::HEADER_BYTES;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
/// The longest IP packet; interfaces such as loopback have a larger MTU.
const IP_BYTES_MAX: usize = 65_535;

/// Bytes of an outer packet that are not the inner frame's network packet: 50 over IPv4, 70 over IPv6.
pub const fn overhead(vtep: IpAddr) -> usize {
    let ip = if vtep.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    ip + UDP_HEADER + HEADER_BYTES + ETHERNET_BYTES
}

/// The largest network packet of an inner frame without VLAN tags, for an underlay with this MTU.
pub fn inner_mtu(underlay: usize, vtep: IpAddr) -> usize {
    underlay.min(IP_BYTES_MAX).saturating_sub(overhead(vtep))
}

/// Lowers the maximum segment size that a TCP SYN offers to what an MTU of `mtu` bytes has room for (RFC
/// 6691), and updates a finished checksum for it; a wrong one stays wrong. `head` starts with the frame's
/// headers, which are `headers`. Any other frame is left as it is.
pub fn clamp_mss(head: &mut [u8], headers: &Headers, mtu: usize) {
    const FLAGS: usize = 13;
    const SYN: u8 = 0x02;
    const CHECKSUM: usize = 16;
    if headers.transport() != Transport::Tcp || head[headers.transport_offset() + FLAGS] & SYN == 0 {
        return;
    }
    let ip = if headers.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    let most = u16::try_from(mtu.saturating_sub(ip + TCP_HEADER)).unwrap_or(u16::MAX);
    let header = &mut head[headers.transport_offset()..headers.payload_offset()];
    let Some(at) = mss_value(header) else { return };
    let old = be16(header, at);
    if old <= most {
        return;
    }
    header[at..at + 2].copy_from_slice(&most.to_be_bytes());
    // At an odd place the two bytes belong to two words of the sum, which is the same swapped (RFC 1071,
    // 2(B)).
    let in_sum = |value: u16| if at.is_multiple_of(2) { value } else { value.swap_bytes() };
    let checksum = be16(header, CHECKSUM);
    let sum = Sum::ZERO.add_word(!checksum).add_word(!in_sum(old)).add_word(in_sum(most)).checksum();
    header[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Where in a TCP header the value of its maximum segment size option is.
fn mss_value(header: &[u8]) -> Option<usize> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const MSS: u8 = 2;
    const MSS_BYTES: u8 = 4;
    let mut at = TCP_HEADER;
    loop {
        let kind = *header.get(at)?;
        let length = match kind {
            END => return None,
            NOTHING => 1,
            _ => *header.get(at + 1)?,
        };
        if kind == MSS {
            return (length == MSS_BYTES && at + 4 <= header.len()).then_some(at + 2);
        }
        if kind != NOTHING && length < 2 {
            return None;
        }
        at += usize::from(length);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn overhead_is_50_over_ipv4_and_70_over_ipv6() {
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
        assert_eq!((inner_mtu(1500, v4), inner_mtu(1500, v6)), (1450, 1430));
        assert_eq!((inner_mtu(9000, v4), inner_mtu(65_536, v4)), (8950, 65_485));
        assert_eq!(inner_mtu(10, v4), 0);
    }

    /// A TCP packet over IPv4 with these flags and options and a right checksum.
    fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![2; 12];
        bytes.extend([8, 0]);
        let length = u8::try_from(40 + options.len()).expect("short");
        bytes.extend([0x45, 0, 0, length, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let words = u8::try_from(5 + options.len() / 4).expect("short");
        bytes.extend([0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, words << 4, flags, 2, 0, 0, 0, 0, 0]);
        bytes.extend(options);
        let sum = checksum(&bytes);
        bytes[50..52].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn checksum(frame: &[u8]) -> u16 {
        let length = u16::try_from(frame.len() - 34).expect("short");
        Sum::ZERO.add_bytes(&frame[26..]).add_word(6).add_word(length).checksum()
    }

    #[test]
    fn a_syn_offers_no_more_than_fits() {
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        let cases: &[(u8, &[u8], &[u8])] = &[
            (SYN, &[2, 4, 0x05, 0xb4], &[2, 4, 0x05, 0x82]),
            (SYN | ACK, &[2, 4, 0x05, 0xb4], &[2, 4, 0x05, 0x82]),
            // At an odd place.
            (SYN, &[1, 2, 4, 0x05, 0xb4, 1, 1, 1], &[1, 2, 4, 0x05, 0x82, 1, 1, 1]),
            // Behind another option.
            (SYN, &[3, 3, 7, 1, 2, 4, 0x05, 0xb4], &[3, 3, 7, 1, 2, 4, 0x05, 0x82]),
            // Small enough; not a SYN; none; behind the end; nonsense.
            (SYN, &[2, 4, 0x02, 0x18], &[2, 4, 0x02, 0x18]),
            (ACK, &[2, 4, 0x05, 0xb4], &[2, 4, 0x05, 0xb4]),
            (SYN, &[], &[]),
            (SYN, &[0, 2, 4, 0xff, 0xff, 0, 0, 0], &[0, 2, 4, 0xff, 0xff, 0, 0, 0]),
            (SYN, &[3, 0, 2, 4], &[3, 0, 2, 4]),
            (SYN, &[1, 1, 2, 4], &[1, 1, 2, 4]),
            (SYN, &[2, 3, 0xff, 0xff], &[2, 3, 0xff, 0xff]),
        ];
        for (flags, before, after) in cases {
            let mut bytes = segment(*flags, before);
            let headers = Headers::parse(&bytes).expect("a packet");
            clamp_mss(&mut bytes, &headers, 1450);
            assert_eq!(bytes, segment(*flags, after), "{before:?}");
            assert_eq!(checksum(&bytes), 0);
        }
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let mut bytes = segment(0x02, &[2, 4, 0x05, 0xb4]);
        bytes[51] ^= 1;
        let wrong_by = checksum(&bytes);
        let headers = Headers::parse(&bytes).expect("a packet");
        clamp_mss(&mut bytes, &headers, 1450);
        assert_eq!(checksum(&bytes), wrong_by);
    }
}
