//! Names: answers to the questions that containers ask their gateway at port 53.
//!
//! # Theory of operation
//!
//! ```text
//!  frames for port 53 ──► UDP ──► one answer each, at once ────────────┐
//!                    └──► TCP ──► streams ──► questions ──► answers ───┤
//!                                                 │                    ├──► frames to the container
//!                         control ◄── upstream ◄──┘ names not ours     │
//!                            └──────────────────► answers ─────────────┘
//! ```
//!
//! Questions for names known here are answered by [`vswitch_engine::dns`]. Other questions go to control,
//! which alone has a network; it answers over the same channel, in any order. Askers are kept in a table of
//! [`upstream::IN_FLIGHT_MAX`] entries for [`upstream::DEADLINE`]. When there is no room in it, no answer in
//! time or no channel, the client is told that the server failed.
//!
//! A datagram is answered in the burst it came in. Streams and answers of control wait for the end of the
//! turn, when no burst holds slots of the pool.

mod connection;
mod origin;
mod stream;
mod upstream;

use std::os::fd::{AsFd, OwnedFd};

use vswitch_engine::Switch;
use vswitch_engine::dns::datagram::{Asked, questions};
use vswitch_engine::dns::message::{self, Query, Rcode};
use vswitch_engine::dns::{Resolution, Road};
use vswitch_engine::verdicts::Verdicts;
use vswitch_frame::headers::{ETHERNET_BYTES, Transport};
use vswitch_frame::{DropReason, Frame, Instant, Pool, PortId};

use connection::Connection;
pub(crate) use origin::Origin;
use stream::Streams;
use upstream::{Asker, Upstream};

/// The resolver of every network.
#[derive(Debug)]
pub(crate) struct Resolver {
    upstream: Upstream,
    streams: Streams,
    chance: u64,
    answer: Vec<u8>,
    scratch: Vec<u8>,
    asked: Vec<(Connection, Vec<u8>)>,
}

impl Resolver {
    /// A resolver that can ask nobody else yet. `seed` is random and secret.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            upstream: Upstream::default(),
            streams: Streams::new(seed),
            chance: seed,
            answer: Vec::new(),
            scratch: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// Asks control from now on over this channel, which the caller waits for.
    pub(crate) fn set_upstream(&mut self, channel: OwnedFd) {
        self.upstream.set_channel(channel);
    }

