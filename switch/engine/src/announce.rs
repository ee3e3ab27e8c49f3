//! Saying where a container's addresses are, on its behalf: its neighbours may remember somebody else who
//! had them before.
//!
//! One frame for each address: an ARP announcement (RFC 5227, 3) for IPv4, an unsolicited neighbour
//! advertisement (RFC 4861, 7.2.6) for IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_frame::checksum::Sum;
use vswitch_frame::headers::ethertype;
use vswitch_frame::{Mac, PortId};

use crate::link_local::{ALL_NODES, ALL_NODES_MAC};
use crate::network::Station;
use crate::switch::Switch;

/// Shortest Ethernet frame, without its check sequence (IEEE 802.3, 3.2.7).
const FRAME_BYTES_MIN: usize = 60;
const ICMPV6: u8 = 58;
/// A neighbour advertisement: type, flags, target, one option of eight bytes.
const ADVERTISEMENT_BYTES: u8 = 32;

impl Switch {
    /// The frames that say where the addresses of a port's container are, as if it had sent them; they are
    /// for its [`flood_targets`](Self::flood_targets). None for a port that is not there, has no address of
    /// its own, or has nobody known behind it.
    pub fn announcements(&self, port: PortId) -> Vec<Vec<u8>> {
        let Some(port) = self.ports.get(port) else { return Vec::new() };
        let (Station::Container(endpoint), Some(&mac)) = (&port.station, port.addresses.first()) else {
            return Vec::new();
        };
        let frames = endpoint.addresses.iter().map(|net| match net.addr() {
            IpAddr::V4(address) => arp_announcement(mac, address),
            IpAddr::V6(address) => neighbour_advertisement(mac, address),
        });
        frames.collect()
    }
}

/// A request for the sender's own address, which nobody answers and everybody notes.
fn arp_announcement(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    // Ethernet, IPv4, lengths of their addresses, request (RFC 826).
    const REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let address = address.octets();
    let arp = [&REQUEST[..], &mac.0, &address, &Mac::ZERO.0, &address].concat();
    ethernet(Mac::BROADCAST, mac, ethertype::ARP, &arp)
}

/// An advertisement that nobody asked for, with the override flag, so that what was known is replaced.
fn neighbour_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const OVERRIDE: u8 = 0x20;
    const HOP_LIMIT: u8 = 255;
    let head = [136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    // The target link-layer address (RFC 4861, 4.6.1).
    let option = [2, 1];
    let mut message = [&head[..], &address.octets(), &option, &mac.0].concat();
    let addresses = [address.octets(), ALL_NODES.octets()].concat();
    let sum = Sum::ZERO.add_bytes(&addresses).add_word(u16::from(ADVERTISEMENT_BYTES));
    let checksum = sum.add_word(u16::from(ICMPV6)).add_bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let header = [0x60, 0, 0, 0, 0, ADVERTISEMENT_BYTES, ICMPV6, HOP_LIMIT];
    ethernet(ALL_NODES_MAC, mac, ethertype::IPV6, &[&header[..], &addresses, &message].concat())
}

fn ethernet(target: Mac, initiator: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&target.0[..], &initiator.0, &ether_type.to_be_bytes(), payload].concat();
    frame.resize(frame.len().max(FRAME_BYTES_MIN), 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::network::{Endpoint, Network};
    use crate::ports::Port;
    use vswitch_frame::NetworkId;

    const MAC: Mac = Mac([2, 0x42, 10, 1, 0, 2]);

    fn switch(station: Station, addresses: Vec<Mac>) -> Switch {
        let mut switch = Switch::new(Limits::default(), 1);
        switch.add_network(NetworkId(0), Network::default()).expect("a new network");
        let port = Port { mtu: 1500, addresses, station, ..Port::default() };
        switch.add_port(PortId(0), port).expect("a new port");
        switch
    }

    fn container(addresses: &[&str]) -> Station {
        let addresses = addresses.iter().map(|net| net.parse().expect("a net")).collect();
        Station::Container(Endpoint { addresses, ..Endpoint::default() })
    }

    #[test]
    fn an_ipv4_address_is_announced_by_arp() {
        let frames = switch(container(&["10.1.0.2/24"]), vec![MAC]).announcements(PortId(0));
        let expected = [
            &[0xff; 6][..],
            &MAC.0,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC.0,
            &[10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 10, 1, 0, 2],
            &[0; 18],
        ];
        assert_eq!(frames, [expected.concat()]);
    }

    #[test]
    fn an_ipv6_address_is_advertised_with_a_right_checksum() {
        let frames = switch(container(&["fd00::2/64"]), vec![MAC]).announcements(PortId(0));
        let [frame] = &frames[..] else { panic!("one frame: {frames:?}") };
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[..14], [&[0x33, 0x33, 0, 0, 0, 1][..], &MAC.0, &[0x86, 0xdd]].concat());
        assert_eq!(frame[18..22], [0, 32, 58, 255]);
        assert_eq!(frame[54], 136);
        assert_eq!(frame[58], 0x20);
        assert_eq!(frame[62..78], "fd00::2".parse::<Ipv6Addr>().expect("an address").octets());
        assert_eq!(frame[78..], [&[2, 1][..], &MAC.0].concat());
        let pseudo_header = Sum::ZERO.add_bytes(&frame[22..54]).add_word(32).add_word(58);
        assert_eq!(pseudo_header.add_bytes(&frame[54..]).checksum(), 0);
    }

    #[test]
    fn who_is_unknown_announces_nothing() {
        assert_eq!(switch(Station::Unknown, vec![MAC]).announcements(PortId(0)), Vec::<Vec<u8>>::new());
        let nameless = switch(container(&["10.1.0.2/24"]), Vec::new());
        assert_eq!(nameless.announcements(PortId(0)), Vec::<Vec<u8>>::new());
        assert_eq!(nameless.announcements(PortId(1)), Vec::<Vec<u8>>::new());
        let both = switch(container(&["10.1.0.2/24", "fd00::2/64"]), vec![MAC]);
        assert_eq!(both.announcements(PortId(0)).len(), 2);
    }
}
