//! The fates of a frame for the gateway: the words that its parts answer with.

use std::net::IpAddr;

use vswitch_frame::{DropReason, NetworkId, PortId};

use super::error::Complaint;

/// The fate of a frame for the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has become the answer, for the port it came from.
    Answer,
    /// It is a question for a name.
    Names,
    /// It goes to the host, as it is.
    Host,
    /// It is to be routed to the endpoint behind this port, if it may be.
    Route(PortId),
    /// It is to leave the networks of this host, if it may.
    Outside,
    /// It is for somebody behind another interface of the host than the uplink.
    Elsewhere,
}

/// The way on of a frame for the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onward {
    /// To a port.
    To(PortId),
    /// Back to where it came from, for it has become the answer to its sender, whom a rule rejected.
    Rejected,
    /// To whoever answers questions for names.
    Names,
    /// Out of the networks of this host; see [`Outbound`](crate::Outbound).
    Outside { network: NetworkId, sandbox: u32, masqueraded: bool, address: Option<IpAddr> },
}

/// Why a frame for the gateway goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: DropReason,
    /// The port at which that is counted; `None` for the one it came from.
    pub(super) port: Option<PortId>,
    /// The error that its sender is told.
    pub(super) complaint: Option<Complaint>,
    /// Whether a rule rejected it, so that it becomes the answer to its sender.
    pub(super) rejected: bool,
}

impl From<DropReason> for Refused {
    fn from(reason: DropReason) -> Self {
        Self { reason, port: None, complaint: None, rejected: false }
    }
}

impl Refused {
    /// Drops by a rule that rejects.
    pub(super) fn rejected() -> Self {
        Self { rejected: true, ..DropReason::Rule.into() }
    }

    /// Drops, and tells the sender.
    pub(super) fn told(reason: DropReason, complaint: Complaint) -> Self {
        Self { complaint: Some(complaint), ..reason.into() }
    }
}
