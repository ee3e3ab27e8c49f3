//! Connections on which names are asked.

use std::net::IpAddr;

use vswitch_frame::PortId;

/// The name of a connection outside of its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) port: PortId,
    pub(super) gateway: IpAddr,
    pub(super) number: u64,
}
