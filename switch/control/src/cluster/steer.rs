//! Facts that follow from the cluster, for the datapath: where frames go, and names.
//!
//! # Theory of operation
//! Records and hosts that come and go touch the endpoints and peers that they are about
//! ([`Touched`](crate::cluster::index::Touched)); after each job the datapath is told these, and nothing
//! else. Peers of a network are the hosts that subscribe to it, at the address that their host records say.
//! Hosts that cannot be reached stay peers: if only their control is gone, frames still arrive; but the names
//! of their endpoints are not answered.
//!
//! Of two endpoints with one address the one that was said first is told, on every host.
//!
//! What the datapath refuses is said in the log, and all else is told; where it has no room, what was refused
//! is told when something of its network has gone. What a datapath knows from before a start of control
//! stays until its cluster has had the time to say all ([`Control::agree`]).

use std::collections::{BTreeMap, BTreeSet};

use vswitch_cluster::id::Id;
use vswitch_cluster::record::{Endpoint, Key as RecordKey, Record};
use vswitch_contract::fact::{Change, Fact, Key};
use vswitch_contract::network::Remote;
use vswitch_contract::tunnel as vxlan;
use vswitch_frame::{Mac, NetworkId};

use crate::cluster::member::{Cluster, Late};
use crate::control::Control;

impl Control {
    /// Has networks here be as the cluster and their containers want them, before that is written down.
    pub(crate) async fn settle_cluster(&mut self) {
        self.follow_networks();
        self.settle_networks().await;
        self.follow_spaces();
    }

    /// Tells the datapath what has changed.
    pub(crate) async fn steer(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut touched: BTreeMap<Id, BTreeSet<Late>> = BTreeMap::new();
        for (network, vtep) in std::mem::take(&mut cluster.touched.peers) {
            touched.entry(network).or_default().insert(Late::Peer(vtep));
        }
        for (network, mac) in std::mem::take(&mut cluster.touched.endpoints) {
            touched.entry(network).or_default().insert(Late::Endpoint(mac));
        }
        for (network, touched) in touched {
            self.tell_touched(network, touched).await;
        }
    }

    /// Tells what was touched of a network that is made here.
    async fn tell_touched(&mut self, id: Id, mut touched: BTreeSet<Late>) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(name) = cluster.here.get(&id).cloned() else { return };
        let Some(number) = self.state.networks.get(&name).map(|network| network.number) else { return };
        let mut changes = changes(cluster, (id, number), &touched);
        let gone = changes.iter().filter(|change| matches!(change, Change::Remove(_))).count();
        let late = cluster.late.entry(id).or_default();
        let again: BTreeSet<Late> = late.difference(&touched).take(gone).copied().collect();
        late.retain(|one| !again.contains(one) && !touched.contains(one));
        changes.extend(self::changes(cluster, (id, number), &again));
        touched.extend(again);
        let told = self.tunnels.change_beyond(changes).await;
        let Some(cluster) = &mut self.cluster else { return };
        match told {
            Ok(refused) => {
                refused.into_iter().for_each(|(key, why)| cluster.note_refused(id, &name, key, &why))
            }
            Err(error) => {
                tracing::warn!("network {name:?} may not reach all its hosts: {error}");
                cluster.touch_again(id, touched);
            }
        }
    }

    /// Makes the datapath have all that is known of the networks here, and nothing else.
    pub(crate) async fn agree(&mut self) {
        let here: Vec<(Id, String)> = match &self.cluster {
            Some(cluster) => cluster.here.iter().map(|(id, name)| (*id, name.clone())).collect(),
            None => return,
        };
        for (id, name) in here {
            let Some(number) = self.state.networks.get(&name).map(|network| network.number) else { continue };
            let Some(cluster) = &mut self.cluster else { return };
            cluster.late.remove(&id);
            let all = cluster.index.peers(id).map(Late::Peer);
            let endpoints = cluster.known.endpoints(id).filter_map(|record| mac_of(&record.key));
            let all: BTreeSet<Late> = all.chain(endpoints.map(Late::Endpoint)).collect();
            let wanted = changes(cluster, (id, number), &all).into_iter().filter_map(|change| match change {
                Change::Set(held) => Some(held.fact),
                Change::Remove(_) => None,
            });
            let told = self.tunnels.set_beyond(number, wanted.collect::<Vec<_>>()).await;
            let Some(cluster) = &mut self.cluster else { return };
            match told {
                Ok(refused) => {
                    refused.into_iter().for_each(|(key, why)| cluster.note_refused(id, &name, key, &why));
                }
                Err(error) => {
                    tracing::warn!("network {name:?} may not reach all its hosts: {error}");
                    cluster.touch_again(id, all);
                }
            }
        }
    }
}

impl Cluster {
    /// Has what could not be told be told after the next job.
    fn touch_again(&mut self, network: Id, touched: BTreeSet<Late>) {
        for touched in touched {
            match touched {
                Late::Peer(vtep) => self.touched.peers.insert((network, vtep)),
                Late::Endpoint(mac) => self.touched.endpoints.insert((network, mac)),
            };
        }
    }

