//! Flows that are translated.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Query of `GET /flows` and `DELETE /flows`: what is said must be so. The words are those of `conntrack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    /// `tcp`, `udp`, `icmp`, `icmpv6` or `sctp`.
    pub proto: Option<String>,
    /// The address or subnet they were begun from.
    pub src: Option<String>,
    /// The address or subnet they were begun to.
    pub dst: Option<String>,
    /// The port they were begun from.
    pub sport: Option<u16>,
    /// The port they were begun to.
    pub dport: Option<u16>,
    /// A state of TCP, as `ESTABLISHED`; `UNREPLIED` or `ASSURED`.
    pub state: Option<String>,
    /// Their sandbox.
    pub sandbox: Option<String>,
    /// Their network.
    pub network: Option<String>,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Flow {
    /// Its protocol, by name.
    pub protocol: String,
    /// Its protocol, by the number in an IP header.
    pub protocol_number: u8,
    /// The state of a connection of TCP, otherwise nothing.
    pub state: String,
    /// Seconds until it is forgotten, if it is not used.
    pub timeout: u64,
    /// Packets of the side that began it.
    pub original: FlowSide,
    /// Packets in answer, as they look before they are translated back.
    pub reply: FlowSide,
    /// Whether nothing came in answer yet.
    pub unreplied: bool,
    /// Whether it makes room for no other when there is no more.
    pub assured: bool,
    /// The sandbox it is charged to, or nothing if that is gone.
    pub sandbox: String,
    /// Its network; of two, the one it was begun from.
    pub network: String,
}

/// The packets of one side of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FlowSide {
    /// The address they come from.
    pub source: IpAddr,
    /// The address they are for.
    pub destination: IpAddr,
    /// The sender's port; zero for ICMP.
    pub source_port: u16,
    /// The receiver's port; zero for ICMP.
    pub destination_port: u16,
    /// The type of ICMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// The identifier of ICMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
    /// Their number; a super-frame is one.
    pub frames: u32,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

/// Answer of `GET /flows/count`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FlowCount {
    /// Flows there are.
    pub count: usize,
    /// Flows there may be.
    pub limit: usize,
    /// Outside ports that are held for flows.
    pub ports_claimed: usize,
    /// Outside ports held for flows that no flow has.
    pub ports_free: usize,
    /// Flows that had to make room for others, since the datapath was started.
    pub evicted: u64,
    /// Flows that share a port with others because none was free.
    pub overloaded: u64,
    /// Flows that had most likely said all, and ended for another that needed their port.
    pub recycled: u64,
    /// Flows that did not begin for want of a port.
    pub refused: u64,
    /// Established flows that were not used for too long, and were reset.
    pub reset: u64,
}
