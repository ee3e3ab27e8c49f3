//! Splitting a TCP super-frame of 44 segments, for a receiver that takes nothing and for one that takes
//! partial checksums. Time per super-frame.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vswitch_bench::classes::Class;
use vswitch_frame::split::{PIECES_MAX, Splitter};
use vswitch_frame::{Accepts, Pool};

fn split(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("split");
    let mut pool = Pool::new(PIECES_MAX + 1);
    let frame = Class::SuperTcp4.frame(&mut pool, 0, 0).expect("room");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    let partial = Accepts { checksum: true, ..Accepts::NONE };
    for (name, accepts) in [("finished checksums", Accepts::NONE), ("partial checksums", partial)] {
        let mut pieces = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut splitter = Splitter::new(&frame, accepts);
                while splitter.next_batch(&mut pool, &mut pieces).expect("room") {}
                assert_eq!(pieces.len(), 44);
                pieces.drain(..).for_each(|piece| pool.free(piece));
            });
        });
    }
}

criterion_group!(benches, split);
criterion_main!(benches);
