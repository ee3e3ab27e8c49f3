//! RFC 5382: requirements for TCP, with what RFC 5961 and RFC 7857 say of resets. What is left out: REQ-6 is
//! about protocols that carry addresses, of which none is translated here.

use vswitch_frame::DropReason;
use vswitch_nat::{Class, Filtering, Limits};

use crate::support::{Fate, Kind, LAN, Packet, World, end, packet, syn, tcp};

const IN: &str = "10.1.0.2:5000";
const OUT: &str = "198.51.100.1:80";

fn class(world: &World) -> Class {
    let mut flows = world.nat.flows(world.now);
    flows.next().expect("a flow").class
}

/// A segment from the other side of the translation, to the end that `left` came from.
fn inbound(left: &Packet, flags: &'static str, sequence: u32, ack: u32) -> Packet {
    tcp(OUT, &left.source.to_string(), flags, sequence, ack)
}

#[test]
fn rfc5382_req1_mapping_is_endpoint_independent() {
    let mut world = World::new();
    let first = world.connect(IN, OUT);
    let second = world.leaves(&syn(IN, "198.51.100.2:443"));
    assert_eq!(first.source, second.source);
    assert_eq!(world.nat.stats().mappings, 1);
}

#[test]
fn rfc5382_req2_handshake_of_three() {
    let mut world = World::new();
    let left = world.leaves(&syn(IN, OUT));
    assert_eq!(class(&world), Class::TcpOpening);
    world.enters(&left.reply());
    assert_eq!(class(&world), Class::TcpOpening);
    world.leaves(&tcp(IN, OUT, "A", 101, 501));
    assert_eq!(class(&world), Class::Tcp);
}

#[test]
fn rfc5382_req2_a_simultaneous_open() {
    let mut world = World::new();
    let left = world.leaves(&syn(IN, OUT));
    world.enters(&inbound(&left, "S", 500, 0));
    world.leaves(&tcp(IN, OUT, "SA", 100, 501));
    assert_eq!(class(&world), Class::TcpOpening);
    world.enters(&inbound(&left, "SA", 500, 101));
    assert_eq!(class(&world), Class::Tcp);
}

#[test]
fn rfc5382_req3_filtering_is_as_configured() {
    let cases = [
        (Filtering::EndpointIndependent, [true, true]),
        (Filtering::AddressDependent, [true, false]),
        (Filtering::AddressAndPortDependent, [false, false]),
    ];
    for (filtering, expected) in cases {
        let mut world = World::with(Limits { filtering, ..World::limits() });
        let left = world.connect(IN, OUT);
        for (stranger, enters) in ["198.51.100.1:999", "203.0.113.1:80"].into_iter().zip(expected) {
            let came = world.inn(&syn(stranger, &left.source.to_string()));
            let fate = if enters { Fate::Inside(LAN) } else { Fate::Dropped(DropReason::NatFiltered) };
            assert_eq!(came.fate, fate, "{filtering:?} {stranger}");
        }
    }
}

#[test]
fn rfc5382_req4_an_unsolicited_syn_is_answered_after_six_seconds() {
    let mut world = World::new();
    let left = world.connect(IN, OUT);
    let stranger = syn("203.0.113.1:80", &left.source.to_string());
    for _ in 0..3 {
        assert_eq!(world.inn(&stranger).fate, Fate::Dropped(DropReason::NatFiltered));
    }
    world.seconds(6);
    assert!(world.poll().is_empty(), "not within six seconds");
    world.seconds(1);
    assert!(world.nat.poll_at().is_some_and(|at| at <= world.now));
    let answers = world.poll();
    assert_eq!(answers.len(), 1);
    let error = answers[0].packet();
    assert_eq!((answers[0].fate, error.kind), (Fate::Outside, Kind::Error(3, 3)));
    assert_eq!((error.source, error.target), (end("192.0.2.1"), end("203.0.113.1")));
    assert_eq!(error.quoted(), (stranger.source, stranger.target));
    // A claimed port that nobody uses is no different.
    let unused = (40_000..40_064).find(|port| *port != left.source.port()).expect("a port");
    assert_eq!(
        world.inn(&syn("203.0.113.1:80", &format!("192.0.2.1:{unused}"))).fate,
        Fate::Dropped(DropReason::NatFiltered)
    );
    world.seconds(7);
    assert_eq!(world.poll().len(), 1);
}

