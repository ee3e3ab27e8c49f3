//! Networks: making and removing them.
//!
//! | file | |
//! |---|---|
//! | [`plan`] [`subnets`] [`ipam`] | subnets of a new network; default ones; addresses |
//! | [`options`] | what `-o KEY=VALUE` means |
//! | [`driver`] | how a network moves frames beyond its containers: a file for each |
//! | [`describe`] | networks and endpoints, as the datapath is told of them |
//! | [`show`] [`filters`] | networks as clients see them, and which of them |
//! | [`predefined`] | networks that are always there |
//! | [`surroundings`] | what of the host matters to a new network |

pub mod describe;
pub mod driver;
pub mod filters;
pub mod ipam;
pub mod options;
mod plan;
pub mod predefined;
mod show;
pub mod subnets;
pub mod surroundings;

use std::net::IpAddr;

use vswitch_cluster::family::Family;
use vswitch_contract::fact::{Fact, Key};
use vswitch_frame::{Mac, NetworkId};
use vswitch_sys::random;

use crate::api::types;
use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::names;
use crate::network::driver::{Driver, Plan, bridge, overlay};
use crate::network::filters::Filters;
use crate::network::ipam::Pools;
use crate::network::options::{MTU, MTU_DEFAULT, NetworkOptions};
use crate::network::predefined::DEFAULT_NETWORK;
use crate::network::predefined::IPAM_DRIVER;
use crate::network::predefined::is_predefined;
use crate::network::surroundings::Surroundings;
use crate::state::Network;

impl Control {
    /// Makes a network and returns its identifier.
    pub async fn create_network(&mut self, wish: types::NetworkCreate) -> Result<String> {
        names::check_network(&wish.name)?;
        refuse_unsupported(&wish)?;
        if self.state.networks.contains_key(&wish.name) || self.record_of(&wish.name).is_some() {
            let message = format!("network with name {} already exists: choose another name", wish.name);
            return Err(Error::new(Code::NameInUse, message));
        }
        let plan = Driver::named(&wish.driver)?.plan(&wish.options)?;
        let name = wish.name.clone();
        let network = self.draft_network(wish, &plan)?;
        self.install_network(&name, network, plan).await
    }

    /// Drafts a network as it is wished for, which is not there yet and has no number.
    pub(crate) fn draft_network(&self, wish: types::NetworkCreate, plan: &Plan) -> Result<Network> {
        let host = Surroundings::look()?;
        let uplink_mtu = plan.mtu().or(host.uplink_mtu);
        let options = NetworkOptions::parse(&wish.options, uplink_mtu.unwrap_or(MTU_DEFAULT.into()))?;
        plan.check(&options)?;
        let pools = self.plan_pools(&wish, &options, &host)?;
        let internal = wish.internal || options.internal;
        options.check(internal, pools.has(Family::V6))?;
        let gateway_mac = choose_gateway_mac(&pools)?;
        let mut written_options = wish.options;
        if options.mtu != MTU_DEFAULT {
            // It may be the host's, which the option does not say.
            written_options.insert(MTU.to_owned(), options.mtu.to_string());
        }
        Ok(Network {
            id: crate::names::new_id()?,
            number: NetworkId(0),
            created: crate::calendar::now(),
            gateway_mac,
            resolves: wish.name != DEFAULT_NETWORK,
            internal,
            attachable: wish.attachable,
            options,
            written_options,
            labels: wish.labels,
            host_port: None,
            overlay: None,
            pools,
            macs: [gateway_mac].into(),
        })
    }

    /// Gives a network its number and makes it; returns its identifier.
    pub(crate) async fn install_network(
        &mut self,
        name: &str,
        mut network: Network,
        plan: Plan,
    ) -> Result<String> {
        network.number = NetworkId(self.state.network_numbers.take().ok_or_else(too_many)?);
        let (id, number) = (network.id.to_string(), network.number);
        if let Err(error) = self.link.set(Fact::Network(number, describe::network(name, &network))).await {
            self.state.network_numbers.give_back(number.0);
            return Err(Error::new(Code::Internal, format!("cannot make network {name:?}: {error}")));
        }
        self.state.networks.insert(name.to_owned(), network);
        // Before there is a port: rules may have named it when it was not there.
        let up = match self.tell_rules().await {
            Ok(()) => self.driver_up(name, plan).await,
            refused => refused,
        };
        if let Err(error) = up {
            self.unmake_network(name).await?.done().await;
            return Err(error);
        }
        Ok(id)
    }

