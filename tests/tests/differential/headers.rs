//! Our parser against etherparse and pnet.
//!
//! Where ours finds a transport, both oracles must find it in the same place. Where etherparse finds a
//! well-formed TCP or UDP packet, ours must find it too. Differences that are meant are listed in
//! [`meant_to_differ`].

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pnet::packet::Packet as _;
use pnet::packet::ethernet::EthernetPacket;
use pnet::packet::ipv4::Ipv4Packet;
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::TcpPacket;
use pnet::packet::udp::UdpPacket;
use pnet::packet::vlan::VlanPacket;
use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_frame::headers::Transport;
use vswitch_frame::{DropReason, Headers};
use vswitch_tests::packets::{Layout, Packet, mangled, packets};

/// The findings of a parser in a frame with TCP or UDP.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    transport: Transport,
    layout: Layout,
}

fn ours(headers: &Headers) -> Option<Found> {
    let layout = Layout {
        network: headers.network_offset(),
        transport: headers.transport_offset(),
        payload: headers.payload_offset(),
        end: headers.end_offset(),
    };
    (headers.transport() != Transport::Other).then_some(Found { transport: headers.transport(), layout })
}

/// Where a part of a slice starts in it.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

fn etherparse(bytes: &[u8]) -> Option<Found> {
    let packet = SlicedPacket::from_ethernet(bytes).ok()?;
    let (network, payload) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => (ip.header().slice(), ip.payload()),
        NetSlice::Ipv6(ip) => (ip.header().slice(), ip.payload()),
        NetSlice::Arp(_) => return None,
    };
    let end = offset(bytes, payload.payload) + payload.payload.len();
    let (transport, header) = match packet.transport.as_ref()? {
        TransportSlice::Tcp(tcp) => (Transport::Tcp, tcp.header_slice()),
        TransportSlice::Udp(udp) => (Transport::Udp, udp.header_slice()),
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => return None,
    };
    let at = offset(bytes, header);
    let layout = Layout { network: offset(bytes, network), transport: at, payload: at + header.len(), end };
    Some(Found { transport, layout })
}

/// pnet reads fields and checks nothing, so it follows the packet down to where ours says things are.
fn agrees_with_pnet(bytes: &[u8], found: &Found) -> bool {
    let Some(ethernet) = EthernetPacket::new(bytes) else { return false };
    let mut ether_type = ethernet.get_ethertype().0;
    let mut network = 14;
    while matches!(ether_type, 0x8100 | 0x88a8) {
        let Some(tag) = VlanPacket::new(&bytes[network..]) else { return false };
        ether_type = tag.get_ethertype().0;
        network += 4;
    }
    let at = found.layout;
    let ends = match ether_type {
        0x0800 => Ipv4Packet::new(&bytes[network..]).is_some_and(|ip| {
            network + usize::from(ip.get_header_length()) * 4 == at.transport
                && network + usize::from(ip.get_total_length()) == at.end
        }),
        0x86dd => Ipv6Packet::new(&bytes[network..])
            .is_some_and(|ip| network + 40 + usize::from(ip.get_payload_length()) == at.end),
        _ => false,
    };
    let segment = &bytes[at.transport..at.end];
    let header = match found.transport {
        Transport::Tcp => TcpPacket::new(segment).map(|tcp| usize::from(tcp.get_data_offset()) * 4),
        Transport::Udp => UdpPacket::new(segment).map(|udp| udp.packet().len() - udp.payload().len()),
        Transport::Other => None,
    };
    ends && network == at.network && header == Some(at.payload - at.transport)
}

/// Where the oracle is laxer than the switch may be, or looks further than the switch needs to:
/// a UDP length or IPv6 payload length of zero (jumbograms), more than two tags and tags of other kinds,
/// authentication headers, more than eight extension headers.
fn meant_to_differ(bytes: &[u8], found: &Found) -> bool {
    let Layout { network, transport, .. } = found.layout;
    let zero = |at: usize| bytes[at..at + 2] == [0, 0];
    let other_tags =
        (12..network - 2).step_by(4).any(|at| !matches!(bytes[at..at + 2], [0x81, 0] | [0x88, 0xa8]));
    let ipv6 = bytes[network] >> 4 == 6;
    let mut headers = 0;
    let mut authentication = !ipv6 && bytes[network + 9] == 51;
    if ipv6 {
        let (mut next, mut at) = (bytes[network + 6], network + 40);
        while at < transport {
            headers += 1;
            authentication |= next == 51;
            let units = if next == 44 { 0 } else { usize::from(bytes[at + 1]) };
            let length = if next == 51 { (units + 2) * 4 } else { (units + 1) * 8 };
            (next, at) = (bytes[at], at + length);
        }
    }
    network > 22
        || other_tags
        || authentication
        || headers > 8
        || (ipv6 && zero(network + 4))
        || (found.transport == Transport::Udp && zero(transport + 4))
}

