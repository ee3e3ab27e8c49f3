//! A tunnel to other hosts of the network: what passes between it and a container, the host and the gateway.

use vswitch_engine::{Endpoint, Gateway, Limits, Network, Port, Station, Switch, Verdicts};
use vswitch_frame::{DropReason, GroupId, Instant, Mac, NetworkId, Pool, PortId};

use crate::packets::{Host, UDP, arp, host, ip};

const NETWORK: NetworkId = NetworkId(0);
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 254]);
const CONTAINER: PortId = PortId(1);
const HOST: PortId = PortId(2);
const TUNNEL: PortId = PortId(3);
/// The MTU of the tunnel.
const ROOM: usize = 1400;

struct Bench {
    switch: Switch,
    pool: Pool,
}

/// Where a frame went.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    To(PortId),
    Flood(Vec<PortId>),
    /// The sender was told as often as the number says.
    Dropped(DropReason, usize),
}

impl Bench {
    /// A container, the host and a tunnel in these groups.
    fn new(groups: [GroupId; 3]) -> Self {
        let mut switch = Switch::new(Limits::default(), 1);
        let gateway = Gateway {
            mac: GATEWAY,
            addresses: vec!["10.0.0.254".parse().expect("an address")],
            isolated: false,
        };
        let subnets = vec!["10.0.0.0/24".parse().expect("a net")];
        let network =
            Network { subnets, gateway: Some(gateway), port_security: true, icc: true, ..Network::default() };
        switch.add_network(NETWORK, network).expect("new");
        let addresses = vec!["10.0.0.1/24".parse().expect("a net")];
        let container = Station::Container(Endpoint { addresses, ..Endpoint::default() });
        let ports = [
            (CONTAINER, container, vec![own().mac], 1500),
            (HOST, Station::Host, vec![GATEWAY], 1500),
            (TUNNEL, Station::Tunnel, Vec::new(), ROOM),
        ];
        for ((id, station, addresses, mtu), group) in ports.into_iter().zip(groups) {
            let port = Port { network: NETWORK, group, mtu, addresses, station };
            switch.add_port(id, port).expect("new");
        }
        Self { switch, pool: Pool::new(8) }
    }

    fn open() -> Self {
        Self::new([CONTAINER, HOST, TUNNEL].map(GroupId::own))
    }

    fn send(&mut self, ingress: PortId, bytes: &[u8]) -> Fate {
        let mut frame = self.pool.take().expect("a slot");
        frame.fill(bytes);
        let mut verdicts = Verdicts::default();
        self.switch.process(ingress, &mut vec![frame], &mut verdicts, Instant::ZERO);
        let told = self.switch.serve(ingress, &mut verdicts, &mut self.pool, Instant::ZERO);
        assert_eq!(verdicts.len(), 1 + told, "{verdicts:?}");
        let flooded = !verdicts.flood.is_empty() || !verdicts.multicast.is_empty();
        let fate = match (verdicts.drop.first(), verdicts.forward.first()) {
            (Some((reason, ..)), _) => Fate::Dropped(*reason, told),
            (None, Some((egress, _))) => Fate::To(*egress),
            (None, None) => {
                assert!(flooded, "{verdicts:?}");
                let mut ports: Vec<PortId> =
                    self.switch.flood_targets(ingress).map(|(port, _)| port).collect();
                ports.sort_unstable();
                Fate::Flood(ports)
            }
        };
        let dropped = verdicts.drop.drain(..).map(|(_, _, frame)| frame);
        let forwarded = verdicts.forward.drain(..).map(|(_, frame)| frame);
        let many = verdicts.multicast.drain(..).map(|(_, frame)| frame);
        let all = dropped.chain(forwarded).chain(many).chain(verdicts.flood.drain(..));
        all.for_each(|frame| self.pool.free(frame));
        fate
    }

    /// Says that somebody is beyond the tunnel.
    fn know(&mut self, who: Host) -> bool {
        self.switch.set_remote(TUNNEL, who.mac, &[who.ip])
    }
}

/// A datagram from a port, to another one.
fn udp(from: Host, to: Host, ports: [u16; 2]) -> Vec<u8> {
    let [source, target] = ports.map(u16::to_be_bytes);
    ip(from, to, UDP, [&source[..], &target, &[0, 8, 0, 0]].concat(), None)
}

fn own() -> Host {
    host(1, "10.0.0.1")
}

fn far() -> Host {
    host(7, "10.0.0.7")
}

