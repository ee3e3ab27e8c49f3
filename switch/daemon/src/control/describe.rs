//! What the datapath is told of networks and endpoints. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_engine as engine;
use vswitch_frame::{GroupId, PortId};

use super::ipam::{Family, Pool};
use super::names;
use super::state::{Endpoint, Network, Sandbox};

/// A network, as the switch is to know it.
pub fn network(name: &str, network: &Network) -> engine::Network {
    let options = &network.options;
    engine::Network {
        name: name.to_owned(),
        subnets: network.pools.iter().map(Pool::subnet).collect(),
        gateway: Some(gateway(network)),
        internal: network.internal,
        icc: options.icc,
        masquerade: options.masquerade,
        mode_v4: options.mode_v4,
        mode_v6: options.mode_v6,
        port_security: options.port_security,
        resolves: network.resolves,
        mtu: options.mtu,
    }
}

/// The gateway of a network. It has no address of a family where somebody else is the gateway, or
/// where nobody is; in the latter case it still has its addresses if that is so for the whole network,
/// so that names and leases work.
fn gateway(network: &Network) -> engine::Gateway {
    let options = &network.options;
    let mode = |family| match family {
        Family::V4 => options.mode_v4,
        Family::V6 => options.mode_v6,
    };
    let isolated = |family| mode(family) == engine::GatewayMode::Isolated;
    let families = || Family::ALL.into_iter().filter(|family| network.pools.has(*family));
    let all_isolated = families().all(isolated);
    let absent = |family| match family {
        Family::V4 => options.inhibit_v4 || isolated(family),
        Family::V6 => isolated(family),
    };
    let addresses = network.pools.iter().map(Pool::gateway);
    engine::Gateway {
        mac: network.gateway_mac,
        addresses: addresses.filter(|address| all_isolated || !absent(Family::of(*address))).collect(),
        isolated: all_isolated,
    }
}

/// The isolation group of an endpoint's port.
pub fn group(network: &Network, port: PortId) -> GroupId {
    if network.options.icc { GroupId::own(port) } else { GroupId::containers_of(network.number) }
}

/// Who is behind the port of an endpoint that provides default routes to these gateways.
pub fn station(name: &str, sandbox: &Sandbox, endpoint: &Endpoint, gateways: Vec<IpAddr>) -> engine::Station {
    let id = sandbox.id.to_string();
    let own = [name.to_owned(), names::short_id(&id).to_owned()];
    let mut names: Vec<String> =
        own.into_iter().chain(endpoint.aliases.iter().cloned()).chain(sandbox.hostname.clone()).collect();
    let mut known = std::collections::BTreeSet::new();
    names.retain(|name| known.insert(name.clone()));
    engine::Station::Container(engine::Endpoint {
        sandbox: sandbox.number.into(),
        priority: endpoint.priority,
        addresses: endpoint.addresses.clone(),
        names,
        gateways,
    })
}

/// The gateways that default routes through an endpoint lead to; an internal network has none.
pub fn default_gateways(network: &Network, addresses: &[IpNet]) -> Vec<IpAddr> {
    let gateways = addresses.iter().filter_map(|net| network.pools.gateway_of(net.addr()));
    gateways.filter(|_| !network.internal).collect()
}
