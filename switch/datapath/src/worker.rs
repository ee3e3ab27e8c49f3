//! Everything that one worker has to itself.
//!
//! There is one worker. The switch is not its own: it would be the same for all workers, changed by facts
//! that each is told. Neither are translator, relays, tunnels and names: each worker would have its own
//! flows, relays and tunnels, reached by message from the others. Nothing is shared by a lock.

use vswitch_contract::counters::Counters;
use vswitch_contract::reserved::{RELAY, TUNNELS};
use vswitch_engine::{Switch, Verdicts};
use vswitch_frame::coalesce::Coalescer;
use vswitch_frame::{Frame, Pool, PortId};
use vswitch_sys::packet::Vectors;

use crate::floods::{COPIES, Floods};
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
    pub(crate) floods: Floods,
    receivers: Vec<(PortId, usize)>,
    copied: Vec<Frame>,
    pub(crate) rest: Rest,
}

impl Worker {
    /// A worker without ports. `slots` are those of its pool, `burst` the frames of its largest burst; `seed`
    /// is secret and random.
    pub(crate) fn new(slots: usize, burst: usize, seed: u64) -> Self {
        let mut ports = Ports::new();
        ports.insert(RELAY, Egress::Relay);
        ports.insert(TUNNELS, Egress::Tunnel);
        Self {
            ports,
            pool: Pool::new(slots),
            vectors: Vectors::new(),
            burst: Vec::with_capacity(burst),
            verdicts: Verdicts::default(),
            transmit: Transmit::new(Coalescer::new(seed)),
            floods: Floods::default(),
            receivers: Vec::new(),
            copied: Vec::new(),
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

    /// Makes the next copies of what a port has for many. If some are left, the port is ready for another
    /// turn.
    pub(crate) fn copy(
        &mut self,
        ingress: PortId,
        switch: &Switch,
        tunnels: &mut Tunnels,
        counters: &Counters,
    ) {
        let Self { ports, pool, vectors, transmit, floods, receivers, copied, .. } = self;
        let mut room = COPIES;
        while let Some(audience) = floods.audience(ingress) {
            receivers.clear();
            match audience {
                None => receivers.extend(switch.flood_targets(ingress)),
                Some(audience) => receivers.extend(switch.multicast_targets(ingress, audience)),
            }
            let Some(piece) = floods.piece(ingress, receivers.len(), room) else { break };
            if piece.frames == 0 {
                break;
            }
            floods.take(ingress, piece, copied);
            let those = receivers[piece.from..][..piece.receivers].iter().copied();
            transmit.with(ports, tunnels, pool, vectors, counters).copy(copied, those);
            floods.give_back(ingress, piece, receivers.len(), copied, pool);
            room = room.saturating_sub((piece.frames * piece.receivers).max(1));
            if room == 0 {
                break;
            }
        }
        floods.trim(ingress, pool, counters);
        if floods.has(ingress) {
            ports.set_ready(ingress);
        }
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
