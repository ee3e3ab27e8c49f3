//! The vectorised checksum against the literal loop of RFC 1071 and against pnet's.

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::Headers;
use vswitch_frame::checksum::{Sum, pseudo_header};
use vswitch_tests::packets::{packets, rfc1071};

proptest! {
    #[test]
    fn sums_are_those_of_the_literal_loop(bytes in vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(Sum::ZERO.add_bytes(&bytes).checksum(), rfc1071(&bytes));
    }

    #[test]
    fn sums_are_those_of_pnet(bytes in vec(any::<u8>(), 2..2000)) {
        let even = &bytes[..bytes.len() / 2 * 2];
        prop_assert_eq!(Sum::ZERO.add_bytes(even).checksum(), pnet::packet::util::checksum(even, usize::MAX));
    }

    #[test]
    fn pieces_add_up(bytes in vec(any::<u8>(), 0..500), cut in any::<prop::sample::Index>()) {
        let at = cut.index(bytes.len() / 2 + 1) * 2;
        let (one, other) = bytes.split_at(at.min(bytes.len()));
        let pieces = Sum::ZERO.add_bytes(one).add_bytes(other);
        prop_assert_eq!(pieces.checksum(), rfc1071(&bytes));
    }

    #[test]
    fn right_transport_checksums_sum_to_zero(packet in packets()) {
        prop_assume!(packet.fragment.is_none());
        let (bytes, layout) = (packet.bytes(), packet.layout());
        let headers = Headers::parse(&bytes).expect("a packet by the book");
        let segment = &bytes[layout.transport..layout.end];
        let sum = pseudo_header(&bytes, &headers, segment.len()).add_bytes(segment);
        prop_assert_eq!(sum.checksum(), 0);
    }
}

#[test]
fn the_longest_frame_does_not_overflow() {
    let bytes = vec![0xff; 65_535];
    assert_eq!(Sum::ZERO.add_bytes(&bytes).checksum(), rfc1071(&bytes));
}
