//! Rules of the user's on the way of frames within a network: what matches, what follows, what is counted.

mod evasion;

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_engine::{
    Action, Count, End, Endpoint, Field, Gateway, Limit, Limits, Network, Period, Port, Protocol, Rule,
    State, Station, Switch, Verdicts,
};
use vswitch_frame::checksum::{Sum, pseudo_header};
use vswitch_frame::{DropReason, Frame, GroupId, Instant, Mac, NetworkId, Pool, PortId};

use crate::packets::{ACK, Host, RST, SYN, UDP, arp, host, icmp, ip, sctp, tagged, tcp, udp};

const NETWORK: NetworkId = NetworkId(0);
const GATEWAY: &str = "10.0.0.254";

/// The fate of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It passed, as it was.
    Passed,
    /// It was dropped by a rule.
    Dropped,
    /// The sender got this instead.
    Answered(Vec<u8>),
}

use Fate::{Dropped, Passed};

struct Bench {
    switch: Switch,
    pool: Pool,
    now: Instant,
}

fn rule(id: u32, action: Action) -> Rule {
    Rule::new(id, action)
}

/// The endpoint of the sandbox with the number of its port.
fn endpoint(number: u16) -> Endpoint {
    let addresses = [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")];
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Endpoint { sandbox: number.into(), addresses, ..Endpoint::default() }
}

fn subnet(text: &str) -> End {
    End::Subnet(text.parse().expect("net"))
}

fn a() -> Host {
    host(1, "10.0.0.1")
}

fn b() -> Host {
    host(2, "10.0.0.2")
}

fn a6() -> Host {
    host(1, "fd00::1")
}

fn b6() -> Host {
    host(2, "fd00::2")
}

fn to_web(flags: u8) -> Vec<u8> {
    tcp((a(), 40_000), (b(), 80), flags)
}

fn from_web(flags: u8) -> Vec<u8> {
    tcp((b(), 80), (a(), 40_000), flags)
}

impl Bench {
    /// A network with ports 1 and 2, whose addresses end alike.
    fn new(rules: Vec<Rule>) -> Self {
        let mut switch = Switch::new(Limits::default(), 1);
        let gateway = Gateway {
            mac: Mac([2, 0, 0, 0, 0, 254]),
            addresses: vec![GATEWAY.parse().expect("an address")],
            isolated: false,
        };
        let network = Network { gateway: Some(gateway), ..Network::default() };
        switch.add_network(NETWORK, network).expect("new");
        for number in 1..=2 {
            let id = PortId(number);
            let mac = Mac([2, 0, 0, 0, 0, number.to_be_bytes()[1]]);
            let port = Port {
                network: NETWORK,
                group: GroupId::own(id),
                mtu: 1500,
                addresses: vec![mac],
                station: Station::Container(endpoint(number)),
            };
            switch.add_port(id, port).expect("new");
        }
        switch.set_rules(rules);
        Self { switch, pool: Pool::new(4), now: Instant::ZERO }
    }

    fn send(&mut self, bytes: &[u8]) -> Fate {
        let ingress = PortId(u16::from(bytes[11]));
        let mut frame = self.pool.take().expect("a slot");
        frame.fill(bytes);
        let mut verdicts = Verdicts::default();
        self.switch.process(ingress, &mut vec![frame], &mut verdicts, self.now);
        assert_eq!(verdicts.len(), 1);
        let mut free = |frame: Frame| {
            let bytes = frame.bytes().to_vec();
            self.pool.free(frame);
            bytes
        };
        if let Some((reason, port, frame)) = verdicts.drop.pop() {
            free(frame);
            assert_eq!((reason, port), (DropReason::Rule, ingress));
            return Dropped;
        }
        let (egress, out) = match verdicts.forward.pop() {
            Some((egress, frame)) => (Some(egress), free(frame)),
            None => (None, free(verdicts.flood.pop().expect("flooded"))),
        };
        if egress == Some(ingress) {
            assert_eq!(verdicts.answered, [(DropReason::Rule, ingress)], "the frame itself went nowhere");
            return Fate::Answered(out);
        }
        assert_eq!(verdicts.answered, []);
        assert_eq!(out, bytes);
        Passed
    }

    fn counts(&self) -> Vec<(u32, u64)> {
        self.switch.rule_counts().map(|(id, count)| (id, count.frames)).collect()
    }

    fn after(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.switch.poll(self.now);
    }
}

/// Examples of matching: a rule, a packet it matches, and one that it does not.
fn matches() -> Vec<(Rule, Vec<u8>, Vec<u8>)> {
    let drop = || rule(1, Action::Drop);
    let web = (b(), 80);
    vec![
        (Rule { from: subnet("10.0.0.1/32"), ..drop() }, udp((a(), 1), (b(), 2)), udp((b(), 3), (a(), 1))),
        (Rule { to: subnet("10.0.0.2/31"), ..drop() }, udp((a(), 1), (b(), 2)), udp((b(), 3), (a(), 1))),
        (Rule { from: subnet("fd00::/64"), ..drop() }, udp((a6(), 1), (b6(), 2)), udp((a(), 1), (b(), 2))),
        (Rule { protocol: Protocol::Tcp, ..drop() }, tcp((a(), 1), web, SYN), udp((a(), 1), web)),
        (Rule { protocol: Protocol::Udp, ..drop() }, udp((a(), 1), web), tcp((a(), 1), web, SYN)),
        (
            Rule { protocol: Protocol::Icmp, ..drop() },
            icmp(a(), b(), 8, &[0; 4]),
            icmp(a6(), b6(), 128, &[0; 4]),
        ),
        (
            Rule { protocol: Protocol::Icmpv6, ..drop() },
            icmp(a6(), b6(), 128, &[0; 4]),
            icmp(a6(), b6(), 135, &[0; 20]),
        ),
        (
            Rule { protocol: Protocol::Tcp, target_ports: vec![80..=81], ..drop() },
            tcp((a(), 1), (b(), 81), SYN),
            tcp((a(), 1), (b(), 82), SYN),
        ),
        (
            Rule { protocol: Protocol::Udp, source_ports: vec![7..=7], ..drop() },
            udp((a(), 7), (b(), 9)),
            udp((a(), 9), (b(), 7)),
        ),
        (
            Rule { protocol: Protocol::Tcp, target_ports: vec![22..=22, 80..=80, 8000..=8080], ..drop() },
            tcp((a(), 1), (b(), 8042), SYN),
            tcp((a(), 1), (b(), 79), SYN),
        ),
        (
            Rule { protocol: Protocol::Sctp, target_ports: vec![80..=80], ..drop() },
            sctp((a(), 1), web),
            sctp((a(), 80), (b(), 1)),
        ),
        (Rule { network: Some(NETWORK), ..drop() }, udp((a(), 1), (b(), 2)), arp(a().mac, a())),
        (Rule { from: End::Network(NETWORK), ..drop() }, tagged(&udp((a(), 1), (b(), 2))), arp(a().mac, a())),
    ]
}

/// Examples of matching sandboxes, and of negation.
fn more_matches() -> Vec<(Rule, Vec<u8>, Vec<u8>)> {
    let drop = || rule(1, Action::Drop);
    let web = (b(), 80);
    vec![
        (Rule { from: End::Sandbox(1), ..drop() }, udp((a(), 1), (b(), 2)), udp((b(), 3), (a(), 1))),
        (Rule { to: End::Sandbox(2), ..drop() }, udp((a(), 1), (b(), 2)), udp((b(), 3), (a(), 1))),
        (
            Rule { to: End::Sandbox(2), ..drop() },
            udp((a(), 1), (Host { mac: Mac::BROADCAST, ..b() }, 2)),
            udp((a(), 1), (Host { mac: Mac([1, 0, 0x5e, 0, 0, 251]), ..host(2, "224.0.0.251") }, 2)),
        ),
        (
            Rule { from: subnet("10.0.0.1/32"), not: vec![Field::From], ..drop() },
            udp((b(), 3), (a(), 1)),
            udp((a(), 1), (b(), 2)),
        ),
        (
            Rule { to: End::Sandbox(2), not: vec![Field::To], ..drop() },
            udp((b(), 3), (a(), 1)),
            udp((a(), 1), (b(), 2)),
        ),
        (
            Rule { protocol: Protocol::Tcp, not: vec![Field::Protocol], ..drop() },
            udp((a(), 1), web),
            tcp((a(), 1), web, SYN),
        ),
        (
            Rule {
                protocol: Protocol::Tcp,
                target_ports: vec![80..=80, 443..=443],
                not: vec![Field::TargetPorts],
                ..drop()
            },
            tcp((a(), 1), (b(), 81), SYN),
            tcp((a(), 1), (b(), 443), SYN),
        ),
    ]
}

#[test]
fn a_rule_matches_what_it_says_and_nothing_else() {
    for (rule, matching, other) in matches().into_iter().chain(more_matches()) {
        let mut bench = Bench::new(vec![rule.clone()]);
        assert_eq!(bench.send(&other), Passed, "{rule:?}");
        assert_eq!(bench.send(&matching), Dropped, "{rule:?}");
        assert_eq!(bench.counts(), [(1, 1)]);
    }
    for elsewhere in [
        Rule { network: Some(NetworkId(1)), ..rule(1, Action::Drop) },
        Rule { to: End::Network(NetworkId(1)), ..rule(1, Action::Drop) },
        Rule { network: Some(NETWORK), not: vec![Field::Network], ..rule(1, Action::Drop) },
        Rule { published_ports: vec![2..=2], ..rule(1, Action::Drop) },
        Rule { published_ports: vec![9..=9], not: vec![Field::PublishedPorts], ..rule(1, Action::Drop) },
    ] {
        assert_eq!(Bench::new(vec![elsewhere]).send(&udp((a(), 1), (b(), 2))), Passed);
    }
}

#[test]
fn the_first_match_decides_and_counts() {
    let accept = Rule { protocol: Protocol::Tcp, target_ports: vec![80..=80], ..rule(7, Action::Accept) };
    let mut bench = Bench::new(vec![accept, rule(3, Action::Drop)]);
    assert_eq!(bench.send(&to_web(SYN)), Passed);
    assert_eq!(bench.send(&from_web(SYN | ACK)), Passed, "a reply, which no rule accepts");
    assert_eq!(bench.send(&to_web(ACK)), Passed);
    assert_eq!(bench.send(&udp((a(), 1), (b(), 80))), Dropped);
    assert_eq!(bench.send(&tcp((b(), 80), (a(), 40_001), ACK)), Dropped, "a reply to nothing");
    let counts: Vec<(u32, Count)> = bench.switch.rule_counts().collect();
    let bytes = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame.len() as u64).sum();
    let web = [to_web(SYN), from_web(SYN), to_web(ACK)];
    assert_eq!(counts[0], (7, Count { frames: 3, bytes: bytes(&web) }));
    assert_eq!((counts[1].0, counts[1].1.frames), (3, 2));
}