    /// The channel to control, if there is one.
    pub(crate) fn upstream(&self) -> Option<impl AsFd + '_> {
        self.upstream.channel()
    }

    /// Notes that the channel to control has something to read.
    pub(crate) fn set_ready(&mut self) {
        self.upstream.set_ready();
    }

    /// Forgets who asked at a port, so that its number may have another owner.
    pub(crate) fn forget_port(&mut self, port: PortId) {
        self.upstream.forget_port(port);
        self.streams.forget_port(port);
    }

    /// Takes every frame in `names`, which came in at one port, answers what can be answered at once, and
    /// moves the frames to `forward` or `drop`. Returns how many frames it made, from slots of the pool;
    /// they are in `forward`, too.
    pub(crate) fn serve(&mut self, origin: Origin<'_>, verdicts: &mut Verdicts, pool: &mut Pool) -> usize {
        let Verdicts { names, forward, drop, .. } = verdicts;
        let before = forward.len() + drop.len() + names.len();
        for mut frame in names.drain(..) {
            let fate = match frame.headers.transport() {
                Transport::Udp => self.take_datagrams(origin, &mut frame, pool, forward),
                Transport::Tcp => {
                    self.streams.take(origin, &frame).map_or_else(Some, |()| Some(DropReason::Consumed))
                }
                Transport::Other => Some(DropReason::NotServed),
            };
            match fate {
                None => forward.push((origin.ingress, frame)),
                Some(reason) => drop.push((reason, origin.ingress, frame)),
            }
        }
        forward.len() + drop.len() - before
    }

    /// Answers the datagrams of a frame. The frame becomes the answer if it is one datagram; otherwise
    /// returns why it is dropped.
    fn take_datagrams(
        &mut self,
        origin: Origin<'_>,
        frame: &mut Frame,
        pool: &mut Pool,
        forward: &mut Vec<(PortId, Frame)>,
    ) -> Option<DropReason> {
        let asked = match Asked::parse(frame) {
            Ok(asked) => asked,
            Err(reason) => return Some(reason),
        };
        let road = Road::Datagram((origin.mtu() + ETHERNET_BYTES).saturating_sub(asked.header_bytes()));
        let asker = Asker::Datagram { ingress: origin.ingress, asked, road };
        let is_one = frame.offload.gso.is_none();
        for question in questions(frame) {
            if self.resolve(origin, question, road, asker) != Resolution::Answered {
                continue;
            }
            if is_one {
                asked.answer(&self.answer, &mut self.scratch, frame);
                return None;
            }
            let Some(mut reply) = pool.take() else { return Some(DropReason::TxNoBuffer) };
            asked.answer(&self.answer, &mut self.scratch, &mut reply);
            forward.push((origin.ingress, reply));
        }
        Some(DropReason::Consumed)
    }

    /// Answers a question into `self.answer`, or asks control; says which.
    fn resolve(&mut self, origin: Origin<'_>, question: &[u8], road: Road, asker: Asker) -> Resolution {
        self.chance = self.chance.wrapping_add(1);
        let Origin { switch, ingress, now } = origin;
        match switch.resolve(ingress, question, road, self.chance, &mut self.answer) {
            Resolution::Forward if !self.upstream.ask(question, asker, now) => {
                fail(question, &mut self.answer);
                Resolution::Answered
            }
            other @ (Resolution::Answered | Resolution::Ignored | Resolution::Forward) => other,
        }
    }

    /// When [`poll`](Self::poll) wants to be called; `None` if there is nothing to wait for.
    pub(crate) fn poll_at(&self) -> Option<Instant> {
        [self.upstream.poll_at(), self.streams.poll_at()].into_iter().flatten().min()
    }

    /// Takes in what control answered and what streams received, and appends the frames that follow from
    /// it. No burst may be under way.
    pub(crate) fn poll(
        &mut self,
        switch: &Switch,
        pool: &mut Pool,
        forward: &mut Vec<(PortId, Frame)>,
        now: Instant,
    ) {
        while let Some((waiting, answered)) = self.upstream.next_answer(now, &mut self.answer) {
            if !answered {
                fail(&waiting.question, &mut self.answer);
            }
            self.deliver(&waiting.question, waiting.asker, pool, forward);
        }
        self.streams.receive(now, &mut self.asked);
        while let Some((connection, question)) = self.asked.pop() {
            let asker = Asker::Stream(connection);
            let origin = Origin { switch, ingress: connection.port, now };
            match self.resolve(origin, &question, Road::Stream, asker) {
                Resolution::Answered => self.streams.answer(connection, &self.answer),
                Resolution::Ignored => self.streams.reset(connection),
                Resolution::Forward => {}
            }
        }
        self.streams.send(now, pool, &mut self.scratch, forward);
    }

    /// Hands `self.answer` to the asker.
    fn deliver(
        &mut self,
        question: &[u8],
        asker: Asker,
        pool: &mut Pool,
        forward: &mut Vec<(PortId, Frame)>,
    ) {
        match asker {
            Asker::Stream(connection) => self.streams.answer(connection, &self.answer),
            Asker::Datagram { ingress, asked, road } => {
                let Ok(query) = Query::parse(question) else { return };
                message::truncate(&query, road.limit(&query), &mut self.answer);
                // Without a slot the answer is lost, as on a full queue: the client asks again.
                if let Some(mut reply) = pool.take() {
                    asked.answer(&self.answer, &mut self.scratch, &mut reply);
                    forward.push((ingress, reply));
                }
            }
        }
    }
}

/// Makes `answer` say that nobody could find out.
fn fail(question: &[u8], answer: &mut Vec<u8>) {
    answer.clear();
    if let Ok(query) = Query::parse(question) {
        message::empty(&query, Rcode::ServerFailure, answer);
    }
}

#[cfg(test)]
mod tests;
