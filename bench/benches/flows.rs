//! Translating a burst of 64 small datagrams, each of another flow, while so many flows are held. Time per
//! burst.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use vswitch_bench::classes::Class;
use vswitch_frame::{Frame, Instant, NetworkId, Pool, PortId};
use vswitch_nat::{Inside, Leaving, Limits, Nat, Protocol, Realm, Uplink, Verdicts};

const BURST: usize = 64;
/// Addresses of the host: each has ports for as many mappings.
const HOSTS: u8 = 20;
const NETWORK: NetworkId = NetworkId(1);
const NOW: Instant = Instant::from_nanos(1 << 40);
/// Where the source address is in a frame of IPv4.
const SOURCE: usize = 26;

/// Makes `frame` the datagram that the container of this number sends, from an address of its own.
fn fill(frame: &mut Frame, template: &[u8], number: u32) {
    let [_, high, middle, low] = number.to_be_bytes();
    let mut bytes = template.to_vec();
    bytes[SOURCE..SOURCE + 4].copy_from_slice(&[10, high, middle, low]);
    // The header's checksum; the UDP checksum is left out.
    bytes[24..26].fill(0);
    bytes[40..42].fill(0);
    let words = bytes[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let check = u16::try_from(!folded & 0xffff).expect("16 bits");
    bytes[24..26].copy_from_slice(&check.to_be_bytes());
    frame.fill(&bytes);
    frame.parse().expect("a good frame");
}

fn sender(number: u32) -> Inside {
    let host = u8::try_from(number % u32::from(HOSTS)).expect("few") + 1;
    let address = Some(Ipv4Addr::new(192, 0, 2, host).into());
    Inside { port: PortId(1), network: NETWORK, sandbox: 1, leaving: Leaving::Masqueraded, address }
}

/// A translator with so many flows, each with a mapping of its own.
fn translator(flows: u32, pool: &mut Pool, template: &[u8]) -> Nat {
    let limits = Limits { flows_per_sandbox: u32::MAX, claims: usize::MAX, ..Limits::default() };
    let mut nat = Nat::new(limits, 7);
    let host = (1..=HOSTS).map(|last| Ipv4Addr::new(192, 0, 2, last).into()).collect::<Vec<_>>();
    nat.set_uplink(Uplink { host: host.clone(), mtu: 1500, ..Uplink::default() });
    for address in host {
        nat.grant(Protocol::Udp, address, 1..=u16::MAX);
    }
    let mut verdicts = Verdicts::default();
    for number in 0..flows {
        let mut frame = pool.take().expect("a slot");
        fill(&mut frame, template, number);
        nat.outbound(frame, sender(number), NOW, &mut verdicts);
        verdicts.outside.drain(..).for_each(|(_, frame)| pool.free(frame));
    }
    assert_eq!(nat.stats().flows, flows as usize);
    println!("{flows} flows take {} bytes each", nat.bytes() / flows as usize);
    nat
}

fn flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flows");
    group.throughput(Throughput::Elements(BURST as u64)).measurement_time(Duration::from_secs(3));
    let template = Class::SmallUdp4.bytes(0, 0);
    let mut pool = Pool::new(BURST);
    for held in [1000, 200_000, 1_000_000] {
        let mut nat = translator(held, &mut pool, &template);
        let mut free: Vec<Frame> = std::iter::from_fn(|| pool.take()).collect();
        let done = RefCell::new((std::mem::take(&mut free), Verdicts::default()));
        let mut random: u32 = 0;
        // Flows that were not used for long, as most of so many are.
        let mut burst = || {
            let (free, verdicts) = &mut *done.borrow_mut();
            free.extend(verdicts.outside.drain(..).map(|(_, frame)| frame));
            let next = |mut frame: Frame| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let number = (random >> 8) % held;
                fill(&mut frame, &template, number);
                (number, frame)
            };
            free.drain(..).map(next).collect::<Vec<_>>()
        };
        let mut translate = |burst: Vec<(u32, Frame)>| {
            let (_, verdicts) = &mut *done.borrow_mut();
            nat.prepare(burst.iter().map(|(_, frame)| frame), Realm::network(NETWORK));
            for (number, frame) in burst {
                nat.outbound(frame, sender(number), NOW, verdicts);
            }
        };
        group.bench_function(format!("a burst of 64 among {held}"), |bencher| {
            bencher.iter_batched(&mut burst, &mut translate, BatchSize::PerIteration);
        });
        let (free, verdicts) = done.into_inner();
        let frames = free.into_iter().chain(verdicts.outside.into_iter().map(|(_, frame)| frame));
        frames.for_each(|frame| pool.free(frame));
    }
}

criterion_group!(benches, flows);
criterion_main!(benches);
