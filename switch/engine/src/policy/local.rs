//! Rules on the way of a frame that stays in its network.

use vswitch_frame::{DropReason, Frame, Instant, PortId};

use super::reject;
use super::rules::Action;
use crate::network::Station;
use crate::switch::Switch;
use crate::verdicts::Route;

impl Switch {
    /// Whether there are rules for the frames of a port. What the host sends is not their business.
    pub(crate) fn is_ruled(&self, ingress: PortId) -> bool {
        self.policy.has_rules() && self.ports.get(ingress).is_some_and(|port| port.station != Station::Host)
    }

    /// What the rules make of a frame that would take this route. A rejected frame becomes the answer to
    /// its sender.
    pub(crate) fn judge(
        &mut self,
        ingress: PortId,
        frame: &mut Frame,
        route: Route,
        now: Instant,
    ) -> Result<Route, DropReason> {
        let Some(port) = self.ports.get(ingress) else { return Ok(route) };
        match route {
            Route::Drop(_) | Route::Local => return Ok(route),
            Route::Forward { .. } | Route::Flood | Route::Multicast(_) => {}
        }
        match self.policy.judge(port.network, frame, now) {
            Action::Accept => Ok(route),
            Action::Drop => Err(DropReason::Rule),
            Action::Reject => {
                let gateway = self.ports.network(port.network).and_then(|network| network.gateway.as_ref());
                let addresses = gateway.map(|gateway| gateway.addresses.as_slice()).unwrap_or_default();
                let answered = reject::turn_round(frame, addresses);
                let back = Route::Forward { egress: ingress, mtu: usize::MAX };
                if answered { Ok(back) } else { Err(DropReason::Rule) }
            }
        }
    }
}
