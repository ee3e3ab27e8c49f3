//! Starting a contender, whichever it is.

use super::who::{Peer, Who};
use super::{Contender, bridge, docker_rules, local, outside, overlay, ovs, switch};
use crate::error::BenchError;
use crate::road::Road;

impl Contender {
    /// Sets it up and starts it.
    ///
    /// # Errors
    /// When a program it needs is not installed, or something cannot be made.
    pub fn start(who: Who) -> Result<Self, BenchError> {
        match who {
            Who::Switch(port_type) => switch::contender(port_type),
            Who::Peer(Peer::Bridge) => bridge::contender(),
            Who::Peer(Peer::DockerRules) => docker_rules::contender(),
            Who::Peer(Peer::Ovs) => ovs::contender(false),
            Who::Peer(Peer::OvsTso) => ovs::contender(true),
            Who::Peer(Peer::Kernel) => outside::kernel(Road::Masquerade),
            Who::Peer(Peer::KernelVxlan) => overlay::kernel(Road::OverlayTunnelGso),
            Who::Peer(Peer::DockerProxy) => local::kernel(None),
        }
    }
}
