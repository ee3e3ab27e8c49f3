//! Paths that are narrower than the interface: what is refused, what is cut up, what is forgotten.

use std::net::IpAddr;

use vswitch_frame::Mac;
use vswitch_frame::checksum::Sum;
use vswitch_vxlan::path::{AGE, ROOM_MIN};
use vswitch_vxlan::tunnel::PEERS_MAX;
use vswitch_vxlan::{Encapsulator, Sender, Tunnel, Tunnels};

use crate::support::*;

/// Tunnels of which the MACs of two hosts are known.
fn known(local: IpAddr) -> (Tunnels, [IpAddr; 2]) {
    let mut tunnels = tunnels(settings(local));
    let peers: [IpAddr; 2] = tunnel(&mut tunnels).peers().try_into().expect("two");
    for (mac, peer) in [ALICE, BOB].into_iter().zip(peers) {
        tunnel(&mut tunnels).table.set(record(mac, &[], peer, 1));
    }
    (tunnels, peers)
}

/// A network packet of so many bytes.
fn packet_of(bytes: usize, to: Mac) -> Vec<u8> {
    datagram(to, CAROL, 7, &vec![0; bytes - 28])
}

const CAROL: Mac = Mac([2, 0, 0, 0, 0, 3]);

fn too_big(tunnel: &Tunnel, bytes: usize, to: Mac) -> Option<usize> {
    tunnel.too_big(&frames(&[packet_of(bytes, to)])[0])
}

/// The hosts that get so many bytes, and whether cut up.
fn cut(tunnel: &Tunnel, bytes: usize, to: Mac) -> Vec<(IpAddr, bool)> {
    let mut encapsulator = Encapsulator::new(Sender::default(), 3);
    encapsulator.plan(tunnel, &frames(&[packet_of(bytes, to)]));
    assert_eq!(encapsulator.refused(), []);
    encapsulator.sends().iter().map(|send| (send.to.ip(), send.cut)).collect()
}

#[test]
fn only_what_goes_by_a_narrow_path_is_refused() {
    for (local, room) in [(vtep(1), 1350), (vtep6(1), 1330)] {
        let (mut tunnels, [narrow, wide]) = known(local);
        let tunnel = tunnel(&mut tunnels);
        tunnel.note_path(narrow, 1400);
        tunnel.note_path(wide, 1500);
        assert_eq!((tunnel.room(narrow), tunnel.room(wide)), (room, tunnel.mtu()));
        assert_eq!(tunnel.narrow_paths().collect::<Vec<_>>(), [(narrow, room)]);
        assert_eq!((too_big(tunnel, room, ALICE), too_big(tunnel, room + 1, ALICE)), (None, Some(room)));
        assert_eq!(too_big(tunnel, room + 1, BOB), None);
        for (bytes, is_cut) in [(room, false), (room + 1, true)] {
            assert_eq!(cut(tunnel, bytes, ALICE), [(narrow, is_cut)]);
            assert_eq!(cut(tunnel, bytes, BOB), [(wide, false)]);
            assert_eq!(cut(tunnel, bytes, Mac::BROADCAST), [(narrow, is_cut), (wide, false)]);
        }
    }
}

#[test]
fn nobody_is_refused_the_least_mtu_of_ipv6() {
    let (mut tunnels, [narrow, _]) = known(vtep(1));
    let tunnel = tunnel(&mut tunnels);
    for path_mtu in [0, 552, 1329] {
        tunnel.note_path(narrow, path_mtu);
        assert_eq!(tunnel.room(narrow), ROOM_MIN);
        assert_eq!(too_big(tunnel, ROOM_MIN, ALICE), None);
        assert_eq!(too_big(tunnel, ROOM_MIN + 1, ALICE), Some(ROOM_MIN));
        assert_eq!(cut(tunnel, ROOM_MIN, ALICE), [(narrow, true)]);
    }
    // An interface with less room has no more for anybody.
    tunnel.set_underlay_mtu(1280);
    tunnel.note_path(narrow, 600);
    assert_eq!(tunnel.room(narrow), 1230);
}

#[test]
fn what_is_noted_is_forgotten() {
    let (mut tunnels, [narrow, _]) = known(vtep(1));
    assert_eq!((tunnels.sweep_at(), tunnels.any_is_narrow()), (None, false));
    tunnel(&mut tunnels).note_path(narrow, 1400);
    assert!(tunnels.sweep_at().is_some_and(|at| at <= NOW), "its age is counted from the next look");
    tunnels.sweep(NOW);
    assert_eq!((tunnels.sweep_at(), tunnels.any_is_narrow()), (Some(NOW + AGE), true));
    tunnels.sweep(NOW + AGE / 2);
    assert!(tunnels.any_is_narrow());
    tunnels.sweep(NOW + AGE);
    assert_eq!((tunnels.sweep_at(), tunnels.any_is_narrow()), (None, false));
    assert_eq!(too_big(tunnel(&mut tunnels), 1450, ALICE), None);

    let tunnel = tunnel(&mut tunnels);
    tunnel.note_path(narrow, 1400);
    tunnel.set_underlay_mtu(1500);
    assert_eq!(tunnel.narrow_paths().count(), 0, "the interface may be another one");
    tunnel.note_path(narrow, 1400);
    tunnel.remove_peer(narrow);
    assert_eq!(tunnel.narrow_paths().count(), 0);
}

#[test]
fn paths_are_bounded() {
    let (mut tunnels, _) = known(vtep(1));
    let tunnel = tunnel(&mut tunnels);
    for host in 0..=u32::try_from(PEERS_MAX).expect("small") {
        tunnel.note_path(IpAddr::V4((0x0a00_0000 + host).into()), 1400);
    }
    assert_eq!(tunnel.narrow_paths().count(), PEERS_MAX);
}

/// A SYN of TCP over IPv4 that offers segments of this size.
fn syn(mss: u16) -> Vec<u8> {
    let mut ip = [0x45, 0, 0, 44, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let sum = Sum::ZERO.add_bytes(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let [high, low] = mss.to_be_bytes();
    let mut tcp = [0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 6 << 4, 2, 2, 0, 0, 0, 0, 0, 2, 4, high, low];
    let sum = Sum::ZERO.add_bytes(&ip[12..]).add_word(6).add_word(24).add_bytes(&tcp).checksum();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    [&ALICE.0[..], &CAROL.0, &[8, 0], &ip, &tcp].concat()
}

#[test]
fn connections_are_opened_with_what_the_path_has_room_for() {
    let (mut tunnels, [narrow, wide]) = known(vtep(1));
    tunnel(&mut tunnels).note_path(narrow, 1400);
    let (sends, _) = sent(tunnel(&mut tunnels), Sender::default(), &[syn(1460)]);
    assert_eq!(sends[0].datagrams, [packet(&syn(1310))], "on the way out");
    let arrived = |tunnels: &mut Tunnels, from| opened(tunnels, from, None, &packet(&syn(1460))).0;
    tunnel(&mut tunnels).table.erase(ALICE);
    assert_eq!(arrived(&mut tunnels, narrow), [syn(1310)], "and in");
    assert_eq!(arrived(&mut tunnels, wide), [syn(1410)]);
}
