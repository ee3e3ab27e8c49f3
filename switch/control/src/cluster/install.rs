//! Networks of the cluster on this host: made where a container is to be on one, and taken down when the
//! last one has left.
//!
//! # Theory of operation
//! Every host knows every network by its record. Here it is made, with an interface, a tunnel and facts, by
//! whoever attaches the first container ([`Control::need_network`]), and taken down after the job that took
//! away the last one ([`Control::settle_networks`]). What of the host stands in the way is looked at then:
//! addresses and routes of this host may be another's network elsewhere, and that a network cannot be here
//! is no other host's concern.

use ipnet::IpNet;
use vswitch_cluster::id::Id;
use vswitch_cluster::record::{Key, Network, Value};
use vswitch_contract::tunnel::Vni;

use crate::cluster::networks::plan_of;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::network::driver::Plan;
use crate::network::driver::overlay;
use crate::network::ipam::{Pool, Pools, overlap, overlap_error};
use crate::network::options::NetworkOptions;
use crate::network::predefined;
use crate::network::surroundings::Surroundings;
use crate::state;

impl Control {
    /// Makes the network that `key` names, if it is one of the cluster that is not made here yet. A key that
    /// names none is refused elsewhere.
    ///
    /// # Errors
    /// When it cannot be here.
    pub(crate) async fn need_network(&mut self, key: &str) -> Result<()> {
        let Ok(name) = self.any_network_name(key) else { return Ok(()) };
        if self.state.networks.contains_key(&name) {
            return Ok(());
        }
        let Some(wanted) = self.record_of(&name).cloned() else { return Ok(()) };
        let made = self.make_shared(&name, &wanted).await;
        if let (Err(error), Some(cluster)) = (&made, &mut self.cluster) {
            cluster.complain(format!("network {name:?} of the cluster cannot be on this host: {error}"));
        }
        made
    }

    /// The name of the network that `key` names, wherever it is made: its name, its identifier or the
    /// beginning of that.
    ///
    /// # Errors
    /// When there is none, or more than one begins so.
    pub(crate) fn any_network_name(&self, key: &str) -> Result<String> {
        if self.record_of(key).is_some() {
            return Ok(key.to_owned());
        }
        let known = self.cluster.iter().flat_map(|cluster| cluster.index.networks());
        let known = known.filter(|(name, _)| !self.state.networks.contains_key(*name));
        self.state.network_name_among(key, known)
    }

    /// As [`any_network_name`](Self::any_network_name), of networks that take endpoints.
    ///
    /// # Errors
    /// When there is none, more than one begins so, or it is one that takes none.
    pub(crate) fn segment_name(&self, key: &str) -> Result<String> {
        let name = self.any_network_name(key)?;
        if predefined::find(&name).is_some() { Err(predefined::no_segment(&name)) } else { Ok(name) }
    }

    /// The cluster's word about the network of this name.
    pub(crate) fn record_of(&self, name: &str) -> Option<&Network> {
        let cluster = self.cluster.as_ref()?;
        match &cluster.known.get(&Key::Network(name.to_owned()))?.value {
            Some(Value::Network(network)) => Some(network),
            _ => None,
        }
    }

    /// The names of networks of the cluster that are not made here.
    pub(crate) fn networks_elsewhere(&self) -> impl Iterator<Item = &str> {
        let known = self.cluster.iter().flat_map(|cluster| cluster.index.networks());
        known.map(|(name, _)| name).filter(|name| !self.state.networks.contains_key(*name))
    }

    /// A network of the cluster as it would be here. It is not made, and has no number.
    ///
    /// # Errors
    /// When there is none, or it is one that this vswitch does not understand.
    pub(crate) fn known_network(&self, name: &str) -> Result<state::Network> {
        let missing = || {
            let message = format!("network {name:?} not found: see \"vswitch network ls\"");
            Error::new(Code::NetworkNotFound, message)
        };
        let wanted = self.record_of(name).ok_or_else(missing)?;
        // One without an MTU was made where that is Ethernet's.
        let options = NetworkOptions::parse(&wanted.options, crate::network::options::MTU_DEFAULT.into())?;
        let pools = wanted.pools.iter().map(plan_of).map(Pool::new).collect::<Result<Vec<_>>>()?;
        Ok(state::Network {
            id: wanted.id,
            number: vswitch_frame::NetworkId(0),
            created: wanted.created.clone(),
            gateway_mac: wanted.gateway_mac,
            resolves: true,
            internal: wanted.internal,
            attachable: wanted.attachable,
            options,
            written_options: wanted.options.clone(),
            labels: wanted.labels.clone(),
            host_port: None,
            overlay: None,
            pools: Pools::new(pools)?,
            macs: [wanted.gateway_mac].into(),
        })
    }