#[test]
fn replies_come_back_over_every_protocol() {
    let no_way_back = Rule { from: subnet("10.0.0.2/32"), ..rule(1, Action::Drop) };
    let mut bench = Bench::new(vec![no_way_back]);
    let ask = |id: u8| icmp(a(), b(), 8, &[0, id, 0, 1]);
    let answer = |id: u8| icmp(b(), a(), 0, &[0, id, 0, 1]);
    let conversations = [
        (udp((a(), 7), (b(), 9)), udp((b(), 9), (a(), 7)), udp((b(), 9), (a(), 8))),
        (to_web(SYN), from_web(SYN | ACK), tcp((b(), 81), (a(), 40_000), ACK)),
        (ask(3), answer(3), answer(4)),
        (
            ip(a(), b(), 47, vec![0; 4], None),
            ip(b(), a(), 47, vec![0; 4], None),
            ip(b(), a(), 50, vec![0; 4], None),
        ),
    ];
    for (first, reply, unasked) in conversations {
        assert_eq!(bench.send(&reply), Dropped);
        assert_eq!(bench.send(&first), Passed);
        assert_eq!(bench.send(&reply), Passed);
        assert_eq!(bench.send(&unasked), Dropped);
    }
    assert_eq!(bench.send(&from_web(SYN)), Dropped, "a connection of its own is no reply");
    // An ICMP error about a flow belongs to it, one about nothing does not.
    let about = |packet: &[u8]| icmp(b(), a(), 3, &[&[0; 4][..], &packet[14..42]].concat());
    assert_eq!(bench.send(&about(&udp((a(), 7), (b(), 9)))), Passed);
    assert_eq!(bench.send(&about(&udp((a(), 8), (b(), 9)))), Dropped);
}

