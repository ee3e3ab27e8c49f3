//! Bad input: dropped, counted, without a trace; and nothing ever leaves that was not translated.

use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::checksum::Sum;
use vswitch_frame::{Checksum, DropReason, Gso, GsoKind, Offload};
use vswitch_nat::Protocol;

use crate::support::{Fate, Kind, LAN, Out, Packet, World, binding, packet, syn, tcp, udp};

fn dropped(outs: &[Out]) -> DropReason {
    match outs {
        [Out { fate: Fate::Dropped(reason), .. }] => *reason,
        _ => panic!("{outs:?}"),
    }
}

#[test]
fn wrong_checksums_are_dropped() {
    let packets = [
        udp("10.1.0.2:5000", "198.51.100.1:53"),
        syn("10.1.0.2:5000", "198.51.100.1:53"),
        packet(Kind::Request, "10.1.0.2:5", "198.51.100.1"),
        udp("[fd01::2]:5000", "[2001:db8:9::1]:53"),
        packet(Kind::Request, "[fd01::2]:5", "2001:db8:9::1"),
    ];
    for packet in packets {
        let good = packet.frame();
        let mut world = World::new();
        let last = good.len() - 1;
        for at in [14 + 8, last] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let outs = world.outbound(LAN, &bad, Offload::NONE);
            assert_eq!(dropped(&outs), DropReason::NatBadChecksum, "{packet:?} byte {at}");
        }
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn addresses_that_no_router_forwards_are_dropped() {
    let outside = "198.51.100.1:53";
    let ends = [
        ("127.0.0.1:5", outside),
        ("224.0.0.1:5", outside),
        ("0.0.0.0:5", outside),
        ("255.255.255.255:5", outside),
        ("169.254.1.1:5", outside),
        ("10.1.0.2:5", "224.0.0.251:53"),
        ("10.1.0.2:5", "255.255.255.255:53"),
        ("10.1.0.2:5", "127.0.0.1:53"),
        ("[::1]:5", "[2001:db8:9::1]:53"),
        ("[fe80::1]:5", "[2001:db8:9::1]:53"),
        ("[ff02::1]:5", "[2001:db8:9::1]:53"),
        ("[::ffff:10.1.0.2]:5", "[2001:db8:9::1]:53"),
        ("[fd01::2]:5", "[::ffff:198.51.100.1]:53"),
        ("[fd01::2]:5", "[ff02::1]:53"),
    ];
    let mut world = World::new();
    for (source, target) in ends {
        let frame = udp(source, target).frame();
        let outs = world.outbound(LAN, &frame, Offload::NONE);
        assert_eq!(dropped(&outs), DropReason::NatBadAddress, "{source} {target}");
    }
    world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
    let forged = udp("192.0.2.2:5", "192.0.2.1:8080").frame();
    assert_eq!(dropped(&world.inbound(&forged, Offload::NONE)), DropReason::NatBadAddress);
    assert_eq!(world.flows(), 0);
}

#[test]
fn flags_that_contradict_each_other_are_dropped() {
    let mut world = World::new();
    for flags in ["", "F", "P", "SF", "SR", "RF", "SAF", "SAR"] {
        let frame = tcp("10.1.0.2:5000", "198.51.100.1:80", flags, 1, 1).frame();
        let outs = world.outbound(LAN, &frame, Offload::NONE);
        assert_eq!(dropped(&outs), DropReason::NatMalformed, "{flags}");
    }
}

#[test]
fn ports_of_zero_and_other_protocols_are_dropped() {
    let mut world = World::new();
    for (source, target) in [("10.1.0.2:0", "198.51.100.1:53"), ("10.1.0.2:53", "198.51.100.1:0")] {
        let outs = world.outbound(LAN, &udp(source, target).frame(), Offload::NONE);
        assert_eq!(dropped(&outs), DropReason::NatMalformed);
    }
    let mut gre = udp("10.1.0.2:5000", "198.51.100.1:53").frame();
    gre[23] = 47;
    crate::fragments::reseal_ip(&mut gre);
    assert_eq!(dropped(&world.outbound(LAN, &gre, Offload::NONE)), DropReason::NatProtocol);
    let arp = [vec![2; 12], vec![8, 6], vec![0; 46]].concat();
    assert_eq!(dropped(&world.outbound(LAN, &arp, Offload::NONE)), DropReason::NatProtocol);
    let mut wrong_family = packet(Kind::Request, "10.1.0.2:5", "198.51.100.1").frame();
    wrong_family[23] = 58;
    crate::fragments::reseal_ip(&mut wrong_family);
    assert_eq!(dropped(&world.outbound(LAN, &wrong_family, Offload::NONE)), DropReason::NatProtocol);
}

#[test]
fn a_query_whose_checksum_is_left_to_an_offload_leaves_with_it() {
    let mut world = World::new();
    let mut frame = packet(Kind::Request, "10.1.0.2:5", "198.51.100.1").frame();
    frame[36..38].fill(0);
    let checksum = Checksum::Partial { start: 34, offset: 2 };
    let outs = world.outbound(LAN, &frame, Offload { checksum, gso: None });
    assert_eq!(outs[0].fate, Fate::Outside);
    assert_eq!(Sum::ZERO.add_bytes(&outs[0].bytes[34..]).folded(), 0xffff);
}

/// Something like a packet: a good one with a few bytes changed, and its IPv4 checksum put right again
/// so that it is looked at.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just(udp("10.1.0.2:5000", "198.51.100.1:53")),
        Just(udp("10.1.0.2:5000", "192.0.2.1:8080")),
        Just(udp("198.51.100.1:53", "192.0.2.1:40000")),
        Just(syn("198.51.100.1:53", "192.0.2.1:8080")),
        Just(syn("10.1.0.2:5000", "198.51.100.1:80")),
        Just(packet(Kind::Request, "10.1.0.2:5", "198.51.100.1")),
        Just(udp("[fd01::2]:5000", "[2001:db8:9::1]:53")),
        Just(packet(Kind::Request, "[fd01::2]:5", "2001:db8:9::1")),
        Just(Packet {
            payload: udp("192.0.2.1:40000", "198.51.100.1:53").quote(),
            ..packet(Kind::Error(3, 3), "203.0.113.1", "192.0.2.1")
        }),
    ];
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (good, changes, any::<prop::sample::Index>(), any::<bool>(), any::<bool>()).prop_map(
        |(good, changes, length, cut, reseal)| {
            let mut frame = good.frame();
            for (at, value) in changes {
                let at = 14 + at.index(frame.len() - 14);
                frame[at] = value;
            }
            if frame[14] == 0x45 && reseal {
                crate::fragments::reseal_ip(&mut frame);
            }
            if cut {
                frame.truncate(length.index(frame.len()));
            }
            frame
        },
    )
}

