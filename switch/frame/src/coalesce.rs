//! Many frames of one flow into one super-frame.
//!
//! # Theory of operation
//! A write into a TAP runs the receiver's whole stack, so one write for many datagrams is what makes a
//! userspace switch faster than the kernel's bridge. A *run* is a frame and those behind it in the same
//! burst that continue it: datagrams of one flow and size (UDP segmentation), or consecutive segments of
//! one connection (TCP segmentation). It must be invisible: the same datagrams with the same headers in
//! the same order within the flow; splitting the super-frame gives back the frames to the letter, but for
//! the IPv4 identification of packets that may not be fragmented, which has no meaning.
//!
//! * **Who may take part** is said by [`may_take_part`] for one frame and [`Run::continued_by`] for two.
//!   In short: whole, plain, unfragmented IP without options, a checksum that is right (a wrong one is
//!   never made right), and headers that follow from those of the first.
//! * **Order.** A frame that does not continue the run of its flow ends it, and a fragment ends every
//!   run, because it may belong to any flow.
//! * **Limits.** [`SEGMENTS_MAX`] segments and 65,535 bytes of IP. Runs are looked up in sets of
//!   [`WAYS`]; when a set is full its oldest run takes no more.

use crate::checksum::{Sum, pseudo_header};
use crate::frame::Frame;
use crate::headers::{Headers, Transport, be16};
use crate::lengths::{self, Finish, checksum_offset};
use crate::offload::{Accepts, Checksum, Gso, GsoKind};
use crate::pool::Pool;

/// Segments in one super-frame, at most: what every kernel with UDP segmentation takes.
pub const SEGMENTS_MAX: u16 = 64;

const SETS: usize = 256;
const WAYS: usize = 4;
const IP_BYTES_MAX: usize = 65_535;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_FLAGS_AT: usize = 13;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A run: where its first frame is, and how far it has come.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// What [`Coalescer::era`] was when it was opened; a run of another era is over.
    era: u64,
    hash: u32,
    head: u32,
    /// Payload bytes of each segment but the last.
    size: u16,
    segments: u16,
}

/// Finds runs and merges them. From one call to the next it keeps nothing but its memory.
#[derive(Debug)]
pub struct Coalescer {
    sets: Box<[[Run; WAYS]]>,
    /// Counts bursts and fragments: what ends every run.
    era: u64,
    seed: u64,
}

impl Coalescer {
    /// A coalescer whose hash is seeded by `seed`. Collisions cost speed and nothing else.
    pub fn new(seed: u64) -> Self {
        Self { sets: vec![[Run::default(); WAYS]; SETS].into(), era: 0, seed }
    }

    /// Merges the runs in `frames`, which leave for one receiver in this order, as far as it `accepts`
    /// super-frames. Merged frames go back to `pool`; the others keep their order. The frames must have
    /// been parsed.
    pub fn coalesce(&mut self, frames: &mut Vec<Frame>, accepts: Accepts, pool: &mut Pool) {
        self.era += 1;
        let mut merged = false;
        for index in 0..frames.len() {
            let (before, rest) = frames.split_at_mut(index);
            let frame = &mut rest[0];
            if frame.headers.is_fragment() {
                self.era += 1;
            }
            let Some(kind) = kind_of(&frame.headers) else { continue };
            let (era, hash) = (self.era, flow_hash(frame, self.seed));
            let run = self.run_of(hash);
            if !accepts.takes_kind(kind) || !may_take_part(frame) {
                run.era = 0;
            } else if run.era == era && run.continued_by(&before[run.head as usize], frame) {
                run.take(&mut before[run.head as usize], frame, kind);
                frame.clear();
                merged = true;
            } else {
                *run = Run::open(era, hash, index, frame);
            }
        }
        if merged {
            frames.iter_mut().filter(|frame| is_unsealed(frame)).for_each(seal);
            frames.extract_if(.., |frame| frame.is_empty()).for_each(|frame| pool.free(frame));
        }
    }

    /// The open run of the flow with this hash, or else the run to overwrite: one that is over, or the
    /// oldest of its set.
    fn run_of(&mut self, hash: u32) -> &mut Run {
        let era = self.era;
        let set = &mut self.sets[hash as usize % SETS];
        let open = set.iter().position(|run| run.era == era && run.hash == hash);
        let over = || set.iter().position(|run| run.era != era);
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].head);
        let way = open.or_else(over).or_else(oldest).unwrap_or(0);
        let run = &mut set[way];
        if open.is_none() {
            run.era = 0;
        }
        run
    }
}

impl Run {
    #[expect(clippy::cast_possible_truncation, reason = "a burst is far shorter than 2^32 frames")]
    fn open(era: u64, hash: u32, index: usize, frame: &Frame) -> Self {
        Self { era, hash, head: index as u32, size: lengths::narrow(payload(frame).len()), segments: 1 }
    }

    /// Whether `frame` is the next segment of the run that starts with `head`.
    fn continued_by(&self, head: &Frame, frame: &Frame) -> bool {
        let (held, more) = (payload(head).len(), payload(frame).len());
        let size = usize::from(self.size);
        let has_room =
            self.segments < SEGMENTS_MAX && head.len() + more - head.headers.network_offset() <= IP_BYTES_MAX;
        let full_so_far = held == size * usize::from(self.segments);
        has_room
            && full_so_far
            && more <= size
            && same_up_to_network(head, frame)
            && self.identification_follows(head, frame)
            && transport_follows(head, frame, held)
    }

