//! Coalescing a burst of 64 frames. Time per burst, filling the frames not counted.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vswitch_bench::classes::Class;
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::{Accepts, Frame, Pool};
use vswitch_sys::clock;

const BURST: u32 = 64;

fn coalesce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Elements(u64::from(BURST)));
    let mut pool = Pool::new(BURST as usize);
    let mut coalescer = Coalescer::new(7);
    for class in [Class::SmallUdp4, Class::SmallUdp6, Class::Tcp4, Class::Tcp6] {
        for flows in [1, 8, 64] {
            group.bench_function(format!("{class:?}/{flows} flows"), |bencher| {
                bencher.iter_custom(|bursts| {
                    (0..bursts).map(|_| one(&mut coalescer, &mut pool, class, flows)).sum()
                });
            });
        }
    }
}

fn one(coalescer: &mut Coalescer, pool: &mut Pool, class: Class, flows: u16) -> Duration {
    let mut frames: Vec<Frame> = (0..BURST)
        .zip((0..flows).cycle())
        .map(|(number, flow)| class.frame(pool, flow, number / u32::from(flows)).expect("room"))
        .collect();
    let from = clock::now();
    coalescer.coalesce(&mut frames, Accepts::ALL, pool);
    let taken = clock::now().since(from);
    // A TCP super-frame of 1448-byte segments holds 45 of them at most.
    let most = if flows == 1 { 2 } else { usize::from(flows) };
    assert!(frames.len() <= most, "{class:?}: {} frames left of {flows} flows", frames.len());
    frames.drain(..).for_each(|frame| pool.free(frame));
    taken
}

criterion_group!(benches, coalesce);
criterion_main!(benches);
