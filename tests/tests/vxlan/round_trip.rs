//! decapsulate(encapsulate(x)) = split(x), for bursts of several flows with everything that may happen in
//! them, over either underlay, with and without offloads.

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_tests::packets::mangled;
use vswitch_tests::tunnels::{self, vni};

/// How a burst travels, and its records: mostly ordinary frames, so that runs grow, with special ones
/// between.
fn travels() -> impl Strategy<Value = Vec<u8>> {
    let special = prop_oneof![3 => Just(0u8), 1 => 1..19u8];
    let length = prop_oneof![4 => Just(255u8), 1 => any::<u8>()];
    let record = (any::<u8>(), special, length, any::<u8>());
    let records = vec(record.prop_map(|(who, special, length, form)| [who, special, length, form]), 0..60);
    (0..128u8, records).prop_map(|(how, records)| [vec![how], records.concat()].concat())
}

/// Datagrams of one size that are nearly right, and the size.
fn buffers() -> impl Strategy<Value = Vec<u8>> {
    let datagram = (prop_oneof![9 => Just(0x08u8), 1 => any::<u8>()], mangled());
    (0..4u8, any::<bool>(), vec(datagram, 1..6)).prop_map(|(who, together, datagrams)| {
        let [_, vni @ ..] = vni().get().to_be_bytes();
        let size = datagrams[0].1.len() + 8;
        let mut bytes =
            if together { u16::try_from(size).unwrap_or(0).to_be_bytes().to_vec() } else { vec![0; 2] };
        bytes.push(who);
        for (flags, mut frame) in datagrams {
            frame.resize(size - 8, 0);
            bytes.extend([&[flags, 0, 0, 0][..], &vni, &[0], &frame].concat());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_burst_arrives_as_it_was_sent(data in travels()) {
        tunnels::round_trip(&data);
    }

    #[test]
    fn every_datagram_has_a_fate(data in buffers()) {
        tunnels::datagrams(&data);
    }

    #[test]
    fn noise_does_no_harm(noise in vec(any::<u8>(), 0..300)) {
        tunnels::datagrams(&noise);
        tunnels::round_trip(&noise);
    }
}
