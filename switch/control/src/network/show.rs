//! Networks as clients see them.

use std::collections::BTreeMap;

use vswitch_cluster::family::Family;
use vswitch_contract::fact;

use crate::api::types;
use crate::control::Control;
use crate::error::Result;
use crate::network::driver::Driver;
use crate::network::driver::bridge::SCOPE;
use crate::network::driver::overlay;
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
        let elsewhere = self.networks_elsewhere().filter_map(|name| self.show_known(name).ok());
        let mut networks: Vec<types::Network> = ours
            .chain(elsewhere)
            .chain(PREDEFINED.iter().map(|predefined| self.show_predefined(predefined)))
            .collect();
        networks.retain(|network| filters.admit(network));
        networks.sort_by(|one, other| one.name.cmp(&other.name));
        networks
    }

    /// One network.
    pub fn network(&self, key: &str) -> Result<types::Network> {
        let name = self.any_network_name(key)?;
        if let Some(predefined) = predefined::find(&name) {
            return Ok(self.show_predefined(predefined));
        }
        if !self.state.networks.contains_key(&name) {
            return self.show_known(&name);
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
            let problems = self.cluster.iter().filter_map(|cluster| cluster.problems.get(&network.id));
            shown.problems = problems.flatten().cloned().collect();
            let port = network.host_port.as_ref().filter(|_| network.is_shared());
            let port = port.map(|port| fact::Key::Port(port.port));
            let is_missing =
                self.link.facts(|facts| port.is_some_and(|port| facts.get(&port).is_none())).await;
            if is_missing {
                shown.problems.extend(self.check_room(network).err().map(|error| error.message));
            }
        } else if self.record_of(&shown.name).is_some() && !self.state.networks.contains_key(&shown.name) {
            let room = self.known_network(&shown.name).and_then(|network| self.check_room(&network));
            shown.problems = room.err().map(|error| error.message).into_iter().collect();
        }
        Ok(shown)
    }

    /// A network of the cluster that is not made here.
    fn show_known(&self, name: &str) -> Result<types::Network> {
        let mut shown = self.show_network(name, &self.known_network(name)?, Vec::new());
        (shown.driver, shown.scope) = (overlay::DRIVER.to_owned(), overlay::SCOPE_SHARED.to_owned());
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
