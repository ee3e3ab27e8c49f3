//! IGMP and MLD snooping: frames to a multicast group go to its members only (RFC 4541).
//!
//! # Theory of operation
//!
//! The switch is the querier of every network that has a gateway: it asks who has joined what, and
//! remembers the answers by port. It never gives way to another querier, since it lives by the answers.
//!
//! ```text
//!  report, leave ─► remembered ─► to ports with a router, if there are any; never to other hosts, whose
//!                                  own reports it would suppress
//!  query         ─► its port has a router for a while ─► flooded
//!  data          ─► 224.0.0.0/24 and ff02::/16: flooded, hosts need not join those aloud
//!                   else: to the group's members and to ports with a router
//! ```
//!
//! * **Who hears everything.** A tunnel; a port with a router; a new port for [`SETTLE`], in which it is
//!   asked twice, so that nothing is lost when a datapath takes the place of a dead one; and a port that is
//!   at its limit.
//! * **Families.** IPv4 is snooped where the gateway has an IPv4 address, IPv6 likewise; the other family, a
//!   network without a gateway, and what is not IP is flooded.
//! * **Leaving.** Somebody else behind the port may still be a member, so it is asked; silence for
//!   [`LEAVE`] ends the membership.
//! * **Limits.** [`MEMBERSHIPS_MAX`] in all and [`MEMBERSHIPS_PER_PORT_MAX`] at a port. What is beyond them
//!   is not remembered: the port hears everything instead.
//! * **Ageing.** A membership that is not renewed ends after [`MEMBERSHIP`] (RFC 3376, 8.4).

mod audience;
mod messages;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use vswitch_frame::{Instant, Mac, NetworkId, PortId};

use crate::network::{Network, Station};
use messages::{Asker, Claim};

/// Memberships remembered at once.
pub(crate) const MEMBERSHIPS_MAX: usize = 16_384;
/// Memberships remembered at one port.
pub(crate) const MEMBERSHIPS_PER_PORT_MAX: usize = 256;
/// The time between two general queries (RFC 3376, 8.2).
const QUERY_INTERVAL: Duration = Duration::from_secs(125);
/// The time that hosts have to answer one (RFC 3376, 8.3).
const RESPONSE: Duration = Duration::from_secs(10);
/// The time that they have to answer when something is waiting for it (RFC 3376, 8.8).
const RESPONSE_SOON: Duration = Duration::from_secs(1);
/// The time from a new port to the first query, and between that and the second.
const STARTUP_INTERVAL: Duration = Duration::from_secs(1);
/// Queries at that pace after a port was added.
const STARTUP_QUERIES: u8 = 2;
/// The time in which a new port hears everything: both queries and their answers, twice over.
const SETTLE: Duration = Duration::from_secs(6);
/// The time that a membership lasts (RFC 3376, 8.4).
const MEMBERSHIP: Duration = Duration::from_secs(2 * 125 + 10);
/// The time that it lasts after somebody left (RFC 3376, 8.8, twice).
const LEAVE: Duration = Duration::from_secs(2);
/// The time that a port has a router after a query from it (RFC 3376, 8.5).
const ROUTER: Duration = Duration::from_secs(2 * 125 + 5);
/// Queries about one group that wait to be sent; at the limit a membership ends without one.
const SPECIFIC_MAX: usize = 1024;

/// The ports that get a frame for many, among those that may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audience {
    /// The listeners.
    pub of: Listeners,
    /// Whether the host is among them, if it listens.
    pub host: bool,
}

/// The ports that listen to a frame for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listeners {
    /// Everybody.
    All,
    /// The members of a group, and routers.
    Group(IpAddr),
    /// Routers.
    Routers,
}

/// A query to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The network it is for.
    pub network: NetworkId,
    /// The ports that are asked.
    pub asked: Asked,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// The ports that a query asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Every port but the host's and tunnels, whose other ends ask for themselves.
    Containers,
    /// The host's port. It has the gateway's addresses, and would not listen to itself.
    Host,
    /// One port.
    Port(PortId),
}

