//! Rules of the user's: an ordered table, of which the first rule that matches decides.
//!
//! # Theory of operation
//! A rule is a list of *matches*, each about one [`Field`], and an action. A match may be negated. What a
//! rule does not say, it does not look at. It is about the packet that begins a flow; see [`State`].
//!
//! * **What cannot be known** of a packet, the ports of a fragment for one, neither matches nor fails to: a
//!   rule that lets through does not match it, a rule that holds back does, negated or not.
//! * **A limit** is looked at last: a bucket of tokens, and each flow that all else matches takes one. A rule
//!   whose bucket is empty does not match. A flow that is judged anew takes none: it was let through in its
//!   time, so a limited rule that accepts matches it still, and one that holds back does not.
//! * **A way** between two networks is opened by a rule that accepts and [names both](Rule::opens). The walls
//!   have the last word: [`decide`](super::decide).

mod limit;
mod way;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use vswitch_frame::headers::protocol;
use vswitch_frame::{Instant, NetworkId};

use super::packet::Packet;
use limit::Bucket;
pub use limit::{Limit, Period};
pub use way::PublishedAs;
pub(crate) use way::{Interfaces, Kept, Party, Scope, Way};

/// The number of SCTP (RFC 9260).
const SCTP: u8 = 132;

/// One rule. What it does not say, it does not look at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rule {
    /// The number it is known by.
    pub id: u32,
    /// Only frames into or out of this network.
    pub network: Option<NetworkId>,
    /// The packet's sender.
    pub from: End,
    /// The packet's receiver.
    pub to: End,
    /// The protocol it carries.
    pub protocol: Protocol,
    /// The sender's port: in one of these ranges; any if there are none, protocols without ports included.
    pub source_ports: Vec<Ports>,
    /// The receiver's port, a container's own if the packet goes to one; likewise.
    pub target_ports: Vec<Ports>,
    /// The published port of the host that the packet came through; any, or through none, if there are none.
    pub published_ports: Vec<Ports>,
    /// The interface of the host that it comes from.
    pub in_interface: Option<Interface>,
    /// The interface of the host that it goes to.
    pub out_interface: Option<Interface>,
    /// The fields whose match is negated.
    pub not: Vec<Field>,
    /// How many flows it matches in what time.
    pub limit: Option<Limit>,
    /// Whether it begins a flow or belongs to one. `None` is the same as [`State::New`]: a flow that was
    /// accepted goes on, and what answers it comes back.
    pub state: Option<State>,
    /// The fate of the packet.
    pub action: Action,
}

/// A field of a rule that a match is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Field {
    /// [`Rule::network`].
    Network,
    /// [`Rule::from`].
    From,
    /// [`Rule::to`].
    To,
    /// [`Rule::protocol`].
    Protocol,
    /// [`Rule::source_ports`].
    SourcePorts,
    /// [`Rule::target_ports`].
    TargetPorts,
    /// [`Rule::published_ports`].
    PublishedPorts,
    /// [`Rule::in_interface`].
    InInterface,
    /// [`Rule::out_interface`].
    OutInterface,
}

/// One end of a packet's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum End {
    /// Anybody.
    #[default]
    Any,
    /// An address in this subnet.
    Subnet(IpNet),
    /// A container of this network.
    Network(NetworkId),
    /// The sandbox of this number, on whichever of its networks.
    Sandbox(u32),
}

/// Interfaces of the host, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Interface {
    /// The name; or its beginning, if it ends in `+`.
    pub name: String,
    /// The networks whose interface on the host has such a name.
    pub networks: Vec<NetworkId>,
}

/// The protocol that a packet carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Protocol {
    /// Anything.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP.
    Icmp,
    /// ICMPv6, but for what a link needs: neighbour discovery and MLD.
    Icmpv6,
}

/// A range of ports, ends included.
pub type Ports = RangeInclusive<u16>;

/// A packet's part in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum State {
    /// It begins one.
    New,
    /// It belongs to one that was accepted and answered, or is an ICMP error about one.
    Established,
}

/// The fate of a packet that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Action {
    /// It passes the rules. The walls between networks still stand, but where the rule [opens a
    /// way](Rule::opens).
    Accept,
    /// It is dropped and counted.
    Drop,
    /// It is dropped and the sender told.
    Reject,
}

