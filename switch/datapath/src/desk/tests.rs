//! The desk, as control sees it: through the channel, with a datapath behind it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use vswitch_contract::counters::Counters;
use vswitch_contract::fact::{Change, Fact, Facts, Held, Key};
use vswitch_contract::mirror::Mirror;
use vswitch_contract::order::{Options, Order, Reply, Step};
use vswitch_contract::parts::{Arrived, Assembly, GO_ON, packets};
use vswitch_contract::port::PortSpec;
use vswitch_contract::reserved::UPLINKS_MAX;
use vswitch_contract::tunnel::{TunnelSpec, Vni};
use vswitch_contract::uplink::UplinkSpec;
use vswitch_engine::{Endpoint, Network, Station};
use vswitch_frame::{Accepts, GroupId, Instant, Mac, NetworkId, PortId};
use vswitch_nat::{Inside, Leaving, Protocol, Verdicts};
use vswitch_sys::device::DeviceKind;
use vswitch_sys::poll::Poller;
use vswitch_sys::seqpacket::{Channel, DESCRIPTORS_MAX, Listener, MESSAGE_BYTES_MAX};
use vswitch_vxlan::Record;

use super::line::Line;
use super::memory::Desk;
use crate::flows::tests::{HOST, datagram};
use crate::ready::CHANNEL;
use crate::turn::Datapath;

const NETWORK: NetworkId = NetworkId(1);
const TUNNEL: PortId = PortId(7);

/// A datapath, and control's end of the channel to it.
struct Pair {
    near: Channel,
    datapath: Datapath,
    /// Where the next control comes in.
    path: PathBuf,
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Pair {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vswitch-desk-{}-{number}", std::process::id()));
        let listener = Listener::bind(&path).expect("bind");
        listener.listen().expect("listen");
        let (near, far) = Channel::pair().expect("a pair");
        let poller = Poller::new().expect("a poller");
        poller.add(far.as_fd(), CHANNEL).expect("added");
        let line = Line::new(far, listener, &poller).expect("a line");
        let desk = Desk::new(line, Options { seed: 1 });
        let (counters, mirror) = (Counters::new().expect("memory"), Mirror::new().expect("memory"));
        Self { near, datapath: Datapath::new(desk, 1, counters, mirror, poller, 1000), path }
    }

    /// The answer that the datapath sends once it has done all it can.
    fn next(&mut self) -> (Vec<u8>, Vec<OwnedFd>) {
        while self.datapath.carry_out_next() {}
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let (length, fds) = self.near.receive_all(&mut buffer).expect("a channel").expect("a packet");
        buffer.truncate(length);
        (buffer, fds)
    }

    /// Gives an order; says how it was answered, with how many descriptors, and how many packets it took.
    fn ask(&mut self, order: &Order, fds: &[OwnedFd]) -> (Reply, usize, usize) {
        let text = serde_json::to_vec(order).expect("JSON");
        let all: Vec<Vec<u8>> = packets(&text).collect();
        let (last, parts) = all.split_last().expect("one at least");
        for packet in parts {
            self.near.send(packet, &[]).expect("sent");
            assert_eq!(self.next().0, GO_ON);
        }
        self.near.send(last, &fds.iter().map(AsFd::as_fd).collect::<Vec<_>>()).expect("sent");
        let mut answer = Assembly::default();
        for parts in 1.. {
            let (packet, fds) = self.next();
            match answer.take(&packet).expect("a part") {
                Arrived::Whole(text) => {
                    return (serde_json::from_slice(&text).expect("a reply"), fds.len(), all.len() + parts);
                }
                Arrived::Part => self.near.send(GO_ON, &[]).expect("sent"),
                Arrived::GoOn => panic!("it asks for more than there is"),
            }
        }
        unreachable!("a message ends")
    }

    /// Tells of steps; says which were refused, and why.
    fn tell(&mut self, steps: Vec<Step>, fds: &[OwnedFd]) -> Vec<(usize, String)> {
        let reply = self.ask(&Order::Tell(steps), fds).0;
        let Reply::Told(refused) = reply else { panic!("{reply:?}") };
        refused
    }

    fn must_take(&mut self, facts: Vec<Fact>) {
        let steps = facts.into_iter().map(|fact| Step::Set(fact, 0)).collect();
        assert_eq!(self.tell(steps, &[]), []);
    }

