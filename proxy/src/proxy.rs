//! The proxy as its owner sees it: descriptors and frames in, frames out.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use smoltcp::socket::tcp;
use vswitch_frame::headers::Transport;
use vswitch_frame::{Frame, Instant, NetworkId, Pool};
use vswitch_sys::datagrams::Datagrams;
use vswitch_sys::stream::Stream;

use crate::binding::{Binding, Bindings};
use crate::counts::Counts;
use crate::datagram::{addresses, endpoints};
use crate::deadlines::Deadlines;
use crate::flow::Flow;
use crate::limits::{Budget, Limits, beyond_least};
use crate::link::{Outlet, is_right};
use crate::numbers::Numbers;
use crate::relay::{self, Fate, Relay};
use crate::session::Sessions;
use crate::shares::{Holder, Shares};
use crate::source::canonical;
use crate::token::Token;

/// Relays, listeners and sessions that are worked on in one turn.
const DUE_MAX: usize = 256;
/// Frames made in one turn, after which the rest of what is due waits for the next: no more than stay in a
/// cache until they are sent.
const FRAMES: usize = 64;
/// Sockets that are kept for relays to come: enough for those that end and begin in one turn.
const SPARES_MAX: usize = 8;
/// How long what is due waits when slots are scarce.
const NO_SLOT: Duration = Duration::from_millis(1);

/// Why a connection was not relayed. The client has been reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are as many relays as there may be, or too little memory for one more.
    Full,
    /// No port is free for the gateway to speak from.
    NoPort,
    /// The container and its gateway are of different families, or are no addresses that can be spoken to.
    BadBinding,
}

/// Every relay and every session. See the [crate] for how it works.
#[derive(Debug)]
pub struct Proxy {
    relays: BTreeMap<Token, Box<Relay>>,
    flows: BTreeMap<Flow, Token>,
    shares: Shares,
    budget: Budget,
    /// The most relays there may be for another cause than the budget.
    most: usize,
    sessions: Sessions,
    deadlines: Deadlines<Token>,
    numbers: Numbers,
    counts: Counts,
    /// Sockets of relays that have ended, with buffers that need not be made anew.
    spares: Vec<tcp::Socket<'static>>,
    /// Kept for its room.
    due: Vec<Token>,
}

