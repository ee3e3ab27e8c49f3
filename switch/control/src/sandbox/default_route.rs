//! Default routes of sandboxes: which endpoints provide them, and setting them.
//!
//! The rule is Docker's: the endpoint with the highest gateway priority comes first; among equals one whose
//! network is not internal, then one with addresses of both families, then the first in the order of network
//! names. Each family's default route goes to the first that has a gateway of the family.

use std::cmp::Reverse;
use std::net::IpAddr;

use vswitch_cluster::family::Family;
use vswitch_frame::PortId;
use vswitch_sys::netlink::{Netlink, NetlinkError, Route};
use vswitch_sys::netns::{NetNs, run_in};

use crate::error::{Result, failed, refused};
use crate::network::describe;
use crate::state::{Endpoint, Network};

const EEXIST: i32 = 17;

/// An endpoint's claim to the default routes of its sandbox.
#[derive(Clone, Debug)]
struct Claim<'a> {
    priority: i32,
    internal: bool,
    both_families: bool,
    network: &'a str,
    hops: Vec<Hop>,
}

impl<'a> Claim<'a> {
    fn of(endpoint: &'a Endpoint, network: &Network) -> Self {
        let hop = |gateway| Hop { port: endpoint.port, interface: endpoint.interface.clone(), gateway };
        Self {
            priority: endpoint.priority,
            internal: network.internal,
            both_families: Family::ALL.into_iter().all(|family| endpoint.address(family).is_some()),
            network: &endpoint.network,
            hops: describe::default_gateways(network, &endpoint.addresses).into_iter().map(hop).collect(),
        }
    }

    fn rank(&self) -> (Reverse<i32>, bool, bool, &'a str) {
        (Reverse(self.priority), self.internal, !self.both_families, self.network)
    }
}

/// The endpoint by which what comes from outside enters a sandbox: the one that provides the default route of
/// the family; if none does, the first in the same order that has an address of it.
pub fn entrance<'a>(
    family: Family,
    endpoints: impl Iterator<Item = (&'a Endpoint, &'a Network)>,
) -> Option<(&'a Endpoint, &'a Network)> {
    let endpoints = endpoints.filter(|(endpoint, _)| endpoint.address(family).is_some());
    endpoints.min_by_key(|(endpoint, network)| {
        let claim = Claim::of(endpoint, network);
        let provides = claim.hops.iter().any(|hop| Family::of(hop.gateway) == family);
        (!provides, claim.rank())
    })
}

/// The hop that a default route may lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The port of the endpoint it belongs to.
    pub port: PortId,
    /// The interface in the sandbox; `None` when another process made it.
    pub interface: Option<String>,
    /// The next hop.
    pub gateway: IpAddr,
}

/// The default routes of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoutes {
    /// Routes the sandbox is to have: at most one of each family.
    pub wanted: Vec<Hop>,
    /// Routes it is not to have, but may have had.
    pub unwanted: Vec<Hop>,
}

impl DefaultRoutes {
    /// Routes of a sandbox with these endpoints, each with its network.
    pub fn of<'a>(endpoints: impl Iterator<Item = (&'a Endpoint, &'a Network)>) -> Self {
        Self::choose(endpoints.map(|(endpoint, network)| Claim::of(endpoint, network)).collect())
    }

    fn choose(mut claims: Vec<Claim<'_>>) -> Self {
        claims.sort_by_key(Claim::rank);
        let mut routes = Self::default();
        for hop in claims.into_iter().flat_map(|claim| claim.hops) {
            let family = Family::of(hop.gateway);
            let taken = routes.wanted.iter().any(|wanted| Family::of(wanted.gateway) == family);
            if taken { routes.unwanted.push(hop) } else { routes.wanted.push(hop) }
        }
        routes
    }

    /// The gateways of routes it is to have that lead through a port.
    pub fn gateways_of(&self, port: PortId) -> Vec<IpAddr> {
        self.wanted.iter().filter(|hop| hop.port == port).map(|hop| hop.gateway).collect()
    }

    /// Adds the routes that an endpoint that leaves may have provided.
    pub fn without(mut self, endpoint: &Endpoint, network: &Network) -> Self {
        self.unwanted.extend(Claim::of(endpoint, network).hops);
        self
    }
}

/// Gives a sandbox's namespace the default routes it is to have, in place of those it is not to have. One
/// that the container's owner added keeps ours out and stays.
///
/// # Errors
/// When the kernel refuses.
pub fn set_default_routes(netns: &NetNs, routes: &DefaultRoutes) -> Result<()> {
    let set = run_in(netns, || {
        let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
        let ours = ours(&mut netlink, routes).map_err(refused)?;
        for family in Family::ALL {
            let of = |hops: &[Hop]| hops.iter().find(|hop| Family::of(hop.gateway) == family).cloned();
            set_default_route(&mut netlink, of(&routes.wanted), of(&ours)).map_err(refused)?;
        }
        Ok(())
    });
    set.map_err(|error| failed("enter the network namespace", &error))?
}

