//! The way out of the host: which interface it is, and what the datapath is told of it.
//!
//! # Theory of operation
//! The uplink is the interface of the host's default route, or the one that the operator named. It stays the host's: a packet
//! socket on it sends, and hears what its filter admits ([`vswitch_sys::filter`]), and nothing of the host's firewall, routes or
//! settings is touched. One task follows what may change and says each change on:
//!
//! | change | what follows |
//! |---|---|
//! | addresses, routes, MAC address, MTU | the datapath is told |
//! | another interface | the same, with another packet socket |
//! | networks, published ports, claims | another filter |
//! | the datapath wants more ports | they are claimed ([`Claims`]) and granted |

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

use nix::sys::resource::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vswitch_engine::{Hop, Route};
use vswitch_frame::Mac;
use vswitch_nat::{Binding, Protocol, Wanted};
use vswitch_sys::filter::{Admission, Program};
use vswitch_sys::netlink::watch::AddressWatch;
use vswitch_sys::netlink::{self, Address, Netlink};
use vswitch_sys::packet;

use super::claims::{Claims, Lendable};
use super::host_addresses::reachable;
use super::link::Link;
use super::publish;
use crate::datapath::wiring::{Grant, UplinkSpec};

/// The sandbox that is shown for the uplink's port. No sandbox can have this name.
pub const NAME: &str = "(uplink)";
/// Claims at each address for each protocol before any is asked for.
const CLAIMS_FIRST: usize = 512;
/// Routes the datapath is told, so that they fit one message; further ones lead nowhere.
const ROUTES_MAX: usize = 400;

/// Which interface is the uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// That of the default route: of IPv4, or else of IPv6.
    #[default]
    Auto,
    /// None: containers reach this host only.
    None,
    /// This one.
    Named(String),
}

impl FromStr for Choice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            name => Self::Named(name.to_owned()),
        })
    }
}

/// An uplink that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    index: u32,
    /// The host's addresses that mean it elsewhere.
    host: Vec<IpAddr>,
    spec: UplinkSpec,
}

impl Found {
    /// The addresses that flows leave with.
    fn own(&self) -> Vec<IpAddr> {
        let own = [self.spec.v4.map(IpAddr::from), self.spec.v6.map(IpAddr::from)];
        own.into_iter().flatten().collect()
    }
}

/// Follows the uplink; see the [module](self).
#[derive(Debug)]
pub struct Uplink {
    link: Link,
    choice: Choice,
    watch: AsyncFd<AddressWatch>,
    claims: Claims,
    /// Those of published ports.
    published: publish::claims::Claims,
    told: Option<Found>,
    /// Whether that is what the datapath was told.
    is_told: bool,
    socket: Option<OwnedFd>,
    admitted: Option<Program>,
}

impl Uplink {
    /// Finds the uplink and tells the datapath.
    ///
    /// # Errors
    /// When the kernel does not tell what changes.
    pub async fn start(link: Link, choice: Choice, published: publish::claims::Claims) -> io::Result<Self> {
        // The watch comes first, so that no change falls between it and the first look.
        let watch = AddressWatch::open_with_routes()?.into_async()?;
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        let mut claims = Claims::new(usize::try_from(descriptors / 2).unwrap_or(usize::MAX));
        // A datapath that outlived its control has these.
        claims.take_up(link.claims().await);
        let socket = link.uplink().await?.map(|(_, socket)| socket);
        let (told, is_told, admitted) = (None, false, None);
        let mut uplink = Self { link, choice, watch, claims, published, told, is_told, socket, admitted };
        uplink.look_again().await;
        Ok(uplink)
    }

    /// Follows what changes until it is dropped.
    pub async fn follow(mut self) {
        loop {
            tokio::select! {
                heard = self.watch.async_io(Interest::READABLE, AddressWatch::heard) => {
                    if let Err(error) = heard {
                        tracing::warn!("changes of the uplink are not followed any more: {error}");
                        return;
                    }
                    self.look_again().await;
                }
                wanted = self.link.wanted() => self.grant(&wanted).await,
                () = self.link.admission_changed() => self.follow_networks().await,
            }
        }
    }

    /// Looks at the host, and says on what is not as it was.
    async fn look_again(&mut self) {
        let found = look(&self.choice).unwrap_or_else(|error| {
            tracing::warn!("the uplink cannot be looked at: {error}");
            self.told.clone()
        });
        if self.is_told && found == self.told {
            return;
        }
        let changed = self.change(found).await;
        // The next change is another try.
        self.is_told = changed.is_ok();
        if let Err(error) = changed {
            self.told = None;
            tracing::warn!("containers do not reach the world: {error}");
        }
    }

