//! Tells the datapath what the cluster says: where frames go, and names.
//!
//! # Theory of operation
//! For each network of which something has changed, what the datapath shall know follows from the records; what it was
//! told last is kept by the [`tunnels`](super::super::tunnels), which a datapath and a control may outlive. The
//! difference is said. Hosts that cannot be reached stay peers: if only their control is gone, frames still arrive; but
//! the names of their endpoints are not answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_engine::Remote;
use vswitch_frame::{Mac, NetworkId};
use vswitch_vxlan as vxlan;

use super::super::Control;
use super::super::error::Result;
use super::super::link::KnownTunnel;
use super::agent::Cluster;
use super::record::{Key, Value};

/// What the datapath shall know of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    peers: BTreeSet<IpAddr>,
    records: BTreeMap<Mac, vxlan::Record>,
    /// Versions of what is gone.
    gone: BTreeMap<Mac, u64>,
    names: BTreeMap<Mac, Remote>,
}

/// What is to be said of a network's tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Steps {
    add_peers: Vec<IpAddr>,
    set: Vec<vxlan::Record>,
    forget: Vec<(Mac, u64)>,
    remove_peers: Vec<IpAddr>,
}

impl Control {
    /// Tells the datapath what has changed.
    pub(in super::super) async fn steer(&mut self) {
        self.follow_networks().await;
        let Some(cluster) = &mut self.cluster else { return };
        for id in std::mem::take(&mut cluster.touched) {
            let Some(name) = self.shared_network(&id) else { continue };
            let number = self.state.networks[&name].number;
            let Some(cluster) = &self.cluster else { return };
            let wanted = wanted(cluster, &id);
            if let Err(error) = self.tell(number, wanted).await {
                // Whatever is the matter, the next change of the network tells all of it again.
                tracing::warn!("network {name:?} may not reach all its hosts: {error}");
            }
        }
    }

    async fn tell(&mut self, network: NetworkId, wanted: Wanted) -> Result<()> {
        let Some(known) = self.tunnels.known(network).await else { return Ok(()) };
        let Steps { add_peers, set, forget, remove_peers } = steps(&known, &wanted);
        for vtep in add_peers {
            self.tunnels.add_peer(network, vtep).await?;
        }
        if !set.is_empty() {
            self.tunnels.record(network, set).await?;
        }
        for (mac, version) in forget {
            self.tunnels.forget(network, mac, version).await?;
        }
        for vtep in remove_peers {
            self.tunnels.remove_peer(network, vtep).await?;
        }
        self.link.set_remotes(network, wanted.names).await.map_err(|error| {
            super::super::error::Error::new(super::super::error::Code::Internal, error.to_string())
        })
    }
}

/// What follows from the records of a network.
fn wanted(cluster: &Cluster, id: &str) -> Wanted {
    let mut wanted = Wanted::default();
    for record in cluster.known.endpoints(id) {
        let Key::Endpoint(_, mac) = record.key else { continue };
        let Some(Value::Endpoint(endpoint)) = &record.value else {
            wanted.gone.insert(mac, record.version.0);
            continue;
        };
        let is_here = record.host == cluster.me;
        let (addresses, vtep) = (endpoint.addresses.clone(), endpoint.vtep);
        wanted.peers.extend((!is_here).then_some(vtep));
        if !is_here && cluster.up.contains(&record.host) {
            let remote = Remote { addresses: addresses.clone(), names: endpoint.names.clone() };
            wanted.names.insert(mac, remote);
        }
        wanted.records.insert(mac, vxlan::Record { mac, addresses, vtep, version: record.version.0 });
    }
    wanted
}

/// The way from what is known to what is wanted. Peers come before what lives on them, and go after it.
fn steps(known: &KnownTunnel, wanted: &Wanted) -> Steps {
    let set = wanted.records.values().filter(|record| known.records.get(&record.mac) != Some(record));
    let forget = known.records.values().filter(|record| !wanted.records.contains_key(&record.mac));
    let forget =
        forget.map(|record| (record.mac, wanted.gone.get(&record.mac).copied().unwrap_or(record.version)));
    Steps {
        add_peers: wanted.peers.difference(&known.peers).copied().collect(),
        set: set.cloned().collect(),
        forget: forget.collect(),
        remove_peers: known.peers.difference(&wanted.peers).copied().collect(),
    }
}
