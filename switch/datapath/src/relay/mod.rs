//! Relays join the switch, the proxy and the sockets that hold published ports.
//!
//! # Theory of operation
//! ```text
//!  a socket of the host's ─► accept ─► proxy ─► frames ─► engine ─► container's port
//!  a container's frame for its gateway ─► engine ─► the proxy's? ─► proxy ─► a socket of the host's
//! ```
//! Control hands over one socket for each published port, which it holds, too: a port stays published while
//! either of the two processes lives. The proxy is a port of the switch in nothing but its counters: its
//! frames are those of the gateways. A frame for a relay is taken before it is routed, since its destination
//! may be any client's address.
//!
//! A published port that leads nowhere, because its container is away, resets its clients.
//!
//! Each connection takes a descriptor. At [`LEFT_PART`] less than all that this process may have there are as
//! many relays as there may be, and they are shared as at any other limit of theirs; so there are always some
//! left.

mod hand_over;
mod sockets;
mod targets;

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use vswitch_contract::counters::{Counter, Counters};
use vswitch_contract::reserved::RELAY;
use vswitch_engine::{MadeError, Switch, Verdicts};
use vswitch_frame::{DropReason, Frame, Instant, NetworkId, Pool, PortId};
use vswitch_proxy::{Limits, Proxy, Token};
use vswitch_sys::poll::Poller;
use vswitch_sys::stream::Stream;

use crate::ready::{RELAYS_FROM, number_of};
use sockets::Sockets;

/// Connections accepted at one socket before the next socket's turn.
const ACCEPTED: usize = 64;
/// Listening sockets that have their turn before the rest of the loop has.
const LISTENERS: usize = 16;
/// The part of all descriptors that relays leave to everything else: one of so many.
const LEFT_PART: usize = 16;
/// How long a listening socket at which nothing could be accepted is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// Every relay, and the sockets at which their clients come in.
#[derive(Debug)]
pub(crate) struct Relays {
    proxy: Proxy,
    sockets: Sockets,
    /// Listening sockets where connections may wait, by number.
    ready: VecDeque<usize>,
    /// Listening sockets at which none could be accepted, and when they are tried again.
    stuck: Vec<usize>,
    again_at: Option<Instant>,
    /// Frames for containers that have not entered the switch yet.
    out: Vec<(NetworkId, Frame)>,
    /// The most descriptors that this process may have.
    descriptors: usize,
    /// The most relays there are descriptors for, where that is known.
    most: Option<usize>,
}

impl Relays {
    /// No relay yet. `seed` is secret and random; `descriptors` is how many this process may have.
    pub(crate) fn new(seed: u64, descriptors: usize) -> Self {
        Self {
            proxy: Proxy::new(Limits::default(), seed),
            sockets: Sockets::default(),
            ready: VecDeque::new(),
            stuck: Vec::new(),
            again_at: None,
            out: Vec::new(),
            descriptors,
            most: None,
        }
    }

    /// Frames that wait to enter the switch.
    pub(crate) fn held(&self) -> usize {
        self.out.len()
    }

