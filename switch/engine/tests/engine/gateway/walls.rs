//! The walls hold whatever is sent: no frame passes from a closed network to another, nor between ports of a
//! group.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use vswitch_engine::{Hop, Route, Uplink, WayOut};

use super::craft::{self, Link};
use super::*;

/// Alice and Bob, who are kept apart from each other, and the host, on the red network; Carol on the blue
/// one. One of the networks is internal, the other open.
fn bench(internal: NetworkId) -> Bench {
    let mut bench = Bench::with(|network| {
        let is_red = network.gateway.as_ref().is_some_and(|own| own.mac == gateway_mac(RED));
        (network.internal, network.icc) = (is_red == (internal == RED), false);
    });
    let interface = "eth0".to_owned();
    let addresses = vec![ip("192.0.2.9")];
    let uplink = Uplink { port: PortId(4095), interface: interface.clone(), addresses };
    let hop = Hop::Router(ip("192.0.2.1"));
    let route =
        |net: &str| Route { destination: net.parse().expect("a net"), interface: interface.clone(), hop };
    let routes = ["0.0.0.0/0", "::/0"].map(route).to_vec();
    bench.switch.set_way_out(WayOut { uplinks: vec![uplink], routes });
    bench.plug_host();
    for id in [ALICE, BOB] {
        assert!(bench.switch.remove_port(id));
        bench.port(id, Port { group: GroupId::containers_of(RED), ..container(RED, id) });
    }
    bench
}

fn target_mac() -> impl Strategy<Value = Mac> {
    let groups = [Mac::BROADCAST, Mac([0x33, 0x33, 0, 0, 0, 1]), Mac([1, 0, 0x5e, 1, 1, 1])];
    let stations = [mac(BOB), mac(CAROL), mac(HOST), gateway_mac(RED), gateway_mac(BLUE), mac(PortId(77))];
    select([&groups[..], &stations].concat())
}

/// Addresses of one family: ours, of others on both networks, of gateways, and beyond.
fn ends() -> impl Strategy<Value = (&'static str, &'static str)> {
    const V4: [&str; 7] =
        ["10.1.0.5", "10.1.0.2", "10.2.0.3", "10.1.0.1", "10.2.0.1", "198.51.100.1", "239.1.1.1"];
    const V6: [&str; 7] = ["fd01::5", "fd01::2", "fd02::3", "fd01::1", "fd02::1", "2001:db8::1", "ff0e::1"];
    prop_oneof![(select(&V4[..]), select(&V4[..])), (select(&V6[..]), select(&V6[..]))]
}

/// A datagram or an echo request of Alice's, to any of these by way of any of those, behind some tags.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let ports = select(vec![7u16, 53, 67, 80]);
    let tags = prop_oneof![2 => Just(0), 1 => 1..4usize];
    let all = (target_mac(), ends(), ports, any::<bool>(), 0..3u8, tags);
    all.prop_map(|(target, (from, to), port, ping, ttl, tags)| {
        let link = Link { source: mac(ALICE), target };
        let mut frame = if ping {
            craft::ping(link, from, to, ttl)
        } else {
            craft::udp(link, (from, 68), (to, port), b"hello")
        };
        frame.splice(12..12, [0x81, 0, 0, 0].repeat(tags));
        frame
    })
}

/// Whether the host may see a frame of Alice's, whose network is internal or not.
fn is_hosts(bytes: &[u8], internal: bool) -> bool {
    let (target, kind) = (Mac(bytes[..6].try_into().expect("a MAC")), [bytes[12], bytes[13]]);
    let (from, to) = match kind {
        [8, 0] => {
            (IpAddr::from(<[u8; 4]>::try_from(&bytes[26..30]).expect("it fits")), bytes[30..34].to_vec())
        }
        [0x86, 0xdd] => {
            (IpAddr::from(<[u8; 16]>::try_from(&bytes[22..38]).expect("it fits")), bytes[38..54].to_vec())
        }
        _ => return false,
    };
    let is = |text: &str| match ip(text) {
        IpAddr::V4(address) => to == address.octets(),
        IpAddr::V6(address) => to == address.octets(),
    };
    let mine = ["10.1.0.5", "10.1.0.2", "fd01::5", "fd01::2"].map(ip).contains(&from);
    let own = is("10.1.0.1") || is("fd01::1");
    let other = is("10.2.0.1") || is("fd02::1");
    if target.is_multicast() {
        return mine && (is("239.1.1.1") || is("ff0e::1"));
    }
    mine && target == gateway_mac(RED) && (own || other && !internal)
}

