//! A network of hosts in one process, with a time of its own: for tests, and to measure many.
//!
//! # Theory of operation
//! Each host is a [`Machine`]. Packets and the texts of conversations arrive in the order of time, after a
//! delay; packets may be lost, and nothing gets from one side of a partition to the other. Nothing is sealed,
//! but bytes are counted as if it were, with the headers of IP, UDP and TCP, those of acknowledgements, too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use vswitch_frame::Instant;

use super::super::record::{HostId, Record};
use super::super::view::Event;
use super::compare::{Asker, answer};
use super::machine::{Machine, Now};
use super::member::Member;
use super::talk::{Appointment, Question, Reply, Talk};
use super::{JOIN_EVERY, PORT};

/// Bytes of headers of a datagram, and of a segment.
const HEADERS: (u64, u64) = (20 + 8, 20 + 32);
/// Bytes by which a sealed message is longer, in a cluster of the usual name.
const SEAL: u64 = 4 + 1 + 7 + 24 + 16;
/// Bytes of a segment's text.
const SEGMENT: u64 = 1448;
/// The time a byte takes.
const BYTE: Duration = Duration::from_nanos(8);
/// The time after which a conversation without an answer fails.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time of day at which worlds begin.
pub const BEGINNING: Duration = Duration::from_secs(1_800_000_000);

/// See the [module](self).
#[derive(Debug)]
pub struct World {
    /// The time.
    pub now: Instant,
    /// The time of day.
    pub since_epoch: Duration,
    /// Hosts.
    pub hosts: Vec<Seat>,
    /// The time a packet takes, at least and at most.
    pub delay: (Duration, Duration),
    /// Packets of a thousand that are lost.
    pub loss: u32,
    /// The news of hosts that have not been looked at: when, whose, and what.
    pub news: Vec<(Instant, usize, Event)>,
    arrivals: BTreeMap<(Instant, u64), (usize, Arrival)>,
    due: BTreeSet<(Instant, usize)>,
    sent: u64,
    lives: u64,
    join_at: Instant,
    rng: SmallRng,
}

/// A host's place in the world.
#[derive(Debug, Default)]
pub struct Seat {
    /// The host, while it runs.
    pub machine: Option<Machine>,
    /// The side of a partition that it is on.
    pub side: u8,
    /// The time by which its clock is ahead.
    pub ahead: Duration,
    /// Bytes that it sent and received.
    pub bytes: (u64, u64),
    /// Conversations that it has begun.
    pub talks: u64,
    life: u64,
    due: Option<Instant>,
}

#[derive(Debug)]
enum Arrival {
    Packet(Vec<u8>),
    Question(Box<Conversation>),
    Answer(Box<Conversation>),
    Failure(Box<Conversation>),
}

#[derive(Debug)]
struct Conversation {
    with: usize,
    talk: Talk,
    asker: Option<Asker>,
    /// The life of who began it.
    life: u64,
    text: Vec<u8>,
}