    /// Refuses a network of the cluster that cannot be here.
    ///
    /// # Errors
    /// For a subnet that is another network's here, or means something else to the host.
    pub(crate) fn check_room(&self, network: &state::Network) -> Result<()> {
        let taken = Surroundings::look()?.in_use;
        for subnet in network.pools.iter().map(Pool::subnet) {
            for (name, other) in self.state.networks.iter().filter(|(_, other)| other.id != network.id) {
                if let Some(other) = other.pools.iter().find(|pool| overlap(pool.subnet(), subnet)) {
                    return Err(overlap_error(subnet, other.subnet(), &format!("network {name}")));
                }
            }
            if let Some(other) = taken.iter().find(|other| overlap(**other, subnet)) {
                return Err(cut_off(subnet, *other));
            }
        }
        Ok(())
    }

    async fn make_shared(&mut self, name: &str, wanted: &Network) -> Result<()> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let id = wanted.id;
        let owned = cluster.index.owned(id);
        let vni =
            Vni::new(wanted.vni).map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?;
        let plan = overlay::Plan::shared(vni, cluster.vtep)?;
        let mut network = self.known_network(name)?;
        plan.check(&network.options)?;
        self.check_room(&network)?;
        network.pools.set_owned(&owned, &[]);
        self.install_network(name, network, Plan::Overlay(plan)).await?;
        if let Some(cluster) = &mut self.cluster {
            cluster.here.insert(id, name.to_owned());
            cluster.touch(id);
        }
        self.follow_spaces();
        Ok(())
    }

    /// Notes which networks are made here, and has all be told that is known of them.
    pub(crate) fn resume_networks(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let here = self.state.networks.iter().filter(|(_, network)| network.is_shared());
        let here = here.map(|(name, network)| (network.id, name.clone())).collect();
        let before = std::mem::replace(&mut cluster.here, here);
        for network in
            before.into_keys().filter(|network| !cluster.here.contains_key(network)).collect::<Vec<_>>()
        {
            cluster.forget_endpoints(network);
        }
        for network in cluster.here.keys().copied().collect::<Vec<_>>() {
            cluster.touch(network);
        }
    }

    /// Takes networks down that no container is on any more, and raises tunnels that are not as they shall
    /// be.
    pub(crate) async fn settle_networks(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let here: Vec<(Id, String)> = cluster.here.iter().map(|(id, name)| (*id, name.clone())).collect();
        let awaited = cluster.awaited.clone();
        let used: std::collections::BTreeSet<&str> =
            self.state.endpoints().map(|(_, endpoint)| endpoint.network.as_str()).collect();
        let (used, unused): (Vec<_>, Vec<_>) =
            here.into_iter().partition(|(_, name)| used.contains(name.as_str()));
        for (_, name) in unused.into_iter().filter(|(id, _)| !awaited.contains(id)) {
            match self.unmake_network(&name).await {
                Ok(cleanup) => cleanup.done().await,
                Err(error) => tracing::warn!("network {name:?}, which nobody is on, is still here: {error}"),
            }
        }
        for (id, name) in used {
            if let Some(cluster) = &mut self.cluster {
                // The container that waited for it is there.
                cluster.awaited.remove(&id);
            }
            if let Err(error) = self.settle_tunnel(id, &name).await
                && let Some(cluster) = &mut self.cluster
            {
                cluster.complain(format!("network {name:?} does not reach other hosts: {error}"));
            }
        }
    }

    /// Raises the tunnel of a network anew if its number or this host's address has changed, or if it could
    /// not be raised before.
    async fn settle_tunnel(&mut self, id: Id, name: &str) -> Result<()> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let vtep = cluster.vtep;
        let wanted = self.record_of(name).filter(|wanted| wanted.id == id).map(|wanted| wanted.vni);
        let Some(network) = self.state.networks.get(name) else { return Ok(()) };
        let Some(overlay) = network.overlay.as_ref() else { return Ok(()) };
        let vni = wanted.and_then(|vni| Vni::new(vni).ok()).unwrap_or(overlay.vni);
        let told = self.link.tunnel(network.number).await.map(|spec| (spec.vni, spec.local));
        if told == Some((vni, vtep)) && (overlay.vni, overlay.vtep) == (vni, vtep) {
            return Ok(());
        }
        if let Some(overlay) = &mut self.state.network(name)?.overlay {
            (overlay.vni, overlay.vtep) = (vni, vtep);
        }
        self.raise_tunnel(name).await?;
        if let Some(cluster) = &mut self.cluster {
            cluster.touch(id);
        }
        Ok(())
    }

    /// A network that is made here no longer: nothing more is heard of it.
    pub(crate) fn leave_network(&mut self, id: Id) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.here.remove(&id);
        cluster.late.remove(&id);
        cluster.problems.remove(&id);
        cluster.forget_endpoints(id);
    }
}

/// The refusal of a subnet that would cut the host off.
fn cut_off(subnet: IpNet, other: IpNet) -> Error {
    let message = format!(
        "subnet {subnet}: Pool overlaps with other one on this address space: {other}, an address or a route of \
         this host, which would be cut off: remove that, or make the network with another subnet"
    );
    Error::new(Code::PoolOverlap, message)
}
