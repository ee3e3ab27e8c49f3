//! The egress of every port.

use vswitch_frame::{Accepts, PortId};
use vswitch_sys::device::Device;

use crate::share::Shares;

/// The exit of frames for a port.
#[derive(Debug)]
pub(crate) enum Egress {
    /// A descriptor of its own.
    Device(Port),
    /// The tunnel that the port is: all tunnels share sockets.
    Tunnel,
    /// None: a relay has taken them in.
    Relay,
}

/// A port: its descriptor and what its receiver takes.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) device: Device,
    pub(crate) accepts: Accepts,
}

/// The egress of every port, by identifier, and the order in which those are served that have something to
/// read, or to be copied.
///
/// Readiness is reported once (edge-triggered), so a port stays ready until a read found nothing.
#[derive(Debug)]
pub(crate) struct Ports {
    table: Vec<Option<Egress>>,
    pub(crate) shares: Shares,
}

impl Port {
    pub(crate) fn new(device: Device, accepts: Accepts) -> Self {
        Self { device, accepts }
    }
}

impl Ports {
    pub(crate) fn new() -> Self {
        Self { table: Vec::new(), shares: Shares::new() }
    }

    /// Sets the egress of a port; gives back the one it had.
    pub(crate) fn insert(&mut self, id: PortId, egress: Egress) -> Option<Egress> {
        if self.table.len() <= id.index() {
            self.table.resize_with(id.index() + 1, || None);
        }
        self.table[id.index()].replace(egress)
    }

    pub(crate) fn remove(&mut self, id: PortId) -> Option<Egress> {
        self.shares.remove(id);
        self.table.get_mut(id.index())?.take()
    }

    pub(crate) fn egress(&mut self, id: PortId) -> Option<&mut Egress> {
        self.table.get_mut(id.index())?.as_mut()
    }

    /// The port of this identifier, if it has a descriptor.
    pub(crate) fn get_mut(&mut self, id: PortId) -> Option<&mut Port> {
        match self.egress(id)? {
            Egress::Device(port) => Some(port),
            Egress::Tunnel | Egress::Relay => None,
        }
    }

    /// Lets a port wait for its turn, unless it does already.
    pub(crate) fn set_ready(&mut self, id: PortId) {
        if self.egress(id).is_some() {
            self.shares.set_ready(id);
        }
    }
}
