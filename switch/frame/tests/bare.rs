//! Packets of interfaces without a link layer: an Ethernet header is put in front and taken off again.

use vswitch_frame::{Checksum, Pool};

/// An IPv4 packet of UDP with a payload of four bytes, whose checksum is yet to be finished.
const PACKET: [u8; 32] = [
    0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 8, 0, 2, 10, 8, 0, 1, 0x13, 0x88, 0, 53, 0, 12, 0, 0, 1,
    2, 3, 4,
];

/// A virtio-net header that says so: flags, kind, and four numbers.
fn header(start: u16, offset: u16) -> Vec<u8> {
    let numbers = [0, 0, start, offset].map(u16::to_ne_bytes).concat();
    [&[1, 0][..], &numbers].concat()
}

#[test]
fn a_packet_becomes_a_frame_and_a_packet_again() {
    let mut pool = Pool::new(1);
    let mut frame = pool.take().expect("a slot");
    let came = [header(20, 6), PACKET.to_vec()].concat();
    frame.receive_room()[..came.len()].copy_from_slice(&came);
    frame.received_packet(came.len());
    frame.parse().expect("a good frame");
    assert_eq!(frame.bytes()[..14], [[0; 12].as_slice(), &[8, 0]].concat());
    assert_eq!(frame.bytes()[14..], PACKET);
    assert!(frame.headers.is_ipv4());
    assert_eq!(frame.offload.checksum, Checksum::Partial { start: 34, offset: 6 });
    assert_eq!(frame.packet_with_vnet_header(), came);
    pool.free(frame);
}

#[test]
fn nonsense_is_no_ip() {
    let mut pool = Pool::new(1);
    for packet in [&[][..], &[0x10, 1, 2], &[0xff; 100]] {
        let mut frame = pool.take().expect("a slot");
        let came = [&[0; 10][..], packet].concat();
        frame.receive_room()[..came.len()].copy_from_slice(&came);
        frame.received_packet(came.len());
        assert!(frame.parse().is_err() || !frame.headers.is_ip(), "{packet:?}");
        pool.free(frame);
    }
}
