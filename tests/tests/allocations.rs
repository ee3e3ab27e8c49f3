//! The frame path allocates nothing once its vectors and tables have grown.

use std::net::IpAddr;
use std::time::Duration;

use vswitch_engine::{
    Action, Endpoint, Gateway, GatewayMode, Hop, Limits, Network, Port, Route, Rule, Station, Switch, Uplink,
    Verdicts, WayOut,
};
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::split::Splitter;
use vswitch_frame::{Accepts, Frame, GroupId, Instant, Mac, NetworkId, Pool, PortId};
use vswitch_sys::counting::{Counting, allocations};
use vswitch_tests::packets::{Packet, rfc1071};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HOME: NetworkId = NetworkId(0);
const OTHER: NetworkId = NetworkId(1);
/// A container of the home network, whose frames are guarded.
const ALICE: PortId = PortId(1);
/// Another one there.
const BOB: PortId = PortId(2);
/// A container of the other network.
const CAROL: PortId = PortId(3);
/// Somebody on the home network of whom nothing is known.
const STRANGER: PortId = PortId(4);
const UPLINK: PortId = PortId(4095);
/// The host number of the gateways.
const GATEWAY: u8 = 254;

fn mac(host: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, host])
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A network 10.0.N.0/24 and fd00:N::/64, where N is its number.
fn network(id: NetworkId) -> Network {
    let subnets = [format!("10.0.{}.0/24", id.0), format!("fd00:{}::/64", id.0)];
    let addresses = vec![ip(&format!("10.0.{}.{GATEWAY}", id.0)), ip(&format!("fd00:{}::{GATEWAY:x}", id.0))];
    let gateway = Gateway { mac: mac(GATEWAY), addresses, isolated: false };
    Network {
        subnets: subnets.map(|subnet| subnet.parse().expect("a net")).to_vec(),
        gateway: Some(gateway),
        icc: true,
        masquerade: true,
        mode_v4: GatewayMode::NatUnprotected,
        port_security: true,
        mtu: 1500,
        ..Network::default()
    }
}

fn port(network: NetworkId, id: PortId) -> Port {
    let [_, host] = id.0.to_be_bytes();
    let addresses = [format!("10.0.{}.{host}/24", network.0), format!("fd00:{}::{host}/64", network.0)];
    let addresses = addresses.map(|address| address.parse().expect("an address")).to_vec();
    let endpoint = Endpoint { addresses, ..Endpoint::default() };
    let (mtu, group) = (1500, GroupId::own(id));
    if id == STRANGER {
        return Port { network, group, mtu, ..Port::default() };
    }
    Port { network, group, mtu, addresses: vec![mac(host)], station: Station::Container(endpoint) }
}

