//! Frames as someone would make them who wants the switch to write, merge or drop what it must not.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::offload::VNET_HEADER_BYTES;
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, Checksum, DropReason, Frame, Headers, Offload, Pool};

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

fn sum(words: &[u8]) -> u32 {
    let folded: u32 =
        words.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from)).sum();
    (folded & 0xffff) + (folded >> 16)
}

fn checksum(words: &[u8]) -> u16 {
    let folded = sum(words);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("16 bits")
}

fn len16(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("a small packet").to_be_bytes()
}

/// A UDP datagram with a right checksum for these addresses.
fn datagram(addresses: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut udp = [&[0, 7, 0, 9, 0, 0, 0, 0][..], payload].concat();
    let length = len16(&udp);
    udp[4..6].copy_from_slice(&length);
    let field = checksum(&[addresses, &[0, UDP], &length, &udp].concat());
    udp[6..8].copy_from_slice(&field.max(1).to_be_bytes());
    udp
}

fn ethernet(ether_type: u16, packet: &[u8]) -> Vec<u8> {
    [&MACS[..], &ether_type.to_be_bytes(), packet].concat()
}

fn ipv4(id: u16, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    header[2..4].copy_from_slice(&(20 + u16::from_be_bytes(len16(body))).to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    let field = checksum(&header);
    header[10..12].copy_from_slice(&field.to_be_bytes());
    ethernet(0x0800, &[&header, body].concat())
}

fn udp4(id: u16, payload: &[u8]) -> Vec<u8> {
    ipv4(id, UDP, &datagram(&[10, 0, 0, 1, 10, 0, 0, 2], payload))
}

const ADDRESSES_6: [u8; 32] = [0xfd; 32];

fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
    let header = [&[0x60, 0, 0, 0][..], &len16(body), &[next, 64], &ADDRESSES_6].concat();
    ethernet(0x86dd, &[&header, body].concat())
}

/// `bytes` as received in front of a virtio-net header.
fn received(pool: &mut Pool, header: [u8; VNET_HEADER_BYTES], bytes: &[u8]) -> Frame {
    let mut frame = pool.take().expect("a free slot");
    let room = frame.receive_room();
    room[..VNET_HEADER_BYTES].copy_from_slice(&header);
    room[VNET_HEADER_BYTES..][..bytes.len()].copy_from_slice(bytes);
    frame.received(VNET_HEADER_BYTES + bytes.len());
    frame
}

fn parsed(pool: &mut Pool, bytes: &[u8]) -> Frame {
    let mut frame = received(pool, [0; VNET_HEADER_BYTES], bytes);
    assert_eq!(frame.parse(), Ok(()));
    frame
}

fn partial(start: u16, offset: u16) -> [u8; VNET_HEADER_BYTES] {
    Offload { checksum: Checksum::Partial { start, offset }, gso: None }.encode(0)
}

/// The frames that leave for a receiver that takes all, split as it would split them.
fn coalesced(pool: &mut Pool, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut queue = frames.iter().map(|bytes| parsed(pool, bytes)).collect();
    Coalescer::new(7).coalesce(&mut queue, Accepts::ALL, pool);
    let mut pieces = Vec::new();
    for frame in &queue {
        let more = Splitter::new(frame, Accepts::NONE).next_batch(pool, &mut pieces);
        assert_eq!(more, Ok(false));
    }
    let bytes = pieces.iter().map(|piece| piece.bytes().to_vec()).collect();
    pieces.into_iter().chain(queue).for_each(|frame| pool.free(frame));
    bytes
}

/// Addresses are checked before a partial checksum is finished, so it must not be finished into them.
#[test]
fn a_partial_checksum_is_not_written_over_addresses() {
    let mut pool = Pool::new(1);
    let arp = ethernet(0x0806, &[0; 28]);
    let at_addresses = (0..34u16).map(|field| (udp4(0, &[0; 30]), field));
    let at_addresses = at_addresses.chain((0..54).map(|field| (ipv6(ESP, &[0; 40]), field)));
    let at_addresses = at_addresses.chain((0..40).map(|field| (arp.clone(), field)));
    let mut taken = Vec::new();
    for (bytes, field) in at_addresses {
        for start in [0, 14.min(field), field] {
            let mut frame = received(&mut pool, partial(start, field - start), &bytes);
            if frame.parse() != Err(DropReason::BadOffload) {
                taken.push((frame.headers.ether_type(), start, field));
            }
            pool.free(frame);
        }
    }
    assert_eq!(taken, [], "(EtherType, start of the sum, place of the field)");
}

