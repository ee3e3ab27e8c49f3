//! Routes of the host, as the datapath is told them.
//!
//! A route that has several next hops (ECMP) is told as several, of which the datapath takes the first, and
//! for a packet that has the address of an uplink the first by that: next hops whose interfaces have a
//! carrier and are uplinks come first, in the kernel's order, and one that has none is left out beside one
//! that has.

use std::net::IpAddr;

use vswitch_contract::uplink::{Hop, Route};
use vswitch_sys::netlink;

/// Routes the datapath is told: default routes first, then links of uplinks, then the broadest. What the
/// others are for goes by broader ones.
pub(super) const ROUTES_MAX: usize = 400;

/// The routes that the datapath is told, where these interfaces are uplinks; and whether there are more.
pub(super) fn followed(
    routes: &[netlink::Route],
    links: &[netlink::Link],
    uplinks: &[u32],
) -> (Vec<Route>, bool) {
    let leads_out = |route: &netlink::Route| route.index.is_some_and(|index| uplinks.contains(&index));
    let mut beyond: Vec<&netlink::Route> = routes.iter().filter(|route| beyond_the_link(route)).collect();
    let mut hops = Vec::new();
    for several in beyond.chunk_by_mut(|one, other| is_of_one(one, other)) {
        several.sort_by_key(|hop| (hop.is_down, !leads_out(hop)));
        let alive = several.iter().filter(|hop| !hop.is_down).count();
        hops.extend(several.iter().take(alive.max(1)).copied());
    }
    let mut defaults = [0; 2];
    hops.sort_by_cached_key(|hop| {
        let length = hop.destination.prefix_len();
        if length == 0 {
            let seen = &mut defaults[usize::from(hop.destination.addr().is_ipv6())];
            *seen += 1;
            return (0, *seen);
        }
        (if hop.gateway.is_none() && leads_out(hop) { 1 } else { 2 }, usize::from(length))
    });
    let told = hops.iter().take(ROUTES_MAX).map(|hop| described(hop, links, leads_out(hop)));
    (told.collect(), hops.len() > ROUTES_MAX)
}

/// Whether two next hops are of one route.
pub(super) fn is_of_one(one: &netlink::Route, other: &netlink::Route) -> bool {
    (one.destination, one.metric) == (other.destination, other.metric)
}

/// Whether a route is for packets that may be passed on.
pub(super) fn beyond_the_link(route: &netlink::Route) -> bool {
    match route.destination.addr() {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unicast_link_local(),
    }
}

/// The name of the interface that a route leads through; empty for one that leads through none.
pub(super) fn interface(route: &netlink::Route, links: &[netlink::Link]) -> String {
    let link = links.iter().find(|link| route.index == Some(link.index));
    link.map(|link| link.name.clone()).unwrap_or_default()
}

fn described(route: &netlink::Route, links: &[netlink::Link], leads_out: bool) -> Route {
    let hop = match (leads_out, route.gateway) {
        (true, Some(router)) => Hop::Router(router),
        (true, None) => Hop::Link,
        (false, _) => Hop::Elsewhere,
    };
    Route { destination: route.destination, interface: interface(route, links), hop }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(destination: &str, gateway: &str, index: u32) -> netlink::Route {
        let destination = destination.parse().expect("a net");
        let gateway = gateway.parse().ok();
        netlink::Route { destination, gateway, index: Some(index), ..netlink::Route::default() }
    }

    fn shown(routes: &[netlink::Route], uplinks: &[u32]) -> Vec<String> {
        let described = |route: Route| match route.hop {
            Hop::Router(router) => format!("{} {router}", route.destination),
            Hop::Link => format!("{} link", route.destination),
            Hop::Elsewhere => format!("{} elsewhere", route.destination),
        };
        followed(routes, &[], uplinks).0.into_iter().map(described).collect()
    }

    #[test]
    fn of_several_next_hops_those_that_are_up_and_lead_out_come_first() {
        let three = |down: &[u32]| -> Vec<netlink::Route> {
            let all = (1..=3).map(|index| hop("0.0.0.0/0", &format!("192.0.2.{index}"), index));
            all.map(|hop| netlink::Route { is_down: down.contains(&hop.index.unwrap_or(0)), ..hop }).collect()
        };
        let all = ["0.0.0.0/0 192.0.2.1", "0.0.0.0/0 192.0.2.2", "0.0.0.0/0 192.0.2.3"];
        assert_eq!(shown(&three(&[]), &[1, 2, 3]), all);
        assert_eq!(shown(&three(&[1]), &[1, 2, 3]), all[1..]);
        assert_eq!(
            shown(&three(&[1, 2, 3]), &[1, 2, 3]),
            all[..1],
            "it may come back before anybody says so"
        );
        assert_eq!(shown(&three(&[]), &[3]), [all[2], "0.0.0.0/0 elsewhere", "0.0.0.0/0 elsewhere"]);
        let mut other = three(&[1]);
        other[1].metric = 9;
        assert_eq!(
            shown(&other[..2], &[1, 2, 3]),
            all[..2],
            "another route, which the kernel does not prefer"
        );
    }

    #[test]
    fn past_the_limit_default_routes_stay_and_the_broadest() {
        let specific =
            |number: usize| hop(&format!("10.{}.{}.0/24", number / 250, number % 250), "192.0.2.9", 2);
        let mut routes: Vec<_> = (0..1000).map(specific).collect();
        routes.extend([hop("172.16.0.0/12", "192.0.2.9", 2), hop("192.0.2.0/28", "", 1)]);
        // Default routes of one family are no reason to leave out those of the other.
        routes.extend((0..1000).map(|metric| netlink::Route { metric, ..hop("0.0.0.0/0", "192.0.2.1", 1) }));
        routes.push(hop("::/0", "fe80::1", 1));
        let (told, is_cut) = followed(&routes, &[], &[1]);
        assert_eq!((told.len(), is_cut), (ROUTES_MAX, true));
        assert!(told.iter().any(|route| route.hop == Hop::Router("fe80::1".parse().expect("an address"))));
        routes.retain(|route| route.metric == 0);
        let told = shown(&routes, &[1]);
        let first = ["0.0.0.0/0 192.0.2.1", "::/0 fe80::1", "192.0.2.0/28 link", "172.16.0.0/12 elsewhere"];
        assert_eq!(told[..4], first);
        assert!(!followed(&routes[610..], &[], &[1]).1);
    }
}
