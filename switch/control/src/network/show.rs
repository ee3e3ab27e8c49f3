//! Networks as clients see them.

use std::collections::BTreeMap;

use vswitch_cluster::family::Family;

use crate::api::types;
use crate::control::Control;
use crate::error::Result;
use crate::network::driver::Driver;
use crate::network::driver::bridge::SCOPE;
use crate::network::filters::Filters;
use crate::network::ipam::Pool;
use crate::network::predefined::DEFAULT_NETWORK;
use crate::network::predefined::IPAM_DRIVER;
use crate::network::predefined::{self, PREDEFINED, Predefined};
use crate::state::{Endpoint, Network};

impl Control {
    /// Every network that the filters let through, by name.
    pub fn networks(&self, filters: &Filters) -> Vec<types::Network> {
        let mut endpoints: BTreeMap<&str, Vec<(&str, &Endpoint)>> = BTreeMap::new();
        for (sandbox, endpoint) in self.state.endpoints() {
            endpoints.entry(&endpoint.network).or_default().push((sandbox, endpoint));
        }
        let ours = self.state.networks.iter().map(|(name, network)| {
            self.show_network(name, network, endpoints.remove(name.as_str()).unwrap_or_default())
        });
        let mut networks: Vec<types::Network> =
            ours.chain(PREDEFINED.iter().map(|predefined| self.show_predefined(predefined))).collect();
        networks.retain(|network| filters.admit(network));
        networks.sort_by(|one, other| one.name.cmp(&other.name));
        networks
    }

    /// One network.
    pub fn network(&self, key: &str) -> Result<types::Network> {
        let name = self.state.any_network_name(key)?;
        if let Some(predefined) = predefined::find(&name) {
            return Ok(self.show_predefined(predefined));
        }
        let endpoints = self.state.endpoints().filter(|(_, endpoint)| endpoint.network == name);
        Ok(self.show_network(&name, &self.state.networks[&name], endpoints.collect()))
    }

    /// One network, with the other hosts that have it.
    ///
    /// # Errors
    /// When there is no such network, or the datapath cannot be asked.
    pub async fn inspect_network(&self, key: &str) -> Result<types::Network> {
        let mut shown = self.network(key)?;
        if let Some(network) = self.state.networks.get(&shown.name).filter(|found| found.overlay.is_some()) {
            let peers = self.tunnels.peers(network.number).await?;
            shown.peers = peers.into_iter().map(|(ip, mtu)| types::NetworkPeer { ip, mtu }).collect();
        }
        Ok(shown)
    }

    fn show_network(
        &self,
        name: &str,
        network: &Network,
        endpoints: Vec<(&str, &Endpoint)>,
    ) -> types::Network {
        let containers = endpoints.into_iter().map(|(sandbox, endpoint)| {
            (self.state.sandboxes[sandbox].id.to_string(), show_container(sandbox, endpoint))
        });
        let mut shown = types::Network {
            name: name.to_owned(),
            id: network.id.to_string(),
            created: network.created.clone(),
            enable_ipv4: network.pools.has(Family::V4),
            enable_ipv6: network.pools.has(Family::V6),
            ipam: types::Ipam {
                driver: IPAM_DRIVER.to_owned(),
                config: network.pools.iter().map(show_pool).collect(),
                ..types::Ipam::default()
            },
            internal: network.internal,
            attachable: network.attachable,
            containers: containers.collect(),
            options: network.written_options.clone(),
            labels: network.labels.clone(),
            ..types::Network::default()
        };
        Driver::of(network).show(name, network, &mut shown);
        shown
    }

    fn show_predefined(&self, predefined: &Predefined) -> types::Network {
        types::Network {
            name: predefined.name.to_owned(),
            id: predefined.id.to_string(),
            created: self
                .state
                .networks
                .get(DEFAULT_NETWORK)
                .map(|network| network.created.clone())
                .unwrap_or_default(),
            scope: SCOPE.to_owned(),
            driver: predefined.driver.to_owned(),
            enable_ipv4: true,
            ipam: types::Ipam { driver: IPAM_DRIVER.to_owned(), ..types::Ipam::default() },
            ..types::Network::default()
        }
    }
}

/// A subnet, in the words of clients.
fn show_pool(pool: &Pool) -> types::IpamConfig {
    types::IpamConfig {
        subnet: Some(pool.subnet()),
        gateway: Some(pool.gateway()),
        ip_range: pool.plan().range,
        auxiliary_addresses: pool.plan().reserved.clone(),
    }
}

fn show_container(sandbox: &str, endpoint: &Endpoint) -> types::NetworkContainer {
    let address = |family| endpoint.addresses.iter().find(|net| Family::of(net.addr()) == family);
    let text = |family| address(family).map(ToString::to_string).unwrap_or_default();
    types::NetworkContainer {
        name: sandbox.to_owned(),
        endpoint_id: endpoint.id.to_string(),
        mac_address: endpoint.mac,
        ipv4_address: text(Family::V4),
        ipv6_address: text(Family::V6),
    }
}
