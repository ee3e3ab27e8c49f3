//! Words of clients for what the datapath knows, and the refusal of others.

use vswitch_contract::network as engine;

use crate::error::{Code, Error};

pub(super) const PROTOCOLS: [(&str, engine::Protocol); 6] = [
    ("any", engine::Protocol::Any),
    ("tcp", engine::Protocol::Tcp),
    ("udp", engine::Protocol::Udp),
    ("sctp", engine::Protocol::Sctp),
    ("icmp", engine::Protocol::Icmp),
    ("icmpv6", engine::Protocol::Icmpv6),
];
pub(super) const STATES: [(&str, engine::State); 2] =
    [("new", engine::State::New), ("established", engine::State::Established)];
pub(super) const ACTIONS: [(&str, engine::Action); 3] =
    [("accept", engine::Action::Accept), ("drop", engine::Action::Drop), ("reject", engine::Action::Reject)];
pub(super) const PERIODS: [(&str, engine::Period); 4] = [
    ("second", engine::Period::Second),
    ("minute", engine::Period::Minute),
    ("hour", engine::Period::Hour),
    ("day", engine::Period::Day),
];

/// The refusal of something that makes no sense, in one line with its mend.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, message)
}