impl World {
    /// A world of hosts that do not run.
    pub fn new(hosts: usize, seed: u64) -> Self {
        Self {
            now: Instant::ZERO,
            since_epoch: BEGINNING,
            hosts: std::iter::repeat_with(Seat::default).take(hosts).collect(),
            delay: (Duration::from_micros(100), Duration::from_millis(2)),
            loss: 10,
            news: Vec::new(),
            arrivals: BTreeMap::new(),
            due: BTreeSet::new(),
            sent: 0,
            lives: 0,
            join_at: Instant::ZERO + JOIN_EVERY,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// A host's identifier.
    pub fn id(host: usize) -> HostId {
        HostId::new((u128::try_from(host).unwrap_or_default() << 64 | 7).to_be_bytes())
    }

    /// The time as a host knows it.
    pub fn time(&self, host: usize) -> Now {
        Now { instant: self.now, since_epoch: self.since_epoch + self.hosts[host].ahead }
    }

    /// Starts a host that knows nothing.
    pub fn start(&mut self, host: usize) {
        self.lives += 1;
        let me = Member { address: address(host), host: Self::id(host), life: self.lives };
        let machine = Machine::new(me, self.rng.random(), self.time(host));
        self.hosts[host].machine = Some(machine);
        self.hosts[host].life = self.lives;
        self.carry_out(host);
    }

    /// Starts hosts that know each other.
    pub fn start_all(&mut self) {
        (0..self.hosts.len()).for_each(|host| self.start(host));
        self.meet_all();
    }

    /// Has all hosts that run know each other.
    pub fn meet_all(&mut self) {
        let roll = self.hosts.iter().filter_map(|seat| seat.machine.as_ref()).map(Machine::me);
        let roll: Vec<foca::Member<Member>> = roll.map(foca::Member::alive).collect();
        for host in 0..self.hosts.len() {
            let roll = roll.clone();
            self.act(host, |machine, now| machine.meet(roll, now));
        }
    }

    /// Has a host look for the first other one that runs.
    pub fn join(&mut self, host: usize) {
        let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != host);
        let other = others.filter_map(|(_, seat)| seat.machine.as_ref()).next().map(Machine::me);
        if let Some(other) = other {
            self.act(host, |machine, now| machine.join(other, now));
        }
    }

    /// Ends a host, at once.
    pub fn kill(&mut self, host: usize) {
        self.hosts[host].machine = None;
    }

    /// The number of other hosts that one sees up.
    pub fn up(&self, host: usize) -> usize {
        self.hosts[host].machine.as_ref().map_or(0, |machine| machine.members().len())
    }

    /// Has a host say something.
    pub fn publish(&mut self, host: usize, records: Vec<Record>) {
        self.act(host, |machine, now| machine.publish(records, now));
    }

    /// Whether a host knows a record.
    pub fn knows(&self, host: usize, record: &Record) -> bool {
        let machine = self.hosts[host].machine.as_ref();
        machine.is_some_and(|machine| machine.ledger().find(&record.key) == Some(record))
    }

    /// Lets a host do something, and carries out what it wants done.
    pub fn act<T>(&mut self, host: usize, act: impl FnOnce(&mut Machine, Now) -> T) -> Option<T> {
        let now = self.time(host);
        let outcome = act(self.hosts[host].machine.as_mut()?, now);
        self.carry_out(host);
        Some(outcome)
    }

    /// Until something holds, or the time is over; says whether it does.
    pub fn until(&mut self, within: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = self.now + within;
        loop {
            if holds(self) {
                return true;
            }
            if self.now >= deadline || !self.step(deadline) {
                return false;
            }
        }
    }

    /// Lets time pass.
    pub fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until && self.step(until) {}
    }

    /// The next thing that happens, if it is not after `until`; says whether anything does.
    fn step(&mut self, until: Instant) -> bool {
        if self.now >= self.join_at {
            self.join_again();
        }
        let timer = self.due.first().copied();
        let arrival = self.arrivals.keys().next().copied();
        let next = timer.map(|(at, _)| at).into_iter().chain(arrival.map(|(at, _)| at)).min();
        let Some(next) = next else { return false };
        let next = next.max(self.now);
        let (then, late) = (next.min(until), next > until);
        self.since_epoch += then.since(self.now);
        self.now = then;
        if late {
            return true;
        }
        match (timer, arrival) {
            (Some((at, host)), arrival) if arrival.is_none_or(|(arrives, _)| at <= arrives) => {
                self.due.remove(&(at, host));
                self.hosts[host].due = None;
                self.act(host, |machine, now| machine.tick(now));
            }
            (_, Some(key)) => {
                if let Some((host, arrival)) = self.arrivals.remove(&key) {
                    self.arrive(host, arrival);
                }
            }
            (_, None) => {}
        }
        true
    }

    /// Hosts that found nobody look again.
    fn join_again(&mut self) {
        self.join_at = self.now + JOIN_EVERY;
        for host in 0..self.hosts.len() {
            if self.hosts[host].machine.is_some() && self.up(host) == 0 {
                self.join(host);
            }
        }
    }

    fn carry_out(&mut self, host: usize) {
        let Some(machine) = &mut self.hosts[host].machine else { return };
        let (effects, due) = (machine.effects(), machine.poll_at());
        if self.hosts[host].due != Some(due) {
            let before = self.hosts[host].due.replace(due);
            if let Some(before) = before {
                self.due.remove(&(before, host));
            }
            self.due.insert((due, host));
        }
        let now = self.now;
        self.news.extend(effects.events.into_iter().map(|event| (now, host, event)));
        for (to, packet) in effects.packets {
            let bytes = HEADERS.0 + SEAL + count(packet.len());
            self.hosts[host].bytes.0 += bytes;
            if self.reaches(host, index(to)) && self.rng.random_range(0..1000) >= self.loss {
                self.hosts[index(to)].bytes.1 += bytes;
                self.send(index(to), Arrival::Packet(packet), Duration::ZERO, 1);
            }
        }
        for (with, talk) in effects.talks {
            self.talk(host, (with, talk));
        }
    }

    fn reaches(&self, host: usize, other: usize) -> bool {
        self.hosts.get(other).is_some_and(|there| there.side == self.hosts[host].side)
    }

