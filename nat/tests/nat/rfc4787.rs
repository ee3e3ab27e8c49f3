//! RFC 4787: requirements for UDP. What is left out: REQ-10 is about protocols that carry addresses, of which
//! none is translated here.

use std::net::IpAddr;

use vswitch_frame::checksum::pseudo_header;
use vswitch_frame::{Checksum, DropReason, Headers, NetworkId, Offload};
use vswitch_nat::{Filtering, Limits, Protocol};

use crate::support::{DMZ, Fate, Kind, LAN, Packet, World, end, ip, packet, udp};

#[test]
fn rfc4787_req1_mapping_is_endpoint_independent() {
    let mut world = World::new();
    let first = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    for target in ["198.51.100.1:54", "198.51.100.2:53", "203.0.113.9:9"] {
        let left = world.leaves(&udp("10.1.0.2:5000", target));
        assert_eq!((left.source, left.target), (first.source, end(target)));
    }
    assert_eq!((world.nat.stats().mappings, world.flows()), (1, 4));
    let other = world.leaves(&udp("10.1.0.2:5001", "198.51.100.1:53"));
    assert_ne!(other.source, first.source, "another port of the inside has a mapping of its own");
}

#[test]
fn rfc4787_req2_one_container_has_one_address() {
    let mut world = World::new();
    for port in 5000..5020 {
        let left = world.leaves(&udp(&format!("10.1.0.2:{port}"), "198.51.100.1:53"));
        assert_eq!(left.source.ip(), ip("192.0.2.1"));
    }
}

#[test]
fn rfc4787_req3_ports_are_preserved_and_never_shared_while_there_are_any() {
    let mut world = World::new();
    let preserved = world.leaves(&udp("10.1.0.2:40010", "198.51.100.1:53"));
    assert_eq!(preserved.source, end("192.0.2.1:40010"));
    let taken = world.leaves(&udp("10.1.0.3:40010", "198.51.100.1:53"));
    assert_ne!(taken.source, preserved.source);
    let mut seen = vec![preserved.source, taken.source];
    for host in 4..66 {
        let left = world.leaves(&udp(&format!("10.1.0.{host}:40010"), "198.51.100.1:53"));
        assert!(!seen.contains(&left.source), "{} is shared", left.source);
        seen.push(left.source);
    }
    assert_eq!(world.nat.stats().overloaded, 0);
}

#[test]
fn rfc4787_req4_parity_is_preserved() {
    let mut world = World::new();
    for port in 5000..5050u16 {
        let left = world.leaves(&udp(&format!("10.1.0.2:{port}"), "198.51.100.1:53"));
        assert_eq!(left.source.port() % 2, port % 2);
    }
}

#[test]
fn rfc4787_req5_a_mapping_lives_two_minutes_and_five_when_answered() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:5353"));
    world.seconds(120);
    world.poll();
    world.enters(&left.reply());
    world.seconds(300);
    world.poll();
    assert_eq!(world.flows(), 1);
    world.seconds(1);
    world.poll();
    assert_eq!((world.flows(), world.nat.stats().mappings), (0, 0));
    assert_eq!(world.inn(&left.reply()).fate, Fate::Dropped(DropReason::NatFiltered));
}

#[test]
fn rfc4787_req5_a_an_exchange_with_a_well_known_port_lives_half_a_minute() {
    let mut world = World::new();
    let exchanged = |world: &mut World, port: u16, times: usize| {
        let question = udp(&format!("10.1.0.2:{port}"), "198.51.100.1:53");
        for _ in 0..times {
            let left = world.leaves(&question);
            world.enters(&left.reply());
        }
    };
    exchanged(&mut world, 5000, 2);
    exchanged(&mut world, 5001, 5);
    world.leaves(&udp("10.1.0.2:5002", "198.51.100.1:53"));
    world.seconds(31);
    world.poll();
    let mut left: Vec<u16> = world.nat.flows(world.now).map(|flow| flow.initiator.source_port).collect();
    left.sort_unstable();
    assert_eq!(left, [5001, 5002], "one that goes on stays, and who waits for an answer");
}

#[test]
fn rfc4787_req6_only_the_inside_refreshes() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:5353"));
    world.enters(&left.reply());
    for _ in 0..5 {
        world.seconds(200);
        world.poll();
        world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:5353"));
    }
    world.seconds(200);
    world.enters(&left.reply());
    world.seconds(101);
    world.poll();
    assert_eq!(world.flows(), 0, "an answer does not refresh");
}

