//! Port security: what a container may send and what not, one frame a line.

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_engine::{Endpoint, Limits, Network, Port, Station, Switch, Verdicts};
use vswitch_frame::{DropReason, GroupId, Instant, Mac, NetworkId, Pool, PortId};

use crate::packets::{Host, UDP, arp, ethernet, host, icmp, ip, tagged, udp};

const NETWORK: NetworkId = NetworkId(0);
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// A switch with a container at port 0, which is guarded, and somebody unknown at port 1.
struct Bench {
    switch: Switch,
    pool: Pool,
}

fn container() -> Station {
    let addresses = ["10.0.0.1/24", "fd00::1/64"].map(|text| text.parse().expect("net"));
    Station::Container(Endpoint { addresses: addresses.into(), ..Endpoint::default() })
}

impl Bench {
    fn new(port_security: bool) -> Self {
        let mut switch = Switch::new(Limits::default(), 1);
        switch.add_network(NETWORK, Network { port_security, ..Network::default() }).expect("new");
        for (id, station) in [(0, container()), (1, Station::Unknown)] {
            let port = Port {
                network: NETWORK,
                group: GroupId::own(PortId(id)),
                mtu: 1500,
                addresses: vec![Mac([2, 0, 0, 0, 0, 1 + id.to_be_bytes()[1]])],
                station,
            };
            switch.add_port(PortId(id), port).expect("new");
        }
        Self { switch, pool: Pool::new(4) }
    }

    /// Why a frame is dropped, if it is.
    fn fate(&mut self, ingress: u16, bytes: &[u8]) -> Option<DropReason> {
        let mut frame = self.pool.take().expect("a slot");
        frame.fill(bytes);
        let mut verdicts = Verdicts::default();
        self.switch.process(PortId(ingress), &mut vec![frame], &mut verdicts, Instant::ZERO);
        assert_eq!(verdicts.len(), 1);
        let reason = verdicts.drop.first().map(|(reason, _, _)| *reason);
        let dropped = verdicts.drop.drain(..).map(|(_, _, frame)| frame);
        let forwarded = verdicts.forward.drain(..).map(|(_, frame)| frame);
        dropped.chain(forwarded).chain(verdicts.flood.drain(..)).for_each(|frame| self.pool.free(frame));
        reason
    }
}

fn own(ip: &str) -> Host {
    host(1, ip)
}

fn to_v4() -> Host {
    host(2, "10.0.0.2")
}

fn to_v6() -> Host {
    host(2, "fd00::2")
}

/// A neighbour solicitation (135) or advertisement (136) with a link-layer option.
fn discovery(from: Host, kind: u8, target: &str, option: Mac) -> Vec<u8> {
    let target: std::net::Ipv6Addr = target.parse().expect("an address");
    let option_kind = kind - 134;
    let rest = [&[0; 4][..], &target.octets(), &[option_kind, 1], &option.0].concat();
    icmp(from, to_v6(), kind, &rest)
}

fn fragment_v6(next: u8, offset: u16, body: &[u8]) -> Vec<u8> {
    let header = [&[next, 0][..], &(offset << 3 | 1).to_be_bytes(), &[0, 0, 0, 1], body].concat();
    ip(own("fd00::1"), to_v6(), 44, header, None)
}

fn hidden(protocol: u8, extensions: usize) -> Vec<u8> {
    let mut body = [60, 0, 1, 4, 0, 0, 0, 0].repeat(extensions - 1);
    body.extend([protocol, 0, 1, 4, 0, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0]);
    ip(own("fd00::1"), to_v6(), 60, body, None)
}

