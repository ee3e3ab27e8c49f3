//! Multicast goes to members, and nothing is lost when the switch has just been started.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_engine::{Audience, Gateway, Limits, Network, Port, Station, Switch, Verdicts};
use vswitch_frame::{DropReason, GroupId, Instant, Mac, NetworkId, Pool, PortId};

use crate::packets::{Host, ethernet, host, ip, udp};

const NETWORK: NetworkId = NetworkId(0);
const GROUP: &str = "239.1.2.3";
const GROUP_V6: &str = "ff05::123";

/// A network whose gateway has an address of each family, and ports from 1 on, whose MACs end alike.
struct Bench {
    switch: Switch,
    pool: Pool,
    now: Instant,
}

/// Where a frame went: a drop reason, or the ports, in order.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Dropped(DropReason),
    To(Vec<u16>),
}

use Fate::{Dropped, To};

impl Bench {
    fn new(ports: u16) -> Self {
        let mut switch = Switch::new(Limits::default(), 1);
        let addresses = ["10.0.0.254", "fd00::fe"].map(|text| text.parse().expect("an address"));
        let gateway =
            Gateway { mac: Mac([2, 0, 0, 0, 0, 254]), addresses: addresses.into(), isolated: false };
        let subnets = ["10.0.0.0/24", "fd00::/64"].map(|text| text.parse().expect("a subnet")).into();
        let network = Network { gateway: Some(gateway), subnets, ..Network::default() };
        switch.add_network(NETWORK, network).expect("new");
        let mut bench = Self { switch, pool: Pool::new(4), now: Instant::ZERO + Duration::from_secs(1000) };
        (1..=ports).for_each(|id| bench.port(id, GroupId::own(PortId(id)), Station::Unknown));
        bench
    }

    /// One whose ports have all been asked, so that it knows all groups.
    fn settled(ports: u16) -> Self {
        let mut bench = Self::new(ports);
        (0..10).for_each(|_| drop(bench.after(1)));
        bench
    }

    fn port(&mut self, id: u16, group: GroupId, station: Station) {
        let addresses = vec![Mac([2, 0, 0, 0, 0, id.to_be_bytes()[1]])];
        let port = Port { network: NETWORK, group, mtu: 1500, addresses, station };
        self.switch.add_port(PortId(id), port).expect("new");
    }

    /// Lets time pass; returns the queries that were sent and to which ports.
    fn after(&mut self, seconds: u64) -> Vec<(Vec<u8>, Vec<u16>)> {
        let until = self.now + Duration::from_secs(seconds);
        let mut queries = Vec::new();
        self.ask(&mut queries);
        while let Some(at) = self.switch.poll_at().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.switch.poll(self.now);
            self.ask(&mut queries);
        }
        self.now = until;
        self.switch.poll(until);
        queries
    }

    fn ask(&mut self, queries: &mut Vec<(Vec<u8>, Vec<u16>)>) {
        while let Some(query) = self.switch.next_query() {
            let ports = self.switch.query_targets(&query).map(|(port, _)| port.0).collect();
            queries.push((query.bytes, ports));
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Fate {
        let ingress = PortId(u16::from(bytes[11]));
        let mut frame = self.pool.take().expect("a slot");
        frame.fill(bytes);
        let mut verdicts = Verdicts::default();
        self.switch.process(ingress, &mut vec![frame], &mut verdicts, self.now);
        assert_eq!(verdicts.len(), 1);
        let (fate, frame) = if let Some((reason, port, frame)) = verdicts.drop.pop() {
            assert_eq!(port, ingress);
            (Dropped(reason), frame)
        } else if let Some((audience, frame)) = verdicts.multicast.pop() {
            (To(self.audience(ingress, audience)), frame)
        } else {
            let mut targets: Vec<u16> = self.switch.flood_targets(ingress).map(|(port, _)| port.0).collect();
            targets.sort_unstable();
            (To(targets), verdicts.flood.pop().expect("flooded"))
        };
        self.pool.free(frame);
        fate
    }

    fn audience(&self, ingress: PortId, audience: Audience) -> Vec<u16> {
        let mut targets: Vec<u16> =
            self.switch.multicast_targets(ingress, audience).map(|(port, _)| port.0).collect();
        targets.sort_unstable();
        targets
    }
}

fn group(text: &str) -> Host {
    let ip = text.parse().expect("an address");
    let mac = match ip {
        std::net::IpAddr::V4(ip) => {
            let [_, b, c, d] = ip.octets();
            [0x01, 0, 0x5e, b & 0x7f, c, d]
        }
        std::net::IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [0x33, 0x33, a, b, c, d]
        }
    };
    Host { mac: Mac(mac), ip }
}

