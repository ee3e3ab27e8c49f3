//! RFC 5508: requirements for ICMP. What is left out: hairpins of queries (REQ-7) are for translators without
//! ports; here a query to the host's address is for the host. REQ-9 leaves policy to who calls.

use vswitch_frame::{DropReason, Offload};
use vswitch_nat::{Filtering, Leaving, Limits, Protocol};

use crate::support::{Fate, Kind, LAN, Packet, World, binding, end, error, packet, syn, tcp, udp};

fn ping(source: &str, target: &str) -> Packet {
    packet(Kind::Request, source, target)
}

#[test]
fn rfc5508_req1_queries_and_their_replies_pass() {
    for (source, target, host) in [
        ("10.1.0.2:77", "198.51.100.1:0", "192.0.2.1:77"),
        ("[fd01::2]:77", "[2001:db8:9::1]:0", "[2001:db8::1]:77"),
    ] {
        let mut world = World::new();
        let left = world.leaves(&ping(source, target));
        assert_eq!((left.source, left.target), (end(host), end(target)), "the identifier is preserved");
        assert_eq!(world.enters(&left.reply()), ping(source, target).reply());
        let reply = world.out(&left.reply().between("10.1.0.9:0", "198.51.100.3:3").reply().reply());
        assert_ne!(reply.fate, Fate::Outside, "a reply to no query does not leave");
    }
}

#[test]
fn rfc5508_req1_a_mapping_is_endpoint_independent() {
    let mut world = World::new();
    let first = world.leaves(&ping("10.1.0.2:77", "198.51.100.1:0"));
    let second = world.leaves(&ping("10.1.0.2:77", "198.51.100.2:0"));
    assert_eq!(first.source, second.source);
    let other = world.leaves(&ping("10.1.0.3:77", "198.51.100.1:0"));
    assert_ne!(first.source, other.source);
    assert_eq!(world.enters(&other.reply()).target, end("10.1.0.3:77"));
}

#[test]
fn rfc5508_req2_a_query_lives_sixty_seconds() {
    let mut world = World::new();
    let left = world.leaves(&ping("10.1.0.2:77", "198.51.100.1:0"));
    world.seconds(60);
    world.poll();
    world.enters(&left.reply());
    world.seconds(1);
    world.poll();
    assert_eq!(world.inn(&left.reply()).fate, Fate::Host);
}

#[test]
fn rfc5508_req3_errors_with_wrong_checksums_are_dropped() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    let good = error(3, 3, "198.51.100.1", "192.0.2.1", &left);
    let mut wrong = good.frame();
    wrong[14 + 20 + 2] ^= 1;
    let fate = |outs: Vec<crate::support::Out>| outs[0].fate;
    assert_eq!(fate(world.inbound(&wrong, Offload::NONE)), Fate::Dropped(DropReason::NatBadChecksum));
    // a: the header of the quoted packet.
    let mut bad_quote = good.clone();
    bad_quote.payload[10] ^= 1;
    assert_eq!(world.inn(&bad_quote).fate, Fate::Dropped(DropReason::NatBadChecksum));
    // c: the transport checksum of the quoted packet does not matter.
    let mut other = good.clone();
    other.payload[27] ^= 1;
    assert_eq!(world.inn(&other).fate, Fate::Inside(LAN));
    assert_eq!(world.inn(&good).fate, Fate::Inside(LAN));
}

#[test]
fn rfc5508_req3_b_options_of_the_quoted_packet_are_passed_over() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    let mut about = error(3, 3, "198.51.100.1", "192.0.2.1", &left);
    about.payload.splice(20..20, [1, 1, 1, 0]);
    about.payload[0] = 0x46;
    about.payload[3] += 4;
    let mut framed = [vec![0; 14], about.payload].concat();
    crate::fragments::reseal_ip(&mut framed);
    about.payload = framed.split_off(14);
    let came = world.enters(&about);
    assert_eq!(came.target, end("10.1.0.2"));
    assert_eq!(came.payload[24..26], 5000u16.to_be_bytes());
}

