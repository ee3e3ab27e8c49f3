//! The site that a frame for a gateway came from: the port, its network, and the gateway there.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use vswitch_frame::{NetworkId, PortId};

use crate::link_local::{is_link_local, link_local};
use crate::network::{Gateway, Network};
use crate::ports::{Port, Ports};

/// A network with a gateway, seen from one of its ports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) from: &'a Port,
    pub(crate) network: &'a Network,
    pub(crate) gateway: &'a Gateway,
    /// The port of the host.
    pub(crate) host: Option<PortId>,
}

impl<'a> Site<'a> {
    /// The site of a port; `None` where there is no gateway.
    #[inline]
    pub(crate) fn of(ports: &'a Ports, ingress: PortId) -> Option<Self> {
        let from = ports.get(ingress)?;
        let network = ports.network(from.network)?;
        let gateway = network.gateway.as_ref()?;
        Some(Self { from, network, gateway, host: ports.host(from.network) })
    }

    /// The number of the network.
    pub(crate) fn id(&self) -> NetworkId {
        self.from.network
    }

    /// Whether an address is the gateway's.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.gateway.addresses.contains(&address)
            || self.speaks_ipv6() && address == IpAddr::V6(link_local(self.gateway.mac))
    }

    /// Whether the network has addresses of IPv6.
    pub(crate) fn speaks_ipv6(&self) -> bool {
        self.network.subnets.iter().any(|subnet| matches!(subnet, IpNet::V6(_)))
    }

    /// The gateway's address towards a station: the one in its subnet, else the first of its family.
    pub(crate) fn own_address(&self, station: IpAddr) -> Option<IpAddr> {
        let same_subnet = |own: &&IpAddr| {
            self.network.subnets.iter().any(|net| net.contains(*own) && net.contains(&station))
        };
        let own = &self.gateway.addresses;
        let near = own.iter().find(same_subnet);
        near.or_else(|| own.iter().find(|own| own.is_ipv4() == station.is_ipv4())).copied()
    }

    /// Whether an address is that of many here: a group's, or all stations'.
    pub(crate) fn is_many(&self, target: IpAddr) -> bool {
        let is_all = matches!(target, IpAddr::V4(target) if target.is_broadcast());
        is_all || target.is_multicast() || self.network.subnets.iter().any(|net| is_broadcast(net, target))
    }

    /// Whether no station of this network may send from an address: it is in none of its subnets, or is no
    /// station's, or is the gateway's own.
    pub(crate) fn is_martian(&self, source: IpAddr) -> bool {
        if is_link_local(source) {
            return self.owns(source);
        }
        !self.network.subnets.iter().any(|net| net.contains(&source) && is_station(*net, source))
            || self.owns(source)
    }
}

/// Whether an address stands for all stations of a subnet.
fn is_broadcast(net: &IpNet, address: IpAddr) -> bool {
    matches!((net, address), (IpNet::V4(net), IpAddr::V4(address)) if address == net.broadcast() && net.prefix_len() < 31)
}

/// Whether an address of a subnet can be a station's: it is neither the network's nor the broadcast address
/// (RFC 1812, 4.2.3.1; in subnets of one or two addresses, RFC 3021, each is a station's).
fn is_station(net: IpNet, address: IpAddr) -> bool {
    match (net, address) {
        (IpNet::V4(net), IpAddr::V4(address)) => {
            let usable = !address.is_multicast() && !address.is_broadcast() && !address.is_loopback();
            let edge = address == net.network() || address == net.broadcast();
            usable && address != Ipv4Addr::UNSPECIFIED && (net.prefix_len() >= 31 || !edge)
        }
        (IpNet::V6(_), IpAddr::V6(address)) => {
            !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
        }
        (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use vswitch_frame::Mac;

    use super::*;

    #[test]
    fn what_a_station_may_send_from() {
        let gateway = Gateway {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            addresses: ["10.1.0.1", "fd00::1"].map(|text| text.parse().expect("an address")).to_vec(),
            isolated: false,
        };
        let subnets = ["10.1.0.0/24", "fd00::/64", "10.2.0.0/31"];
        let subnets = subnets.map(|text| text.parse().expect("a subnet")).to_vec();
        let network = Network { subnets, gateway: None, ..Network::default() };
        let from = Port::default();
        let site = Site { from: &from, network: &network, gateway: &gateway, host: None };
        for (source, martian) in [
            ("10.1.0.2", false),
            ("10.1.0.1", true),
            ("10.1.0.0", true),
            ("10.1.0.255", true),
            ("10.2.0.0", false),
            ("10.2.0.1", false),
            ("10.3.0.1", true),
            ("0.0.0.0", true),
            ("127.0.0.1", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("fd00::2", false),
            ("fd00::1", true),
            ("fd01::2", true),
            ("fe80::5", false),
            ("fe80::ff:fe00:1", true),
            ("::", true),
            ("::1", true),
            ("ff02::1", true),
        ] {
            assert_eq!(site.is_martian(source.parse().expect("an address")), martian, "{source}");
        }
    }
}