fn gateway() -> Host {
    Host { mac: GATEWAY, ip: "10.0.0.254".parse().expect("an address") }
}

#[test]
fn who_is_known_beyond_a_tunnel_is_not_looked_for() {
    let mut bench = Bench::open();
    let hello = udp(own(), far(), [1, 2]);
    assert_eq!(bench.send(CONTAINER, &hello), Fate::Flood(vec![HOST, TUNNEL]));
    assert!(bench.know(far()));
    assert_eq!(bench.send(CONTAINER, &hello), Fate::To(TUNNEL));
    bench.switch.forget_remote(TUNNEL, far().mac);
    assert_eq!(bench.send(CONTAINER, &hello), Fate::Flood(vec![HOST, TUNNEL]));
}

#[test]
fn who_is_beyond_a_tunnel_speaks_for_itself() {
    let mut bench = Bench::open();
    let forged = udp(Host { ip: "10.0.0.9".parse().expect("an address"), ..far() }, own(), [1, 2]);
    let as_gateway = arp(far().mac, Host { mac: far().mac, ..gateway() });
    assert_eq!(bench.send(TUNNEL, &forged), Fate::To(CONTAINER), "nobody says who it is");
    assert!(bench.know(far()));
    assert_eq!(bench.send(TUNNEL, &forged), Fate::Dropped(DropReason::SpoofedIp, 0));
    assert_eq!(bench.send(TUNNEL, &as_gateway), Fate::Dropped(DropReason::SpoofedArp, 0));
    assert_eq!(bench.send(TUNNEL, &udp(far(), own(), [1, 2])), Fate::To(CONTAINER));
    assert_eq!(bench.send(TUNNEL, &udp(far(), own(), [67, 2])), Fate::Dropped(DropReason::RogueDhcp, 0));
    // Nor can a container here be somebody there, or the other way round.
    let mine = udp(Host { mac: own().mac, ..far() }, own(), [1, 2]);
    assert_eq!(bench.send(TUNNEL, &mine), Fate::Dropped(DropReason::SourceTaken, 0));
    assert!(!bench.know(own()), "it lives here");
}

#[test]
fn a_container_that_comes_here_is_here() {
    let mut bench = Bench::open();
    assert!(bench.know(far()));
    let addresses = vec!["10.0.0.7/24".parse().expect("a net")];
    let port = Port {
        network: NETWORK,
        group: GroupId::own(PortId(4)),
        mtu: 1500,
        addresses: vec![far().mac],
        station: Station::Container(Endpoint { addresses, ..Endpoint::default() }),
    };
    bench.switch.add_port(PortId(4), port).expect("the tunnel gives way");
    assert_eq!(bench.send(CONTAINER, &udp(own(), far(), [1, 2])), Fate::To(PortId(4)));
    assert!(!bench.know(far()), "what is said late does not count");
}

#[test]
fn other_hosts_have_gateways_of_their_own() {
    let mut bench = Bench::open();
    let not_served = Fate::Dropped(DropReason::NotServed, 0);
    assert_eq!(bench.send(TUNNEL, &udp(far(), gateway(), [1, 2])), not_served);
    assert_eq!(
        bench.send(TUNNEL, &udp(gateway(), own(), [1, 2])),
        Fate::Dropped(DropReason::SourceTaken, 0),
        "what another host's gateway says is not for containers here"
    );
}

#[test]
fn a_tunnel_and_the_host_are_apart() {
    let mut bench = Bench::open();
    let everybody = Host { mac: Mac::BROADCAST, ip: "10.0.0.255".parse().expect("an address") };
    assert_eq!(bench.send(TUNNEL, &udp(far(), everybody, [1, 2])), Fate::Flood(vec![CONTAINER]));
    assert_eq!(bench.send(HOST, &udp(gateway(), everybody, [1, 2])), Fate::Flood(vec![CONTAINER]));
    assert!(bench.know(far()));
    assert_eq!(bench.send(HOST, &udp(gateway(), far(), [1, 2])), Fate::Dropped(DropReason::Isolated, 0));
}

#[test]
fn containers_that_are_apart_are_so_across_hosts() {
    let containers = GroupId::containers_of(NETWORK);
    let mut bench = Bench::new([containers, GroupId::own(HOST), containers]);
    assert!(bench.know(far()));
    let isolated = Fate::Dropped(DropReason::Isolated, 0);
    assert_eq!(bench.send(CONTAINER, &udp(own(), far(), [1, 2])), isolated);
    assert_eq!(bench.send(TUNNEL, &udp(far(), own(), [1, 2])), isolated);
}

