//! Any bytes as an attack on a house with every kind of network.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::attacker::walls(data));