    async fn change(&mut self, found: Option<Found>) -> io::Result<()> {
        let Some(found) = found else {
            (self.told, self.socket, self.admitted) = (None, None, None);
            self.settle(0, &[]).await;
            self.published.set_uplinks(&[]);
            return self.link.set_uplink(None, None).await.map_err(io::Error::other);
        };
        self.settle(found.index, &found.host).await;
        self.published.set_uplinks(&[found.index]);
        let bound = self.socket.as_ref().and_then(|socket| packet::interface(socket).ok());
        let is_same = bound == Some(found.index);
        let spec = found.spec.clone();
        self.claim_first(&found).await;
        self.told = Some(found);
        let program = self.program().await;
        let mut rides_along = None;
        if let (true, Some(socket)) = (is_same, &self.socket) {
            program.attach(socket.as_fd())?;
        } else {
            let socket = packet::open_filtered(&spec.interface, &program)?;
            rides_along = Some(socket.try_clone()?);
            self.socket = Some(socket);
        }
        self.admitted = Some(program);
        self.link.set_uplink(Some(spec), rides_along).await.map_err(io::Error::other)?;
        self.tell_granted(&self.claims.held()).await;
        Ok(())
    }

    /// Networks or published ports are not what they were.
    async fn follow_networks(&mut self) {
        let Some(found) = self.told.clone() else { return };
        let claimed = self.claim_first(&found).await;
        self.admit().await;
        self.tell_granted(&claimed).await;
    }

    /// Claims ports at addresses that flows leave with; says at which there are some now.
    async fn claim_first(&mut self, found: &Found) -> Vec<(Protocol, IpAddr)> {
        let lendable = Lendable::look();
        let mut claimed = Vec::new();
        let chosen = self.link.source_addresses().await.into_iter();
        let chosen = chosen.filter(|address| found.host.contains(address));
        for address in found.own().into_iter().chain(chosen) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                if !self.claims.has(protocol, address) {
                    self.claims.claim(&Wanted { protocol, address, ports: CLAIMS_FIRST }, &lendable);
                }
                claimed.push((protocol, address));
            }
        }
        claimed
    }

    /// Claims what the datapath wants, and says what there is.
    async fn grant(&mut self, wanted: &[Wanted]) {
        let host = self.told.as_ref().map(|found| found.host.clone()).unwrap_or_default();
        let lendable = Lendable::look();
        let mut claimed = Vec::new();
        for wanted in wanted.iter().filter(|wanted| host.contains(&wanted.address)) {
            self.claims.claim(wanted, &lendable);
            claimed.push((wanted.protocol, wanted.address));
        }
        // What is granted is heard.
        self.admit().await;
        self.tell_granted(&claimed).await;
    }

    /// Lets go of claims at other addresses than these.
    async fn settle(&mut self, index: u32, addresses: &[IpAddr]) {
        self.claims.settle(index, addresses);
        if let Err(error) = self.link.keep_claims_only_at(addresses).await {
            tracing::warn!("the datapath keeps sockets of ports that are not claimed any more: {error}");
        }
    }

    async fn tell_granted(&mut self, claimed: &[(Protocol, IpAddr)]) {
        let grants = claimed.iter().map(|&(protocol, address)| {
            let ports = self.claims.ranges(protocol, address);
            Grant { protocol, address, ports }
        });
        let grants = grants.collect();
        // No port is used that would not outlive this process, if that can be had.
        if let Err(error) = self.link.keep_claims(self.claims.take_fresh()).await {
            tracing::warn!("claimed ports do not outlive this process: {error}");
        }
        if let Err(error) = self.link.grant(grants).await {
            tracing::warn!("the datapath was not told of claimed ports: {error}");
        }
    }

    /// Lets the socket hear what is the switch's now.
    async fn admit(&mut self) {
        let program = self.program().await;
        let Some(socket) = self.socket.as_ref().filter(|_| self.admitted.as_ref() != Some(&program)) else {
            return;
        };
        if let Err(error) = program.attach(socket.as_fd()) {
            tracing::warn!("the uplink's filter cannot be changed: {error}");
            return;
        }
        self.admitted = Some(program);
    }

    async fn program(&self) -> Program {
        let interface = self.told.as_ref().map(|found| found.spec.interface.as_str());
        let subnets = self.link.reachable_subnets(interface).await;
        let bindings = self.link.bindings().await;
        let ports = |protocol| {
            let published = bindings.iter().filter(|binding| binding.protocol == protocol);
            let published = published.map(Binding::host_ports);
            self.claims.all_ranges(protocol).into_iter().chain(published).collect()
        };
        Program::admitting(&Admission {
            own: self.told.as_ref().map(|found| found.host.clone()).unwrap_or_default(),
            tcp: ports(Protocol::Tcp),
            udp: ports(Protocol::Udp),
            subnets,
        })
    }
}

