//! RFC 7348, requirement by requirement, in its order. `docs/vxlan.md` names these tests.

use vswitch_frame::{DropReason, Mac};
use vswitch_vxlan::table::Origin;
use vswitch_vxlan::{Sender, Settings, UDP_PORT};

use crate::support::*;

/// 4.1: the network of a frame says what MAC addresses mean; the same address in another is another.
#[test]
fn addresses_are_of_one_network() {
    let mut both = tunnels(settings(vtep(1)));
    let other = vswitch_vxlan::Vni::new(6000).expect("24 bits");
    let second = both.add(Settings { vni: other, ..settings(vtep(1)) }).expect("another network");
    second.add_peer(vtep(3)).expect("another host");
    second.table.set(record(BOB, &[], vtep(3), 1));
    tunnel(&mut both).table.set(record(BOB, &[], vtep(2), 1));
    let burst = [datagram(BOB, ALICE, 7, b"hi")];
    for (vni, host) in [(vni(), vtep(2)), (other, vtep(3))] {
        let (sends, _) = sent(both.get(vni).expect("made"), Sender::default(), &burst);
        assert_eq!(sends.iter().map(|send| send.to).collect::<Vec<_>>(), [host]);
        assert_eq!(sends[0].datagrams[0][4..7], vni.get().to_be_bytes()[1..]);
    }
}

/// 4.1: a known destination gets the frame, whole, behind the header, and nobody else does.
#[test]
fn a_known_address_gets_the_frame() {
    let mut tunnels = tunnels(settings(vtep(1)));
    tunnel(&mut tunnels).table.set(record(BOB, &[], vtep(2), 1));
    let frame = datagram(BOB, ALICE, 7, b"hi");
    let (sends, refused) = sent(tunnel(&mut tunnels), Sender::default(), std::slice::from_ref(&frame));
    assert_eq!(sends.len(), 1);
    assert_eq!((sends[0].to, &sends[0].datagrams), (vtep(2), &vec![packet(&frame)]));
    assert_eq!(refused, []);
}

/// 4.1: the receiver checks the network, takes the header off, and hands the frame on.
#[test]
fn what_arrives_is_the_frame() {
    let frame = datagram(ALICE, BOB, 7, b"hi");
    let mut tunnels = tunnels(settings(vtep(1)));
    assert_eq!(opened(&mut tunnels, vtep(2), None, &packet(&frame)), (vec![frame], vec![]));
}

/// 4.1: "the remote VTEP learns the mapping from inner source MAC to outer source IP address" — where
/// that is wanted; and control outranks it.
#[test]
fn the_way_back_is_learned() {
    let frame = packet(&datagram(ALICE, BOB, 7, b"hi"));
    let mut tunnels = tunnels(Settings { learning: true, ..settings(vtep(1)) });
    opened(&mut tunnels, vtep(2), None, &frame);
    assert_eq!(tunnel(&mut tunnels).table.look_up(BOB), Some(vtep(2)));
    opened(&mut tunnels, vtep(3), None, &frame);
    assert_eq!(tunnel(&mut tunnels).table.look_up(BOB), Some(vtep(3)), "it moved");
    tunnel(&mut tunnels).table.set(record(BOB, &[], vtep(2), 1));
    opened(&mut tunnels, vtep(3), None, &frame);
    assert_eq!(tunnel(&mut tunnels).table.look_up(BOB), Some(vtep(2)));
}

/// Nothing is learned where it is not wanted.
#[test]
fn nothing_is_learned_without_being_asked_to() {
    let mut tunnels = tunnels(settings(vtep(1)));
    opened(&mut tunnels, vtep(2), None, &packet(&datagram(ALICE, BOB, 7, b"hi")));
    assert_eq!(tunnel(&mut tunnels).table.entries().count(), 0);
}

/// Nobody can be learned by an address that no station has.
#[test]
fn addresses_of_no_station_are_not_learned() {
    let mut tunnels = tunnels(Settings { learning: true, ..settings(vtep(1)) });
    for source in [Mac::BROADCAST, Mac::ZERO] {
        opened(&mut tunnels, vtep(2), None, &packet(&datagram(ALICE, source, 7, b"hi")));
    }
    assert_eq!(tunnel(&mut tunnels).table.entries().count(), 0);
}

