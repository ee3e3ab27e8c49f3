//! Any bytes: no panic, every frame has a fate, and what the gateway says is well-formed.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use smoltcp::wire::{ArpOperation, Icmpv6Repr, NdiscRepr};

use super::craft::{self, Link};
use super::*;

const TO_GATEWAY: Link = Link { source: Mac([2, 0, 0, 0, 0, 5]), target: Mac([2, 0xff, 0, 0, 0, 0]) };

/// Frames of which each part is looked at by somebody.
fn seeds() -> Vec<Vec<u8>> {
    let IpAddr::V6(target_addr) = ip("fd01::1") else { panic!("IPv6") };
    let solicit = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr: None });
    let routers = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None });
    let mut discover = vec![1, 1, 6, 0];
    discover.extend([0; 232]);
    discover.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 61, 4, 1, 2, 3, 4, 50, 4, 10, 1, 0, 5, 255]);
    let none = (Mac::ZERO, "10.1.0.1");
    vec![
        craft::arp(TO_GATEWAY, ArpOperation::Request, (mac(ALICE), "10.1.0.5"), none),
        craft::ping(TO_GATEWAY, "10.1.0.5", "10.1.0.1", 64),
        craft::ping(TO_GATEWAY, "10.1.0.5", "10.2.0.3", 64),
        craft::ping(TO_GATEWAY, "10.1.0.5", "192.0.2.1", 64),
        craft::ping(TO_GATEWAY, "fd01::5", "fd01::1", 64),
        craft::ping(TO_GATEWAY, "fd01::5", "fd02::3", 64),
        craft::ping(TO_GATEWAY, "fd01::5", "2001:db8::1", 1),
        craft::icmpv6(TO_GATEWAY, ip("fd01::5"), ip("fd01::1"), 255, &solicit),
        craft::icmpv6(TO_GATEWAY, ip("fe80::5"), ip("ff02::2"), 255, &routers),
        craft::udp(TO_GATEWAY, ("0.0.0.0", 68), ("255.255.255.255", 67), &discover),
        craft::udp(TO_GATEWAY, ("10.1.0.5", 5), ("10.1.0.1", 53), b"names"),
    ]
}

/// Bytes that are changed, and where the frame ends.
type Damage = (prop::sample::Index, Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>);

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<prop::sample::Index>;
    (place(), vec((place(), any::<u8>()), 0..4), prop::option::weighted(0.3, place()))
}

fn damaged((which, changes, end): Damage) -> Vec<u8> {
    let mut frame = which.get(&seeds()).clone();
    for (at, value) in changes {
        // The target address stays, so that the gateway has to do with it.
        let at = 6 + at.index(frame.len() - 6);
        frame[at] = value;
    }
    if let Some(end) = end {
        frame.truncate(6 + end.index(frame.len() - 6));
    }
    frame
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_have_a_fate(
        frames in vec(damage(), 1..20),
        raw in vec(any::<u8>(), 0..200),
        host in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        if host {
            bench.plug_host();
        }
        for frame in frames.into_iter().map(damaged) {
            bench.send(ALICE, &frame);
        }
        let mut behind_addresses = [TO_GATEWAY.target.0, TO_GATEWAY.source.0].concat();
        behind_addresses.extend(raw);
        bench.send(ALICE, &behind_addresses);
    }
}