#[test]
fn another_table_ends_flows_it_would_not_accept() {
    let mut bench = Bench::new(vec![rule(1, Action::Accept)]);
    assert_eq!(bench.send(&to_web(SYN)), Passed);
    assert_eq!(bench.send(&from_web(SYN | ACK)), Passed);
    let no_web = Rule { protocol: Protocol::Tcp, target_ports: vec![80..=80], ..rule(2, Action::Drop) };
    bench.switch.set_rules(vec![no_web, rule(1, Action::Accept)]);
    for _ in 0..2 {
        assert_eq!(bench.send(&from_web(ACK)), Dropped, "from the side that no rule is about, too");
        assert_eq!(bench.send(&to_web(ACK)), Dropped);
    }
    assert_eq!(bench.counts(), [(2, 4), (1, 2)], "rule 1 goes on counting where it was");
    bench.switch.set_rules(vec![]);
    assert_eq!(bench.send(&to_web(ACK)), Passed);
}

#[test]
fn established_frames_have_rules_of_their_own() {
    let cut = Rule { state: Some(State::Established), from: subnet("10.0.0.2/32"), ..rule(1, Action::Drop) };
    let mut bench = Bench::new(vec![cut]);
    assert_eq!(bench.send(&from_web(ACK)), Passed, "it begins a flow as far as we know");
    assert_eq!(bench.send(&to_web(ACK)), Passed);
    assert_eq!(bench.send(&from_web(ACK)), Dropped);
    assert_eq!(bench.send(&to_web(ACK)), Passed);
}

