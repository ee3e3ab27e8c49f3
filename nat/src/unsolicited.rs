//! Connections from outside that nobody asked for, and the six seconds before they are told so
//! (RFC 5382, REQ-4): meanwhile the inside may open the same connection, and then all is well.

use std::collections::VecDeque;
use std::time::Duration;

use vswitch_frame::Instant;

use crate::tick::Tick;
use crate::tuple::Tuple;

/// Bytes of a SYN that are kept to be quoted: an IPv6 and a TCP header.
const QUOTE: usize = 60;

/// A SYN that came in vain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Syn {
    pub(crate) tuple: Tuple,
    since: Tick,
    bytes: [u8; QUOTE],
    length: usize,
}

impl Syn {
    /// The first bytes of its IP packet.
    pub(crate) fn quote(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// SYNs that wait for an answer, oldest first.
#[derive(Debug)]
pub(crate) struct Unsolicited {
    waiting: VecDeque<Syn>,
    limit: usize,
    wait: Duration,
}

impl Unsolicited {
    pub(crate) fn new(limit: usize, wait: Duration) -> Self {
        Self { waiting: VecDeque::with_capacity(limit), limit, wait }
    }

    /// Notes one; a second of the same connection changes nothing.
    pub(crate) fn note(&mut self, tuple: Tuple, packet: &[u8], now: Instant) {
        if self.waiting.len() >= self.limit || self.waiting.iter().any(|syn| syn.tuple == tuple) {
            return;
        }
        let length = packet.len().min(QUOTE);
        let mut bytes = [0; QUOTE];
        bytes[..length].copy_from_slice(&packet[..length]);
        self.waiting.push_back(Syn { tuple, since: Tick::at(now), bytes, length });
    }

    /// The inside has opened the connection that `tuple` comes from outside for.
    pub(crate) fn forget(&mut self, tuple: &Tuple) {
        self.waiting.retain(|syn| syn.tuple != *tuple);
    }

    /// One that has waited long enough.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Syn> {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due { self.waiting.pop_front() } else { None }
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|syn| syn.since.after(self.wait).instant())
    }
}
