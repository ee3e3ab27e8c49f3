//! A model of what clients were answered: networks, and the networks that each sandbox is on.

use std::collections::{BTreeMap, BTreeSet};

/// Everything a client was told that there is: its networks, and the networks that each sandbox is on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// Networks that this client made.
    pub networks: BTreeSet<String>,
    /// Sandboxes, by name.
    pub sandboxes: BTreeMap<String, BTreeSet<String>>,
}

/// A change that a client asks for.
#[derive(Clone, Debug)]
pub enum Change {
    /// A network is made.
    MakeNetwork(String),
    /// A network is removed.
    RemoveNetwork(String),
    /// A sandbox is made on a network.
    MakeSandbox {
        /// The sandbox.
        name: String,
        /// The network.
        network: String,
    },
    /// A namespace is attached to a network.
    Attach {
        /// The sandbox.
        name: String,
        /// The network.
        network: String,
    },
    /// A sandbox is removed.
    Remove(String),
    /// A sandbox is detached.
    Detach(String),
    /// A sandbox is connected to a network.
    Connect {
        /// The sandbox.
        name: String,
        /// The network.
        network: String,
    },
    /// A sandbox is disconnected from a network.
    Disconnect {
        /// The sandbox.
        name: String,
        /// The network.
        network: String,
    },
}

impl Model {
    /// Notes that a change was made.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::MakeNetwork(name) => drop(self.networks.insert(name.clone())),
            Change::RemoveNetwork(name) => drop(self.networks.remove(name)),
            Change::MakeSandbox { name, network } | Change::Attach { name, network } => {
                self.sandboxes.insert(name.clone(), [network.clone()].into());
            }
            Change::Remove(name) | Change::Detach(name) => drop(self.sandboxes.remove(name)),
            Change::Connect { name, network } => {
                self.sandboxes.entry(name.clone()).or_default().insert(network.clone());
            }
            Change::Disconnect { name, network } => {
                self.sandboxes.entry(name.clone()).or_default().remove(network);
            }
        }
    }
}