    /// Says what the datapath refused, and notes it for later.
    fn note_refused(&mut self, network: Id, name: &str, key: Key, why: &str) {
        let late = if let Key::Peer(_, vtep) = key {
            let hosts = self.index.hosts_at(network, vtep).map(|host| self.name_of(host));
            let hosts = hosts.collect::<Vec<_>>().join(", ");
            self.complain(format!("network {name:?} does not reach host {hosts}: {why}"));
            Late::Peer(vtep)
        } else if let Key::Record(_, mac) | Key::Name(_, mac) = key {
            self.complain(format!("network {name:?} does not reach all its endpoints: {why}"));
            Late::Endpoint(mac)
        } else {
            return;
        };
        self.late.entry(network).or_default().insert(late);
    }

    /// The endpoint of a MAC address, unless one that was said before has an address of it.
    fn told_of(&self, network: Id, mac: Mac) -> Option<(&Record, &Endpoint)> {
        let (record, endpoint) = self.endpoint(network, mac)?;
        let mut rivals = endpoint.addresses.iter().flat_map(|address| self.index.at(network, *address));
        let is_first =
            |rival: Mac| self.endpoint(network, rival).is_none_or(|(rival, _)| record.rank() <= rival.rank());
        rivals.all(is_first).then_some((record, endpoint))
    }
}

fn mac_of(key: &RecordKey) -> Option<Mac> {
    if let RecordKey::Endpoint(_, mac) = key { Some(*mac) } else { None }
}

