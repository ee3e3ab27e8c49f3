//! Published ports whose clients come in at sockets of the host's, as control describes them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_frame::{Mac, NetworkId};
pub use vswitch_nat::{Binding, Protocol};

/// Sockets that are handed over at once.
pub const CHUNK: usize = vswitch_sys::seqpacket::DESCRIPTORS_MAX;

/// A kind of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// Listening sockets of TCP.
    Tcp,
    /// Bound sockets of UDP.
    Udp,
}

/// A published range of ports: one socket for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Relayed {
    /// The kind of its sockets.
    pub transport: Transport,
    /// The address of the host that they are bound to; `None` is every address of both families.
    pub host: Option<IpAddr>,
    /// The first port of the host.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// The first of as many ports of the container.
    pub container_port: u16,
}

impl Relayed {
    /// The number of its ports.
    pub fn count(&self) -> usize {
        usize::from(self.last.saturating_sub(self.first)) + 1
    }
}

/// The fate of relays that would not lead where they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Established {
    /// Both ends are reset at once.
    #[default]
    Reset,
    /// They end by themselves.
    GoOn,
}

/// An address of a container, and how to reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The container's network.
    pub network: NetworkId,
    /// The container's address.
    pub container: IpAddr,
    /// The container's MAC address.
    pub container_mac: Mac,
    /// The MAC address of the network's gateway.
    pub gateway_mac: Mac,
    /// The gateway's address of the same family.
    pub gateway: IpAddr,
    /// Length of the prefix of the container's subnet, in bits.
    pub prefix: u8,
    /// The network's MTU, in bytes.
    pub mtu: u16,
    /// Whether the container's default route leads to the gateway.
    pub keeps_client: bool,
}

/// The addresses that a published range leads to: none while its container is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// An IPv4 address of the container.
    pub v4: Option<Target>,
    /// An IPv6 address of it.
    pub v6: Option<Target>,
    /// The fate of relays that lead elsewhere.
    pub established: Established,
}
