//! Answers of the gateway itself: ARP, neighbour discovery and echo.

use smoltcp::wire::{
    ArpOperation, Icmpv4Repr, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};
use vswitch_frame::{DropReason, Mac};

use super::craft::{self, Link};
use super::*;

/// From Alice to the red gateway.
const TO_GATEWAY: Link = Link { source: Mac([2, 0, 0, 0, 0, 5]), target: Mac([2, 0xff, 0, 0, 0, 0]) };
const TO_ALL: Link = Link { target: Mac::BROADCAST, ..TO_GATEWAY };
const SOLICITED_NODE: Link = Link { target: Mac([0x33, 0x33, 0xff, 0, 0, 1]), ..TO_GATEWAY };

fn request(link: Link, sender: &str, target: &str) -> Vec<u8> {
    craft::arp(link, ArpOperation::Request, (mac(ALICE), sender), (Mac::ZERO, target))
}

fn raw(mac: Mac) -> RawHardwareAddress {
    RawHardwareAddress::from_bytes(&mac.0)
}

#[test]
fn arp_for_the_gateway_is_answered_and_not_flooded() {
    let mut bench = Bench::new();
    let (own, back) = ((gateway_mac(RED), "10.1.0.1"), Link { source: gateway_mac(RED), target: mac(ALICE) });
    for link in [TO_ALL, TO_GATEWAY] {
        for sender in ["10.1.0.9", "0.0.0.0"] {
            let reply = craft::arp(back, ArpOperation::Reply, own, (mac(ALICE), sender));
            assert_eq!(bench.send(ALICE, &request(link, sender, "10.1.0.1")).only(ALICE), reply);
        }
        let claim = request(link, "10.1.0.1", "10.1.0.1");
        assert_eq!(bench.send(ALICE, &claim), dropped(DropReason::Martian, ALICE));
    }
}

#[test]
fn arp_for_others_goes_where_it_did() {
    let mut bench = Bench::new();
    let asked = request(TO_ALL, "10.1.0.1", "10.1.0.2");
    assert_eq!(bench.send(ALICE, &asked), dropped(DropReason::Martian, ALICE));
    let asked = request(TO_ALL, "10.1.0.9", "10.1.0.2");
    let flooded = Fates { flood: vec![asked.clone()], ..Fates::default() };
    assert_eq!(bench.send(ALICE, &asked), flooded);
    let reply = craft::arp(
        TO_GATEWAY,
        ArpOperation::Reply,
        (mac(ALICE), "10.1.0.9"),
        (TO_GATEWAY.target, "10.1.0.1"),
    );
    assert_eq!(bench.send(ALICE, &reply), dropped(DropReason::NotServed, ALICE));
    bench.plug_host();
    assert_eq!(bench.send(ALICE, &reply).only(HOST), reply, "the host asked");
    let from_host = craft::arp(
        Link { source: gateway_mac(RED), target: Mac::BROADCAST },
        ArpOperation::Request,
        (gateway_mac(RED), "10.1.0.1"),
        (Mac::ZERO, "10.1.0.2"),
    );
    assert_eq!(bench.send(HOST, &from_host).flood, [from_host]);
}

#[test]
fn arp_that_is_cut_short_or_of_another_kind_is_malformed() {
    let mut bench = Bench::new();
    let whole = request(TO_GATEWAY, "10.1.0.9", "10.1.0.1");
    for length in [14, 20, 41] {
        let fates = bench.send(ALICE, &whole[..length]);
        assert_eq!(fates, dropped(DropReason::MalformedArp, ALICE), "{length}");
    }
    for at in 14..20 {
        let mut odd = whole.clone();
        odd[at] ^= 0x10;
        assert_eq!(bench.send(ALICE, &odd), dropped(DropReason::MalformedArp, ALICE), "{at}");
    }
}

#[test]
fn nobody_but_the_host_sends_from_the_gateways_address() {
    let mut bench = Bench::new();
    bench.plug_host();
    let pretends = Link { source: gateway_mac(RED), target: mac(BOB) };
    let frame = craft::ping(pretends, "10.1.0.1", "10.1.0.2", 64);
    assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::SourceTaken, ALICE));
    assert_eq!(bench.send(HOST, &frame).only(BOB), frame);
}

