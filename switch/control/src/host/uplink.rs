//! The uplinks of the host: which interfaces they are, and what the datapath is told of them.
//!
//! # Theory of operation
//! The uplink is the interface of the host's default route, or the uplinks are the interfaces that the
//! operator named. It stays the host's: a packet socket on it sends, and hears what its filter admits
//! ([`vswitch_sys::filter`]), and nothing of the host's firewall, routes or settings is touched. One task
//! follows what may change and says each change on:
//!
//! | change | what follows |
//! |---|---|
//! | addresses, routes, MAC address, MTU | the datapath is told |
//! | another interface | the datapath is told, with another packet socket |
//! | networks, published ports, claims | another filter |
//! | the datapath wants more ports | they are claimed ([`Claims`]) and granted |

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use ipnet::IpNet;
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vswitch_contract::claim::{Claimed, Protocol, Wanted};
use vswitch_contract::fact::{Change, Fact, Held, Key};
use vswitch_contract::relay::Binding;
use vswitch_contract::reserved::UPLINKS_MAX;
use vswitch_contract::uplink::UplinkSpec;
use vswitch_contract::uplink::{Hop, Route};
use vswitch_frame::Mac;
use vswitch_sys::filter::{Admission, Program};
use vswitch_sys::netlink::watch::AddressWatch;
use vswitch_sys::netlink::{self, Address, Netlink};
use vswitch_sys::packet;

use crate::host::addresses::reachable;
use crate::host::claims::{Claims, Lendable};
use crate::link::Link;
use crate::publish;

/// The sandbox that is shown for the uplink's port. No sandbox can have this name.
pub const NAME: &str = "(uplink)";
/// Claims at each address for each protocol before any is asked for.
const CLAIMS_FIRST: usize = 512;
/// Routes the datapath is told: each packet that leaves is compared with all. Further ones lead nowhere.
const ROUTES_MAX: usize = 400;

/// The choice of uplinks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The interface of the default route: of IPv4, or else of IPv6.
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
struct Found {
    index: u32,
    spec: UplinkSpec,
}

impl Found {
    /// The addresses that flows leave with.
    fn own(&self) -> impl Iterator<Item = IpAddr> {
        [self.spec.v4.map(IpAddr::from), self.spec.v6.map(IpAddr::from)].into_iter().flatten()
    }
}

/// The host, as a look at it shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The host's addresses that mean it elsewhere, of interfaces that are down, too.
    host: Vec<IpAddr>,
    /// The uplink at each place in the list of them; `None` where there is none now.
    uplinks: Vec<Option<Found>>,
    /// Interfaces that are no uplink though routers are behind them, each with a route through it.
    not_followed: Vec<(String, IpNet)>,
}

impl Seen {
    fn found(&self) -> impl Iterator<Item = &Found> {
        self.uplinks.iter().flatten()
    }
}

/// The packet socket on an uplink, and the filter it has.
#[derive(Debug)]
struct Heard {
    socket: OwnedFd,
    admitted: Option<Program>,
}

/// Follows the uplink; see the [module](self).
#[derive(Debug)]
pub struct Uplink {
    link: Link,
    choice: Choice,
    watch: AsyncFd<AddressWatch>,
    claims: Claims,
    /// Claims of published ports.
    published: publish::claims::Claims,
    told: Seen,
    /// Whether `told` is what the datapath was told.
    is_told: bool,
    /// Protocols and addresses for which ports run short.
    short: BTreeSet<(Protocol, IpAddr)>,
    /// Interfaces of which it was said that routes through them are not followed.
    said: BTreeSet<String>,
    /// Packet sockets, by the places of their uplinks.
    sockets: BTreeMap<u16, Heard>,
}

impl Uplink {
    /// Finds the uplinks and tells the datapath.
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
        let sockets = link.uplink_sockets().await?.into_iter();
        let sockets = sockets.map(|(place, socket)| (place, Heard { socket, admitted: None })).collect();
        let (told, is_told) = (Seen::default(), false);
        let (short, said) = (BTreeSet::new(), BTreeSet::new());
        let mut uplink = Self { link, choice, watch, claims, published, told, is_told, short, said, sockets };
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

