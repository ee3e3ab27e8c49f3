//! Questions and the answers they must get.

use proptest::prelude::*;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, QTYPE, Question, RCODE, TYPE};
use vswitch_frame::{Mac, NetworkId, PortId};

use super::message::{self, Query};
use super::*;
use crate::limits::Limits;
use crate::network::Network;
use crate::ports::Port;

const DATAGRAM: Road = Road::Datagram(1452);
const LAN: NetworkId = NetworkId(1);
const BACKUP: NetworkId = NetworkId(2);
const BRIDGE: NetworkId = NetworkId(3);
const VAULT: NetworkId = NetworkId(4);

fn network(name: &str) -> Network {
    Network { name: name.to_owned(), resolves: true, ..Network::default() }
}

fn endpoint(sandbox: u32, priority: i32, addresses: &[&str], names: &[&str]) -> Station {
    Station::Container(Endpoint {
        sandbox,
        priority,
        addresses: addresses.iter().map(|net| net.parse().expect("a subnet")).collect(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        gateways: Vec::new(),
    })
}

/// Sandboxes 1 (web: lan before backup), 2 (db: lan), 3 (db2, an alias "db": backup), 4 (default network
/// only) and 5 (internal network only).
fn switch() -> Switch {
    let mut switch = Switch::new(Limits::default(), 7);
    let networks = [
        (LAN, network("lan")),
        (BACKUP, network("back.up")),
        (BRIDGE, Network { resolves: false, ..network("bridge") }),
        (VAULT, Network { internal: true, ..network("vault") }),
    ];
    for (id, network) in networks {
        switch.add_network(id, network).expect("a network");
    }
    let ports = [
        (LAN, endpoint(1, 0, &["10.0.0.2/24"], &["web", "aaaaaaaaaaaa", "www"])),
        (BACKUP, endpoint(1, -1, &["10.1.0.2/24", "fd00::2/64"], &["web"])),
        (LAN, endpoint(2, 0, &["10.0.0.3/24"], &["db", "Store"])),
        (BACKUP, endpoint(3, 0, &["10.1.0.3/24", "fd00::3/64"], &["db2", "db", "store"])),
        (BACKUP, endpoint(6, 0, &["10.1.0.4/24"], &["db3", "store"])),
        (BRIDGE, endpoint(4, 0, &["10.2.0.2/24"], &["alone"])),
        (VAULT, endpoint(5, 0, &["10.3.0.2/24"], &["gold"])),
    ];
    for (id, (network, station)) in (0..).zip(ports) {
        switch.add_port(PortId(id), Port { network, station, ..Port::default() }).expect("a port");
    }
    switch.add_port(PortId(99), Port { network: LAN, ..Port::default() }).expect("a port");
    switch
}

fn ask(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(0x1234);
    let name = Name::new_unchecked(name);
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), CLASS::IN.into(), false));
    packet.build_bytes_vec().expect("a message")
}

/// The answer to a question: `None` when it is forwarded, else the code and what the records say.
fn told(switch: &Switch, port: u16, name: &str, kind: TYPE) -> Option<(RCODE, Vec<String>)> {
    let mut out = Vec::new();
    let question = ask(name, kind);
    match switch.resolve(PortId(port), &question, DATAGRAM, 1, &mut out) {
        Resolution::Forward => None,
        Resolution::Ignored => panic!("{name}: a question was ignored"),
        Resolution::Answered => {
            assert!(Query::parse(&question).expect("a question").is_answered_by(&out));
            let packet = Packet::parse(&out).expect("an answer");
            assert_eq!(packet.questions[0].qname.to_string(), name);
            let mut records: Vec<String> = packet.answers.iter().map(|record| show(&record.rdata)).collect();
            records.sort();
            Some((packet.rcode(), records))
        }
    }
}

fn show(data: &RData<'_>) -> String {
    if let RData::A(a) = data {
        Ipv4Addr::from(a.address).to_string()
    } else if let RData::AAAA(aaaa) = data {
        Ipv6Addr::from(aaaa.address).to_string()
    } else if let RData::PTR(name) = data {
        name.0.to_string()
    } else {
        panic!("{data:?}")
    }
}

