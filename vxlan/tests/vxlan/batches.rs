//! Which datagrams share a send, and which a super-frame.

use vswitch_frame::{Checksum, DropReason, Instant};
use vswitch_vxlan::encapsulate::{BYTES_MAX, SEGMENTS_MAX};
use vswitch_vxlan::{Decapsulator, Received, Sender};

use crate::support::*;

/// Sizes of the datagrams of each send of a burst to one VTEP: the port says the flow, the other number
/// the bytes of payload.
fn batches(sender: Sender, burst: &[(u16, usize)]) -> Vec<Vec<usize>> {
    let mut tunnels = tunnels(settings(vtep(1)));
    tunnel(&mut tunnels).table.set(record(BOB, &[], vtep(2), 1));
    let frame = |&(port, length): &(u16, usize)| datagram(BOB, ALICE, port, &vec![1; length]);
    let burst: Vec<Vec<u8>> = burst.iter().map(frame).collect();
    let (sends, refused) = sent(tunnel(&mut tunnels), sender, &burst);
    assert_eq!(refused, []);
    let payload = |datagram: &Vec<u8>| datagram.len() - 8 - 42;
    sends.iter().map(|send| send.datagrams.iter().map(payload).collect()).collect()
}

#[test]
fn small_frames_of_one_flow_share_a_send() {
    let sender = Sender::default();
    assert_eq!(batches(sender, &[(7, 100), (7, 100), (7, 100)]), [[100, 100, 100]]);
    assert_eq!(batches(sender, &[(7, 100), (7, 60), (7, 60)]), [vec![100, 60], vec![60]]);
    assert_eq!(batches(sender, &[(7, 60), (7, 100), (7, 100)]), [vec![60], vec![100, 100]]);
    assert_eq!(batches(sender, &[(7, 1), (8, 2), (7, 1), (8, 2)]), [[1, 1], [2, 2]], "two flows");
    assert_eq!(batches(Sender { segments: 1, ..sender }, &[(7, 9), (7, 9)]), [[9], [9]], "without GSO");
}

#[test]
fn a_send_has_limits() {
    let many = batches(Sender::default(), &[(7, 1); 100]);
    assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [64, 36]);
    assert_eq!(usize::from(SEGMENTS_MAX), 64);
    let large = batches(Sender::default(), &[(7, 1400); 64]);
    let bytes = |send: &Vec<usize>| send.iter().map(|payload| payload + 50).sum::<usize>();
    assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [45, 19]);
    assert!(large.iter().all(|send| bytes(send) <= BYTES_MAX));
}

#[test]
fn a_fragment_ends_every_run() {
    let mut tunnels = tunnels(settings(vtep(1)));
    tunnel(&mut tunnels).table.set(record(BOB, &[], vtep(2), 1));
    let plain = datagram(BOB, ALICE, 7, b"a datagram");
    let mut fragment = plain.clone();
    fragment[20] = 0x20;
    let (sends, _) = sent(tunnel(&mut tunnels), Sender::default(), &[plain.clone(), fragment, plain]);
    assert_eq!(sends.iter().map(|send| send.datagrams.len()).collect::<Vec<_>>(), [1, 1, 1]);
}

/// A moved container is followed by the very next frame.
#[test]
fn a_burst_goes_where_its_record_says() {
    let mut tunnels = tunnels(settings(vtep(1)));
    let burst = [datagram(BOB, ALICE, 7, b"hi")];
    for (version, host) in [(1, vtep(2)), (2, vtep(3)), (3, vtep(2))] {
        tunnel(&mut tunnels).table.set(record(BOB, &[], host, version));
        let (sends, _) = sent(tunnel(&mut tunnels), Sender::default(), &burst);
        assert_eq!(sends.iter().map(|send| send.to).collect::<Vec<_>>(), [host]);
    }
}

/// A buffer of datagrams side by side: the frames that came of it, as pieces.
fn merged(inner: &[Vec<u8>]) -> Vec<Vec<std::ops::Range<usize>>> {
    let mut tunnels = tunnels(settings(vtep(1)));
    let mut buffer: Vec<u8> = inner.iter().flat_map(|frame| packet(frame)).collect();
    let size = Some(u16::try_from(packet(&inner[0]).len()).expect("short"));
    let mut decapsulator = Decapsulator::new();
    decapsulator.open(&mut tunnels, Received { from: vtep(2), size }, &mut buffer, Instant::ZERO);
    assert_eq!(decapsulator.dropped(), []);
    decapsulator.inners().iter().map(|inner| inner.pieces().collect()).collect()
}

