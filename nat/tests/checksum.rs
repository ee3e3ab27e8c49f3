//! A checksum changed with its fields is the checksum computed anew, over all that surrounds them.

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::checksum::Sum;
use vswitch_nat::checksum::Change;

/// A field to be rewritten, at a byte offset from the start of what is summed.
#[derive(Clone, Copy, Debug)]
enum Rewrite {
    Field16(usize, u16),
    Field32(usize, u32),
    Field128(usize, u128),
}

/// Even offsets such that the field is within the first 128 bytes.
fn rewrite() -> impl Strategy<Value = Rewrite> {
    prop_oneof![
        (0..64usize, edgy()).prop_map(|(word, new)| Rewrite::Field16(word * 2, new)),
        (0..63usize, any::<u32>()).prop_map(|(word, new)| Rewrite::Field32(word * 2, new)),
        (0..57usize, any::<u128>()).prop_map(|(word, new)| Rewrite::Field128(word * 2, new)),
    ]
}

/// Words that one's complement treats specially come up often.
fn edgy() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), Just(0), Just(0xffff), Just(0xfffe), Just(1)]
}

/// At least 128 bytes, of even or odd number, of which the first 128 may be rewritten and the one behind
/// them is not zero, like the protocol number in a pseudo-header.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let bulk = prop_oneof![vec(any::<u8>(), 128), Just(vec![0; 128]), Just(vec![0xff; 128])];
    (bulk, 1u8.., vec(any::<u8>(), 0..40))
        .prop_map(|(bulk, protocol, rest)| [bulk, vec![protocol], rest].concat())
}

fn at<const N: usize>(packet: &[u8], offset: usize) -> [u8; N] {
    packet[offset..offset + N].try_into().expect("a field within the packet")
}

fn carry_out(rewrites: &[Rewrite], packet: &mut [u8]) -> Change {
    rewrites.iter().fold(Change::NONE, |change, &rewrite| match rewrite {
        Rewrite::Field16(offset, new) => {
            let old = u16::from_be_bytes(at(packet, offset));
            packet[offset..offset + 2].copy_from_slice(&new.to_be_bytes());
            change.field_16(old, new)
        }
        Rewrite::Field32(offset, new) => {
            let old = u32::from_be_bytes(at(packet, offset));
            packet[offset..offset + 4].copy_from_slice(&new.to_be_bytes());
            change.field_32(old, new)
        }
        Rewrite::Field128(offset, new) => {
            let old = u128::from_be_bytes(at(packet, offset));
            packet[offset..offset + 16].copy_from_slice(&new.to_be_bytes());
            change.field_128(old, new)
        }
    })
}

fn checksum(packet: &[u8]) -> u16 {
    Sum::ZERO.add_bytes(packet).checksum()
}

/// As RFC 768 has it sent.
fn udp_checksum(packet: &[u8]) -> u16 {
    match checksum(packet) {
        0 => 0xffff,
        computed => computed,
    }
}

proptest! {
    #[test]
    fn is_the_checksum_computed_anew(mut packet in packet(), rewrites in vec(rewrite(), 0..6)) {
        let (plain, udp, sum) = (checksum(&packet), udp_checksum(&packet), !checksum(&packet));
        let change = carry_out(&rewrites, &mut packet);
        prop_assert_eq!(change.apply(plain), checksum(&packet));
        prop_assert_eq!(change.apply_udp(udp), udp_checksum(&packet));
        prop_assert_eq!(change.apply_partial(sum), !checksum(&packet));
        prop_assert_eq!(change.apply_udp(0), 0, "no checksum stays no checksum");
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(mut packet in packet(), rewrites in vec(rewrite(), 0..6), wrong: u16) {
        // 0xffff and 0 are the two forms of one value.
        prop_assume!(wrong % 0xffff != checksum(&packet) % 0xffff);
        let change = carry_out(&rewrites, &mut packet);
        prop_assert_ne!(change.apply(wrong) % 0xffff, checksum(&packet) % 0xffff);
        if wrong != 0 {
            prop_assert_ne!(change.apply_udp(wrong) % 0xffff, checksum(&packet) % 0xffff);
        }
    }
}

/// The example that made RFC 1624 correct RFC 1141 (section 4): the sum becomes zero.
#[test]
fn example_of_rfc_1624() {
    let change = Change::NONE.field_16(0x5555, 0x3285);
    assert_eq!(change.apply(0xdd2f), 0x0000);
    assert_eq!(change.apply_udp(0xdd2f), 0xffff);
}
