//! UDP: sessions, each of one client with one listener.
//!
//! # Theory of operation
//!
//! A session begins with a client's first datagram to one address of the host's, and has a source of its own
//! toward the container ([`crate::source`]). What the container sends there goes to the client from the
//! address the client addressed. A session ends after [`IDLE`] without a datagram in either direction, or
//! with its listener. Datagrams have no back-pressure: what finds no room is lost.
//!
//! A datagram that does not fit into the container's MTU goes in fragments; those of the container's are put
//! together ([`crate::fragments`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use vswitch_frame::headers::protocol;
use vswitch_frame::{Frame, Instant, NetworkId};
use vswitch_sys::datagrams::{BATCH, Batch, Datagrams, Received};

use crate::binding::{Binding, Bindings};
use crate::counts::Counts;
use crate::datagram::{self, Unfit};
use crate::flow::Flow;
use crate::fragments::{Fragments, Key, Outcome, Part};
use crate::link::{Outlet, is_right, mtu};
use crate::numbers::Numbers;
use crate::shares::{Holder, Shares};
use crate::source::canonical;
use crate::token::Token;

/// How long a session lasts without a datagram.
pub const IDLE: Duration = Duration::from_secs(90);

/// A container and whom it takes for the client, whatever their ports.
type Pair = (NetworkId, IpAddr, IpAddr);

/// A client of a listener, and the address it uses.
type Asker = (Token, SocketAddr, IpAddr);

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) bindings: Bindings,
    socket: Datagrams,
    readable: bool,
}

#[derive(Debug)]
pub(crate) struct Session {
    asker: Asker,
    flow: Flow,
    pub(crate) active_at: Instant,
}

/// Every listener and every session.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) listeners: BTreeMap<Token, Listener>,
    all: BTreeMap<Token, Session>,
    askers: BTreeMap<Asker, Token>,
    flows: BTreeMap<Flow, Token>,
    shares: Shares,
    /// Sessions of each pair.
    pairs: BTreeMap<Pair, usize>,
    pub(crate) fragments: Fragments,
    limit: usize,
    batch: Batch,
    /// Kept for its room.
    frames: Vec<Frame>,
}

