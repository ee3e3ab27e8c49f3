//! The origin of a question.

use vswitch_engine::Switch;
use vswitch_frame::{Instant, PortId};

/// The largest packet for a port that has just gone, in bytes: what every IPv6 link carries.
const MTU_LEAST: usize = 1280;

/// The port a question came from, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) switch: &'a Switch,
    pub(crate) ingress: PortId,
    pub(crate) now: Instant,
}

impl Origin<'_> {
    /// The largest network packet of its port, in bytes.
    pub(super) fn mtu(&self) -> usize {
        self.switch.port(self.ingress).map_or(MTU_LEAST, |port| port.mtu)
    }
}