#[test]
fn rfc5382_req4_a_an_unsolicited_syn_is_not_answered_when_the_inside_opens_too() {
    let mut world = World::new();
    let left = world.connect(IN, OUT);
    let stranger = syn("203.0.113.1:80", &left.source.to_string());
    assert_eq!(world.inn(&stranger).fate, Fate::Dropped(DropReason::NatFiltered));
    world.seconds(3);
    world.leaves(&syn(IN, "203.0.113.1:80"));
    assert_eq!(world.inn(&stranger).fate, Fate::Inside(LAN), "the second SYN meets the open");
    world.seconds(10);
    assert!(world.poll().is_empty());
}

#[test]
fn rfc5382_req5_an_established_connection_may_be_idle_for_two_hours_and_four_minutes() {
    let mut world = World::new();
    let left = world.connect(IN, OUT);
    world.seconds(2 * 3600 + 4 * 60);
    world.poll();
    assert_eq!(world.flows(), 1);
    world.seconds(1);
    let told = world.poll();
    assert_eq!(world.flows(), 0);
    assert_eq!(world.nat.stats().reset, 1);
    // Each end gets what it expects next from the other, and so believes it (RFC 5961, 3.2).
    let [inside, outside] = &told[..] else { panic!("{told:?}") };
    let (inside, outside) = if inside.fate == Fate::Outside { (outside, inside) } else { (inside, outside) };
    assert_eq!((inside.fate, outside.fate), (Fate::Inside(LAN), Fate::Outside));
    assert_eq!(inside.packet(), tcp(OUT, IN, "R", 501, 0));
    assert_eq!(outside.packet(), tcp(&left.source.to_string(), OUT, "R", 101, 0));
}

