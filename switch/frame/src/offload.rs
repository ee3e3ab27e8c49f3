//! Offloads: segmentation and checksums the sender's kernel left to the "device", which is us.
//!
//! The kernel describes them in a virtio-net header of 10 bytes before each frame (VIRTIO 1.2, 5.1.6;
//! `include/uapi/linux/virtio_net.h`). Here they are data that ride on the frame. Between ports that
//! take them the frame passes unchanged; elsewhere [`crate::split`] does the work.
//!
//! The header comes from the kernel, but a container can shape it with a packet socket of its own, so
//! it is checked against the parsed headers before anyone relies on it.

use crate::checksum::Sum;
use crate::drop::DropReason;
use crate::headers::{Headers, Transport};

/// Length of the virtio-net header on every descriptor we hold.
pub const VNET_HEADER_BYTES: usize = 10;

/// Frames that one super-frame may stand for. The kernel makes at most 1,365 (TCP with the smallest
/// segments Linux sends); without a limit a forged one of 65,000 would cost a port as many system calls.
pub const SEGMENTS_MAX: usize = 2048;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The place of the checksum in a TCP or UDP header.
pub(crate) const TCP_CHECKSUM_AT: u16 = 16;
pub(crate) const UDP_CHECKSUM_AT: u16 = 6;

/// The work left to do on a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The state of the transport checksum.
    pub checksum: Checksum,
    /// The rule of splitting, if the frame is a super-frame.
    pub gso: Option<Gso>,
}

/// The state of a frame's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The field holds a finished checksum, right or wrong: nobody has looked.
    #[default]
    Complete,
    /// The field holds a finished checksum that the sender's kernel has found right.
    Valid,
    /// The field, `offset` bytes behind `start`, holds the sum of the pseudo-header; the sum from
    /// `start` (counted from the frame's first byte) to the frame's end is still to be added.
    Partial {
        /// The start of summing.
        start: u16,
        /// The place of the sum, counted from `start`.
        offset: u16,
    },
}

/// The place of a frame's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// It is that of the TCP or UDP header that the parser found, or there is nothing to finish: nobody who
    /// decides about the frame looks at it.
    Own,
    /// It is among the bytes that such a header, or another protocol's, is followed by or made of: a kind of
    /// ICMP message, a DHCP message, the ports of a fragment.
    Payload,
}

/// The rule by which a super-frame is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The protocol of its segments.
    pub kind: GsoKind,
    /// Payload bytes of each segment but the last, which may be shorter. Never zero.
    pub size: u16,
    /// TCP with ECN: CWR goes on the first segment only (RFC 3168, 6.1.2).
    pub ecn: bool,
    /// Every segment has the same IPv4 identification, as in datagrams that may not be fragmented and
    /// had it so before they were coalesced (RFC 6864, 4.1). Otherwise it counts up by one. The
    /// virtio-net header has no room for this, so the kernel always counts.
    pub same_id: bool,
}

/// The protocol of a super-frame's segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either: each segment is a datagram of its own.
    Udp,
}

/// The offloads that a port's receiver takes without our help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Accepts {
    /// Partial checksums.
    pub checksum: bool,
    /// TCP super-frames over IPv4.
    pub tso4: bool,
    /// TCP super-frames over IPv6.
    pub tso6: bool,
    /// UDP super-frames over either.
    pub uso: bool,
}

impl Accepts {
    /// Everything.
    pub const ALL: Accepts = Accepts { checksum: true, tso4: true, tso6: true, uso: true };
    /// Nothing: finished frames of at most an MTU.
    pub const NONE: Accepts = Accepts { checksum: false, tso4: false, tso6: false, uso: false };

    /// Whether the receiver takes a frame with this work left on it.
    #[inline]
    pub fn takes(self, offload: &Offload) -> bool {
        let checksum = self.checksum || !matches!(offload.checksum, Checksum::Partial { .. });
        checksum && offload.gso.is_none_or(|gso| self.takes_kind(gso.kind))
    }

