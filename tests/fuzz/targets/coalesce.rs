//! Any bytes as a burst of several flows.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::fuzz::coalesce(data));