    /// IPv4 identification counts up by one, except on packets that may not be fragmented: there it has
    /// no meaning and is ignored by whoever receives it (RFC 6864, 4.1). Linux numbers those of all
    /// flows to one destination together, so that within one flow they jump.
    fn identification_follows(&self, head: &Frame, frame: &Frame) -> bool {
        const DONT_FRAGMENT: u8 = 0x40;
        if !head.headers.is_ipv4() {
            return true;
        }
        let at = head.headers.network_offset();
        let (first, this) = (be16(head.bytes(), at + 4), be16(frame.bytes(), at + 4));
        head.bytes()[at + 6] & DONT_FRAGMENT != 0 || this == first.wrapping_add(self.segments)
    }

    /// Appends the payload of `frame` to `head`. Lengths and checksums are left for [`seal`].
    fn take(&mut self, head: &mut Frame, frame: &Frame, kind: GsoKind) {
        let network = head.headers.network_offset();
        let same_id =
            head.headers.is_ipv4() && be16(head.bytes(), network + 4) == be16(frame.bytes(), network + 4);
        let gso = Gso { kind, size: self.size, ecn: false, same_id };
        if head.append(payload(frame)).is_err() {
            return;
        }
        head.offload.gso.get_or_insert(gso);
        self.segments += 1;
        if kind != GsoKind::Udp {
            let flags = head.headers.transport_offset() + TCP_FLAGS_AT;
            head.bytes_mut()[flags] |= frame.bytes()[flags];
        }
    }
}

fn kind_of(headers: &Headers) -> Option<GsoKind> {
    match headers.transport() {
        Transport::Udp => Some(GsoKind::Udp),
        Transport::Tcp if headers.is_ipv4() => Some(GsoKind::Tcp4),
        Transport::Tcp => Some(GsoKind::Tcp6),
        Transport::Other => None,
    }
}

fn payload(frame: &Frame) -> &[u8] {
    &frame.bytes()[frame.headers.payload_offset()..]
}

/// Whether a frame may be merged with others at all.
fn may_take_part(frame: &Frame) -> bool {
    let (headers, bytes) = (&frame.headers, frame.bytes());
    let (network, transport) = (headers.network_offset(), headers.transport_offset());
    let whole = frame.offload.gso.is_none()
        && headers.end_offset() == frame.len()
        && headers.payload_offset() < frame.len();
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
        Transport::Udp => usize::from(be16(bytes, transport + 4)) == frame.len() - transport,
        Transport::Tcp => bytes[transport + TCP_FLAGS_AT] & !PSH == ACK,
        Transport::Other => false,
    };
    plain_network && plain_transport && checksum_is_right(frame)
}

/// Whether the transport checksum, finished or partial, is what the sender's stack would have written.
fn checksum_is_right(frame: &Frame) -> bool {
    let (headers, bytes) = (&frame.headers, frame.bytes());
    let at = headers.transport_offset();
    let is_udp = headers.transport() == Transport::Udp;
    let pseudo = pseudo_header(bytes, headers, bytes.len() - at);
    let field_at = checksum_offset(headers.transport());
    let field = be16(bytes, at + usize::from(field_at));
    match frame.offload.checksum {
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

/// Whether link and network headers are the same, but for what differs from packet to packet.
fn same_up_to_network(head: &Frame, frame: &Frame) -> bool {
    let at = head.headers.network_offset();
    let (one, other) = (head.bytes(), frame.bytes());
    let same = |from: usize, to: usize| one[at + from..at + to] == other[at + from..at + to];
    let same_link =
        head.headers.transport_offset() == frame.headers.transport_offset() && one[..at] == other[..at];
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
fn transport_follows(head: &Frame, frame: &Frame, held: usize) -> bool {
    let at = head.headers.transport_offset();
    let (one, other) = (head.bytes(), frame.bytes());
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
        && end == frame.headers.payload_offset()
        && one[at + TCP_FLAGS_AT] & PSH == 0
        && same(at + ACKNOWLEDGEMENT, at + TCP_FLAGS_AT)
        && same(at + TCP_FLAGS_AT + 1, at + CHECKSUM)
        && same(at + CHECKSUM + 2, end)
}

/// Whether payload was appended since lengths and checksums were set.
fn is_unsealed(frame: &Frame) -> bool {
    frame.offload.gso.is_some() && frame.headers.end_offset() != frame.len()
}

fn seal(frame: &mut Frame) {
    let pseudo = pseudo_header(frame.bytes(), &frame.headers, 0);
    lengths::seal(frame, pseudo, Finish::Partial);
}

/// A hash of addresses and ports. The frame must carry TCP or UDP.
fn flow_hash(frame: &Frame, seed: u64) -> u32 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let (bytes, headers) = (frame.bytes(), &frame.headers);
    let network = headers.network_offset();
    let addresses = if headers.is_ipv4() { network + 12..network + 20 } else { network + 8..network + 40 };
    let transport = headers.transport_offset();
    let mix = |hash: u64, word: u64| ((hash ^ word).wrapping_mul(MIX)).rotate_left(29);
    let mut hash = seed;
    for word in bytes[addresses].chunks_exact(8) {
        let word = [word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]];
        hash = mix(hash, u64::from_ne_bytes(word));
    }
    let ports = [bytes[transport], bytes[transport + 1], bytes[transport + 2], bytes[transport + 3]];
    let is_udp = u64::from(headers.transport() == Transport::Udp);
    let hash = mix(hash, u64::from(u32::from_ne_bytes(ports)) << 1 | is_udp);
    (hash.wrapping_mul(MIX) >> 32) as u32
}
