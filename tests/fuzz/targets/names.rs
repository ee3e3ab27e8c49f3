//! Any bytes as a question for a name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::fuzz::names(data));
