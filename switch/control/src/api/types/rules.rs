//! Rules between containers.

use serde::{Deserialize, Serialize};

/// Body of `POST /rules`. A value of a field that says what is matched is negated by a `!` in front of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RuleCreate {
    /// The network that frames must go into or out of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The interface of the host that they must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_interface: Option<String>,
    /// The interface of the host that they must go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_interface: Option<String>,
    /// The subnet, address, network or sandbox that they must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The subnet, address, network or sandbox that they must go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `any`, `tcp`, `udp`, `sctp`, `icmp` or `icmpv6`; `any` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The ports that they must come from: ports and ranges of them, with commas between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<String>,
    /// The ports that they must go to: the container's own, if it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<String>,
    /// The published ports of the host that they must come through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_port: Option<String>,
    /// `new` or `established`; `new` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// How many flows it matches in a second, minute, hour or day, as in `10/second`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// How many flows it matches at once; 5 if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_burst: Option<u32>,
    /// A word on it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The rule it comes before; after all others if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u32>,
    /// `accept`, `drop` or `reject`.
    pub action: String,
}

/// Body of `POST /rules/import`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RuleImport {
    /// The output of `iptables-save` or `ip6tables-save`, with a chain `DOCKER-USER`.
    pub text: String,
    /// The rule that all come before; after all others if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u32>,
    /// Whether the rules are only shown, and none is added.
    #[serde(default)]
    pub dry_run: bool,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Rule {
    /// Its number; 0 for one that was not added.
    pub id: u32,
    /// The network it is for, or nothing.
    pub network: String,
    /// The subnet, network or sandbox of the sender, or nothing.
    pub from: String,
    /// The subnet, network or sandbox of the receiver, or nothing.
    pub to: String,
    /// The protocol.
    pub protocol: String,
    /// The sender's port or ports, or nothing.
    pub source_port: String,
    /// The receiver's port or ports, or nothing.
    pub destination_port: String,
    /// `new`, `established` or nothing.
    pub state: String,
    /// The published port or ports, or nothing.
    pub published_port: String,
    /// The interface of the sender, or nothing.
    pub in_interface: String,
    /// The interface of the receiver, or nothing.
    pub out_interface: String,
    /// How many flows it matches in a second, minute, hour or day, or nothing.
    pub limit: String,
    /// How many flows it matches at once, or 0.
    pub limit_burst: u32,
    /// The word on it, or nothing.
    pub comment: String,
    /// Whether it opens a way from one network to another.
    pub opens: bool,
    /// `accept`, `drop` or `reject`.
    pub action: String,
    /// Frames it has decided about since it was made or the datapath was started; those of a flow count for
    /// the rule that accepted its first packet.
    pub frames: u64,
    /// Bytes of those frames.
    pub bytes: u64,
}