#[test]
fn questions_and_answers() {
    let found = |records: &[&str]| {
        Some((RCODE::NoError, records.iter().map(|record| (*record).to_owned()).collect::<Vec<_>>()))
    };
    let cases = [
        // Names, aliases and short identifiers, whatever their case.
        (0, "db", TYPE::A, found(&["10.0.0.3"])),
        (0, "DB", TYPE::A, found(&["10.0.0.3"])),
        (0, "store", TYPE::A, found(&["10.0.0.3"])),
        (2, "aaaaaaaaaaaa", TYPE::A, found(&["10.0.0.2"])),
        (2, "www", TYPE::A, found(&["10.0.0.2"])),
        // With the name of the network, which chooses it, even if it has a dot.
        (0, "db.lan", TYPE::A, found(&["10.0.0.3"])),
        (0, "db.back.UP", TYPE::A, found(&["10.1.0.3"])),
        (0, "store.back.up", TYPE::A, found(&["10.1.0.3", "10.1.0.4"])),
        (0, "db.vault", TYPE::A, None),
        // The first network in order that has an address wins, whoever asks by whichever port.
        (1, "db", TYPE::A, found(&["10.0.0.3"])),
        (0, "db2", TYPE::A, found(&["10.1.0.3"])),
        (0, "db", TYPE::AAAA, found(&["fd00::3"])),
        // Known, but not so: no error and nothing.
        (2, "web", TYPE::AAAA, found(&[])),
        (2, "web", TYPE::MX, found(&[])),
        (2, "web", TYPE::SRV, found(&[])),
        // Networks the sandbox is not on, and names nobody has.
        (2, "db2", TYPE::A, None),
        (0, "gold", TYPE::A, None),
        (0, "example.com", TYPE::A, None),
        (0, "lan", TYPE::A, None),
        // Addresses.
        (0, "3.0.0.10.in-addr.arpa", TYPE::PTR, found(&["db.lan"])),
        (0, "3.0.1.10.IN-ADDR.arpa", TYPE::PTR, found(&["db2.back.up"])),
        (2, "3.0.1.10.in-addr.arpa", TYPE::PTR, None),
        (0, "3.0.0.10.in-addr.arpa", TYPE::A, None),
        (2, "2.0.2.10.in-addr.arpa", TYPE::PTR, None),
        (0, "999.0.0.10.in-addr.arpa", TYPE::PTR, None),
        // The default network has no names.
        (5, "alone", TYPE::A, None),
        (5, "2.0.2.10.in-addr.arpa", TYPE::PTR, None),
        // An internal network has no others.
        (6, "gold", TYPE::A, found(&["10.3.0.2"])),
        (6, "example.com", TYPE::A, Some((RCODE::ServerFailure, Vec::new()))),
        // A stranger is told nothing.
        (99, "db", TYPE::A, Some((RCODE::Refused, Vec::new()))),
        (98, "db", TYPE::A, Some((RCODE::Refused, Vec::new()))),
    ];
    let switch = switch();
    for (port, name, kind, expected) in cases {
        assert_eq!(told(&switch, port, name, kind), expected, "{name} {kind:?} from port {port}");
    }
    let v6: String = "3000000000000000000000000000 00df"
        .chars()
        .filter(|digit| *digit != ' ')
        .map(|d| format!("{d}."))
        .collect();
    assert_eq!(told(&switch, 3, &format!("{v6}ip6.arpa"), TYPE::PTR), found(&["db2.back.up"]));
}

#[test]
fn what_is_known_follows_the_ports() {
    let mut switch = switch();
    assert!(switch.set_station(PortId(2), endpoint(2, 0, &["10.0.0.9/24"], &["data"])));
    assert_eq!(told(&switch, 0, "db", TYPE::A).expect("the other one").1, ["10.1.0.3"]);
    assert_eq!(told(&switch, 0, "data", TYPE::A).expect("known").1, ["10.0.0.9"]);
    assert_eq!(told(&switch, 0, "3.0.0.10.in-addr.arpa", TYPE::PTR), None);
    assert!(switch.set_station(PortId(1), endpoint(1, 5, &["10.1.0.2/24"], &["web"])));
    assert_eq!(told(&switch, 0, "store", TYPE::A).expect("the first now").1, ["10.1.0.3", "10.1.0.4"]);
    switch.remove_port(PortId(3));
    switch.remove_network(BACKUP);
    assert_eq!(told(&switch, 0, "store", TYPE::A), None);
    for id in [LAN, BRIDGE, VAULT] {
        for port in switch.remove_network(id) {
            assert!(!switch.remove_port(port));
        }
    }
    assert!(switch.names.is_empty(), "{:?}", switch.names);
}

