//! The ports and networks that there are, and who floods to whom.
//!
//! # Theory of operation
//!
//! Ports and networks are found by index. A network keeps a dense list of its members with all that
//! flooding needs, and each port knows its place in that list, so that a port comes and goes in constant
//! time however many there are, and a flood reads the members of one network and nothing else.

use std::net::IpAddr;
use std::sync::Arc;

use vswitch_frame::{GroupId, Mac, NetworkId, PortId};

use crate::gateway::budget::Budget;
use crate::gateway::schedule::Schedule;
use crate::network::{Network, Station};
use crate::prefixes::Prefixes;
use crate::refusal::Refusal;
use crate::security::Guard;

/// A port to be: everything the switch must know about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The network it belongs to.
    pub network: NetworkId,
    /// Its isolation group: it sends nothing to other ports of the same group.
    pub group: GroupId,
    /// Largest network packet it takes, in bytes.
    pub mtu: usize,
    /// Addresses that are behind it by configuration: they never age or move, and no other port may
    /// send from them. One given twice counts once.
    pub addresses: Vec<Mac>,
    /// The station behind it.
    pub station: Station,
}

impl Port {
    /// Whether nothing goes between this port and another one of its network: they are in one group, or are a
    /// tunnel and the host. Each host of a network is its gateway, with the same addresses, and speaks to its
    /// own containers only.
    #[inline]
    pub(crate) fn is_apart_from(&self, other: &Port) -> bool {
        self.group == other.group || self.is_edge() && other.is_edge()
    }

    /// Whether it is a tunnel or the host's port.
    #[inline]
    pub(crate) fn is_edge(&self) -> bool {
        matches!(self.station, Station::Host | Station::Tunnel)
    }
}

/// A port as its network lists it.
#[derive(Clone, Copy, Debug)]
struct Member {
    port: PortId,
    group: GroupId,
    mtu: usize,
}

/// A network that is there, with its members.
#[derive(Debug)]
struct Segment {
    network: Network,
    members: Vec<Member>,
    host: Option<PortId>,
    schedule: Schedule,
}

impl Segment {
    fn new(network: Network) -> Self {
        Self { network, members: Vec::new(), host: None, schedule: Schedule::default() }
    }

    /// Notes whether the host is behind a port.
    fn set_host(&mut self, port: PortId, station: &Station) {
        match station {
            Station::Host => self.host = Some(port),
            Station::Unknown | Station::Container(_) | Station::Tunnel if self.host == Some(port) => {
                self.host = None;
            }
            Station::Unknown | Station::Container(_) | Station::Tunnel => {}
        }
    }
}

/// A port that is there, with its place among the members of its network.
#[derive(Debug)]
struct Place {
    port: Port,
    member: usize,
    guard: Option<Arc<Guard>>,
    /// Errors that may still be told there.
    budget: Budget,
}

/// The reach of a frame that has to be flooded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// There is a port to flood to.
    Some,
    /// There are other ports, all of them in the sender's group.
    Isolated,
    /// There is no other port.
    Alone,
}

/// The ports and networks of a switch.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    places: Vec<Option<Place>>,
    networks: Vec<Option<Segment>>,
    /// The subnets of all networks.
    subnets: Prefixes<()>,
}

impl Ports {
    pub(crate) fn add_network(&mut self, id: NetworkId, network: Network) -> Result<(), Refusal> {
        if id.index() >= NetworkId::LIMIT {
            return Err(Refusal::NetworkLimit(id));
        }
        let slot = slot(&mut self.networks, id.index());
        if slot.is_some() {
            return Err(Refusal::NetworkExists(id));
        }
        *slot = Some(Segment::new(network));
        self.gather_subnets();
        Ok(())
    }

    fn gather_subnets(&mut self) {
        let networks = self.networks.iter().flatten().map(|segment| &segment.network);
        self.subnets = networks.flat_map(|network| &network.subnets).map(|subnet| (*subnet, ())).collect();
    }

    /// Removes a network with its ports, and returns them.
    pub(crate) fn remove_network(&mut self, id: NetworkId) -> Vec<PortId> {
        let segment = self.networks.get_mut(id.index()).and_then(Option::take);
        let members = segment.map(|segment| segment.members).unwrap_or_default();
        for member in &members {
            self.places[member.port.index()] = None;
        }
        self.gather_subnets();
        members.into_iter().map(|member| member.port).collect()
    }

    /// Whether [`add`](Self::add) would succeed.
    pub(crate) fn check(&self, id: PortId, network: NetworkId) -> Result<(), Refusal> {
        if id.index() >= PortId::LIMIT {
            return Err(Refusal::PortLimit(id));
        }
        if self.get(id).is_some() {
            return Err(Refusal::PortExists(id));
        }
        if self.members(network).is_none() {
            return Err(Refusal::NetworkUnknown(network));
        }
        Ok(())
    }