/// Finds the uplink; `None` when there is none.
fn look(choice: &Choice) -> io::Result<Option<Found>> {
    if *choice == Choice::None {
        return Ok(None);
    }
    let mut netlink = Netlink::open()?;
    let (links, routes, addresses) = (netlink.links()?, netlink.routes()?, netlink.addresses()?);
    Ok(find(choice, &links, &routes, &addresses))
}

fn find(
    choice: &Choice,
    links: &[netlink::Link],
    routes: &[netlink::Route],
    addresses: &[Address],
) -> Option<Found> {
    let is_uplink = |link: &&netlink::Link| match choice {
        Choice::None => false,
        Choice::Named(name) => link.name == *name,
        Choice::Auto => {
            let mut defaults = routes.iter().filter(|route| route.destination.prefix_len() == 0);
            defaults.find_map(|route| route.index) == Some(link.index)
        }
    };
    let link = links.iter().find(is_uplink)?;
    // Without an Ethernet address there is nobody to be on its link.
    let mac = link.mac.filter(|mac| link.up && *mac != Mac::ZERO)?;
    let own = |is_v4: bool| {
        let gateway = routes.iter().find(|route| {
            let is_default =
                route.destination.prefix_len() == 0 && route.destination.addr().is_ipv4() == is_v4;
            is_default && route.index == Some(link.index)
        });
        let gateway = gateway.and_then(|route| route.gateway);
        let mine = || {
            let mine =
                addresses.iter().filter(|address| address.index == link.index).map(|address| address.net);
            mine.filter(|net| net.addr().is_ipv4() == is_v4 && reachable(&net.addr()))
        };
        let near = mine().find(|net| gateway.is_some_and(|gateway| net.contains(&gateway)));
        near.or_else(|| mine().next()).map(|net| net.addr())
    };
    let v4: Option<Ipv4Addr> =
        own(true).and_then(|address| if let IpAddr::V4(address) = address { Some(address) } else { None });
    let v6: Option<Ipv6Addr> =
        own(false).and_then(|address| if let IpAddr::V6(address) = address { Some(address) } else { None });
    let mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
    let routes = routes.iter().filter(|route| beyond_the_link(route)).take(ROUTES_MAX);
    let routes = routes.map(|route| described(route, links, link.index)).collect();
    let host = addresses.iter().map(|address| address.net.addr()).filter(reachable).collect();
    let spec = UplinkSpec { interface: link.name.clone(), mac, mtu, v4, v6, routes };
    Some(Found { index: link.index, host, spec })
}

/// Whether a route is for packets that may be passed on.
fn beyond_the_link(route: &netlink::Route) -> bool {
    match route.destination.addr() {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unicast_link_local(),
    }
}

fn described(route: &netlink::Route, links: &[netlink::Link], uplink: u32) -> Route {
    let link = links.iter().find(|link| route.index == Some(link.index));
    let interface = link.map(|link| link.name.clone()).unwrap_or_default();
    let hop = match (route.index == Some(uplink), route.gateway) {
        (true, Some(router)) => Hop::Router(router),
        (true, None) => Hop::Link,
        (false, _) => Hop::Elsewhere,
    };
    Route { destination: route.destination, interface, hop }
}

#[cfg(test)]
mod tests {
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
            let choice = choice.parse().unwrap_or_default();
            super::find(&choice, &links, &routes, &addresses)
        };
        let auto = find("auto").expect("an uplink");
        let described = |destination: &str, hop| {
            let interface = if hop == Hop::Elsewhere { "eth1" } else { "eth0" };
            Route { destination: destination.parse().expect("a net"), interface: interface.to_owned(), hop }
        };
        let expected = UplinkSpec {
            interface: "eth0".to_owned(),
            mac: mac(2),
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
        assert_eq!(auto.host, hosts);
        assert_eq!(find("eth1").map(|found| found.spec.v4), Some(Some([10, 0, 0, 2].into())));
        for none in ["none", "lo", "eth2", "eth9"] {
            assert_eq!(find(none), None, "{none}");
        }
    }
}