    /// Whether the receiver takes super-frames of any kind.
    pub fn takes_any(self) -> bool {
        self.tso4 || self.tso6 || self.uso
    }

    /// Whether the receiver takes super-frames of this kind.
    #[inline]
    pub fn takes_kind(self, kind: GsoKind) -> bool {
        match kind {
            GsoKind::Tcp4 => self.tso4,
            GsoKind::Tcp6 => self.tso6,
            GsoKind::Udp => self.uso,
        }
    }
}

impl Offload {
    /// No work left.
    pub const NONE: Offload = Offload { checksum: Checksum::Complete, gso: None };

    /// The reading of a virtio-net header that makes no sense: [`check`](Self::check) refuses it,
    /// because no frame reaches as far as this checksum.
    const NONSENSE: Offload =
        Offload { checksum: Checksum::Partial { start: u16::MAX, offset: u16::MAX }, gso: None };

    /// Reads a virtio-net header, native byte order, as Linux writes it. Its `hdr_len` is a hint that
    /// is not to be trusted, and is not read.
    ///
    /// A kind of segmentation there is no name for here, one of size zero, or one without a partial
    /// checksum is read as work that [`check`](Self::check) refuses.
    #[inline]
    pub fn decode(header: [u8; VNET_HEADER_BYTES]) -> Self {
        let [flags, gso_type, _, _, size0, size1, start0, start1, offset0, offset1] = header;
        let checksum = if flags & F_NEEDS_CSUM != 0 {
            Checksum::Partial {
                start: u16::from_ne_bytes([start0, start1]),
                offset: u16::from_ne_bytes([offset0, offset1]),
            }
        } else if flags & F_DATA_VALID != 0 {
            Checksum::Valid
        } else {
            Checksum::Complete
        };
        if gso_type == GSO_NONE {
            return Self { checksum, gso: None };
        }
        let kind = match gso_type & !GSO_ECN {
            GSO_TCPV4 => GsoKind::Tcp4,
            GSO_TCPV6 => GsoKind::Tcp6,
            GSO_UDP_L4 if gso_type & GSO_ECN == 0 => GsoKind::Udp,
            _ => return Self::NONSENSE,
        };
        let size = u16::from_ne_bytes([size0, size1]);
        if size == 0 || flags & F_NEEDS_CSUM == 0 {
            return Self::NONSENSE;
        }
        let gso = Gso { kind, size, ecn: gso_type & GSO_ECN != 0, same_id: false };
        Self { checksum, gso: Some(gso) }
    }

    /// Writes the virtio-net header; `header_bytes` is where the payload starts.
    #[inline]
    pub fn encode(&self, header_bytes: usize) -> [u8; VNET_HEADER_BYTES] {
        let (flags, start, offset) = match self.checksum {
            Checksum::Complete => (0, 0, 0),
            Checksum::Valid => (F_DATA_VALID, 0, 0),
            Checksum::Partial { start, offset } => (F_NEEDS_CSUM, start, offset),
        };
        let (gso_type, header_bytes, size) = match self.gso {
            None => (GSO_NONE, 0, 0),
            Some(gso) => {
                let kind = match gso.kind {
                    GsoKind::Tcp4 => GSO_TCPV4,
                    GsoKind::Tcp6 => GSO_TCPV6,
                    GsoKind::Udp => GSO_UDP_L4,
                };
                let kind = if gso.ecn { kind | GSO_ECN } else { kind };
                (kind, u16::try_from(header_bytes).unwrap_or(u16::MAX), gso.size)
            }
        };
        let [len0, len1] = header_bytes.to_ne_bytes();
        let [size0, size1] = size.to_ne_bytes();
        let [start0, start1] = start.to_ne_bytes();
        let [offset0, offset1] = offset.to_ne_bytes();
        [flags, gso_type, len0, len1, size0, size1, start0, start1, offset0, offset1]
    }

