//! Questions on their way to control and back.
//!
//! [`vswitch_contract::names`] says how they are written.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use vswitch_contract::names::NUMBER_BYTES;
use vswitch_engine::dns::Road;
use vswitch_engine::dns::datagram::Asked;
use vswitch_engine::dns::message::Query;
use vswitch_frame::{Instant, PortId};
use vswitch_sys::seqpacket::{Channel, MESSAGE_BYTES_MAX};

use super::connection::Connection;

/// Questions in flight at once. One more takes the place of the oldest of the port that has most, if that has
/// more than its own; either is answered by a server failure.
pub(crate) const IN_FLIGHT_MAX: usize = 1024;
/// Of these, questions of one port, so that no container takes the room of all.
const IN_FLIGHT_PER_PORT_MAX: usize = 256;
/// The longest question that is passed on, or taken from a stream, in bytes.
pub(super) const QUESTION_BYTES_MAX: usize = 4096;
/// How long control may take: three servers of four seconds, and a little.
pub(crate) const DEADLINE: Duration = Duration::from_secs(13);

/// The party that wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// The sender of a datagram.
    Datagram { ingress: PortId, asked: Asked, road: Road },
    /// A connection.
    Stream(Connection),
}

impl Asker {
    fn port(&self) -> PortId {
        match self {
            Self::Datagram { ingress, .. } => *ingress,
            Self::Stream(connection) => connection.port,
        }
    }
}

/// A question in flight.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) question: Vec<u8>,
    pub(super) asker: Asker,
    deadline: Instant,
}

/// The way to control.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    channel: Option<Channel>,
    ready: bool,
    next: u64,
    /// Questions by number: the order they were asked in, which is that of their deadlines.
    waiting: BTreeMap<u64, Waiting>,
    per_port: BTreeMap<PortId, usize>,
    /// Questions that lost their place.
    displaced: Vec<Waiting>,
    buffer: Vec<u8>,
}

impl Upstream {
    pub(super) fn set_channel(&mut self, channel: OwnedFd) {
        self.channel = Some(Channel::from_fd(channel));
        self.ready = true;
        self.buffer.resize(MESSAGE_BYTES_MAX, 0);
    }

