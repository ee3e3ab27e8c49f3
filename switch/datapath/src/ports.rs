//! The ports of the datapath, and which of them have something to read.

use std::collections::VecDeque;

use vswitch_frame::{Accepts, PortId};
use vswitch_sys::device::Device;

/// A port: its descriptor and what its receiver takes.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) device: Device,
    pub(crate) accepts: Accepts,
    ready: bool,
}

/// Every port, by identifier, and the queue of those that are ready.
///
/// Readiness is reported once (edge-triggered), so a port stays in the queue until a read found nothing.
#[derive(Debug)]
pub(crate) struct Ports {
    table: Vec<Option<Port>>,
    ready: VecDeque<PortId>,
}

impl Ports {
    pub(crate) fn new() -> Self {
        Self { table: Vec::new(), ready: VecDeque::with_capacity(PortId::LIMIT) }
    }

    /// Puts a port in its place; gives back the one that was there.
    pub(crate) fn insert(&mut self, id: PortId, device: Device, accepts: Accepts) -> Option<Port> {
        if self.table.len() <= id.index() {
            self.table.resize_with(id.index() + 1, || None);
        }
        self.table[id.index()].replace(Port { device, accepts, ready: false })
    }

    pub(crate) fn remove(&mut self, id: PortId) -> Option<Port> {
        self.ready.retain(|ready| *ready != id);
        self.table.get_mut(id.index())?.take()
    }

    pub(crate) fn get_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.table.get_mut(id.index())?.as_mut()
    }

    /// Queues a port, unless it is queued already.
    pub(crate) fn set_ready(&mut self, id: PortId) {
        if let Some(port) = self.table.get_mut(id.index()).and_then(Option::as_mut)
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