    /// Something arrives after so many delays and some time.
    fn send(&mut self, to: usize, arrival: Arrival, more: Duration, ways: u32) {
        let delay = self.rng.random_range(self.delay.0..=self.delay.1) * ways;
        self.sent += 1;
        self.arrivals.insert((self.now + delay + more, self.sent), (to, arrival));
    }

    fn arrive(&mut self, host: usize, arrival: Arrival) {
        match arrival {
            Arrival::Packet(packet) => {
                // One that is of another time is not read.
                let _ = self.act(host, |machine, now| machine.receive(&packet, now));
            }
            Arrival::Question(talk) => self.ask(host, talk),
            Arrival::Answer(talk) => self.hear(host, talk),
            Arrival::Failure(talk) => self.end(host, &talk, false),
        }
    }

    /// A host begins a conversation: connects, is greeted, and says hello.
    fn talk(&mut self, host: usize, (with, talk): Appointment) {
        let seat = &mut self.hosts[host];
        seat.talks += 1;
        let talk = Conversation { with: index(with), talk, asker: None, life: seat.life, text: Vec::new() };
        self.count(host, index(with), 3, 0);
        self.count(index(with), host, 4, 60);
        self.question(host, Box::new(talk), &Question::Hello, 5);
    }

    fn question(&mut self, host: usize, mut talk: Box<Conversation>, question: &Question, ways: u32) {
        talk.text = text(question);
        if self.reaches(host, talk.with) {
            let more = self.letter(host, talk.with, &talk.text);
            // The asker is known by its number.
            let with = talk.with;
            talk.with = host;
            self.send(with, Arrival::Question(talk), more, ways);
        } else {
            self.send(host, Arrival::Failure(talk), PATIENCE, 1);
        }
    }

    /// A host is asked something.
    fn ask(&mut self, host: usize, mut talk: Box<Conversation>) {
        let asker = talk.with;
        talk.with = host;
        let question = serde_json::from_slice::<Question>(&talk.text).ok();
        let reply =
            question.and_then(|question| self.act(host, |machine, now| answer(machine, question, now))?);
        match reply {
            Some(reply) if self.reaches(host, asker) => {
                talk.text = text(&reply);
                let more = self.letter(host, asker, &talk.text);
                self.send(asker, Arrival::Answer(talk), more, 1);
            }
            _ => self.send(asker, Arrival::Failure(talk), PATIENCE, 1),
        }
    }

    /// A host hears an answer.
    fn hear(&mut self, host: usize, mut talk: Box<Conversation>) {
        if self.hosts[host].life != talk.life {
            return;
        }
        let reply = serde_json::from_slice::<Reply>(&talk.text).ok();
        let now = self.time(host);
        let (mut asker, reply) = match (talk.asker.take(), reply) {
            (None, Some(Reply::Welcome(welcome))) => (Asker::new(&talk.talk, welcome, now), None),
            (Some(asker), reply) => (asker, reply),
            (None, _) => return self.end(host, &talk, false),
        };
        let next = self.act(host, |machine, now| asker.next(machine, reply, now));
        talk.asker = Some(asker);
        match next {
            Some(Ok(Some(question))) => self.question(host, talk, &question, 1),
            next => self.end(host, &talk, matches!(next, Some(Ok(_)))),
        }
    }

    fn end(&mut self, host: usize, talk: &Conversation, well: bool) {
        if self.hosts[host].life == talk.life {
            self.count(host, talk.with, 2, 0);
            self.count(talk.with, host, 2, 0);
            self.act(host, |machine, _| machine.ended(&talk.talk, well));
        }
    }

    /// Counts a letter; the time that it takes.
    fn letter(&mut self, from: usize, to: usize, text: &[u8]) -> Duration {
        let bytes = 4 + SEAL + count(text.len());
        let segments = bytes.div_ceil(SEGMENT);
        self.count(from, to, segments, bytes);
        self.count(to, from, segments.div_ceil(2), 0);
        BYTE * u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    fn count(&mut self, from: usize, to: usize, segments: u64, bytes: u64) {
        let bytes = segments * HEADERS.1 + bytes;
        self.hosts[from].bytes.0 += bytes;
        if let Some(seat) = self.hosts.get_mut(to) {
            seat.bytes.1 += bytes;
        }
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn text(said: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(said).unwrap_or_default()
}

fn address(host: usize) -> SocketAddr {
    let [.., high, low] = host.to_be_bytes();
    SocketAddr::from(([192, 0, high, low], PORT))
}

fn index(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => {
            usize::from(u16::from_be_bytes([address.ip().octets()[2], address.ip().octets()[3]]))
        }
        SocketAddr::V6(_) => usize::MAX,
    }
}