/// The groups of all networks, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Snoop {
    segments: BTreeMap<NetworkId, Segment>,
    /// Memberships at each port.
    per_port: BTreeMap<PortId, usize>,
    memberships: usize,
    due: VecDeque<Due>,
    poll_at: Option<Instant>,
}

/// The groups of one network, as far as they are known.
#[derive(Debug)]
struct Segment {
    mac: Mac,
    ipv4: Option<Ipv4Addr>,
    ipv6: bool,
    /// Ports that were added since the last poll.
    fresh: Vec<PortId>,
    /// Ports that hear everything, and until when.
    hear_all: BTreeMap<PortId, Instant>,
    /// Tunnels, which hear everything: what members there are on other hosts is theirs to know.
    tunnels: Vec<PortId>,
    /// The members of each group, and until when they are.
    groups: BTreeMap<IpAddr, BTreeMap<PortId, Instant>>,
    query_at: Option<Instant>,
    startup_left: u8,
    /// Nothing ends before this.
    ends_at: Option<Instant>,
}

/// A query that is due.
#[derive(Clone, Copy, Debug)]
enum Due {
    General { network: NetworkId, ipv6: bool, asked: Asked, response: Duration },
    Specific { network: NetworkId, port: PortId, group: IpAddr },
}

impl Segment {
    /// The segment of a network, if it has a querier.
    fn new(network: &Network) -> Option<Self> {
        let gateway = network.gateway.as_ref()?;
        let ipv4 = gateway.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        Some(Self {
            mac: gateway.mac,
            ipv4,
            ipv6: gateway.addresses.iter().any(IpAddr::is_ipv6),
            fresh: Vec::new(),
            hear_all: BTreeMap::new(),
            tunnels: Vec::new(),
            groups: BTreeMap::new(),
            query_at: None,
            startup_left: 0,
            ends_at: None,
        })
    }

    fn snoops(&self, group: IpAddr) -> bool {
        if group.is_ipv4() { self.ipv4.is_some() } else { self.ipv6 }
    }

    fn members(&self, group: Option<IpAddr>) -> impl Iterator<Item = PortId> {
        let group = group.and_then(|group| self.groups.get(&group));
        let members = group.into_iter().flat_map(BTreeMap::keys);
        let members = members.filter(|port| !self.hear_all.contains_key(port)).chain(self.hear_all.keys());
        members.filter(|port| !self.tunnels.contains(port)).chain(&self.tunnels).copied()
    }

    fn hear_all(&mut self, port: PortId, until: Instant) {
        let end = self.hear_all.entry(port).or_insert(until);
        *end = until.max(*end);
        self.ends_at = Some(self.ends_at.map_or(until, |at| at.min(until)));
    }

    /// Asks new ports, asks all ports, forgets what has ended: whatever is due.
    fn poll(&mut self, id: NetworkId, now: Instant, due: &mut VecDeque<Due>) -> Vec<PortId> {
        if !self.fresh.is_empty() {
            for port in std::mem::take(&mut self.fresh) {
                self.hear_all(port, now + SETTLE);
            }
            self.startup_left = STARTUP_QUERIES;
            let soon = now + STARTUP_INTERVAL;
            self.query_at = Some(self.query_at.map_or(soon, |at| at.min(soon)));
        }
        if self.query_at.is_some_and(|at| at <= now) {
            let response = if self.startup_left > 0 { RESPONSE_SOON } else { RESPONSE };
            self.startup_left = self.startup_left.saturating_sub(1);
            let next = if self.startup_left > 0 { STARTUP_INTERVAL } else { QUERY_INTERVAL };
            self.query_at = Some(now + next);
            let families = [(false, self.ipv4.is_some()), (true, self.ipv6)];
            for (ipv6, _) in families.into_iter().filter(|(_, snooped)| *snooped) {
                for asked in [Asked::Containers, Asked::Host] {
                    due.push_back(Due::General { network: id, ipv6, asked, response });
                }
            }
        }
        if self.ends_at.is_some_and(|at| at <= now) { self.sweep(now) } else { Vec::new() }
    }