    /// All facts, as the next control learns them, and how many pages they took.
    fn recall(&mut self) -> (Facts, usize) {
        let (mut facts, mut last, mut pages) = (Facts::default(), None, 0);
        loop {
            let Reply::Facts(page) = self.ask(&Order::Recall(last), &[]).0 else { panic!("no page") };
            let Some((fact, _)) = page.last() else { return (facts, pages) };
            last = Some(fact.key());
            pages += 1;
            page.into_iter().for_each(|(fact, _)| drop(facts.change(Change::Set(fact.into()))));
        }
    }

    fn keys(&mut self) -> Vec<Key> {
        self.recall().0.range(..).map(|held| held.fact.key()).collect()
    }
}

fn file() -> OwnedFd {
    File::open("/dev/null").expect("a file").into()
}

fn network(id: NetworkId) -> Fact {
    Fact::Network(id, Network::default())
}

fn tunnel() -> Fact {
    let spec = TunnelSpec {
        port: TUNNEL,
        group: GroupId::own(TUNNEL),
        vni: Vni::new(5).expect("24 bits"),
        local: vtep(1),
        underlay_mtu: 1500,
        learning: false,
    };
    Fact::Tunnel(NETWORK, spec)
}

fn vtep(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn record(number: u32, last: u8) -> Fact {
    let [_, a, b, c] = number.to_be_bytes();
    let addresses = vec![IpAddr::from([10, a, b, c])];
    Fact::Record(NETWORK, Record { mac: Mac([2, 0, 0, a, b, c]), addresses, vtep: vtep(last), version: 1 })
}

#[test]
fn a_grant_of_five_thousand_ranges_arrives_and_is_recalled() {
    let mut pair = Pair::new();
    let ranges: Vec<RangeInclusive<u16>> =
        (0..5000).map(|number| 20_000 + 2 * number..=20_000 + 2 * number).collect();
    let grant = Fact::Grant(Protocol::Udp, vtep(1), ranges);
    let (reply, _, packets) = pair.ask(&Order::Tell(vec![Step::Set(grant.clone(), 0)]), &[]);
    assert!(matches!(&reply, Reply::Told(refused) if refused.is_empty()), "{reply:?}");
    assert!(packets > 2, "it is longer than a packet");
    let (facts, _) = pair.recall();
    assert_eq!(facts.get(&grant.key()).map(|held| &held.fact), Some(&grant));
}

#[test]
fn a_refused_step_leaves_all_as_it_was_and_the_others_are_done() {
    let mut pair = Pair::new();
    pair.must_take(vec![network(NETWORK)]);
    let other = Network { masquerade: true, ..Network::default() };
    let steps = vec![
        Step::Set(network(NetworkId(2)), 0),
        Step::Set(Fact::Peer(NETWORK, vtep(2)), 0),
        Step::Set(Fact::Network(NETWORK, other), 0),
        Step::Set(Fact::FarSide, 1),
        Step::Remove(Key::Peer(NETWORK, vtep(2))),
        Step::Set(network(NetworkId(3)), 0),
    ];
    let refused = pair.tell(steps, &[]);
    assert_eq!(refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(refused[0].1, "the network has no tunnel");
    assert!(refused[2].1.contains("0 of 1 descriptors"), "{refused:?}");
    assert!(refused.iter().all(|(_, why)| why.lines().count() == 1), "{refused:?}");
    let (facts, _) = pair.recall();
    let expected = [1, 2, 3].map(|id| network(NetworkId(id)));
    assert!(facts.range(..).map(|held| &held.fact).eq(&expected), "{facts:?}");
}

#[test]
fn a_peer_that_is_this_host_and_a_record_too_many_are_refused() {
    let mut pair = Pair::new();
    pair.must_take(vec![network(NETWORK), tunnel(), Fact::Peer(NETWORK, vtep(2))]);
    let refused = pair.tell(vec![Step::Set(Fact::Peer(NETWORK, vtep(1)), 0)], &[]);
    assert_eq!(refused.len(), 1, "{refused:?}");
    let mut told = 0;
    let refused = loop {
        let steps = (told..told + 1000).map(|number| Step::Set(record(number, 2), 0)).collect();
        told += 1000;
        let refused = pair.tell(steps, &[]);
        if !refused.is_empty() {
            break refused;
        }
        assert!(told < 1 << 20, "there is no end to them");
    };
    assert!(refused.iter().all(|(_, why)| why.contains("one too many")), "{refused:?}");
    // One that is there may still change, and one less is room for another.
    pair.must_take(vec![record(0, 3)]);
    let last = record(told - 1, 2);
    assert_eq!(pair.tell(vec![Step::Remove(record(1, 2).key()), Step::Set(last, 0)], &[]), []);
    let taken = usize::try_from(told).expect("few") - refused.len();
    assert_eq!(pair.keys().len(), taken + 3, "and the network, its tunnel and its peer");
}

#[test]
fn an_uplink_past_the_last_is_refused() {
    let mut pair = Pair::new();
    for place in [UPLINKS_MAX, u16::MAX] {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let spec = UplinkSpec { interface: "up".into(), mac: Some(mac), mtu: 1500, ..UplinkSpec::default() };
        let refused = pair.tell(vec![Step::Set(Fact::Uplink(place, spec), 1)], &[file()]);
        assert!(refused[0].1.contains("past the last of 4"), "{refused:?}");
    }
    assert!(pair.keys().is_empty());
}

#[test]
fn three_thousand_records_and_names_are_recalled_page_by_page() {
    let mut pair = Pair::new();
    pair.must_take(vec![network(NETWORK), tunnel(), Fact::Peer(NETWORK, vtep(2))]);
    for first in (0..3000).step_by(500) {
        pair.must_take((first..first + 500).map(|number| record(number, 2)).collect());
    }
    let (facts, pages) = pair.recall();
    assert_eq!(facts.range(..).count(), 3003);
    assert!(pages > 3, "{pages}");
    let all: Vec<Key> = facts.range(..).rev().map(|held| held.fact.key()).collect();
    assert_eq!(pair.tell(all.into_iter().map(Step::Remove).collect(), &[]), []);
    assert!(pair.keys().is_empty());
}

/// A port of a packet socket, with this station behind it.
fn port_of(station: Station) -> PortSpec {
    PortSpec {
        network: NETWORK,
        kind: DeviceKind::Packet(vswitch_sys::packet::Framing::Plain),
        group: GroupId::own(PortId(5)),
        mtu: 1500,
        accepts: Accepts::ALL,
        addresses: vec![Mac([2, 0, 0, 0, 0, 1])],
        station,
    }
}

#[test]
fn a_port_that_cannot_change_goes_on_as_it_was() {
    let mut pair = Pair::new();
    pair.must_take(vec![network(NETWORK)]);
    let (socket, _other) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
    let spec = port_of(Station::Unknown);
    let port = |spec: &PortSpec| Fact::Port(PortId(5), spec.clone());
    assert_eq!(pair.tell(vec![Step::Set(port(&spec), 1)], &[socket.into()]), []);
    let elsewhere = PortSpec { network: NetworkId(9), ..spec.clone() };
    // Of no network, and with a descriptor that nobody can wait for.
    let steps = vec![Step::Set(port(&elsewhere), 0), Step::Set(port(&spec), 1)];
    let refused = pair.tell(steps, &[file()]);
    assert_eq!(refused.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [0, 1], "{refused:?}");
    let (reply, fds, _) = pair.ask(&Order::Recall(Some(network(NETWORK).key())), &[]);
    assert!(matches!(&reply, Reply::Facts(page) if *page == [(port(&spec), 1)]), "{reply:?}");
    assert_eq!(fds, 1);
    assert!(pair.datapath.switch.port(PortId(5)).is_some_and(|port| port.network == NETWORK));
}

#[test]
fn an_answer_in_parts_is_lost_with_the_control_that_asked() {
    let mut pair = Pair::new();
    let ranges: Vec<RangeInclusive<u16>> =
        (0..5000).map(|number| 20_000 + 2 * number..=20_000 + 2 * number).collect();
    let grant = Fact::Grant(Protocol::Tcp, vtep(1), ranges);
    pair.must_take(vec![grant.clone(), Fact::HostAddresses(vec![vtep(1)])]);
    let recall = Order::Recall(Some(Key::HostAddresses));
    let first = packets(&serde_json::to_vec(&recall).expect("JSON")).next().expect("a packet");
    pair.near.send(&first, &[]).expect("sent");
    assert_eq!(pair.next().0[0], 1, "there is more of it");
    // The next one asks, too, and is answered what it asked.
    pair.near = Channel::connect(&pair.path).expect("another control");
    let (reply, ..) = pair.ask(&Order::Alive, &[]);
    assert!(matches!(reply, Reply::Done), "{reply:?}");
    // And one that dies over an order that is arriving spoils none of the next.
    let long = Order::Tell(vec![Step::Set(grant, 0)]);
    let first = packets(&serde_json::to_vec(&long).expect("JSON")).next().expect("a packet");
    pair.near.send(&first, &[]).expect("sent");
    assert_eq!(pair.next().0, GO_ON);
    pair.near = Channel::connect(&pair.path).expect("another control");
    assert_eq!(pair.recall().0.range(..).count(), 2);
}

/// That what is held has a descriptor is what the next control relies on.
#[test]
fn descriptors_are_recalled_no_more_at_once_than_ride_along() {
    let mut pair = Pair::new();
    let claim = |number: u16| {
        Fact::Claim(vswitch_contract::claim::Claimed {
            protocol: Protocol::Udp,
            address: vtep(1),
            port: number,
        })
    };
    for first in (1..=600).step_by(200) {
        let steps = (first..first + 200).map(|number| Step::Set(claim(number), 1)).collect();
        let fds: Vec<OwnedFd> = (0..200).map(|_| file()).collect();
        assert_eq!(pair.tell(steps, &fds), []);
    }
    let (mut last, mut found) = (None, Vec::new());
    loop {
        let (reply, fds, _) = pair.ask(&Order::Recall(last), &[]);
        let Reply::Facts(page) = reply else { panic!("no page") };
        let Some((fact, _)) = page.last() else { break };
        last = Some(fact.key());
        assert_eq!(fds, page.iter().map(|(_, count)| count).sum::<usize>());
        assert!(fds <= DESCRIPTORS_MAX);
        found.extend(page.into_iter().map(|(fact, _)| Held::from(fact).fact));
    }
    assert_eq!(found, (1..=600).map(claim).collect::<Vec<_>>());
}

/// A container's address, and flows from it to the world, each of a port of its own.
fn begin_flows(pair: &mut Pair, last: u8, count: u16) {
    let nat = &mut pair.datapath.nat;
    nat.set_uplink(vswitch_nat::Uplink { v4: Some(HOST.into()), mtu: 1500, ..Default::default() });
    nat.grant(Protocol::Udp, HOST.into(), 40_000..40_100);
    let (pool, mut verdicts) = (&mut pair.datapath.worker.pool, Verdicts::default());
    for port in 0..count {
        let leaving = Leaving::Masqueraded;
        let (port_id, network, sandbox) = (PortId(5), NETWORK, u32::from(last));
        let from = Inside { port: port_id, network, sandbox, leaving, address: None };
        let frame = datagram(pool, [10, 0, 0, last], 1000 + port, [198, 51, 100, 1]);
        nat.outbound(frame, from, Instant::from_nanos(1), &mut verdicts);
    }
    verdicts.outside.drain(..).for_each(|(_, frame)| pool.free(frame));
}

fn station(sandbox: u32, addresses: &[&str]) -> Station {
    let addresses = addresses.iter().map(|text| text.parse().expect("a subnet")).collect();
    Station::Container(Endpoint { sandbox, addresses, ..Endpoint::default() })
}

#[test]
fn flows_end_with_the_port_or_the_address_of_their_container_and_with_nothing_else() {
    let mut pair = Pair::new();
    pair.must_take(vec![network(NETWORK)]);
    let (socket, _other) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
    let port = |station| Fact::Port(PortId(5), port_of(station));
    let first = port(station(2, &["10.0.0.2/24"]));
    assert_eq!(pair.tell(vec![Step::Set(first.clone(), 1)], &[socket.into()]), []);
    begin_flows(&mut pair, 2, 3);
    begin_flows(&mut pair, 3, 4);
    let flows = |pair: &Pair| pair.datapath.nat.stats().flows;
    // Another name or address beside it, and the same again.
    let more = port(station(2, &["10.0.0.2/24", "10.0.0.9/24"]));
    assert_eq!(pair.tell(vec![Step::Set(more, 0), Step::Set(first.clone(), 0)], &[]), []);
    assert_eq!(flows(&pair), 7);
    let other = port(station(2, &["10.0.0.4/24"]));
    assert_eq!(pair.tell(vec![Step::Set(other, 0)], &[]), []);
    assert_eq!(flows(&pair), 4, "an address that it has no more");
    let key = first.key();
    assert_eq!(pair.tell(vec![Step::Set(first, 0)], &[]), []);
    begin_flows(&mut pair, 2, 3);
    assert_eq!(pair.tell(vec![Step::Remove(key)], &[]), []);
    assert_eq!((flows(&pair), pair.datapath.nat.stats().mappings), (4, 4), "those of somebody else stay");
    assert!(!pair.datapath.nat.has_changes(), "and the next datapath will find no others");
}
