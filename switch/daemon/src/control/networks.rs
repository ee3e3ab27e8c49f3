//! Networks: making, showing, removing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use vswitch_frame::{Mac, NetworkId};
use vswitch_sys::netlink::Netlink;
use vswitch_sys::random;

use super::Control;
use super::api::types;
use super::describe;
use super::endpoints::Cleanup;
use super::error::{Code, Error, Result};
use super::interface::{failed, refused};
use super::ipam::{Family, Pool, Pools, overlap, overlap_error};
use super::options::NetworkOptions;
use super::state::Network;
use super::{names, subnets};

/// The network that is always there.
pub const DEFAULT_NETWORK: &str = "bridge";

const DRIVER: &str = "bridge";

impl Control {
    /// Makes a network and returns its identifier.
    pub async fn create_network(&mut self, wish: types::NetworkCreate) -> Result<String> {
        names::check_network(&wish.name)?;
        check_driver(&wish)?;
        if self.state.networks.contains_key(&wish.name) {
            let message = format!("network with name {} already exists: choose another name", wish.name);
            return Err(Error::new(Code::NameInUse, message));
        }
        let pools = self.plan_pools(&wish)?;
        let options = NetworkOptions::parse(&wish.options, pools.has(Family::V6))?;
        let gateway_mac = choose_gateway_mac(&pools)?;
        let network = Network {
            id: super::new_id()?,
            number: NetworkId(self.state.network_numbers.take().ok_or_else(too_many)?),
            created: super::now(),
            gateway_mac,
            resolves: wish.name != DEFAULT_NETWORK,
            internal: wish.internal,
            options,
            written_options: wish.options,
            labels: wish.labels,
            host_port: None,
            pools,
            macs: [gateway_mac].into(),
        };
        if let Err(error) = self.link.add_network(network.number, describe::network(&network)).await {
            self.state.network_numbers.give_back(network.number.0);
            return Err(Error::new(Code::Internal, format!("cannot make network {:?}: {error}", wish.name)));
        }
        let (id, number) = (network.id.to_string(), network.number);
        self.state.networks.insert(wish.name.clone(), network);
        if let Err(error) = self.add_host_port(&wish.name).await {
            self.forget_network(&wish.name, number).await?;
            return Err(error);
        }
        Ok(id)
    }

    /// Removes a network that has no endpoints.
    pub async fn remove_network(&mut self, key: &str) -> Result<Cleanup> {
        let name = self.state.network_name(key)?;
        if name == DEFAULT_NETWORK {
            let message = format!("{name} is a pre-defined network and cannot be removed");
            return Err(Error::new(Code::NetworkPredefined, message));
        }
        let users: Vec<&str> = self
            .state
            .endpoints()
            .filter(|(_, endpoint)| endpoint.network == name)
            .map(|(user, _)| user)
            .collect();
        if !users.is_empty() {
            let message = format!("network {name} has active endpoints: disconnect {}", users.join(", "));
            return Err(Error::new(Code::NetworkInUse, message));
        }
        let network = self.state.network(&name)?;
        let (number, host_port) = (network.number, network.host_port.take());
        let mut cleanup = Cleanup::default();
        if let Some(host_port) = host_port {
            cleanup.join(self.remove_host_port(host_port).await);
        }
        self.forget_network(&name, number).await?;
        Ok(cleanup)
    }

    async fn forget_network(&mut self, name: &str, number: NetworkId) -> Result<()> {
        let removed = self.link.remove_network(number).await;
        removed.map_err(|error| {
            Error::new(Code::Internal, format!("cannot remove network {name:?}: {error}"))
        })?;
        self.state.networks.remove(name);
        self.state.network_numbers.give_back(number.0);
        Ok(())
    }

    /// Every network.
    pub fn networks(&self) -> Vec<types::Network> {
        self.state.networks.iter().map(|(name, network)| self.show_network(name, network)).collect()
    }

    /// One network.
    pub fn network(&self, key: &str) -> Result<types::Network> {
        let name = self.state.network_name(key)?;
        let network = &self.state.networks[&name];
        Ok(self.show_network(&name, network))
    }

