//! Router advertisements, asked for and not.

use std::time::Duration;

use smoltcp::wire::{
    Icmpv6Repr, NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags, RawHardwareAddress,
};
use vswitch_frame::DropReason;

use super::craft::{self, Link};
use super::*;

const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const ALL_ROUTERS: Mac = Mac([0x33, 0x33, 0, 0, 0, 2]);
const LINK_LOCAL: &str = "fe80::ff:ff:fe00:0";

/// The red router's advertisement; `secs` is how long it leads further.
fn red_router(secs: u64) -> Icmpv6Repr<'static> {
    let IpAddr::V6(prefix) = ip("fd01::") else { panic!("IPv6") };
    let forever = smoltcp::time::Duration::from_secs(u64::from(u32::MAX));
    let zero = smoltcp::time::Duration::ZERO;
    Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: smoltcp::time::Duration::from_secs(secs),
        reachable_time: zero,
        retrans_time: zero,
        lladdr: Some(RawHardwareAddress::from_bytes(&gateway_mac(RED).0)),
        mtu: Some(u32::from(MTU)),
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: 64,
            flags: NdiscPrefixInfoFlags::ON_LINK,
            valid_lifetime: forever,
            preferred_lifetime: forever,
            prefix,
        }),
    })
}

fn solicitation(source: &str) -> Vec<u8> {
    let link = Link { source: mac(ALICE), target: ALL_ROUTERS };
    let solicit = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None });
    craft::icmpv6(link, ip(source), ip("ff02::2"), 255, &solicit)
}

#[test]
fn a_solicitation_is_answered() {
    for internal in [false, true] {
        let mut bench = Bench::with(|network| network.internal = internal);
        for (source, target) in [("fe80::1:1", "fe80::1:1"), ("::", "ff02::1")] {
            let answer = bench.send(ALICE, &solicitation(source)).only(ALICE);
            let (link, packet, message) = craft::read_ip(&answer);
            assert_eq!(link, Link { source: gateway_mac(RED), target: mac(ALICE) });
            assert_eq!((packet.source, packet.target, packet.ttl), (ip(LINK_LOCAL), ip(target), 255));
            let lifetime = if internal { 0 } else { 1800 };
            assert_eq!(craft::read_icmpv6(&packet, message), red_router(lifetime));
        }
    }
}

#[test]
fn without_ipv6_there_is_no_router() {
    let mut bench = Bench::with(|network| network.subnets.truncate(1));
    let asked = solicitation("fe80::1:1");
    assert_eq!(bench.send(ALICE, &asked).flood, [asked]);
    assert_eq!(next_due(&mut bench), None);
}

/// The ports that get an advertisement, and for how many seconds the router leads further.
type Told = (Vec<PortId>, u64);

/// The advertisements that are due now.
fn due(bench: &mut Bench) -> Vec<Told> {
    bench.switch.poll(bench.now);
    let mut found = Vec::new();
    while let Some((frame, targets)) = bench.switch.next_advertisement(&mut bench.pool) {
        let bytes = frame.bytes().to_vec();
        bench.pool.free(frame);
        let (link, packet, message) = craft::read_ip(&bytes);
        assert_eq!((link.target, packet.target), (ALL_NODES, ip("ff02::1")));
        let Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { router_lifetime, .. }) =
            craft::read_icmpv6(&packet, message)
        else {
            panic!("{message:?}")
        };
        let mut ports: Vec<PortId> = targets.iter().map(|(port, _)| *port).collect();
        ports.sort_unstable();
        found.push((ports, router_lifetime.secs()));
    }
    found.sort_by_key(|(ports, _)| ports.clone());
    found
}

/// Lets seconds pass until advertisements are due: how many, and what is due then. `None` if that is never.
fn next_due(bench: &mut Bench) -> Option<(u64, Vec<Told>)> {
    const LONGEST_INTERVAL: u64 = 600;
    (0..=LONGEST_INTERVAL).find_map(|waited| {
        if waited > 0 {
            bench.now = bench.now + Duration::from_secs(1);
        }
        let found = due(bench);
        (!found.is_empty()).then_some((waited, found))
    })
}

#[test]
fn everybody_but_the_host_is_told_from_time_to_time() {
    let mut bench = Bench::new();
    bench.plug_host();
    let elsewhere = Endpoint { gateways: Vec::new(), ..Endpoint::default() };
    assert!(bench.switch.set_station(BOB, Station::Container(elsewhere)));
    let everybody = vec![(vec![BOB], 0), (vec![CAROL], 1800), (vec![ALICE], 1800)];
    for round in 0..10 {
        let (waited, told) = next_due(&mut bench).expect("an advertisement");
        match round {
            0 => assert_eq!(waited, 0),
            1 | 2 => assert_eq!(waited, 16),
            _ => assert!(waited > 0),
        }
        assert!(told.iter().all(|one| everybody.contains(one)), "{told:?}");
        if round < 3 {
            assert_eq!(told, everybody);
        }
        assert!(due(&mut bench).is_empty(), "once is enough");
    }
    bench.switch.remove_network(RED);
    bench.switch.remove_network(BLUE);
    assert_eq!(next_due(&mut bench), None);
    assert_eq!(bench.switch.poll_at(), None);
}

#[test]
fn a_default_route_that_leads_elsewhere_now_is_withdrawn_at_once() {
    let mut bench = Bench::new();
    bench.now = Instant::ZERO + Duration::from_secs(1);
    assert_eq!(due(&mut bench), [(vec![BOB, ALICE], 1800), (vec![CAROL], 1800)]);
    let Station::Container(alice) = container(RED, ALICE).station else { panic!("a container") };
    assert!(bench.switch.set_station(ALICE, Station::Container(Endpoint { gateways: Vec::new(), ..alice })));
    assert_eq!(bench.switch.poll_at(), Some(Instant::ZERO));
    assert_eq!(due(&mut bench), [(vec![BOB], 1800), (vec![ALICE], 0)]);
}

#[test]
fn a_solicitation_that_crossed_a_router_is_dropped() {
    let mut bench = Bench::new();
    let mut frame = solicitation("fe80::1:1");
    frame[21] = 254;
    assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::MalformedIcmp, ALICE));
}