#[test]
fn rfc5508_req4_errors_from_outside_are_translated_to_their_inside() {
    let cases = [
        (udp("10.1.0.2:5000", "198.51.100.1:53"), "203.0.113.7", "192.0.2.1", (11, 0)),
        (ping("10.1.0.2:77", "198.51.100.1:0"), "203.0.113.7", "192.0.2.1", (3, 1)),
        (syn("10.1.0.2:5000", "198.51.100.1:80"), "203.0.113.7", "192.0.2.1", (3, 4)),
        (udp("[fd01::2]:5000", "[2001:db8:9::1]:53"), "2001:db8:7::7", "2001:db8::1", (2, 0)),
        (ping("[fd01::2]:77", "[2001:db8:9::1]:0"), "2001:db8:7::7", "2001:db8::1", (1, 0)),
    ];
    for (sent, router, host, (kind, code)) in cases {
        let mut world = World::new();
        let stray = error(kind, code, router, host, &sent);
        assert_ne!(world.inn(&stray).fate, Fate::Inside(LAN), "no mapping");
        let left = world.leaves(&sent);
        let came = world.enters(&error(kind, code, router, host, &left));
        assert_eq!(came.kind, Kind::Error(kind, code), "b: type and code stay");
        assert_eq!((came.source, came.target.ip()), (end(router), sent.source.ip()), "c");
        assert_eq!(came.quoted(), (sent.source, sent.target), "a: as it was sent");
        // TCP announces less after translation; but for that the quoted packet is the one that was sent.
        if !matches!(sent.kind, Kind::Tcp(..)) {
            assert_eq!(came.payload, sent.quote(), "checksums included");
        }
    }
}

#[test]
fn rfc5508_req5_errors_from_inside_come_from_the_address_they_are_about() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    let sent = udp("198.51.100.1:999", "192.0.2.2:8080");
    let came = world.enters(&sent);
    let left = world.leaves(&error(3, 3, "10.1.0.2", "198.51.100.1", &came));
    assert_eq!((left.kind, left.source), (Kind::Error(3, 3), end("192.0.2.2")));
    assert_eq!((left.target, left.quoted()), (end("198.51.100.1"), (sent.source, sent.target)));
    assert_eq!(left.payload, sent.quote());
    // The gateway has no address there that means anything: the same.
    let left = world.leaves(&error(3, 1, "10.1.0.1", "198.51.100.1", &came));
    assert_eq!(left.source, end("192.0.2.2"));
    // About nothing we know.
    let stray = error(3, 3, "10.1.0.2", "198.51.100.7", &udp("198.51.100.7:1", "10.1.0.2:80"));
    assert_eq!(world.out(&stray).fate, Fate::Dropped(DropReason::NatNoFlow));
}

#[test]
fn rfc5508_req6_errors_neither_refresh_nor_end() {
    let mut world = World::new();
    let left = world.leaves(&ping("10.1.0.2:77", "198.51.100.1:0"));
    world.seconds(50);
    world.enters(&error(3, 1, "203.0.113.7", "192.0.2.1", &left));
    assert_eq!(world.flows(), 1);
    world.seconds(11);
    world.poll();
    assert_eq!(world.flows(), 0);
}

#[test]
fn rfc5508_req7_errors_about_hairpins_go_back_inside() {
    let mut world = World::with(Limits { filtering: Filtering::EndpointIndependent, ..World::limits() });
    let theirs = world.leaves(&udp("10.1.0.3:6000", "198.51.100.1:53"));
    let sent = udp("10.1.0.2:5000", &theirs.source.to_string());
    let came = world.out(&sent).packet();
    let back = world.out(&error(3, 3, "10.1.0.3", "192.0.2.1", &came));
    assert_eq!(back.fate, Fate::Inside(LAN));
    let back = back.packet();
    assert_eq!((back.source, back.target), (end("192.0.2.1"), end("10.1.0.2")));
    assert_eq!(back.payload, sent.quote());
}

#[test]
fn rfc5508_req8_who_may_not_leave_is_told() {
    let mut internal = World::new();
    internal.leaving = Leaving::Refused;
    let sent = udp("10.1.0.2:5001", "198.51.100.1:53");
    let out = internal.out(&sent);
    assert_eq!(out.fate, Fate::Answered(DropReason::NatRefused));
    let told = out.packet();
    assert_eq!((told.kind, told.target), (Kind::Error(3, 13), end("10.1.0.2")));
    assert_eq!(told.quoted(), (sent.source, sent.target));
}

#[test]
fn rfc5508_req8_who_finds_no_room_is_not_told_and_may_try_again() {
    let mut full = World::with(Limits { flows_per_sandbox: 1, ..World::limits() });
    let established = full.leaves(&udp("10.1.0.2:5000", "198.51.100.1:5353"));
    full.enters(&established.reply());
    let out = full.out(&udp("10.1.0.2:5001", "198.51.100.1:53"));
    assert_eq!(out.fate, Fate::Dropped(DropReason::NatSandboxFull));
}

