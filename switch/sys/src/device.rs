//! A port's descriptor: what kind it is and what it takes.

use serde::{Deserialize, Serialize};

/// What kind of descriptor a port has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// A TAP; `vnet_header` says whether frames have a virtio-net header in front (`IFF_VNET_HDR`).
    Tap {
        /// Whether they have.
        vnet_header: bool,
    },
    /// A packet socket; `vnet_header` says whether frames have a virtio-net header in front
    /// (`PACKET_VNET_HDR`).
    Packet {
        /// Whether they have.
        vnet_header: bool,
    },
}
