//! The ways out of the host: which interfaces are uplinks, as a look at the host's links, routes and
//! addresses shows them. Pure, but for the look.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_contract::reserved::UPLINKS_MAX;
use vswitch_contract::uplink::{Hop, Route, UplinkSpec};
use vswitch_frame::Mac;
use vswitch_sys::netlink::{self, Address, Netlink};

use crate::host::addresses::reachable;

/// Routes the datapath is told: each packet that leaves is compared with all. Further ones lead nowhere.
const ROUTES_MAX: usize = 400;

/// The choice of uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The interface of the default route, of IPv4, or else of IPv6, and those of VPNs.
    #[default]
    Auto,
    /// None: containers reach this host only.
    None,
    /// The interfaces of these names.
    Named(Vec<String>),
}

impl Choice {
    /// The names of uplinks that the operator chose, in their places.
    pub fn names(&self) -> &[String] {
        if let Self::Named(names) = self { names } else { &[] }
    }

    /// Reads `auto`, `none`, or names.
    ///
    /// # Errors
    /// One line, when they contradict each other or are too many.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] | ["auto"] => return Ok(Self::Auto),
            ["none"] => return Ok(Self::None),
            _ => {}
        }
        if let Some(word) = words.iter().find(|word| matches!(word.as_str(), "auto" | "none")) {
            return Err(format!("--uplink {word} stands alone: leave it or the others out"));
        }
        let twice = words.iter().enumerate().find(|(place, word)| words[..*place].contains(word));
        if let Some((_, word)) = twice {
            return Err(format!("--uplink {word} is given twice: leave one out"));
        }
        if let Some(word) = words.iter().find(|word| !netlink::is_interface_name(word)) {
            return Err(format!("--uplink {word:?} is no name of an interface: see \"ip link\""));
        }
        if words.len() > usize::from(UPLINKS_MAX) {
            return Err(format!("{} uplinks are more than {UPLINKS_MAX}: leave some out", words.len()));
        }
        Ok(Self::Named(words.to_vec()))
    }
}

/// An uplink that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) spec: UplinkSpec,
}

/// The host, as a look at it shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The host's addresses that mean it elsewhere, of interfaces that are down, too.
    pub(super) host: Vec<IpAddr>,
    /// The uplink at each place in the list of them; `None` where there is none now.
    pub(super) uplinks: Vec<Option<Found>>,
    /// Interfaces that are no uplink though routers are behind them, each with a route through it.
    pub(super) not_followed: Vec<(String, IpNet)>,
}

impl Seen {
    /// The uplinks that are there.
    pub(super) fn found(&self) -> impl Iterator<Item = &Found> {
        self.uplinks.iter().flatten()
    }
}

/// Finds the uplinks.
pub(super) fn look(choice: &Choice) -> io::Result<Seen> {
    if *choice == Choice::None {
        return Ok(Seen::default());
    }
    let mut netlink = Netlink::open()?;
    let (links, routes, addresses) = (netlink.links()?, netlink.routes()?, netlink.addresses()?);
    Ok(find(choice, &links, &routes, &addresses))
}

fn find(choice: &Choice, links: &[netlink::Link], routes: &[netlink::Route], addresses: &[Address]) -> Seen {
    let named = |name: &String| links.iter().find(|link| link.name == *name);
    let chosen: Vec<Option<&netlink::Link>> = match choice {
        Choice::None => Vec::new(),
        Choice::Named(names) => names.iter().map(named).collect(),
        Choice::Auto => ways_out(links, routes).into_iter().map(Some).collect(),
    };
    let indices: Vec<u32> = chosen.iter().flatten().map(|link| link.index).collect();
    let beyond = routes.iter().filter(|route| beyond_the_link(route)).take(ROUTES_MAX);
    let beyond: Vec<Route> = beyond.map(|route| described(route, links, &indices)).collect();
    let uplinks = chosen.into_iter().map(|link| {
        let link = link.filter(|link| is_way_out(link))?;
        let own = |is_v4| own_address(link.index, routes, addresses, is_v4);
        let spec = UplinkSpec {
            interface: link.name.clone(),
            mac: link.mac,
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
            v4: own(true).and_then(|own| if let IpAddr::V4(own) = own { Some(own) } else { None }),
            v6: own(false).and_then(|own| if let IpAddr::V6(own) = own { Some(own) } else { None }),
            routes: beyond.clone(),
        };
        Some(Found { index: link.index, spec })
    });
    let uplinks: Vec<Option<Found>> = uplinks.collect();
    let host = addresses.iter().map(|address| address.net.addr()).filter(reachable).collect();
    let routed = routes.iter().filter(|route| beyond_the_link(route) && route.gateway.is_some());
    let others = routed.filter(|route| route.index.is_some_and(|index| !indices.contains(&index)));
    let named = others.map(|route| (described(route, links, &indices).interface, route.destination));
    let not_followed = if uplinks.is_empty() { Vec::new() } else { named.collect() };
    Seen { host, uplinks, not_followed }
}

