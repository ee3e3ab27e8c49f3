//! Policy, which says who may talk to whom: the walls, the user's rules, and the flows both let through.
//!
//! # Theory of operation
//!
//! Two roads lead here. Frames between two containers of one network are *judged* by the user's rules alone
//! (`Policy::judge`): ICC is an isolation group and was looked at before. Packets that are routed are
//! *ruled* on (`Policy::rule`) by everything: flows, rules, then [`decide`].
//!
//! * **Without a rule** nothing of this touches a frame that stays in its network: one branch a burst.
//! * **Flows.** The rules judge the first packet of a flow. An accepted flow is remembered (`track`); what
//!   follows in either direction passes, counts for the same rule, and is shown only to rules about
//!   established flows.
//! * **Another table of rules** takes the place of the last at once. A flow accepted by an earlier table is
//!   judged anew, as its initiator's, when its next packet comes: a new rule ends old connections, from both
//!   sides.
//! * **What rules do not see:** what is not IP, neighbour discovery and group management, without which there
//!   is no network to have rules about; and what the host itself sends or gets.
//! * **Fragments.** The first of a datagram shows its ports and is judged by them, the others pass with it
//!   (`fragments`).
//! * **Hidden.** A packet that does not show what it carries may carry anything: every rule that drops or
//!   rejects matches it, whatever protocol and port the rule names, if the addresses do; one that accepts
//!   only if it names neither. No flow is found or remembered for it.
//! * **Errors.** An ICMP error belongs to the flow of the packet that it is about if it goes to who sent
//!   that, and comes from where that went: a container tells of its own flows only.
//!
//! | module | |
//! |---|---|
//! | [`decide`](mod@decide) | the walls, one pure function |
//! | [`rules`] | the table of rules |
//! | `published` | ports that may be reached at a container's own address |
//! | `local` | where they meet frames that stay in their network |
//! | `track` | flows that were accepted |
//! | `chains` | the flows of each port |
//! | `fragments` | datagrams that were accepted |
//! | `packet` | what of a frame all this looks at |
//! | `reject` | telling the sender |

mod chains;
pub mod decide;
mod fragments;
mod local;
pub(crate) mod packet;
mod published;
pub(crate) mod reject;
pub mod rules;
pub(crate) mod track;

pub use decide::{Place, Published, Question, Ruling, decide};
pub use published::PublishedPorts;
pub use rules::{
    Action, Count, End, Field, Interface, Limit, Period, Ports, Protocol, PublishedAs, Rule, State,
};

use std::net::IpAddr;

use vswitch_frame::{Frame, Instant, NetworkId, PortId};

use crate::bindings::Bindings;
use crate::network::{Family, GatewayMode, Network};
use fragments::{Datagram, Fragments};
use packet::Packet;
use rules::{Interfaces, Occasion, Scope, Table, Way};
pub(crate) use track::Ends;
use track::{Flow, Side, Tracker};

/// The user's rules, and the flows that they and the walls have let through.
#[derive(Debug)]
pub struct Policy {
    rules: Table,
    flows: Tracker,
    fragments: Fragments,
    published: published::Directory,
    interfaces: Interfaces,
    /// Counts the tables of rules there were.
    generation: u64,
}

/// The finding of rules and flows about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// It belongs to an accepted flow; this is what rules about such say.
    Established(Action),
    /// It begins one; the rule that matched, and what it says.
    New(Option<(usize, Action)>),
}

/// The standing of a flow that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is accepted still: by which rule, and whether both its ends were heard.
    Accepted { rule: Option<usize>, answered: bool },
    /// The rules there are now would not accept it: the one that does not, and what it says.
    Revoked(usize, Action),
}

impl Policy {
    /// No rules, no flows. `seed` must be secret and random.
    pub fn new(seed: u64) -> Self {
        Self {
            rules: Table::default(),
            flows: Tracker::new(seed),
            fragments: Fragments::default(),
            published: published::Directory::default(),
            interfaces: Interfaces::default(),
            generation: 0,
        }
    }

