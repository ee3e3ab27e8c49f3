//! Bursts of frames as a switch sees them: a few flows interleaved, some frames out of the ordinary.
//!
//! A burst is written down as bytes, four for each run of like frames, so that property tests and fuzzers
//! describe it alike: which flow and how often, what is special, how long, in which form.

use vswitch_frame::{Checksum, Frame, Offload, Pool};

use crate::packets::{Packet, Transport, rfc1071};
use crate::talk::Stream;

/// Frames in a burst, at most.
pub const FRAMES_MAX: usize = 256;
const FLOWS: usize = 6;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;

/// The form in which a frame's checksum reaches the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Finished.
    Complete,
    /// Finished, and found right by the sender's kernel.
    Valid,
    /// Left to be finished: the field holds the sum of the pseudo-header.
    Partial,
}

/// A frame of a burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its packet, before any damage.
    pub packet: Packet,
    /// Its bytes as they must arrive, with the checksum finished.
    pub bytes: Vec<u8>,
    /// The form in which it comes to the switch.
    pub form: Form,
}

/// A flow, as it goes on from frame to frame.
#[derive(Clone, Debug)]
struct Flow {
    next: Packet,
    counts_id: bool,
}

/// Six flows: UDP and TCP, IPv4 and IPv6, one with a VLAN tag, two with identifications that count, two
/// that differ in nothing but their protocol.
fn flow(number: usize) -> Flow {
    let mut next =
        if number.is_multiple_of(2) { Packet::udp(vec![]) } else { Packet::tcp(u32::MAX - 500, vec![]) };
    next.ipv6 = matches!(number, 2 | 3);
    next.flow = (1, 2, 5000, [80, 90, 80, 90, 81, 81][number]);
    next.id = u16::MAX - 5;
    if number == 4 {
        next.tags = vec![(0x8100, 7)];
    }
    Flow { next, counts_id: matches!(number, 1 | 4) }
}

/// Reads a burst. Any bytes make one.
pub fn burst(records: &[u8]) -> Vec<Sent> {
    let mut flows: Vec<Flow> = (0..FLOWS).map(flow).collect();
    let mut content = Stream::new(11);
    let mut sent = Vec::new();
    for record in records.as_chunks::<4>().0 {
        let [who, special, length, form] = *record;
        for _ in 0..=who >> 4 {
            if sent.len() < FRAMES_MAX {
                let flow = &mut flows[usize::from(who & 0xf) % FLOWS];
                sent.push(frame(flow, special % 19, length, form, &mut content));
            }
        }
    }
    sent
}

/// The next frame of a flow.
fn frame(flow: &mut Flow, special: u8, length: u8, form: u8, content: &mut Stream) -> Sent {
    let mut packet = flow.next.clone();
    packet.payload = vec![0; payload_length(length)];
    content.fill(&mut packet.payload);
    make_special(&mut packet, special);
    let advance = u32::try_from(packet.payload.len()).unwrap_or(0);
    if let Transport::Tcp { sequence, .. } = &mut flow.next.transport {
        *sequence = sequence.wrapping_add(advance);
    }
    flow.next.id = flow.next.id.wrapping_add(u16::from(flow.counts_id));
    let mut bytes = packet.bytes();
    damage(&mut bytes, &packet, special);
    let checksum = packet.layout().transport + checksum_offset(&packet);
    // A partial TCP checksum may be finished to either form of zero.
    let stays_finished = matches!(special, 7..=10) || bytes[checksum..checksum + 2] == [0, 0];
    let form = match form % 4 {
        1 if !stays_finished => Form::Valid,
        2 | 3 if !stays_finished && packet.fragment.is_none() && packet.padding == 0 => Form::Partial,
        _ => Form::Complete,
    };
    Sent { packet, bytes, form }
}

/// Mostly a hundred bytes; now and then fewer, more, none, or nearly an MTU.
fn payload_length(choice: u8) -> usize {
    match choice {
        0 => 0,
        1..=40 => usize::from(choice),
        41..=48 => 1400,
        49..=52 => 150,
        _ => 100,
    }
}