/// Sends a burst of Alice's. All ports it reaches are hers or the host's, and this gets only what it may.
/// Answers how many packets leave.
fn send(bench: &mut Bench, frames: &[Vec<u8>]) -> usize {
    let Bench { switch, pool, verdicts, now, .. } = bench;
    let mut burst: Vec<Frame> = Vec::new();
    for bytes in frames {
        let mut frame = pool.take().expect("a slot");
        frame.fill(bytes);
        burst.push(frame);
    }
    switch.process(ALICE, &mut burst, verdicts, *now);
    switch.serve(ALICE, verdicts, pool, *now);
    let internal = switch.network(RED).expect("it is there").internal;
    let check = |port, frame: &Frame| {
        assert!([ALICE, HOST].contains(&port), "{port:?}");
        assert!(port != HOST || is_hosts(frame.bytes(), internal), "{:02x?}", frame.bytes());
    };
    verdicts.forward.iter().for_each(|(port, frame)| check(*port, frame));
    for frame in &verdicts.flood {
        switch.flood_targets(ALICE).for_each(|(port, _)| check(port, frame));
    }
    for (audience, frame) in &verdicts.multicast {
        switch.multicast_targets(ALICE, *audience).for_each(|(port, _)| check(port, frame));
    }
    verdicts.multicast.drain(..).for_each(|(_, frame)| pool.free(frame));
    bench.drain().outbound.len()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_frame_passes_a_wall(bursts in vec(vec(frame(), 1..12), 1..4), internal in select(vec![RED, BLUE])) {
        let mut bench = bench(internal);
        for burst in bursts {
            let leaving = send(&mut bench, &burst);
            assert!(leaving == 0 || internal != RED, "{leaving} packets leave an internal network");
        }
    }

    #[test]
    fn no_translated_frame_passes_a_wall(ends in ends(), network in select(vec![None, Some(BLUE)])) {
        let mut bench = bench(RED);
        let mut frame = bench.pool.take().expect("a slot");
        frame.fill(&craft::ping(Link { source: mac(ALICE), target: gateway_mac(RED) }, ends.0, ends.1, 64));
        frame.parse().expect("well-formed");
        let Bench { switch, pool, verdicts, now, .. } = &mut bench;
        switch.enter(ALICE, network, frame, verdicts, pool, *now);
        assert_eq!(bench.drain().forward, []);
    }
}

#[test]
fn only_a_published_port_leads_between_ports_of_a_group() {
    let mut bench = bench(RED);
    let packet =
        |target| craft::udp(Link { source: mac(ALICE), target }, ("10.1.0.5", 7), ("10.1.0.2", 80), b"hello");
    for target in [mac(BOB), gateway_mac(RED)] {
        assert_eq!(bench.send(ALICE, &packet(target)), dropped(DropReason::Isolated, ALICE));
    }
    for (network, expected) in [(None, None), (Some(RED), Some(BOB))] {
        let mut frame = bench.pool.take().expect("a slot");
        frame.fill(&packet(gateway_mac(RED)));
        frame.parse().expect("well-formed");
        let Bench { switch, pool, verdicts, now, .. } = &mut bench;
        switch.enter(ALICE, network, frame, verdicts, pool, *now);
        let reached = bench.drain().forward.first().map(|(port, _)| *port);
        assert_eq!(reached, expected, "translated to {network:?}");
    }
}