/// Frames, and why each is dropped, if it is.
fn table() -> Vec<(&'static str, Vec<u8>, Option<DropReason>)> {
    use DropReason::{RogueDhcp, RogueRa, SpoofedArp, SpoofedIp, SpoofedMac, SpoofedNd};
    let (v4, v6, zero, none) = (own("10.0.0.1"), own("fd00::1"), own("0.0.0.0"), own("::"));
    let own_mac = v4.mac;
    let link_local = own("fe80::ff:fe00:1");
    let foreign = Host { mac: OTHER_MAC, ..v4 };
    let solicit = [0; 4];
    let mut late_advertisement = vec![134];
    late_advertisement.resize(16, 0);
    vec![
        ("own IPv4", udp((v4, 5), (to_v4(), 6)), None),
        ("own IPv6", udp((v6, 5), (to_v6(), 6)), None),
        ("raw Ethernet", ethernet(own_mac, Mac::BROADCAST, 0x88b5, &[0; 46]), None),
        ("a private link-local address", udp((own("fe80::1234:5678:9abc:def0"), 5), (to_v6(), 6)), None),
        ("the link-local address of the own MAC", udp((link_local, 5), (to_v6(), 6)), None),
        ("that of another MAC", udp((own("fe80::ff:fe00:9"), 5), (to_v6(), 6)), Some(SpoofedIp)),
        ("another MAC", udp((foreign, 5), (to_v4(), 6)), Some(SpoofedMac)),
        ("raw Ethernet of another", ethernet(OTHER_MAC, Mac::BROADCAST, 0x88b5, &[0; 46]), Some(SpoofedMac)),
        ("another IPv4", udp((own("10.0.0.3"), 5), (to_v4(), 6)), Some(SpoofedIp)),
        ("another IPv6", udp((own("fd00::3"), 5), (to_v6(), 6)), Some(SpoofedIp)),
        ("DHCP discovery", udp((zero, 68), (host(2, "255.255.255.255"), 67)), None),
        ("DHCP renewal", udp((v4, 68), (to_v4(), 67)), None),
        ("other traffic from nowhere", udp((zero, 68), (to_v4(), 69)), Some(SpoofedIp)),
        ("a DHCP offer", udp((v4, 67), (to_v4(), 68)), Some(RogueDhcp)),
        ("a DHCPv6 advertisement", udp((v6, 547), (to_v6(), 546)), Some(RogueDhcp)),
        ("its first fragment", fragment_v6(UDP, 0, &[2, 35, 2, 34, 0, 12, 0, 0]), Some(RogueDhcp)),
        ("the bytes of a later one mean nothing", fragment_v6(UDP, 4, &[2, 35, 2, 34, 0, 12, 0, 0]), None),
        ("own ARP", arp(own_mac, v4), None),
        ("an ARP probe", arp(own_mac, zero), None),
        ("ARP for another address", arp(own_mac, own("10.0.0.3")), Some(SpoofedArp)),
        ("ARP with another sender MAC", arp(own_mac, foreign), Some(SpoofedArp)),
        ("ARP cut short", ethernet(own_mac, Mac::BROADCAST, 0x0806, &[0, 1, 8, 0, 6, 4]), Some(SpoofedArp)),
        ("own solicitation", discovery(v6, 135, "fd00::2", own_mac), None),
        ("with another MAC", discovery(v6, 135, "fd00::2", OTHER_MAC), Some(SpoofedNd)),
        ("duplicate address detection", icmp(none, to_v6(), 135, &[0; 20]), None),
        ("an echo request from nowhere", icmp(none, to_v6(), 128, &[0; 8]), Some(SpoofedIp)),
        ("own advertisement", discovery(v6, 136, "fd00::1", own_mac), None),
        ("of a link-local address", discovery(link_local, 136, "fe80::ff:fe00:1", own_mac), None),
        ("for another", discovery(v6, 136, "fd00::2", own_mac), Some(SpoofedNd)),
        ("for the gateway's", discovery(v6, 136, "fe80::ff:fe00:9", own_mac), Some(SpoofedNd)),
        ("with another MAC", discovery(v6, 136, "fd00::1", OTHER_MAC), Some(SpoofedNd)),
        ("cut short", icmp(v6, to_v6(), 136, &[0; 8]), Some(SpoofedNd)),
        (
            "an option of no length",
            icmp(v6, to_v6(), 135, &[&[0; 20][..], &[1, 0]].concat()),
            Some(SpoofedNd),
        ),
        ("a router solicitation", icmp(none, to_v6(), 133, &solicit), None),
        ("a router advertisement", icmp(link_local, to_v6(), 134, &[0; 12]), Some(RogueRa)),
        ("a redirect", icmp(v4, to_v4(), 5, &[0; 4]), Some(RogueRa)),
        ("an IPv6 redirect", icmp(link_local, to_v6(), 137, &[0; 36]), Some(RogueRa)),
        ("one behind options", hidden(58, 2), Some(RogueRa)),
        ("one behind more than are looked through", hidden(58, 9), Some(RogueRa)),
        ("MLD from nowhere", icmp(none, to_v6(), 143, &[0; 4]), None),
    ]
}

#[test]
fn a_container_speaks_for_itself() {
    let mut bench = Bench::new(true);
    for (what, frame, expected) in table() {
        assert_eq!(bench.fate(0, &frame), expected, "{what}");
        assert_eq!(bench.fate(0, &tagged(&frame)), expected, "{what}, tagged");
    }
    let learned: Vec<Mac> =
        bench.switch.table(NETWORK).filter(|entry| !entry.fixed).map(|entry| entry.mac).collect();
    assert_eq!(learned, [], "nothing is learned from a forged frame");
}

#[test]
fn who_is_not_a_container_or_is_trusted_is_not_looked_at() {
    let mut bench = Bench::new(false);
    for (what, frame, _) in table() {
        assert_eq!(bench.fate(0, &frame), None, "{what}, without port security");
    }
    let mut bench = Bench::new(true);
    assert!(bench.switch.set_station(PortId(0), Station::Host));
    for (what, frame, _) in table() {
        assert_eq!(bench.fate(0, &frame), None, "{what}, from the host");
    }
    assert!(bench.switch.set_station(PortId(0), container()));
    let forged = udp((own("10.0.0.3"), 5), (to_v4(), 6));
    assert_eq!(bench.fate(0, &forged), Some(DropReason::SpoofedIp), "a container again");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in 0..4usize, noise in vec(any::<u8>(), 0..120), cut in 0..100usize) {
        let mut bench = Bench::new(true);
        let table = table();
        let mut frame = table[(kind * 31 + noise.len()) % table.len()].1.clone();
        for (byte, noise) in frame.iter_mut().skip(14 + kind * 20).zip(&noise) {
            *byte ^= noise & 3;
        }
        frame.truncate(frame.len() - cut.min(frame.len()));
        bench.fate(0, &frame);
        let mut random = ethernet(Mac([2, 0, 0, 0, 0, 1]), OTHER_MAC, [0x0800, 0x86dd, 0x0806, 0x8100][kind], &noise);
        bench.fate(0, &random);
        random.truncate(noise.len());
        bench.fate(0, &random);
    }
}
