//! Records of this host's endpoints, and of the networks that it has some on.
//!
//! A host subscribes to a network while it has endpoints there; only then it hears of those of others.
//!
//! Records follow from the state after every job: whatever made or removed an endpoint, nobody can forget to
//! say so. Of two endpoints with one address, or one MAC address, the one that was said first stays said, and
//! the other host takes its own back: who was there first is not fought, and no container is touched. Both
//! hosts say so in their logs and to who inspects the network, and what is not said is
//! [held](crate::cluster::held).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_cluster::id::Id;
use vswitch_cluster::record::{Endpoint, HostId, Key, More, Record, Value};

use crate::cluster::held::Held;
use crate::cluster::member::Cluster;
use crate::control::Control;
use crate::network::describe;

/// Everything that this host is to say of its endpoints.
#[derive(Debug, Default)]
struct Wanted {
    endpoints: BTreeMap<Key, Endpoint>,
    /// Endpoints that are not to be said.
    shadowed: BTreeSet<Key>,
    /// Networks that it has endpoints on, with the addresses that it holds there.
    held: BTreeMap<Id, Vec<Held>>,
    /// Lines about endpoints that have an address of another one.
    problems: BTreeMap<Id, Vec<String>>,
}

impl Control {
    /// Says what has changed about this host's endpoints, and about the networks that they are on.
    pub(crate) fn say_endpoints(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let me = cluster.me;
        let wanted = self.own_endpoints(cluster);
        let is_wanted = |key: &Key| wanted.endpoints.contains_key(key) && !wanted.shadowed.contains(key);
        let gone = cluster.index.all_endpoints(me).map(|(network, mac)| Key::Endpoint(network, mac));
        let mut news: Vec<(Key, Option<Value>)> =
            gone.filter(|key| !is_wanted(key)).map(|key| (key, None)).collect();
        let over = cluster.index.subscriptions(me).filter(|network| !wanted.held.contains_key(network));
        news.extend(over.map(|network| (Key::Subscription(network, me), None)));
        let held = wanted.held.iter().map(|(network, held)| {
            (Key::Subscription(*network, me), Value::Subscription(Held::subscription(held)))
        });
        let said = wanted.endpoints.iter().filter(|(key, _)| !wanted.shadowed.contains(key));
        let said = said.map(|(key, endpoint)| (key.clone(), Value::Endpoint(endpoint.clone())));
        let is_known = |(key, value): &(Key, Value)| {
            cluster.known.get(key).and_then(|known| known.value.as_ref()) == Some(value)
        };
        let said = held.chain(said).filter(|news| !is_known(news));
        news.extend(said.map(|(key, value)| (key, Some(value))));
        news.into_iter().for_each(|(key, value)| self.say(key, value));
        if let Some(cluster) = &mut self.cluster {
            wanted.problems.values().flatten().for_each(|line| cluster.complain(line.clone()));
            cluster.changes += u64::from(cluster.problems != wanted.problems);
            cluster.problems = wanted.problems;
        }
    }

    /// Endpoints of this host, as the cluster shall know them.
    fn own_endpoints(&self, cluster: &Cluster) -> Wanted {
        let mut wanted = Wanted::default();
        for (name, sandbox) in self.state.sandboxes.iter() {
            for endpoint in &sandbox.endpoints {
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
                let key = Key::Endpoint(network.id, endpoint.mac);
                wanted.add(cluster, network.id, key, said, endpoint.gone.is_some());
            }
        }
        wanted
    }
}

impl Wanted {
    /// Adds an endpoint; one that is gone keeps its addresses, and is not said.
    fn add(&mut self, cluster: &Cluster, network: Id, key: Key, endpoint: Endpoint, is_gone: bool) {
        let rival = rival(cluster, network, &key, &endpoint.addresses);
        let own = cluster.known.get(&key).filter(|record| record.host == cluster.me);
        // Where only the other host's word is left that it has the address, this one's record stays.
        let is_first = |rival: &Rival| match (rival.record, own) {
            (Some(rival), Some(own)) => own.rank() <= rival.rank(),
            (Some(_), None) => false,
            (None, _) => true,
        };
        let is_shadowed = rival.as_ref().is_some_and(|rival| !is_first(rival));
        if let Some(Rival { address, sandbox, host, .. }) = &rival {
            let (own, host) = (&endpoint.sandbox, cluster.name_of(*host));
            let consequence =
                if is_shadowed { format!("{own} is not said to the cluster: ") } else { String::new() };
            self.problems.entry(network).or_default().push(format!(
                "{consequence}{address} is the address of {own} here and of {sandbox} on host {host}: remove one of both"
            ));
        }
        let is_held = |address: &&IpAddr| is_shadowed || !cluster.index.owns(network, **address);
        let held = endpoint.addresses.iter().filter(is_held);
        let held = held.map(|address| Held { address: *address, sandbox: endpoint.sandbox.clone() });
        self.held.entry(network).or_default().extend(held);
        if is_shadowed || is_gone {
            self.shadowed.insert(key.clone());
        }
        self.endpoints.insert(key, endpoint);
    }
}