#[test]
fn rfc4787_req7_networks_may_use_addresses_of_each_other_and_of_outside() {
    let mut world = World::new();
    let ours = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    let theirs = world.out_of(DMZ, &udp("10.1.0.2:5000", "198.51.100.1:53")).packet();
    assert_ne!(ours.source, theirs.source);
    assert_eq!(world.inn(&ours.reply()).fate, Fate::Inside(LAN));
    assert_eq!(world.inn(&theirs.reply()).fate, Fate::Inside(DMZ));
    // Somebody outside with the same address as the container.
    let left = world.out_of(NetworkId(3), &udp("10.9.0.2:7", "10.1.0.2:5000")).packet();
    assert_eq!(world.inn(&left.reply()).packet().target, end("10.9.0.2:7"));
}

#[test]
fn rfc4787_req8_filtering_is_as_configured() {
    let cases = [
        (Filtering::EndpointIndependent, [true, true, true]),
        (Filtering::AddressDependent, [true, true, false]),
        (Filtering::AddressAndPortDependent, [true, false, false]),
    ];
    for (filtering, expected) in cases {
        let mut world = World::with(Limits { filtering, ..World::limits() });
        let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
        let strangers = ["198.51.100.1:53", "198.51.100.1:54", "198.51.100.2:53"];
        for (stranger, enters) in strangers.into_iter().zip(expected) {
            let came = world.inn(&left.reply().between(stranger, &left.source.to_string()));
            let fate = if enters { Fate::Inside(LAN) } else { Fate::Dropped(DropReason::NatFiltered) };
            assert_eq!(came.fate, fate, "{filtering:?} {stranger}");
            if enters {
                assert_eq!(
                    (came.packet().source, came.packet().target),
                    (end(stranger), end("10.1.0.2:5000"))
                );
            }
        }
    }
}

#[test]
fn rfc4787_req8_a_mapping_lets_nobody_new_in_when_its_inside_is_silent() {
    let mut world = World::with(Limits { filtering: Filtering::EndpointIndependent, ..World::limits() });
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    world.seconds(100);
    world.enters(&left.reply().between("203.0.113.1:1", &left.source.to_string()));
    world.seconds(21);
    world.poll();
    let stranger = left.reply().between("203.0.113.2:1", &left.source.to_string());
    assert_eq!(world.inn(&stranger).fate, Fate::Dropped(DropReason::NatFiltered));
}

#[test]
fn rfc4787_req9_hairpin_comes_from_the_outside_address_and_port() {
    let mut world = World::with(Limits { filtering: Filtering::EndpointIndependent, ..World::limits() });
    let theirs = world.leaves(&udp("10.1.0.3:6000", "198.51.100.1:53"));
    let mine = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    let sent = udp("10.1.0.2:5000", &theirs.source.to_string());
    let came = world.out(&sent);
    assert_eq!(came.fate, Fate::Inside(LAN));
    assert_eq!((came.packet().source, came.packet().target), (mine.source, end("10.1.0.3:6000")));
    let back = world.out(&came.packet().reply());
    assert_eq!(back.fate, Fate::Inside(LAN));
    assert_eq!(back.packet(), sent.reply());
}

#[test]
fn rfc4787_req9_two_behind_filters_meet_when_both_send() {
    let mut world = World::new();
    let theirs = world.leaves(&udp("10.1.0.3:6000", "198.51.100.1:53"));
    let mine = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    let sent = udp("10.1.0.2:5000", &theirs.source.to_string());
    for _ in 0..2 {
        assert_eq!(world.out(&sent).fate, Fate::Dropped(DropReason::NatFiltered));
    }
    let answer = world.out(&udp("10.1.0.3:6000", &mine.source.to_string()));
    assert_eq!(answer.fate, Fate::Inside(LAN));
    assert_eq!((answer.packet().source, answer.packet().target), (theirs.source, end("10.1.0.2:5000")));
    let came = world.out(&sent);
    assert_eq!(came.fate, Fate::Inside(LAN));
    assert_eq!((came.packet().source, came.packet().target), (mine.source, end("10.1.0.3:6000")));
    assert_eq!(world.flows(), 3, "the attempt that was filtered has gone");
}

#[test]
fn rfc4787_req11_behaviour_does_not_depend_on_who_else_is_there() {
    let mut world = World::new();
    for host in 2..30 {
        let source = format!("10.1.0.{host}:5000");
        let left = world.leaves(&udp(&source, "198.51.100.1:53"));
        let again = world.leaves(&udp(&source, "198.51.100.2:53"));
        assert_eq!(left.source, again.source);
        let stranger = left.reply().between("203.0.113.2:1", &left.source.to_string());
        assert_eq!(world.inn(&stranger).fate, Fate::Dropped(DropReason::NatFiltered));
    }
}