/// The default routes there are that are ours: made by us, and through an endpoint's interface.
fn ours(netlink: &mut Netlink, routes: &DefaultRoutes) -> std::result::Result<Vec<Hop>, NetlinkError> {
    if routes.unwanted.is_empty() {
        return Ok(Vec::new());
    }
    let there = netlink.routes()?;
    let mut ours = Vec::new();
    for hop in routes.wanted.iter().chain(&routes.unwanted) {
        let link = hop.interface.as_deref().map(|name| netlink.find_link(name)).transpose()?.flatten();
        let is_hop = |route: &&Route| {
            route.is_static
                && route.destination == Family::of(hop.gateway).everywhere()
                && route.gateway == Some(hop.gateway)
                && link.as_ref().is_some_and(|link| route.index == Some(link.index))
        };
        ours.extend(there.iter().find(is_hop).map(|_| hop.clone()));
    }
    Ok(ours)
}

/// Makes `wanted` the default route of its family in place of `ours`, at once where there is one.
fn set_default_route(
    netlink: &mut Netlink,
    wanted: Option<Hop>,
    ours: Option<Hop>,
) -> std::result::Result<(), NetlinkError> {
    let everywhere = |hop: &Hop| Family::of(hop.gateway).everywhere();
    let with_interface = |hop: Option<Hop>| hop.and_then(|hop| Some((hop.interface.clone()?, hop)));
    match (with_interface(wanted), with_interface(ours)) {
        (Some((_, wanted)), Some((_, ours))) if wanted == ours => Ok(()),
        (Some((interface, wanted)), Some(_)) => {
            netlink.replace_route(&interface, everywhere(&wanted), Some(wanted.gateway))
        }
        (Some((interface, wanted)), None) => {
            match netlink.add_route(&interface, everywhere(&wanted), Some(wanted.gateway)) {
                Err(error) if error.is(EEXIST) => Ok(()),
                outcome => outcome,
            }
        }
        (None, Some((interface, ours))) => {
            netlink.delete_route(&interface, everywhere(&ours), Some(ours.gateway))
        }
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "10.0.0.1";
    const V6: &str = "fd00::1";

    /// Providers of IPv4 and IPv6, by the names of their networks.
    fn providers(claims: &[(&'static str, i32, bool, &[&str])]) -> Vec<&'static str> {
        let hop = |port: usize, gateway: &&str| Hop {
            port: PortId(u16::try_from(port).expect("few")),
            interface: None,
            gateway: gateway.parse().expect("an address"),
        };
        let found = claims.iter().enumerate().map(|(port, (network, priority, internal, gateways))| Claim {
            priority: *priority,
            internal: *internal,
            both_families: gateways.len() == 2,
            network,
            hops: gateways.iter().filter(|_| !internal).map(|gateway| hop(port, gateway)).collect(),
        });
        let routes = DefaultRoutes::choose(found.collect());
        let offered: usize = claims.iter().filter(|claim| !claim.2).map(|claim| claim.3.len()).sum();
        assert_eq!(routes.wanted.len() + routes.unwanted.len(), offered, "no hop is forgotten");
        let of = |family| routes.wanted.iter().find(|hop| Family::of(hop.gateway) == family);
        let name = |hop: &Hop| claims[hop.port.index()].0;
        Family::ALL.map(|family| of(family).map_or("-", name)).to_vec()
    }

    #[test]
    fn the_rule_is_dockers() {
        assert_eq!(providers(&[]), ["-", "-"]);
        assert_eq!(providers(&[("b", 0, false, &[V4]), ("a", 0, false, &[V4])]), ["a", "-"]);
        assert_eq!(providers(&[("a", 0, false, &[V4]), ("b", 1, false, &[V4])]), ["b", "-"]);
        assert_eq!(providers(&[("a", -1, false, &[V4]), ("b", 0, false, &[V4])]), ["b", "-"]);
        assert_eq!(providers(&[("a", 0, false, &[V4]), ("b", 0, false, &[V4, V6])]), ["b", "b"]);
        assert_eq!(providers(&[("a", 1, false, &[V4]), ("b", 0, false, &[V4, V6])]), ["a", "b"]);
        assert_eq!(providers(&[("a", 9, true, &[V4, V6]), ("b", 0, false, &[V4])]), ["b", "-"]);
        assert_eq!(providers(&[("a", 0, false, &[V6]), ("b", 0, false, &[V4])]), ["b", "a"]);
    }
}
