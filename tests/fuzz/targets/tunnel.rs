//! Any bytes as a burst of several flows that leaves one host and arrives at another.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::tunnels::round_trip(data));