#[test]
fn an_idle_flow_is_forgotten() {
    let mut bench = Bench::new(vec![Rule { from: subnet("10.0.0.2/32"), ..rule(1, Action::Drop) }]);
    let (ask, reply) = (udp((a(), 7), (b(), 9)), udp((b(), 9), (a(), 7)));
    assert_eq!(bench.send(&ask), Passed);
    for _ in 0..4 {
        bench.after(200);
        assert_eq!(bench.send(&reply), Passed, "it is not idle");
    }
    bench.after(300);
    assert_eq!(bench.send(&reply), Dropped);
    bench.after(1);
    assert_eq!(bench.switch.poll_at().filter(|at| *at < bench.now + Duration::from_secs(100)), None);
}

#[test]
fn one_initiator_cannot_use_up_the_table() {
    let mut bench = Bench::new(vec![Rule { from: subnet("10.0.0.2/32"), ..rule(1, Action::Drop) }]);
    for port in 0..10_000 {
        assert_eq!(bench.send(&udp((a(), port), (b(), 9))), Passed);
    }
    let reply = |port| udp((b(), 9), (a(), port));
    assert_eq!(bench.send(&reply(10_000 - 8192)), Passed);
    assert_eq!(bench.send(&reply(10_000 - 8193)), Dropped, "the oldest made room");
    assert_eq!(bench.switch.stats().displaced, 10_000 - 8192);
    let other = host(1, "10.0.0.9");
    assert_eq!(bench.send(&udp((other, 1), (b(), 9))), Passed);
    assert_eq!(bench.send(&udp((b(), 9), (other, 1))), Passed, "another one is");
}