fn offload() -> impl Strategy<Value = Offload> {
    let partial = (any::<u8>(), any::<u8>())
        .prop_map(|(start, offset)| Checksum::Partial { start: u16::from(start), offset: u16::from(offset) });
    let checksum = prop_oneof![
        4 => Just(Checksum::Complete),
        2 => Just(Checksum::Valid),
        1 => Just(Checksum::Partial { start: 34, offset: 6 }),
        1 => partial,
    ];
    let kind = prop_oneof![Just(GsoKind::Tcp4), Just(GsoKind::Tcp6), Just(GsoKind::Udp)];
    let gso = proptest::option::of((kind, 1..100u16).prop_map(|(kind, size)| Gso {
        kind,
        size,
        ecn: false,
        same_id: false,
    }));
    (checksum, gso).prop_map(|(checksum, gso)| Offload { checksum, gso })
}

/// Whether a frame comes from an address of the host.
fn is_ours(bytes: &[u8]) -> bool {
    match bytes[12..14] {
        [8, 0] => matches!(bytes[26..30], [192, 0, 2, 1 | 2]),
        _ => bytes[22..26] == [0x20, 1, 0xd, 0xb8] && bytes[37] == 1,
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_nothing_leaves_that_was_not_translated(
        frames in vec((prop_oneof![4 => damaged(), 1 => vec(any::<u8>(), 0..200)], offload(), any::<bool>()), 1..40)
    ) {
        let mut world = World::new();
        world.nat.add_binding(binding(Protocol::Udp)).expect("a binding");
        world.nat.add_binding(binding(Protocol::Tcp)).expect("a binding");
        for (frame, offload, outside) in frames {
            let outs = if outside {
                world.inbound(&frame, offload)
            } else {
                world.outbound(LAN, &frame, offload)
            };
            for out in outs {
                prop_assert!(out.fate != Fate::Outside || is_ours(&out.bytes), "{out:?}");
            }
            world.seconds(5);
            for out in world.poll() {
                prop_assert!(out.fate != Fate::Outside || is_ours(&out.bytes), "{out:?}");
            }
        }
        // When all is over, nothing is held.
        world.seconds(10_000);
        world.poll();
        let stats = world.nat.stats();
        prop_assert_eq!((stats.flows, stats.mappings, stats.permits, stats.fragments_waiting), (0, 0, 0, 0));
        prop_assert_eq!(stats.ports_free, stats.ports_claimed);
        prop_assert_eq!(world.nat.poll_at(), None);
    }
}
