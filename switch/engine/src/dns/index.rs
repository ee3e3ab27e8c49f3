//! Which names there are, and which networks a sandbox is on.
//!
//! Follows the ports as they come, change and go; a question finds all it needs by a few lookups.

use std::collections::BTreeMap;

use vswitch_frame::{NetworkId, PortId};

use crate::network::{Endpoint, Station};

/// An endpoint, as its sandbox sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) priority: i32,
    pub(crate) network: NetworkId,
    pub(crate) port: PortId,
}

/// Everything there is to look up.
#[derive(Debug, Default)]
pub(crate) struct Index {
    names: BTreeMap<NetworkId, BTreeMap<Box<[u8]>, Vec<PortId>>>,
    sandboxes: BTreeMap<u32, Vec<Membership>>,
}

impl Index {
    /// Takes in who is behind a port.
    pub(crate) fn add(&mut self, network: NetworkId, port: PortId, station: &Station) {
        let Station::Container(endpoint) = station else { return };
        let names = self.names.entry(network).or_default();
        for name in lower_case(endpoint) {
            let ports = names.entry(name).or_default();
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        let networks = self.sandboxes.entry(endpoint.sandbox).or_default();
        networks.push(Membership { priority: endpoint.priority, network, port });
        networks.sort_by_key(|membership| (std::cmp::Reverse(membership.priority), membership.network));
    }

    /// Forgets who was behind a port, which must be as it was taken in.
    pub(crate) fn remove(&mut self, network: NetworkId, port: PortId, station: &Station) {
        let Station::Container(endpoint) = station else { return };
        if let Some(names) = self.names.get_mut(&network) {
            for name in lower_case(endpoint) {
                let Some(ports) = names.get_mut(&name) else { continue };
                ports.retain(|other| *other != port);
                if ports.is_empty() {
                    names.remove(&name);
                }
            }
            if names.is_empty() {
                self.names.remove(&network);
            }
        }
        if let Some(networks) = self.sandboxes.get_mut(&endpoint.sandbox) {
            networks.retain(|membership| membership.port != port);
            if networks.is_empty() {
                self.sandboxes.remove(&endpoint.sandbox);
            }
        }
    }

    /// Forgets a network with all its ports.
    pub(crate) fn remove_network(&mut self, network: NetworkId) {
        self.names.remove(&network);
        self.sandboxes.retain(|_, networks| {
            networks.retain(|membership| membership.network != network);
            !networks.is_empty()
        });
    }

    /// The networks of a sandbox, in the order in which names are searched there.
    pub(crate) fn networks_of(&self, sandbox: u32) -> &[Membership] {
        self.sandboxes.get(&sandbox).map(Vec::as_slice).unwrap_or_default()
    }

    /// The ports of this name, which is in lower case, on a network.
    pub(crate) fn named(&self, network: NetworkId, name: &[u8]) -> &[PortId] {
        self.names.get(&network).and_then(|names| names.get(name)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether nothing is known.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.sandboxes.is_empty()
    }
}

fn lower_case(endpoint: &Endpoint) -> impl Iterator<Item = Box<[u8]>> {
    endpoint.names.iter().map(|name| name.to_ascii_lowercase().into_bytes().into_boxed_slice())
}
