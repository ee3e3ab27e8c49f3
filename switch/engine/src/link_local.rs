//! IPv6 addresses that hold on one link only.

use std::net::{IpAddr, Ipv6Addr};

use vswitch_frame::Mac;

/// All nodes of a link (RFC 4291, 2.7.1).
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The MAC address that [`ALL_NODES`] is sent to: 33:33 and the end of the group (RFC 2464, 7).
pub(crate) const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// Whether an address is an IPv6 link-local one.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The link-local address that is made of a MAC address (RFC 4291, appendix A).
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, word(a ^ 2, b), word(c, 0xff), word(0xfe, d), word(e, f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_made_of_the_mac() {
        let expected: Ipv6Addr = "fe80::42:acff:fe11:1".parse().expect("an address");
        assert_eq!(link_local(Mac([0x02, 0x42, 0xac, 0x11, 0, 1])), expected);
    }
}
