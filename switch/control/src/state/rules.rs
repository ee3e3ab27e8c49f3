//! Rules of the user's, as they are kept.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_contract::network as engine;

use crate::error::{Code, Error, Result};

/// The table of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The number of the rule added last.
    pub last: u32,
    /// The rules in order.
    pub rules: Vec<Rule>,
}

/// One rule, as it was written. What it does not say, it does not look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its number.
    pub id: u32,
    /// Only frames into or out of the network of this name.
    pub network: Option<String>,
    /// The sender of the packet.
    pub from: Option<End>,
    /// The receiver of the packet.
    pub to: Option<End>,
    /// The protocol of the packet.
    pub protocol: engine::Protocol,
    /// The sender's port.
    pub source_ports: Option<engine::PortRange>,
    /// The receiver's port.
    pub target_ports: Option<engine::PortRange>,
    /// The state: whether the packet begins a flow or belongs to one.
    pub state: Option<engine::State>,
    /// The action on the packet.
    pub action: engine::Action,
}

/// One end of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// An address in this subnet.
    Subnet(IpNet),
    /// A container of the network of this name.
    Network(String),
}

impl Rules {
    /// The place of a rule by its number.
    ///
    /// # Errors
    /// When there is none.
    pub fn place_of(&self, id: u32) -> Result<usize> {
        let place = self.rules.iter().position(|rule| rule.id == id);
        place.ok_or_else(|| {
            Error::new(Code::RuleNotFound, format!("rule {id} not found: see \"vswitch rule ls\""))
        })
    }
}

impl Rule {
    /// Whether it names a network.
    pub fn names(&self, network: &str) -> bool {
        let is_end = |end: &Option<End>| matches!(end, Some(End::Network(name)) if name == network);
        self.network.as_deref() == Some(network) || is_end(&self.from) || is_end(&self.to)
    }
}
