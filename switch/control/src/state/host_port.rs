//! A network's port to the host, as it is kept.

use serde::{Deserialize, Serialize};
use vswitch_frame::PortId;

/// A network's port to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The port.
    pub port: PortId,
    /// The interface in the host's namespace.
    pub interface: String,
}