#[test]
fn endpoints_of_other_hosts_are_answered_like_those_of_this_one() {
    let mut switch = switch();
    let remote = |addresses: &[&str], names: &[&str]| Remote {
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let (one, other) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    let found =
        |records: &[&str]| Some((RCODE::NoError, records.iter().map(|text| (*text).to_owned()).collect()));
    switch.name_remote(LAN, one, Some(remote(&["10.0.0.7", "fd01::7"], &["far", "Store"])));
    switch.name_remote(LAN, other, Some(remote(&["10.0.0.8"], &["far"])));
    switch.name_remote(BRIDGE, one, Some(remote(&["10.2.0.7"], &["far"])));
    assert_eq!(told(&switch, 0, "far", TYPE::A), found(&["10.0.0.7", "10.0.0.8"]));
    assert_eq!(told(&switch, 0, "FAR.lan", TYPE::AAAA), found(&["fd01::7"]));
    assert_eq!(told(&switch, 0, "store", TYPE::A), found(&["10.0.0.3", "10.0.0.7"]));
    assert_eq!(told(&switch, 0, "7.0.0.10.in-addr.arpa", TYPE::PTR), found(&["far.lan"]));
    assert_eq!(told(&switch, 5, "far", TYPE::A), None, "the default network has no names");
    // It moved to another address and lost a name; the other one is gone.
    switch.name_remote(LAN, one, Some(remote(&["10.0.0.9"], &["far"])));
    switch.name_remote(LAN, other, None);
    assert_eq!(told(&switch, 0, "far", TYPE::A), found(&["10.0.0.9"]));
    assert_eq!(told(&switch, 0, "store", TYPE::A), found(&["10.0.0.3"]));
    assert_eq!(told(&switch, 0, "7.0.0.10.in-addr.arpa", TYPE::PTR), None);
    switch.forget_remote_names();
    assert_eq!(told(&switch, 0, "far", TYPE::A), None);
    switch.name_remote(NetworkId(77), one, Some(remote(&["10.0.0.9"], &["far"])));
    for id in [LAN, BACKUP, BRIDGE, VAULT] {
        switch.remove_network(id);
    }
    assert!(switch.names.is_empty(), "{:?}", switch.names);
}

#[test]
fn answers_are_shuffled_and_short_lived() {
    let switch = switch();
    let question = ask("store.back.up", TYPE::A);
    let mut firsts = std::collections::BTreeSet::new();
    for chance in 0..32 {
        let mut out = Vec::new();
        switch.resolve(PortId(0), &question, DATAGRAM, chance, &mut out);
        let packet = Packet::parse(&out).expect("an answer");
        assert!(packet.answers.iter().all(|record| record.ttl == TTL_SECONDS));
        firsts.insert(show(&packet.answers[0].rdata));
    }
    assert_eq!(firsts.len(), 2);
}

#[test]
fn an_answer_keeps_within_what_the_client_takes() {
    let mut switch = switch();
    for number in 0..200u8 {
        let station = endpoint(100, 0, &[&format!("10.0.1.{number}/24")], &["crowd"]);
        let port = Port { network: LAN, station, ..Port::default() };
        switch.add_port(PortId(200 + u16::from(number)), port).expect("a port");
    }
    let plain = ask("crowd", TYPE::A);
    let mut edns = Packet::parse(&plain).expect("a question");
    let opt = |size| simple_dns::rdata::OPT { opt_codes: Vec::new(), udp_packet_size: size, version: 0 };
    let mut with = |size| {
        *edns.opt_mut() = Some(opt(size));
        edns.build_bytes_vec().expect("a message")
    };
    let cases = [
        (plain.clone(), DATAGRAM, 512, true),
        (with(100), DATAGRAM, 512, true),
        (with(1000), DATAGRAM, 1000, true),
        (with(60_000), DATAGRAM, 1232, true),
        (with(60_000), Road::Datagram(548), 548, true),
        (plain, Road::Stream, 65_535, false),
    ];
    for (question, road, most, cut) in cases {
        let mut out = Vec::new();
        switch.resolve(PortId(0), &question, road, 1, &mut out);
        let packet = Packet::parse(&out).expect("an answer");
        assert!(out.len() <= most && out.len() + 16 > most || !cut, "{} of {most}", out.len());
        assert_eq!(message::is_truncated(&out), cut);
        assert_eq!(packet.answers.len() < 200, cut);
        assert_eq!(packet.opt().is_some(), Packet::parse(&question).expect("a question").opt().is_some());
    }
}

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let switch = switch();
    let with = |change: fn(&mut Vec<u8>)| {
        let mut question = ask("db", TYPE::A);
        change(&mut question);
        question
    };
    let cases = [
        ("too short", with(|bytes| bytes.truncate(11)), None),
        ("an answer", with(|bytes| bytes[2] |= 0x80), None),
        ("an update", with(|bytes| bytes[2] |= 0x28), Some(RCODE::NotImplemented)),
        ("two questions", with(|bytes| bytes[5] = 2), Some(RCODE::FormatError)),
        ("no question", with(|bytes| bytes[5] = 0), Some(RCODE::FormatError)),
        ("cut short", with(|bytes| bytes.truncate(15)), Some(RCODE::FormatError)),
        ("a pointer", with(|bytes| bytes[12] = 0xc0), Some(RCODE::FormatError)),
        ("records missing", with(|bytes| bytes[11] = 1), Some(RCODE::FormatError)),
    ];
    for (what, question, expected) in cases {
        let mut out = Vec::new();
        let resolution = switch.resolve(PortId(0), &question, DATAGRAM, 1, &mut out);
        let code = match resolution {
            Resolution::Answered => Some(Packet::parse(&out).expect(what).rcode()),
            Resolution::Ignored => None,
            Resolution::Forward => panic!("{what} was forwarded"),
        };
        assert_eq!(code, expected, "{what}");
    }
}