/// Ports too are looked at before a partial checksum is finished.
#[test]
fn a_partial_checksum_is_not_written_over_ports() {
    let mut pool = Pool::new(1);
    for offset in [0, 2, 4] {
        let mut frame = received(&mut pool, partial(34, offset), &udp4(0, &[0; 30]));
        assert_eq!(frame.parse(), Err(DropReason::BadOffload), "offset {offset}");
        pool.free(frame);
    }
}

/// A container that tunnels leaves the checksum of what is inside to us.
#[test]
fn a_partial_checksum_deep_in_the_payload_is_finished_there() {
    let mut pool = Pool::new(2);
    let inner = udp4(0, b"inner");
    let bytes = udp4(0, &inner);
    let (start, offset) = (42 + 34, 6);
    let mut frame = received(&mut pool, partial(start, offset), &bytes);
    assert_eq!(frame.parse(), Ok(()));
    let mut pieces = Vec::new();
    assert_eq!(Splitter::new(&frame, Accepts::NONE).next_batch(&mut pool, &mut pieces), Ok(false));
    let mut expected = bytes.clone();
    let field = checksum(&bytes[usize::from(start)..]);
    expected[usize::from(start + offset)..][..2].copy_from_slice(&field.to_be_bytes());
    assert_eq!(pieces[0].bytes(), expected);
}

/// Behind the fragment header of any but the first fragment there is data, whatever "next header" says.
#[test]
fn the_data_of_a_fragment_is_not_parsed_as_headers() {
    let fragment = [&[DESTINATION_OPTIONS, 0, 0, 8, 0, 0, 0, 1][..], &[0xff; 16]].concat();
    let headers = Headers::parse(&ipv6(FRAGMENT, &fragment));
    assert_eq!(headers.map(|headers| headers.is_fragment()), Ok(true));
}

/// ECN belongs to TCP: no receiver must be handed a UDP super-frame that is marked so.
#[test]
fn a_udp_super_frame_with_ecn_is_refused() {
    let mut pool = Pool::new(1);
    let [size0, size1] = 10u16.to_ne_bytes();
    let [start0, start1] = 34u16.to_ne_bytes();
    let [offset0, offset1] = 6u16.to_ne_bytes();
    let header = [1, 0x85, 0, 0, size0, size1, start0, start1, offset0, offset1];
    let mut frame = received(&mut pool, header, &udp4(0, &[0; 30]));
    assert_eq!(frame.parse(), Err(DropReason::BadOffload));
}

/// Zero has two forms; a header checksum written in the unusual one comes out as it went in.
#[test]
fn an_unusual_zero_in_the_ipv4_checksum_survives() {
    let mut pool = Pool::new(8);
    let canonical = |id: &u16| udp4(*id, b"payload")[24..26] == [0, 0];
    let zero = (0..0xffff).find(canonical).expect("some header whose checksum is zero");
    let mut frames = vec![udp4(zero, b"payload"), udp4(zero + 1, b"payload")];
    frames[0][24..26].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(coalesced(&mut pool, &frames), frames);
}

/// A flow's frame that hides its ports behind many extension headers is still not overtaken.
#[test]
fn a_frame_whose_transport_is_out_of_sight_is_not_overtaken() {
    let mut pool = Pool::new(8);
    let plain = |payload: &[u8]| ipv6(UDP, &datagram(&ADDRESSES_6, payload));
    let mut body = datagram(&ADDRESSES_6, b"two");
    for next in [UDP].into_iter().chain([DESTINATION_OPTIONS; 8]) {
        body = [&[next, 0, 1, 4, 0, 0, 0, 0][..], &body].concat();
    }
    let frames = [plain(b"one"), ipv6(DESTINATION_OPTIONS, &body), plain(b"3rd")];
    assert_eq!(coalesced(&mut pool, &frames), frames);
}

/// A frame of the same flow with options, a wrong checksum or nothing in it keeps its place.
#[test]
fn what_takes_no_part_is_not_overtaken() {
    let mut pool = Pool::new(8);
    let mut corrupt = udp4(2, b"two");
    corrupt[40] ^= 1;
    let mut unsummed = udp4(2, b"two");
    unsummed[40..42].fill(0);
    let mut fragment = udp4(2, b"two");
    fragment[20] = 0x20;
    let middle = [corrupt, unsummed, fragment, udp4(2, b""), [udp4(2, b"two"), vec![0; 4]].concat()];
    for two in middle {
        let frames = [udp4(1, b"one"), two, udp4(2, b"3rd")];
        assert_eq!(coalesced(&mut pool, &frames), frames);
    }
}