    /// When [`work`](Self::work) is due.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        [self.proxy.poll_at(), self.again_at].into_iter().flatten().min()
    }

    /// Whether there is something to do at once.
    pub(crate) fn is_pressed(&self, now: Instant) -> bool {
        let due = self.poll_at().is_some_and(|at| at <= now);
        due || !self.ready.is_empty() || !self.out.is_empty()
    }

    /// Notes that a descriptor became ready. It may be closed since.
    pub(crate) fn set_ready(&mut self, number: usize, now: Instant) {
        let Some(nth) = number.checked_sub(RELAYS_FROM) else { return };
        if nth % 2 == 0 {
            self.proxy.ready(Token((nth / 2) as u64), now);
        } else if !self.ready.contains(&number) {
            self.ready.push_back(number);
        }
    }

    /// Takes those of a container's frames for its gateway that belong to relays. They are counted, and go to
    /// [`RELAY`], which is nowhere.
    pub(crate) fn take(
        &mut self,
        ingress: PortId,
        switch: &Switch,
        verdicts: &mut Verdicts,
        pool: &mut Pool,
        counters: &Counters,
        now: Instant,
    ) {
        let counts = self.proxy.counts();
        if verdicts.local.is_empty() || counts.relays + counts.sessions == 0 {
            return;
        }
        let Self { proxy, out, .. } = self;
        let is_relays = |frame: &mut Frame| {
            let sender = switch.sender(ingress, frame);
            sender.is_some_and(|(network, _)| proxy.from_container(network, frame, pool, out, now))
        };
        let Verdicts { local, forward, .. } = verdicts;
        for frame in local.extract_if(.., is_relays) {
            counters.add(RELAY, Counter::SentFrames, 1);
            counters.add(RELAY, Counter::SentBytes, frame.len() as u64);
            forward.push((RELAY, frame));
        }
    }

    /// Accepts clients, does what is due, and has the frames for containers enter the switch. Says whether
    /// there were any.
    pub(crate) fn work(
        &mut self,
        switch: &mut Switch,
        verdicts: &mut Verdicts,
        pool: &mut Pool,
        counters: &Counters,
        poller: &Poller,
        now: Instant,
    ) -> bool {
        let full = self.proxy.counts().full;
        self.accept(pool, poller, now);
        self.proxy.work(pool, &mut self.out, now);
        counters.drop(RELAY, DropReason::RelayFull, self.proxy.counts().full - full);
        let worked = !self.out.is_empty();
        let sockets = &self.sockets;
        for (network, frame) in self.out.drain(..) {
            counters.add(RELAY, Counter::ReceivedFrames, 1);
            counters.add(RELAY, Counter::ReceivedBytes, frame.len() as u64);
            let published_as = |frame: &Frame| sockets.published_as(network, frame);
            switch.relay(RELAY, network, frame, published_as, verdicts, now);
        }
        self.hear_rejections(verdicts, pool, now);
        worked
    }

    /// Hands relays the answers of rules that reject what they sent.
    fn hear_rejections(&mut self, verdicts: &mut Verdicts, pool: &mut Pool, now: Instant) {
        let Self { proxy, out, .. } = self;
        let Verdicts { errors, forward, drop, .. } = verdicts;
        for MadeError { network, frame, .. } in errors.drain(..) {
            let network = network.unwrap_or_default();
            if proxy.from_container(network, &frame, pool, out, now) {
                forward.push((RELAY, frame));
            } else {
                drop.push((DropReason::Rule, RELAY, frame));
            }
        }
    }

    fn accept(&mut self, pool: &mut Pool, poller: &Poller, now: Instant) {
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            self.ready.extend(self.stuck.drain(..));
        }
        for _ in 0..self.ready.len().min(LISTENERS) {
            let Some(number) = self.ready.pop_front() else { return };
            self.accept_at(number, pool, poller, now);
        }
    }

    fn accept_at(&mut self, number: usize, pool: &mut Pool, poller: &Poller, now: Instant) {
        for _ in 0..ACCEPTED {
            let Some((socket, bindings)) = self.sockets.listening(number) else { return };
            match Stream::accept(socket) {
                Ok((stream, client)) => match bindings.of(client.ip()) {
                    Some(binding) => {
                        self.heed_descriptors(&stream);
                        let Self { proxy, out, .. } = self;
                        if let Ok(token) = proxy.tcp_accepted(binding, stream, client, pool, out, now) {
                            self.wait_for(token, poller);
                        }
                    }
                    None => stream.reset(),
                },
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.stuck.push(number);
                    self.again_at.get_or_insert(now + PAUSE);
                    return;
                }
            }
        }
        self.ready.push_back(number);
    }

    /// Lets there be as many relays as there are descriptors for. How many that is shows when a connection
    /// has a number past those for relays, for the kernel gives the lowest number that is free; and it holds
    /// until there are clearly fewer.
    fn heed_descriptors(&mut self, stream: &Stream) {
        let (number, relays) = (stream.as_fd().as_raw_fd(), self.proxy.counts().relays);
        let past = self.descriptors - self.descriptors / LEFT_PART;
        if usize::try_from(number).is_ok_and(|number| number >= past) {
            self.most = Some(relays);
        } else if self.most.is_some_and(|most| relays < most - most / LEFT_PART || most == 0) {
            self.most = None;
        }
        self.proxy.set_most(self.most.unwrap_or(usize::MAX));
    }

    /// Waits for a connection. Without that it could not be relayed.
    fn wait_for(&mut self, token: Token, poller: &Poller) {
        let waits = self.proxy.descriptor(token).is_some_and(|descriptor| {
            number_of(token).is_some_and(|number| poller.add_both_ways(descriptor, number).is_ok())
        });
        if !waits {
            self.proxy.reset(token);
        }
    }
}
