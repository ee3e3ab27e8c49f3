//! Networks and endpoints, as the datapath is told of them. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_cluster::family::Family;
use vswitch_contract::network as engine;
use vswitch_frame::{GroupId, PortId};

use crate::names;
use crate::network::ipam::Pool;
use crate::state::{Endpoint, Network, Sandbox};

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
        source_v4: options.host_v4,
        source_v6: options.host_v6,
        mode_v4: options.mode_v4,
        mode_v6: options.mode_v6,
        trusted: options.trusted.clone(),
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

/// The isolation group of the port of an endpoint, or of the tunnel to those on other hosts.
pub fn group(network: &Network, port: PortId) -> GroupId {
    if network.options.icc { GroupId::own(port) } else { GroupId::containers_of(network.number) }
}

/// The station behind the port of an endpoint that provides default routes to these gateways.
pub fn station(name: &str, sandbox: &Sandbox, endpoint: &Endpoint, gateways: Vec<IpAddr>) -> engine::Station {
    engine::Station::Container(engine::Endpoint {
        sandbox: sandbox.number.into(),
        priority: endpoint.priority,
        addresses: endpoint.addresses.clone(),
        names: names_of(name, sandbox, endpoint),
        gateways,
    })
}

/// All names of an endpoint: that of its sandbox first, then its short identifier, aliases and host name.
pub fn names_of(name: &str, sandbox: &Sandbox, endpoint: &Endpoint) -> Vec<String> {
    let id = sandbox.id.to_string();
    let own = [name.to_owned(), names::short_id(&id).to_owned()];
    let mut names: Vec<String> =
        own.into_iter().chain(endpoint.aliases.iter().cloned()).chain(sandbox.hostname.clone()).collect();
    let mut known = std::collections::BTreeSet::new();
    names.retain(|name| known.insert(name.clone()));
    names
}

/// The gateways that default routes through an endpoint lead to; an internal network has none.
pub fn default_gateways(network: &Network, addresses: &[IpNet]) -> Vec<IpAddr> {
    let gateways = addresses.iter().filter_map(|net| network.pools.gateway_of(net.addr()));
    gateways.filter(|_| !network.internal).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use vswitch_cluster::id::Id;
    use vswitch_frame::{Mac, NetworkId};

    use super::*;
    use crate::network::ipam::{PoolPlan, Pools};
    use crate::network::options::NetworkOptions;

    /// A network of both families with these options below `com.docker.network.bridge.`.
    fn made(options: &[(&str, &str)]) -> Network {
        let pool = |subnet: &str| Pool::new(PoolPlan::new(subnet.parse().expect("net"))).expect("pool");
        let written_options: BTreeMap<String, String> = options
            .iter()
            .map(|(key, value)| (format!("com.docker.network.bridge.{key}"), (*value).to_owned()))
            .collect();
        Network {
            id: Id::new([0; 32]),
            number: NetworkId(0),
            created: String::new(),
            gateway_mac: Mac([2, 0, 0, 0, 0, 1]),
            resolves: true,
            internal: true,
            attachable: false,
            options: NetworkOptions::parse(&written_options, 1500).expect("options"),
            written_options,
            labels: BTreeMap::new(),
            host_port: None,
            overlay: None,
            pools: Pools::new(vec![pool("10.1.0.0/24"), pool("fd00:1::/64")]).expect("pools"),
            macs: BTreeSet::new(),
        }
    }

    #[test]
    fn the_gateway_has_the_addresses_that_nobody_else_has() {
        let (v4, v6) = ("10.1.0.1", "fd00:1::1");
        let isolated_v4 = ("gateway_mode_ipv4", "isolated");
        let isolated_v6 = ("gateway_mode_ipv6", "isolated");
        let inhibited = ("inhibit_ipv4", "true");
        let check = |options: &[(&str, &str)], addresses: &[&str], isolated| {
            let gateway = network("net1", &made(options)).gateway.expect("a gateway");
            let found: Vec<String> = gateway.addresses.iter().map(ToString::to_string).collect();
            assert_eq!(
                (found, gateway.isolated),
                (addresses.iter().map(ToString::to_string).collect(), isolated)
            );
        };
        check(&[], &[v4, v6], false);
        check(&[inhibited], &[v6], false);
        check(&[isolated_v4], &[v6], false);
        check(&[isolated_v6], &[v4], false);
        check(&[isolated_v6, inhibited], &[], false);
        check(&[isolated_v4, isolated_v6], &[v4, v6], true);
    }

    #[test]
    fn options_reach_the_switch() {
        let options = [
            ("enable_icc", "false"),
            ("enable_ip_masquerade", "false"),
            ("gateway_mode_ipv6", "routed"),
            ("trusted_host_interfaces", "wg0"),
        ];
        let told = network("net1", &made(&options));
        assert_eq!((told.icc, told.masquerade, told.port_security), (false, false, true));
        assert_eq!((told.mode_v4, told.mode_v6), (engine::GatewayMode::Nat, engine::GatewayMode::Routed));
        assert_eq!((told.mtu, told.internal, told.resolves), (1500, true, true));
        assert_eq!(told.trusted, ["wg0"]);
    }
}