fn member(number: u8) -> Host {
    host(number, &format!("10.0.0.{number}"))
}

fn member_v6(number: u8) -> Host {
    host(number, &format!("fe80::{number}"))
}

fn data(number: u8, to: &str) -> Vec<u8> {
    udp((member(number), 1), (group(to), 2))
}

fn data_v6(number: u8, to: &str) -> Vec<u8> {
    udp((member_v6(number), 1), (group(to), 2))
}

fn octets(text: &str) -> Vec<u8> {
    match text.parse().expect("an address") {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An IGMP message of versions 1 and 2.
fn igmp(number: u8, kind: u8, about: &str) -> Vec<u8> {
    let body = [&[kind, 0, 0, 0][..], &octets(about)].concat();
    ip(member(number), group(about), 2, body, Some(2))
}

/// An IGMPv3 report: kinds of records, groups, and numbers of sources.
fn igmp_v3(number: u8, records: &[(u8, &str, u8)]) -> Vec<u8> {
    let count = u8::try_from(records.len()).expect("few");
    let mut body = vec![0x22, 0, 0, 0, 0, 0, 0, count];
    for (kind, about, sources) in records {
        body.extend([*kind, 0, 0, *sources]);
        body.extend(octets(about));
        body.extend([10, 9, 9, 9].repeat(usize::from(*sources)));
    }
    ip(member(number), group("224.0.0.22"), 2, body, Some(2))
}

fn mld(number: u8, kind: u8, about: &str) -> Vec<u8> {
    let body = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &octets(about)].concat();
    ip(member_v6(number), group(about), 58, body, Some(2))
}

fn mld_v2(number: u8, kind: u8, about: &str) -> Vec<u8> {
    let body = [&[143, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0][..], &octets(about)].concat();
    ip(member_v6(number), group("ff02::16"), 58, body, Some(2))
}

const REPORTED: Fate = Dropped(DropReason::Snooped);
const NOBODY: Fate = Dropped(DropReason::NoMember);

#[test]
fn a_group_is_for_its_members() {
    let joins: [(&str, Vec<u8>, Vec<u8>); 7] = [
        ("IGMPv1", igmp(2, 0x12, GROUP), data(1, GROUP)),
        ("IGMPv2", igmp(2, 0x16, GROUP), data(1, GROUP)),
        ("IGMPv3, any source", igmp_v3(2, &[(1, "239.9.9.9", 0), (4, GROUP, 0)]), data(1, GROUP)),
        ("IGMPv3, one source", igmp_v3(2, &[(5, GROUP, 2), (1, "239.9.9.9", 0)]), data(1, GROUP)),
        ("MLDv1", mld(2, 131, GROUP_V6), data_v6(1, GROUP_V6)),
        ("MLDv2", mld_v2(2, 4, GROUP_V6), data_v6(1, GROUP_V6)),
        ("MLDv2 again", mld_v2(2, 2, GROUP_V6), data_v6(1, GROUP_V6)),
    ];
    for (what, report, frame) in joins {
        let mut bench = Bench::settled(3);
        assert_eq!(bench.send(&frame), NOBODY, "{what}");
        assert_eq!(bench.send(&report), REPORTED, "{what}: no other host sees it");
        assert_eq!(bench.send(&frame), To(vec![2]), "{what}");
        assert_eq!(bench.send(&data(1, "239.1.2.4")), NOBODY, "{what}: another group");
        assert!(bench.switch.remove_port(PortId(2)));
        assert_eq!(bench.send(&frame), NOBODY, "{what}");
    }
}

#[test]
fn groups_that_share_a_mac_stay_apart() {
    let mut bench = Bench::settled(3);
    bench.send(&igmp(2, 0x16, "239.1.2.3"));
    bench.send(&igmp(3, 0x16, "239.129.2.3"));
    assert_eq!(group("239.1.2.3").mac, group("239.129.2.3").mac);
    assert_eq!(bench.send(&data(1, "239.1.2.3")), To(vec![2]));
    assert_eq!(bench.send(&data(1, "239.129.2.3")), To(vec![3]));
}

#[test]
fn what_hosts_need_not_join_is_flooded() {
    let mut bench = Bench::settled(3);
    for frame in [
        data(1, "224.0.0.251"),
        data_v6(1, "ff02::fb"),
        data_v6(1, "ff02::1:ff00:1"),
        ethernet(member(1).mac, group(GROUP).mac, 0x88b5, &[0; 46]),
        ethernet(member(1).mac, Mac::BROADCAST, 0x88b5, &[0; 46]),
        udp((member(1), 1), (Host { mac: group(GROUP).mac, ..member(2) }, 2)),
    ] {
        assert_eq!(bench.send(&frame), To(vec![2, 3]));
    }
}

#[test]
fn a_new_port_hears_everything_until_it_was_asked_twice() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.switch.poll_at(), Some(Instant::ZERO), "at once");
    bench.after(0);
    assert_eq!(bench.send(&data(1, GROUP)), To(vec![2]));
    let queries = bench.after(5);
    assert_eq!(queries.len(), 8, "twice, in two families, containers and host");
    assert!(queries.iter().all(|(_, ports)| ports.is_empty() || *ports == [1, 2]));
    assert_eq!(bench.send(&data(1, GROUP)), To(vec![2]));
    bench.after(2);
    assert_eq!(bench.send(&data(1, GROUP)), NOBODY);
    bench.port(3, GroupId::own(PortId(3)), Station::Unknown);
    bench.after(0);
    assert_eq!(bench.send(&data(1, GROUP)), To(vec![3]));
}

