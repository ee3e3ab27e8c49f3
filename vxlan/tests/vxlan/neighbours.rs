//! Questions of containers, and which of them are answered from the table.

use std::net::Ipv6Addr;

use vswitch_frame::checksum::Sum;
use vswitch_frame::{DropReason, Mac};
use vswitch_vxlan::{Answer, Encapsulator, Sender, Settings};

use crate::support::*;

const CAROL: Mac = Mac([2, 0, 0, 0, 0, 3]);

/// The fate of a question, and the reply.
fn asked(question: &[u8]) -> (Answer, Vec<u8>) {
    let mut tunnels = tunnels(settings(vtep(1)));
    let table = &mut tunnel(&mut tunnels).table;
    table.set(record(ALICE, &["10.0.0.1", "fd00::1"], vtep(1), 1));
    table.set(record(BOB, &["10.0.0.2", "fd00::2"], vtep(2), 1));
    table.set(record(CAROL, &["10.0.0.3", "fd00::3"], vtep(1), 1));
    let frames = frames(&[question.to_vec()]);
    let mut reply = vec![1, 2, 3];
    let answer = tunnel(&mut tunnels).answer(&frames[0], &mut reply);
    (answer, if answer == Answer::Reply { reply } else { vec![] })
}

fn request(to: Mac, from: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [&to.0[..], &from.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    [&head, &from.0[..], &sender, &[0; 6], &target].concat()
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const C: [u8; 4] = [10, 0, 0, 3];

#[test]
fn an_arp_request_is_answered_in_the_owners_name() {
    let (answer, reply) = asked(&request(Mac::BROADCAST, ALICE, A, B));
    assert_eq!(answer, Answer::Reply);
    let head = [&ALICE.0[..], &BOB.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]].concat();
    assert_eq!(reply, [&head, &BOB.0[..], &B, &ALICE.0, &A].concat());
}

#[test]
fn what_is_no_question_for_the_table_is_carried() {
    let cases: &[(&str, Vec<u8>, Answer)] = &[
        ("nobody's", request(Mac::BROADCAST, ALICE, A, [10, 0, 0, 9]), Answer::Carry),
        ("a probe of the owner", request(BOB, ALICE, A, B), Answer::Carry),
        ("an announcement", request(Mac::BROADCAST, ALICE, B, B), Answer::Carry),
        ("of itself", request(Mac::BROADCAST, BOB, [0; 4], B), Answer::Carry),
        ("of one on this host", request(Mac::BROADCAST, ALICE, A, C), Answer::Here),
        ("a duplicate's probe", request(Mac::BROADCAST, ALICE, [0; 4], B), Answer::Reply),
        ("a tagged one", tagged(&request(Mac::BROADCAST, ALICE, A, B)), Answer::Carry),
        ("no ARP", datagram(Mac::BROADCAST, ALICE, 7, b"hi"), Answer::Carry),
    ];
    for (name, question, expected) in cases {
        assert_eq!(asked(question).0, *expected, "{name}");
    }
    let request = request(Mac::BROADCAST, ALICE, A, B);
    for length in 14..request.len() {
        assert_eq!(asked(&request[..length]).0, Answer::Carry, "cut to {length}");
    }
    let mut reply = request.clone();
    reply[21] = 2;
    assert_eq!(asked(&reply).0, Answer::Carry, "a reply");
    let mut forged = request;
    forged[27] = 9;
    assert_eq!(asked(&forged).0, Answer::Carry, "in another's name");
}

/// A neighbour solicitation with a right checksum.
fn solicitation(from: Mac, sender: &str, target: &str) -> Vec<u8> {
    let [sender, target]: [Ipv6Addr; 2] = [sender, target].map(|text| text.parse().expect("an address"));
    let [.., a, b, c] = target.octets();
    let group = [&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff][..], &[a, b, c]].concat();
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    if !sender.is_unspecified() {
        message.extend([&[1, 1][..], &from.0].concat());
    }
    let length = u8::try_from(message.len()).expect("short");
    let pseudo = Sum::ZERO.add_bytes(&sender.octets()).add_bytes(&group);
    let sum = pseudo.add_word(u16::from(length)).add_word(58).add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let head = [&[0x33, 0x33, 0xff, a, b, c][..], &from.0, &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    [&head, &[0, length, 58, 255][..], &sender.octets(), &group, &message].concat()
}

#[test]
fn a_solicitation_is_answered_in_the_owners_name() {
    let (answer, reply) = asked(&solicitation(ALICE, "fd00::1", "fd00::2"));
    assert_eq!(answer, Answer::Reply);
    let octets = |text: &str| text.parse::<Ipv6Addr>().expect("an address").octets();
    assert_eq!(reply[..14], [&ALICE.0[..], &BOB.0, &[0x86, 0xdd]].concat());
    assert_eq!(reply[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
    assert_eq!(reply[22..54], [octets("fd00::2"), octets("fd00::1")].concat());
    assert_eq!((reply[54], reply[55], reply[58]), (136, 0, 0x60), "solicited and override");
    assert_eq!(reply[62..], [&octets("fd00::2")[..], &[2, 1], &BOB.0].concat());
    let sum = Sum::ZERO.add_bytes(&reply[22..54]).add_word(32).add_word(58).add_bytes(&reply[54..]);
    assert_eq!(sum.checksum(), 0);
}

#[test]
fn duplicates_are_told_and_owners_are_not() {
    let (answer, reply) = asked(&solicitation(ALICE, "::", "fd00::2"));
    assert_eq!((answer, reply[58]), (Answer::Reply, 0x20), "not solicited: to all nodes");
    assert_eq!(reply[38..54], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(asked(&solicitation(BOB, "::", "fd00::2")).0, Answer::Carry);
    assert_eq!(asked(&solicitation(ALICE, "fd00::1", "fd00::3")).0, Answer::Here);
    assert_eq!(asked(&solicitation(ALICE, "fd00::1", "fd00::9")).0, Answer::Carry);
}

#[test]
fn a_solicitation_that_is_not_right_is_carried() {
    let right = solicitation(ALICE, "fd00::1", "fd00::2");
    // Hop limit, type, code, checksum.
    for at in [21, 54, 55, 57] {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        assert_eq!(asked(&wrong).0, Answer::Carry, "byte {at}");
    }
}

/// A container that came back here is not answered for by the record of where it was.
#[test]
fn the_table_follows_a_move() {
    let mut tunnels = tunnels(Settings { learning: true, ..settings(vtep(1)) });
    let question = frames(&[request(Mac::BROADCAST, ALICE, A, B)]);
    let mut reply = Vec::new();
    tunnel(&mut tunnels).table.set(record(BOB, &["10.0.0.2"], vtep(2), 1));
    assert_eq!(tunnel(&mut tunnels).answer(&question[0], &mut reply), Answer::Reply);
    tunnel(&mut tunnels).table.set(record(BOB, &["10.0.0.2"], vtep(1), 2));
    assert_eq!(tunnel(&mut tunnels).answer(&question[0], &mut reply), Answer::Here);
    let mut out = Encapsulator::new(Sender::default(), 3);
    out.plan(tunnel(&mut tunnels), &question);
    assert_eq!((out.sends(), out.refused()), (&[][..], &[(0, DropReason::TunnelSelf)][..]));
    tunnel(&mut tunnels).table.remove(BOB, 3, NOW);
    assert_eq!(tunnel(&mut tunnels).answer(&question[0], &mut reply), Answer::Carry);
}