/// Everything that must hold of any bytes.
fn compare(bytes: &[u8]) -> Result<(), TestCaseError> {
    let parsed = Headers::parse(bytes);
    if let Ok(headers) = &parsed {
        let (network, transport) = (headers.network_offset(), headers.transport_offset());
        prop_assert!(network <= transport && transport <= headers.payload_offset());
        prop_assert!(headers.payload_offset() <= headers.end_offset());
        prop_assert!(headers.end_offset() <= bytes.len());
    }
    let found = parsed.as_ref().ok().and_then(ours);
    if let Some(found) = &found {
        prop_assert!(agrees_with_pnet(bytes, found), "pnet disagrees with {:?}", found);
    }
    match etherparse(bytes) {
        Some(oracle) if !meant_to_differ(bytes, &oracle) => {
            prop_assert_eq!(&found, &Some(oracle), "we say {:?}", parsed);
        }
        Some(_) => {}
        // etherparse refuses a hop-by-hop header that is not the first; the switch looks through it.
        None => prop_assert!(found.is_none() || has_late_hop_by_hop(bytes), "only we find {:?}", found),
    }
    Ok(())
}

fn has_late_hop_by_hop(bytes: &[u8]) -> bool {
    let error = SlicedPacket::from_ethernet(bytes).expect_err("refused");
    format!("{error:?}").contains("HopByHopNotAtStart")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn packets_by_the_book_are_found_where_they_were_put(packet in packets()) {
        let bytes = packet.bytes();
        let headers = Headers::parse(&bytes).expect("a packet by the book");
        // A fragment with offset zero and none to follow is a whole packet (RFC 6946).
        let fragment = packet.fragment.is_some_and(|fragment| fragment != (0, false));
        prop_assert_eq!(headers.is_fragment(), fragment);
        prop_assert_eq!(headers.is_ipv6(), packet.ipv6);
        if fragment {
            prop_assert_eq!(headers.transport(), Transport::Other);
        } else {
            let found = ours(&headers).expect("a transport");
            prop_assert_eq!(found.layout, packet.layout());
        }
        compare(&bytes)?;
    }

    #[test]
    fn mangled_packets_are_judged_alike(bytes in mangled()) {
        compare(&bytes)?;
    }

    #[test]
    fn noise_is_judged_alike(bytes in vec(any::<u8>(), 0..120)) {
        compare(&bytes)?;
    }

    #[test]
    fn noise_behind_an_ip_ether_type_is_judged_alike(ipv6 in any::<bool>(), noise in vec(any::<u8>(), 1..120)) {
        let ether_type: [u8; 2] = if ipv6 { [0x86, 0xdd] } else { [0x08, 0x00] };
        let mut bytes = [&[2; 12][..], &ether_type, &noise].concat();
        bytes[14] = bytes[14] & 0x0f | if ipv6 { 0x60 } else { 0x40 };
        compare(&bytes)?;
    }
}

#[test]
fn a_udp_length_below_its_header_is_refused() {
    let mut bytes = Packet::udp(vec![]).bytes();
    let length_at = 14 + 20 + 5;
    for length in 0..8 {
        bytes[length_at] = length;
        assert_eq!(Headers::parse(&bytes), Err(DropReason::MalformedUdp), "length {length}");
    }
}

#[test]
fn every_truncation_is_refused_with_its_reason() {
    for (packet, reason) in [
        (Packet::udp(vec![1; 32]), DropReason::MalformedIpv4),
        (
            Packet { ipv6: true, extensions: vec![(60, 1)], ..Packet::tcp(1, vec![1; 32]) },
            DropReason::MalformedIpv6,
        ),
    ] {
        let bytes = packet.bytes();
        for length in 0..bytes.len() {
            let expected = if length < 14 { DropReason::Runt } else { reason };
            assert_eq!(Headers::parse(&bytes[..length]), Err(expected), "{length} bytes of {packet:?}");
        }
    }
}