impl Proxy {
    /// A proxy without a relay. The `seed` makes sequence numbers and ports hard to guess.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            relays: BTreeMap::new(),
            flows: BTreeMap::new(),
            shares: Shares::default(),
            budget: Budget::new(limits),
            most: usize::MAX,
            sessions: Sessions::new(limits.sessions),
            deadlines: Deadlines::new(),
            numbers: Numbers::new(seed),
            counts: Counts::default(),
            spares: Vec::new(),
            due: Vec::new(),
        }
    }

    /// Sets how many relays there may be, beside the limits, from now on: for one, since there are no more
    /// descriptors.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Begins to relay an accepted connection. Its descriptor is to be waited for, both ways, by the token.
    /// When there are as many as there may be, another one gives way, or this one is refused
    /// ([`shares`](crate::shares)).
    ///
    /// # Errors
    /// Why it is not relayed; the client has been reset then.
    pub fn tcp_accepted(
        &mut self,
        binding: Binding,
        stream: Stream,
        client: SocketAddr,
        pool: &mut Pool,
        out: &mut Vec<(NetworkId, Frame)>,
        now: Instant,
    ) -> Result<Token, Refused> {
        let begun = self.begin(binding, stream, canonical(client), &mut Outlet { pool, out }, now);
        begun.map_err(|(stream, refused)| {
            stream.reset();
            self.counts.refused += 1;
            self.counts.full += u64::from(refused == Refused::Full);
            refused
        })
    }

    fn begin(
        &mut self,
        binding: Binding,
        stream: Stream,
        client: SocketAddr,
        outlet: &mut Outlet<'_>,
        now: Instant,
    ) -> Result<Token, (Stream, Refused)> {
        if binding.container.is_ipv4() != binding.gateway.is_ipv4() {
            return Err((stream, Refused::BadBinding));
        }
        let Some(source) = self.numbers.source(&binding, client, &self.flows) else {
            return Err((stream, Refused::NoPort));
        };
        let holder = Holder::new(binding.publication, client.ip());
        let Some(buffer) = self.place(holder, outlet, now) else {
            return Err((stream, Refused::Full));
        };
        let flow = Flow { network: binding.network, container: binding.container, source };
        let (token, seed) = (self.numbers.token(), self.numbers.stack_seed(&flow, now));
        let socket = self.spare(buffer).unwrap_or_else(|| relay::socket(buffer));
        let relay = Relay::new(binding, source, stream, socket, seed, now).map_err(|stream| {
            self.budget.give_back(buffer);
            (stream, Refused::BadBinding)
        })?;
        self.flows.insert(flow, token);
        self.shares.add(token, holder, beyond_least(buffer), now);
        self.relays.insert(token, Box::new(relay));
        self.deadlines.set(token, Some(now));
        Ok(token)
    }

    /// A place for one more relay, which another may have to give up. Answers the bytes of its buffers.
    fn place(&mut self, newcomer: Holder, outlet: &mut Outlet<'_>, now: Instant) -> Option<usize> {
        let is_free = self.relays.len() < self.most;
        let free = Some(()).filter(|()| is_free).and_then(|()| self.budget.take(self.shares.of(newcomer)));
        if free.is_some() {
            return free;
        }
        let relays = &self.relays;
        let spoken = |token| relays.get(&token).map_or(now, |relay| relay.active_at);
        let token = self.shares.giving_way(newcomer, spoken, now)?;
        let relay = self.remove(token)?;
        self.deadlines.set(token, None);
        (self.counts.full, self.counts.broken) = (self.counts.full + 1, self.counts.broken + 1);
        relay.abort(outlet, now);
        self.budget.take(self.shares.of(newcomer))
    }

    /// A socket that some relay has used, with buffers of so many bytes.
    fn spare(&mut self, buffer: usize) -> Option<tcp::Socket<'static>> {
        let at = self.spares.iter().position(|socket| socket.send_capacity() == buffer)?;
        Some(self.spares.swap_remove(at))
    }

    /// Begins to relay what a bound UDP socket receives. It is to be waited for by the token. What leads
    /// nowhere is dropped.
    ///
    /// # Errors
    /// [`Refused::BadBinding`].
    pub fn udp_listener(
        &mut self,
        bindings: impl Into<Bindings>,
        socket: Datagrams,
        now: Instant,
    ) -> Result<Token, Refused> {
        let bindings = checked(bindings.into())?;
        let token = self.numbers.token();
        self.sessions.listen(token, bindings, socket);
        self.deadlines.set(token, Some(now));
        Ok(token)
    }

    /// Has a UDP socket lead elsewhere. Sessions that would not lead where they do end.
    ///
    /// # Errors
    /// [`Refused::BadBinding`]; then nothing has changed.
    pub fn lead_to(&mut self, token: Token, bindings: impl Into<Bindings>) -> Result<(), Refused> {
        for session in self.sessions.lead_to(token, checked(bindings.into())?) {
            self.deadlines.set(session, None);
        }
        Ok(())
    }

    /// Closes a UDP socket, and ends its sessions.
    pub fn close_listener(&mut self, token: Token) {
        self.deadlines.set(token, None);
        for session in self.sessions.close(token) {
            self.deadlines.set(session, None);
        }
    }

    /// The descriptor to wait for. `None` when it is gone.
    pub fn descriptor(&self, token: Token) -> Option<BorrowedFd<'_>> {
        let relay = self.relays.get(&token).map(|relay| relay.stream().as_fd());
        relay.or_else(|| self.sessions.socket(token).map(AsFd::as_fd))
    }

    /// A descriptor became ready for something. A token of what is gone has no effect.
    pub fn ready(&mut self, token: Token, now: Instant) {
        let relay = self.relays.get_mut(&token).map(|relay| relay.ready());
        if relay.is_some() || self.sessions.ready(token) {
            self.deadlines.set(token, Some(now));
        }
    }

    /// Takes a copy of a frame that a container of `network` sent to the gateway's MAC address, if it belongs
    /// to a relay or a session, and says whether it does. The frame must have been parsed, and remains the
    /// caller's.
    ///
    /// Ask this before the frame is routed: its destination may be any address of a client's.
    pub fn from_container(
        &mut self,
        network: NetworkId,
        frame: &Frame,
        pool: &mut Pool,
        out: &mut Vec<(NetworkId, Frame)>,
        now: Instant,
    ) -> bool {
        match frame.headers.transport() {
            Transport::Tcp => self.take_segment(network, frame, &mut Outlet { pool, out }, now),
            Transport::Udp => self.sessions.take(network, frame, &mut self.counts, now),
            Transport::Other => self.sessions.take_fragment(network, frame, &mut self.counts, now),
        }
    }

    fn take_segment(
        &mut self,
        network: NetworkId,
        frame: &Frame,
        outlet: &mut Outlet<'_>,
        now: Instant,
    ) -> bool {
        let Some((container, source)) = endpoints(frame) else { return false };
        let Some(&token) = self.flows.get(&Flow { network, container, source }) else { return false };
        let Some(relay) = self.relays.get_mut(&token) else { return false };
        if is_right(frame) {
            relay.take(frame, outlet, now);
            self.deadlines.set(token, Some(now));
        } else {
            self.counts.bad_checksums += 1;
        }
        true
    }

    /// Does what is due, and appends the frames for containers, each with its network.
    pub fn work(&mut self, pool: &mut Pool, out: &mut Vec<(NetworkId, Frame)>, now: Instant) {
        self.sessions.fragments.expire(now);
        let mut due = std::mem::take(&mut self.due);
        due.extend(std::iter::from_fn(|| self.deadlines.take(now)).take(DUE_MAX));
        let outlet = &mut Outlet { pool, out };
        for token in due.drain(..) {
            // Half of the slots are for what is received.
            let at = if outlet.pool.available() <= outlet.pool.capacity() / 2 {
                Some(now + NO_SLOT)
            } else if outlet.out.len() >= FRAMES {
                Some(now)
            } else {
                self.work_on(token, outlet, now)
            };
            self.deadlines.set(token, at);
        }
        self.due = due;
    }

    fn work_on(&mut self, token: Token, outlet: &mut Outlet<'_>, now: Instant) -> Option<Instant> {
        if let Some(relay) = self.relays.get_mut(&token) {
            let fate = relay.work(outlet, now);
            if let Fate::Waits(at) = fate {
                return at;
            }
            let relay = self.remove(token)?;
            if fate == Fate::Broken {
                self.counts.broken += 1;
                relay.reset_client();
            } else {
                self.counts.ended += 1;
                let socket = relay.end_client().filter(|_| self.spares.len() < SPARES_MAX);
                self.spares.extend(socket);
            }
            return None;
        }
        if self.sessions.listeners.contains_key(&token) {
            let (numbers, counts, mut begun) = (&mut self.numbers, &mut self.counts, Vec::new());
            let more = self.sessions.receive(token, numbers, outlet, counts, now, &mut begun);
            // Of some, only that they have ended.
            for session in begun {
                self.deadlines.set(session, self.sessions.expire(session, now));
            }
            return more.then_some(now);
        }
        self.sessions.expire(token, now)
    }

    fn remove(&mut self, token: Token) -> Option<Box<Relay>> {
        let relay = self.relays.remove(&token)?;
        self.flows.remove(&flow_of(&relay));
        self.shares.remove(token);
        self.budget.give_back(relay.buffer);
        Some(relay)
    }

    /// When [`work`](Self::work) is due next.
    pub fn poll_at(&self) -> Option<Instant> {
        [self.deadlines.first(), self.sessions.fragments.poll_at()].into_iter().flatten().min()
    }

    /// Resets a client. Its container is told when it says something next.
    pub fn reset(&mut self, token: Token) {
        if let Some(relay) = self.remove(token) {
            self.deadlines.set(token, None);
            self.counts.broken += 1;
            relay.reset_client();
        }
    }

    /// Resets every relay whose binding is `gone`: the container was detached, or its port
    /// is no longer published. Resets for which there is no slot are not sent.
    pub fn release(
        &mut self,
        gone: impl Fn(&Binding) -> bool,
        pool: &mut Pool,
        out: &mut Vec<(NetworkId, Frame)>,
        now: Instant,
    ) {
        let relays = self.relays.iter().filter(|(_, relay)| gone(&relay.binding));
        for token in relays.map(|(&token, _)| token).collect::<Vec<_>>() {
            self.deadlines.set(token, None);
            if let Some(relay) = self.remove(token) {
                self.counts.broken += 1;
                relay.abort(&mut Outlet { pool, out }, now);
            }
        }
    }

    /// Ends all that clients have with an address of a container's, which may be another's next: relays,
    /// sessions, fragments, and frames in `out`. Clients are reset; nothing is sent to the address.
    pub fn forget(
        &mut self,
        network: NetworkId,
        container: IpAddr,
        pool: &mut Pool,
        out: &mut Vec<(NetworkId, Frame)>,
    ) {
        let is_its = |(of, frame): &mut (NetworkId, Frame)| {
            *of == network && addresses(frame).is_some_and(|(_, to)| to == container)
        };
        out.extract_if(.., is_its).for_each(|(_, frame)| pool.free(frame));
        let relays: Vec<Token> =
            self.flows.range(Flow::all_of(network, container)).map(|(_, token)| *token).collect();
        relays.into_iter().for_each(|token| self.reset(token));
        for session in self.sessions.forget(network, container) {
            self.deadlines.set(session, None);
        }
    }

    /// Counts of what has happened so far, and of what there is.
    pub fn counts(&self) -> Counts {
        let fragments_dropped = self.sessions.fragments.given_up;
        Counts { relays: self.relays.len(), sessions: self.sessions.len(), fragments_dropped, ..self.counts }
    }
}

fn checked(bindings: Bindings) -> Result<Bindings, Refused> {
    let fits = |binding: &Binding| binding.container.is_ipv4() == binding.gateway.is_ipv4();
    if bindings.iter().all(fits) { Ok(bindings) } else { Err(Refused::BadBinding) }
}

fn flow_of(relay: &Relay) -> Flow {
    let Binding { network, container, .. } = relay.binding;
    Flow { network, container, source: relay.source }
}
