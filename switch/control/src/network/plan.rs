//! The subnets a new network is to have.

use ipnet::IpNet;
use vswitch_cluster::family::Family;

use crate::api::types;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::network::ipam::{Pool, PoolPlan, Pools, overlap, overlap_error};
use crate::network::options::NetworkOptions;
use crate::network::subnets;
use crate::network::surroundings::Surroundings;

impl Control {
    /// Plans the subnets a request names, and a default one for each family the network has but names none
    /// of.
    pub(crate) fn plan_pools(
        &self,
        wish: &types::NetworkCreate,
        options: &NetworkOptions,
        host: &Surroundings,
    ) -> Result<Pools> {
        let mut pools = Vec::new();
        for config in &wish.ipam.config {
            pools.extend(self.plan_pool(config, &pools, host)?);
        }
        for family in Family::ALL {
            let named = pools.iter().any(|pool: &Pool| Family::of(pool.gateway()) == family);
            let (asked, default) = match family {
                Family::V4 => (wish.enable_ipv4.or(options.enable_v4), true),
                Family::V6 => (wish.enable_ipv6.or(options.enable_v6), named),
            };
            let enabled = asked.unwrap_or(default);
            if named && !enabled {
                let message = format!(
                    "network {:?} has a subnet of a family that is switched off: leave one of both out",
                    wish.name
                );
                return Err(Error::new(Code::InvalidArgument, message));
            }
            if enabled && !named {
                pools.push(Pool::new(PoolPlan::new(self.choose_subnet(family, None, &pools, host)?))?);
            }
        }
        if pools.is_empty() {
            let message = format!("network {:?} has neither IPv4 nor IPv6: enable one of them", wish.name);
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Pools::new(pools)
    }

    fn plan_pool(
        &self,
        config: &types::IpamConfig,
        planned: &[Pool],
        host: &Surroundings,
    ) -> Result<Option<Pool>> {
        let Some(subnet) = config.subnet else {
            if *config == types::IpamConfig::default() {
                return Ok(None);
            }
            let message = "a gateway, an ip-range and an aux-address need their subnet: give --subnet, too";
            return Err(Error::new(Code::InvalidArgument, message));
        };
        let subnet = match subnets::size(subnet) {
            Some(size) => self.choose_subnet(Family::of(subnet.addr()), Some(size), planned, host)?,
            None => subnet,
        };
        for (name, network) in self.state.networks.iter() {
            if let Some(other) = network.pools.iter().find(|pool| overlap(pool.subnet(), subnet)) {
                return Err(overlap_error(subnet, other.subnet(), &format!("network {name}")));
            }
        }
        for (name, other) in self.subnets_elsewhere() {
            if overlap(other, subnet) {
                return Err(overlap_error(subnet, other, &format!("network {name}")));
            }
        }
        let (gateway, range) = (config.gateway, config.ip_range);
        let reserved = config.auxiliary_addresses.clone();
        Pool::new(PoolPlan { subnet, gateway, range, reserved }).map(Some)
    }

    /// Subnets of networks of the cluster that are not made here, with their names.
    fn subnets_elsewhere(&self) -> impl Iterator<Item = (&str, IpNet)> {
        let networks = self.networks_elsewhere().filter_map(|name| Some((name, self.record_of(name)?)));
        networks.flat_map(|(name, network)| network.pools.iter().map(move |pool| (name, pool.subnet)))
    }

    fn choose_subnet(
        &self,
        family: Family,
        size: Option<u8>,
        planned: &[Pool],
        host: &Surroundings,
    ) -> Result<IpNet> {
        let others = self.state.networks.values().flat_map(|network| network.pools.iter());
        let mut taken: Vec<IpNet> = others.chain(planned).map(Pool::subnet).collect();
        taken.extend(&host.taken);
        taken.extend(self.subnets_elsewhere().map(|(_, subnet)| subnet));
        subnets::choose(family, size, &taken, host.seed)
    }
}
