//! Packet-throughput benchmarks.

fn main() {}
