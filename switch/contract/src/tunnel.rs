//! Tunnels of networks that span hosts.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_frame::{GroupId, PortId};
pub use vswitch_vxlan::mtu::inner_mtu;
pub use vswitch_vxlan::{Record, UDP_PORT, Vni};

/// Everything about a network's tunnel but its sockets. It is a port without a descriptor: all tunnels share
/// sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelSpec {
    /// The port of the switch that it is.
    pub port: PortId,
    /// The isolation group it is in: that of the containers where they must not reach each other.
    pub group: GroupId,
    /// The network's identifier on the wire.
    pub vni: Vni,
    /// This host's VTEP. There must be sending sockets for it.
    pub local: IpAddr,
    /// MTU of the underlay, in bytes.
    pub underlay_mtu: u32,
    /// Whether to learn from frames which endpoint lives where, for want of records.
    pub learning: bool,
}

/// A UDP socket that tunnels share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TunnelSocket {
    /// The one that receives.
    Receiver {
        /// Its port, which is that of all VTEPs.
        port: u16,
    },
    /// One of those that send, each with a source port of its own.
    Sender {
        /// The VTEP it sends from.
        local: IpAddr,
        /// Its number among the [`TUNNEL_SENDERS`].
        index: u16,
    },
}

/// Sending sockets of each VTEP of this host.
pub const TUNNEL_SENDERS: u16 = 16;
