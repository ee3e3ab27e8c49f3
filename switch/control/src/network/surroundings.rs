//! Surroundings of a new network: addresses of the host that it must keep away from, and the uplink.

use ipnet::IpNet;
use vswitch_sys::netlink::{Address, Link, Netlink, NetlinkError, Route};

use crate::error::Result;
use crate::error::{failed, refused};
use crate::network::subnets;

/// The host's network, as it was a moment ago.
#[derive(Debug)]
pub struct Surroundings {
    /// Destinations of routes, and name servers.
    pub taken: Vec<IpNet>,
    /// Destinations of routes, and addresses of the host: whatever is within would be cut off.
    pub in_use: Vec<IpNet>,
    /// MTU of the interface of the first default route, in bytes; `None` without one.
    pub uplink_mtu: Option<u32>,
    /// The seed of the unique local prefix of the host.
    pub seed: u64,
}

impl Surroundings {
    /// Looks at the host.
    ///
    /// # Errors
    /// When the kernel does not tell its routes or interfaces.
    pub fn look() -> Result<Self> {
        let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
        let (routes, links, addresses) = read(&mut netlink).map_err(refused)?;
        let destinations = routes.iter().map(|route| route.destination);
        let mut taken: Vec<IpNet> = destinations.filter(|destination| destination.prefix_len() > 0).collect();
        taken.extend(subnets::name_servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()));
        let in_use = in_use(&routes, &addresses);
        let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Ok(Self {
            taken,
            in_use,
            uplink_mtu: uplink_mtu(&routes, &links),
            seed: subnets::host_seed(&machine_id),
        })
    }
}

type Read = (Vec<Route>, Vec<Link>, Vec<Address>);

fn read(netlink: &mut Netlink) -> std::result::Result<Read, NetlinkError> {
    Ok((netlink.routes()?, netlink.links()?, netlink.addresses()?))
}

/// Everything that the host reaches otherwise than by its default route, or by two that are half of it each.
fn in_use(routes: &[Route], addresses: &[Address]) -> Vec<IpNet> {
    let destinations = routes.iter().map(|route| route.destination);
    let destinations = destinations.filter(|destination| destination.prefix_len() > 1);
    destinations.chain(addresses.iter().map(|address| address.net.addr().into())).collect()
}

/// The MTU of the uplink. The kernel lists the default route it prefers first, IPv4 before IPv6.
fn uplink_mtu(routes: &[Route], links: &[Link]) -> Option<u32> {
    let mut defaults = routes.iter().filter(|route| route.destination.prefix_len() == 0);
    let index = defaults.find_map(|route| route.index)?;
    links.iter().find(|link| link.index == index).map(|link| link.mtu)
}
