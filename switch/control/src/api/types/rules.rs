//! Rules between containers.

use serde::{Deserialize, Serialize};

/// Body of `POST /rules`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RuleCreate {
    /// The network that frames must go into or out of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The subnet, address or network that they must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The subnet, address or network that they must go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// `any`, `tcp`, `udp`, `icmp` or `icmpv6`; `any` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The port or range of ports that they must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<String>,
    /// The port or range of ports that they must go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<String>,
    /// `new` or `established`; `new` if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The rule it comes before; after all others if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u32>,
    /// `accept`, `drop` or `reject`.
    pub action: String,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rule {
    /// Its number.
    pub id: u32,
    /// The network it is for, or nothing.
    pub network: String,
    /// The subnet or network of the sender, or nothing.
    pub from: String,
    /// The subnet or network of the receiver, or nothing.
    pub to: String,
    /// The protocol.
    pub protocol: String,
    /// The sender's port or ports, or nothing.
    pub source_port: String,
    /// The receiver's port or ports, or nothing.
    pub destination_port: String,
    /// `new`, `established` or nothing.
    pub state: String,
    /// `accept`, `drop` or `reject`.
    pub action: String,
    /// Frames it has decided about since it was made or the datapath was started; those of a flow count for
    /// the rule that accepted its first packet.
    pub frames: u64,
    /// Bytes of those frames.
    pub bytes: u64,
}
