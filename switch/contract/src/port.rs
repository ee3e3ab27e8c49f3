//! Ports of the switch.

use serde::{Deserialize, Serialize};
use vswitch_engine::Station;
use vswitch_frame::{Accepts, GroupId, Mac, NetworkId};
pub use vswitch_sys::device::DeviceKind;

/// Everything about a port but its descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The network it belongs to.
    pub network: NetworkId,
    /// The kind of its descriptor.
    pub kind: DeviceKind,
    /// The isolation group it is in.
    pub group: GroupId,
    /// Largest network packet it takes, in bytes: 68 to 65,535.
    pub mtu: u16,
    /// The offloads that its receiver takes without our help.
    pub accepts: Accepts,
    /// Addresses that are behind it by configuration.
    pub addresses: Vec<Mac>,
    /// The station behind it.
    pub station: Station,
}
