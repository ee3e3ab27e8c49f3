//! Facts that follow from the cluster, for the datapath: where frames go, and names.
//!
//! # Theory of operation
//! For each network of which something has changed, facts for the datapath follow from the records; the
//! [`tunnels`](crate::host::tunnels) say those that it does not have, and take back the others. Hosts that
//! cannot be reached stay peers: if only their control is gone, frames still arrive; but the names of their
//! endpoints are not answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_cluster::id::Id;
use vswitch_cluster::record::{Key, Value};
use vswitch_contract::fact::Fact;
use vswitch_contract::network::Remote;
use vswitch_contract::tunnel as vxlan;
use vswitch_frame::{Mac, NetworkId};

use crate::cluster::member::Cluster;
use crate::control::Control;

/// Facts of a network that the datapath shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    peers: BTreeSet<IpAddr>,
    records: BTreeMap<Mac, vxlan::Record>,
    names: BTreeMap<Mac, Remote>,
}

impl Control {
    /// Tells the datapath what has changed.
    pub(crate) async fn steer(&mut self) {
        self.follow_networks().await;
        let Some(cluster) = &mut self.cluster else { return };
        for id in std::mem::take(&mut cluster.touched) {
            let Some(name) = self.shared_network(id) else { continue };
            let number = self.state.networks[&name].number;
            let Some(cluster) = &self.cluster else { return };
            let wanted = wanted(cluster, id);
            match self.tunnels.set_beyond(number, wanted.facts(number)).await {
                Ok(refused) => {
                    let cluster = self.cluster.as_mut();
                    refused.into_iter().zip(cluster).for_each(|((_, why), cluster)| {
                        cluster.complain(format!("network {name:?} does not reach all its hosts: {why}"));
                    });
                }
                // The next change of the network tells all of it again, whatever is the matter.
                Err(error) => tracing::warn!("network {name:?} may not reach all its hosts: {error}"),
            }
        }
    }
}

impl Wanted {
    fn facts(self, network: NetworkId) -> Vec<Fact> {
        let peers = self.peers.into_iter().map(|vtep| Fact::Peer(network, vtep));
        let records = self.records.into_values().map(|record| Fact::Record(network, record));
        let names = self.names.into_iter().map(|(mac, remote)| Fact::Name(network, mac, remote));
        peers.chain(records).chain(names).collect()
    }
}

/// Facts that follow from the records of a network.
fn wanted(cluster: &Cluster, id: Id) -> Wanted {
    let mut wanted = Wanted::default();
    let subscribers = cluster.known.subscriptions(id).filter(|record| record.value.is_some());
    let others = subscribers.map(|record| record.host).filter(|host| *host != cluster.me);
    wanted.peers.extend(others.filter_map(|host| cluster.vtep_of(host)));
    for record in cluster.known.endpoints(id) {
        let Key::Endpoint(_, mac) = record.key else { continue };
        let Some(Value::Endpoint(endpoint)) = &record.value else { continue };
        let is_here = record.host == cluster.me;
        let (addresses, vtep) = (endpoint.addresses.clone(), endpoint.vtep);
        if !is_here && cluster.up.contains(&record.host) {
            let remote = Remote { addresses: addresses.clone(), names: endpoint.names.clone() };
            wanted.names.insert(mac, remote);
        }
        wanted.records.insert(mac, vxlan::Record { mac, addresses, vtep, version: record.version.0 });
    }
    wanted
}

#[cfg(test)]
mod tests {
    use vswitch_cluster::record::{Endpoint, Host, HostId, More, Record, Subscription, Version};
    use vswitch_cluster::{Options, SourceOptions, gossip, view};

    use super::*;

    const ME: HostId = HostId::new([1; 16]);
    const OTHER: HostId = HostId::new([2; 16]);
    const NETWORK: Id = Id::new([3; 32]);

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
        Record { key: Key::Endpoint(NETWORK, mac(last)), version: Version(version), host, value }
    }

    fn cluster(records: &[Record]) -> Cluster {
        let gossip =
            gossip::Options { key_file: "".into(), join: vec![], advertise: (ip(1), 1).into(), bind: None };
        let source = SourceOptions::Gossip(gossip);
        let options = Options { host: "a".to_owned(), name: "c".to_owned(), vtep: ip(1), source };
        Cluster::new(ME, &options, view::channel().0, records.iter())
    }

    /// Both hosts, and that both have endpoints on the network.
    fn hosts() -> Vec<Record> {
        let of = |key, host, value| Record { key, version: Version(1), host, value: Some(value) };
        let host = |id, last| Host { name: format!("host{id:?}"), vtep: ip(last), more: More::new() };
        let hosts =
            [(ME, 1), (OTHER, 2)].map(|(id, last)| of(Key::Host(id), id, Value::Host(host(id, last))));
        let subscribed =
            |id| of(Key::Subscription(NETWORK, id), id, Value::Subscription(Subscription::default()));
        hosts.into_iter().chain([ME, OTHER].map(subscribed)).collect()
    }

    #[test]
    fn what_others_say_of_a_network_is_known_while_this_host_has_endpoints_there() {
        let theirs = || endpoint(OTHER, 2, 2, false);
        let mut cluster = cluster(&[theirs()]);
        assert!(cluster.known.get(&theirs().key).is_none());
        hosts().into_iter().for_each(|record| assert!(cluster.take_in(record)));
        assert_eq!(cluster.subscribed().collect::<Vec<_>>(), [NETWORK]);
        assert!(cluster.take_in(theirs()));
        let over = cluster.draft(Key::Subscription(NETWORK, ME), None);
        assert!(cluster.take_in(over));
        assert_eq!(cluster.subscribed().count(), 0);
        assert!(!cluster.take_in(endpoint(OTHER, 3, 3, false)));
    }

    #[test]
    fn hosts_with_endpoints_are_peers_and_names_are_of_those_that_are_up() {
        let endpoints =
            [endpoint(ME, 1, 1, false), endpoint(OTHER, 2, 2, false), endpoint(OTHER, 3, 3, true)];
        let mut cluster = cluster(&[hosts(), endpoints.to_vec()].concat());
        let down = wanted(&cluster, NETWORK);
        assert_eq!(down.peers, [ip(2)].into());
        assert_eq!(down.records.keys().copied().collect::<Vec<_>>(), [mac(1), mac(2)]);
        assert_eq!(down.names, BTreeMap::new());
        cluster.up.insert(OTHER);
        let up = wanted(&cluster, NETWORK);
        assert_eq!(up.names.keys().copied().collect::<Vec<_>>(), [mac(2)]);
        assert_eq!(wanted(&cluster, Id::new([4; 32])), Wanted::default());
    }
}
