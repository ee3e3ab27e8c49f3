//! Rules on the way of a frame that stays in its network.

use vswitch_frame::{DropReason, Frame, Instant, PortId};

use super::reject;
use super::rules::Action;
use super::track::Ends;
use crate::network::Station;
use crate::switch::Switch;
use crate::verdicts::Verdict;

impl Switch {
    /// Whether there are rules for the frames of a port. What the host sends is not their business.
    pub(crate) fn is_ruled(&self, ingress: PortId) -> bool {
        self.policy.has_rules() && self.ports.get(ingress).is_some_and(|port| port.station != Station::Host)
    }

    /// The verdict on a frame that would have this one without rules. A rejected frame becomes the
    /// answer to its sender, and why it went nowhere itself is in `answered`.
    pub(crate) fn judge(
        &mut self,
        ingress: PortId,
        frame: &mut Frame,
        verdict: Verdict,
        answered: &mut Vec<(DropReason, PortId)>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let Some(port) = self.ports.get(ingress) else { return Ok(verdict) };
        match verdict {
            Verdict::Drop(_) | Verdict::Local => return Ok(verdict),
            Verdict::Forward { .. } | Verdict::Flood | Verdict::Multicast(_) => {}
        }
        if frame.headers.is_still_tagged() {
            return Err(DropReason::TooManyTags);
        }
        let to = match verdict {
            Verdict::Forward { egress, .. } => Some(egress),
            Verdict::Flood | Verdict::Multicast(_) | Verdict::Local | Verdict::Drop(_) => None,
        };
        let ends = Ends { ingress, from: Some(ingress), to, stranger: port.station == Station::Tunnel };
        match self.policy.judge(port.network, ends, frame, &self.bindings, now) {
            Action::Accept => Ok(verdict),
            Action::Drop => Err(DropReason::Rule),
            Action::Reject => {
                let gateway = self.ports.network(port.network).and_then(|network| network.gateway.as_ref());
                let addresses = gateway.map(|gateway| gateway.addresses.as_slice()).unwrap_or_default();
                if !reject::turn_round(frame, addresses) {
                    return Err(DropReason::Rule);
                }
                answered.push((DropReason::Rule, ingress));
                Ok(Verdict::Forward { egress: ingress, mtu: usize::MAX })
            }
        }
    }
}
