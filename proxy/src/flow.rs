//! A flow: two ends that talk, as the frames of a container name them.

use std::net::SocketAddr;

use vswitch_frame::NetworkId;

/// The name of a container's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) network: NetworkId,
    pub(crate) container: SocketAddr,
    /// The end that the container takes for the client.
    pub(crate) source: SocketAddr,
}
