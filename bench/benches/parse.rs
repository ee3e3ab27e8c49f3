//! Parsing headers, a class of frame at a time.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use vswitch_bench::classes::Class;
use vswitch_frame::headers::Headers;

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for class in Class::ALL {
        let bytes = class.bytes(0, 0);
        group.bench_function(format!("{class:?}"), |bencher| {
            bencher.iter(|| Headers::parse(black_box(&bytes)));
        });
    }
}

criterion_group!(benches, parse);
criterion_main!(benches);
