//! Super-frames as a sender's kernel leaves them, against the segments the book says they stand for.

use proptest::prelude::*;
use vswitch_frame::offload::VNET_HEADER_BYTES;
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, Checksum, Frame, Gso, GsoKind, Offload, Pool};
use vswitch_tests::packets::{Packet, Transport};
use vswitch_tests::talk::Stream;

const CWR: u8 = 0x80;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;

/// The frame of a packet as its sender's kernel hands it over: partial checksum, segments of `size`.
fn super_frame(packet: &Packet, size: u16, pool: &mut Pool) -> Frame {
    let layout = packet.layout();
    let (kind, offset) = match (&packet.transport, packet.ipv6) {
        (Transport::Udp, _) => (GsoKind::Udp, 6),
        (Transport::Tcp { .. }, false) => (GsoKind::Tcp4, 16),
        (Transport::Tcp { .. }, true) => (GsoKind::Tcp6, 16),
    };
    let start = u16::try_from(layout.transport).expect("a header");
    let checksum = Checksum::Partial { start, offset };
    let offload = Offload { checksum, gso: Some(Gso { kind, size, ecn: false, same_id: false }) };
    let mut bytes = packet.bytes();
    let field = layout.transport + usize::from(offset);
    // From the finished checksum back to the pseudo-header's sum: take out what the finish would add.
    bytes[field..field + 2].fill(0);
    let segment = !vswitch_tests::packets::rfc1071(&bytes[layout.transport..]);
    let whole = !u16::from_be_bytes([packet.bytes()[field], packet.bytes()[field + 1]]);
    let pseudo = u32::from(whole) + u32::from(!segment);
    let pseudo = u16::try_from((pseudo & 0xffff) + (pseudo >> 16)).expect("folded");
    bytes[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let mut frame = pool.take().expect("a slot");
    let room = frame.receive_room();
    room[..VNET_HEADER_BYTES].copy_from_slice(&offload.encode(layout.payload));
    room[VNET_HEADER_BYTES..][..bytes.len()].copy_from_slice(&bytes);
    frame.received(VNET_HEADER_BYTES + bytes.len());
    frame.parse().expect("a super-frame by the book");
    frame
}

/// The packets a super-frame stands for (`tcp_gso_segment`, `__udp_gso_segment`).
fn segments(packet: &Packet, size: usize) -> Vec<Packet> {
    let pieces: Vec<&[u8]> = packet.payload.chunks(size).collect();
    let mut segments = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let mut segment = Packet { payload: piece.to_vec(), ..packet.clone() };
        segment.id = packet.id.wrapping_add(u16::try_from(number).expect("few"));
        if let Transport::Tcp { sequence, flags, .. } = &mut segment.transport {
            *sequence = sequence.wrapping_add(u32::try_from(number * size).expect("short"));
            *flags &= if number > 0 { !CWR } else { 0xff };
            *flags &= if number + 1 < pieces.len() { !(PSH | FIN) } else { 0xff };
        }
        segments.push(segment);
    }
    segments
}

fn super_packets() -> impl Strategy<Value = (Packet, u16)> {
    let tags = proptest::collection::vec((Just(0x8100u16), any::<u16>()), 0..=2);
    let header = (tags, any::<bool>(), any::<u16>(), any::<bool>());
    let tcp = (any::<bool>(), any::<u32>(), any::<u8>(), 0..=10usize);
    (header, tcp, 1..3000usize, 8..1500u16).prop_map(
        |(header, (is_tcp, sequence, flags, options), length, size)| {
            let mut payload = vec![0; length];
            Stream::new(u64::from(sequence)).fill(&mut payload);
            let mut packet = if is_tcp { Packet::tcp(sequence, payload) } else { Packet::udp(payload) };
            (packet.tags, packet.ipv6, packet.id, packet.dont_fragment) = header;
            if let Transport::Tcp { flags: found, options: words, .. } = &mut packet.transport {
                (*found, *words) = (flags, options);
            }
            (packet, size)
        },
    )
}

/// Over IPv4 a TCP checksum of zero has two forms; over a partial checksum the kernel may write either.
fn comparable(mut bytes: Vec<u8>, packet: &Packet) -> Vec<u8> {
    let field = packet.layout().transport + 16;
    if packet.transport != Transport::Udp && bytes[field..field + 2] == [0xff, 0xff] {
        bytes[field..field + 2].fill(0);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn super_frames_split_by_the_book((packet, size) in super_packets()) {
        thread_local!(static POOL: std::cell::RefCell<Pool> = std::cell::RefCell::new(Pool::new(512)));
        POOL.with_borrow_mut(|pool| {
            let frame = super_frame(&packet, size, pool);
            let mut splitter = Splitter::new(&frame, Accepts::NONE);
            let expected = segments(&packet, usize::from(size));
            prop_assert_eq!(splitter.count(), expected.len());
            let mut pieces = Vec::new();
            for (number, segment) in expected.iter().enumerate() {
                let mut gathered = Vec::new();
                let rest = splitter.gather(number, &mut gathered);
                gathered.extend(&frame.bytes()[rest]);
                prop_assert_eq!(comparable(gathered, segment), comparable(segment.bytes(), segment));
            }
            while splitter.next_batch(pool, &mut pieces).expect("slots") {}
            for (piece, segment) in std::iter::zip(&pieces, &expected) {
                let found = comparable(piece.bytes().to_vec(), segment);
                prop_assert_eq!(found, comparable(segment.bytes(), segment));
            }
            prop_assert_eq!(pieces.len(), expected.len());
            pieces.into_iter().for_each(|piece| pool.free(piece));
            pool.free(frame);
            Ok(())
        })?;
    }
}