/// The interfaces that lead out by themselves: that of the default route, and those that a VPN leads all or
/// some of it through. A VPN has no link layer, or two routes that are half the default route each.
fn ways_out<'a>(links: &'a [netlink::Link], routes: &[netlink::Route]) -> Vec<&'a netlink::Link> {
    let mut chosen: Vec<&netlink::Link> = Vec::new();
    let is_default = |route: &&netlink::Route| route.destination.prefix_len() == 0;
    let default = routes.iter().filter(is_default).find_map(|route| route.index);
    let leads_on = |route: &&netlink::Route| beyond_the_link(route) && !is_default(route);
    let others = routes.iter().filter(leads_on).filter_map(|route| {
        let link = links.iter().find(|link| Some(link.index) == route.index)?;
        (link.mac.is_none() || route.destination.prefix_len() == 1).then_some(link.index)
    });
    for index in default.into_iter().chain(others) {
        let link = links.iter().find(|link| link.index == index);
        chosen.extend(link.filter(|link| is_way_out(link) && !chosen.iter().any(|one| one.index == index)));
    }
    chosen.truncate(usize::from(UPLINKS_MAX));
    chosen
}

/// Whether packets may leave by an interface: it is up, and not the loopback.
fn is_way_out(link: &netlink::Link) -> bool {
    // The kernel reads from packets what they are.
    const WITHOUT_LINK_LAYER: [&str; 2] = ["tun", "wireguard"];
    let speaks = |link: &netlink::Link| WITHOUT_LINK_LAYER.contains(&link.kind.as_str());
    link.up && link.mac.map_or(speaks(link), |mac| mac != Mac::ZERO)
}

/// The address with which flows leave by an interface: of several that which is near its default router.
fn own_address(index: u32, routes: &[netlink::Route], addresses: &[Address], is_v4: bool) -> Option<IpAddr> {
    let default = routes.iter().find(|route| {
        let net = route.destination;
        net.prefix_len() == 0 && net.addr().is_ipv4() == is_v4 && route.index == Some(index)
    });
    let gateway = default.and_then(|route| route.gateway);
    let mine = || {
        let mine = addresses.iter().filter(|address| address.index == index).map(|address| address.net);
        mine.filter(|net| net.addr().is_ipv4() == is_v4 && reachable(&net.addr()))
    };
    let near = mine().find(|net| gateway.is_some_and(|gateway| net.contains(&gateway)));
    near.or_else(|| mine().next()).map(|net| net.addr())
}

/// Whether a route is for packets that may be passed on.
fn beyond_the_link(route: &netlink::Route) -> bool {
    match route.destination.addr() {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unicast_link_local(),
    }
}

