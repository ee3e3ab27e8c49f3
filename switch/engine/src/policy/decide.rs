//! The walls: which packets may go between networks and the world, and within a network through its gateway.
//!
//! One pure function. It answers for the first packet of a flow; packets of an accepted flow are
//! [`established`](Question::established) and pass, which is also how replies get back.
//!
//! # The order
//! 1. Established: accept.
//! 2. What a rule of the user's says, if it says drop or reject. Its accept only ends the search for rules,
//!    but see 5.
//! 3. Out of a network: an internal or isolated one has no way out.
//! 4. Into a network: its own containers by the ICC switch, nobody else where it is internal or isolated. A
//!    packet that came through a published port of the host enters whatever these say.
//! 5. From one network into another: a rule that accepts and names both opens a way.
//! 6. Else by the gateway mode.
//!
//! The host itself is no place here: it is reached through its own port of a network.

use vswitch_frame::{DropReason, NetworkId};

use super::rules::Action;
use crate::network::{Family, GatewayMode, Network};

/// A place that a packet comes from or goes to.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A container of a network.
    Network(NetworkId, &'a Network),
    /// Beyond the networks of this host.
    Outside {
        /// Whether it came in on an interface that is trusted to address containers directly.
        trusted: bool,
    },
}

/// Whether a packet is for a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// It is for none.
    No,
    /// It names the container's own address, and a port of it that is published.
    Direct,
    /// It named an address and port of the host, which stand for the container's.
    Translated,
}

/// A question about a packet.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Its family.
    pub family: Family,
    /// The place it comes from.
    pub from: Place<'a>,
    /// The place it goes to, after translation of its destination.
    pub to: Place<'a>,
    /// Whether it belongs to a flow that was accepted, in either direction, or is an ICMP error about one.
    pub established: bool,
    /// Whether it is ICMP or ICMPv6.
    pub icmp: bool,
    /// Whether it is for a published port.
    pub published: Published,
    /// The action of the first rule of the user's that matches.
    pub user: Option<Action>,
    /// Whether that rule opens a way between networks; see [`Rule::opens`](super::Rule::opens).
    pub opened: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Let it pass.
    Accept,
    /// Drop it without a word.
    Drop(DropReason),
    /// Drop it and tell the sender.
    Reject,
}

/// Decides about a packet. See the [module](self) for the order.
pub fn decide(question: &Question<'_>) -> Ruling {
    if question.established {
        return Ruling::Accept;
    }
    match question.user {
        Some(Action::Drop) => return Ruling::Drop(DropReason::Rule),
        Some(Action::Reject) => return Ruling::Reject,
        Some(Action::Accept) | None => {}
    }
    way_out(question).or_else(|| way_in(question)).map_or(Ruling::Accept, Ruling::Drop)
}

impl Question<'_> {
    fn stays_in_its_network(&self) -> bool {
        matches!((self.from, self.to), (Place::Network(from, _), Place::Network(to, _)) if from == to)
    }

    /// Whether the user has opened the wall between two networks for it.
    fn is_opened(&self) -> bool {
        let between = matches!((self.from, self.to), (Place::Network(..), Place::Network(..)));
        between && self.opened && self.user == Some(Action::Accept)
    }
}

fn way_out(question: &Question<'_>) -> Option<DropReason> {
    let Place::Network(_, network) = question.from else { return None };
    if question.stays_in_its_network() {
        return None;
    }
    let closed = network.internal || network.mode(question.family) == GatewayMode::Isolated;
    closed.then_some(DropReason::Internal)
}

fn way_in(question: &Question<'_>) -> Option<DropReason> {
    let Place::Network(_, network) = question.to else { return None };
    if question.published == Published::Translated {
        return None;
    }
    if question.stays_in_its_network() {
        return (!network.icc).then_some(DropReason::Isolated);
    }
    if network.internal || network.mode(question.family) == GatewayMode::Isolated {
        return Some(DropReason::Internal);
    }
    if question.is_opened() {
        return None;
    }
    let trusted = matches!(question.from, Place::Outside { trusted: true });
    let published = question.published == Published::Direct;
    let open = match network.mode(question.family) {
        GatewayMode::Nat => trusted && published,
        GatewayMode::NatUnprotected => true,
        GatewayMode::Routed => published || question.icmp,
        GatewayMode::Isolated => false,
    };
    (!open).then_some(DropReason::Protected)
}