    /// Puts these rules in place of all there are.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.rules.replace(rules);
        self.fragments.forget_all();
        self.generation += 1;
    }

    /// The count of each rule, by its number.
    pub fn counts(&self) -> impl Iterator<Item = (u32, Count)> {
        self.rules.counts()
    }

    /// Whether there is any rule.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether any rule asks through which published port packets came.
    pub(crate) fn looks_at_published(&self) -> bool {
        self.rules.looks_at_published()
    }

    /// The rules' action on a frame that stays within a network.
    pub(crate) fn judge(&mut self, course: &Course<'_>, frame: &Frame) -> Action {
        let Some(packet) = Packet::of(frame) else { return Action::Accept };
        match self.find(course, &packet, frame.len()) {
            Finding::Established(action) => action,
            Finding::New(found) => {
                let action = found.map_or(Action::Accept, |(_, action)| action);
                if action == Action::Accept {
                    self.remember(course, &packet, found, false);
                }
                action
            }
        }
    }

    /// Rules on a packet that is routed from one place to another: flows, rules and walls. `frame` must
    /// have been parsed and carry IP.
    pub(crate) fn rule(
        &mut self,
        frame: &Frame,
        places: [Place<'_>; 2],
        published: Published,
        course: &Course<'_>,
    ) -> Ruling {
        let [from, to] = places;
        let Some(packet) = Packet::of(frame) else {
            let family = if frame.headers.is_ipv4() { Family::V4 } else { Family::V6 };
            let (established, icmp, user, opened) = (false, false, None, false);
            return decide(&Question { family, from, to, established, icmp, published, user, opened });
        };
        let (established, user, found) = match self.find(course, &packet, frame.len()) {
            Finding::Established(Action::Accept) => (true, None, None),
            Finding::Established(action) => (false, Some(action), None),
            Finding::New(found) => (false, found.map(|(_, action)| action), found),
        };
        let (family, icmp) = (packet.family(), packet.is_icmp());
        let opened = found.is_some_and(|(place, _)| self.rules.opens(place));
        let ruling = decide(&Question { family, from, to, established, icmp, published, user, opened });
        if !established && ruling == Ruling::Accept {
            let direct = published != Published::Translated && matches!(from, Place::Outside { .. });
            self.remember(course, &packet, found, direct);
        }
        ruling
    }

    /// Notes ports that may be reached at a container's own address.
    pub fn publish(&mut self, published: PublishedPorts) {
        self.published.add(published);
    }

    /// Forgets them, and the flows that were begun to them from elsewhere. `port` is where their address is.
    pub(crate) fn unpublish(&mut self, published: &PublishedPorts, port: Option<PortId>) {
        self.published.remove(published);
        let PublishedPorts { address, protocol, ports, .. } = published;
        port.into_iter().for_each(|port| self.flows.forget_published(port, *address, *protocol, ports));
    }

    /// Whether a packet that names a container of a network by its own address is for a published port, where
    /// that makes a difference.
    pub(crate) fn published_to(&self, frame: &Frame, to: NetworkId, network: &Network) -> Published {
        let family = if frame.headers.is_ipv4() { Family::V4 } else { Family::V6 };
        let matters = match network.mode(family) {
            GatewayMode::Routed => true,
            GatewayMode::Nat => !network.trusted.is_empty(),
            GatewayMode::NatUnprotected | GatewayMode::Isolated => false,
        };
        if !matters {
            return Published::No;
        }
        let found = Packet::of(frame).filter(|packet| {
            !packet.is_fragment && self.published.has(to, packet.tuple.to, packet.tuple.protocol)
        });
        found.map_or(Published::No, |_| Published::Direct)
    }

    /// Whether a packet that goes from a network, and a port of it, to outside answers somebody there who has
    /// named its sender by the sender's own address, or is an error about what came in so. Then it must not
    /// get another address.
    pub(crate) fn answers_directly(&mut self, network: NetworkId, port: PortId, frame: &Frame) -> bool {
        let Some(packet) = Packet::of(frame) else { return false };
        let scope = Scope { from: Some(network), to: None };
        let ends = Ends { ingress: port, from: Some(port), to: None, stranger: false };
        match packet.about {
            Some(quoted) => {
                let found = self.flows.find(scope.reversed(), &quoted);
                found.is_some_and(|(flow, side)| flow.direct && flow.may_tell(side, &packet, &quoted, &ends))
            }
            None => self.flows.find(scope, &packet.tuple).is_some_and(|(flow, _)| flow.direct),
        }
    }

    /// Forgets what is about a port: the flows that it is an end of, and its datagrams.
    pub(crate) fn forget_port(&mut self, port: PortId) {
        self.flows.forget_port(port);
        self.fragments.forget_port(port);
    }

    /// Forgets the flows that a port is an end of by an address that it does not have any more, or only now.
    pub(crate) fn forget_address(&mut self, port: PortId, address: IpAddr) {
        self.flows.forget_address(port, address);
    }

    /// Forgets what is about a network, of which there is no port any more.
    pub(crate) fn forget_network(&mut self, network: NetworkId) {
        self.published.forget_network(network);
    }

    /// The number of flows that had to be forgotten since their owner had as many as it may.
    pub(crate) fn displaced(&self) -> u64 {
        self.flows.displaced()
    }

    /// When [`poll`](Self::poll) wants to be called.
    pub fn poll_at(&self) -> Option<Instant> {
        self.flows.sweep_at()
    }

    /// Forgets idle flows.
    pub fn poll(&mut self, now: Instant) {
        self.flows.sweep(now);
    }

    /// Looks a packet up among flows, then among rules, and counts it.
    fn find(&mut self, course: &Course<'_>, packet: &Packet, bytes: usize) -> Finding {
        match self.find_flow(course, packet) {
            Some(Standing::Accepted { rule, answered }) => {
                let about = if answered {
                    self.rules.first(&course.way, packet, Occasion::Established)
                } else {
                    None
                };
                self.rules.count(about.map_or(rule, |(place, _)| Some(place)), bytes);
                let action = about.map_or(Action::Accept, |(_, action)| action);
                if action == Action::Accept {
                    self.note_datagram(course, packet);
                }
                Finding::Established(action)
            }
            Some(Standing::Revoked(place, action)) => {
                self.rules.count(Some(place), bytes);
                Finding::New(Some((place, action)))
            }
            None => {
                let found = self.rules.first(&course.way, packet, Occasion::New(course.now));
                self.rules.count(found.map(|(place, _)| place), bytes);
                Finding::New(found)
            }
        }
    }

    /// The standing of the flow that a packet belongs to, or is an ICMP error about; or of the datagram that
    /// a fragment belongs to.
    fn find_flow(&mut self, course: &Course<'_>, packet: &Packet) -> Option<Standing> {
        let Self { rules, flows, fragments, interfaces, generation, .. } = self;
        let Course { way, ends, now, .. } = course;
        if packet.is_hidden {
            return None;
        }
        if packet.is_fragment {
            let passed = fragments.has(ends.ingress, &course.datagram(packet), *now);
            return passed.then_some(Standing::Accepted { rule: None, answered: false });
        }
        if let Some(quoted) = packet.about {
            // The error goes back to where the packet it is about came from.
            let (flow, side) = flows.find(way.scope().reversed(), &quoted)?;
            let current = flow.generation == *generation;
            let belongs = current && flow.may_tell(side, packet, &quoted, ends);
            return belongs.then_some(Standing::Accepted { rule: flow.rule, answered: true });
        }
        let (flow, side) = flows.find(way.scope(), &packet.tuple)?;
        if side == Side::Target && packet.is_opening() {
            return None;
        }
        flow.touch(side, packet, *now);
        if flow.generation != *generation {
            let first = Packet { tuple: flow.tuple, ..*packet };
            // Its initiator's packets may tell more now than when it began.
            let began = if side == Side::Initiator { *way } else { interfaces.way(flow.scope, &flow.kept) };
            let found = rules.first(&began, &first, Occasion::Again);
            if let Some((place, action @ (Action::Drop | Action::Reject))) = found {
                // Remembered on, so that its target does not pass for the initiator of another flow.
                return Some(Standing::Revoked(place, action));
            }
            let opened = found.is_some_and(|(place, _)| rules.opens(place));
            if flow.kept.opened && !opened {
                // The walls are asked about it as about any other now.
                return None;
            }
            match side {
                Side::Initiator => flow.kept = interfaces.keep(way, opened),
                Side::Target => flow.kept.opened = opened,
            }
            (flow.rule, flow.generation) = (found.map(|(place, _)| place), *generation);
        }
        Some(Standing::Accepted { rule: flow.rule, answered: flow.is_established(side) })
    }

    /// Remembers the flow that an accepted packet begins.
    fn remember(
        &mut self,
        course: &Course<'_>,
        packet: &Packet,
        found: Option<(usize, Action)>,
        direct: bool,
    ) {
        if packet.is_fragment || packet.is_hidden {
            return;
        }
        self.note_datagram(course, packet);
        if packet.has_one_receiver() && packet.about.is_none() {
            let rule = found.map(|(place, _)| place);
            let ends = Ends { to: course.target(packet), ..course.ends };
            let mut flow = Flow::new(course.way.scope(), ends, packet, rule, self.generation, course.now);
            let opened = rule.is_some_and(|place| self.rules.opens(place));
            (flow.kept, flow.direct) = (self.interfaces.keep(&course.way, opened), direct);
            self.flows.insert(flow);
        }
    }

    /// Lets the other fragments of an accepted datagram pass.
    fn note_datagram(&mut self, course: &Course<'_>, packet: &Packet) {
        if packet.is_first_fragment {
            self.fragments.note(course.ends.ingress, course.datagram(packet), course.now);
        }
    }
}

/// The course of a packet: all that policy asks about beside the packet itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course<'a> {
    /// Its way, as rules see it.
    pub(crate) way: Way<'a>,
    /// The ports of its ends.
    pub(crate) ends: Ends,
    pub(crate) bindings: &'a Bindings,
    pub(crate) now: Instant,
}

impl Course<'_> {
    /// The port of a packet's target: the one that has its address, else the one that it goes to.
    fn target(&self, packet: &Packet) -> Option<PortId> {
        let network = self.way.scope().to;
        let owner = network.and_then(|network| self.bindings.port_of(network, packet.tuple.to.0));
        owner.or(self.ends.to)
    }

    fn datagram(&self, packet: &Packet) -> Datagram {
        Datagram { scope: self.way.scope(), tuple: packet.bare_tuple(), id: packet.datagram }
    }
}
