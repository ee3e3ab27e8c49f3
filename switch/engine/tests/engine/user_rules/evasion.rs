//! Ways around rules that somebody has who writes frames by hand.

use vswitch_engine::Endpoint;

use super::*;
use crate::packets::ethernet;

/// Why a frame is dropped; `None` where it goes on.
fn fate(bench: &mut Bench, ingress: u16, bytes: &[u8]) -> Option<&'static str> {
    let mut frame = bench.pool.take().expect("a slot");
    frame.fill(bytes);
    let mut verdicts = Verdicts::default();
    bench.switch.process(PortId(ingress), &mut vec![frame], &mut verdicts, bench.now);
    assert_eq!(verdicts.len(), 1);
    let reason = verdicts.drop.first().map(|(reason, _, _)| reason.label());
    let dropped = verdicts.drop.drain(..).map(|(_, _, frame)| frame);
    let forwarded = verdicts.forward.drain(..).map(|(_, frame)| frame);
    dropped.chain(forwarded).chain(verdicts.flood.drain(..)).for_each(|frame| bench.pool.free(frame));
    reason
}

fn no_web(action: Action) -> Rule {
    Rule { protocol: Protocol::Tcp, target_ports: vec![80..=80], ..rule(1, action) }
}

fn no_dns() -> Rule {
    Rule { protocol: Protocol::Udp, target_ports: vec![53..=53], ..rule(1, Action::Drop) }
}