#[test]
fn rfc5382_req5_transitory_connections_may_be_idle_for_four_minutes() {
    let mut opening = World::new();
    opening.leaves(&syn(IN, OUT));
    let mut closing = World::new();
    let left = closing.connect(IN, OUT);
    closing.leaves(&tcp(IN, OUT, "FA", 101, 501));
    assert_eq!(class(&closing), Class::Tcp, "half closed is established");
    closing.enters(&inbound(&left, "FA", 501, 102));
    assert_eq!(class(&closing), Class::TcpClosing);
    for mut world in [opening, closing] {
        world.seconds(240);
        world.poll();
        assert_eq!(world.flows(), 1);
        world.seconds(1);
        assert!(world.poll().is_empty(), "nobody is told");
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn rfc5382_req7_ports_are_not_shared_while_there_are_any() {
    let mut world = World::new();
    let mut seen = Vec::new();
    for host in 2..66 {
        let left = world.leaves(&syn(&format!("10.1.0.{host}:5000"), OUT));
        assert!(!seen.contains(&left.source));
        seen.push(left.source);
    }
    assert_eq!(world.nat.stats().overloaded, 0);
}

#[test]
fn rfc5382_req8_hairpin_comes_from_the_outside_address_and_port() {
    let mut world = World::with(Limits { filtering: Filtering::EndpointIndependent, ..World::limits() });
    let theirs = world.leaves(&syn("10.1.0.3:6000", OUT));
    let mine = world.connect(IN, OUT);
    let sent = syn(IN, &theirs.source.to_string());
    let came = world.out(&sent);
    assert_eq!(came.fate, Fate::Inside(LAN));
    assert_eq!((came.packet().source, came.packet().target), (mine.source, end("10.1.0.3:6000")));
    let back = world.out(&came.packet().reply());
    assert_eq!(back.fate, Fate::Inside(LAN));
    assert_eq!((back.packet().source, back.packet().target), (theirs.source, end(IN)));
}

#[test]
fn rfc5382_req9_destination_unreachable_is_translated() {
    let mut world = World::new();
    let left = world.connect(IN, OUT);
    for code in 0..=15 {
        let mut error = packet(Kind::Error(3, code), "203.0.113.7", "192.0.2.1");
        error.payload = left.quote();
        let came = world.enters(&error);
        assert_eq!((came.kind, came.source, came.target), (error.kind, error.source, end("10.1.0.2")));
        assert_eq!(came.quoted(), (end(IN), end(OUT)));
    }
}

#[test]
fn rfc5382_req10_icmp_does_not_end_a_connection() {
    let mut world = World::new();
    let left = world.connect(IN, OUT);
    for (kind, code) in [(3, 3), (3, 2), (11, 0), (12, 0)] {
        let mut error = packet(Kind::Error(kind, code), "198.51.100.1", "192.0.2.1");
        error.payload = left.quote();
        world.enters(&error);
    }
    assert_eq!(class(&world), Class::Tcp);
    world.enters(&inbound(&left, "A", 501, 101));
}

#[test]
fn rfc5961_only_a_reset_within_the_window_counts() {
    let mut world = World::new();
    let left = world.connect(IN, OUT);
    for forged in [0, 500, 501 + 1001, 501u32.wrapping_sub(70_000), u32::MAX] {
        world.enters(&inbound(&left, "R", forged, 0));
        assert_eq!(class(&world), Class::Tcp, "{forged}");
    }
    world.enters(&inbound(&left, "R", 501, 0));
    assert_eq!(class(&world), Class::TcpClosing);
}

#[test]
fn rfc7857_who_goes_on_after_a_reset_was_not_reset() {
    let mut world = World::new();
    let left = world.connect(IN, OUT);
    world.enters(&inbound(&left, "R", 900, 0));
    assert_eq!(class(&world), Class::TcpClosing);
    world.enters(&inbound(&left, "A", 501, 101));
    assert_eq!(class(&world), Class::TcpClosing, "who sent the reset proves nothing");
    world.leaves(&tcp(IN, OUT, "A", 101, 501));
    assert_eq!(class(&world), Class::Tcp);
}

#[test]
fn a_port_may_be_used_again_while_its_connection_closes() {
    let mut world = World::new();
    let left = world.connect(IN, OUT);
    world.leaves(&tcp(IN, OUT, "FA", 101, 501));
    world.enters(&inbound(&left, "FA", 501, 102));
    let again = world.connect(IN, OUT);
    assert_eq!(again.source, left.source);
    assert_eq!(class(&world), Class::Tcp);
}

#[test]
fn a_segment_without_a_connection_is_reset() {
    let mut world = World::new();
    let out = world.out(&tcp(IN, OUT, "A", 77, 99));
    assert_eq!(out.fate, Fate::Answered(DropReason::NatNoFlow));
    assert_eq!(out.packet(), tcp(OUT, IN, "R", 99, 0));
    assert_eq!(world.out(&tcp(IN, OUT, "R", 77, 0)).fate, Fate::Dropped(DropReason::NatNoFlow));
    let out = world.inn(&tcp(OUT, "192.0.2.1:40000", "FA", 77, 99));
    assert_eq!(out.fate, Fate::Answered(DropReason::NatNoFlow));
    assert_eq!(out.packet(), tcp("192.0.2.1:40000", OUT, "R", 99, 0));
    assert_eq!(world.inn(&tcp(OUT, "192.0.2.1:22", "A", 1, 1)).fate, Fate::Host, "not ours to answer");
}

#[test]
fn segments_fit_the_uplink() {
    let announced = |packet: &[u8]| u16::from_be_bytes([packet[14 + 20 + 23], packet[14 + 20 + 24]]);
    let mut world = World::new();
    let out = world.out(&syn(IN, OUT));
    assert_eq!(announced(&out.bytes), 1460);
    let came = world.inn(&out.packet().reply());
    assert_eq!(announced(&came.bytes), 1460);
    came.packet();
}
