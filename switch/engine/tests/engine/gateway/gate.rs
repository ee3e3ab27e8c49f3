//! The gate in front of the host's stack: what Alice writes by hand, and whether the host sees it.

use smoltcp::wire::{ArpOperation, EthernetProtocol, Icmpv6Repr, IpProtocol};

use super::craft::{self, Link, Packet};
use super::*;

const ALL: Mac = Mac::BROADCAST;
const NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
const GROUP: Mac = Mac([1, 0, 0x5e, 0, 0, 0xfb]);
const NOBODY: Mac = Mac([2, 9, 9, 9, 9, 9]);
const OF_HOST: &str = "192.0.2.7";

fn to(target: Mac) -> Link {
    Link { source: mac(ALICE), target }
}

/// A red network with Alice, Bob and the host; it is internal or not, and its containers reach each other or
/// do not.
fn bench(internal: bool, icc: bool) -> Bench {
    let mut bench = Bench::with(|network| (network.internal, network.icc) = (internal, icc));
    bench.plug_host();
    bench.switch.set_host_addresses(vec![ip(OF_HOST)]);
    if !icc {
        for id in [ALICE, BOB] {
            assert!(bench.switch.remove_port(id));
            bench.port(id, Port { group: GroupId::containers_of(RED), ..container(RED, id) });
        }
    }
    bench
}

/// The ports that a frame of Alice's reaches, in order, and why it is dropped, if it is.
fn reach(bench: &mut Bench, bytes: &[u8]) -> (Vec<PortId>, Vec<&'static str>) {
    let Bench { switch, pool, verdicts, now, .. } = bench;
    let mut frame = pool.take().expect("a slot");
    frame.fill(bytes);
    switch.process(ALICE, &mut vec![frame], verdicts, *now);
    switch.serve(ALICE, verdicts, pool, *now);
    let mut reached: Vec<PortId> = verdicts
        .forward
        .drain(..)
        .map(|(port, frame)| {
            pool.free(frame);
            port
        })
        .collect();
    for frame in verdicts.flood.drain(..) {
        reached.extend(switch.flood_targets(ALICE).map(|(port, _)| port));
        pool.free(frame);
    }
    for (audience, frame) in verdicts.multicast.drain(..) {
        reached.extend(switch.multicast_targets(ALICE, audience).map(|(port, _)| port));
        pool.free(frame);
    }
    reached.sort_unstable();
    let reasons = verdicts.drop.iter().map(|(reason, port, _)| (reason.label(), *port)).collect::<Vec<_>>();
    assert!(reasons.iter().all(|(_, port)| *port == ALICE));
    bench.drain();
    (reached, reasons.into_iter().map(|(reason, _)| reason).collect())
}

fn hello(link: Link, target: &str) -> Vec<u8> {
    let from = if ip(target).is_ipv4() { "10.1.0.5" } else { "fd01::5" };
    craft::udp(link, (from, 1000), (target, 7), b"hello")
}

#[test]
fn no_tag_leads_to_the_host() {
    for internal in [true, false] {
        let mut bench = bench(internal, true);
        for tag in [[0x81, 0, 0, 0], [0x81, 0, 0, 7], [0x88, 0xa8, 0, 0]] {
            for (tags, target) in
                (1..5).flat_map(|tags| ["10.1.0.1", OF_HOST, "fd01::1"].map(|to| (tags, to)))
            {
                for link in [gateway_mac(RED), NOBODY, ALL, GROUP, NODES].map(to) {
                    let mut frame = hello(link, target);
                    frame.splice(12..12, tag.repeat(tags));
                    let (reached, reasons) = reach(&mut bench, &frame);
                    let expected = if link.target == gateway_mac(RED) {
                        (vec![], vec!["host-gate"])
                    } else {
                        (vec![BOB], vec![])
                    };
                    assert_eq!((reached, reasons), expected, "{tags} tags, {link:?}, {target}");
                }
            }
        }
    }
}

