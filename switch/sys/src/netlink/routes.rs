//! Routes, as the kernel lists them.
//!
//! Kernel facts relied on:
//! * Of routes to one destination that one is listed first which is preferred; of the next hops of one route
//!   each is named with its interface and whether that is down (`RTA_MULTIPATH`; rtnetlink(7)).
//! * The next hop of an IPv4 route may have an IPv6 address (`RTA_VIA`), as BGP makes them without addresses.
//! * A route by a nexthop object (`RTA_NH_ID`) has its next hops spelled out, unless
//!   `net.ipv4.nexthop_compat_mode` is off; then the objects tell ([`next_hops`](super::next_hops)).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteNextHopFlags, RouteProtocol, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::next_hops::NextHop;

/// A route by one next hop. One that has several is several of these, one behind the other, alike in
/// destination and metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The destination; a prefix of length zero is the default route.
    pub destination: IpNet,
    /// The next hop, or `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The index of the interface, or `None` for a route without one, such as a blackhole.
    pub index: Option<u32>,
    /// The number by which the kernel prefers routes: the lowest is taken.
    pub metric: u32,
    /// The address that packets get which have none yet, if it says one.
    pub source: Option<IpAddr>,
    /// Whether the interface is down, or has no carrier.
    pub is_down: bool,
    /// Whether it is marked as a static one, as those of [`Netlink::add_route`](super::Netlink::add_route)
    /// are: those of `ip route` and of the kernel itself are not.
    pub is_static: bool,
}

/// The objects that an answer of the kernel's refers to without spelling them out.
pub(super) fn object_of(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let mut object = None;
    for attribute in &message.attributes {
        if let RouteAttribute::NhId(id) = attribute {
            object = Some(*id);
        } else if matches!(attribute, RouteAttribute::MultiPath(_) | RouteAttribute::Oif(_)) {
            return None;
        }
    }
    object
}

/// The routes of the main table that an answer of the kernel's means.
pub(super) fn routes_of(message: RouteNetlinkMessage, objects: &BTreeMap<u32, Vec<NextHop>>) -> Vec<Route> {
    let by_object = object_of(&message).and_then(|id| objects.get(&id)).cloned();
    let RouteNetlinkMessage::NewRoute(message) = message else { return Vec::new() };
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return Vec::new();
    }
    let unspecified = if message.header.address_family == AddressFamily::Inet {
        IpAddr::from([0u8; 4])
    } else {
        IpAddr::from([0u8; 16])
    };
    let is_down = message.header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    let mut route = Route { is_static: message.header.protocol == RouteProtocol::Static, ..Route::default() };
    let (mut destination, mut hop) = (unspecified, NextHop { is_down, ..NextHop::default() });
    let mut hops = by_object.unwrap_or_default();
    for attribute in message.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            let Some(address) = ip_of(&address) else { return Vec::new() };
            destination = address;
        } else if let RouteAttribute::Priority(metric) = attribute {
            route.metric = metric;
        } else if let RouteAttribute::PrefSource(address) = attribute {
            route.source = ip_of(&address);
        } else if let RouteAttribute::MultiPath(several) = attribute {
            hops = several
                .into_iter()
                .map(|one| {
                    let down = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
                    let mut hop = NextHop { is_down: one.flags.intersects(down), ..NextHop::default() };
                    hop.index = Some(one.interface_index);
                    hop.gateway = one.attributes.iter().find_map(gateway_of);
                    hop
                })
                .collect();
        } else if let RouteAttribute::Oif(index) = attribute {
            hop.index = Some(index);
        } else {
            hop.gateway = hop.gateway.or(gateway_of(&attribute));
        }
    }
    let Ok(destination) = IpNet::new(destination, message.header.destination_prefix_length) else {
        return Vec::new();
    };
    if hops.is_empty() {
        hops.push(hop);
    }
    let by = |hop: NextHop| Route {
        destination,
        gateway: hop.gateway,
        index: hop.index,
        is_down: hop.is_down,
        ..route.clone()
    };
    hops.into_iter().map(by).collect()
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    if let RouteAttribute::Gateway(address) = attribute {
        ip_of(address)
    } else if let RouteAttribute::Via(RouteVia::Inet(address)) = attribute {
        Some((*address).into())
    } else if let RouteAttribute::Via(RouteVia::Inet6(address)) = attribute {
        Some((*address).into())
    } else {
        None
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        Some(IpAddr::V4(*address))
    } else if let RouteAddress::Inet6(address) = address {
        Some(IpAddr::V6(*address))
    } else {
        None
    }
}