#[test]
fn what_a_tunnel_has_no_room_for_is_told() {
    let mut bench = Bench::open();
    assert!(bench.know(far()));
    let length = 1480u16.to_be_bytes();
    let mut body = [&[0, 1, 0, 2][..], &length, &[0, 0]].concat();
    body.resize(1480, 0);
    let large = ip(own(), far(), UDP, body, None);
    assert_eq!(bench.send(CONTAINER, &large), Fate::Dropped(DropReason::TxTooBig, 1));
    assert!(bench.switch.set_mtu(TUNNEL, 1500));
    assert_eq!(bench.send(CONTAINER, &large), Fate::To(TUNNEL));
}

/// Whether the sender of a frame of the container's would be told that it is too large.
fn can_refuse(bench: &mut Bench, bytes: &[u8]) -> bool {
    let mut frame = bench.pool.take().expect("a slot");
    frame.fill(bytes);
    frame.parse().expect("well-formed");
    let can = bench.switch.can_refuse(CONTAINER, &frame);
    bench.pool.free(frame);
    can
}

#[test]
fn only_who_can_be_told_is_refused() {
    const FLAGS: usize = 20;
    const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
    let mut bench = Bench::open();
    let plain = |flags: [u8; 2]| {
        let mut bytes = udp(own(), far(), [1, 2]);
        bytes[FLAGS..FLAGS + 2].copy_from_slice(&flags);
        bytes
    };
    let with = |at: usize, value: &[u8]| {
        let mut bytes = plain(DONT_FRAGMENT);
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    let tagged = |bytes: Vec<u8>| [&bytes[..12], &[0x81, 0, 0, 7], &bytes[12..]].concat();
    for (bytes, can) in [
        (plain(DONT_FRAGMENT), true),
        // It may be fragmented, or is not the first of its fragments.
        (plain([0, 0]), false),
        (plain([0x40, 9]), false),
        // To many, from nobody, of another network, itself an error, with a tag, no IP.
        (with(0, &[0xff; 6]), false),
        (with(30, &[224, 0, 0, 1]), false),
        (with(26, &[0, 0, 0, 0]), false),
        (with(26, &[10, 1, 0, 1]), false),
        (with(23, &[1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 7, 3]), false),
        (tagged(plain(DONT_FRAGMENT)), false),
        (arp(far().mac, own()), false),
    ] {
        assert_eq!(can_refuse(&mut bench, &bytes), can, "{bytes:02x?}");
    }
    let six = |next: u8| {
        let ends = [[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]; 2].concat();
        // As a fragment header it has UDP behind it.
        let udp = [[17, 1, 0, 1, 0, 16, 0, 0], [0, 1, 0, 2, 0, 8, 0, 0]].concat();
        [&far().mac.0[..], &own().mac.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, next, 64], &ends, &udp].concat()
    };
    const FRAGMENT: u8 = 44;
    assert!(can_refuse(&mut bench, &six(17)));
    assert!(!can_refuse(&mut bench, &six(FRAGMENT)));
}

#[test]
fn without_a_gateway_of_its_family_a_receiver_says_what_does_not_fit() {
    let mut bench = Bench::open();
    assert!(bench.know(far()));
    let [from, to] = [1, 7].map(|last| {
        let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        address[15] = last;
        address
    });
    let body = [&[0, 1, 0, 2, 0x05, 0xa0, 0, 0][..], &[0; 1432]].concat();
    let head = [0x86, 0xdd, 0x60, 0, 0, 0, 0x05, 0xa0, 17, 64];
    let large = [&far().mac.0[..], &own().mac.0, &head, &from, &to, &body].concat();
    let mut frame = bench.pool.take().expect("a slot");
    frame.fill(&large);
    let mut verdicts = Verdicts::default();
    bench.switch.process(CONTAINER, &mut vec![frame], &mut verdicts, Instant::ZERO);
    assert_eq!(bench.switch.serve(CONTAINER, &mut verdicts, &mut bench.pool, Instant::ZERO), 1);
    let (egress, error) = &verdicts.forward[0];
    assert_eq!((*egress, &error.bytes()[22..38], &error.bytes()[38..54]), (CONTAINER, &to[..], &from[..]));
    assert_eq!(error.bytes()[54..56], [2, 0], "packet too big");
    assert_eq!(error.bytes()[60..62], u16::try_from(ROOM).expect("small").to_be_bytes());
}