#[test]
fn fragments_do_not_slip_through() {
    let fragment = || {
        let mut frame = ip(a(), b(), UDP, vec![0; 16], None);
        frame[21] = 4;
        frame
    };
    let to_dns = |action| Rule { protocol: Protocol::Udp, target_ports: vec![53..=53], ..rule(1, action) };
    assert_eq!(Bench::new(vec![to_dns(Action::Drop)]).send(&fragment()), Dropped);
    let but_dns = |action| Rule { not: vec![Field::TargetPorts], ..to_dns(action) };
    assert_eq!(Bench::new(vec![but_dns(Action::Drop)]).send(&fragment()), Dropped);
    assert_eq!(Bench::new(vec![but_dns(Action::Accept), rule(2, Action::Drop)]).send(&fragment()), Dropped);
    assert_eq!(Bench::new(vec![to_dns(Action::Accept), rule(2, Action::Drop)]).send(&fragment()), Dropped);
    assert_eq!(Bench::new(vec![to_dns(Action::Reject)]).send(&fragment()), Dropped, "and get no answer");
}

/// The parsed answer; its checksums are right.
fn answer(fate: Fate) -> (Vec<u8>, usize) {
    let Fate::Answered(bytes) = fate else { panic!("{fate:?}") };
    let mut pool = Pool::new(1);
    let mut frame = pool.take().expect("a slot");
    frame.fill(&bytes);
    frame.parse().expect("well-formed");
    let headers = frame.headers;
    assert_eq!(headers.end_offset(), bytes.len());
    if headers.is_ipv4() {
        let header = &bytes[headers.network_offset()..headers.transport_offset()];
        assert_eq!(Sum::ZERO.add_bytes(header).checksum(), 0);
    }
    let segment = &bytes[headers.transport_offset()..];
    let pseudo = match headers.protocol() {
        1 => Sum::ZERO,
        6 => pseudo_header(&bytes, &headers, segment.len()),
        _ => Sum::ZERO
            .add_bytes(&bytes[headers.network_offset() + 8..headers.network_offset() + 40])
            .add_word(u16::try_from(segment.len()).expect("short"))
            .add_word(headers.protocol().into()),
    };
    assert_eq!(pseudo.add_bytes(segment).checksum(), 0);
    (bytes, headers.transport_offset())
}

#[test]
fn a_rejected_sender_is_told() {
    let mut bench = Bench::new(vec![rule(1, Action::Reject)]);
    let (reset, at) = answer(bench.send(&to_web(SYN)));
    assert_eq!(reset[..12], [a().mac.0, b().mac.0].concat());
    assert_eq!(reset[at..at + 4], [0, 80, 0x9c, 0x40], "ports");
    assert_eq!(reset[at + 8..at + 12], [0, 0, 0, 10], "acknowledges the SYN");
    assert_eq!(reset[at + 13], RST | ACK);
    let (reset, at) = answer(bench.send(&tagged(&to_web(ACK))));
    assert_eq!((at, &reset[at + 4..at + 8], reset[at + 13]), (38, &[0, 0, 0, 77][..], RST));
    let asked = udp((a(), 7), (b(), 9));
    let (error, at) = answer(bench.send(&asked));
    assert_eq!(error[26..30], [10, 0, 0, 254], "from the gateway");
    assert_eq!((error[at], error[at + 1]), (3, 13));
    assert_eq!(error[at + 8..], asked[14..]);
    let asked = udp((a6(), 7), (b6(), 9));
    let (error, at) = answer(bench.send(&asked));
    assert_eq!((error[at], error[at + 1]), (1, 1));
    assert_eq!(error[at + 8..], asked[14..]);
    assert_eq!(bench.counts(), [(1, 4)]);
}