/// 4.2: broadcast, unknown and multicast frames reach every VTEP of the network: here by a copy for each
/// (head-end replication) rather than by an underlay's multicast.
#[test]
fn broadcast_and_unknown_go_to_every_peer() {
    let mut tunnels = tunnels(settings(vtep(1)));
    for destination in [Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1]), BOB] {
        let frame = datagram(destination, ALICE, 7, b"hi");
        let (sends, _) = sent(tunnel(&mut tunnels), Sender::default(), std::slice::from_ref(&frame));
        assert_eq!(sends.iter().map(|send| send.to).collect::<Vec<_>>(), [vtep(2), vtep(3)]);
        assert!(sends.iter().all(|send| send.datagrams == [packet(&frame)]), "{destination}");
    }
}

/// A network that is on no other host has nobody to send to.
#[test]
fn without_peers_there_is_no_receiver() {
    let mut tunnels = tunnels(settings(vtep(1)));
    tunnel(&mut tunnels).remove_peer(vtep(2));
    tunnel(&mut tunnels).remove_peer(vtep(3));
    let burst = [datagram(Mac::BROADCAST, ALICE, 7, b"hi")];
    let (sends, refused) = sent(tunnel(&mut tunnels), Sender::default(), &burst);
    assert_eq!((sends, refused), (vec![], vec![(0, DropReason::NoReceiver)]));
}

/// 4.3: "VTEPs MUST NOT fragment VXLAN packets": what does not fit is refused; all that fits is not.
#[test]
fn what_does_not_fit_the_underlay_is_refused() {
    for (local, mtu) in [(vtep(1), 1450), (vtep6(1), 1430)] {
        let mut tunnels = tunnels(settings(local));
        assert_eq!(tunnel(&mut tunnels).mtu(), mtu);
        let burst = [mtu, mtu + 1].map(|size| datagram(BOB, ALICE, 7, &vec![0; size - 28]));
        let (sends, refused) = sent(tunnel(&mut tunnels), Sender::default(), &burst);
        assert_eq!(refused, [(1, DropReason::TxTooBig)]);
        let outer = if local.is_ipv4() { 28 } else { 48 };
        assert!(sends.iter().all(|send| send.datagrams[0].len() + outer == 1500));
    }
}

/// 4.3: the limit follows the underlay.
#[test]
fn the_limit_follows_the_underlay() {
    let mut tunnels = tunnels(settings(vtep(1)));
    tunnel(&mut tunnels).set_underlay_mtu(9000);
    let burst = [datagram(BOB, ALICE, 7, &[0; 8950 - 28])];
    assert_eq!(sent(tunnel(&mut tunnels), Sender::default(), &burst).1, []);
    tunnel(&mut tunnels).set_underlay_mtu(1500);
    assert_eq!(sent(tunnel(&mut tunnels), Sender::default(), &burst).1, [(0, DropReason::TxTooBig)]);
}

/// 5: flag I is set and everything reserved is zero on the way out.
#[test]
fn the_header_is_as_the_rfc_draws_it() {
    let mut tunnels = tunnels(settings(vtep(1)));
    let burst = [datagram(BOB, ALICE, 7, b"hi")];
    let (sends, _) = sent(tunnel(&mut tunnels), Sender::default(), &burst);
    assert_eq!(sends[0].datagrams[0][..8], [0x08, 0, 0, 0, 0, 0x13, 0x88, 0]);
}

/// 5: flag I must be set; what is reserved is ignored on receipt.
#[test]
fn only_flag_and_identifier_matter_on_receipt() {
    let frame = datagram(ALICE, BOB, 7, b"hi");
    let mut tunnels = tunnels(settings(vtep(1)));
    for bit in 0..64 {
        let mut bytes = packet(&frame);
        bytes[bit / 8] ^= 0x80 >> (bit % 8);
        let expected = match bit {
            4 => (vec![], vec![(None, DropReason::TunnelMalformed)]),
            32..56 => (vec![], vec![(None, DropReason::TunnelUnknownVni)]),
            _ => (vec![frame.clone()], vec![]),
        };
        assert_eq!(opened(&mut tunnels, vtep(2), None, &bytes), expected, "bit {bit}");
    }
}

