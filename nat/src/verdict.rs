//! The fates of frames.

use std::net::IpAddr;

use vswitch_frame::{DropReason, Frame, NetworkId, PortId};

use crate::tuple::Realm;

/// The sender of a frame from inside, and what its network allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The port it came in at.
    pub port: PortId,
    /// Its network.
    pub network: NetworkId,
    /// The sandbox its flows are charged to.
    pub sandbox: u32,
    /// The fate of a flow that it begins with somebody outside.
    pub leaving: Leaving,
    /// The outside address its network leaves with; `None` for the uplink's.
    pub address: Option<IpAddr>,
}

/// The fate of a flow from inside to outside. Answers to what came in pass in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Leaving {
    /// It gets an address of the host.
    Masqueraded,
    /// It leaves with its own address: masquerade is off, or the network is routed.
    Plain,
    /// It does not leave, as from an internal network.
    Refused,
}

/// Where frames go, each with the port it came in at: one vector a fate, for one straight loop each.
///
/// Every frame handed in comes out in one of these exactly once, fragments that wait for their first one
/// later than others. MAC addresses are as they were, or zero in frames made here: who sends them knows
/// better.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// To the uplink, translated.
    pub outside: Vec<(PortId, Frame)>,
    /// To a network, translated.
    pub inside: Vec<(PortId, NetworkId, Frame)>,
    /// Not ours: to the host's own stack, as it came. A frame from the uplink is there already.
    pub host: Vec<(PortId, Frame)>,
    /// To outside as it came, from a network that leaves with its own addresses.
    pub plain: Vec<(PortId, Frame)>,
    /// Dropped, and made into an answer to its sender, with the MAC addresses swapped.
    pub answered: Vec<(PortId, DropReason, Frame)>,
    /// Dropped.
    pub dropped: Vec<(PortId, DropReason, Frame)>,
    /// Made here, and for whom.
    pub made: Vec<(Realm, Frame)>,
}

/// The fate of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Outside,
    Inside(NetworkId),
    Host,
    Plain,
    Answered(DropReason),
    Dropped(DropReason),
}

impl Fate {
    /// The fate of a translated packet.
    pub(crate) fn to(realm: Realm) -> Self {
        realm.inside().map_or(Self::Outside, Self::Inside)
    }
}

impl Verdicts {
    pub(crate) fn push(&mut self, port: PortId, fate: Fate, frame: Frame) {
        match fate {
            Fate::Outside => self.outside.push((port, frame)),
            Fate::Inside(network) => self.inside.push((port, network, frame)),
            Fate::Host => self.host.push((port, frame)),
            Fate::Plain => self.plain.push((port, frame)),
            Fate::Answered(reason) => self.answered.push((port, reason, frame)),
            Fate::Dropped(reason) => self.dropped.push((port, reason, frame)),
        }
    }
}