/// An endpoint of another host with the MAC address or an address of one here.
struct Rival<'a> {
    address: String,
    sandbox: &'a str,
    host: HostId,
    /// Its record, if it is said.
    record: Option<&'a Record>,
}

fn rival<'a>(cluster: &'a Cluster, network: Id, key: &Key, addresses: &[IpAddr]) -> Option<Rival<'a>> {
    let of = |mac, address: String| {
        let (record, other) =
            cluster.endpoint(network, mac).filter(|(record, _)| record.host != cluster.me)?;
        Some(Rival { address, sandbox: &other.sandbox, host: record.host, record: Some(record) })
    };
    let by_address = addresses
        .iter()
        .find_map(|address| cluster.index.at(network, *address).find_map(|mac| of(mac, address.to_string())));
    let by_mac = || if let Key::Endpoint(_, mac) = key { of(*mac, mac.to_string()) } else { None };
    let held = || {
        let (host, held) = cluster.index.held(network).find(|(_, held)| addresses.contains(&held.address))?;
        Some(Rival { address: held.address.to_string(), sandbox: &held.sandbox, host, record: None })
    };
    by_address.or_else(by_mac).or_else(held)
}

#[cfg(test)]
mod tests {
    use vswitch_cluster::record::Space;

    use super::*;
    use crate::cluster::fixtures::*;

    /// The word of this host about an endpoint of its own with the address 10.0.0.5, which it may own.
    fn wanted(records: &[Record], owned: bool) -> (bool, Vec<Held>, Vec<String>) {
        let mut cluster = cluster();
        let first = IpAddr::from([10, 0, 0, 0]);
        let space =
            Space { last: IpAddr::from([10, 0, 0, 255]), owner: Some(if owned { ME } else { OTHER }) };
        let records = [said(Key::Space(NETWORK, first), OTHER, 1, Some(Value::Space(space)))]
            .into_iter()
            .chain(records.iter().cloned());
        records.for_each(|record| assert!(cluster.take_in(record)));
        let own = endpoint(ME, 1, 5, 1);
        let Some(Value::Endpoint(value)) = own.value.clone() else { unreachable!("an endpoint") };
        let mut wanted = Wanted::default();
        wanted.add(&cluster, NETWORK, own.key.clone(), value, false);
        let problems = wanted.problems.remove(&NETWORK).unwrap_or_default();
        (wanted.shadowed.contains(&own.key), wanted.held.remove(&NETWORK).expect("an entry"), problems)
    }

    fn held(sandbox: &str) -> Vec<Held> {
        vec![Held { address: IpAddr::from([10, 0, 0, 5]), sandbox: sandbox.to_owned() }]
    }

    #[test]
    fn of_two_with_one_address_the_first_is_said_and_the_other_is_held() {
        let line = "10.0.0.5 is the address of sandbox1 here and of sandbox2 on host";
        let unsaid = format!("sandbox1 is not said to the cluster: {line}");
        let begins = |problems: &[String], with: &str| {
            assert!(problems.len() == 1 && problems[0].starts_with(with), "{problems:?}");
        };
        assert_eq!(wanted(&[], true), (false, vec![], vec![]));
        assert_eq!(wanted(&[], false), (false, held("sandbox1"), vec![]), "another host may give it");
        for (records, is_shadowed) in [
            (vec![endpoint(OTHER, 2, 5, 9)], true),
            (vec![endpoint(OTHER, 2, 5, 9), endpoint(ME, 1, 5, 10)], true),
            (vec![endpoint(OTHER, 2, 5, 9), endpoint(ME, 1, 5, 8)], false),
        ] {
            let (shadowed, addresses, problems) = wanted(&records, true);
            assert_eq!(shadowed, is_shadowed, "{records:?}");
            assert_eq!(addresses, if is_shadowed { held("sandbox1") } else { vec![] });
            begins(&problems, if is_shadowed { &unsaid } else { line });
        }
        let value = Value::Subscription(Held::subscription(&held("sandbox2")));
        let holds = said(Key::Subscription(NETWORK, OTHER), OTHER, 9, Some(value));
        let (shadowed, addresses, problems) = wanted(&[holds], true);
        assert_eq!((shadowed, addresses), (false, vec![]), "it is not said there");
        begins(&problems, line);
        // A host that was given up does not count.
        let forgotten = gone(is_at(OTHER, vtep(OTHER), 1), 2);
        assert_eq!(wanted(&[endpoint(OTHER, 2, 5, 9), forgotten], true), (false, vec![], vec![]));
    }
}
