//! Any bytes as frames from inside and outside to be translated.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::translation::translate(data));