#[test]
fn a_frame_to_many_brings_the_host_no_packet_to_one() {
    for internal in [true, false] {
        let mut bench = bench(internal, true);
        for target in ["10.1.0.1", OF_HOST, "10.2.0.1", "198.51.100.1", "fd01::1", "2001:db8::1"] {
            for link in [ALL, GROUP, NODES, NOBODY].map(to) {
                assert_eq!(reach(&mut bench, &hello(link, target)), (vec![BOB], vec![]), "{link:?} {target}");
            }
        }
    }
}

#[test]
fn the_host_hears_what_is_for_many() {
    let mut bench = bench(true, true);
    let both = (vec![BOB, HOST], vec![]);
    for target in ["224.0.0.251", "255.255.255.255", "10.1.0.255"] {
        assert_eq!(reach(&mut bench, &hello(to(GROUP), target)), both, "{target}");
    }
    assert_eq!(reach(&mut bench, &hello(to(NODES), "ff02::fb")), both);
    let ask = |of| craft::arp(to(ALL), ArpOperation::Request, (mac(ALICE), "10.1.0.5"), (Mac::ZERO, of));
    assert_eq!(reach(&mut bench, &ask("10.1.0.77")), both);
    assert_eq!(reach(&mut bench, &ask("10.1.0.5")), both, "an announcement");
    assert_eq!(reach(&mut bench, &ask("10.1.0.2")), (vec![BOB], vec![]), "it is Bob who is asked");
}

#[test]
fn the_host_hears_nobody_who_cannot_be_there() {
    let mut bench = bench(true, true);
    let others = (vec![BOB], vec![]);
    for from in ["198.51.100.1", "10.1.0.1", "10.2.0.3", "127.0.0.1"] {
        let frame = craft::udp(to(GROUP), (from, 1000), ("224.0.0.251", 7), b"hello");
        assert_eq!(reach(&mut bench, &frame), others, "{from}");
    }
    let frame =
        craft::arp(to(ALL), ArpOperation::Reply, (mac(ALICE), "198.51.100.1"), (Mac::ZERO, "10.1.0.77"));
    assert_eq!(reach(&mut bench, &frame), others);
    let frame = craft::udp(to(GROUP), ("0.0.0.0", 68), ("255.255.255.255", 69), b"hello");
    assert_eq!(reach(&mut bench, &frame), (vec![BOB, HOST], vec![]), "nobody yet");
}

/// An IPv6 packet of Alice's to the host's address, with this header between.
fn with_header(link: Link, number: u8, header: &[u8]) -> Vec<u8> {
    let datagram = hello(link, "fd01::1").split_off(54);
    let packet =
        Packet { source: ip("fd01::5"), target: ip("fd01::1"), ttl: 64, protocol: IpProtocol::from(number) };
    craft::ip(link, packet, &[header, &datagram].concat())
}

