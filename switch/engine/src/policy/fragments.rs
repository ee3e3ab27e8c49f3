//! Fragments of datagrams that were accepted.
//!
//! # Theory of operation
//! The first fragment of a datagram shows its ports and is judged like any packet. The others show none; they
//! pass if the first of their datagram did, from the same port. [`FRAGMENTS_PER_PORT_MAX`] datagrams are
//! remembered of each port, for [`LIFE`]; the port's oldest makes room. What comes before its first fragment
//! is judged by itself, as a packet of which nothing is known but its addresses and protocol.
//!
//! A datagram whose first fragment did not pass is never whole at its receiver, so the others of it do no
//! harm; nor do others of one that passed: its first fragment holds all that rules ask for (RFC 1858, RFC
//! 3128).

use std::time::Duration;

use vswitch_frame::{Instant, PortId};

use super::packet::Tuple;
use super::rules::Scope;

/// Datagrams of a port whose later fragments pass.
pub(crate) const FRAGMENTS_PER_PORT_MAX: usize = 32;
/// The time for which they do.
const LIFE: Duration = Duration::from_secs(5);

/// A datagram: networks, addresses, protocol and identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) scope: Scope,
    /// Its ends, without ports.
    pub(super) tuple: Tuple,
    pub(super) id: u32,
}

/// The last datagrams of one port, in a ring.
#[derive(Debug, Default)]
struct Ring {
    accepted: Vec<(Datagram, Instant)>,
    next: usize,
}

/// The datagrams that were accepted, by the port their first fragments came from.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    rings: Vec<Ring>,
}

impl Fragments {
    /// Notes that the first fragment of a datagram has passed.
    pub(super) fn note(&mut self, port: PortId, datagram: Datagram, now: Instant) {
        if port.index() >= self.rings.len() {
            self.rings.resize_with(port.index() + 1, Ring::default);
        }
        let Ring { accepted, next } = &mut self.rings[port.index()];
        if accepted.len() < FRAGMENTS_PER_PORT_MAX {
            accepted.push((datagram, now));
        } else {
            accepted[*next] = (datagram, now);
            *next = (*next + 1) % FRAGMENTS_PER_PORT_MAX;
        }
    }

    /// Whether the first fragment of a datagram has passed.
    pub(super) fn has(&self, port: PortId, datagram: &Datagram, now: Instant) -> bool {
        let ring = self.rings.get(port.index()).map(|ring| ring.accepted.as_slice()).unwrap_or_default();
        ring.iter().any(|(known, at)| known == datagram && now.since(*at) < LIFE)
    }

    pub(super) fn forget_port(&mut self, port: PortId) {
        if let Some(ring) = self.rings.get_mut(port.index()) {
            *ring = Ring::default();
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.rings.clear();
    }
}