#[test]
fn queries_are_well_formed_and_regular() {
    let mut bench = Bench::settled(1);
    bench.port(9, GroupId::own(PortId(9)), Station::Host);
    bench.after(10);
    let queries = bench.after(125);
    assert_eq!(queries.len(), 4);
    let (igmp, containers) = &queries[0];
    assert_eq!(containers, &[1]);
    assert_eq!(igmp[..14], [1, 0, 0x5e, 0, 0, 1, 2, 0, 0, 0, 0, 254, 8, 0]);
    assert_eq!((igmp[22], &igmp[26..30], &igmp[30..34]), (1, &[10, 0, 0, 254][..], &[224, 0, 0, 1][..]));
    assert_eq!((igmp[38], igmp[39], igmp.len()), (0x11, 100, 50), "ten seconds to answer");
    let (_, host) = &queries[1];
    assert_eq!(host, &[9]);
    assert_eq!(queries[1].0[26..30], [0; 4], "the host has the gateway's address");
    let (mld, _) = &queries[2];
    assert_eq!(mld[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 254, 0x86, 0xdd]);
    assert_eq!((mld[21], mld[22], mld[62], mld.len()), (1, 0xfe, 130, 90));
    // Our own queries are understood: a query is flooded, and its sender is a router.
    for bytes in [igmp, mld] {
        let mut other = Bench::settled(2);
        let mut foreign = bytes.clone();
        foreign[11] = 1;
        assert_eq!(other.send(&foreign), To(vec![2]));
        assert_eq!(other.send(&data(2, GROUP)), To(vec![1]), "checksums are right");
    }
}

#[test]
fn a_membership_ends_when_it_is_left_or_not_renewed() {
    let mut bench = Bench::settled(2);
    let leaves = [igmp(2, 0x17, GROUP), igmp_v3(2, &[(3, GROUP, 0)])];
    for leave in leaves {
        bench.send(&igmp(2, 0x16, GROUP));
        assert_eq!(bench.send(&leave), REPORTED);
        let asked = bench.after(1);
        let group_address = octets(GROUP);
        assert!(asked.iter().any(|(query, ports)| *ports == [2] && query[42..46] == group_address[..]));
        assert_eq!(bench.send(&data(1, GROUP)), To(vec![2]), "somebody else may still want it");
        bench.after(2);
        assert_eq!(bench.send(&data(1, GROUP)), NOBODY);
    }
    bench.send(&mld(2, 131, GROUP_V6));
    bench.send(&mld(2, 132, GROUP_V6));
    bench.send(&mld(2, 131, GROUP_V6));
    bench.after(200);
    assert_eq!(bench.send(&data_v6(1, GROUP_V6)), To(vec![2]), "renewed after leaving");
    bench.after(61);
    assert_eq!(bench.send(&data_v6(1, GROUP_V6)), NOBODY);
}

