//! A flow: two ends that talk, as the frames of a container name them.

use std::net::SocketAddr;

use vswitch_frame::NetworkId;

/// What a frame of a container's is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flow {
    pub(crate) network: NetworkId,
    pub(crate) container: SocketAddr,
    /// What the container takes for the client.
    pub(crate) source: SocketAddr,
}
