//! What a listening socket of the host's stands for: a port of a container, and how to reach it.

use std::net::{IpAddr, SocketAddr};

use vswitch_frame::{Mac, NetworkId};

/// Where a relay leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The container's network.
    pub network: NetworkId,
    /// The address and port the container listens on.
    pub container: SocketAddr,
    /// The container's MAC address.
    pub container_mac: Mac,
    /// The MAC address of the network's gateway, the source of every frame.
    pub gateway_mac: Mac,
    /// The gateway's address of the container's family.
    pub gateway: IpAddr,
    /// Length of the prefix of the container's subnet, in bits.
    pub prefix: u8,
    /// The network's MTU.
    pub mtu: u16,
    /// Whether the container sends what is for addresses beyond its subnet to the gateway. An internal network has no
    /// default route: there every client has the gateway's address.
    pub keeps_client: bool,
}
