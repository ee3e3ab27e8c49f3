//! Ports of the host that control holds.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
pub use vswitch_nat::{Protocol, Wanted};

/// A port of the host that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claimed {
    /// Its protocol.
    pub protocol: Protocol,
    /// The address of the host that it is held at.
    pub address: IpAddr,
    /// Its number.
    pub port: u16,
}