#[test]
fn senders_are_told_within_a_budget() {
    let mut bench = Bench::new(vec![rule(1, Action::Reject)]);
    let told = |bench: &mut Bench| {
        (0..1000)
            .filter(|port| matches!(bench.send(&tcp((a(), *port), (b(), 80), SYN)), Fate::Answered(_)))
            .count()
    };
    assert_eq!(told(&mut bench), 32);
    bench.after(3600);
    assert_eq!(told(&mut bench), 32, "it does not grow");
    assert_eq!(bench.counts(), [(1, 2000)]);
}

#[test]
fn a_limit_is_of_flows_and_lets_those_go_on_that_it_let_in() {
    let limit = |flows, burst| Some(Limit { flows, per: Period::Second, burst });
    let limited = |id| Rule { limit: limit(2, 3), ..rule(id, Action::Accept) };
    let mut bench = Bench::new(vec![limited(1), rule(2, Action::Drop)]);
    let ask = |port| udp((a(), port), (b(), 9));
    let passed = |bench: &mut Bench, ports: std::ops::Range<u16>| -> Vec<u16> {
        ports.filter(|port| bench.send(&ask(*port)) == Passed).collect()
    };
    assert_eq!(passed(&mut bench, 1..10), [1, 2, 3], "so many at once");
    assert_eq!(bench.send(&udp((b(), 9), (a(), 1))), Passed, "a reply");
    assert_eq!(passed(&mut bench, 1..10), [1, 2, 3], "what goes on is no new flow");
    bench.after(1);
    assert_eq!(passed(&mut bench, 11..20), [11, 12], "so many in a second");
    bench.switch.set_rules(vec![Rule { id: 3, ..limited(1) }, limited(1), rule(2, Action::Drop)]);
    assert_eq!(passed(&mut bench, 1..20), [1, 2, 3, 4, 5, 6, 11, 12], "judged anew, they take no token");
    bench.switch.set_rules(vec![limited(1), rule(2, Action::Drop)]);
    assert_eq!(passed(&mut bench, 20..30), [], "the same limit goes on where it was");
    bench.switch.set_rules(vec![Rule { limit: limit(2, 3), ..rule(4, Action::Drop) }]);
    assert_eq!(passed(&mut bench, 1..4), [1, 2, 3], "a limited rule that holds back spares what goes on");
    assert_eq!(passed(&mut bench, 40..50), [43, 44, 45, 46, 47, 48, 49], "beyond it, it does not match");
}

#[test]
fn some_are_not_told() {
    let mut bench = Bench::new(vec![rule(1, Action::Reject)]);
    let quiet = [
        to_web(RST),
        icmp(a(), b(), 3, &[0; 32]),
        icmp(a6(), b6(), 1, &[0; 4]),
        udp((a(), 7), (host(2, "224.0.0.251"), 9)),
        udp((host(1, "0.0.0.0"), 7), (b(), 9)),
        udp((a(), 7), (Host { mac: Mac::BROADCAST, ..b() }, 9)),
    ];
    for frame in quiet {
        assert_eq!(bench.send(&frame), Dropped, "{frame:02x?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        kind in 0..3usize,
        noise in vec(any::<u8>(), 0..150),
        actions in vec(0..3usize, 1..4),
    ) {
        let action = |at: usize| [Action::Accept, Action::Drop, Action::Reject][at];
        let rules = (0..).zip(&actions).map(|(id, at)| {
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Any][*at];
            Rule { protocol, ..rule(id, action(actions.len() - 1)) }
        });
        let mut bench = Bench::new(rules.collect());
        let mut frame = tcp((a(), 1), (b(), 2), SYN);
        frame.truncate(14);
        frame[12..].copy_from_slice(&[0x0800u16, 0x86dd, 0x8100][kind].to_be_bytes());
        frame.extend([[0x45u8, 0, 0, 60], [0x60, 0, 0, 0], [0, 1, 8, 0]][kind]);
        frame.extend(&noise);
        let mut slot = bench.pool.take().expect("a slot");
        slot.fill(&frame);
        let mut verdicts = Verdicts::default();
        bench.switch.process(PortId(1), &mut vec![slot], &mut verdicts, Instant::ZERO);
        assert_eq!(verdicts.len(), 1);
    }
}