/// 5: the destination port is 4789 unless configured otherwise.
#[test]
fn the_port_is_the_assigned_one_or_another() {
    assert_eq!(Sender::default().port, UDP_PORT);
    assert_eq!(UDP_PORT, 4789);
    let mut tunnels = tunnels(settings(vtep(1)));
    let burst = [datagram(BOB, ALICE, 7, b"hi")];
    let (sends, _) = sent(tunnel(&mut tunnels), Sender { port: 8472, ..Sender::default() }, &burst);
    assert_eq!(sends.len(), 2);
}

/// 5: the source port is made from a hash of the inner frame: one flow keeps one, flows spread.
#[test]
fn flows_spread_over_the_source_ports() {
    let mut tunnels = tunnels(settings(vtep(1)));
    tunnel(&mut tunnels).table.set(record(BOB, &[], vtep(2), 1));
    let sender = Sender { sockets: 8, ..Sender::default() };
    let mut used = std::collections::BTreeSet::new();
    for port in 0..200 {
        let burst = [&[1; 3][..], &[2; 300], &[3; 3]].map(|payload| datagram(BOB, ALICE, port, payload));
        let (sends, _) = sent(tunnel(&mut tunnels), sender, &burst);
        let sockets: std::collections::BTreeSet<u16> = sends.iter().map(|send| send.socket).collect();
        assert_eq!(sockets.len(), 1, "of one flow");
        used.extend(sockets);
    }
    assert_eq!(used, (0..8).collect());
}

/// 6.1: the encapsulating VTEP strips a VLAN tag unless configured otherwise.
#[test]
fn a_tag_is_stripped_unless_carried() {
    let plain = datagram(BOB, ALICE, 7, b"hi");
    for (tags, frame, expected) in [
        (false, tagged(&plain), plain.clone()),
        (false, tagged(&tagged(&plain)), plain.clone()),
        (true, tagged(&plain), tagged(&plain)),
    ] {
        let mut tunnels = tunnels(Settings { tags, ..settings(vtep(1)) });
        let (sends, refused) = sent(tunnel(&mut tunnels), Sender::default(), &[frame]);
        assert_eq!((&sends[0].datagrams, refused), (&vec![packet(&expected)], vec![]));
    }
    let mut tunnels = tunnels(settings(vtep(1)));
    let thrice = tagged(&tagged(&tagged(&plain)));
    let (sends, refused) = sent(tunnel(&mut tunnels), Sender::default(), &[thrice]);
    assert_eq!((sends, refused), (vec![], vec![(0, DropReason::TunnelTagged)]));
}

/// 6.1: a decapsulated frame with a VLAN tag is discarded unless configured otherwise.
#[test]
fn a_tag_that_arrives_is_dropped_unless_carried() {
    let frame = tagged(&datagram(ALICE, BOB, 7, b"hi"));
    let mut carried = tunnels(Settings { tags: true, ..settings(vtep(1)) });
    assert_eq!(opened(&mut carried, vtep(2), None, &packet(&frame)), (vec![frame.clone()], vec![]));
    let mut tunnels = tunnels(settings(vtep(1)));
    let dropped = vec![(Some(vni()), DropReason::TunnelTagged)];
    assert_eq!(opened(&mut tunnels, vtep(2), None, &packet(&frame)), (vec![], dropped));
}

/// 6.1 and the MTU: a tag that is carried takes its room.
#[test]
fn a_carried_tag_takes_its_room() {
    let mut tunnels = tunnels(Settings { tags: true, ..settings(vtep(1)) });
    let burst = [1446, 1447].map(|size| tagged(&datagram(BOB, ALICE, 7, &vec![0; size - 28])));
    let (_, refused) = sent(tunnel(&mut tunnels), Sender::default(), &burst);
    assert_eq!(refused, [(1, DropReason::TxTooBig)]);
}

/// 7: only known VTEPs of the network are believed.
#[test]
fn strangers_are_not_believed() {
    let mut tunnels = tunnels(Settings { learning: true, ..settings(vtep(1)) });
    let bytes = packet(&datagram(ALICE, BOB, 7, b"hi"));
    let from = |tunnels: &mut _, from| opened(tunnels, from, None, &bytes).1;
    assert_eq!(from(&mut tunnels, vtep(9)), [(Some(vni()), DropReason::TunnelUnknownVtep)]);
    assert_eq!(from(&mut tunnels, vtep(1)), [(Some(vni()), DropReason::TunnelSelf)]);
    assert_eq!(tunnel(&mut tunnels).table.entries().count(), 0);
    let mapped = "::ffff:192.0.2.2".parse().expect("an address");
    assert_eq!(from(&mut tunnels, mapped), []);
    assert_eq!(
        tunnel(&mut tunnels).table.find(BOB).map(|entry| (entry.vtep, entry.origin)),
        Some((vtep(2), Origin::Learned { seen: NOW }))
    );
    tunnel(&mut tunnels).remove_peer(vtep(2));
    assert_eq!(from(&mut tunnels, vtep(2)), [(Some(vni()), DropReason::TunnelUnknownVtep)]);
    assert_eq!(tunnel(&mut tunnels).table.look_up(BOB), None, "nor what was learned from them");
}

