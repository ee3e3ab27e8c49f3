//! Rules on the way of a frame that stays in its network.

use vswitch_frame::{DropReason, Frame, Instant, NetworkId, PortId};

use super::packet::addresses;
use super::reject;
use super::rules::{Action, Party, Way};
use super::{Course, Ends};
use crate::bindings::Owner;
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
        let to = match verdict {
            Verdict::Drop(_) | Verdict::Local => return Ok(verdict),
            Verdict::Forward { egress, .. } => Some(egress),
            Verdict::Flood | Verdict::Multicast(_) => None,
        };
        if frame.headers.is_still_tagged() {
            return Err(DropReason::TooManyTags);
        }
        let nobody = Party { network: Some(port.network), ..Party::default() };
        let named = to.or_else(|| self.named_by(frame, port.network)).and_then(|to| self.ports.get(to));
        let way = Way::between(Party::at(port), named.map_or(nobody, Party::at));
        let ends = Ends { ingress, from: Some(ingress), to, stranger: port.station == Station::Tunnel };
        let course = Course { way, ends, bindings: &self.bindings, now };
        match self.policy.judge(&course, frame) {
            Action::Accept => Ok(verdict),
            Action::Drop => Err(DropReason::Rule),
            Action::Reject if self.turn_round(ingress, frame, now) => {
                answered.push((DropReason::Rule, ingress));
                Ok(Verdict::Forward { egress: ingress, mtu: usize::MAX })
            }
            Action::Reject => Err(DropReason::Rule),
        }
    }

    /// Makes of a frame that a rule rejected the answer to its sender at a port, within the budget of errors
    /// of the port. Returns whether there is an answer; if not, the frame is as it was.
    pub(crate) fn turn_round(&mut self, ingress: PortId, frame: &mut Frame, now: Instant) -> bool {
        let Some(network) = self.ports.get(ingress).map(|port| port.network) else { return false };
        if !self.ports.budget(ingress).is_some_and(|budget| budget.take(now)) {
            return false;
        }
        let gateway = self.ports.network(network).and_then(|network| network.gateway.as_ref());
        let addresses = gateway.map(|gateway| gateway.addresses.as_slice()).unwrap_or_default();
        reject::turn_round(frame, addresses)
    }

    /// The port of the container whose address a frame to many names, so that a frame that is sent to many
    /// does not pass rules about its receiver.
    fn named_by(&self, frame: &Frame, network: NetworkId) -> Option<PortId> {
        let (_, target) = addresses(frame.bytes(), &frame.headers)?;
        match self.bindings.find(network, target) {
            Some((home, Owner::Port(port))) if home == network => Some(port),
            Some(_) | None => None,
        }
    }
}
