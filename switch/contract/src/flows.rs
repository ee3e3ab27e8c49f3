//! Questions for the translator's flows, and their answers.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_frame::NetworkId;
pub use vswitch_nat::{Listed, Protocol, Stats, TcpState, Tuple};

/// The flows that are asked for: those that have everything it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// Their protocol.
    pub protocol: Option<Protocol>,
    /// The subnet that they were begun from.
    pub source: Option<IpNet>,
    /// The subnet that they were begun to.
    pub target: Option<IpNet>,
    /// The port that they were begun from.
    pub source_port: Option<u16>,
    /// The port that they were begun to.
    pub target_port: Option<u16>,
    /// Their state.
    pub state: Option<FlowState>,
    /// The number of the sandbox that they are charged to.
    pub sandbox: Option<u32>,
    /// The network that is one side of them.
    pub network: Option<NetworkId>,
}

/// A state that flows can be asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowState {
    /// The state of a connection of TCP.
    Tcp(TcpState),
    /// The target has not sent anything.
    Unreplied,
    /// It makes room for no other.
    Assured,
}

/// A question for a page of flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowQuery {
    /// The flows that are asked for.
    pub filter: FlowFilter,
    /// The record to begin with: zero, or what the page before said is next.
    pub from: u32,
    /// Whether the flows on the page end.
    pub end: bool,
}

/// A page of flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPage {
    /// The flows; there may be none on a page that is not the last.
    pub flows: Vec<Listed>,
    /// The record that the next page begins with; `None` on the last one.
    pub next: Option<u32>,
}