/// 7: a peer does not speak for who lives behind another one.
#[test]
fn a_peer_speaks_for_its_own_only() {
    let mut tunnels = tunnels(Settings { learning: true, ..settings(vtep(1)) });
    tunnel(&mut tunnels).add_peer(vtep(3)).expect("another host");
    let bytes = packet(&datagram(ALICE, BOB, 7, b"hi"));
    let from = |tunnels: &mut _, from| opened(tunnels, from, None, &bytes).1;
    assert_eq!(from(&mut tunnels, vtep(2)), []);
    assert_eq!(from(&mut tunnels, vtep(3)), [], "what was learned may move");
    tunnel(&mut tunnels).table.set(record(BOB, &[], vtep(2), 1));
    assert_eq!(from(&mut tunnels, vtep(3)), [(Some(vni()), DropReason::TunnelSpoofed)]);
    assert_eq!(from(&mut tunnels, vtep(2)), []);
    tunnel(&mut tunnels).table.set(record(BOB, &[], vtep(3), 2));
    assert_eq!(from(&mut tunnels, vtep(3)), []);
}

/// A frame that would come back to this host is not sent.
#[test]
fn nothing_is_sent_to_this_host_itself() {
    let mut tunnels = tunnels(settings(vtep(1)));
    assert!(tunnel(&mut tunnels).add_peer(vtep(1)).is_err());
    tunnel(&mut tunnels).table.set(record(BOB, &[], vtep(1), 1));
    let burst = [datagram(BOB, ALICE, 7, b"hi")];
    let (sends, refused) = sent(tunnel(&mut tunnels), Sender::default(), &burst);
    assert_eq!((sends, refused), (vec![], vec![(0, DropReason::TunnelSelf)]));
}

/// A network spans 4,096 other hosts; one more is refused, and takes nobody's place.
#[test]
fn a_network_spans_four_thousand_hosts() {
    let mut tunnels = tunnels(settings(vtep(1)));
    let tunnel = tunnel(&mut tunnels);
    tunnel.peers().to_vec().into_iter().for_each(|peer| tunnel.remove_peer(peer));
    let peer = |number: u32| std::net::IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    (0..4096).for_each(|number| tunnel.add_peer(peer(number)).expect("there is room"));
    let refused = tunnel.add_peer(peer(4096)).expect_err("full").to_string();
    assert_eq!(refused, "10.0.16.0 is one peer too many: a network spans at most 4096 other hosts");
    tunnel.remove_peer(peer(7));
    tunnel.add_peer(peer(4096)).expect("there is room");
    let burst = [datagram(Mac::BROADCAST, ALICE, 7, b"hi")];
    assert_eq!(sent(tunnel, Sender::default(), &burst).0.len(), 4096);
}

/// An inner frame is looked at like any frame.
#[test]
fn broken_frames_are_dropped() {
    let frame = datagram(ALICE, BOB, 7, b"hi");
    let mut tunnels = tunnels(Settings { learning: true, ..settings(vtep(1)) });
    for (bytes, reason) in [
        (vec![], (None, DropReason::TunnelMalformed)),
        (packet(&frame)[..7].to_vec(), (None, DropReason::TunnelMalformed)),
        (packet(&[]), (Some(vni()), DropReason::Runt)),
        (packet(&frame[..13]), (Some(vni()), DropReason::Runt)),
        (packet(&frame[..30]), (Some(vni()), DropReason::MalformedIpv4)),
    ] {
        assert_eq!(opened(&mut tunnels, vtep(2), None, &bytes), (vec![], vec![reason]));
    }
    assert_eq!(tunnel(&mut tunnels).table.entries().count(), 0, "nothing was learned from them");
}