#[test]
fn lifetimes_are_read_and_shortened() {
    let mut packet = Packet::new_reply(1);
    let name = Name::new_unchecked("example.com");
    packet.questions.push(Question::new(name.clone(), TYPE::A.into(), CLASS::IN.into(), false));
    let a = |ttl| {
        let data = RData::A(simple_dns::rdata::A { address: 7 });
        simple_dns::ResourceRecord::new(name.clone(), CLASS::IN, ttl, data)
    };
    packet.answers.extend([a(300), a(60)]);
    *packet.opt_mut() =
        Some(simple_dns::rdata::OPT { opt_codes: Vec::new(), udp_packet_size: 512, version: 0 });
    let mut bytes = packet.build_bytes_vec_compressed().expect("a message");
    assert_eq!(message::lifetime_seconds(&bytes), Some(60));
    message::age(&mut bytes, 100);
    let aged = Packet::parse(&bytes).expect("an answer");
    assert_eq!(aged.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [200, 0]);

    packet.answers.clear();
    *packet.rcode_mut() = RCODE::NameError;
    assert_eq!(message::lifetime_seconds(&packet.build_bytes_vec().expect("a message")), None);
    let soa = simple_dns::rdata::SOA {
        mname: name.clone(),
        rname: name.clone(),
        serial: 1,
        refresh: 2,
        retry: 3,
        expire: 4,
        minimum: 30,
    };
    packet.name_servers.push(simple_dns::ResourceRecord::new(name.clone(), CLASS::IN, 900, RData::SOA(soa)));
    assert_eq!(message::lifetime_seconds(&packet.build_bytes_vec().expect("a message")), Some(30));
}

proptest! {
    #[test]
    fn nothing_panics_whatever_the_bytes(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
        as_query in any::<bool>(),
        port in 0u16..10,
    ) {
        if as_query && bytes.len() >= 12 {
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        }
        let mut out = Vec::new();
        if switch().resolve(PortId(port), &bytes, DATAGRAM, 1, &mut out) == Resolution::Answered {
            prop_assert!(Packet::parse(&out).is_ok());
            prop_assert!(out.len() <= message::UDP_BYTES_MAX);
        }
        let _ = message::lifetime_seconds(&bytes);
        message::age(&mut bytes, 5);
    }

    #[test]
    fn a_name_is_read_as_the_oracle_reads_it(labels in proptest::collection::vec("[a-zA-Z0-9-]{1,63}", 0..4)) {
        let name = labels.join(".");
        let question = ask(&name, TYPE::A);
        let query = Query::parse(&question).expect("a question");
        let (read, lower) = (query.name(), name.to_ascii_lowercase());
        prop_assert_eq!(read.bytes(), lower.as_bytes());
        let mut written = Vec::new();
        if !labels.is_empty() {
            prop_assert!(message::write_name(&[&name], &mut written));
            prop_assert_eq!(&question[12..12 + written.len()], &written[..]);
        }
    }
}

#[test]
fn reversed_addresses() {
    let cases: [(&str, Option<IpAddr>); 6] = [
        ("4.3.2.1.in-addr.arpa", "1.2.3.4".parse().ok()),
        ("3.2.1.in-addr.arpa", None),
        ("5.4.3.2.1.in-addr.arpa", None),
        ("in-addr.arpa", None),
        ("1.ip6.arpa", None),
        ("\u{e9}.ip6.arpa", None),
    ];
    for (name, expected) in cases {
        assert_eq!(reverse(name.as_bytes()), expected, "{name}");
    }
}