impl Sessions {
    pub(crate) fn new(limit: usize) -> Self {
        let (listeners, all) = (BTreeMap::new(), BTreeMap::new());
        let (batch, frames) = (Batch::new(), Vec::with_capacity(BATCH));
        let (askers, flows, pairs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (shares, fragments) = (Shares::default(), Fragments::new());
        Self { listeners, all, askers, flows, shares, pairs, fragments, limit, batch, frames }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn listen(&mut self, token: Token, bindings: Bindings, socket: Datagrams) {
        self.listeners.insert(token, Listener { bindings, socket, readable: true });
    }

    pub(crate) fn socket(&self, token: Token) -> Option<&Datagrams> {
        self.listeners.get(&token).map(|listener| &listener.socket)
    }

    pub(crate) fn ready(&mut self, token: Token) -> bool {
        let Some(listener) = self.listeners.get_mut(&token) else { return false };
        listener.readable = true;
        true
    }

    /// Ends a listener with its sessions, and answers which those were.
    pub(crate) fn close(&mut self, token: Token) -> Vec<Token> {
        self.listeners.remove(&token);
        self.end_all(token, |_| true)
    }

    /// Has a listener lead elsewhere, and answers which sessions have ended by it.
    pub(crate) fn lead_to(&mut self, token: Token, bindings: Bindings) -> Vec<Token> {
        let Some(listener) = self.listeners.get_mut(&token) else { return Vec::new() };
        listener.bindings = bindings;
        let leads = |flow: &Flow| {
            let is_same = |to: &Binding| (to.network, to.container) == (flow.network, flow.container);
            bindings.iter().any(is_same)
        };
        self.end_all(token, |flow| !leads(flow))
    }

    /// Ends those sessions of a listener of whose flow something holds.
    fn end_all(&mut self, listener: Token, over: impl Fn(&Flow) -> bool) -> Vec<Token> {
        let first = |token| (token, SocketAddr::from(([0; 4], 0)), IpAddr::from([0; 4]));
        let of_listener = self.askers.range(first(listener)..first(Token(listener.0 + 1)));
        let is_over = |session: &Token| self.all.get(session).is_some_and(|session| over(&session.flow));
        let gone: Vec<Token> = of_listener.map(|(_, session)| *session).filter(is_over).collect();
        gone.iter().for_each(|&session| self.end(session));
        gone
    }

    /// Ends all sessions with an address of a container's, and what is held of its datagrams. Answers which
    /// sessions those were.
    pub(crate) fn forget(&mut self, network: NetworkId, container: IpAddr) -> Vec<Token> {
        self.fragments.forget(network, container);
        let its = self.flows.range(Flow::all_of(network, container));
        let gone: Vec<Token> = its.map(|(_, session)| *session).collect();
        gone.iter().for_each(|&session| self.end(session));
        gone
    }

    /// Does what is due of a session. Answers when it is due next, or `None` when it has ended or there is
    /// none.
    pub(crate) fn expire(&mut self, token: Token, now: Instant) -> Option<Instant> {
        let at = self.all.get(&token)?.active_at + IDLE;
        if at <= now {
            self.end(token);
            return None;
        }
        Some(at)
    }

    fn end(&mut self, token: Token) {
        if let Some(session) = self.all.remove(&token) {
            self.shares.remove(token);
            self.askers.remove(&session.asker);
            self.flows.remove(&session.flow);
            self.forget_pair(pair(&session.flow));
        }
    }

    fn forget_pair(&mut self, pair: Pair) {
        if let Entry::Occupied(mut sessions) = self.pairs.entry(pair) {
            *sessions.get_mut() -= 1;
            if *sessions.get() == 0 {
                sessions.remove();
            }
        }
    }

    /// Receives what a listener's clients sent, makes frames of it, and reports sessions that began or gave
    /// way. Answers whether there may be more.
    pub(crate) fn receive(
        &mut self,
        token: Token,
        numbers: &mut Numbers,
        outlet: &mut Outlet<'_>,
        counts: &mut Counts,
        now: Instant,
        begun: &mut Vec<Token>,
    ) -> bool {
        let Some(listener) = self.listeners.get_mut(&token).filter(|listener| listener.readable) else {
            return false;
        };
        let bindings = listener.bindings;
        let offset = bindings.iter().next().map_or(0, datagram::payload_offset);
        let mut frames = std::mem::take(&mut self.frames);
        frames.extend(std::iter::from_fn(|| outlet.pool.take()).take(BATCH));
        let count = self.batch.receive(&listener.socket, &mut frames, offset).unwrap_or_else(|error| {
            listener.readable = error.kind() != ErrorKind::WouldBlock;
            0
        });
        let more = listener.readable;
        let mut known = None;
        for (nth, mut frame) in frames.drain(..).enumerate() {
            let received = if nth < count { self.batch.received(nth) } else { None };
            let Some(received) = received else {
                outlet.pool.free(frame);
                continue;
            };
            let asker = (token, received.client, received.addressed);
            // Most datagrams are of one client.
            let way = known.filter(|(same, _)| *same == asker).map(|(_, way)| way).or_else(|| {
                let binding = bindings.of(received.client.ip())?;
                Some((binding, self.source_of(asker, &binding, numbers, counts, now, begun)?))
            });
            known = way.map(|way| (asker, way));
            let finished = way.and_then(|way| finish(&mut frame, offset, received, way).ok());
            let sent = match finished {
                Some(binding) => emit(frame, &binding, numbers, outlet),
                None => {
                    outlet.pool.free(frame);
                    Err(Unfit)
                }
            };
            counts.datagrams_dropped += u64::from(sent.is_err());
        }
        self.frames = frames;
        more
    }

    /// The source of a client's session, which begins if there is none. `None` when there is no room for it.
    fn source_of(
        &mut self,
        asker: Asker,
        binding: &Binding,
        numbers: &mut Numbers,
        counts: &mut Counts,
        now: Instant,
        changed: &mut Vec<Token>,
    ) -> Option<SocketAddr> {
        let known = self.askers.get(&asker).copied();
        let token = known.or_else(|| {
            let holder = Holder::new(binding.publication, asker.1.ip());
            if self.all.len() >= self.limit {
                counts.full += 1;
                changed.push(self.give_way(holder, now)?);
            }
            let token = self.begin(asker, binding, numbers, now)?;
            self.shares.add(token, holder, 0, now);
            changed.push(token);
            Some(token)
        })?;
        let session = self.all.get_mut(&token)?;
        session.active_at = now;
        Some(session.flow.source)
    }

    /// Ends a session to make room for that of a newcomer, and answers which it was.
    fn give_way(&mut self, newcomer: Holder, now: Instant) -> Option<Token> {
        let spoken = |token| self.all.get(&token).map_or(now, |session| session.active_at);
        let token = self.shares.giving_way(newcomer, spoken, now)?;
        self.end(token);
        Some(token)
    }

    fn begin(
        &mut self,
        asker: Asker,
        binding: &Binding,
        numbers: &mut Numbers,
        now: Instant,
    ) -> Option<Token> {
        let source = numbers.source(binding, canonical(asker.1), &self.flows)?;
        let flow = Flow { network: binding.network, container: binding.container, source };
        let token = numbers.token();
        self.askers.insert(asker, token);
        self.flows.insert(flow, token);
        *self.pairs.entry(pair(&flow)).or_default() += 1;
        self.all.insert(token, Session { asker, flow, active_at: now });
        Some(token)
    }

    /// Takes a frame of UDP from a container, and says whether it is a session's.
    pub(crate) fn take(
        &mut self,
        network: NetworkId,
        frame: &Frame,
        counts: &mut Counts,
        now: Instant,
    ) -> bool {
        let Some((container, source)) = datagram::endpoints(frame) else { return false };
        let flow = Flow { network, container, source };
        if !self.flows.contains_key(&flow) {
            return false;
        }
        if !(datagram::has_no_checksum(frame) || is_right(frame)) {
            counts.bad_checksums += 1;
            return true;
        }
        let (payload, size) = datagram::payload(frame);
        self.deliver(&flow, payload, size, counts, now)
    }

    /// Takes a fragment from a container, and says whether it is, or may be, of a session's datagram.
    pub(crate) fn take_fragment(
        &mut self,
        network: NetworkId,
        frame: &Frame,
        counts: &mut Counts,
        now: Instant,
    ) -> bool {
        let is_datagrams = frame.headers.is_fragment() && frame.headers.protocol() == protocol::UDP;
        let addresses = Some(frame).filter(|_| is_datagrams).and_then(datagram::addresses);
        let Some((container, target)) = addresses else { return false };
        if !self.pairs.contains_key(&(network, container, target)) {
            return false;
        }
        let Some(part) = Part::of(frame) else { return false };
        let key = Key { network, container, target, identification: part.identification };
        let flow =
            |from, to| Flow { network, container: (container, from).into(), source: (target, to).into() };
        let is_ours = |from, to| self.flows.contains_key(&flow(from, to));
        let bytes = match self.fragments.take(key, &part, is_ours, now) {
            Outcome::Others => return false,
            Outcome::Held | Outcome::Refused => return true,
            Outcome::Whole(bytes) => bytes,
        };
        match datagram::checked(container, target, &bytes) {
            Some((from, to, payload)) => {
                self.deliver(&flow(from, to), payload, payload.len(), counts, now);
            }
            None => counts.bad_checksums += 1,
        }
        true
    }

    /// Sends datagrams of `size` bytes to the client of a session, if there is one.
    fn deliver(
        &mut self,
        flow: &Flow,
        payload: &[u8],
        size: usize,
        counts: &mut Counts,
        now: Instant,
    ) -> bool {
        let session = self.flows.get(flow).and_then(|token| self.all.get_mut(token));
        let Some(session) = session else { return false };
        let (listener, client, addressed) = session.asker;
        let Some(listener) = self.listeners.get(&listener) else { return false };
        session.active_at = now;
        if listener.socket.send(payload, size, client, addressed).is_err() {
            counts.datagrams_dropped += 1;
        }
        true
    }
}

/// The pair of a flow.
fn pair(flow: &Flow) -> Pair {
    (flow.network, flow.container.ip(), flow.source.ip())
}

/// Makes a frame for the container of a datagram that was received at `offset`, and says where it leads.
fn finish(
    frame: &mut Frame,
    offset: usize,
    received: Received,
    (binding, source): (Binding, SocketAddr),
) -> Result<Binding, Unfit> {
    datagram::move_payload(frame, offset, &binding, received.length)?;
    datagram::finish(frame, &binding, source, received.length).map(|()| binding)
}

/// Hands a finished frame out, in fragments if it does not fit. Its slot is given back where it is not handed
/// out.
fn emit(
    frame: Frame,
    binding: &Binding,
    numbers: &mut Numbers,
    outlet: &mut Outlet<'_>,
) -> Result<(), Unfit> {
    if frame.mtu_bytes() <= mtu(binding) {
        outlet.out.push((binding.network, frame));
        return Ok(());
    }
    let out = &mut *outlet.out;
    let push = |part| out.push((binding.network, part));
    let outcome = datagram::fragment(&frame, mtu(binding), numbers.identification(), outlet.pool, push);
    outlet.pool.free(frame);
    outcome
}