/// A fragment of IPv4: the place of its body in units of eight bytes, and whether more follow.
fn fragment(protocol: u8, id: u8, place: u8, more: bool, body: &[u8]) -> Vec<u8> {
    let mut frame = ip(a(), b(), protocol, body.to_vec(), None);
    (frame[19], frame[20], frame[21]) = (id, u8::from(more) << 5, place);
    (frame[24], frame[25]) = (0, 0);
    let sum = Sum::ZERO.add_bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The first bytes of a UDP datagram to a port.
fn datagram(port: u8) -> Vec<u8> {
    [&[0, 7, 0, port, 0, 64, 0, 0][..], &[0; 8]].concat()
}

/// A packet with so many destination options around a TCP segment to a port.
fn chain(headers: usize, port: u16) -> Vec<u8> {
    let segment = tcp((a6(), 40_000), (b6(), port), SYN).split_off(54);
    let options: Vec<u8> =
        (1..=headers).flat_map(|at| [if at == headers { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]).collect();
    ip(a6(), b6(), 60, [options, segment].concat(), None)
}

/// A TCP segment to a port behind an authentication header.
fn authenticated(v6: bool, port: u16) -> Vec<u8> {
    let (from, to) = if v6 { (a6(), b6()) } else { (a(), b()) };
    let segment = tcp((from, 40_000), (to, port), SYN).split_off(if v6 { 54 } else { 34 });
    let header = [6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
    ip(from, to, 51, [&header[..], &segment].concat(), None)
}

#[test]
fn no_number_of_tags_hides_a_packet_from_rules() {
    let mut frame = to_web(SYN);
    for tags in 0..6 {
        let mut bench = Bench::new(vec![no_web(Action::Drop)]);
        let expected = if tags <= 2 { "rule" } else { "too-many-tags" };
        assert_eq!(fate(&mut bench, 1, &frame), Some(expected), "{tags} tags");
        assert_eq!(fate(&mut Bench::new(vec![]), 1, &frame), None, "without rules {tags} tags pass");
        frame.splice(12..12, [0x81, 0, 0, 0]);
    }
}

#[test]
fn fragments_belong_to_no_flow_of_port_zero() {
    let mut bench = Bench::new(vec![no_dns()]);
    assert_eq!(fate(&mut bench, 1, &udp((a(), 0), (b(), 0))), None, "nobody forbids port zero");
    assert_eq!(fate(&mut bench, 1, &fragment(UDP, 7, 3, false, &[0; 16])), Some("rule"));
    assert_eq!(fate(&mut bench, 2, &udp((b(), 0), (a(), 0))), None);
    assert_eq!(fate(&mut bench, 1, &fragment(UDP, 7, 3, false, &[0; 16])), Some("rule"), "answered or not");
}

#[test]
fn fragments_go_the_way_of_their_first() {
    let mut bench = Bench::new(vec![no_dns()]);
    let later = |id| fragment(UDP, id, 2, false, &[0; 16]);
    assert_eq!(fate(&mut bench, 1, &fragment(UDP, 1, 0, true, &datagram(53))), Some("rule"));
    assert_eq!(fate(&mut bench, 1, &later(1)), Some("rule"));
    assert_eq!(fate(&mut bench, 1, &fragment(UDP, 2, 0, true, &datagram(54))), None);
    assert_eq!(fate(&mut bench, 1, &later(2)), None, "it is of a datagram that was accepted");
    assert_eq!(fate(&mut bench, 1, &later(3)), Some("rule"), "this one is of another");
    let mut forged = later(2);
    forged[6..12].copy_from_slice(&b().mac.0);
    forged[..6].copy_from_slice(&a().mac.0);
    assert_eq!(fate(&mut bench, 2, &forged), Some("rule"), "this one from another port");
    bench.after(6);
    assert_eq!(fate(&mut bench, 1, &later(2)), Some("rule"), "not for good");
}

#[test]
fn a_port_crowds_out_its_own_datagrams_only() {
    let mut bench = Bench::new(vec![no_dns()]);
    let first = |id| fragment(UDP, id, 0, true, &datagram(54));
    let from_b = |mut frame: Vec<u8>| {
        frame[..12].copy_from_slice(&[a().mac.0, b().mac.0].concat());
        frame
    };
    assert_eq!(fate(&mut bench, 2, &from_b(first(1))), None);
    for id in 0..33 {
        assert_eq!(fate(&mut bench, 1, &first(id)), None);
    }
    let later = |id| fragment(UDP, id, 2, false, &[0; 16]);
    let fates = [0, 1, 32].map(|id| fate(&mut bench, 1, &later(id)));
    assert_eq!(fates, [Some("rule"), None, None], "the oldest made room");
    assert_eq!(fate(&mut bench, 2, &from_b(later(1))), None);
}

#[test]
fn a_first_fragment_shows_enough_or_matches() {
    let segment = to_web(SYN).split_off(34);
    let not_web = tcp((a(), 40_000), (b(), 81), SYN).split_off(34);
    for (what, frame, expected) in [
        ("all of the header", fragment(6, 1, 0, true, &[&segment[..], &[0; 4]].concat()), Some("rule")),
        ("another port", fragment(6, 2, 0, true, &[&not_web[..], &[0; 4]].concat()), None),
        ("no flags", fragment(6, 3, 0, true, &not_web[..8]), Some("rule")),
        ("flags written over", fragment(6, 2, 1, false, &[0; 16]), Some("rule")),
        ("the end of the header written over", fragment(6, 2, 2, false, &[0; 16]), Some("rule")),
        ("what is behind", fragment(6, 2, 3, false, &[0; 16]), None),
    ] {
        let mut bench = Bench::new(vec![no_web(Action::Drop)]);
        assert_eq!(fate(&mut bench, 1, &fragment(6, 2, 0, true, &[&not_web[..], &[0; 4]].concat())), None);
        assert_eq!(fate(&mut bench, 1, &frame), expected, "{what}");
    }
}

#[test]
fn a_fragment_is_no_neighbour_discovery() {
    let mut bench = Bench::new(vec![rule(1, Action::Drop)]);
    let header = |place: u16| [&[58, 0][..], &(place << 3 | 1).to_be_bytes(), &[0, 0, 0, 1]].concat();
    for place in [0, 4] {
        let body = [header(place), vec![135; 24]].concat();
        assert_eq!(fate(&mut bench, 1, &ip(a6(), b6(), 44, body, None)), Some("rule"));
    }
    assert_eq!(fate(&mut bench, 1, &icmp(a6(), b6(), 135, &[0; 20])), None, "but this is");
}

#[test]
fn no_chain_of_headers_hides_a_packet_from_rules() {
    let accept_web = vec![no_web(Action::Accept), rule(2, Action::Drop)];
    let udp_only = Rule { protocol: Protocol::Udp, ..rule(1, Action::Drop) };
    let elsewhere = Rule { to: subnet("fd00::9/128"), ..no_web(Action::Drop) };
    for (headers, rules, expected) in [
        (8, vec![no_web(Action::Drop)], Some("rule")),
        (9, vec![no_web(Action::Drop)], Some("rule")),
        (9, vec![no_web(Action::Reject)], Some("rule")),
        (9, vec![udp_only], Some("rule")),
        (9, accept_web, Some("rule")),
        (9, vec![rule(1, Action::Accept), rule(2, Action::Drop)], None),
        (9, vec![elsewhere], None),
    ] {
        assert_eq!(
            fate(&mut Bench::new(rules.clone()), 1, &chain(headers, 80)),
            expected,
            "{headers}: {rules:?}"
        );
    }
    assert_eq!(fate(&mut Bench::new(vec![no_web(Action::Drop)]), 1, &chain(8, 81)), None);
}

#[test]
fn an_authentication_header_hides_nothing() {
    for v6 in [false, true] {
        let mut bench = Bench::new(vec![no_web(Action::Drop)]);
        assert_eq!(fate(&mut bench, 1, &authenticated(v6, 80)), Some("rule"));
        assert_eq!(fate(&mut bench, 1, &authenticated(v6, 81)), None);
    }
}

/// An ICMP error of one about the start of a packet, for another.
fn error(from: Host, to: Host, about: &[u8]) -> Vec<u8> {
    let quote = &about[14..about.len().min(14 + 48)];
    icmp(from, to, if from.ip.is_ipv4() { 3 } else { 1 }, &[&[0; 4][..], quote].concat())
}

#[test]
fn an_error_is_about_a_flow_of_its_sender() {
    let only_asked =
        vec![Rule { from: subnet("10.0.0.1/32"), ..rule(1, Action::Accept) }, rule(2, Action::Drop)];
    let mut bench = Bench::new(only_asked);
    let third = host(3, "10.0.0.3");
    let port = Port {
        network: NETWORK,
        group: GroupId::own(PortId(3)),
        mtu: 1500,
        addresses: vec![third.mac],
        station: Station::Unknown,
    };
    bench.switch.add_port(PortId(3), port).expect("new");
    let asked = udp((a(), 7), (b(), 9));
    assert_eq!(fate(&mut bench, 1, &asked), None);
    assert_eq!(fate(&mut bench, 3, &error(third, a(), &asked)), Some("rule"), "it has no part in it");
    assert_eq!(
        fate(&mut bench, 3, &error(Host { ip: b().ip, ..third }, a(), &asked)),
        Some("rule"),
        "nor so"
    );
    assert_eq!(fate(&mut bench, 2, &error(b(), third, &asked)), Some("rule"), "for somebody else");
    let answer = udp((b(), 9), (a(), 7));
    assert_eq!(fate(&mut bench, 2, &error(b(), a(), &answer)), Some("rule"), "about its own packet");
    assert_eq!(fate(&mut bench, 2, &error(b(), a(), &asked)), None, "the target says so");
}

/// A container with this address.
fn container(sandbox: u32, address: &str) -> Station {
    let addresses = vec![address.parse().expect("a net")];
    Station::Container(Endpoint { sandbox, addresses, ..Endpoint::default() })
}

/// A bench of rules that let nothing begin at 10.0.0.2, and a flow that 10.0.0.1 has begun there.
fn with_flow() -> Bench {
    let mut bench = Bench::new(vec![Rule { from: subnet("10.0.0.2/32"), ..rule(1, Action::Drop) }]);
    for (port, address) in [(1, "10.0.0.1/24"), (2, "10.0.0.2/24")] {
        assert!(bench.switch.set_station(PortId(port), container(port.into(), address)));
    }
    assert_eq!(fate(&mut bench, 1, &udp((a(), 7), (b(), 9))), None);
    assert_eq!(fate(&mut bench, 2, &udp((b(), 9), (a(), 7))), None);
    bench
}

#[test]
fn flows_end_with_their_port_on_either_side() {
    for port in [1, 2] {
        let mut bench = with_flow();
        let again = bench.switch.port(PortId(port)).expect("it is there").clone();
        assert!(bench.switch.remove_port(PortId(port)));
        bench.switch.add_port(PortId(port), again).expect("it is gone");
        assert_eq!(
            fate(&mut bench, 2, &udp((b(), 9), (a(), 7))),
            Some("rule"),
            "port {port} is another's now"
        );
    }
}

#[test]
fn flows_end_with_their_address_on_either_side() {
    for (port, address) in [(1, "10.0.0.1/24"), (2, "10.0.0.2/24")] {
        let mut bench = with_flow();
        assert!(bench.switch.set_station(PortId(port), container(port.into(), address)));
        assert_eq!(fate(&mut bench, 2, &udp((b(), 9), (a(), 7))), None, "said anew, nothing is new");
        assert!(bench.switch.set_station(PortId(port), container(port.into(), "10.0.0.77/24")));
        assert!(bench.switch.set_station(PortId(port), container(port.into(), address)));
        assert_eq!(fate(&mut bench, 2, &udp((b(), 9), (a(), 7))), Some("rule"), "{address} was another's");
    }
    let mut bench = with_flow();
    assert!(bench.switch.set_station(PortId(1), container(99, "10.0.0.1/24")));
    assert_eq!(fate(&mut bench, 2, &udp((b(), 9), (a(), 7))), Some("rule"), "another sandbox");
}

#[test]
fn flows_end_with_their_network() {
    let mut bench = with_flow();
    let ports = [1, 2].map(|port| bench.switch.port(PortId(port)).expect("there").clone());
    let network = bench.switch.network(NETWORK).expect("there").clone();
    bench.switch.remove_network(NETWORK);
    bench.switch.add_network(NETWORK, network).expect("it is gone");
    for (id, port) in (1..).zip(ports) {
        bench.switch.add_port(PortId(id), port).expect("it is gone");
    }
    assert_eq!(fate(&mut bench, 2, &udp((b(), 9), (a(), 7))), Some("rule"));
}

#[test]
fn many_sources_are_one_owner() {
    let mut bench = Bench::new(vec![Rule {
        from: subnet("fe80::/10"),
        to: subnet("fe80::1/128"),
        ..rule(1, Action::Drop)
    }]);
    let (kept, target) = (host(2, "fe80::2"), host(1, "fe80::1"));
    let first = host(1, "fe80::1");
    assert_eq!(fate(&mut bench, 2, &udp((kept, 7), (host(1, "fe80::5"), 9))), None);
    assert_eq!(fate(&mut bench, 1, &udp((first, 7), (kept, 9))), None, "the flooder's own first flow");
    // Every packet is from another address of the same port.
    for number in 0..70_000u32 {
        let source = Host {
            ip: std::net::Ipv6Addr::from_bits((0xfe80 << 112) + 0x1_0000 + u128::from(number)).into(),
            ..target
        };
        assert_eq!(fate(&mut bench, 1, &udp((source, 7), (kept, 9))), None);
    }
    let established =
        Rule { state: Some(State::Established), to: subnet("fe80::2/128"), ..rule(9, Action::Drop) };
    assert_eq!(
        fate(&mut bench, 2, &udp((kept, 9), (first, 7))),
        Some("rule"),
        "the flooder's oldest made room"
    );
    let rules = vec![established, Rule { state: None, ..rule(1, Action::Accept) }];
    bench.switch.set_rules(rules);
    assert_eq!(fate(&mut bench, 1, &udp((host(1, "fe80::5"), 9), (kept, 7))), Some("rule"), "no other's did");
}

#[test]
fn raw_ethernet_is_no_business_of_rules() {
    let mut bench = Bench::new(vec![rule(1, Action::Drop)]);
    assert_eq!(fate(&mut bench, 1, &ethernet(a().mac, b().mac, 0x88b5, &[0; 46])), None);
}
