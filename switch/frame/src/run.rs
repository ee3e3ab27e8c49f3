//! Runs: datagrams or segments that one super-frame may stand for.
//!
//! # Contract
//! Splitting the super-frame of a run gives back its frames to the letter, but for the IPv4
//! identification of packets that may not be fragmented, which has no meaning. So the rules are strict:
//! whole, plain, unfragmented IP without options, a checksum that is right (a wrong one is never made
//! right), and headers that follow from those of the first.
//!
//! The rules are about bytes, not about who owns them: [`crate::coalesce`] applies them to frames of a
//! burst, a tunnel to datagrams that lie side by side in one buffer.

use crate::checksum::{Sum, pseudo_header};
use crate::headers::{Headers, Transport, be16};
use crate::lengths::{self, checksum_offset};
use crate::offload::{Checksum, Gso, GsoKind, Offload};

/// Segments in one super-frame, at most: what every kernel with UDP segmentation takes.
pub const SEGMENTS_MAX: u16 = 64;

const IP_BYTES_MAX: usize = 65_535;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_FLAGS_AT: usize = 13;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A frame as the rules see it. `headers` must be those of `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The frame.
    pub bytes: &'a [u8],
    /// The places of its headers.
    pub headers: &'a Headers,
    /// The work that its sender left undone.
    pub offload: Offload,
}

impl Segment<'_> {
    /// The bytes behind the transport header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.headers.payload_offset()..]
    }

    /// Whether it may be merged with others at all.
    pub fn may_take_part(&self) -> bool {
        let Self { bytes, headers, offload } = *self;
        let (network, transport) = (headers.network_offset(), headers.transport_offset());
        let whole = offload.gso.is_none()
            && headers.end_offset() == bytes.len()
            && headers.payload_offset() < bytes.len();
        if !whole {
            return false;
        }
        let plain_network = if headers.is_ipv4() {
            transport - network == IPV4_HEADER
                && be16(bytes, network + 10) != 0xffff
                && Sum::ZERO.add_bytes(&bytes[network..transport]).checksum() == 0
        } else {
            transport - network == IPV6_HEADER
        };
        let plain_transport = match headers.transport() {
            Transport::Udp => usize::from(be16(bytes, transport + 4)) == bytes.len() - transport,
            Transport::Tcp => bytes[transport + TCP_FLAGS_AT] & !PSH == ACK,
            Transport::Other => false,
        };
        plain_network && plain_transport && self.checksum_is_right()
    }

    /// Whether the transport checksum, finished or partial, is what the sender's stack would have written.
    fn checksum_is_right(&self) -> bool {
        let Self { bytes, headers, offload } = *self;
        let at = headers.transport_offset();
        let is_udp = headers.transport() == Transport::Udp;
        let pseudo = pseudo_header(bytes, headers, bytes.len() - at);
        let field_at = checksum_offset(headers.transport());
        let field = be16(bytes, at + usize::from(field_at));
        match offload.checksum {
            Checksum::Partial { start, offset } => {
                usize::from(start) == at && offset == field_at && field == pseudo.folded()
            }
            // Zero has two forms. UDP's 0 means "none" (RFC 768), and no stack writes 0xffff into TCP.
            Checksum::Complete | Checksum::Valid => {
                let one_form = if is_udp { field != 0 } else { field != 0xffff };
                one_form && pseudo.add_bytes(&bytes[at..]).checksum() == 0
            }
        }
    }
}

/// The extent of a run, counted from its first frame, the *head*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Payload bytes of each segment but the last.
    pub size: u16,
    /// Segments there are.
    pub segments: u16,
}

impl Extent {
    /// The run that is nothing but `head`, which may take part.
    pub fn of(head: Segment<'_>) -> Self {
        Self { size: lengths::narrow(head.payload().len()), segments: 1 }
    }

    /// Whether `next`, which may take part, is the next segment of the run that starts with `head` and
    /// holds `held` bytes of payload. Of `head` only the headers count.
    pub fn continued_by(&self, head: Segment<'_>, held: usize, next: Segment<'_>) -> bool {
        let more = next.payload().len();
        let size = usize::from(self.size);
        let packet = head.headers.payload_offset() - head.headers.network_offset() + held + more;
        let has_room = self.segments < SEGMENTS_MAX && packet <= IP_BYTES_MAX;
        let full_so_far = held == size * usize::from(self.segments);
        has_room
            && full_so_far
            && more <= size
            && same_up_to_network(head, next)
            && self.identification_follows(head, next)
            && transport_follows(head, next, held)
    }

    /// IPv4 identification counts up by one, except on packets that may not be fragmented: there it has
    /// no meaning and is ignored by whoever receives it (RFC 6864, 4.1). Linux numbers those of all
    /// flows to one destination together, so that within one flow they jump.
    fn identification_follows(&self, head: Segment<'_>, next: Segment<'_>) -> bool {
        const DONT_FRAGMENT: u8 = 0x40;
        if !head.headers.is_ipv4() {
            return true;
        }
        let at = head.headers.network_offset();
        let (first, this) = (be16(head.bytes, at + 4), be16(next.bytes, at + 4));
        head.bytes[at + 6] & DONT_FRAGMENT != 0 || this == first.wrapping_add(self.segments)
    }

    /// The rule that splits the super-frame of a run whose second segment is `second`; `None` where no kind
    /// of super-frame fits.
    pub fn gso(&self, head: Segment<'_>, second: Segment<'_>) -> Option<Gso> {
        let at = head.headers.network_offset() + 4;
        let same_id = head.headers.is_ipv4() && be16(head.bytes, at) == be16(second.bytes, at);
        Some(Gso { kind: kind_of(head.headers)?, size: self.size, ecn: false, same_id })
    }
}

/// The kind of super-frame that frames with such headers make.
pub fn kind_of(headers: &Headers) -> Option<GsoKind> {
    match headers.transport() {
        Transport::Udp => Some(GsoKind::Udp),
        Transport::Tcp if headers.is_ipv4() => Some(GsoKind::Tcp4),
        Transport::Tcp => Some(GsoKind::Tcp6),
        Transport::Other => None,
    }
}

/// Adds the TCP flags of `next` to those of the head of its run; of datagrams there are none.
pub fn join_flags(head: &mut [u8], next: Segment<'_>) {
    if next.headers.transport() == Transport::Tcp {
        let at = next.headers.transport_offset() + TCP_FLAGS_AT;
        head[at] |= next.bytes[at];
    }
}

/// Makes the headers at the start of `head` those of a super-frame with `payload` bytes behind them: sets
/// lengths and IPv4 checksum and leaves the transport checksum partial. The answer is its state.
pub fn seal(head: &mut [u8], headers: &mut Headers, payload: usize) -> Checksum {
    let pseudo = pseudo_header(head, headers, 0);
    let checksum = lengths::seal_headers(head, headers, payload, pseudo);
    headers.set_end(headers.payload_offset() + payload);
    checksum
}

/// Whether link and network headers are the same, but for what differs from packet to packet.
fn same_up_to_network(head: Segment<'_>, next: Segment<'_>) -> bool {
    let at = head.headers.network_offset();
    let (one, other) = (head.bytes, next.bytes);
    if head.headers.transport_offset() != next.headers.transport_offset() {
        return false;
    }
    let same = |from: usize, to: usize| one[at + from..at + to] == other[at + from..at + to];
    let same_link = one[..at] == other[..at];
    if head.headers.is_ipv4() {
        const LENGTH: usize = 2;
        const FLAGS: usize = 6;
        const CHECKSUM: usize = 10;
        same_link && same(0, LENGTH) && same(FLAGS, CHECKSUM) && same(CHECKSUM + 2, IPV4_HEADER)
    } else {
        const LENGTH: usize = 4;
        same_link && same(0, LENGTH) && same(LENGTH + 2, IPV6_HEADER)
    }
}

/// Whether the transport header is that of the next segment after `held` bytes of payload.
fn transport_follows(head: Segment<'_>, next: Segment<'_>, held: usize) -> bool {
    let at = head.headers.transport_offset();
    let (one, other) = (head.bytes, next.bytes);
    if one[at..at + 4] != other[at..at + 4] {
        return false;
    }
    if head.headers.transport() == Transport::Udp {
        return true;
    }
    const SEQUENCE: usize = 4;
    const ACKNOWLEDGEMENT: usize = 8;
    const CHECKSUM: usize = 16;
    let end = head.headers.payload_offset();
    let same = |from: usize, to: usize| one[from..to] == other[from..to];
    let sequence_of = |bytes: &[u8]| {
        let at = at + SEQUENCE;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let follows =
        u32::try_from(held).is_ok_and(|held| sequence_of(one).wrapping_add(held) == sequence_of(other));
    follows
        && end == next.headers.payload_offset()
        && one[at + TCP_FLAGS_AT] & PSH == 0
        && same(at + ACKNOWLEDGEMENT, at + TCP_FLAGS_AT)
        && same(at + TCP_FLAGS_AT + 1, at + CHECKSUM)
        && same(at + CHECKSUM + 2, end)
}
