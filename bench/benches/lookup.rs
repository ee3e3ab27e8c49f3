//! Sorting a burst of 64 small frames: parse, admit, learn, look up. Time per burst.
//!
//! With one destination tier 1 decides; with one destination a frame every frame goes through tier 2.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vswitch_bench::classes::Class;
use vswitch_engine::{Limits, Network, Port, Switch, Verdicts};
use vswitch_frame::{Frame, GroupId, Instant, Mac, NetworkId, Pool, PortId};

const BURST: usize = 64;
const FROM: PortId = PortId(0);
const TO: PortId = PortId(1);

/// A switch of two ports, behind the second of which there are `addresses`.
fn switch(addresses: u32) -> Switch {
    let limits = Limits { addresses_per_port: 1 << 17, addresses_total: 1 << 18, ..Limits::default() };
    let mut switch = Switch::new(limits, 7);
    let network = NetworkId(0);
    switch.add_network(network, Network::default()).expect("network");
    for (id, addresses) in [(FROM, vec![]), (TO, (0..addresses).map(mac).collect())] {
        let port = Port { network, group: GroupId::own(id), mtu: 1500, addresses, ..Port::default() };
        switch.add_port(id, port).expect("port");
    }
    switch
}

fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([0x02, 0x10, a, b, c, d])
}

fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(BURST as u64));
    let mut pool = Pool::new(BURST);
    for addresses in [64, 4096, 65_536] {
        let mut switch = switch(addresses);
        for (name, destinations) in [("one destination", 1), ("64 destinations", BURST)] {
            let mut burst: Vec<Frame> = (0..BURST)
                .map(|number| {
                    let mut frame = Class::SmallUdp4.frame(&mut pool, 0, 0).expect("room");
                    let stride = addresses as usize / BURST;
                    let address = u32::try_from(number % destinations * stride).expect("small");
                    frame.bytes_mut()[..6].copy_from_slice(&mac(address).0);
                    frame
                })
                .collect();
            let mut verdicts = Verdicts::default();
            group.bench_function(format!("{name} of {addresses}"), |bencher| {
                bencher.iter(|| {
                    switch.process(FROM, &mut burst, &mut verdicts, Instant::ZERO + Duration::from_secs(1));
                    burst.extend(verdicts.forward.drain(..).map(|(_, frame)| frame));
                });
            });
            assert_eq!(burst.len(), BURST, "all were forwarded");
            burst.drain(..).for_each(|frame| pool.free(frame));
        }
    }
}

criterion_group!(benches, lookup);
criterion_main!(benches);
