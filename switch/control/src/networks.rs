//! Networks: making and removing them.

mod plan;
mod show;

use std::net::IpAddr;

use vswitch_contract::fact::{Fact, Key};
use vswitch_frame::{Mac, NetworkId};
use vswitch_sys::random;

use super::Control;
use super::api::types;
use super::describe;
use super::endpoints::Cleanup;
use super::error::{Code, Error, Result};
use super::filters::Filters;
use super::interface::failed;
use super::ipam::Pools;
use super::options::{MTU, MTU_DEFAULT, NetworkOptions, OverlayOptions};
use super::state::Network;
use super::surroundings::Surroundings;
use super::{names, overlay, predefined};
use vswitch_cluster::family::Family;

/// The network that is always there.
pub const DEFAULT_NETWORK: &str = "bridge";

const DRIVER: &str = "bridge";
const IPAM_DRIVER: &str = "default";
const SCOPE: &str = "local";
/// What Docker calls networks that span hosts.
const SCOPE_SHARED: &str = "swarm";
/// Docker's option of networks whose packets are encrypted between hosts.
const ENCRYPTED: &str = "encrypted";

impl Control {
    /// Makes a network and returns its identifier.
    pub async fn create_network(&mut self, wish: types::NetworkCreate) -> Result<String> {
        names::check_network(&wish.name)?;
        refuse_unsupported(&wish)?;
        if self.state.networks.contains_key(&wish.name) {
            let message = format!("network with name {} already exists: choose another name", wish.name);
            return Err(Error::new(Code::NameInUse, message));
        }
        let overlay = plan_overlay(&wish)?;
        let name = wish.name.clone();
        let network = self.draft_network(wish, overlay.as_ref())?;
        self.install_network(&name, network, overlay).await
    }

    /// What a wish makes of a network, which is not there yet and has no number.
    pub(super) fn draft_network(
        &self,
        wish: types::NetworkCreate,
        overlay: Option<&overlay::Plan>,
    ) -> Result<Network> {
        let host = Surroundings::look()?;
        let uplink_mtu = overlay.map(|plan| plan.mtu).or(host.uplink_mtu);
        let options = NetworkOptions::parse(&wish.options, uplink_mtu.unwrap_or(MTU_DEFAULT.into()))?;
        overlay.iter().try_for_each(|plan| plan.check(&options))?;
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
            id: super::new_id()?,
            number: NetworkId(0),
            created: super::now(),
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
    pub(super) async fn install_network(
        &mut self,
        name: &str,
        mut network: Network,
        overlay: Option<overlay::Plan>,
    ) -> Result<String> {
        network.number = NetworkId(self.state.network_numbers.take().ok_or_else(too_many)?);
        let (id, number) = (network.id.to_string(), network.number);
        if let Err(error) = self.link.set(Fact::Network(number, describe::network(name, &network))).await {
            self.state.network_numbers.give_back(number.0);
            return Err(Error::new(Code::Internal, format!("cannot make network {name:?}: {error}")));
        }
        self.state.networks.insert(name.to_owned(), network);
        if let Err(error) = self.add_own_ports(name, overlay).await {
            self.unmake_network(name).await?.done().await;
            return Err(error);
        }
        Ok(id)
    }

    /// Makes the ports that a network has before any endpoint.
    async fn add_own_ports(&mut self, name: &str, overlay: Option<overlay::Plan>) -> Result<()> {
        self.add_host_port(name).await?;
        match overlay {
            Some(plan) => self.add_overlay(name, plan).await,
            None => Ok(()),
        }
    }

    /// Removes a network that has no endpoints.
    pub async fn remove_network(&mut self, key: &str) -> Result<Cleanup> {
        let name = self.state.any_network_name(key)?;
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
        self.unmake_network(&name).await
    }

    /// Removes a network and the ports it has without endpoints.
    pub(super) async fn unmake_network(&mut self, name: &str) -> Result<Cleanup> {
        self.remove_overlay(name).await;
        let network = self.state.network(name)?;
        let (number, host_port) = (network.number, network.host_port.take());
        let mut cleanup = Cleanup::default();
        if let Some(host_port) = host_port {
            cleanup.join(self.remove_host_port(host_port).await);
        }
        self.forget_network(name, number).await?;
        Ok(cleanup)
    }

    /// Removes every network without endpoints that the filters let through, and returns their names.
    pub async fn prune_networks(&mut self, filters: &Filters) -> Result<(Vec<String>, Cleanup)> {
        let unused = self.networks(filters).into_iter().filter(|network| network.containers.is_empty());
        let names = unused.map(|network| network.name).filter(|name| !is_predefined(name));
        let names: Vec<String> = names.collect();
        let mut cleanup = Cleanup::default();
        for name in &names {
            cleanup.join(self.remove_network(name).await?);
        }
        Ok((names, cleanup))
    }

    async fn forget_network(&mut self, name: &str, number: NetworkId) -> Result<()> {
        let removed = self.link.remove(Key::Network(number)).await;
        removed.map_err(|error| {
            Error::new(Code::Internal, format!("cannot remove network {name:?}: {error}"))
        })?;
        self.state.networks.remove(name);
        self.forget_rules_of(name).await;
        self.state.network_numbers.give_back(number.0);
        Ok(())
    }
}

/// What makes a new network span hosts, if it shall.
fn plan_overlay(wish: &types::NetworkCreate) -> Result<Option<overlay::Plan>> {
    if wish.driver != overlay::DRIVER {
        return OverlayOptions::refuse(&wish.options).map(|()| None);
    }
    overlay::Plan::new(OverlayOptions::parse(&wish.options)?).map(Some)
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

/// Refuses what is Docker's and has no meaning here, rather than to ignore it.
pub(super) fn refuse_unsupported(wish: &types::NetworkCreate) -> Result<()> {
    let drivers = [
        ("driver", wish.driver.as_str(), &[DRIVER, overlay::DRIVER][..]),
        ("IPAM driver", wish.ipam.driver.as_str(), &[IPAM_DRIVER][..]),
    ];
    let unknown = drivers.iter().find(|(_, driver, known)| !driver.is_empty() && !known.contains(driver));
    if let Some((what, driver, known)) = unknown {
        let known = known.join(" or ");
        let message = format!("{what} {driver:?} is not known: use {known}, or leave it out");
        return Err(Error::new(Code::UnknownDriver, message));
    }
    if let Some(option) = wish.ipam.options.keys().next() {
        let message = format!("IPAM option {option} is not known: leave it out");
        return Err(Error::new(Code::UnknownOption, message));
    }
    let scope = wish.scope.as_str();
    let refusals = [
        (
            !(matches!(scope, "" | SCOPE) || wish.driver == overlay::DRIVER && scope == SCOPE_SHARED),
            format!("scope {scope:?} is not known: use {SCOPE}, or leave it out"),
        ),
        (
            wish.options.contains_key(ENCRYPTED),
            format!("option {ENCRYPTED}: tunnels are not encrypted yet: leave it out"),
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

/// Whether a network is one of those that are always there.
pub fn is_predefined(name: &str) -> bool {
    name == DEFAULT_NETWORK || predefined::find(name).is_some()
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