#[test]
fn neighbour_solicitations_are_answered() {
    let mut bench = Bench::new();
    let link_local = "fe80::ff:ff:fe00:0";
    for (link, source, target) in [
        (SOLICITED_NODE, "fd01::1:1", "fd01::1"),
        (SOLICITED_NODE, "fe80::1:1", "fd01::1"),
        (TO_GATEWAY, "fd01::1:1", "fd01::1"),
        (SOLICITED_NODE, "fe80::1:1", link_local),
    ] {
        let IpAddr::V6(about) = ip(target) else { panic!("{target} is IPv6") };
        let solicit = NdiscRepr::NeighborSolicit { target_addr: about, lladdr: Some(raw(mac(ALICE))) };
        let to = if link == TO_GATEWAY { ip(target) } else { ip("ff02::1:ff00:1") };
        let frame = craft::icmpv6(link, ip(source), to, 255, &Icmpv6Repr::Ndisc(solicit));
        let answer = bench.send(ALICE, &frame).only(ALICE);
        let (back, packet, payload) = craft::read_ip(&answer);
        assert_eq!(back, Link { source: gateway_mac(RED), target: mac(ALICE) });
        assert_eq!((packet.source, packet.target, packet.ttl), (ip(target), ip(source), 255));
        let flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
        let lladdr = Some(raw(gateway_mac(RED)));
        let expected = NdiscRepr::NeighborAdvert { flags, target_addr: about, lladdr };
        assert_eq!(craft::read_icmpv6(&packet, payload), Icmpv6Repr::Ndisc(expected));
    }
}

#[test]
fn who_wants_the_gateways_address_is_told_it_is_taken() {
    let mut bench = Bench::new();
    let IpAddr::V6(about) = ip("fd01::1") else { panic!("IPv6") };
    let probe = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: about, lladdr: None });
    let frame = craft::icmpv6(SOLICITED_NODE, ip("::"), ip("ff02::1:ff00:1"), 255, &probe);
    let answer = bench.send(ALICE, &frame).only(ALICE);
    let (back, packet, payload) = craft::read_ip(&answer);
    assert_eq!(back.target, Mac([0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!((packet.source, packet.target), (ip("fd01::1"), ip("ff02::1")));
    let flags = NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE;
    let lladdr = Some(raw(gateway_mac(RED)));
    let expected = NdiscRepr::NeighborAdvert { flags, target_addr: about, lladdr };
    assert_eq!(craft::read_icmpv6(&packet, payload), Icmpv6Repr::Ndisc(expected));
}

#[test]
fn neighbour_discovery_that_breaks_a_rule_is_dropped() {
    let mut bench = Bench::new();
    let IpAddr::V6(about) = ip("fd01::1") else { panic!("IPv6") };
    let solicit = |lladdr| Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: about, lladdr });
    let own = solicit(Some(raw(mac(ALICE))));
    let node = ip("ff02::1:ff00:1");
    let right = craft::icmpv6(SOLICITED_NODE, ip("fd01::9"), node, 255, &own);
    let mut corrupt = right.clone();
    corrupt[80] ^= 1;
    let mut no_length = right.clone();
    no_length[14 + 40 + 24 + 1] = 0;
    let mut code = right.clone();
    code[14 + 40 + 1] = 1;
    let claim = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: about,
        lladdr: Some(raw(mac(ALICE))),
    });
    let all_nodes = Link { target: Mac([0x33, 0x33, 0, 0, 0, 1]), ..TO_GATEWAY };
    for (what, frame, reason) in [
        ("a checksum", corrupt, DropReason::BadChecksum),
        ("an option of no length", no_length, DropReason::MalformedIcmp),
        ("a code", code, DropReason::MalformedIcmp),
        (
            "one that crossed a router",
            craft::icmpv6(SOLICITED_NODE, ip("fd01::9"), node, 254, &own),
            DropReason::MalformedIcmp,
        ),
        (
            "a probe with an address",
            craft::icmpv6(SOLICITED_NODE, ip("::"), node, 255, &own),
            DropReason::MalformedIcmp,
        ),
        (
            "a probe of one",
            craft::icmpv6(TO_GATEWAY, ip("::"), ip("fd01::1"), 255, &solicit(None)),
            DropReason::MalformedIcmp,
        ),
        (
            "another network's",
            craft::icmpv6(SOLICITED_NODE, ip("fd02::9"), node, 255, &own),
            DropReason::Martian,
        ),
        ("a claim", craft::icmpv6(all_nodes, ip("fe80::9"), ip("ff02::1"), 255, &claim), DropReason::Martian),
    ] {
        assert_eq!(bench.send(ALICE, &frame), dropped(reason, ALICE), "{what}");
    }
}

