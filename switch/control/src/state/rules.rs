//! Rules of the user's, as they are kept.

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
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
    /// The sender's ports.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub source_ports: Vec<engine::PortRange>,
    /// The receiver's ports.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub target_ports: Vec<engine::PortRange>,
    /// The published ports of the host that it came through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published_ports: Vec<engine::PortRange>,
    /// The interface of the host that the packet comes from; many, if the name ends in `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_interface: Option<String>,
    /// The interface of the host that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_interface: Option<String>,
    /// The fields whose match is negated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not: Vec<engine::Field>,
    /// How many flows it matches in what time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<engine::Limit>,
    /// The word on it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
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
    /// The sandbox of this name, whenever there is one.
    Sandbox(String),
}

/// Ranges of ports; a journal of before has one, or none.
fn one_or_many<'de, D: Deserializer<'de>>(
    reader: D,
) -> std::result::Result<Vec<engine::PortRange>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Many(Vec<engine::PortRange>),
        One(engine::PortRange),
    }
    Ok(match Option::<Written>::deserialize(reader)? {
        None => Vec::new(),
        Some(Written::One(range)) => vec![range],
        Some(Written::Many(ranges)) => ranges,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_an_older_journal_is_read() {
        let old = r#"{"id":3,"network":"lan","from":{"Subnet":"10.1.0.0/16"},"to":null,"protocol":"Tcp",
            "source_ports":null,"target_ports":{"start":80,"end":81},"state":"New","action":"Drop"}"#;
        let rule: Rule = serde_json::from_str(old).expect("a rule");
        assert_eq!((rule.source_ports.len(), &rule.target_ports), (0, &vec![80..=81]));
        assert_eq!((rule.not.len(), rule.limit, &rule.in_interface), (0, None, &None));
        let again = serde_json::to_string(&rule).expect("text");
        assert_eq!(serde_json::from_str::<Rule>(&again).expect("a rule"), rule);
    }
}
