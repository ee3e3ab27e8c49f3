//! Driver options: what `-o KEY=VALUE` and `--driver-opt KEY=VALUE` mean.
//!
//! Keys and values are Docker's. A key below `com.docker.network.` or `vswitch.` that is not known is
//! refused with the nearest known one, since an option that is silently ignored is worse than none;
//! any other key is somebody else's and is kept as it is.

mod announcements;
mod endpoint;
mod network;
mod overlay;
mod values;

pub use announcements::Announcements;
pub use endpoint::{EndpointOptions, PortType, Sysctl};
pub use network::{BRIDGE_NAME, NetworkOptions};
pub use overlay::{OverlayOptions, PEERS, VNI, VTEP};
pub use values::{MTU, MTU_DEFAULT};
