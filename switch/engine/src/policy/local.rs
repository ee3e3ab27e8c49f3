//! Rules on the way of a frame that stays in its network.

use vswitch_frame::{DropReason, Frame, Instant, PortId};

use super::reject;
use super::rules::Action;
use crate::network::Station;
use crate::switch::Switch;
use crate::verdicts::Verdict;

impl Switch {
    /// Whether there are rules for the frames of a port. What the host sends is not their business.
    pub(crate) fn is_ruled(&self, ingress: PortId) -> bool {
        self.policy.has_rules() && self.ports.get(ingress).is_some_and(|port| port.station != Station::Host)
    }

    /// The verdict on a frame that would have this one without rules. A rejected frame becomes the
    /// answer to its sender.
    pub(crate) fn judge(
        &mut self,
        ingress: PortId,
        frame: &mut Frame,
        verdict: Verdict,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let Some(port) = self.ports.get(ingress) else { return Ok(verdict) };
        match verdict {
            Verdict::Drop(_) | Verdict::Local => return Ok(verdict),
            Verdict::Forward { .. } | Verdict::Flood | Verdict::Multicast(_) => {}
        }
        match self.policy.judge(port.network, frame, now) {
            Action::Accept => Ok(verdict),
            Action::Drop => Err(DropReason::Rule),
            Action::Reject => {
                let gateway = self.ports.network(port.network).and_then(|network| network.gateway.as_ref());
                let addresses = gateway.map(|gateway| gateway.addresses.as_slice()).unwrap_or_default();
                let answered = reject::turn_round(frame, addresses);
                let back = Verdict::Forward { egress: ingress, mtu: usize::MAX };
                if answered { Ok(back) } else { Err(DropReason::Rule) }
            }
        }
    }
}
