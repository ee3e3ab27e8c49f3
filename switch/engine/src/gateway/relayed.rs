//! Packets of relays: what a client says at a socket of the host's, as packets for a container.

use vswitch_frame::{Frame, Instant, NetworkId, PortId};

use super::fate::Refused;
use super::outside::Entrance;
use super::packet;
use crate::policy::PublishedAs;
use crate::switch::Switch;
use crate::verdicts::{MadeError, Verdicts};

impl Switch {
    /// Takes a packet of a relay's to the station on `network` that it is for, and moves it to `forward` or
    /// `drop`; one that a rule rejects becomes the answer, in `errors`. `port` is where that is counted;
    /// `published_as` finds the published port at which the client came in, which is asked only if a rule is
    /// about it.
    ///
    /// A relay speaks for the host, which rules say nothing of, where its packets have an address of the host
    /// or of a network here; where they have another one, they are judged like what comes from outside for a
    /// published port.
    pub fn relay(
        &mut self,
        port: PortId,
        network: NetworkId,
        mut frame: Frame,
        published_as: impl FnOnce(&Frame) -> PublishedAs,
        verdicts: &mut Verdicts,
        now: Instant,
    ) {
        let (source, _) = packet::addresses(&frame);
        if self.hosts.contains(&source) || self.ports.any_subnet_contains(source) {
            self.deliver(port, network, frame, verdicts);
        } else {
            // Of what comes to nothing the relay is told only what a rule rejects; else its time-outs notice.
            let published_as =
                if self.looks_at_published_ports() { published_as(&frame) } else { PublishedAs::Unknown };
            let by = Entrance { network: Some(network), published_as };
            match self.entrance(port, by, &mut frame, now) {
                Ok(egress) => verdicts.forward.push((egress, frame)),
                Err(Refused { rejected: true, reason, .. })
                    if self.reject(Some(network), &mut frame, now) =>
                {
                    verdicts.answered.push((reason, port));
                    verdicts.errors.push(MadeError { port, network: Some(network), frame });
                }
                Err(refused) => verdicts.drop.push((refused.reason, refused.port.unwrap_or(port), frame)),
            }
        }
    }
}