/// The traffic that a rule has decided about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Count {
    /// Frames; a super-frame is one. Those of a flow count for the rule that accepted its first.
    pub frames: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// The occasion on which rules are asked about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// It begins a flow, now.
    New(Instant),
    /// It is the first of a flow that goes on, and there are other rules now.
    Again,
    /// It belongs to a flow that was answered.
    Established,
}

/// A rule in its place.
#[derive(Debug)]
struct Line {
    rule: Rule,
    count: Count,
    bucket: Option<Bucket>,
}

/// The rules in order.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<Line>,
    has_established: bool,
    looks_at_published: bool,
}

impl Table {
    /// Puts other rules in place of these. A rule that was there before, known by its number, goes on
    /// counting, and its limit goes on as long as it is the same.
    pub(crate) fn replace(&mut self, rules: Vec<Rule>) {
        let old = std::mem::take(&mut self.lines);
        let known = |id| old.iter().find(|line| line.rule.id == id);
        self.has_established = rules.iter().any(|rule| rule.state == Some(State::Established));
        self.looks_at_published = rules.iter().any(|rule| !rule.published_ports.is_empty());
        self.lines = rules
            .into_iter()
            .map(|rule| {
                let before = known(rule.id);
                let same = before.filter(|line| line.rule.limit == rule.limit);
                let bucket = same.map_or_else(|| rule.limit.map(Bucket::new), |line| line.bucket);
                Line { count: before.map(|line| line.count).unwrap_or_default(), bucket, rule }
            })
            .collect();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether any rule asks through which published port packets came.
    pub(crate) fn looks_at_published(&self) -> bool {
        self.looks_at_published
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (u32, Count)> {
        self.lines.iter().map(|line| (line.rule.id, line.count))
    }

    /// The place of the first rule that matches, and what it says.
    pub(crate) fn first(
        &mut self,
        way: &Way<'_>,
        packet: &Packet,
        occasion: Occasion,
    ) -> Option<(usize, Action)> {
        if occasion == Occasion::Established && !self.has_established {
            return None;
        }
        let place = self.lines.iter_mut().position(|line| line.matches(way, packet, occasion))?;
        Some((place, self.lines[place].rule.action))
    }

    /// Whether the rule at a place opens a way.
    pub(crate) fn opens(&self, place: usize) -> bool {
        self.lines.get(place).is_some_and(|line| line.rule.opens())
    }

    /// Counts a frame of so many bytes for the rule at a place.
    pub(crate) fn count(&mut self, place: Option<usize>, bytes: usize) {
        if let Some(line) = place.and_then(|place| self.lines.get_mut(place)) {
            line.count.frames += 1;
            line.count.bytes += bytes as u64;
        }
    }
}

impl Line {
    fn matches(&mut self, way: &Way<'_>, packet: &Packet, occasion: Occasion) -> bool {
        let state = match occasion {
            Occasion::New(_) | Occasion::Again => State::New,
            Occasion::Established => State::Established,
        };
        self.rule.state.unwrap_or(State::New) == state
            && self.rule.matches(way, packet)
            && match (&mut self.bucket, occasion) {
                (None, _) => true,
                (Some(bucket), Occasion::New(now)) => bucket.take(now),
                (Some(_), Occasion::Again | Occasion::Established) => self.rule.action == Action::Accept,
            }
    }
}

impl Rule {
    /// A rule that says nothing but its action.
    pub fn new(id: u32, action: Action) -> Self {
        Self {
            id,
            network: None,
            from: End::Any,
            to: End::Any,
            protocol: Protocol::Any,
            source_ports: Vec::new(),
            target_ports: Vec::new(),
            published_ports: Vec::new(),
            in_interface: None,
            out_interface: None,
            not: Vec::new(),
            limit: None,
            state: None,
            action,
        }
    }

    /// Whether it opens a way from one network to another for what it matches: it accepts, and names both
    /// ends expressly, each as a network, as a sandbox, or by the whole name of a network's interface on the
    /// host. Addresses name nobody, for they may be somebody else's tomorrow; nor does a match that is
    /// negated.
    pub fn opens(&self) -> bool {
        let ends = [
            (self.from, Field::From, &self.in_interface, Field::InInterface),
            (self.to, Field::To, &self.out_interface, Field::OutInterface),
        ];
        self.action == Action::Accept
            && self.state != Some(State::Established)
            && ends.into_iter().all(|(end, field, interface, by_interface)| {
                let named = matches!(end, End::Network(_) | End::Sandbox(_)) && !self.not.contains(&field);
                let is_networks = interface.as_ref().is_some_and(Interface::is_a_networks);
                named || is_networks && !self.not.contains(&by_interface)
            })
    }

    fn matches(&self, way: &Way<'_>, packet: &Packet) -> bool {
        let (from, to) = (packet.tuple.from, packet.tuple.to);
        let has_network = |network| [way.from.network, way.to.network].contains(&Some(network));
        self.network.is_none_or(|network| self.holds(Field::Network, Some(has_network(network))))
            && self.matches_protocol(packet)
            && (self.from == End::Any || self.holds(Field::From, Some(self.from.matches(&way.from, from.0))))
            && (self.to == End::Any || self.holds(Field::To, Some(self.to.matches(&way.to, to.0))))
            && self.matches_ports(Field::SourcePorts, &self.source_ports, packet, from.1)
            && self.matches_ports(Field::TargetPorts, &self.target_ports, packet, to.1)
            && self.matches_published(way.published_as)
            && self.matches_interface(Field::InInterface, self.in_interface.as_ref(), &way.from)
            && self.matches_interface(Field::OutInterface, self.out_interface.as_ref(), &way.to)
    }

    /// Whether a match holds, of which is known whether the field is as it says, or nothing: then what lets
    /// through must not match, and what holds back must.
    fn holds(&self, field: Field, found: Option<bool>) -> bool {
        found.map_or(self.action != Action::Accept, |found| found != self.not.contains(&field))
    }

    fn matches_protocol(&self, packet: &Packet) -> bool {
        self.protocol == Protocol::Any
            || self.holds(
                Field::Protocol,
                (!packet.is_hidden).then(|| self.protocol.matches(packet.tuple.protocol)),
            )
    }

    fn matches_ports(&self, field: Field, ports: &[Ports], packet: &Packet, port: u16) -> bool {
        if ports.is_empty() {
            return true;
        }
        if !packet.is_hidden && !has_ports(packet.tuple.protocol) {
            return false;
        }
        let known = !packet.is_fragment && !packet.is_hidden;
        self.holds(field, known.then(|| is_in(ports, port)))
    }

    fn matches_published(&self, published_as: PublishedAs) -> bool {
        let ports = &self.published_ports;
        ports.is_empty()
            || match published_as {
                PublishedAs::Nothing => false,
                PublishedAs::Unknown => self.holds(Field::PublishedPorts, None),
                PublishedAs::Port(port) => self.holds(Field::PublishedPorts, Some(is_in(ports, port))),
            }
    }

    fn matches_interface(&self, field: Field, interface: Option<&Interface>, party: &Party<'_>) -> bool {
        interface.is_none_or(|interface| self.holds(field, interface.is_of(party)))
    }
}

fn is_in(ports: &[Ports], port: u16) -> bool {
    ports.iter().any(|ports| ports.contains(&port))
}

fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | SCTP)
}

impl End {
    fn matches(self, party: &Party<'_>, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Subnet(subnet) => subnet.contains(&address),
            Self::Network(id) => party.network == Some(id),
            Self::Sandbox(number) => party.sandbox == Some(number),
        }
    }
}

impl Interface {
    /// Whether it is the one interface of one network.
    fn is_a_networks(&self) -> bool {
        !self.name.ends_with('+') && self.networks.len() == 1
    }

    /// Whether an end of a packet's way is behind it; `None` if that is not known.
    fn is_of(&self, party: &Party<'_>) -> Option<bool> {
        match (party.network, party.interface) {
            (Some(network), _) => Some(self.networks.contains(&network)),
            (None, Some(name)) => Some(match self.name.strip_suffix('+') {
                Some(beginning) => name.starts_with(beginning),
                None => name == self.name,
            }),
            (None, None) => None,
        }
    }
}

impl Protocol {
    fn matches(self, number: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Tcp => number == protocol::TCP,
            Self::Udp => number == protocol::UDP,
            Self::Sctp => number == SCTP,
            Self::Icmp => number == protocol::ICMP,
            Self::Icmpv6 => number == protocol::ICMPV6,
        }
    }
}
