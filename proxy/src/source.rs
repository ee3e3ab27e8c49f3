//! The source that the container sees: the client, or the gateway.
//!
//! The client's own address is kept where the container's answer finds the way back to us:
//!
//! | client | the container sees |
//! |---|---|
//! | of the container's family, and none of those below | the client's address and port |
//! | the same, but a relay between these two has that port already | the client's address, another port |
//! | of the other family | the gateway |
//! | loopback, unspecified, multicast, broadcast, link-local | the gateway: it is the container or nobody |
//! | in the container's subnet | the gateway: the container would look for it on its link |
//! | any, where the container has no default route | the gateway |

use std::net::{IpAddr, SocketAddr};

use crate::binding::Binding;

/// Ports of the proxy's own. They are below those the kernel takes for connections of its own
/// (`net.ipv4.ip_local_port_range`), since the host has the gateway's address, too.
pub(crate) const PORT_FIRST: u16 = 1024;
pub(crate) const PORTS: u16 = 32_768 - PORT_FIRST;

/// The client's address where it is routable for the container, else the gateway's.
pub(crate) fn address(binding: &Binding, client: IpAddr) -> IpAddr {
    if binding.keeps_client && is_routable(binding, client) { client } else { binding.gateway }
}

fn is_routable(binding: &Binding, client: IpAddr) -> bool {
    let of_nobody = client.is_loopback() || client.is_unspecified() || client.is_multicast();
    !of_nobody && is_global(client) && same_family(binding, client) && !is_on_link(binding, client)
}

fn same_family(binding: &Binding, client: IpAddr) -> bool {
    binding.container.is_ipv4() == client.is_ipv4()
}

/// Neither link-local nor reserved for nobody.
fn is_global(client: IpAddr) -> bool {
    match client {
        IpAddr::V4(four) => !four.is_link_local() && !matches!(four.octets()[0], 0 | 240..=255),
        IpAddr::V6(six) => !six.is_unicast_link_local(),
    }
}

fn is_on_link(binding: &Binding, client: IpAddr) -> bool {
    let width = if client.is_ipv4() { 32 } else { 128 };
    let differing = as_bits(client) ^ as_bits(binding.container.ip());
    // Only a prefix of no bits leaves all 128 to the host, and then everything is on the link.
    let host_bits = width - width.min(u32::from(binding.prefix));
    differing.checked_shr(host_bits).is_none_or(|left| left == 0)
}

fn as_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(four) => u128::from(four.to_bits()),
        IpAddr::V6(six) => six.to_bits(),
    }
}

/// Whether a client's port can be kept, too. With the gateway's address it may be one that the kernel uses.
pub(crate) fn keeps_port(binding: &Binding, source: IpAddr, client: SocketAddr) -> bool {
    source == client.ip() && source != binding.gateway && client.port() != 0
}

/// A client as it is on the wire: an IPv4 client of a socket of both families is one of IPv4.
pub(crate) fn canonical(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(client.ip().to_canonical(), client.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::tests::binding;

    #[test]
    fn the_client_is_kept_where_the_answer_finds_back() {
        let four = binding(80);
        let container = "[fd00::2]:80".parse().expect("address");
        let six = Binding { container, gateway: "fd00::1".parse().expect("address"), prefix: 64, ..four };
        let internal = Binding { keeps_client: false, ..four };
        let everything = Binding { prefix: 0, ..six };
        for (binding, client, kept) in [
            (four, "192.168.1.7", true),
            (four, "172.18.0.2", true),
            (four, "172.17.255.9", false),
            (four, "172.17.0.1", false),
            (four, "127.0.0.1", false),
            (four, "169.254.1.1", false),
            (four, "224.0.0.1", false),
            (four, "255.255.255.255", false),
            (four, "0.0.0.0", false),
            (four, "2001:db8::1", false),
            (six, "2001:db8::1", true),
            (six, "fd00:0:0:1::2", true),
            (six, "fd00::99", false),
            (six, "::1", false),
            (six, "fe80::1", false),
            (six, "192.168.1.7", false),
            (internal, "192.168.1.7", false),
            (everything, "2001:db8::1", false),
        ] {
            let client = client.parse().expect("address");
            let seen = if kept { client } else { binding.gateway };
            assert_eq!(address(&binding, client), seen, "{client} with {}", binding.container);
        }
    }
}
