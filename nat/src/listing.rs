//! Flows and mappings as they are listed.

use std::net::IpAddr;
use std::time::Duration;

use vswitch_frame::Instant;

use crate::flow::{Class, Flow, Origin, Side};
use crate::limits::Timeouts;
use crate::mapping::Mapping;
use crate::tcp::{self, TcpState};
use crate::tick::Tick;
use crate::tuple::{Protocol, Realm, Tuple};

/// A flow, for a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Listed {
    /// The name of the initiator's packets when they come to us.
    pub initiator: Tuple,
    /// The name of the target's packets when they come to us: the translation, reversed.
    pub target: Tuple,
    /// How it came to be.
    pub origin: Origin,
    /// Its state.
    pub class: Class,
    /// Where its connection is, if it is one of TCP.
    pub state: Option<TcpState>,
    /// Whether the target has sent anything.
    pub answered: bool,
    /// The sandbox it is charged to.
    pub sandbox: u32,
    /// Time since its first packet.
    pub age: Duration,
    /// Time until it is forgotten, if it is not used.
    pub left: Duration,
    /// Frames from initiator and target; a super-frame is one.
    pub frames: [u32; 2],
    /// Bytes from initiator and target, from the IP header on.
    pub bytes: [u64; 2],
}

impl Listed {
    pub(crate) fn new(flow: &Flow, sandbox: u32, timeouts: &Timeouts, now: Instant) -> Self {
        let [initiator, target] = flow.tuples;
        Self {
            initiator,
            target,
            origin: flow.origin,
            class: flow.class,
            state: (initiator.protocol == Protocol::Tcp).then(|| tcp::state(flow.handshake)),
            answered: flow.seen & Side::Target.bit() != 0,
            sandbox,
            age: Tick::at(now).since(flow.born),
            left: flow.used.after(flow.class.timeout(timeouts)).instant().since(now),
            frames: flow.frames,
            bytes: flow.bytes,
        }
    }
}

/// A mapping, for a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Mapped {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where its inside is.
    pub realm: Realm,
    /// The inside end.
    pub inside: (IpAddr, u16),
    /// The outside end.
    pub outside: (IpAddr, u16),
}

impl Mapped {
    pub(crate) fn new(mapping: &Mapping) -> Self {
        Self {
            protocol: mapping.protocol,
            realm: mapping.realm,
            inside: (mapping.inside.ip(), mapping.inside_port),
            outside: (mapping.outside.ip(), mapping.outside_port),
        }
    }
}
