//! Observations of the datapath and of the daemon.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vswitch_contract::counters::PortCounters;
use vswitch_frame::Mac;

/// A line of a forwarding table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FdbEntry {
    /// The network.
    pub network: String,
    /// The address.
    pub mac_address: Mac,
    /// The sandbox it is in, or `(host)`.
    pub sandbox: String,
    /// The interface it is behind, or nothing when another process made it.
    pub interface: String,
    /// The number of the port it is behind.
    pub port: u16,
    /// Whether it is known by configuration: it never ages and never moves.
    #[serde(rename = "Static")]
    pub fixed: bool,
    /// Milliseconds since a frame came from it.
    pub age_ms: u64,
}

/// Answer of `GET /stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Stats {
    /// The process that moves the frames.
    pub datapath: DatapathStats,
    /// The counters of each port.
    pub ports: Vec<PortStats>,
}

/// The process that moves the frames.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DatapathStats {
    /// Its number.
    pub pid: u32,
    /// Times it was started anew.
    pub restarts: u64,
}

/// The counters of one port.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PortStats {
    /// The sandbox behind it, or `(host)`.
    pub sandbox: String,
    /// The network it is on.
    pub network: String,
    /// The interface behind it, or nothing when another process made it.
    pub interface: String,
    /// Its number.
    pub port: u16,
    /// Frames received from it; a super-frame is one.
    pub received_frames: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Frames sent to it; a super-frame is one.
    pub sent_frames: u64,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Frames that went out as part of another one's super-frame.
    pub coalesced: u64,
    /// Super-frames split because the receiver takes none.
    pub split: u64,
    /// Source addresses not learned because a limit was reached.
    pub not_learned: u64,
    /// Flows of the port's that rules and walls had let through, forgotten since it had too many.
    pub flows_displaced: u64,
    /// Whether the interface has vanished.
    pub gone: bool,
    /// Dropped frames, by every reason there is.
    pub drops: BTreeMap<String, u64>,
}

impl PortStats {
    /// The counters of a port.
    pub fn new(
        sandbox: String,
        network: String,
        interface: String,
        port: u16,
        counters: &PortCounters,
    ) -> Self {
        let reasons = vswitch_frame::DropReason::ALL.iter().zip(&counters.drops);
        let drops = reasons.map(|(reason, count)| (reason.to_string(), *count));
        Self {
            sandbox,
            network,
            interface,
            port,
            received_frames: counters.received_frames,
            received_bytes: counters.received_bytes,
            sent_frames: counters.sent_frames,
            sent_bytes: counters.sent_bytes,
            coalesced: counters.coalesced,
            split: counters.split,
            not_learned: counters.not_learned,
            flows_displaced: counters.flows_displaced,
            gone: counters.gone,
            drops: drops.collect(),
        }
    }
}

/// Answer of `GET /version`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The version of the daemon.
    pub version: String,
    /// The kernel it runs on.
    pub kernel_version: String,
    /// `linux`.
    pub os: String,
    /// The processor.
    pub arch: String,
    /// Lines on what does not work, and what to do about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