    pub(super) fn channel(&self) -> Option<impl AsFd + '_> {
        self.channel.as_ref()
    }

    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Asks control; says whether that was possible.
    pub(super) fn ask(&mut self, question: &[u8], asker: Asker, now: Instant) -> bool {
        let port = asker.port();
        let of_port = self.per_port.get(&port).copied().unwrap_or(0);
        if of_port >= IN_FLIGHT_PER_PORT_MAX || question.len() > QUESTION_BYTES_MAX {
            return false;
        }
        if self.waiting.len() >= IN_FLIGHT_MAX && !self.displace(of_port) {
            return false;
        }
        let Some(channel) = &self.channel else { return false };
        let message = [&self.next.to_be_bytes(), question].concat();
        if channel.send(&message, &[]).is_err() {
            return false;
        }
        let waiting = Waiting { question: question.to_vec(), asker, deadline: now + DEADLINE };
        self.waiting.insert(self.next, waiting);
        self.per_port.insert(port, of_port + 1);
        self.next += 1;
        true
    }

    /// Takes the place of the oldest question of the port that has most, if that is more than `own`.
    fn displace(&mut self, own: usize) -> bool {
        let most = self.per_port.iter().max_by_key(|(_, count)| **count);
        let Some((port, _)) = most.filter(|(_, count)| **count > own + 1) else { return false };
        let oldest = self.waiting.iter().find(|(_, waiting)| waiting.asker.port() == *port);
        let displaced = oldest.map(|(number, _)| *number).and_then(|number| self.remove(number));
        self.displaced.extend(displaced);
        true
    }

    /// The next question that is over: with its answer in `answer`, or without one because it took too
    /// long, was answered by something else, or there is nobody left to answer.
    pub(super) fn next_answer(&mut self, now: Instant, answer: &mut Vec<u8>) -> Option<(Waiting, bool)> {
        if let Some(displaced) = self.displaced.pop() {
            return Some((displaced, false));
        }
        while let Some(length) = self.receive() {
            let (number, message) = self.buffer[..length].split_at(length.min(NUMBER_BYTES));
            let number = <[u8; NUMBER_BYTES]>::try_from(number).map(u64::from_be_bytes);
            answer.clear();
            answer.extend(message);
            if let Some(waiting) = number.ok().and_then(|number| self.remove(number)) {
                let query = Query::parse(&waiting.question);
                let answered = query.is_ok_and(|query| query.is_answered_by(answer));
                return Some((waiting, answered));
            }
        }
        let (number, waiting) = self.waiting.first_key_value()?;
        if self.channel.is_some() && waiting.deadline > now {
            return None;
        }
        let number = *number;
        self.remove(number).map(|waiting| (waiting, false))
    }

    /// The length of the next message in the buffer, if there is one now.
    fn receive(&mut self) -> Option<usize> {
        let channel = self.channel.as_ref().filter(|_| self.ready)?;
        match channel.receive(&mut self.buffer) {
            Ok(Some((length, _))) => Some(length),
            Ok(None) => {
                self.ready = false;
                None
            }
            Err(_) => {
                // Control is gone. Its successor brings another channel.
                self.channel = None;
                None
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        let port = waiting.asker.port();
        if let Some(of_port) = self.per_port.get_mut(&port) {
            *of_port = of_port.saturating_sub(1);
            if *of_port == 0 {
                self.per_port.remove(&port);
            }
        }
        Some(waiting)
    }

    pub(super) fn forget_port(&mut self, port: PortId) {
        self.displaced.retain(|waiting| waiting.asker.port() != port);
        if self.per_port.remove(&port).is_some() {
            self.waiting.retain(|_, waiting| waiting.asker.port() != port);
        }
    }

    pub(super) fn poll_at(&self) -> Option<Instant> {
        if self.ready && self.channel.is_some() || !self.displaced.is_empty() {
            return Some(Instant::ZERO);
        }
        self.waiting.first_key_value().map(|(_, waiting)| waiting.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1);
    const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02io\0\0\x01\0\x01";

    fn asker(port: u16) -> Asker {
        Asker::Stream(Connection { port: PortId(port), gateway: [10, 0, 0, 1].into(), number: 1 })
    }

    /// An upstream, and control's end of its channel.
    fn connected() -> (Upstream, Channel) {
        let (ours, theirs) = Channel::pair().expect("a pair");
        let mut upstream = Upstream::default();
        upstream.set_channel(ours.into());
        (upstream, theirs)
    }

    fn receive(control: &Channel) -> Vec<u8> {
        let mut buffer = vec![0; 100];
        let (length, _) = control.receive(&mut buffer).expect("open").expect("a message");
        buffer.truncate(length);
        buffer
    }

    #[test]
    fn an_answer_finds_who_asked() {
        let (mut upstream, control) = connected();
        let mut answer = Vec::new();
        for port in 0..3 {
            assert!(upstream.ask(QUESTION, asker(port), NOW));
        }
        let mut asked: Vec<Vec<u8>> = (0..3).map(|_| receive(&control)).collect();
        assert!(asked.iter().all(|message| message[NUMBER_BYTES..] == *QUESTION));
        // Answered out of order; one by something that is no answer; one not at all.
        asked[1][NUMBER_BYTES + 2] |= 0x80;
        control.send(&asked[1], &[]).expect("sent");
        control.send(&asked[2], &[]).expect("sent");
        control.send(b"short", &[]).expect("sent");
        upstream.set_ready();
        let mut next = |now| {
            let next = upstream.next_answer(now, &mut answer);
            next.map(|(waiting, answered)| (waiting.asker.port().0, answered))
        };
        assert_eq!(next(NOW), Some((1, true)));
        assert_eq!(next(NOW), Some((2, false)));
        assert_eq!(next(NOW), None);
        assert_eq!(next(NOW + DEADLINE), Some((0, false)));
        assert_eq!(next(NOW + DEADLINE), None);
        assert_eq!(upstream.poll_at(), None);
        assert!(upstream.per_port.is_empty());
    }

    #[test]
    fn there_is_a_limit_for_a_port_and_for_all() {
        let (mut upstream, control) = connected();
        let mut taken = 0;
        let ask = |upstream: &mut Upstream, port| {
            let taken = upstream.ask(QUESTION, asker(port), NOW);
            let _ = control.receive(&mut [0; 100]);
            taken
        };
        for port in 0..4 {
            for _ in 0..=IN_FLIGHT_PER_PORT_MAX {
                taken += usize::from(ask(&mut upstream, port));
            }
            assert_eq!(taken, IN_FLIGHT_PER_PORT_MAX * (usize::from(port) + 1));
        }
        assert_eq!(taken, IN_FLIGHT_MAX);
        // Others come, until all have as many.
        for port in 4..8 {
            while ask(&mut upstream, port) {
                let (lost, answered) = upstream.next_answer(NOW, &mut Vec::new()).expect("one is displaced");
                assert!(lost.asker.port().0 < 8 && !answered);
                assert_eq!(upstream.waiting.len(), IN_FLIGHT_MAX);
            }
        }
        let counts: Vec<usize> = upstream.per_port.values().copied().collect();
        assert!(counts.iter().all(|count| count.abs_diff(IN_FLIGHT_MAX / 8) <= 1), "{counts:?}");
        upstream.forget_port(PortId(1));
        assert!(ask(&mut upstream, 5));
    }

    #[test]
    fn without_control_every_question_fails_at_once() {
        let mut upstream = Upstream::default();
        assert!(!upstream.ask(QUESTION, asker(0), NOW));
        let (mut upstream, control) = connected();
        assert!(upstream.ask(QUESTION, asker(0), NOW));
        drop(control);
        upstream.set_ready();
        let mut answer = Vec::new();
        assert!(upstream.next_answer(NOW, &mut answer).is_some_and(|(_, answered)| !answered));
        assert!(upstream.next_answer(NOW, &mut answer).is_none());
        assert!(!upstream.ask(QUESTION, asker(0), NOW));
    }
}
