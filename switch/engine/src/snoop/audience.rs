//! The ports that a multicast frame goes to, and those that a query goes to.

use vswitch_frame::{DropReason, Frame, Instant, PortId};

use super::messages::{self, Message};
use super::{Asked, Audience, Listeners, Query, ROUTER, is_snooped};
use crate::network::Station;
use crate::policy::packet::addresses;
use crate::ports::Port;
use crate::switch::Switch;
use crate::verdicts::Verdict;

impl Switch {
    /// The verdict on a frame to a group address that would be `otherwise`; notes what hosts say of groups.
    /// The frame must have been parsed.
    pub(crate) fn snoop(
        &mut self,
        ingress: PortId,
        frame: &Frame,
        otherwise: Verdict,
        now: Instant,
    ) -> Verdict {
        let Some(port) = self.ports.get(ingress) else { return otherwise };
        let network = port.network;
        let Some(segment) = self.snoop.segments.get_mut(&network) else { return otherwise };
        let destination = addresses(frame.bytes(), &frame.headers);
        let Some((_, group)) =
            destination.filter(|(_, group)| group.is_multicast() && segment.snoops(*group))
        else {
            return otherwise;
        };
        match messages::read(frame) {
            Some(Message::Query { by_router }) => {
                if by_router {
                    segment.hear_all(ingress, now + ROUTER);
                    self.snoop.wake(network);
                }
                otherwise
            }
            Some(Message::One(claim)) => {
                self.snoop.note(network, ingress, claim, now);
                self.to(ingress, Listeners::Routers, DropReason::Snooped)
            }
            Some(Message::Records(records)) => {
                records.flatten().for_each(|claim| self.snoop.note(network, ingress, claim, now));
                self.to(ingress, Listeners::Routers, DropReason::Snooped)
            }
            None if is_snooped(group) && !matches!(otherwise, Verdict::Drop(_)) => {
                self.to(ingress, Listeners::Group(group), DropReason::NoMember)
            }
            None => otherwise,
        }
    }

    fn to(&self, ingress: PortId, of: Listeners, if_none: DropReason) -> Verdict {
        let audience = Audience { of, host: true };
        let anybody = self.multicast_targets(ingress, audience).next().is_some();
        if anybody { Verdict::Multicast(audience) } else { Verdict::Drop(if_none) }
    }

    /// The ports to which a multicast frame of a port goes, with their MTU in bytes: those of
    /// [`flood_targets`](Self::flood_targets) that are its audience.
    pub fn multicast_targets(
        &self,
        ingress: PortId,
        audience: Audience,
    ) -> impl Iterator<Item = (PortId, usize)> {
        let from = self.ports.get(ingress);
        let (all, group) = match audience.of {
            Listeners::All => (true, None),
            Listeners::Group(group) => (false, Some(group)),
            Listeners::Routers => (false, None),
        };
        let everybody = all.then(|| self.ports.flood_targets(ingress)).into_iter().flatten();
        let segment = from.filter(|_| !all).and_then(|from| self.snoop.segments.get(&from.network));
        let listeners = segment.into_iter().flat_map(move |segment| segment.members(group));
        let ports = listeners.filter_map(move |id| Some((id, from?, self.ports.get(id)?)));
        let others = ports.filter(move |(id, from, to)| *id != ingress && !to.is_apart_from(from));
        let spared = from.filter(|_| !audience.host).and_then(|from| self.ports.host(from.network));
        let targets = everybody.chain(others.map(|(id, _, to)| (id, to.mtu)));
        targets.filter(move |(id, _)| Some(*id) != spared)
    }

    /// The next query of the switch's that is due; [`poll`](Self::poll) makes them due.
    pub fn next_query(&mut self) -> Option<Query> {
        self.snoop.next_query()
    }

    /// The ports that are asked by a query, with their MTU in bytes.
    pub fn query_targets(&self, query: &Query) -> impl Iterator<Item = (PortId, usize)> {
        let asked = query.asked;
        let kind = move |port: &Port| match asked {
            Asked::Containers => !matches!(port.station, Station::Host | Station::Tunnel),
            Asked::Host => port.station == Station::Host,
            Asked::Port(_) => true,
        };
        let ports = self.ports.members_where(query.network, kind);
        ports.filter(move |(id, _)| !matches!(asked, Asked::Port(port) if port != *id))
    }
}
