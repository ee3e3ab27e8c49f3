//! The ways out of the host: which interfaces are uplinks, as a look at the host's links, routes and
//! addresses shows them. Pure, but for the look.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use vswitch_contract::reserved::UPLINKS_MAX;
use vswitch_contract::uplink::UplinkSpec;
use vswitch_frame::Mac;
use vswitch_sys::netlink::{self, Address, Netlink};

use crate::host::addresses::reachable;
use crate::host::routes::{self, beyond_the_link, is_of_one};

/// The choice of uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The interfaces of the default route's next hops, of IPv4, or else of IPv6, and those of VPNs.
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
    /// Whether there are more routes than the datapath is told.
    pub(super) is_cut: bool,
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
    let (beyond, is_cut) = routes::followed(routes, links, &indices);
    let uplinks = chosen.into_iter().map(|link| {
        let link = link.filter(|link| is_way_out(link))?;
        let own = |is_v4| own_address(link.index, routes, addresses, is_v4);
        let spec = UplinkSpec {
            interface: link.name.clone(),
            mac: link.mac,
            mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
            v4: own(true).and_then(|own| if let IpAddr::V4(own) = own { Some(own) } else { None }),
            v6: own(false).and_then(|own| if let IpAddr::V6(own) = own { Some(own) } else { None }),
            link_local: link_local(link.index, addresses),
            routes: beyond.clone(),
        };
        Some(Found { index: link.index, spec })
    });
    let uplinks: Vec<Option<Found>> = uplinks.collect();
    let host = addresses.iter().map(|address| address.net.addr()).filter(reachable).collect();
    let routed = routes.iter().filter(|route| beyond_the_link(route) && route.gateway.is_some());
    let others = routed.filter(|route| route.index.is_some_and(|index| !indices.contains(&index)));
    let named = others.map(|route| (routes::interface(route, links), route.destination));
    let not_followed = if uplinks.is_empty() { Vec::new() } else { named.collect() };
    Seen { host, uplinks, not_followed, is_cut }
}

/// The interfaces that lead out by themselves: those of the default route's next hops, and those that a VPN
/// leads all or some of it through. A VPN has no link layer, or two routes that are half the default route
/// each.
fn ways_out<'a>(links: &'a [netlink::Link], routes: &[netlink::Route]) -> Vec<&'a netlink::Link> {
    let mut chosen: Vec<&netlink::Link> = Vec::new();
    let is_default = |route: &&netlink::Route| route.destination.prefix_len() == 0;
    let default = routes.iter().filter(is_default).find(|route| route.index.is_some());
    let is_default_hop = |route: &&netlink::Route| default.is_some_and(|default| is_of_one(default, route));
    let default = routes.iter().filter(is_default_hop).filter_map(|route| route.index);
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

/// The address with which flows leave by an interface: of several that which its default route says, or
/// which is near its default router. An interface that leads out and has none leaves with another one of
/// the host's, as the kernel does: that of the loopback, where routing daemons put it.
fn own_address(index: u32, routes: &[netlink::Route], addresses: &[Address], is_v4: bool) -> Option<IpAddr> {
    let mut by_it = routes
        .iter()
        .filter(|route| route.destination.addr().is_ipv4() == is_v4 && route.index == Some(index));
    let default = by_it.clone().find(|route| route.destination.prefix_len() == 0);
    let (gateway, source) = default.map_or((None, None), |default| (default.gateway, default.source));
    let usable = addresses.iter().filter(|address| {
        let address = address.net.addr();
        address.is_ipv4() == is_v4 && reachable(&address)
    });
    let mine: Vec<IpNet> =
        usable.clone().filter(|address| address.index == index).map(|address| address.net).collect();
    let said = |net: &&IpNet| source == Some(net.addr());
    let near = |net: &&IpNet| gateway.is_some_and(|gateway| net.contains(&gateway));
    let own = mine.iter().find(said).or_else(|| mine.iter().find(near)).or(mine.first());
    if own.is_some() {
        return own.map(IpNet::addr);
    }
    let leads_out = default.is_some() || by_it.any(|route| route.gateway.is_some());
    let mut others = usable.filter(|_| leads_out).map(|address| address.net.addr());
    others.clone().find(|other| source == Some(*other)).or_else(|| others.next())
}

/// The address of IPv6 that an interface has on its link.
fn link_local(index: u32, addresses: &[Address]) -> Option<Ipv6Addr> {
    addresses.iter().filter(|address| address.index == index).find_map(|address| match address.net.addr() {
        IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use vswitch_contract::uplink::{Hop, Route};

    use super::*;

    fn link(index: u32, name: &str, mac: Mac, up: bool) -> netlink::Link {
        let (name, kind) = (name.to_owned(), String::new());
        netlink::Link { index, name, mac: Some(mac), mtu: 1500, txqueuelen: 0, up, master: None, kind }
    }

    fn route(destination: &str, gateway: Option<&str>, index: u32) -> netlink::Route {
        let gateway = gateway.map(|text| text.parse().expect("an address"));
        let destination = destination.parse().expect("a net");
        netlink::Route { destination, gateway, index: Some(index), ..netlink::Route::default() }
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
            link_local: Some("fe80::2".parse().expect("an address")),
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
    fn an_uplink_without_addresses_leaves_with_those_of_the_loopback() {
        let mac = |last| Mac([2, 0, 0, 0, 0, last]);
        let links = [
            link(1, "lo", Mac::ZERO, true),
            link(2, "eth0", mac(2), true),
            link(3, "eth1", mac(3), true),
            link(4, "eth2", mac(4), true),
        ];
        let mut routes = [
            route("0.0.0.0/0", Some("fe80::1"), 2),
            route("0.0.0.0/0", Some("fe80::9"), 3),
            route("::/0", Some("fe80::1"), 2),
        ];
        let addresses = [
            address(1, "127.0.0.1/8"),
            address(1, "192.0.2.1/32"),
            address(1, "192.0.2.2/32"),
            address(1, "2001:db8::1/128"),
            address(2, "fe80::2/64"),
        ];
        let own = |routes: &[netlink::Route]| -> Vec<_> {
            let seen = super::find(&Choice::Auto, &links, routes, &addresses);
            let own =
                |found: &Found| (found.spec.interface.clone(), found.spec.addresses().collect::<Vec<_>>());
            seen.found().map(own).collect()
        };
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let (v4, v6) = (ip("192.0.2.1"), ip("2001:db8::1"));
        assert_eq!(own(&routes), [("eth0".to_owned(), vec![v4, v6]), ("eth1".to_owned(), vec![v4])]);
        routes[0].source = Some(ip("192.0.2.2"));
        assert_eq!(own(&routes)[0].1, [ip("192.0.2.2"), v6], "as the route says");
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