#[test]
fn datagrams_of_one_flow_become_one() {
    let frame = |port, length| datagram(ALICE, BOB, port, &vec![1; length]);
    // Each is 8 bytes of VXLAN, 42 of headers and 10 of payload.
    let one = merged(&[frame(7, 10), frame(7, 10), frame(7, 4)]);
    assert_eq!(one, [[8..60, 110..120, 170..174]]);
    let two = merged(&[frame(7, 10), frame(8, 10), frame(8, 10)]);
    let (alone, both) = (&two[0], &two[1]);
    assert_eq!((two.len(), alone.len(), alone[0].clone()), (2, 1, 8..60));
    assert_eq!(both[..], [68..120, 170..180]);
}

#[test]
fn what_is_wrong_is_never_merged() {
    let right = datagram(ALICE, BOB, 7, b"ten bytes.");
    let mut wrong = right.clone();
    wrong[45] ^= 1;
    let between = merged(&[right.clone(), wrong, right.clone(), right]);
    assert_eq!(between.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn a_dropped_datagram_parts_its_neighbours() {
    let right = datagram(ALICE, BOB, 7, b"ten bytes.");
    let mut buffer = [packet(&right), packet(&right), packet(&right)].concat();
    buffer[60] = 0;
    let mut tunnels = tunnels(settings(vtep(1)));
    let (frames, dropped) = opened(&mut tunnels, vtep(2), Some(60), &buffer);
    assert_eq!((frames, dropped.len()), (vec![right.clone(), right], 1));
}

#[test]
fn a_merged_frame_says_how_to_split_it() {
    let frame = datagram(ALICE, BOB, 7, b"ten bytes.");
    let mut buffer = [packet(&frame), packet(&frame)].concat();
    let mut tunnels = tunnels(settings(vtep(1)));
    let mut decapsulator = Decapsulator::new();
    decapsulator.open(&mut tunnels, Received { from: vtep(2), size: Some(60) }, &mut buffer, NOW);
    let [inner] = decapsulator.inners() else { panic!("one frame") };
    assert_eq!(inner.offload.gso.map(|gso| gso.size), Some(10));
    assert_eq!(inner.offload.checksum, Checksum::Partial { start: 34, offset: 6 });
    assert_eq!(inner.offload.check(&inner.headers, inner.len()), Ok(()));
}

/// Without help from the kernel datagrams come each in a room of its own, and are merged all the same.
#[test]
fn datagrams_with_gaps_between_them_become_one() {
    let frame = |length| datagram(ALICE, BOB, 7, &vec![1; length]);
    let stranger = packet(&datagram(ALICE, BOB, 7, &[1; 10]));
    let datagrams = [packet(&frame(10)), packet(&frame(10)), stranger, packet(&frame(10)), packet(&frame(4))];
    let mut buffer = vec![0; 5 * 100];
    let mut received = Vec::new();
    for (number, datagram) in datagrams.iter().enumerate() {
        buffer[number * 100..][..datagram.len()].copy_from_slice(datagram);
        received.push((if number == 2 { vtep(9) } else { vtep(2) }, datagram.len()));
    }
    let mut tunnels = tunnels(settings(vtep(1)));
    let mut decapsulator = Decapsulator::new();
    decapsulator.open_each(&mut tunnels, &received, 100, &mut buffer, NOW);
    let pieces: Vec<Vec<_>> = decapsulator.inners().iter().map(|inner| inner.pieces().collect()).collect();
    assert_eq!(pieces, [[8..60, 150..160], [308..360, 450..454]]);
    assert_eq!(decapsulator.dropped(), [(Some(vni()), DropReason::TunnelUnknownVtep)]);
}

/// Lengths that the buffer has no room for, as of a datagram that was cut, lead nowhere else.
#[test]
fn lengths_beyond_the_room_are_cut() {
    let frame = packet(&datagram(ALICE, BOB, 7, &[1; 10]));
    let mut tunnels = tunnels(settings(vtep(1)));
    let mut decapsulator = Decapsulator::new();
    let received = [(vtep(2), 1000), (vtep(2), 60), (vtep(2), 60)];
    decapsulator.open_each(&mut tunnels, &received, 60, &mut [&frame[..], &frame].concat(), NOW);
    assert_eq!(decapsulator.inners().len(), 1);
    assert_eq!(decapsulator.dropped(), [(None, DropReason::TunnelMalformed)]);
}