    /// Removes a network that has no endpoints.
    pub async fn remove_network(&mut self, key: &str) -> Result<Cleanup> {
        let name = self.any_network_name(key)?;
        if is_predefined(&name) {
            return Err(cannot_be_removed(&name));
        }
        let users = self.state.endpoints().filter(|(_, endpoint)| endpoint.network == name);
        let users: Vec<&str> = users.map(|(user, _)| user).collect();
        if let Some((first, others)) = users.split_first() {
            let others =
                if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            let message = format!("network {name} has active endpoints: disconnect {first}{others}");
            return Err(Error::new(Code::NetworkInUse, message));
        }
        self.withdraw_network(&name)?;
        let cleanup = match self.state.networks.contains_key(&name) {
            true => self.unmake_network(&name).await?,
            false => Cleanup::default(),
        };
        self.forget_rules_of(&name).await;
        Ok(cleanup)
    }

    /// Removes a network and the ports it has without endpoints.
    pub(crate) async fn unmake_network(&mut self, name: &str) -> Result<Cleanup> {
        let number = self.state.network(name)?.number;
        let cleanup = self.driver_down(name).await;
        self.forget_network(name, number).await?;
        Ok(cleanup)
    }

    /// Removes every network without endpoints that the filters let through, and returns their names.
    pub async fn prune_networks(&mut self, filters: &Filters) -> Result<(Vec<String>, Cleanup)> {
        let unused = self.networks(filters).into_iter().filter(|network| network.containers.is_empty());
        let names = unused.map(|network| network.name).filter(|name| !is_predefined(name));
        let names: Vec<String> = names.collect();
        let mut cleanup = Cleanup::default();
        let mut removed = Vec::new();
        for name in names {
            match self.remove_network(&name).await {
                Ok(work) => cleanup.join(work),
                // Another host has endpoints on it.
                Err(error) if error.code == Code::NetworkInUse => continue,
                Err(error) => return Err(error),
            }
            removed.push(name);
        }
        Ok((removed, cleanup))
    }

    async fn forget_network(&mut self, name: &str, number: NetworkId) -> Result<()> {
        let removed = self.link.remove(Key::Network(number)).await;
        removed.map_err(|error| {
            Error::new(Code::Internal, format!("cannot remove network {name:?}: {error}"))
        })?;
        if let Some(network) = self.state.networks.remove(name) {
            self.leave_network(network.id);
        }
        // Rules that name it stay: a network of its name may come, and is to be filtered at once.
        self.tell_rules().await?;
        self.state.network_numbers.give_back(number.0);
        Ok(())
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

/// Refuses wishes that are Docker's and have no meaning here, rather than to ignore them.
pub(crate) fn refuse_unsupported(wish: &types::NetworkCreate) -> Result<()> {
    let driver = Driver::named(&wish.driver)?;
    if !matches!(wish.ipam.driver.as_str(), "" | IPAM_DRIVER) {
        let message =
            format!("IPAM driver {:?} is not known: use {IPAM_DRIVER}, or leave it out", wish.ipam.driver);
        return Err(Error::new(Code::UnknownDriver, message));
    }
    if let Some(option) = wish.ipam.options.keys().next() {
        let message = format!("IPAM option {option} is not known: leave it out");
        return Err(Error::new(Code::UnknownOption, message));
    }
    overlay::refuse_encrypted(&wish.options)?;
    let scope = wish.scope.as_str();
    let refusals = [
        (
            !driver.takes_scope(scope),
            format!("scope {scope:?} is not known: use {}, or leave it out", bridge::SCOPE),
        ),
        (wish.ingress, "an ingress network is not supported: leave --ingress out".to_owned()),
        (
            wish.config_only || !wish.config_from.network.is_empty(),
            "networks are not made of others' configuration: say it all, without --config-only and --config-from"
                .to_owned(),
        ),
    ];
    let refusal = refusals.into_iter().find(|(refused, _)| *refused);
    refusal.map_or(Ok(()), |(_, message)| Err(Error::new(Code::InvalidArgument, message)))
}

fn cannot_be_removed(name: &str) -> Error {
    Error::new(
        Code::NetworkPredefined,
        format!("{name} is a pre-defined network and cannot be removed: it is always there"),
    )
}

fn too_many() -> Error {
    let message = format!("{} networks is the most there can be: remove one", NetworkId::LIMIT);
    Error::new(Code::LimitReached, message)
}