    /// Forgets what has ended; returns the ports of the memberships among that.
    fn sweep(&mut self, now: Instant) -> Vec<PortId> {
        let mut ended = Vec::new();
        self.hear_all.retain(|_, until| *until > now);
        self.groups.retain(|_, members| {
            ended.extend(members.iter().filter(|(_, until)| **until <= now).map(|(port, _)| *port));
            members.retain(|_, until| *until > now);
            !members.is_empty()
        });
        let memberships = self.groups.values().flat_map(BTreeMap::values);
        self.ends_at = memberships.chain(self.hear_all.values()).min().copied();
        ended
    }

    fn poll_at(&self) -> Option<Instant> {
        let fresh = (!self.fresh.is_empty()).then_some(Instant::ZERO);
        [fresh, self.query_at, self.ends_at].into_iter().flatten().min()
    }
}

impl Snoop {
    /// Begins to snoop on a network that has a gateway to ask from.
    pub(crate) fn add_network(&mut self, id: NetworkId, network: &Network) {
        if let Some(segment) = Segment::new(network) {
            self.segments.insert(id, segment);
        }
    }

    pub(crate) fn remove_network(&mut self, id: NetworkId) {
        if let Some(segment) = self.segments.remove(&id) {
            let ports = segment.groups.values().flat_map(BTreeMap::keys);
            ports.for_each(|port| uncount(&mut self.per_port, &mut self.memberships, *port));
        }
    }

    pub(crate) fn add_port(&mut self, id: PortId, network: NetworkId, station: &Station) {
        if let Some(segment) = self.segments.get_mut(&network) {
            if *station == Station::Tunnel {
                segment.tunnels.push(id);
                return;
            }
            segment.fresh.push(id);
            self.poll_at = Some(Instant::ZERO);
        }
    }

    pub(crate) fn remove_port(&mut self, id: PortId, network: NetworkId) {
        let Some(segment) = self.segments.get_mut(&network) else { return };
        segment.fresh.retain(|port| *port != id);
        segment.tunnels.retain(|port| *port != id);
        segment.hear_all.remove(&id);
        self.due.retain(|due| !matches!(due, Due::Specific { port, .. } if *port == id));
        self.forget_memberships(id, network);
    }

    /// Forgets what somebody behind a port has joined.
    pub(crate) fn forget_memberships(&mut self, id: PortId, network: NetworkId) {
        let Some(segment) = self.segments.get_mut(&network) else { return };
        segment.groups.retain(|_, members| {
            members.remove(&id);
            !members.is_empty()
        });
        self.memberships -= self.per_port.remove(&id).unwrap_or(0);
    }