    /// Looks at the host, and says each change on.
    async fn look_again(&mut self) {
        let seen = look(&self.choice).unwrap_or_else(|error| {
            tracing::warn!("the uplink cannot be looked at: {error}");
            self.told.clone()
        });
        if self.is_told && seen == self.told {
            return;
        }
        self.warn_missing(&seen);
        self.told = seen.clone();
        let indices: Vec<u32> = seen.found().map(|found| found.index).collect();
        self.settle(&indices, &seen.host).await;
        self.published.set_uplinks(&indices);
        self.claim_first().await;
        self.say_what_is_not_followed(&seen);
        self.is_told = true;
        let mut found = seen.uplinks.into_iter();
        for place in 0..UPLINKS_MAX {
            if let Err(error) = self.change(place, found.next().flatten()).await {
                // The next change is another try.
                self.is_told = false;
                tracing::warn!("containers do not reach the world: {error}");
            }
        }
        self.tell_granted().await;
    }

    /// Says once of each interface that routers are behind it, and containers do not go there.
    fn say_what_is_not_followed(&mut self, seen: &Seen) {
        for (interface, destination) in &seen.not_followed {
            if self.said.insert(interface.clone()) {
                tracing::info!(
                    "containers do not follow the host's route to {destination} by {interface}: name it with \
                     --uplink if they are to"
                );
            }
        }
    }

    /// Says in the log which uplinks are not there any more, or not yet.
    fn warn_missing(&self, seen: &Seen) {
        for (place, name) in self.choice.names().iter().enumerate() {
            let is_there = |seen: &Seen| seen.uplinks.get(place).is_some_and(Option::is_some);
            let is_news = !self.is_told || is_there(&self.told);
            if is_news && !is_there(seen) {
                tracing::warn!(
                    "uplink {name} is not there: containers do not reach the world by it until it is"
                );
            }
        }
    }

    /// Says an uplink as it is now.
    async fn change(&mut self, place: u16, found: Option<Found>) -> io::Result<()> {
        let Some(found) = found else {
            let gone = self.sockets.remove(&place).is_some();
            let told = if gone { self.link.remove(Key::Uplink(place)).await } else { Ok(()) };
            return told.map_err(io::Error::other);
        };
        let program = self.program(&found.spec).await;
        let heard = self.sockets.get_mut(&place);
        let bound = heard.as_ref().and_then(|heard| packet::interface(&heard.socket).ok());
        let is_same = bound == Some(found.index);
        let mut rides_along = None;
        if let (true, Some(heard)) = (is_same, heard) {
            program.attach(heard.socket.as_fd())?;
            heard.admitted = Some(program);
        } else {
            let socket = packet::open_filtered(&found.spec.interface, &program)?;
            rides_along = Some(socket.try_clone()?);
            self.sockets.insert(place, Heard { socket, admitted: Some(program) });
        }
        let held = Held::new(Fact::Uplink(place, found.spec), rides_along);
        self.link.set(held).await.map_err(io::Error::other)
    }

    /// Follows a change of networks or of published ports.
    async fn follow_networks(&mut self) {
        self.claim_first().await;
        self.admit().await;
        self.tell_granted().await;
    }

