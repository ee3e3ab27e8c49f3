//! Ports of the host that control holds.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
pub use vswitch_nat::{Protocol, Wanted};

/// A port of the host that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claimed {
    /// For which protocol.
    pub protocol: Protocol,
    /// At which of the host's addresses.
    pub address: IpAddr,
    /// Which one.
    pub port: u16,
}