#[test]
fn echo_requests_are_answered() {
    let mut bench = Bench::new();
    for with_host in [false, true] {
        if with_host {
            bench.plug_host();
        }
        for (source, target) in
            [("10.1.0.5", "10.1.0.1"), ("fd01::5", "fd01::1"), ("fe80::5", "fe80::ff:ff:fe00:0")]
        {
            let frame = craft::ping(TO_GATEWAY, source, target, 3);
            let answer = bench.send(ALICE, &frame).only(ALICE);
            let (link, packet, payload) = craft::read_ip(&answer);
            assert_eq!(link, Link { source: gateway_mac(RED), target: mac(ALICE) });
            assert_eq!((packet.source, packet.target, packet.ttl), (ip(target), ip(source), 64));
            if packet.source.is_ipv4() {
                let expected = Icmpv4Repr::EchoReply { ident: 1, seq_no: 2, data: &[7; 56] };
                assert_eq!(craft::read_icmp(payload), expected);
            } else {
                let expected = Icmpv6Repr::EchoReply { ident: 1, seq_no: 2, data: &[7; 56] };
                assert_eq!(craft::read_icmpv6(&packet, payload), expected);
            }
        }
    }
}

#[test]
fn every_bit_of_an_echo_request_counts() {
    let mut bench = Bench::new();
    for (source, target, network) in [("10.1.0.5", "10.1.0.1", 20), ("fd01::5", "fd01::1", 40)] {
        let right = craft::ping(TO_GATEWAY, source, target, 64);
        for bit in (14 + network) * 8..right.len() * 8 {
            let mut corrupt = right.clone();
            corrupt[bit / 8] ^= 1 << (bit % 8);
            let fates = bench.send(ALICE, &corrupt);
            let answered = fates.forward.iter().any(|(_, frame)| {
                let (_, packet, payload) = craft::read_ip(frame);
                packet.source == ip(target) && matches!(payload[0], 0 | 129)
            });
            assert!(!answered, "bit {bit}: {fates:?}");
        }
    }
}

#[test]
fn what_is_not_of_the_network_is_a_martian() {
    let mut bench = Bench::new();
    bench.plug_host();
    for source in ["10.1.0.1", "10.1.0.255", "10.1.0.0", "10.2.0.3", "127.0.0.1", "224.0.0.1", "0.0.0.0"] {
        for target in ["10.1.0.1", "10.2.0.3", "192.0.2.1"] {
            let frame = craft::ping(TO_GATEWAY, source, target, 64);
            assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::Martian, ALICE), "{source}");
        }
    }
    for source in ["fd01::1", "fd02::3", "::1", "ff02::5", "fe80::ff:ff:fe00:0", "::"] {
        let frame = craft::ping(TO_GATEWAY, source, "fd01::1", 64);
        assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::Martian, ALICE), "{source}");
    }
}

#[test]
fn the_rest_is_the_hosts() {
    let mut bench = Bench::new();
    bench.plug_host();
    let from = ("10.1.0.5", 1000);
    let names = craft::udp(TO_GATEWAY, from, ("10.1.0.1", 53), b"a question");
    let other = craft::udp(TO_GATEWAY, from, ("10.1.0.1", 7), b"hello");
    let beyond = craft::udp(TO_GATEWAY, from, ("192.0.2.7", 7), b"hello");
    let mut fragment = craft::ping(TO_GATEWAY, "10.1.0.5", "10.1.0.1", 64);
    fragment[20] = 0x20;
    let not_ip = craft::ethernet(TO_GATEWAY, smoltcp::wire::EthernetProtocol::Unknown(0x88b5), b"anything");
    let mut tagged = not_ip.clone();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    bench.switch.set_host_addresses(vec![ip("192.0.2.7")]);
    assert_eq!(bench.send(ALICE, &names), Fates { names: vec![names], ..Fates::default() });
    for frame in [other, fragment, beyond.clone()] {
        assert_eq!(bench.send(ALICE, &frame).only(HOST), frame);
    }
    for frame in [not_ip, tagged] {
        assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::HostGate, ALICE));
    }
    assert!(bench.switch.remove_port(HOST));
    assert_eq!(bench.send(ALICE, &beyond).drop, [(DropReason::NotServed, ALICE)]);
}

#[test]
fn an_isolated_gateway_serves_nothing_but_names_and_leases() {
    let mut bench = Bench::with(|network| {
        network.internal = true;
        network.gateway.as_mut().expect("a gateway").isolated = true;
    });
    assert_eq!(bench.send(ALICE, &request(TO_ALL, "0.0.0.0", "10.1.0.1")).forward.len(), 1);
    for target in ["10.1.0.1", "10.2.0.3", "192.0.2.1"] {
        let frame = craft::ping(TO_GATEWAY, "10.1.0.5", target, 64);
        assert_eq!(bench.send(ALICE, &frame), dropped(DropReason::NotServed, ALICE), "{target}");
    }
}

#[test]
fn without_a_gateway_its_address_is_like_any_other() {
    let mut bench = Bench::with(|network| network.gateway = None);
    for frame in
        [request(TO_ALL, "10.1.0.9", "10.1.0.1"), craft::ping(TO_GATEWAY, "10.1.0.9", "10.1.0.1", 64)]
    {
        assert_eq!(bench.send(ALICE, &frame).flood, [frame]);
    }
}
