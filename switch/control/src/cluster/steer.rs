//! Tells the datapath what the cluster says: where frames go, and names.
//!
//! # Theory of operation
//! For each network of which something has changed, what the datapath shall know follows from the records; what it was
//! told last is kept by the [`tunnels`](super::super::tunnels), which a datapath and a control may outlive. The
//! difference is said. Hosts that cannot be reached stay peers: if only their control is gone, frames still arrive; but
//! the names of their endpoints are not answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_contract::network::Remote;
use vswitch_contract::tunnel as vxlan;
use vswitch_frame::{Mac, NetworkId};

use super::super::Control;
use super::super::error::Result;
use super::super::link::KnownTunnel;
use super::agent::Cluster;
use vswitch_cluster::record::{Key, Value};

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

#[cfg(test)]
mod tests {
    use vswitch_contract::tunnel::Vni;

    use super::*;
    use vswitch_cluster::id::Id;
    use vswitch_cluster::record::{Endpoint, HostId, More, Record, Version};
    use vswitch_cluster::{Options, SourceOptions, gossip, view};
    use vswitch_contract::tunnel::TunnelSpec;

    const ME: HostId = HostId::new([1; 16]);
    const OTHER: HostId = HostId::new([2; 16]);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 0x42, 10, 0, 0, last])
    }

    fn endpoint(host: HostId, last: u8, version: u64, gone: bool) -> Record {
        let endpoint = Endpoint {
            sandbox: format!("sandbox{last}"),
            id: Id::new([last; 32]),
            addresses: vec![IpAddr::from([10, 0, 0, last])],
            vtep: ip(if host == ME { 1 } else { 2 }),
            names: vec![format!("sandbox{last}")],
            more: More::new(),
        };
        let value = (!gone).then_some(Value::Endpoint(endpoint));
        Record { key: Key::Endpoint("net".to_owned(), mac(last)), version: Version(version), host, value }
    }

    fn cluster(records: &[Record]) -> Cluster {
        let gossip =
            gossip::Options { key_file: "".into(), join: vec![], advertise: (ip(1), 1).into(), bind: None };
        let source = SourceOptions::Gossip(gossip);
        let options = Options { host: "a".to_owned(), name: "c".to_owned(), vtep: ip(1), source };
        Cluster::new(ME, &options, view::channel().0, records.iter())
    }

    fn known(wanted: &Wanted) -> KnownTunnel {
        let group = vswitch_frame::GroupId::own(vswitch_frame::PortId(1));
        let (port, vni) = (vswitch_frame::PortId(1), Vni::new(4096).expect("a number"));
        let spec = TunnelSpec { port, group, vni, local: ip(1), underlay_mtu: 1500, learning: false };
        KnownTunnel { spec, peers: wanted.peers.clone(), records: wanted.records.clone() }
    }

    #[test]
    fn hosts_with_endpoints_are_peers_and_names_are_of_those_that_are_up() {
        let mut cluster =
            cluster(&[endpoint(ME, 1, 1, false), endpoint(OTHER, 2, 2, false), endpoint(OTHER, 3, 3, true)]);
        let down = wanted(&cluster, "net");
        assert_eq!(down.peers, [ip(2)].into());
        assert_eq!(down.records.keys().copied().collect::<Vec<_>>(), [mac(1), mac(2)]);
        assert_eq!((down.gone, down.names), ([(mac(3), 3)].into(), BTreeMap::new()));
        cluster.up.insert(OTHER);
        let up = wanted(&cluster, "net");
        assert_eq!(up.names.keys().copied().collect::<Vec<_>>(), [mac(2)]);
        assert_eq!(wanted(&cluster, "other"), Wanted::default());
    }

    #[test]
    fn only_what_has_changed_is_said() {
        let before = wanted(&cluster(&[endpoint(ME, 1, 1, false), endpoint(OTHER, 2, 2, false)]), "net");
        assert_eq!(steps(&known(&before), &before), Steps::default());
        // One moved here, so the other host has none left.
        let moved = wanted(&cluster(&[endpoint(ME, 1, 1, false), endpoint(ME, 2, 5, false)]), "net");
        let expected = Steps {
            set: vec![moved.records[&mac(2)].clone()],
            remove_peers: vec![ip(2)],
            ..Steps::default()
        };
        assert_eq!(steps(&known(&before), &moved), expected);
        let gone = wanted(&cluster(&[endpoint(ME, 1, 1, false), endpoint(OTHER, 2, 9, true)]), "net");
        let expected = Steps { forget: vec![(mac(2), 9)], remove_peers: vec![ip(2)], ..Steps::default() };
        assert_eq!(steps(&known(&before), &gone), expected);
        let back = steps(&known(&gone), &before);
        assert_eq!((back.add_peers, back.set.len()), (vec![ip(2)], 1));
    }
}