    /// Claims ports at addresses that flows leave with.
    async fn claim_first(&mut self) {
        let lendable = Lendable::look();
        let chosen = self.link.source_addresses().await.into_iter();
        let chosen = chosen.filter(|address| self.told.host.contains(address));
        let own = self.told.found().flat_map(Found::own);
        for address in own.chain(chosen).collect::<Vec<_>>() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                if !self.claims.has(protocol, address) {
                    self.claims.claim(&Wanted { protocol, address, ports: CLAIMS_FIRST }, &lendable);
                }
            }
        }
    }

    /// Claims the ports that the datapath wants, and says which there are.
    async fn grant(&mut self, wanted: &[Wanted]) {
        let host = self.told.host.clone();
        let lendable = Lendable::look();
        for wanted in wanted.iter().filter(|wanted| host.contains(&wanted.address)) {
            let mut short = self.claims.claim(wanted, &lendable);
            if short > 0 && self.take_from_others(wanted, short).await {
                short = self.claims.claim(&Wanted { ports: short, ..*wanted }, &lendable);
            }
            self.say_if_short(wanted, short);
        }
        // Packets to granted ports are heard.
        self.admit().await;
        self.tell_granted().await;
    }

    /// Lets go of claims of other protocols and addresses that no flow has. Says whether there were any.
    async fn take_from_others(&mut self, wanted: &Wanted, most: usize) -> bool {
        let mut missing = most;
        for (protocol, address) in self.claims.held() {
            if missing == 0 || (protocol, address) == (wanted.protocol, wanted.address) {
                continue;
            }
            let Ok(ports) = self.link.give_back(protocol, address, missing).await else { continue };
            missing -= ports.len().min(missing);
            self.claims.release(protocol, address, &ports);
            let gone = |key: &Key| {
                matches!(key, Key::Claim(of) if (of.protocol, of.address) == (protocol, address)
                    && ports.contains(&of.port))
            };
            if let Err(error) = self.link.remove_where(gone).await {
                tracing::warn!("the datapath keeps sockets of ports that are not claimed any more: {error}");
            }
        }
        missing < most
    }

    /// Says that ports run short, once, until they no longer do.
    fn say_if_short(&mut self, wanted: &Wanted, short: usize) {
        let Wanted { protocol, address, .. } = *wanted;
        if short == 0 {
            self.short.remove(&(protocol, address));
        } else if self.short.insert((protocol, address)) {
            let claims = self.claims.count();
            tracing::warn!(
                "{protocol:?} flows that leave with {address} may run out of ports, as {claims} are claimed in \
                 all: allow more descriptors (ulimit -n)"
            );
        }
    }

    /// Lets go of claims at other addresses than these.
    async fn settle(&mut self, indices: &[u32], addresses: &[IpAddr]) {
        self.claims.settle(indices, addresses);
        let is_elsewhere = |key: &Key| {
            matches!(key, Key::Claim(Claimed { address, .. }) | Key::Grant(_, address)
                if !addresses.contains(address))
        };
        if let Err(error) = self.link.remove_where(is_elsewhere).await {
            tracing::warn!("the datapath keeps sockets of ports that are not claimed any more: {error}");
        }
    }

    /// Tells the datapath which ports are claimed. None is used that would not outlive this process, if that
    /// can be had.
    async fn tell_granted(&mut self) {
        let fresh = self.claims.take_fresh().into_iter();
        let keep = fresh.map(|(claimed, socket)| Held { fact: Fact::Claim(claimed), fds: vec![socket] });
        match self.link.offer(keep.map(Change::Set).collect()).await.map(|refused| refused.into_iter().next())
        {
            Ok(None) => {}
            Ok(Some((_, why))) => tracing::warn!("claimed ports do not outlive this process: {why}"),
            Err(error) => tracing::warn!("claimed ports do not outlive this process: {error}"),
        }
        let grants = self.claims.held().into_iter().map(|(protocol, address)| {
            Change::Set(Fact::Grant(protocol, address, self.claims.ranges(protocol, address)).into())
        });
        if let Err(error) = self.link.change(grants.collect()).await {
            tracing::warn!("the datapath was not told of claimed ports: {error}");
            return;
        }
        self.compare().await;
    }

    /// Says so if the datapath uses other ports than those that are claimed.
    async fn compare(&self) {
        let held = self.claims.count();
        match self.link.flow_count().await {
            Ok((stats, _)) if stats.ports_claimed != held => {
                let used = stats.ports_claimed;
                tracing::error!("{held} ports are claimed, and the datapath uses {used}: restart the daemon");
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// Lets the sockets hear what is the switch's now.
    async fn admit(&mut self) {
        for (place, found) in (0..UPLINKS_MAX).zip(self.told.uplinks.clone()) {
            let Some(Found { spec, .. }) = found else { continue };
            let program = self.program(&spec).await;
            let is_new = |heard: &&mut Heard| heard.admitted.as_ref() != Some(&program);
            let Some(heard) = self.sockets.get_mut(&place).filter(is_new) else { continue };
            match program.attach(heard.socket.as_fd()) {
                Ok(()) => heard.admitted = Some(program),
                Err(error) => tracing::warn!("the uplink's filter cannot be changed: {error}"),
            }
        }
    }

    async fn program(&self, uplink: &UplinkSpec) -> Program {
        let subnets = self.link.reachable_subnets(Some(&uplink.interface)).await;
        let bindings = self.link.bindings().await;
        let ports = |protocol| {
            let published = bindings.iter().filter(|binding| binding.protocol == protocol);
            let published = published.map(Binding::host_ports);
            self.claims.all_ranges(protocol).into_iter().chain(published).collect()
        };
        let (tcp, udp) = (ports(Protocol::Tcp), ports(Protocol::Udp));
        let bare = uplink.mac.is_none();
        Program::admitting(&Admission { own: self.told.host.clone(), tcp, udp, subnets, bare })
    }
}

/// Finds the uplinks.
fn look(choice: &Choice) -> io::Result<Seen> {
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
