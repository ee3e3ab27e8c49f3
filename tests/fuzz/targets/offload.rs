//! Any bytes as a virtio-net header and a frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::fuzz::offload(data));