    /// When [`poll`](Self::poll) wants to be called.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        self.poll_at
    }

    /// Lets queries become due, and forgets memberships that have ended.
    pub(crate) fn poll(&mut self, now: Instant) {
        if self.poll_at.is_none_or(|at| now < at) {
            return;
        }
        let Self { segments, per_port, memberships, due, poll_at } = self;
        for (id, segment) in segments.iter_mut() {
            let ended = segment.poll(*id, now, due);
            ended.into_iter().for_each(|port| uncount(per_port, memberships, port));
        }
        *poll_at = segments.values().filter_map(Segment::poll_at).min();
    }

    /// The next query that is due.
    fn next_query(&mut self) -> Option<Query> {
        while let Some(due) = self.due.pop_front() {
            let query = self.write(due);
            if query.is_some() {
                return query;
            }
        }
        None
    }

    /// The query that is due, unless its network is gone.
    fn write(&self, due: Due) -> Option<Query> {
        match due {
            Due::General { network, ipv6, asked, response } => {
                let segment = self.segments.get(&network)?;
                let own = segment.ipv4.filter(|_| asked != Asked::Host).unwrap_or(Ipv4Addr::UNSPECIFIED);
                let asker = Asker { mac: segment.mac, ipv4: own };
                let bytes = if ipv6 {
                    messages::mld_query(asker, None, response, QUERY_INTERVAL)
                } else {
                    messages::igmp_query(asker, None, response, QUERY_INTERVAL)
                };
                Some(Query { network, asked, bytes })
            }
            Due::Specific { network, port, group } => {
                let mac = self.segments.get(&network)?.mac;
                let asker = Asker { mac, ipv4: Ipv4Addr::UNSPECIFIED };
                let bytes = match group {
                    IpAddr::V4(group) => {
                        messages::igmp_query(asker, Some(group), RESPONSE_SOON, QUERY_INTERVAL)
                    }
                    IpAddr::V6(group) => {
                        messages::mld_query(asker, Some(group), RESPONSE_SOON, QUERY_INTERVAL)
                    }
                };
                Some(Query { network, asked: Asked::Port(port), bytes })
            }
        }
    }

    /// Notes what a host said.
    fn note(&mut self, network: NetworkId, port: PortId, claim: Claim, now: Instant) {
        match claim {
            Claim::Join(group) if is_snooped(group) => self.join(network, port, group, now),
            Claim::Leave(group) => self.leave(network, port, group, now),
            Claim::Join(_) => {}
        }
    }

    fn join(&mut self, network: NetworkId, port: PortId, group: IpAddr, now: Instant) {
        let Some(segment) = self.segments.get_mut(&network) else { return };
        let until = now + MEMBERSHIP;
        let of_port = self.per_port.entry(port).or_default();
        let members = segment.groups.get_mut(&group);
        if let Some(end) = members.and_then(|members| members.get_mut(&port)) {
            *end = until;
            return;
        }
        if *of_port >= MEMBERSHIPS_PER_PORT_MAX || self.memberships >= MEMBERSHIPS_MAX {
            segment.hear_all(port, until);
        } else {
            (*of_port, self.memberships) = (*of_port + 1, self.memberships + 1);
            segment.groups.entry(group).or_default().insert(port, until);
            segment.ends_at = Some(segment.ends_at.map_or(until, |at| at.min(until)));
        }
        self.wake(network);
    }

    fn leave(&mut self, network: NetworkId, port: PortId, group: IpAddr, now: Instant) {
        let Some(segment) = self.segments.get_mut(&network) else { return };
        let members = segment.groups.get_mut(&group);
        let Some(end) = members.and_then(|members| members.get_mut(&port)) else { return };
        let until = now + LEAVE;
        if *end <= until {
            return;
        }
        *end = until;
        segment.ends_at = Some(segment.ends_at.map_or(until, |at| at.min(until)));
        if self.due.len() < SPECIFIC_MAX {
            self.due.push_back(Due::Specific { network, port, group });
        }
        self.wake(network);
    }

    /// Wants to be polled when something of a network is due.
    fn wake(&mut self, network: NetworkId) {
        let at = self.segments.get(&network).and_then(Segment::poll_at);
        self.poll_at = [self.poll_at, at].into_iter().flatten().min();
    }
}

fn uncount(per_port: &mut BTreeMap<PortId, usize>, memberships: &mut usize, port: PortId) {
    if let Some(count) = per_port.get_mut(&port) {
        *count = count.saturating_sub(1);
        *memberships = memberships.saturating_sub(1);
        if *count == 0 {
            per_port.remove(&port);
        }
    }
}

/// Whether a group has members that say so: the others are flooded (RFC 4541, 2.1.2 and 3).
fn is_snooped(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        IpAddr::V6(group) => group.is_multicast() && group.octets()[1] & 0xf > 2,
    }
}