#[test]
fn rfc4787_req12_icmp_does_not_end_a_mapping() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    for code in [1, 3, 4, 13] {
        let mut error = packet(Kind::Error(3, code), "203.0.113.7", "192.0.2.1");
        error.payload = left.quote();
        assert_eq!(world.inn(&error).fate, Fate::Inside(LAN));
    }
    world.enters(&left.reply());
    assert_eq!(world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53")).source, left.source);
}

fn large(source: &str, target: &str) -> Packet {
    Packet { payload: vec![7; 1600], ..udp(source, target) }
}

#[test]
fn rfc4787_req13_what_may_not_be_fragmented_and_does_not_fit_is_answered() {
    let cases = [
        (large("10.1.0.2:5000", "198.51.100.1:53"), Kind::Error(3, 4), ip("192.0.2.1")),
        (large("[fd01::2]:5000", "[2001:db8:9::1]:53"), Kind::Error(2, 0), ip("2001:db8::1")),
    ];
    for (sent, kind, from) in cases {
        let mut world = World::new();
        let out = world.out(&sent);
        assert_eq!(out.fate, Fate::Answered(DropReason::TxTooBig));
        let error = out.packet();
        assert_eq!((error.kind, error.source.ip(), error.target.ip()), (kind, from, sent.source.ip()));
        assert_eq!(error.quoted(), (sent.source, sent.target));
        assert_eq!(out.bytes[..6], [2; 6], "back to where it came from");
        let mtu_at = if matches!(from, IpAddr::V4(_)) { 14 + 20 + 6 } else { 14 + 40 + 6 };
        assert_eq!(out.bytes[mtu_at..mtu_at + 2], 1500u16.to_be_bytes());
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn rfc4787_req13_each_way_out_has_an_mtu_of_its_own() {
    let mut world = World::new();
    let (v4, mtus) = (Some([192, 0, 2, 1].into()), [(ip("192.0.2.2"), 1000)].into());
    let host = vec![ip("192.0.2.2")];
    world.nat.set_uplink(vswitch_nat::Uplink { v4, v6: None, host, mtu: 9000, mtus });
    assert_eq!(world.out(&large("10.1.0.2:5000", "198.51.100.1:53")).fate, Fate::Outside);
    world.address = Some(ip("192.0.2.2"));
    let out = world.out(&large("10.1.0.2:5001", "198.51.100.1:53"));
    assert_eq!(out.fate, Fate::Answered(DropReason::TxTooBig));
}

#[test]
fn rfc4787_req13_a_what_may_be_fragmented_passes_and_is_fragmented_in_order() {
    for is_partial in [false, true] {
        let mut world = World::new();
        let sent = large("10.1.0.2:5000", "198.51.100.1:53");
        let mut frame = sent.frame();
        frame[20] = 0;
        crate::fragments::reseal_ip(&mut frame);
        let outs = world.outbound(LAN, &frame, Offload::NONE);
        assert_eq!(outs[0].fate, Fate::Outside);
        let expected = outs[0].packet();
        let (mut bytes, mut offload) = (outs[0].bytes.clone(), Offload::NONE);
        if is_partial {
            let headers = Headers::parse(&bytes).expect("a packet");
            let sum = pseudo_header(&bytes, &headers, bytes.len() - 34).folded();
            bytes[40..42].copy_from_slice(&sum.to_be_bytes());
            offload.checksum = Checksum::Partial { start: 34, offset: 6 };
        }
        let pieces = world.fragment(&bytes, offload, 1000);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [14 + 996, 14 + 20 + 632]);
        assert_eq!(crate::fragments::reassemble(&pieces), crate::fragments::whole(&expected.frame()));
        // Fragments may be fragmented again.
        let again: Vec<Vec<u8>> =
            pieces.iter().flat_map(|piece| world.fragment(piece, Offload::NONE, 500)).collect();
        assert_eq!(again.len(), 5);
        assert_eq!(crate::fragments::reassemble(&again), crate::fragments::whole(&expected.frame()));
    }
}

// REQ-14, fragments in and out of order: see `fragments.rs`.

#[test]
fn rfc4787_also_holds_for_ipv6() {
    let mut world = World::new();
    let first = world.leaves(&udp("[fd01::2]:40010", "[2001:db8:9::1]:53"));
    let second = world.leaves(&udp("[fd01::2]:40010", "[2001:db8:9::2]:53"));
    assert_eq!(first.source, end("[2001:db8::1]:40010"));
    assert_eq!(first.source, second.source);
    assert_eq!(world.enters(&first.reply()), udp("[fd01::2]:40010", "[2001:db8:9::1]:53").reply());
    assert_eq!(world.nat.mappings().filter(|mapped| mapped.protocol == Protocol::Udp).count(), 1);
}
