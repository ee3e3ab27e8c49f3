//! The egress of every port, and the ports that have something to read.

use std::collections::VecDeque;

use vswitch_frame::{Accepts, PortId};
use vswitch_sys::device::Device;

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
    ready: bool,
}

/// The egress of every port, by identifier, and the queue of those with something to read.
///
/// Readiness is reported once (edge-triggered), so a port stays in the queue until a read found nothing.
#[derive(Debug)]
pub(crate) struct Ports {
    table: Vec<Option<Egress>>,
    ready: VecDeque<PortId>,
}

impl Port {
    pub(crate) fn new(device: Device, accepts: Accepts) -> Self {
        Self { device, accepts, ready: false }
    }
}

impl Ports {
    pub(crate) fn new() -> Self {
        Self { table: Vec::new(), ready: VecDeque::with_capacity(PortId::LIMIT) }
    }

    /// Sets the egress of a port; gives back the one it had.
    pub(crate) fn insert(&mut self, id: PortId, egress: Egress) -> Option<Egress> {
        if self.table.len() <= id.index() {
            self.table.resize_with(id.index() + 1, || None);
        }
        self.table[id.index()].replace(egress)
    }

    pub(crate) fn remove(&mut self, id: PortId) -> Option<Egress> {
        self.ready.retain(|ready| *ready != id);
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

    /// Queues a port, unless it is queued already.
    pub(crate) fn set_ready(&mut self, id: PortId) {
        if let Some(port) = self.get_mut(id)
            && !std::mem::replace(&mut port.ready, true)
        {
            self.ready.push_back(id);
        }
    }

    /// How many ports are queued.
    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Takes the port that has waited longest out of the queue.
    pub(crate) fn next_ready(&mut self) -> Option<PortId> {
        let id = self.ready.pop_front()?;
        self.get_mut(id)?.ready = false;
        Some(id)
    }
}
