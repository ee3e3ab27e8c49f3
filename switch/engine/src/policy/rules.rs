//! Rules of the user's: an ordered table, of which the first rule that matches decides.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use vswitch_frame::NetworkId;
use vswitch_frame::headers::protocol;

use super::packet::Packet;

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
    /// The sender's port; `None` is any, protocols without ports included.
    pub source_ports: Option<Ports>,
    /// The receiver's port; likewise.
    pub target_ports: Option<Ports>,
    /// Whether it begins a flow or belongs to one. `None` is the same as [`State::New`]: a flow that was
    /// accepted goes on, and what answers it comes back.
    pub state: Option<State>,
    /// The fate of the packet.
    pub action: Action,
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
    /// It passes the rules; the walls between networks still stand.
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

/// The networks a packet comes from and goes to; `None` is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) from: Option<NetworkId>,
    pub(crate) to: Option<NetworkId>,
}

impl Scope {
    pub(crate) fn within(network: NetworkId) -> Self {
        Self { from: Some(network), to: Some(network) }
    }

    /// The scope of the way back.
    pub(crate) fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// The rules in order, each with its count.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<(Rule, Count)>,
    has_established: bool,
}

impl Table {
    /// Puts other rules in place of these. A rule that was there before, known by its number, goes on
    /// counting.
    pub(crate) fn replace(&mut self, rules: Vec<Rule>) {
        let old = std::mem::take(&mut self.lines);
        let count = |id| old.iter().find(|(rule, _)| rule.id == id).map(|(_, count)| *count);
        self.has_established = rules.iter().any(|rule| rule.state == Some(State::Established));
        self.lines = rules
            .into_iter()
            .map(|rule| {
                let count = count(rule.id).unwrap_or_default();
                (rule, count)
            })
            .collect();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (u32, Count)> {
        self.lines.iter().map(|(rule, count)| (rule.id, *count))
    }

    /// The place of the first rule that matches, and what it says.
    pub(crate) fn first(&self, scope: Scope, packet: &Packet, state: State) -> Option<(usize, Action)> {
        if state == State::Established && !self.has_established {
            return None;
        }
        let place = self.lines.iter().position(|(rule, _)| rule.matches(scope, packet, state))?;
        Some((place, self.lines[place].0.action))
    }

    /// Counts a frame of so many bytes for the rule at a place.
    pub(crate) fn count(&mut self, place: Option<usize>, bytes: usize) {
        if let Some((_, count)) = place.and_then(|place| self.lines.get_mut(place)) {
            count.frames += 1;
            count.bytes += bytes as u64;
        }
    }
}

impl Rule {
    fn matches(&self, scope: Scope, packet: &Packet, state: State) -> bool {
        let tuple = &packet.tuple;
        self.state.unwrap_or(State::New) == state
            && self.network.is_none_or(|network| [scope.from, scope.to].contains(&Some(network)))
            && self.from.matches(scope.from, tuple.from.0)
            && self.to.matches(scope.to, tuple.to.0)
            && self.matches_load(packet)
    }

    /// A packet that may carry anything is whatever it must not be, and nothing that it would have to be.
    fn matches_load(&self, packet: &Packet) -> bool {
        if packet.is_hidden {
            let asks =
                self.protocol != Protocol::Any || self.source_ports.is_some() || self.target_ports.is_some();
            return self.action != Action::Accept || !asks;
        }
        self.protocol.matches(packet.tuple.protocol) && self.matches_ports(packet)
    }

    /// The ports of a fragment are not known: what lets through must not match it, what holds back must.
    fn matches_ports(&self, packet: &Packet) -> bool {
        if self.source_ports.is_none() && self.target_ports.is_none() {
            return true;
        }
        if !matches!(packet.tuple.protocol, protocol::TCP | protocol::UDP) {
            return false;
        }
        if packet.is_fragment {
            return self.action != Action::Accept;
        }
        let within = |ports: &Option<Ports>, port| ports.as_ref().is_none_or(|ports| ports.contains(&port));
        within(&self.source_ports, packet.tuple.from.1) && within(&self.target_ports, packet.tuple.to.1)
    }
}

impl End {
    fn matches(self, network: Option<NetworkId>, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Subnet(subnet) => subnet.contains(&address),
            Self::Network(id) => network == Some(id),
        }
    }
}

impl Protocol {
    fn matches(self, number: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Tcp => number == protocol::TCP,
            Self::Udp => number == protocol::UDP,
            Self::Icmp => number == protocol::ICMP,
            Self::Icmpv6 => number == protocol::ICMPV6,
        }
    }
}