    /// Finishes a partial checksum of the frame that is `head` and `rest`, as `skb_checksum_help` does: the
    /// sum runs to the end of the frame, and zero is written as its other form.
    pub(crate) fn complete(&self, head: &mut [u8], rest: &[u8]) {
        if let Checksum::Partial { start, offset } = self.checksum {
            let summed = &mut head[usize::from(start)..];
            let sum = Sum::ZERO.add_bytes(summed).add_bytes(rest).checksum();
            let at = usize::from(offset);
            let written = if sum == 0 { 0xffff } else { sum };
            summed[at..at + 2].copy_from_slice(&written.to_be_bytes());
        }
    }

    /// Checks the work against the headers of a frame of `len` bytes, so that doing it cannot fail.
    ///
    /// # Errors
    /// [`DropReason::BadOffload`] when the checksum is neither the transport header's own nor behind the
    /// headers of an IP packet, or a segmentation does not fit the transport protocol or makes more than
    /// [`SEGMENTS_MAX`] frames.
    #[inline]
    pub fn check(&self, headers: &Headers, len: usize) -> Result<(), DropReason> {
        self.field(headers, len).map(drop)
    }

    /// As [`check`](Self::check); answers where the checksum is.
    #[inline]
    pub(crate) fn field(&self, headers: &Headers, len: usize) -> Result<Field, DropReason> {
        let Checksum::Partial { start, offset } = self.checksum else {
            return Ok(Field::Own);
        };
        let start_at = usize::from(start);
        let own_field = match headers.transport() {
            Transport::Tcp => start_at == headers.transport_offset() && offset == TCP_CHECKSUM_AT,
            Transport::Udp => start_at == headers.transport_offset() && offset == UDP_CHECKSUM_AT,
            Transport::Other => false,
        };
        // A tunnel inside a container leaves the sum of an inner header to us.
        let behind_headers = headers.is_ip() && start_at >= headers.payload_offset();
        if start_at + usize::from(offset) + 2 > len || !(own_field || behind_headers) {
            return Err(DropReason::BadOffload);
        }
        let Some(gso) = self.gso else {
            return Ok(if own_field { Field::Own } else { Field::Payload });
        };
        let fits = match gso.kind {
            GsoKind::Tcp4 => headers.is_ipv4() && headers.transport() == Transport::Tcp,
            GsoKind::Tcp6 => headers.is_ipv6() && headers.transport() == Transport::Tcp,
            GsoKind::Udp => headers.transport() == Transport::Udp,
        };
        let whole = headers.end_offset() == len;
        let segments = len.saturating_sub(headers.payload_offset()).div_ceil(usize::from(gso.size));
        if fits && own_field && whole && segments <= SEGMENTS_MAX {
            Ok(Field::Own)
        } else {
            Err(DropReason::BadOffload)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::FRAME_BYTES_MAX;

    #[test]
    fn header_survives_both_ways() {
        let checksums =
            [Checksum::Complete, Checksum::Valid, Checksum::Partial { start: 34, offset: TCP_CHECKSUM_AT }];
        for checksum in checksums {
            let plain = Offload { checksum, gso: None };
            assert_eq!(Offload::decode(plain.encode(54)), plain);
        }
        for kind in [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
            let gso = Gso { kind, size: 1448, ecn: kind == GsoKind::Tcp4, same_id: false };
            let checksum = Checksum::Partial { start: 34, offset: 16 };
            let offload = Offload { checksum, gso: Some(gso) };
            assert_eq!(Offload::decode(offload.encode(54)), offload);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let [size0, size1] = 1448u16.to_ne_bytes();
        let unknown_kind = [F_NEEDS_CSUM, 3, 0, 0, size0, size1, 34, 0, 16, 0];
        let size_zero = [F_NEEDS_CSUM, GSO_TCPV4, 0, 0, 0, 0, 34, 0, 16, 0];
        let no_checksum = [0, GSO_TCPV4, 0, 0, size0, size1, 0, 0, 0, 0];
        for header in [unknown_kind, size_zero, no_checksum] {
            let offload = Offload::decode(header);
            assert_eq!(offload.check(&Headers::default(), FRAME_BYTES_MAX), Err(DropReason::BadOffload));
        }
    }
}