/// Everything that sets a frame apart from the one before it in its flow.
fn make_special(packet: &mut Packet, special: u8) {
    match (special, &mut packet.transport) {
        (1, Transport::Tcp { flags, .. }) => *flags |= PSH,
        (2, Transport::Tcp { flags, .. }) => *flags |= FIN,
        (3, Transport::Tcp { sequence, .. }) => *sequence = sequence.wrapping_add(100),
        (4, Transport::Tcp { acknowledgement, .. }) => *acknowledgement += 1,
        (5, Transport::Tcp { window, .. }) => *window += 1,
        (6, _) => packet.ttl += 1,
        (11, _) => packet.fragment = Some((0, true)),
        (12, _) => packet.fragment = Some((100, false)),
        (13, _) => packet.padding = 6,
        (14, _) => packet.id = packet.id.wrapping_add(9),
        (15, _) => packet.tos = 3,
        (16, _) => packet.dont_fragment = false,
        (17, _) => packet.tags.push((0x8100, 9)),
        (18, _) if packet.ipv6 => packet.extensions = vec![(60, 0)],
        (18, _) => packet.ip_options = 1,
        _ => {}
    }
}

/// Damages a frame as may happen on the way, or changes it as a sender may, rarely, without mistake.
fn damage(bytes: &mut [u8], packet: &Packet, special: u8) {
    let layout = packet.layout();
    let field = layout.transport + checksum_offset(packet);
    match special {
        7 if layout.payload < layout.end => bytes[layout.end - 1] ^= 0x10,
        8 => bytes[field] ^= 0x01,
        9 if packet.transport == Transport::Udp => bytes[field..field + 2].fill(0),
        10 if !packet.ipv6 => bytes[layout.network + 10] ^= 0x01,
        _ => {}
    }
}

fn checksum_offset(packet: &Packet) -> usize {
    if packet.transport == Transport::Udp { 6 } else { 16 }
}

impl Sent {
    /// The frame as the switch receives it, parsed.
    ///
    /// # Panics
    /// When the pool is empty or the frame is refused, which no frame of a burst is.
    pub fn receive(&self, pool: &mut Pool) -> Frame {
        let mut frame = pool.take().expect("a slot");
        frame.fill(&self.bytes);
        let layout = self.packet.layout();
        match self.form {
            Form::Complete => {}
            Form::Valid => frame.offload.checksum = Checksum::Valid,
            Form::Partial => {
                let offset = checksum_offset(&self.packet);
                let pseudo = self.pseudo_header_sum().to_be_bytes();
                frame.bytes_mut()[layout.transport + offset..][..2].copy_from_slice(&pseudo);
                let narrow = |offset: usize| u16::try_from(offset).expect("a header");
                let checksum = Checksum::Partial { start: narrow(layout.transport), offset: narrow(offset) };
                frame.offload = Offload { checksum, gso: None };
            }
        }
        frame.parse().expect("frames of a burst are well-formed");
        frame
    }

    /// The sum that a sender's kernel leaves in the checksum field.
    fn pseudo_header_sum(&self) -> u16 {
        let layout = self.packet.layout();
        let addresses = if self.packet.ipv6 { 8..40 } else { 12..20 };
        let addresses = &self.bytes[layout.network..][addresses];
        let length = u32::try_from(layout.end - layout.transport).expect("short").to_be_bytes();
        let protocol = if self.packet.transport == Transport::Udp { 17 } else { 6 };
        !rfc1071(&[addresses, &length, &[0, 0, 0, protocol]].concat())
    }

    /// Frames of one flow must stay in order; a fragment may belong to any of its hosts' flows.
    pub fn may_overtake(&self, other: &Sent) -> bool {
        let is_fragment = self.packet.fragment.is_some() || other.packet.fragment.is_some();
        let flow = |sent: &Sent| (sent.packet.flow, sent.packet.ipv6, sent.packet.protocol());
        !is_fragment && flow(self) != flow(other)
    }
}