    /// Adds a port.
    pub(crate) fn add(&mut self, id: PortId, port: Port) -> Result<(), Refusal> {
        self.check(id, port.network)?;
        let network = port.network;
        let segment = self.networks.get_mut(network.index()).and_then(Option::as_mut);
        let segment = segment.ok_or(Refusal::NetworkUnknown(network))?;
        segment.set_host(id, &port.station);
        let member = segment.members.len();
        segment.members.push(Member { port: id, group: port.group, mtu: port.mtu });
        let guard = Guard::new(&segment.network, &port.addresses, &port.station).map(Arc::new);
        *slot(&mut self.places, id.index()) = Some(Place { port, member, guard, budget: Budget::default() });
        Ok(())
    }

    /// Removes a port and returns what it was.
    pub(crate) fn remove(&mut self, id: PortId) -> Option<Port> {
        let Place { port, member, .. } = self.places.get_mut(id.index())?.take()?;
        let segment = self.networks.get_mut(port.network.index())?.as_mut()?;
        segment.set_host(id, &Station::Unknown);
        let members = &mut segment.members;
        members.swap_remove(member);
        if let Some(moved) = members.get(member)
            && let Some(place) = &mut self.places[moved.port.index()]
        {
            place.member = member;
        }
        Some(port)
    }

    /// Says anew who is behind a port, and answers who was; `None` when there is no such port.
    pub(crate) fn set_station(&mut self, id: PortId, station: Station) -> Option<Station> {
        let Place { port, guard, .. } = self.places.get_mut(id.index())?.as_mut()?;
        let segment = self.networks.get_mut(port.network.index())?.as_mut()?;
        segment.set_host(id, &station);
        *guard = Guard::new(&segment.network, &port.addresses, &station).map(Arc::new);
        Some(std::mem::replace(&mut port.station, station))
    }

    /// Says the MTU of a port; whether there is one.
    pub(crate) fn set_mtu(&mut self, id: PortId, mtu: usize) -> bool {
        let Some(Place { port, member, .. }) = self.places.get_mut(id.index()).and_then(Option::as_mut)
        else {
            return false;
        };
        port.mtu = mtu;
        if let Some(Some(segment)) = self.networks.get_mut(port.network.index()) {
            segment.members[*member].mtu = mtu;
        }
        true
    }

    /// The guard of a port, if it has one.
    pub(crate) fn guard(&self, id: PortId) -> Option<Arc<Guard>> {
        self.places.get(id.index())?.as_ref()?.guard.clone()
    }

    #[inline]
    pub(crate) fn get(&self, id: PortId) -> Option<&Port> {
        self.places.get(id.index())?.as_ref().map(|place| &place.port)
    }

    fn members(&self, network: NetworkId) -> Option<&[Member]> {
        self.networks.get(network.index())?.as_ref().map(|segment| segment.members.as_slice())
    }

    /// A network, as control described it.
    pub(crate) fn network(&self, id: NetworkId) -> Option<&Network> {
        self.networks.get(id.index())?.as_ref().map(|segment| &segment.network)
    }

    /// The port of the host on a network.
    #[inline]
    pub(crate) fn host(&self, network: NetworkId) -> Option<PortId> {
        self.networks.get(network.index())?.as_ref()?.host
    }

    /// The budget of errors that a port is told.
    pub(crate) fn budget(&mut self, id: PortId) -> Option<&mut Budget> {
        self.places.get_mut(id.index())?.as_mut().map(|place| &mut place.budget)
    }

    /// The schedule of each network with a router, by which it is told of it.
    pub(crate) fn schedules(&mut self) -> impl Iterator<Item = (NetworkId, &mut Schedule)> {
        let networks = (0..).zip(&mut self.networks);
        let segments = networks.filter_map(|(id, segment)| Some((NetworkId(id), segment.as_mut()?)));
        let advertised = segments.filter(|(_, segment)| segment.network.advertises_router());
        advertised.map(|(id, segment)| (id, &mut segment.schedule))
    }

    /// The ports of a network that satisfy a condition, with their MTU.
    pub(crate) fn members_where(
        &self,
        network: NetworkId,
        condition: impl Fn(&Port) -> bool,
    ) -> impl Iterator<Item = (PortId, usize)> {
        let members = self.members(network).unwrap_or_default().iter();
        let wanted = members.filter(move |member| self.get(member.port).is_some_and(&condition));
        wanted.map(|member| (member.port, member.mtu))
    }

    /// Whether any network has a subnet that contains an address.
    pub(crate) fn any_subnet_contains(&self, address: IpAddr) -> bool {
        self.subnets.contain(address)
    }