/// Reserved bits, flags and gaps of TCP end a run, and never get lost in one.
#[test]
fn odd_tcp_segments_come_out_as_they_went_in() {
    let mut pool = Pool::new(8);
    let segment = |sequence: u32, edit: &dyn Fn(&mut [u8])| {
        let header =
            [&[0, 7, 0, 9][..], &sequence.to_be_bytes(), &[0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]];
        let mut tcp = [&header.concat()[..], b"8 bytes!"].concat();
        edit(&mut tcp);
        let field = checksum(&[&[10, 0, 0, 1, 10, 0, 0, 2, 0, TCP][..], &len16(&tcp), &tcp].concat());
        tcp[16..18].copy_from_slice(&field.to_be_bytes());
        tcp
    };
    for (at, bits) in [
        (12, 0x01),
        (12, 0x0e),
        (13, 0x08),
        (13, 0x01),
        (13, 0x20),
        (13, 0x40),
        (13, 0x80),
        (14, 1),
        (19, 1),
        (7, 1),
        (11, 1),
    ] {
        let odd = |tcp: &mut [u8]| tcp[at] ^= bits;
        let sequences = [u32::MAX - 7, 0, 8].into_iter();
        let frames: Vec<Vec<u8>> = (1..)
            .zip(sequences)
            .map(|(id, sequence)| {
                ipv4(id, TCP, &if id == 2 { segment(sequence, &odd) } else { segment(sequence, &|_| {}) })
            })
            .collect();
        assert_eq!(coalesced(&mut pool, &frames), frames, "byte {at}, bits {bits:#x}");
    }
}

/// Any of the kinds of frame above, some bytes of it changed, behind any virtio-net header.
fn forged() -> impl Strategy<Value = ([u8; VNET_HEADER_BYTES], Vec<u8>)> {
    let tunnelled = udp4(3, &udp4(0, b"inner"));
    let fragment =
        ipv6(FRAGMENT, &[&[UDP, 0, 0, 1, 0, 0, 0, 1][..], &datagram(&ADDRESSES_6, b"first")].concat());
    let base = select(vec![udp4(1, b"one"), udp4(2, b"two"), tunnelled, ipv6(ESP, &[1; 40]), fragment]);
    let edits = vec((any::<Index>(), any::<u8>()), 0..4);
    let bytes = (base, edits, any::<Index>(), 0..4u8).prop_map(|(mut bytes, edits, end, cut)| {
        edits.iter().for_each(|(at, byte)| *at.get_mut(&mut bytes) = *byte);
        bytes.truncate(if cut == 0 { end.index(bytes.len()) } else { bytes.len() });
        bytes
    });
    let fields = [34u16, 54, 6, 16, 1, 10].map(u16::to_ne_bytes);
    let field = move || prop_oneof![3 => select(fields.to_vec()), 1 => any::<[u8; 2]>()];
    let kind = prop_oneof![3 => select(vec![0u8, 1, 4, 5, 0x81]), 1 => any::<u8>()];
    let header = (0..4u8, kind, field(), field(), field(), field())
        .prop_map(|(flags, kind, [a, b], [c, d], [e, f], [g, h])| [flags, kind, a, b, c, d, e, f, g, h]);
    (header, bytes)
}

proptest! {
    /// A frame that is accepted can be merged and split for any receiver, and every slot comes back.
    #[test]
    fn nothing_forged_breaks_anything(frames in vec(forged(), 1..6)) {
        let mut pool = Pool::new(128);
        for accepts in [Accepts::NONE, Accepts { checksum: true, ..Accepts::NONE }, Accepts::ALL] {
            let mut queue = Vec::new();
            for (header, bytes) in &frames {
                let mut frame = received(&mut pool, *header, bytes);
                match frame.parse() {
                    Ok(()) => queue.push(frame),
                    Err(_) => pool.free(frame),
                }
            }
            Coalescer::new(7).coalesce(&mut queue, accepts, &mut pool);
            for frame in queue.drain(..) {
                prop_assert!(frame.mtu_bytes() <= frame.len());
                let (mut splitter, mut pieces) = (Splitter::new(&frame, Accepts::NONE), Vec::new());
                let count = splitter.count();
                while splitter.next_batch(&mut pool, &mut pieces).expect("slots for one batch") {
                    pieces.drain(..).for_each(|piece| pool.free(piece));
                }
                for mut piece in pieces {
                    prop_assert_eq!(piece.parse(), Ok(()), "one of {} pieces", count);
                    prop_assert_eq!(piece.offload, Offload::NONE);
                    pool.free(piece);
                }
                pool.free(frame);
            }
            prop_assert_eq!(pool.available(), pool.capacity());
        }
    }
}
