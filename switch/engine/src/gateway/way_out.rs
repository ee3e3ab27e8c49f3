//! The ways out of the host: its uplinks and its routes.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_frame::PortId;

use crate::prefixes::Prefixes;

/// A route of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Route {
    /// The destinations it is for.
    pub destination: IpNet,
    /// The interface of the host that it leads through.
    pub interface: String,
    /// The next hop.
    pub hop: Hop,
}

/// The next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Hop {
    /// The destination itself, which is on the uplink's link.
    Link,
    /// This router on the uplink's link.
    Router(IpAddr),
    /// Not through the uplink.
    Elsewhere,
}

/// An interface of the host that leads out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The port at which its frames come in, which is none of the switch's.
    pub port: PortId,
    /// Its name.
    pub interface: String,
    /// The addresses that what leaves by it gets, at most one of each family.
    pub addresses: Vec<IpAddr>,
}

/// The ways out of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WayOut {
    /// The uplinks.
    pub uplinks: Vec<Uplink>,
    /// The routes of the host. Of routes to one destination, the kernel lists the one it prefers first.
    pub routes: Vec<Route>,
}

/// The ways out of the host, as packets are asked about.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    uplinks: Vec<Uplink>,
    routes: Prefixes<Route>,
}

impl From<WayOut> for Ways {
    fn from(WayOut { uplinks, routes }: WayOut) -> Self {
        Self { uplinks, routes: routes.into_iter().map(|route| (route.destination, route)).collect() }
    }
}

impl Ways {
    fn route(&self, target: IpAddr) -> Option<&Route> {
        self.routes.longest(target, |_| true)
    }

    /// The route to an address, of a packet from another one.
    fn route_from(&self, target: IpAddr, from: Option<IpAddr>) -> Option<&Route> {
        let own = from.and_then(|from| self.uplinks.iter().find(|uplink| uplink.addresses.contains(&from)));
        let by_own =
            own.and_then(|own| self.routes.longest(target, |route| route.interface == own.interface));
        by_own.or_else(|| self.route(target))
    }

    pub(super) fn next_hop(&self, target: IpAddr, from: Option<IpAddr>) -> Option<(PortId, IpAddr)> {
        let route = self.route_from(target, from)?;
        let uplink = self.named(&route.interface)?;
        match route.hop {
            Hop::Link => Some((uplink.port, target)),
            Hop::Router(router) => Some((uplink.port, router)),
            Hop::Elsewhere => None,
        }
    }

    pub(super) fn named(&self, interface: &str) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.interface == interface)
    }

    pub(super) fn at(&self, port: PortId) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.port == port)
    }

    /// The interface behind which an address is, as far as routes tell.
    pub(super) fn interface_towards(&self, target: IpAddr) -> Option<&str> {
        self.route(target).map(|route| route.interface.as_str())
    }

    /// The interface by which a packet from an address goes to another one.
    pub(super) fn interface_from(&self, target: IpAddr, from: Option<IpAddr>) -> Option<&str> {
        self.route_from(target, from).map(|route| route.interface.as_str())
    }

    pub(super) fn is_uplink(&self, interface: Option<&str>) -> bool {
        interface.and_then(|interface| self.named(interface)).is_some()
    }
}

impl Uplink {
    /// Its address of the family of another one.
    pub(super) fn address(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().find(|own| own.is_ipv4() == like.is_ipv4()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_leads() {
        let route = |destination: &str, hop| {
            let interface = if hop == Hop::Elsewhere { "eth1" } else { "eth0" };
            Route { destination: destination.parse().expect("net"), interface: interface.to_owned(), hop }
        };
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let routes = vec![
            route("0.0.0.0/0", Hop::Router(ip("192.0.2.1"))),
            route("192.0.2.0/24", Hop::Link),
            route("10.0.0.0/8", Hop::Elsewhere),
            route("10.9.0.0/16", Hop::Router(ip("192.0.2.2"))),
        ];
        let uplink = |port, interface: &str, address| Uplink {
            port: PortId(port),
            interface: interface.to_owned(),
            addresses: vec![ip(address)],
        };
        let uplinks = vec![uplink(1, "eth0", "192.0.2.9"), uplink(2, "eth2", "203.0.113.9")];
        let mut routes = routes;
        let out = Ways::from(WayOut { uplinks: uplinks.clone(), routes: routes.clone() });
        for (target, hop) in [
            ("198.51.100.1", Some("192.0.2.1")),
            ("192.0.2.77", Some("192.0.2.77")),
            ("10.1.0.1", None),
            ("10.9.0.1", Some("192.0.2.2")),
            ("2001:db8::1", None),
        ] {
            assert_eq!(out.next_hop(ip(target), None), hop.map(|hop| (PortId(1), ip(hop))), "{target}");
        }
        assert_eq!(out.interface_towards(ip("10.1.0.1")), Some("eth1"));
        // An answer goes the way the question came, if a route leads there.
        let second = Hop::Router(ip("203.0.113.1"));
        let default = "0.0.0.0/0".parse().expect("net");
        routes.push(Route { destination: default, interface: "eth2".to_owned(), hop: second });
        let out = Ways::from(WayOut { uplinks, routes });
        for (from, target, expected) in [
            (None, "198.51.100.1", (1, "192.0.2.1")),
            (Some("192.0.2.9"), "198.51.100.1", (1, "192.0.2.1")),
            (Some("203.0.113.9"), "198.51.100.1", (2, "203.0.113.1")),
            (Some("203.0.113.9"), "192.0.2.77", (2, "203.0.113.1")),
        ] {
            let found = out.next_hop(ip(target), from.map(ip));
            assert_eq!(found, Some((PortId(expected.0), ip(expected.1))), "{from:?} to {target}");
        }
    }
}