/// A datagram of Alice's to a host of the home network, or to another address by way of it.
fn datagram(host: u8, target: Option<[u8; 4]>, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = Packet::udp(payload.to_vec());
    packet.flow = (1, host, ports.0, ports.1);
    let mut bytes = packet.bytes();
    if let Some(target) = target {
        bytes[30..34].copy_from_slice(&target);
        // A datagram need not have a checksum.
        bytes[40..42].fill(0);
        bytes[24..26].fill(0);
        let checksum = rfc1071(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
    bytes
}

/// A datagram with its last hop behind it.
fn exhausted(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[22] = 1;
    bytes[24..26].fill(0);
    let checksum = rfc1071(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Alice asks who has an address of the home network.
fn arp(host: u8) -> Vec<u8> {
    let ends = [[&mac(1).0[..], &[10, 0, 0, 1]].concat(), [&[0; 6][..], &[10, 0, 0, host]].concat()];
    [&[0xff; 6][..], &mac(1).0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &ends.concat()].concat()
}

fn echo_request() -> Vec<u8> {
    let mut bytes = datagram(GATEWAY, Some([10, 0, 0, GATEWAY]), (0x0800, 0), b"four");
    bytes[23] = 1;
    bytes[24..26].fill(0);
    let checksum = rfc1071(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    bytes[36..38].fill(0);
    let checksum = rfc1071(&bytes[34..]);
    bytes[36..38].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A message of ICMPv6 from Alice, without its checksum: her address, then the target's.
fn icmpv6(target: [u8; 16], message: &[u8]) -> Vec<u8> {
    let mut own = [0; 16];
    (own[0], own[15]) = (0xfd, 1);
    let [_, length] = u16::try_from(message.len()).expect("short").to_be_bytes();
    let ends = [own, target].concat();
    let mut message = message.to_vec();
    let checksum = rfc1071(&[&ends, &[0, length, 0, 58][..], &message].concat());
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = [0x60, 0, 0, 0, 0, length, 58, 255];
    let link = [&mac(GATEWAY).0[..], &mac(1).0, &[0x86, 0xdd]].concat();
    [&link, &header[..], &ends, &message].concat()
}

/// Questions of Alice's for the gateway over IPv6: an echo request, who has its address, and who is a router.
fn questions() -> [Vec<u8>; 3] {
    let mut gateway = [0; 16];
    (gateway[0], gateway[15]) = (0xfd, GATEWAY);
    let mut routers = [0; 16];
    (routers[0], routers[1], routers[15]) = (0xff, 2, 2);
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &gateway].concat();
    [
        icmpv6(gateway, &[128, 0, 0, 0, 0, 7, 0, 1]),
        icmpv6(gateway, &solicitation),
        icmpv6(routers, &[133, 0, 0, 0, 0, 0, 0, 0]),
    ]
}

/// Alice asks for an address (RFC 2131, 3.1).
fn discovery() -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let mut bytes = datagram(GATEWAY, Some([255; 4]), (68, 67), &message);
    bytes[..6].fill(0xff);
    bytes[26..30].fill(0);
    bytes[24..26].fill(0);
    let checksum = rfc1071(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Frames of Alice's of which each takes another way through the switch.
fn frames() -> Vec<Vec<u8>> {
    let by_gateway = |target, ports| datagram(GATEWAY, Some(target), ports, b"hello");
    let mut group = by_gateway([239, 1, 1, 1], (7, 7));
    group[..6].copy_from_slice(&[1, 0, 0x5e, 1, 1, 1]);
    let mut forged = datagram(2, None, (7, 7), b"forged");
    forged[11] = 9;
    let mut frames = vec![
        datagram(9, None, (7, 7), b"for nobody known"),
        arp(2),
        arp(GATEWAY),
        echo_request(),
        discovery(),
        by_gateway([10, 0, 1, 3], (7, 7)),
        by_gateway([198, 51, 100, 1], (7, 7)),
        by_gateway([10, 0, 0, GATEWAY], (7, 53)),
        by_gateway([10, 0, 1, 77], (7, 7)),
        exhausted(by_gateway([10, 0, 1, 3], (7, 7))),
        group,
        forged,
        vec![0; 9],
    ];
    frames.extend((0..8).map(|_| datagram(2, None, (1000, 2000), &[5; 1000])));
    let segments = (0..4u32).map(|number| Packet::tcp(number * 1000, vec![5; 1000]).bytes());
    frames.extend(segments);
    frames.extend(questions());
    frames
}

/// A switch, and what the datapath has around it.
struct Bench {
    switch: Switch,
    pool: Pool,
    burst: Vec<Frame>,
    verdicts: Verdicts,
    coalescer: Coalescer,
    leaving: Vec<Frame>,
    pieces: Vec<Frame>,
    now: Instant,
}

/// How many frames of a burst went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ways {
    forwarded: usize,
    flooded: usize,
    names: usize,
    outbound: usize,
    dropped: usize,
    merged: usize,
    pieces: usize,
}

impl Bench {
    fn new() -> Self {
        let mut switch = Switch::new(Limits::default(), 1);
        for id in [HOME, OTHER] {
            switch.add_network(id, network(id)).expect("a new network");
        }
        for (network, id) in [(HOME, ALICE), (HOME, BOB), (OTHER, CAROL), (HOME, STRANGER)] {
            switch.add_port(id, port(network, id)).expect("a new port");
        }
        let (destination, interface) = ("0.0.0.0/0".parse().expect("a net"), "eth0".to_owned());
        let hop = Hop::Router(ip("192.0.2.1"));
        let uplink = Uplink { port: UPLINK, interface: interface.clone(), addresses: vec![ip("192.0.2.9")] };
        let routes = vec![Route { destination, interface, hop }];
        switch.set_way_out(WayOut { uplinks: vec![uplink], routes });
        switch.poll(Instant::ZERO + Duration::from_secs(100));
        Self {
            switch,
            pool: Pool::new(128),
            burst: Vec::new(),
            verdicts: Verdicts::default(),
            coalescer: Coalescer::new(1),
            leaving: Vec::new(),
            pieces: Vec::new(),
            now: Instant::ZERO + Duration::from_secs(100),
        }
    }

    /// One burst on its way through the switch, out and back into the pool.
    fn turn(&mut self, ingress: PortId, frames: &[Vec<u8>]) -> Ways {
        for bytes in frames {
            let mut frame = self.pool.take().expect("a slot");
            frame.fill(bytes);
            self.burst.push(frame);
        }
        let Self { switch, pool, burst, verdicts, now, .. } = self;
        switch.process(ingress, burst, verdicts, *now);
        let made = switch.serve(ingress, verdicts, pool, *now);
        let to_many = switch.flood_targets(ingress).count();
        let mut ways = Ways {
            forwarded: verdicts.forward.len() - made,
            flooded: verdicts.flood.len() * to_many.min(1) + verdicts.multicast.len(),
            names: verdicts.names.len(),
            outbound: verdicts.outbound.len(),
            dropped: verdicts.drop.len(),
            ..Ways::default()
        };
        self.leaving.extend(verdicts.forward.drain(..).map(|(_, frame)| frame));
        let others = verdicts.flood.drain(..).chain(verdicts.names.drain(..));
        let others = others.chain(verdicts.outbound.drain(..).map(|outbound| outbound.frame));
        let others = others.chain(verdicts.multicast.drain(..).map(|(_, frame)| frame));
        let others = others.chain(verdicts.drop.drain(..).map(|(_, _, frame)| frame));
        others.for_each(|frame| pool.free(frame));
        let before = self.leaving.len();
        self.coalescer.coalesce(&mut self.leaving, Accepts::ALL, &mut self.pool);
        ways.merged = before - self.leaving.len();
        for frame in self.leaving.drain(..) {
            let mut splitter = Splitter::new(&frame, Accepts::NONE);
            while splitter.next_batch(&mut self.pool, &mut self.pieces).expect("slots") {}
            ways.pieces += self.pieces.len();
            self.pieces.drain(..).for_each(|piece| self.pool.free(piece));
            self.pool.free(frame);
        }
        assert_eq!(self.pool.available(), self.pool.capacity());
        ways
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.switch.poll(self.now);
    }
}

/// The number of allocations of some work, and its answer.
fn allocated<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = allocations();
    let answer = work();
    (allocations() - before, answer)
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocated(|| 5), (0, 5));
    assert_eq!(allocated(|| vec![5u8; 9].len()), (1, 9));
}

#[test]
fn a_burst_allocates_nothing_once_vectors_have_grown() {
    let frames = frames();
    for ruled in [false, true] {
        let mut bench = Bench::new();
        if ruled {
            bench.switch.set_rules(vec![accept_everything()]);
        }
        let ways = bench.turn(ALICE, &frames);
        assert!(ways.merged > 0 && ways.pieces > ways.forwarded - ways.merged, "{ways:?}");
        assert!([ways.flooded, ways.names, ways.outbound].iter().all(|frames| *frames > 0), "{ways:?}");
        // To Bob and Carol, and answers: to ARP, DHCP, two echo requests and two of neighbour discovery.
        assert_eq!((ways.forwarded, ways.dropped), (8 + 4 + 1 + 6, 4), "{ways:?}");
        for _ in 0..10 {
            bench.pass(Duration::from_millis(10));
            assert_eq!(allocated(|| bench.turn(ALICE, &frames)), (0, ways));
        }
    }
}

fn accept_everything() -> Rule {
    Rule::new(1, Action::Accept)
}

#[test]
fn what_is_new_allocates_nothing_once_tables_have_grown() {
    const NEW: u16 = 100;
    let mut bench = Bench::new();
    bench.switch.set_rules(vec![accept_everything()]);
    let flows = |first: u16| -> Vec<Vec<u8>> {
        let routed = |number| datagram(GATEWAY, Some([10, 0, 1, 3]), (first + number, 7), b"hello");
        (0..NEW).map(routed).collect()
    };
    let strangers = |group: u8| -> Vec<Vec<u8>> {
        let mut frames = flows(1);
        (0..)
            .zip(&mut frames)
            .for_each(|(number, frame)| frame[6..12].copy_from_slice(&[2, 1, 1, 1, group, number]));
        frames
    };
    // A table whose places were used before may grow once more.
    for round in 0..24 {
        let (flows, strangers) = (flows(1000 * (1 + round)), strangers(round.to_be_bytes()[1]));
        let (spent, forwarded) = allocated(|| bench.turn(ALICE, &flows).forwarded);
        assert_eq!(forwarded, usize::from(NEW), "each is a flow of its own");
        let (also_spent, _) = allocated(|| bench.turn(STRANGER, &strangers));
        assert_eq!(
            bench.switch.table(HOME).filter(|entry| !entry.fixed).count(),
            usize::from(NEW),
            "learned"
        );
        assert!(round < 12 || spent + also_spent == 0, "round {round}: {spent}, {also_spent}");
        bench.pass(Duration::from_secs(3600));
        assert_eq!(bench.switch.table(HOME).filter(|entry| !entry.fixed).count(), 0, "forgotten");
    }
}

#[test]
fn to_tell_the_sender_of_a_rejected_frame_allocates() {
    let mut bench = Bench::new();
    bench.switch.set_rules(vec![Rule { action: Action::Reject, ..accept_everything() }]);
    let frames = [datagram(2, None, (7, 7), b"hello")];
    bench.turn(ALICE, &frames);
    let (spent, ways) = allocated(|| bench.turn(ALICE, &frames));
    assert!(spent > 0 && ways.forwarded == 1, "{spent} {ways:?}: not any more, so the documents may say so");
}
