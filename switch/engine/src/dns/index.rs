//! The names that there are, and the networks that a sandbox is on.
//!
//! Follows the ports as they come, change and go, and the endpoints of other hosts as control says them; a
//! question finds all it needs by a few lookups.

use std::collections::BTreeMap;

use std::net::IpAddr;

use vswitch_frame::{Mac, NetworkId, PortId};

use crate::network::{Remote, Station};

/// An endpoint, as its sandbox sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) priority: i32,
    pub(crate) network: NetworkId,
    pub(crate) port: PortId,
}

/// An endpoint that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// The endpoint behind a port.
    Port(PortId),
    /// The endpoint of another host with this MAC address.
    Remote(Mac),
}

/// Everything there is to look up.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: BTreeMap<NetworkId, BTreeMap<Box<[u8]>, Vec<Named>>>,
    remotes: BTreeMap<(NetworkId, Mac), Remote>,
    remote_addresses: BTreeMap<(NetworkId, IpAddr), Mac>,
    sandboxes: BTreeMap<u32, Vec<Membership>>,
}

impl Index {
    /// Takes in who is behind a port.
    pub(crate) fn add(&mut self, network: NetworkId, port: PortId, station: &Station) {
        let Station::Container(endpoint) = station else { return };
        self.add_names(network, Named::Port(port), &endpoint.names);
        let networks = self.sandboxes.entry(endpoint.sandbox).or_default();
        networks.push(Membership { priority: endpoint.priority, network, port });
        networks.sort_by_key(|membership| (std::cmp::Reverse(membership.priority), membership.network));
    }

    /// Forgets who was behind a port, which must be as it was taken in.
    pub(crate) fn remove(&mut self, network: NetworkId, port: PortId, station: &Station) {
        let Station::Container(endpoint) = station else { return };
        self.remove_names(network, Named::Port(port), &endpoint.names);
        if let Some(networks) = self.sandboxes.get_mut(&endpoint.sandbox) {
            networks.retain(|membership| membership.port != port);
            if networks.is_empty() {
                self.sandboxes.remove(&endpoint.sandbox);
            }
        }
    }

    /// Takes in an endpoint of another host, in place of what was said of it; `None` if it is gone.
    pub(crate) fn set_remote(&mut self, network: NetworkId, mac: Mac, remote: Option<Remote>) {
        if let Some(old) = self.remotes.remove(&(network, mac)) {
            self.remove_names(network, Named::Remote(mac), &old.names);
            for address in old.addresses {
                if self.remote_addresses.get(&(network, address)) == Some(&mac) {
                    self.remote_addresses.remove(&(network, address));
                }
            }
        }
        let Some(remote) = remote else { return };
        self.add_names(network, Named::Remote(mac), &remote.names);
        self.remote_addresses.extend(remote.addresses.iter().map(|address| ((network, *address), mac)));
        self.remotes.insert((network, mac), remote);
    }

    /// Forgets all endpoints of other hosts.
    pub(crate) fn forget_remotes(&mut self) {
        for (network, mac) in self.remotes.keys().copied().collect::<Vec<_>>() {
            self.set_remote(network, mac, None);
        }
    }

    /// An endpoint of another host.
    pub(crate) fn remote(&self, network: NetworkId, mac: Mac) -> Option<&Remote> {
        self.remotes.get(&(network, mac))
    }

    /// The endpoint of another host that has an address.
    pub(crate) fn remote_at(&self, network: NetworkId, address: IpAddr) -> Option<&Remote> {
        self.remote(network, *self.remote_addresses.get(&(network, address))?)
    }

    fn add_names(&mut self, network: NetworkId, who: Named, names: &[String]) {
        let known = self.names.entry(network).or_default();
        for name in lower_case(names) {
            let all = known.entry(name).or_default();
            if !all.contains(&who) {
                all.push(who);
            }
        }
    }

    fn remove_names(&mut self, network: NetworkId, who: Named, names: &[String]) {
        let Some(known) = self.names.get_mut(&network) else { return };
        for name in lower_case(names) {
            let Some(all) = known.get_mut(&name) else { continue };
            all.retain(|other| *other != who);
            if all.is_empty() {
                known.remove(&name);
            }
        }
        if known.is_empty() {
            self.names.remove(&network);
        }
    }

    /// Forgets a network with all its ports.
    pub(crate) fn remove_network(&mut self, network: NetworkId) {
        self.names.remove(&network);
        self.remotes.retain(|(of, _), _| *of != network);
        self.remote_addresses.retain(|(of, _), _| *of != network);
        self.sandboxes.retain(|_, networks| {
            networks.retain(|membership| membership.network != network);
            !networks.is_empty()
        });
    }

    /// The networks of a sandbox, in the order in which names are searched there.
    pub(crate) fn networks_of(&self, sandbox: u32) -> &[Membership] {
        self.sandboxes.get(&sandbox).map(Vec::as_slice).unwrap_or_default()
    }

    /// The endpoints of a network that have this name, which is in lower case.
    pub(crate) fn named(&self, network: NetworkId, name: &[u8]) -> &[Named] {
        self.names.get(&network).and_then(|names| names.get(name)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether nothing is known.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.sandboxes.is_empty() && self.remotes.is_empty()
    }
}

fn lower_case(names: &[String]) -> impl Iterator<Item = Box<[u8]>> {
    names.iter().map(|name| name.to_ascii_lowercase().into_bytes().into_boxed_slice())
}
