//! Questions for the translator's flows, and their answers.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vswitch_frame::NetworkId;
pub use vswitch_nat::{Listed, Protocol, Stats, TcpState, Tuple};

/// Which flows are asked for. What it does not say, it does not look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// Begun from an address in this subnet.
    pub source: Option<IpNet>,
    /// Begun to an address in this subnet.
    pub target: Option<IpNet>,
    /// Begun from this port.
    pub source_port: Option<u16>,
    /// Begun to this port.
    pub target_port: Option<u16>,
    /// In this state.
    pub state: Option<FlowState>,
    /// Charged to the sandbox of this number.
    pub sandbox: Option<u32>,
    /// Of which this network is one side.
    pub network: Option<NetworkId>,
}

/// A state that flows can be asked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowState {
    /// Where a connection of TCP is.
    Tcp(TcpState),
    /// The target has not sent anything.
    Unreplied,
    /// It makes room for no other.
    Assured,
}

/// A question for a page of flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowQuery {
    /// Which flows.
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
    /// Where the next page begins; `None` on the last one.
    pub next: Option<u32>,
}