#[test]
fn rfc5508_req10_other_messages_do_not_pass() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    for kind in [4, 5] {
        let message = error(kind, 0, "203.0.113.7", "192.0.2.1", &left);
        assert_eq!(world.inn(&message).fate, Fate::Dropped(DropReason::NatProtocol));
    }
    let to_host = ping("10.1.0.2:1", "192.0.2.1:0");
    assert_eq!(world.out(&to_host).fate, Fate::Host, "a query to the host is for the host");
    assert_eq!(world.inn(&ping("198.51.100.1:1", "192.0.2.1:0")).fate, Fate::Host);
}

#[test]
fn an_error_for_somebody_else_than_it_is_about_is_dropped() {
    let mut world = World::new();
    let left = world.leaves(&tcp("10.1.0.2:5000", "198.51.100.1:80", "S", 1, 0));
    let forged = error(3, 3, "203.0.113.7", "192.0.2.2", &left);
    assert_eq!(world.inn(&forged).fate, Fate::Dropped(DropReason::NatMalformed));
}

#[test]
fn an_error_about_what_was_never_sent_is_dropped() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    // The container was asked and has not answered.
    let asked = udp("198.51.100.1:999", "192.0.2.1:8080");
    world.enters(&asked);
    let forged = error(3, 3, "203.0.113.7", "192.0.2.1", &asked.reply());
    assert_eq!(world.inn(&forged).fate, Fate::Dropped(DropReason::NatNoFlow));
    world.leaves(&udp("10.1.0.2:80", "198.51.100.1:999"));
    assert_eq!(world.inn(&forged).fate, Fate::Inside(LAN));
    // The target of an outbound flow has said nothing that anybody could complain of.
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:5353"));
    let about_answer =
        error(3, 3, "10.1.0.2", "198.51.100.1", &left.reply().between("198.51.100.1:5353", "10.1.0.2:5000"));
    assert_eq!(world.out(&about_answer).fate, Fate::Dropped(DropReason::NatNoFlow));
}

#[test]
fn a_container_complains_of_its_own_flows_only() {
    let mut world = World::new();
    world.nat.add_binding(binding(Protocol::Tcp)).expect("a binding");
    let came = world.enters(&syn("198.51.100.1:999", "192.0.2.1:8080"));
    let by = |source: &str| error(3, 3, source, "198.51.100.1", &came);
    assert_eq!(world.out(&by("10.1.0.77")).fate, Fate::Dropped(DropReason::NatNoFlow), "a neighbour");
    assert_eq!(world.out(&by("10.1.0.2")).fate, Fate::Outside);
    assert_eq!(world.out(&by("10.1.0.1")).fate, Fate::Outside, "the gateway may say that it does not fit");
}

#[test]
fn nobody_outside_complains_in_our_name() {
    let mut world = World::new();
    let left = world.leaves(&udp("10.1.0.2:5000", "198.51.100.1:53"));
    for own in ["192.0.2.2", "10.1.0.1"] {
        let forged = error(3, 4, own, "192.0.2.1", &left);
        assert_eq!(world.inn(&forged).fate, Fate::Dropped(DropReason::NatBadAddress), "{own}");
    }
}

#[test]
fn an_error_that_is_corrupt_stays_corrupt() {
    let cases = [
        (udp("10.1.0.2:5000", "198.51.100.1:53"), "203.0.113.7", "192.0.2.1", (11, 0)),
        (udp("[fd01::2]:5000", "[2001:db8:9::1]:53"), "2001:db8:7::7", "2001:db8::1", (2, 0)),
    ];
    // As if a device had found it right: who owns a TAP can say so of anything.
    let believed = Offload { checksum: vswitch_frame::Checksum::Valid, gso: None };
    for (sent, router, host, (kind, code)) in cases {
        let mut world = World::new();
        let left = world.leaves(&sent);
        let good = error(kind, code, router, host, &left).frame();
        let mut corrupt = good.clone();
        *corrupt.last_mut().expect("a quote") ^= 0x55;
        let [good, corrupt] = [good, corrupt].map(|frame| {
            let outs = world.inbound(&frame, believed);
            assert_eq!(outs[0].fate, Fate::Inside(LAN));
            outs[0].bytes.clone()
        });
        Packet::read(&good);
        let expected = corrupt.len() - 1;
        assert_eq!(good[..expected], corrupt[..expected], "as wrong as it came");
        assert_ne!(good[expected], corrupt[expected]);
    }
}