fn described(route: &netlink::Route, links: &[netlink::Link], uplinks: &[u32]) -> Route {
    let link = links.iter().find(|link| route.index == Some(link.index));
    let interface = link.map(|link| link.name.clone()).unwrap_or_default();
    let leads_out = route.index.is_some_and(|index| uplinks.contains(&index));
    let hop = match (leads_out, route.gateway) {
        (true, Some(router)) => Hop::Router(router),
        (true, None) => Hop::Link,
        (false, _) => Hop::Elsewhere,
    };
    Route { destination: route.destination, interface, hop }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn link(index: u32, name: &str, mac: Mac, up: bool) -> netlink::Link {
        let (name, kind) = (name.to_owned(), String::new());
        netlink::Link { index, name, mac: Some(mac), mtu: 1500, txqueuelen: 0, up, master: None, kind }
    }

    fn route(destination: &str, gateway: Option<&str>, index: u32) -> netlink::Route {
        let gateway = gateway.map(|text| text.parse().expect("an address"));
        let destination = destination.parse().expect("a net");
        netlink::Route { destination, gateway, index: Some(index), is_static: false }
    }

    fn address(index: u32, net: &str) -> Address {
        Address { index, net: net.parse().expect("a net") }
    }

    #[test]
    fn the_uplink_is_where_the_default_route_leads() {
        let mac = |last| Mac([2, 0, 0, 0, 0, last]);
        let links = [
            link(1, "lo", Mac::ZERO, true),
            link(2, "eth0", mac(2), true),
            link(3, "eth1", mac(3), true),
            link(4, "eth2", mac(4), false),
        ];
        let routes = [
            route("0.0.0.0/0", Some("192.0.2.1"), 2),
            route("192.0.2.0/24", None, 2),
            route("10.0.0.0/8", None, 3),
            route("fe80::/64", None, 2),
        ];
        let addresses = [
            address(1, "127.0.0.1/8"),
            address(2, "198.51.100.2/24"),
            address(2, "192.0.2.2/24"),
            address(2, "fe80::2/64"),
            address(3, "10.0.0.2/8"),
        ];
        let find = |choice: &str| {
            let words: Vec<String> = choice.split(',').map(str::to_owned).collect();
            super::find(&Choice::parse(&words).expect("a choice"), &links, &routes, &addresses)
        };
        let seen = find("auto");
        let auto = seen.uplinks[0].clone().expect("an uplink");
        let described = |destination: &str, hop| {
            let interface = if hop == Hop::Elsewhere { "eth1" } else { "eth0" };
            Route { destination: destination.parse().expect("a net"), interface: interface.to_owned(), hop }
        };
        let expected = UplinkSpec {
            interface: "eth0".to_owned(),
            mac: Some(mac(2)),
            mtu: 1500,
            v4: Some([192, 0, 2, 2].into()),
            v6: None,
            routes: vec![
                described("0.0.0.0/0", Hop::Router([192, 0, 2, 1].into())),
                described("192.0.2.0/24", Hop::Link),
                described("10.0.0.0/8", Hop::Elsewhere),
            ],
        };
        assert_eq!((auto.index, auto.spec), (2, expected));
        let hosts = [[198, 51, 100, 2], [192, 0, 2, 2], [10, 0, 0, 2]].map(IpAddr::from);
        assert_eq!(seen.host, hosts);
        let own = |choice: &str| -> Vec<Option<Ipv4Addr>> {
            find(choice).found().map(|found| found.spec.v4).collect()
        };
        assert_eq!(own("eth1"), [Some([10, 0, 0, 2].into())]);
        assert_eq!(own("eth1,eth0"), [Some([10, 0, 0, 2].into()), Some([192, 0, 2, 2].into())]);
        assert!(find("eth0,eth9,eth1").uplinks[1].is_none(), "its place is kept");
        let several = find("eth0,eth1").uplinks[1].clone().expect("an uplink").spec.routes;
        assert_eq!(several[2].hop, Hop::Link, "none of their routes leads elsewhere");
        for none in ["none", "lo", "eth2", "eth9"] {
            assert_eq!(own(none), [], "{none}");
        }
    }

    #[test]
    fn choices_that_contradict_each_other_are_refused() {
        let parse = |text: &str| Choice::parse(&text.split(',').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("auto"), Ok(Choice::Auto));
        assert_eq!(parse("none"), Ok(Choice::None));
        assert_eq!(parse("a,b"), Ok(Choice::Named(vec!["a".to_owned(), "b".to_owned()])));
        for (text, named) in [
            ("a,none", "none stands alone"),
            ("auto,a", "auto stands alone"),
            ("a,a", "twice"),
            ("a,b,c,d,e", "5"),
        ] {
            let message = parse(text).expect_err("a contradiction");
            assert!(message.contains(named), "{text}: {message}");
        }
    }
}
