//! What the datapath is told of networks and endpoints. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_engine as engine;
use vswitch_frame::{GroupId, PortId};

use super::names;
use super::state::{Endpoint, Network, Sandbox};

/// A network, as the switch is to know it.
pub fn network(network: &Network) -> engine::Network {
    let addresses = network.pools.iter().map(super::ipam::Pool::gateway).collect();
    engine::Network {
        subnets: network.pools.iter().map(super::ipam::Pool::subnet).collect(),
        gateway: Some(engine::Gateway { mac: network.gateway_mac, addresses, isolated: false }),
        internal: network.internal,
        icc: network.options.icc,
        masquerade: true,
        mode_v4: engine::GatewayMode::Nat,
        mode_v6: engine::GatewayMode::Nat,
        port_security: true,
        resolves: network.resolves,
        mtu: network.options.mtu,
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
