//! Any bytes as datagrams that came to the tunnels' port.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::tunnels::datagrams(data));
