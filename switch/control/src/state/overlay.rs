//! A network that spans hosts, as it is kept.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use vswitch_contract::tunnel::Vni;
use vswitch_frame::PortId;

/// The overlay of a network that spans hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// The port of the switch that is its tunnel.
    pub port: PortId,
    /// Its identifier on the wire.
    pub vni: Vni,
    /// This host's VTEP.
    pub vtep: IpAddr,
    /// The VTEPs of its other hosts, as its options name them.
    pub peers: BTreeSet<IpAddr>,
    /// Whether the cluster says who its other hosts are and who lives there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}
