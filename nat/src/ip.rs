//! Reads an IP header: of a frame, or of the packet an ICMP error quotes, which may be cut short.
//!
//! Followed: RFC 791, RFC 8200. Extension headers are looked through as `vswitch_frame::headers` does.

use vswitch_frame::headers::be16;

use crate::tuple::Address;

const EXTENSIONS_MAX: usize = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// An IP header and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) is_v4: bool,
    /// Where it starts.
    pub(crate) at: usize,
    pub(crate) source: Address,
    pub(crate) target: Address,
    /// The number of the transport protocol.
    pub(crate) protocol: u8,
    /// Where the transport header starts.
    pub(crate) transport_at: usize,
    /// Where the packet ends, or the bytes there are.
    pub(crate) end: usize,
    /// The fragment it is of a datagram, if it is one.
    pub(crate) fragment: Option<Piece>,
}

/// The piece of a datagram that a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The datagram's identification.
    pub(crate) id: u32,
    /// The first byte of it that is here.
    pub(crate) from: u32,
    /// The first byte behind.
    pub(crate) to: u32,
    /// Whether more follow.
    pub(crate) more: bool,
}

impl Ip {
    /// Reads the header at `at`; `None` if it is cut short or contradicts itself. The packet may be longer
    /// than the bytes there are.
    pub(crate) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        match bytes.get(at)? >> 4 {
            4 => Self::read_v4(bytes, at),
            6 => Self::read_v6(bytes, at),
            _ => None,
        }
    }

    fn read_v4(bytes: &[u8], at: usize) -> Option<Self> {
        let header: &[u8; 20] = bytes.get(at..)?.first_chunk()?;
        let length = usize::from(header[0] & 0xf) * 4;
        let total = usize::from(be16(header, 2));
        if length < 20 || total < length || bytes.len() < at + length {
            return None;
        }
        let [.., a, b, c, d, e, f, g, h] = *header;
        let (flags, payload) = (be16(header, 6), total - length);
        let fragment = (flags & 0x3fff != 0)
            .then(|| Piece::new(u32::from(be16(header, 4)), flags & 0x1fff, payload, flags & 0x2000 != 0));
        Some(Self {
            is_v4: true,
            at,
            source: Address::v4([a, b, c, d]),
            target: Address::v4([e, f, g, h]),
            protocol: header[9],
            transport_at: at + length,
            end: (at + total).min(bytes.len()),
            fragment,
        })
    }

    fn read_v6(bytes: &[u8], at: usize) -> Option<Self> {
        let header: &[u8; 40] = bytes.get(at..)?.first_chunk()?;
        let claimed_end = at + 40 + usize::from(be16(header, 4));
        let mut ip = Self {
            is_v4: false,
            at,
            source: Address::v6(*header[8..].first_chunk()?),
            target: Address::v6(*header[24..].first_chunk()?),
            protocol: header[6],
            transport_at: at + 40,
            end: claimed_end.min(bytes.len()),
            fragment: None,
        };
        for _ in 0..EXTENSIONS_MAX {
            let extension: &[u8; 8] = match ip.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT => {
                    bytes.get(ip.transport_at..ip.end)?.first_chunk()?
                }
                _ => return Some(ip),
            };
            let is_fragment = ip.protocol == FRAGMENT;
            ip.protocol = extension[0];
            ip.transport_at += if is_fragment { 8 } else { (usize::from(extension[1]) + 1) * 8 };
            let payload = claimed_end.checked_sub(ip.transport_at)?;
            let place = be16(extension, 2);
            if is_fragment && place & 0xfff9 != 0 {
                let [.., a, b, c, d] = *extension;
                let id = u32::from_be_bytes([a, b, c, d]);
                ip.fragment = Some(Piece::new(id, place >> 3, payload, place & 1 != 0));
                return Some(ip);
            }
        }
        None
    }

    /// Whether the packet may not be fragmented on its way.
    pub(crate) fn is_whole_only(&self, bytes: &[u8]) -> bool {
        !self.is_v4 || bytes[self.at + 6] & 0x40 != 0
    }
}

impl Piece {
    fn new(id: u32, eights: u16, payload: usize, more: bool) -> Self {
        let from = u32::from(eights) * 8;
        Self { id, from, to: from + u32::try_from(payload).unwrap_or(0), more }
    }

    /// Whether it contradicts the rules of fragmentation: empty, not in units of eight, or behind the end
    /// of the largest packet (RFC 791, 3.2; RFC 8200, 4.5).
    pub(crate) fn is_malformed(&self) -> bool {
        self.to == self.from || self.more && !self.to.is_multiple_of(8) || self.to > 0xffff
    }
}