#[test]
fn a_router_hears_reports_and_every_group() {
    let mut bench = Bench::settled(3);
    let query = ip(member(3), group("224.0.0.1"), 2, vec![0x11, 100, 0, 0, 0, 0, 0, 0], Some(2));
    assert_eq!(bench.send(&query), To(vec![1, 2]));
    assert_eq!(bench.send(&igmp(2, 0x16, GROUP)), To(vec![3]));
    assert_eq!(bench.send(&data(1, GROUP)), To(vec![2, 3]));
    assert_eq!(bench.send(&data(1, "239.1.2.4")), To(vec![3]));
    bench.after(255);
    assert_eq!(bench.send(&data(1, "239.1.2.4")), NOBODY);
}

#[test]
fn groups_of_isolation_hold_for_multicast() {
    let mut bench = Bench::new(0);
    let containers = GroupId::containers_of(NETWORK);
    (1..=2).for_each(|id| bench.port(id, containers, Station::Unknown));
    bench.port(3, GroupId::own(PortId(3)), Station::Host);
    bench.switch.set_host_addresses(vec![[10, 0, 0, 3].into()]);
    (0..10).for_each(|_| drop(bench.after(1)));
    for id in 2..=3 {
        bench.send(&igmp(id, 0x16, GROUP));
    }
    assert_eq!(bench.send(&data(1, GROUP)), To(vec![3]));
    assert_eq!(bench.send(&data(3, GROUP)), To(vec![2]));
}

#[test]
fn a_port_at_its_limit_hears_everything() {
    let mut bench = Bench::settled(3);
    let address = |number: u16| format!("239.2.{}.{}", number >> 8, number & 0xff);
    for number in 0..256 {
        bench.send(&igmp(2, 0x16, &address(number)));
    }
    assert_eq!(bench.send(&data(1, &address(255))), To(vec![2]));
    assert_eq!(bench.send(&data(1, &address(256))), NOBODY);
    bench.send(&igmp(2, 0x16, &address(256)));
    assert_eq!(bench.send(&data(1, &address(256))), To(vec![2]));
    assert_eq!(bench.send(&data(1, &address(300))), To(vec![2]), "all of them, rather than not that one");
    bench.after(260);
    assert_eq!(bench.send(&data(1, &address(300))), NOBODY);
}

#[test]
fn a_report_that_is_not_sound_says_nothing() {
    let mut bench = Bench::settled(2);
    let mut forged = igmp(2, 0x16, GROUP);
    *forged.last_mut().expect("bytes") ^= 1;
    assert_eq!(bench.send(&forged), NOBODY, "a wrong checksum: a frame to a group without members");
    let mut far = mld(2, 131, GROUP_V6);
    far[21] = 64;
    assert_eq!(bench.send(&far), NOBODY, "MLD from beyond a router");
    assert_eq!(bench.send(&data(1, GROUP)), NOBODY);
    assert_eq!(bench.send(&data_v6(1, GROUP_V6)), NOBODY);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in 0..4usize, noise in vec(any::<u8>(), 0..120)) {
        let mut bench = Bench::settled(2);
        let kinds = [0x22, 0x16, 143, 131];
        let body = [&[kinds[kind], 0, 0, 0][..], &noise].concat();
        let frame = if kind < 2 {
            ip(member(2), group("224.0.0.22"), 2, body, Some(2))
        } else {
            ip(member_v6(2), group("ff02::16"), 58, body, Some(2))
        };
        bench.send(&frame);
        bench.after(300);
        prop_assert_eq!(bench.send(&data(1, "239.255.255.255")), NOBODY);
    }
}
