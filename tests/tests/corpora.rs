//! The fuzzers' corpora, replayed: what once was found stays mended.

#![forbid(unsafe_code)]

use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_tests::packets::mangled;
use vswitch_tests::{attacker, fuzz, repository, translation, tunnels};

fn replay(corpus: &str, target: fn(&[u8])) {
    let folder = repository::root().join("tests/fuzz/corpus").join(corpus);
    let files: Vec<_> =
        fs::read_dir(folder).expect("a corpus").map(|file| file.expect("a file").path()).collect();
    assert!(!files.is_empty(), "the corpus of {corpus} is empty");
    for file in files {
        println!("{}", file.display());
        target(&fs::read(file).expect("readable"));
    }
}

#[test]
fn headers() {
    replay("headers", fuzz::headers);
}

#[test]
fn offload() {
    replay("offload", fuzz::offload);
}

#[test]
fn coalesce() {
    replay("coalesce", fuzz::coalesce);
}

#[test]
fn tunnel() {
    replay("tunnel", tunnels::round_trip);
}

#[test]
fn datagrams() {
    replay("datagrams", tunnels::datagrams);
}

#[test]
fn names() {
    replay("names", fuzz::names);
}

#[test]
fn translation() {
    replay("translation", translation::translate);
}

#[test]
fn walls() {
    replay("walls", attacker::walls);
}

/// A virtio-net header that is nearly right for a TCP or UDP frame.
fn vnet_headers() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(0u8), Just(1), Just(4), Just(5), any::<u8>()];
    let (size, start) = (prop_oneof![0..1500u16, any::<u16>()], prop_oneof![14..80u16, any::<u16>()]);
    let offset = prop_oneof![Just(6u16), Just(16), any::<u16>()];
    (0..4u8, kind, any::<u16>(), size, start, offset).prop_map(
        |(flags, kind, length, size, start, offset)| {
            let words = [length, size, start, offset].map(u16::to_ne_bytes).concat();
            [vec![flags, kind], words].concat()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn forged_offloads_do_no_harm(header in vnet_headers(), frame in mangled()) {
        fuzz::offload(&[header, frame].concat());
    }

    #[test]
    fn noise_does_no_harm(noise in vec(any::<u8>(), 0..200)) {
        fuzz::headers(&noise);
        fuzz::offload(&noise);
        fuzz::coalesce(&noise);
        fuzz::names(&noise);
        translation::translate(&noise);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_walls_hold(noise in vec(any::<u8>(), 0..4000)) {
        attacker::walls(&noise);
    }
}
