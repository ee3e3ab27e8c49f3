//! The Internet checksum over a header, a small datagram, a segment and a super-frame.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vswitch_frame::checksum::Sum;

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for length in [20, 64, 1448, 65_535] {
        let bytes: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[0]).collect();
        group.throughput(Throughput::Bytes(u64::from(length)));
        group.bench_function(length.to_string(), |bencher| {
            bencher.iter(|| Sum::ZERO.add_bytes(black_box(&bytes)).checksum());
        });
    }
}

criterion_group!(benches, checksum);
criterion_main!(benches);
