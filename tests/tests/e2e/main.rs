//! End-to-end tests: real containers, real TCP and UDP stacks, a real switch in a host namespace of its own.
//!
//! Each test has its own [`World`](vswitch_tests::world::World), so they run in parallel and leave nothing.

#![forbid(unsafe_code)]

mod harness;