    fn show_network(&self, name: &str, network: &Network) -> types::Network {
        let config = network.pools.iter().map(|pool| types::IpamConfig {
            subnet: Some(pool.subnet()),
            gateway: Some(pool.gateway()),
            ..types::IpamConfig::default()
        });
        let mut containers = BTreeMap::new();
        for (sandbox, endpoint) in self.state.endpoints().filter(|(_, endpoint)| endpoint.network == name) {
            let id = self.state.sandboxes[sandbox].id.to_string();
            let address = |family| endpoint.addresses.iter().find(|net| Family::of(net.addr()) == family);
            let text = |family| address(family).map(ToString::to_string).unwrap_or_default();
            let container = types::NetworkContainer {
                name: sandbox.to_owned(),
                endpoint_id: endpoint.id.to_string(),
                mac_address: endpoint.mac,
                ipv4_address: text(Family::V4),
                ipv6_address: text(Family::V6),
            };
            containers.insert(id, container);
        }
        types::Network {
            name: name.to_owned(),
            id: network.id.to_string(),
            created: network.created.clone(),
            scope: "local".to_owned(),
            driver: DRIVER.to_owned(),
            enable_ipv4: network.pools.has(Family::V4),
            enable_ipv6: network.pools.has(Family::V6),
            ipam: types::Ipam { driver: "default".to_owned(), config: config.collect() },
            internal: network.internal,
            containers,
            options: network.written_options.clone(),
            labels: network.labels.clone(),
        }
    }

    /// The subnets a new network is to have: those it names, and a default one for each family it has
    /// but names none of.
    fn plan_pools(&self, wish: &types::NetworkCreate) -> Result<Pools> {
        let mut pools = Vec::new();
        for config in &wish.ipam.config {
            pools.extend(self.plan_pool(config)?);
        }
        for family in Family::ALL {
            let named = pools.iter().any(|pool: &Pool| Family::of(pool.gateway()) == family);
            let enabled = match family {
                Family::V4 => wish.enable_ipv4.unwrap_or(true),
                Family::V6 => wish.enable_ipv6.unwrap_or(named),
            };
            if named && !enabled {
                let message =
                    format!("network {:?} has a subnet of a family that is switched off", wish.name);
                return Err(Error::new(Code::InvalidArgument, message));
            }
            if enabled && !named {
                pools.push(Pool::new(self.choose_subnet(family, &pools)?, None)?);
            }
        }
        Pools::new(pools)
    }

    fn plan_pool(&self, config: &types::IpamConfig) -> Result<Option<Pool>> {
        if !config.ip_range.is_empty() || !config.auxiliary_addresses.is_empty() {
            let message = "IPRange and AuxiliaryAddresses are not supported: leave them out";
            return Err(Error::new(Code::InvalidArgument, message));
        }
        let Some(subnet) = config.subnet else {
            let message = "a gateway needs its subnet: give --subnet, too";
            let lonely = config.gateway.map(|_| Error::new(Code::InvalidArgument, message));
            return lonely.map_or(Ok(None), Err);
        };
        for (name, network) in self.state.networks.iter() {
            if let Some(other) = network.pools.iter().find(|pool| overlap(pool.subnet(), subnet)) {
                return Err(overlap_error(subnet, other.subnet(), &format!("network {name}")));
            }
        }
        Pool::new(subnet, config.gateway).map(Some)
    }

    fn choose_subnet(&self, family: Family, planned: &[Pool]) -> Result<IpNet> {
        let others = self.state.networks.values().flat_map(|network| network.pools.iter());
        let mut taken: Vec<IpNet> = others.chain(planned).map(Pool::subnet).collect();
        let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
        let routes = netlink.routes().map_err(refused)?.into_iter().map(|route| route.destination);
        taken.extend(routes.filter(|destination| destination.prefix_len() > 0));
        taken.extend(subnets::name_servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()));
        let machine_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        subnets::choose(family, &taken, subnets::host_seed(&machine_id))
    }
}

/// A MAC address made of the gateway's IPv4 address, as those of endpoints are of theirs, or a random one.
fn choose_gateway_mac(pools: &Pools) -> Result<Mac> {
    let of_v4 = pools.iter().find_map(|pool| match pool.gateway() {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(_) => None,
    });
    let tail = of_v4.map_or_else(random::bytes, Ok);
    let [a, b, c, d] = tail.map_err(|error| failed("draw a MAC address", &error))?;
    Ok(Mac([0x02, 0x42, a, b, c, d]))
}

fn check_driver(wish: &types::NetworkCreate) -> Result<()> {
    let drivers =
        [("driver", wish.driver.as_str(), DRIVER), ("IPAM driver", wish.ipam.driver.as_str(), "default")];
    let unknown = drivers.iter().find(|(_, driver, known)| !driver.is_empty() && driver != known);
    unknown.map_or(Ok(()), |(what, driver, known)| {
        Err(Error::new(
            Code::UnknownDriver,
            format!("{what} {driver:?} is not known: use {known}, or leave it out"),
        ))
    })
}

fn too_many() -> Error {
    let message = format!("{} networks is the most there can be: remove one", NetworkId::LIMIT);
    Error::new(Code::LimitReached, message)
}