/// The changes after which the datapath knows what there is to know of these peers and endpoints: first those
/// that take something back, the last key first, then those that say something, the first key first.
fn changes(cluster: &Cluster, (id, number): (Id, NetworkId), touched: &BTreeSet<Late>) -> Vec<Change> {
    let (mut gone, mut said) = (BTreeSet::new(), BTreeMap::new());
    let mut set = |key: Key, fact: Option<Fact>| match fact {
        Some(fact) => drop(said.insert(key, fact)),
        None => drop(gone.insert(key)),
    };
    for touched in touched {
        match *touched {
            Late::Peer(vtep) => {
                let is_there = cluster.index.hosts_at(id, vtep).next().is_some();
                set(Key::Peer(number, vtep), is_there.then_some(Fact::Peer(number, vtep)));
            }
            Late::Endpoint(mac) => {
                let told = cluster.told_of(id, mac);
                let (vtep, addresses) = match told {
                    Some((_, endpoint)) => (Some(endpoint.vtep), endpoint.addresses.clone()),
                    None => (None, Vec::new()),
                };
                let record = told.zip(vtep).map(|((record, _), vtep)| {
                    let addresses = addresses.clone();
                    Fact::Record(number, vxlan::Record { mac, addresses, vtep, version: record.version.0 })
                });
                let answered = told.filter(|(record, _)| cluster.up.contains(&record.host));
                let name = answered.map(|(_, endpoint)| {
                    Fact::Name(number, mac, Remote { addresses, names: endpoint.names.clone() })
                });
                set(Key::Record(number, mac), record);
                set(Key::Name(number, mac), name);
            }
        }
    }
    let gone = gone.into_iter().rev().map(Change::Remove);
    gone.chain(said.into_values().map(|fact| Change::Set(fact.into()))).collect()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use vswitch_cluster::record::HostId;

    use super::*;
    use crate::cluster::fixtures::*;

    const NUMBER: NetworkId = NetworkId(7);

    /// The keys of facts that the datapath is told, `true`, or that are taken back, `false`.
    fn told(cluster: &mut Cluster) -> Vec<(bool, Key)> {
        let touched = std::mem::take(&mut cluster.touched);
        let peers = touched.peers.into_iter().map(|(_, vtep)| Late::Peer(vtep));
        let endpoints = touched.endpoints.into_iter().map(|(_, mac)| Late::Endpoint(mac));
        let changes = changes(cluster, (NETWORK, NUMBER), &peers.chain(endpoints).collect());
        changes.iter().map(|change| (matches!(change, Change::Set(_)), change.key())).collect()
    }

    fn peer(host: HostId) -> Key {
        Key::Peer(NUMBER, vtep(host))
    }

    fn record(last: u8) -> Key {
        Key::Record(NUMBER, mac(last))
    }

    fn name(last: u8) -> Key {
        Key::Name(NUMBER, mac(last))
    }

    #[test]
    fn hosts_that_subscribe_are_peers_and_names_are_of_those_that_are_up() {
        let mut cluster = cluster();
        assert_eq!(told(&mut cluster), [(true, peer(OTHER))], "and this host is none");
        for record in [endpoint(ME, 1, 1, 1), endpoint(OTHER, 2, 2, 2)] {
            assert!(cluster.take_in(record));
        }
        let expected = [(false, name(2)), (false, name(1)), (true, record(1)), (true, record(2))];
        assert_eq!(told(&mut cluster), expected);
        cluster.follow_presence(OTHER, true);
        assert_eq!(told(&mut cluster), [(true, name(2)), (true, record(2))]);
        let over = cluster.draft(RecordKey::Subscription(NETWORK, OTHER), None);
        assert!(cluster.take_in(over));
        assert_eq!(told(&mut cluster), [(false, peer(OTHER))]);
    }

    #[test]
    fn a_change_touches_what_it_is_about_in_a_cluster_of_any_size() {
        let mut cluster = cluster();
        for number in 3..=250 {
            let host = HostId::new([number; 16]);
            let vtep = IpAddr::from([192, 0, 2, number]);
            let mut other = [number; 32];
            other[0] = 0;
            let elsewhere = subscribes(host, Id::new(other));
            for record in [is_at(host, vtep, 1), subscribes(host, NETWORK), elsewhere] {
                assert!(cluster.take_in(record));
            }
            assert!(cluster.take_in(endpoint(host, number, number, 1)));
        }
        assert_eq!(told(&mut cluster).len(), 2 * 248 + 249);
        assert!(cluster.take_in(endpoint(HostId::new([9; 16]), 9, 9, 2)));
        assert_eq!(told(&mut cluster), [(false, name(9)), (true, record(9))]);
        cluster.follow_presence(HostId::new([9; 16]), true);
        assert_eq!(told(&mut cluster), [(true, name(9)), (true, record(9))]);
        let moved = IpAddr::from([192, 0, 2, 252]);
        assert!(cluster.take_in(is_at(HostId::new([9; 16]), moved, 2)));
        let before = Key::Peer(NUMBER, IpAddr::from([192, 0, 2, 9]));
        assert_eq!(told(&mut cluster), [(false, before), (true, Key::Peer(NUMBER, moved))]);
        // An endpoint counts while its host is one of the cluster.
        cluster.take_in(gone(is_at(HostId::new([9; 16]), moved, 2), 3));
        let expected = [(false, record(9)), (false, Key::Peer(NUMBER, moved)), (false, name(9))];
        assert_eq!(told(&mut cluster), expected);
        // Networks that are not made here are none of this host's business.
        let nobody = HostId::new([251; 16]);
        assert!(cluster.take_in(subscribes(nobody, Id::new([99; 32]))));
        cluster.follow_presence(nobody, true);
        assert_eq!(told(&mut cluster), []);
    }

    #[test]
    fn two_hosts_at_one_address_are_one_peer_until_the_last_has_gone() {
        let mut cluster = cluster();
        let reinstalled = HostId::new([3; 16]);
        cluster.take_in(is_at(reinstalled, vtep(OTHER), 1));
        cluster.take_in(subscribes(reinstalled, NETWORK));
        assert_eq!(told(&mut cluster), [(true, peer(OTHER))]);
        cluster.take_in(gone(subscribes(OTHER, NETWORK), 2));
        assert_eq!(told(&mut cluster), [(true, peer(OTHER))]);
        cluster.take_in(gone(subscribes(reinstalled, NETWORK), 2));
        assert_eq!(told(&mut cluster), [(false, peer(OTHER))]);
    }

    #[test]
    fn of_two_endpoints_with_one_address_the_first_is_told_and_the_other_when_that_is_gone() {
        let mut cluster = cluster();
        told(&mut cluster);
        cluster.take_in(endpoint(OTHER, 2, 5, 20));
        assert_eq!(told(&mut cluster), [(false, name(2)), (true, record(2))]);
        cluster.take_in(endpoint(OTHER, 1, 5, 10));
        let expected = [(false, record(2)), (false, name(2)), (false, name(1)), (true, record(1))];
        assert_eq!(told(&mut cluster), expected);
        cluster.take_in(gone(endpoint(OTHER, 1, 5, 10), 30));
        let expected = [(false, record(1)), (false, name(2)), (false, name(1)), (true, record(2))];
        assert_eq!(told(&mut cluster), expected);
    }

    #[test]
    fn what_others_say_of_a_network_is_known_while_it_is_here() {
        let mut cluster = cluster();
        assert!(cluster.take_in(endpoint(OTHER, 2, 2, 2)));
        cluster.forget_endpoints(NETWORK);
        assert!(cluster.known.get(&RecordKey::Endpoint(NETWORK, mac(2))).is_none());
        assert_eq!(cluster.index.all_endpoints(OTHER).count(), 0);
        cluster.here.clear();
        assert!(!cluster.take_in(endpoint(OTHER, 2, 2, 3)));
        assert!(cluster.take_in(endpoint(ME, 3, 3, 3)), "what is this host's own");
    }

    #[test]
    fn a_peer_that_is_refused_is_said_with_its_host_and_told_again_later() {
        let mut cluster = cluster();
        cluster.note_refused(NETWORK, "wide", peer(OTHER), "it is this host's own");
        assert_eq!(cluster.late[&NETWORK], [Late::Peer(vtep(OTHER))].into());
    }
}