    /// The other ports of the sender's network that it is not kept apart from, with their MTU.
    pub(crate) fn flood_targets(&self, sender: PortId) -> impl Iterator<Item = (PortId, usize)> {
        let from = self.get(sender);
        let group = from.map(|port| port.group);
        let members = from.and_then(|port| self.members(port.network)).unwrap_or_default();
        let is_edge = from.is_some_and(Port::is_edge);
        let others = members.iter().filter(move |member| {
            let apart = is_edge && self.get(member.port).is_some_and(Port::is_edge);
            member.port != sender && Some(member.group) != group && !apart
        });
        others.map(|member| (member.port, member.mtu))
    }

    /// Whether there are other ports on a network than these two.
    pub(crate) fn has_others(&self, port: PortId, host: PortId) -> bool {
        let members = self.get(port).and_then(|port| self.members(port.network)).unwrap_or_default();
        members.iter().any(|member| ![port, host].contains(&member.port))
    }

    /// The reach of a frame of this sender that has to be flooded.
    pub(crate) fn reach(&self, sender: PortId) -> Reach {
        if self.flood_targets(sender).next().is_some() {
            return Reach::Some;
        }
        let members = self.get(sender).and_then(|port| self.members(port.network)).unwrap_or_default();
        if members.len() > 1 { Reach::Isolated } else { Reach::Alone }
    }
}

/// The slot at an index, after making the table long enough.
fn slot<T>(slots: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if index >= slots.len() {
        slots.resize_with(index + 1, || None);
    }
    &mut slots[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId(3);

    fn ports(groups: &[u32]) -> Ports {
        let mut ports = Ports::default();
        ports.add_network(NETWORK, Network::default()).expect("a new network");
        for (id, group) in (0..).zip(groups) {
            let port = Port { network: NETWORK, group: GroupId(*group), mtu: 1500, ..Port::default() };
            ports.add(PortId(id), port).expect("a new port");
        }
        ports
    }

    fn targets(ports: &Ports, sender: u16) -> Vec<u16> {
        let mut targets: Vec<u16> = ports.flood_targets(PortId(sender)).map(|(port, _)| port.0).collect();
        targets.sort_unstable();
        targets
    }

    #[test]
    fn removal_keeps_every_other_port_in_its_place() {
        for first in 0..5 {
            for second in 0..5 {
                let mut ports = ports(&[0, 1, 2, 3, 4]);
                assert!(ports.remove(PortId(first)).is_some());
                assert_eq!(ports.remove(PortId(second)).is_some(), first != second);
                for sender in (0..5).filter(|id| ![first, second].contains(id)) {
                    let rest: Vec<u16> = (0..5).filter(|id| ![first, second, sender].contains(id)).collect();
                    assert_eq!(targets(&ports, sender), rest);
                }
                assert_eq!(targets(&ports, first), []);
            }
        }
    }

    #[test]
    fn reach_tells_alone_from_isolated() {
        assert_eq!(ports(&[7]).reach(PortId(0)), Reach::Alone);
        assert_eq!(ports(&[7, 7]).reach(PortId(0)), Reach::Isolated);
        assert_eq!(ports(&[7, 7, 8]).reach(PortId(0)), Reach::Some);
        assert_eq!(ports(&[7, 7]).reach(PortId(9)), Reach::Alone);
    }

    #[test]
    fn a_network_takes_its_ports_with_it() {
        let mut ports = ports(&[0, 1]);
        ports.add_network(NetworkId(0), Network::default()).expect("a new network");
        assert_eq!(ports.remove_network(NETWORK), [PortId(0), PortId(1)]);
        assert!(ports.get(PortId(0)).is_none() && ports.get(PortId(1)).is_none());
        assert_eq!(ports.remove_network(NETWORK), []);
        assert_eq!(
            ports.add_network(NetworkId(0), Network::default()),
            Err(Refusal::NetworkExists(NetworkId(0)))
        );
    }

    #[test]
    fn limits_refuse() {
        let mut ports = ports(&[0]);
        let port = || Port { network: NETWORK, group: GroupId(1), mtu: 1500, ..Port::default() };
        let (network, id) = (NetworkId(1024), PortId(4096));
        assert_eq!(ports.add_network(network, Network::default()), Err(Refusal::NetworkLimit(network)));
        assert_eq!(ports.add(id, port()), Err(Refusal::PortLimit(id)));
        assert_eq!(ports.add(PortId(0), port()), Err(Refusal::PortExists(PortId(0))));
        let nowhere = Port { network: NetworkId(9), ..port() };
        assert_eq!(ports.add(PortId(1), nowhere), Err(Refusal::NetworkUnknown(NetworkId(9))));
        assert!(ports.add(PortId(4095), port()).is_ok());
    }
}
