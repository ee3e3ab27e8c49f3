//! Everything that one worker has to itself.
//!
//! There is one worker. The switch is not its own: it would be the same for all workers, changed by facts
//! that each is told. Neither are translator, relays, tunnels and names: each worker would have its own
//! flows, relays and tunnels, reached by message from the others. Nothing is shared by a lock.

use vswitch_contract::counters::Counters;
use vswitch_contract::reserved::RELAY;
use vswitch_engine::Verdicts;
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::{Frame, Pool, PortId};
use vswitch_sys::packet::Vectors;

use crate::ports::{Egress, Ports};
use crate::rest::Rest;
use crate::transmit::{Transmission, Transmit};
use crate::tunnel::Tunnels;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) ports: Ports,
    pub(crate) pool: Pool,
    pub(crate) vectors: Vectors,
    pub(crate) burst: Vec<Frame>,
    pub(crate) verdicts: Verdicts,
    pub(crate) transmit: Transmit,
    pub(crate) rest: Rest,
}

impl Worker {
    /// A worker without ports. `slots` are those of its pool, `burst` the frames of its largest burst; `seed`
    /// is secret and random.
    pub(crate) fn new(slots: usize, burst: usize, seed: u64) -> Self {
        let mut ports = Ports::new();
        ports.insert(RELAY, Egress::Relay);
        Self {
            ports,
            pool: Pool::new(slots),
            vectors: Vectors::new(),
            burst: Vec::with_capacity(burst),
            verdicts: Verdicts::default(),
            transmit: Transmit::new(Coalescer::new(seed)),
            rest: Rest::default(),
        }
    }

    /// Sends frames of `burst` to each of these ports whose MTU, in bytes, they fit.
    pub(crate) fn flood_burst(
        &mut self,
        targets: &[(PortId, usize)],
        tunnels: &mut Tunnels,
        counters: &Counters,
    ) {
        let Self { ports, pool, vectors, burst, transmit, .. } = self;
        transmit.with(ports, tunnels, pool, vectors, counters).flood(burst, targets.iter().copied());
    }

    /// Returns the transmission, and the verdicts that it sends.
    pub(crate) fn transmission<'a>(
        &'a mut self,
        tunnels: &'a mut Tunnels,
        counters: &'a Counters,
    ) -> (Transmission<'a>, &'a mut Verdicts) {
        let Self { ports, pool, vectors, verdicts, transmit, .. } = self;
        (transmit.with(ports, tunnels, pool, vectors, counters), verdicts)
    }
}
