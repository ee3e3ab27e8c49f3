//! What may go from where to where: the walls between networks, the host and the world.
//!
//! One pure function. It answers for the first packet of a flow; packets of an accepted flow are
//! [`established`](Question::established) and pass, which is also how replies get back.
//!
//! # The order
//! 1. Established: accept.
//! 2. What a rule of the user's says, if it says drop or reject. Its accept only ends the search for rules.
//! 3. To a loopback binding: only from the host's loopback.
//! 4. Out of a network: an internal one has no way out, an isolated one none to the host either.
//! 5. Into a network: its own containers by the ICC switch; the host unless it is isolated; what came
//!    through a published port of the host; the rest by the gateway mode.
//! 6. Accepted packets that leave a masquerading network, or that came back into the network they are from
//!    through a published port (hairpin), get another source address.

use vswitch_frame::{DropReason, NetworkId};

use super::rules::Action;
use crate::network::{Family, GatewayMode, Network};

/// Where a packet comes from or goes to.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A container of a network.
    Network(NetworkId, &'a Network),
    /// The host itself, by one of its addresses.
    Host,
    /// The host itself, by a loopback address.
    Loopback,
    /// Anything else, behind the uplink.
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
    Translated {
        /// Whether that address of the host is a loopback address.
        loopback: bool,
    },
}

/// What is asked about a packet.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Its family.
    pub family: Family,
    /// Where it comes from.
    pub from: Place<'a>,
    /// Where it goes, after translation of its destination.
    pub to: Place<'a>,
    /// Whether it belongs to a flow that was accepted, in either direction, or is an ICMP error about one.
    pub established: bool,
    /// Whether it is ICMP or ICMPv6.
    pub icmp: bool,
    /// Whether it is for a published port.
    pub published: Published,
    /// What the first rule of the user's that matches says.
    pub user: Option<Action>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it pass as it is. Of an established flow: with whatever translation the flow has.
    Accept,
    /// Let it pass with a source address of the host's.
    AcceptMasqueraded,
    /// Drop it without a word.
    Drop(DropReason),
    /// Drop it and tell the sender.
    Reject,
}

/// Decides about a packet. See the [module](self) for the order.
pub fn decide(question: &Question<'_>) -> Verdict {
    if question.established {
        return Verdict::Accept;
    }
    match question.user {
        Some(Action::Drop) => return Verdict::Drop(DropReason::Rule),
        Some(Action::Reject) => return Verdict::Reject,
        Some(Action::Accept) | None => {}
    }
    match loopback_wall(question).or_else(|| way_out(question)).or_else(|| way_in(question)) {
        Some(reason) => Verdict::Drop(reason),
        None if is_masqueraded(question) => Verdict::AcceptMasqueraded,
        None => Verdict::Accept,
    }
}

impl Question<'_> {
    fn is_translated(&self) -> bool {
        matches!(self.published, Published::Translated { .. })
    }

    fn stays_in_its_network(&self) -> bool {
        matches!((self.from, self.to), (Place::Network(from, _), Place::Network(to, _)) if from == to)
    }
}

fn loopback_wall(question: &Question<'_>) -> Option<DropReason> {
    let bound = question.published == Published::Translated { loopback: true };
    (bound && !matches!(question.from, Place::Loopback)).then_some(DropReason::LoopbackOnly)
}

fn way_out(question: &Question<'_>) -> Option<DropReason> {
    let Place::Network(_, network) = question.from else { return None };
    if question.stays_in_its_network() {
        return None;
    }
    let isolated = network.mode(question.family) == GatewayMode::Isolated;
    let closed = match question.to {
        Place::Host | Place::Loopback => isolated,
        Place::Network(..) | Place::Outside { .. } => isolated || network.internal,
    };
    closed.then_some(DropReason::Internal)
}

fn way_in(question: &Question<'_>) -> Option<DropReason> {
    let Place::Network(_, network) = question.to else { return None };
    let mode = network.mode(question.family);
    let trusted = match question.from {
        Place::Network(..) if question.stays_in_its_network() => {
            return (!network.icc && !question.is_translated()).then_some(DropReason::Isolated);
        }
        Place::Host | Place::Loopback => {
            return (mode == GatewayMode::Isolated).then_some(DropReason::Internal);
        }
        Place::Network(..) => false,
        Place::Outside { trusted } => trusted,
    };
    if question.is_translated() {
        return None;
    }
    if network.internal {
        return Some(DropReason::Internal);
    }
    let published = question.published == Published::Direct;
    let open = match mode {
        GatewayMode::Nat => trusted && published,
        GatewayMode::NatUnprotected => true,
        GatewayMode::Routed => published || question.icmp,
        GatewayMode::Isolated => return Some(DropReason::Internal),
    };
    (!open).then_some(DropReason::Protected)
}

fn is_masqueraded(question: &Question<'_>) -> bool {
    let Place::Network(_, network) = question.from else { return false };
    if question.stays_in_its_network() {
        return question.is_translated();
    }
    let leaves = matches!(question.to, Place::Network(..) | Place::Outside { .. });
    leaves && network.masquerades(question.family)
}