#[test]
fn a_packet_to_the_host_has_nothing_to_say_to_its_kernel() {
    let mut bench = bench(false, true);
    let link = to(gateway_mac(RED));
    let gate = (vec![], vec!["host-gate"]);
    let on = [&[17, 2, 4, 1, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
    assert_eq!(reach(&mut bench, &with_header(link, 43, &on)), gate, "a route to elsewhere");
    let done = [&[17, 2, 4, 0, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
    assert_eq!(reach(&mut bench, &with_header(link, 43, &done)), (vec![HOST], vec![]), "one that ends here");
    let options = [&[60, 0, 1, 4, 0, 0, 0, 0].repeat(8)[..], &[17, 0, 1, 4, 0, 0, 0, 0]].concat();
    assert_eq!(reach(&mut bench, &with_header(link, 60, &options)), gate, "nobody knows what");
    // A loose source route, in IPv4.
    let mut routed = hello(link, "10.1.0.1");
    routed.splice(34..34, [131, 7, 4, 10, 2, 0, 3, 0]);
    (routed[14], routed[17]) = (0x47, routed[17] + 8);
    assert_eq!(reach(&mut bench, &routed), gate);
    let other = craft::ethernet(link, EthernetProtocol::Unknown(0x8847), &[0; 46]);
    assert_eq!(reach(&mut bench, &other), gate, "neither IP nor ARP");
}

#[test]
fn no_container_is_the_hosts_router() {
    let mut bench = bench(false, true);
    let advertisement = |target, to_ip: &str| {
        let repr = Icmpv6Repr::EchoRequest { ident: 0, seq_no: 0, data: &[0; 8] };
        let mut frame = craft::icmpv6(to(target), ip("fe80::5"), ip(to_ip), 255, &repr);
        frame[54] = 134;
        frame
    };
    assert_eq!(reach(&mut bench, &advertisement(NODES, "ff02::1")), (vec![BOB], vec![]));
    assert_eq!(reach(&mut bench, &advertisement(gateway_mac(RED), "fd01::1")), (vec![], vec!["host-gate"]));
    let mut redirect = craft::ping(to(gateway_mac(RED)), "10.1.0.5", "10.1.0.1", 64);
    redirect[34] = 5;
    assert_eq!(reach(&mut bench, &redirect), (vec![], vec!["host-gate"]));
}

#[test]
fn of_arp_the_host_gets_answers_only() {
    let mut bench = bench(false, true);
    let link = to(gateway_mac(RED));
    let say = |operation, of| craft::arp(link, operation, (mac(ALICE), "10.1.0.5"), (gateway_mac(RED), of));
    assert_eq!(reach(&mut bench, &say(ArpOperation::Reply, "10.1.0.1")), (vec![HOST], vec![]));
    assert_eq!(reach(&mut bench, &say(ArpOperation::Request, OF_HOST)), (vec![], vec!["host-gate"]));
}

#[test]
fn an_answer_nobody_asked_for_changes_nothing_here() {
    let mut bench = bench(false, true);
    // Alice says to the gateway that Bob's address is hers, though nobody has asked. Carol's packet goes to
    // Bob.
    let link = to(gateway_mac(RED));
    let lie = craft::arp(link, ArpOperation::Reply, (mac(ALICE), "10.1.0.2"), (gateway_mac(RED), "10.1.0.1"));
    bench.send(ALICE, &lie);
    let link = Link { source: mac(CAROL), target: gateway_mac(BLUE) };
    let packet = craft::udp(link, ("10.2.0.3", 7), ("10.1.0.2", 7), b"hello");
    let arrived = bench.send(CAROL, &packet).only(BOB);
    assert_eq!(arrived[..6], mac(BOB).0);
}

#[test]
fn between_isolated_containers_a_question_is_isolated() {
    let mut bench = bench(false, false);
    let ask = |of| craft::arp(to(ALL), ArpOperation::Request, (mac(ALICE), "10.1.0.5"), (Mac::ZERO, of));
    assert_eq!(reach(&mut bench, &ask("10.1.0.2")), (vec![], vec!["isolated"]));
    assert_eq!(reach(&mut bench, &hello(to(NOBODY), "10.1.0.2")), (vec![], vec!["isolated"]));
    assert_eq!(reach(&mut bench, &ask("10.1.0.77")), (vec![HOST], vec![]));
}

#[test]
fn a_checksum_is_finished_before_anybody_looks() {
    use vswitch_frame::Checksum;
    let mut bench = Bench::with(|network| network.port_security = true);
    // Its sum is to be written where the kind of the message is: then it is a router advertisement.
    let repr = Icmpv6Repr::EchoRequest { ident: 0, seq_no: 0, data: &[0; 24] };
    let mut frame = craft::icmpv6(to(NODES), ip("fd01::5"), ip("ff02::1"), 255, &repr);
    frame[56..].fill(0);
    frame[84..86].copy_from_slice(&0xf9feu16.to_be_bytes());
    let offload = Offload { checksum: Checksum::Partial { start: 54, offset: 0 }, gso: None };
    assert_eq!(bench.send_with(ALICE, &frame, offload), dropped(DropReason::RogueRa, ALICE));
}
