//! Records of this host's endpoints, and of the networks that it has some on.
//!
//! A host subscribes to a network while it has endpoints there. Only then it hears of those of others, and
//! what it heard is forgotten when it ends.
//!
//! Records follow from the state after every job: whatever made or removed an endpoint, nobody can forget to
//! say so. An endpoint whose addresses another host's has, too, is not said: who was there first is not
//! fought.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_cluster::id::Id;
use vswitch_cluster::record::{Endpoint, Key, More, Record, Subscription, Value};

use crate::cluster::member::Cluster;
use crate::control::Control;
use crate::network::describe;

impl Control {
    /// Says what has changed about this host's endpoints.
    pub(crate) fn say_endpoints(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let wanted = self.own_endpoints(cluster);
        let networks: BTreeSet<Id> = wanted.keys().filter_map(Key::network).collect();
        let said: BTreeSet<Id> = self.state.said.values().filter_map(|record| record.key.network()).collect();
        let mut news: Vec<(Key, Option<Value>)> = Vec::new();
        let mut complaints = Vec::new();
        for record in networks.union(&said).flat_map(|network| cluster.known.endpoints(*network)) {
            if record.host == cluster.me && record.value.is_some() && !wanted.contains_key(&record.key) {
                news.push((record.key.clone(), None));
            }
        }
        for (key, endpoint) in wanted {
            let known = cluster.known.get(&key);
            if known.is_some_and(|known| known.value == Some(Value::Endpoint(endpoint.clone()))) {
                continue;
            }
            match rival(cluster, &key, &endpoint.addresses) {
                Some(rival) => complaints.push(format!(
                    "{} is not said to the cluster: host {} has one with its address ({}), too: remove one of both",
                    endpoint.sandbox,
                    cluster.name_of(rival.host),
                    rival.key
                )),
                None => news.push((key, Some(Value::Endpoint(endpoint)))),
            }
        }
        news.into_iter().for_each(|(key, value)| self.say(key, value));
        if let Some(cluster) = &mut self.cluster {
            complaints.into_iter().for_each(|line| cluster.complain(line));
        }
    }

    /// Says which networks this host has endpoints on, and forgets what is known of others.
    pub(crate) fn say_subscriptions(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let me = cluster.me;
        let used: BTreeSet<&str> =
            self.state.endpoints().map(|(_, endpoint)| endpoint.network.as_str()).collect();
        let networks = used.into_iter().filter_map(|name| self.state.networks.get(name));
        let wanted: BTreeSet<Id> = networks.filter(|one| one.is_shared()).map(|one| one.id).collect();
        let said: BTreeSet<Id> = cluster.subscribed().collect();
        for network in wanted.difference(&said) {
            self.say(Key::Subscription(*network, me), Some(Value::Subscription(Subscription::default())));
        }
        for network in said.difference(&wanted) {
            self.say(Key::Subscription(*network, me), None);
            if let Some(cluster) = &mut self.cluster {
                cluster.known.forget_endpoints(*network, me);
            }
        }
    }

    /// Endpoints of this host, as the cluster shall know them.
    fn own_endpoints(&self, cluster: &Cluster) -> BTreeMap<Key, Endpoint> {
        let mut wanted = BTreeMap::new();
        for (name, sandbox) in self.state.sandboxes.iter() {
            for endpoint in sandbox.endpoints.iter().filter(|endpoint| endpoint.gone.is_none()) {
                let network = self.state.networks.get(&endpoint.network);
                let Some(network) = network.filter(|network| network.is_shared()) else { continue };
                let said = Endpoint {
                    sandbox: name.clone(),
                    id: endpoint.id,
                    addresses: endpoint.addresses.iter().map(ipnet::IpNet::addr).collect(),
                    vtep: cluster.vtep,
                    names: describe::names_of(name, sandbox, endpoint),
                    more: More::new(),
                };
                wanted.insert(Key::Endpoint(network.id, endpoint.mac), said);
            }
        }
        wanted
    }
}

/// The endpoint of another host with this MAC address or one of these addresses.
fn rival<'a>(cluster: &'a Cluster, key: &Key, addresses: &[IpAddr]) -> Option<&'a Record> {
    let others = cluster.known.endpoints(key.network()?).filter(|record| record.host != cluster.me);
    others.into_iter().find(|record| match &record.value {
        Some(Value::Endpoint(other)) => {
            record.key == *key || other.addresses.iter().any(|address| addresses.contains(address))
        }
        _ => false,
    })
}
