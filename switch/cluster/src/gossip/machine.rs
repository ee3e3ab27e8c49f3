//! Gossip as a machine: packets, answers and time go in, packets and news come out. No socket, no clock.
//!
//! # Theory of operation
//! **Who takes part** is decided by SWIM (the crate `foca`): each member probes another one every second, by
//! way of others if it must, and who does not answer is suspected, then down, and known as such to all. Who
//! finds itself down and is not begins another life. A host that joins gets the list of members at once.
//!
//! **News** goes to all whom it concerns along trees ([`spread`](super::spread)): a record of an endpoint to
//! the subscribers of its network, any other one to every member.
//!
//! **What was lost** is found by comparing sums, then records ([`agenda`](super::agenda),
//! [`compare`](super::compare)): so a partition heals, and a host that is new learns everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use foca::{AccumulatingRuntime, Config, Foca, OwnedNotification, PeriodicParams, PostcardCodec, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use vswitch_frame::Instant;

use super::super::ledger::{Ledger, Merge, Refusal, oldest_tombstone};
use super::super::record::{Host, HostId, Key, Record, Scope, Value, Version};
use super::super::view::{Event, Presence, Refused};
use super::agenda::Agenda;
use super::member::Member;
use super::members::Members;
use super::packet::{self, HEAD_BYTES, Item, PACKET_BYTES_MAX, Packet, Unread};
use super::spread::{Hint, Spread};
use super::talk::{Appointment, Talk};

/// Members for which waiting times are laid out.
const MEMBERS_USUAL: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// The time for which SWIM looks for members that are down.
const LOOKED_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Members that a host in a new life introduces itself to at once.
const INTRODUCTIONS: usize = 3;
/// The most complaints about writers of records, each made once.
const COMPLAINTS_MAX: usize = 1_024;

/// The time: this host's own, which never goes back, and the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The time since some moment.
    pub instant: Instant,
    /// The time of day, since 1970.
    pub since_epoch: Duration,
}

/// Effects: work to be done outside.
#[derive(Debug, Default)]
pub struct Effects {
    /// Packets, each with the address it goes to.
    pub packets: Vec<(SocketAddr, Vec<u8>)>,
    /// News for control.
    pub events: Vec<Event>,
    /// Conversations to be held.
    pub talks: Vec<Appointment>,
}

/// See the [module](self).
pub struct Machine {
    foca: Foca<Member, PostcardCodec, SmallRng, foca::NoCustomBroadcast>,
    timers: BTreeMap<(Instant, u64), Timer<Member>>,
    timers_set: u64,
    members: Members,
    ledger: Ledger,
    spread: Spread,
    agenda: Agenda,
    rng: SmallRng,
    /// Whether anybody has spoken to this host in its present life.
    is_met: bool,
    /// The oldest tombstone when they were swept last.
    swept: Version,
    /// Writers whose records were refused, and why.
    refused: BTreeSet<(HostId, Refusal)>,
    effects: Effects,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("me", self.foca.identity())
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A host alone. `seed` need not be secret: chance only spreads load here.
    pub fn new(me: Member, seed: u64, now: Now) -> Self {
        let rng = |seed| SmallRng::seed_from_u64(seed);
        Self {
            foca: Foca::new(me, config(), rng(seed), PostcardCodec),
            timers: BTreeMap::new(),
            timers_set: 0,
            members: Members::new(me.host),
            ledger: Ledger::of(me.host),
            spread: Spread::new(now.instant),
            agenda: Agenda::new(now.instant),
            rng: rng(!seed),
            is_met: false,
            swept: oldest_tombstone(now.since_epoch),
            refused: BTreeSet::new(),
            effects: Effects::default(),
        }
    }

    /// This host.
    pub fn me(&self) -> Member {
        *self.foca.identity()
    }

    /// All records that are known here.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Hosts that are up, but for this one.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Whether this host has the records of a scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.agenda.has(scope)
    }

    /// Members that are up, as they tell a host that joins.
    pub fn roll(&self) -> Vec<foca::Member<Member>> {
        let me = foca::Member::alive(self.me());
        self.foca.iter_members().cloned().chain([me]).collect()
    }

    /// The effects since the last time.
    pub fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// The time at which [`tick`](Self::tick) has something to do.
    pub fn poll_at(&self) -> Instant {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        timer.into_iter().fold(self.agenda.at(), Instant::min)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now.instant) {
            let timer = entry.remove();
            self.drive(now, |foca, runtime| foca.handle_timer(timer, runtime));
        }
        if self.agenda.at() <= now.instant {
            for host in self.agenda.due(now.instant, &self.members, &self.ledger, &mut self.rng) {
                let sums = self.agenda.sums(host, &self.ledger);
                self.send(host, packet::sums(now.since_epoch, self.members.me(), &sums));
            }
            self.spread.age(now.instant);
            self.appoint();
            self.introduce(now);
        }
        let oldest = oldest_tombstone(now.since_epoch);
        if oldest != self.swept {
            self.swept = oldest;
            self.ledger.sweep(now.since_epoch);
        }
    }

    /// Takes a packet in.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn receive(&mut self, packet: &[u8], now: Now) -> Result<(), Unread> {
        match packet::read(packet, now.since_epoch)? {
            Packet::Swim(text) => self.drive(now, |foca, runtime| foca.handle_data(text, runtime)),
            Packet::News(from, items) => {
                items.into_iter().for_each(|item| self.hear(from, item, now));
                self.flush(now);
            }
            Packet::Sums(from, sums) => {
                let talk = self.agenda.hear(from, &sums, &self.members, &self.ledger);
                self.effects.talks.extend(talk);
            }
        }
        Ok(())
    }

    /// Makes another host's acquaintance.
    pub fn join(&mut self, other: Member, now: Now) {
        if other.host != self.me().host {
            self.drive(now, |foca, runtime| foca.announce(other, runtime));
            self.agenda.join();
            self.effects.talks.push((other.address, Talk::Join));
        }
    }

    /// Meets the members that another one knows.
    pub fn meet(&mut self, roll: Vec<foca::Member<Member>>, now: Now) {
        self.drive(now, |foca, runtime| foca.apply_many(roll.into_iter(), false, runtime));
    }

    /// Says that this host goes.
    pub fn leave(&mut self, now: Now) {
        self.drive(now, |foca, runtime| foca.leave_cluster(runtime));
    }

    /// Says something new.
    pub fn publish(&mut self, records: Vec<Record>, now: Now) {
        for record in records.into_iter().map(|record| Arc::new(record.fit())) {
            if self.ledger.restate(Arc::clone(&record)) {
                self.follow(&record);
                self.spread.learned(&record, &self.members, &self.ledger);
                self.spread.begin(&record, &self.members, &self.ledger);
            }
        }
        self.flush(now);
        self.appoint();
    }

    /// Says something new, unless somebody has said something of one of the keys.
    ///
    /// # Errors
    /// The record that somebody has written.
    pub fn claim(&mut self, records: Vec<Record>, now: Now) -> Result<(), Refused> {
        if let Some(taken) = records.iter().find_map(|record| self.ledger.get(&record.key)) {
            return Err(Refused::Taken(Box::new(taken.clone())));
        }
        self.publish(records, now);
        Ok(())
    }

    /// Takes in records that another member has.
    pub fn merge(&mut self, records: Vec<Arc<Record>>, now: Now) {
        let news = records.into_iter().filter(|record| self.take(record, now) == Merge::News);
        let news: Vec<Arc<Record>> = news.collect();
        if !news.is_empty() {
            self.effects.events.push(Event::Records(news));
        }
        self.flush(now);
        self.appoint();
    }

    /// Tells all whom it concerns of records that another member did not know.
    pub fn spread(&mut self, records: &[Arc<Record>], now: Now) {
        for record in records {
            self.spread.begin(record, &self.members, &self.ledger);
        }
        self.flush(now);
    }

    /// A conversation has ended, well or not.
    pub fn ended(&mut self, talk: &Talk, well: bool) {
        self.agenda.ended(talk, well);
        if well {
            self.appoint();
        }
    }

    /// Takes one record in.
    fn take(&mut self, record: &Arc<Record>, now: Now) -> Merge {
        let scope = record.key.scope();
        if !self.agenda.has(scope) && record.host != self.members.me() {
            return Merge::Known;
        }
        let outcome = self.ledger.merge(Arc::clone(record), now.since_epoch);
        match outcome {
            Merge::News => {
                self.follow(record);
                self.spread.learned(record, &self.members, &self.ledger);
            }
            Merge::Refused(refusal) => self.complain(record.host, refusal),
            Merge::Known => {}
        }
        outcome
    }

    /// Takes in what a packet says, and sends it on.
    fn hear(&mut self, from: HostId, item: Item<'_>, now: Now) {
        if item.is_hint {
            self.hear_hint(from, item, now);
            return;
        }
        let Ok(record) = serde_json::from_slice::<Record>(item.text) else { return };
        let record = Arc::new(record.fit());
        if self.take(&record, now) == Merge::News {
            self.effects.events.push(Event::Records(vec![Arc::clone(&record)]));
        }
        if self.ledger.find(&record.key) == Some(&*record) {
            self.spread.pass(&record, &self.members, &self.ledger, item);
        }
    }

    fn hear_hint(&mut self, from: HostId, item: Item<'_>, now: Now) {
        let Ok(hint) = serde_json::from_slice::<Hint>(item.text) else { return };
        let rank = (hint.version, hint.host);
        match self.ledger.find(&hint.key).map(|record| (record.rank().cmp(&rank), record)) {
            Some((std::cmp::Ordering::Equal, known)) => {
                self.spread.pass(known, &self.members, &self.ledger, item);
            }
            Some((std::cmp::Ordering::Greater, _)) => {}
            Some((std::cmp::Ordering::Less, _)) | None => {
                let wanted = self.agenda.has(hint.key.scope()) && !hint.version.is_ahead(now.since_epoch);
                let address = self.members.address_of(from).filter(|_| wanted);
                if let Some(address) = address
                    && self.spread.wait(&hint, item)
                {
                    self.effects.talks.push((address, Talk::Fetch(vec![hint.key])));
                }
            }
        }
    }

    /// Follows a network that this host has subscribed to, or no longer.
    fn follow(&mut self, record: &Record) {
        let Key::Subscription(network, host) = record.key else { return };
        if host != self.members.me() {
            return;
        }
        let follows = self.ledger.subscribes(host, network);
        if self.agenda.follow(network, follows) && !follows {
            self.ledger.forget_endpoints(network);
        }
    }

    fn complain(&mut self, writer: HostId, refusal: Refusal) {
        let is_worth_it = refusal != Refusal::Old && self.refused.len() < COMPLAINTS_MAX;
        if is_worth_it && self.refused.insert((writer, refusal)) {
            let host = match self.ledger.get(&Key::Host(writer)).and_then(|record| record.value.as_ref()) {
                Some(Value::Host(Host { name, .. })) => name.clone(),
                _ => writer.short(),
            };
            tracing::warn!("records of host {host} are not taken in: {refusal}");
        }
    }

    /// Makes the acquaintance of some members in a life in which nobody knows this host. Many may begin
    /// another one at once, after a partition, and what they say to each other's former lives is not heard.
    fn introduce(&mut self, now: Now) {
        if self.is_met {
            return;
        }
        for _ in 0..INTRODUCTIONS {
            let member = self.foca.iter_members().map(foca::Member::id).copied().choose(&mut self.rng);
            if let Some(member) = member {
                self.drive(now, |foca, runtime| foca.announce(member, runtime));
            }
        }
    }

    /// Begins conversations that are due.
    fn appoint(&mut self) {
        let talks = self.agenda.eager(&self.members, &self.ledger, &mut self.rng);
        self.effects.talks.extend(talks);
    }

    fn send(&mut self, host: HostId, packet: Vec<u8>) {
        self.effects.packets.extend(self.members.address_of(host).map(|address| (address, packet)));
    }

    fn flush(&mut self, now: Now) {
        for (host, packet) in self.spread.flush(now.since_epoch, self.members.me()) {
            self.send(host, packet);
        }
    }

    fn drive(
        &mut self,
        now: Now,
        act: impl FnOnce(
            &mut Foca<Member, PostcardCodec, SmallRng, foca::NoCustomBroadcast>,
            &mut AccumulatingRuntime<Member>,
        ) -> Result<(), foca::Error>,
    ) {
        let mut runtime = AccumulatingRuntime::new();
        if let Err(error) = act(&mut self.foca, &mut runtime) {
            tracing::debug!("gossip: {error}");
        }
        while let Some((to, text)) = runtime.to_send() {
            self.effects.packets.push((to.address, packet::swim(now.since_epoch, &text)));
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            self.timers_set += 1;
            self.timers.insert((now.instant + after, self.timers_set), timer);
        }
        let mut changed = BTreeSet::new();
        while let Some(notification) = runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(member) | OwnedNotification::MemberDown(member) => {
                    changed.insert(member.host);
                }
                OwnedNotification::Rename(before, after) => changed.extend([before.host, after.host]),
                OwnedNotification::Active => self.is_met = true,
                OwnedNotification::Idle | OwnedNotification::Defunct | OwnedNotification::Rejoin(_) => {
                    self.is_met = false;
                }
            }
        }
        if !changed.is_empty() {
            self.follow_members(&changed);
        }
    }

    /// Follows hosts as they come and go. One may be up under one address and down under another: it is up
    /// then, where its latest life is.
    fn follow_members(&mut self, changed: &BTreeSet<HostId>) {
        let mut lives: BTreeMap<HostId, Option<Member>> = changed.iter().map(|host| (*host, None)).collect();
        for member in self.foca.iter_members().map(foca::Member::id) {
            if let Some(latest) = lives.get_mut(&member.host)
                && latest.is_none_or(|latest| latest.life < member.life)
            {
                *latest = Some(*member);
            }
        }
        for (host, member) in lives {
            if !self.members.follow(host, member.map(|member| member.address)) {
                continue;
            }
            let presence = if member.is_some() { Presence::Up } else { Presence::Down };
            if presence == Presence::Up {
                self.agenda.greet(host, &self.members, &mut self.rng);
            }
            self.effects.events.push(Event::Host(host, presence));
        }
    }
}

/// The settings of SWIM: down within about ten seconds, a partition healed within about ten.
fn config() -> Config {
    let periodic = |seconds, members| {
        NonZeroUsize::new(members)
            .map(|num_members| PeriodicParams { frequency: Duration::from_secs(seconds), num_members })
    };
    let gossip = NonZeroUsize::new(3)
        .map(|num_members| PeriodicParams { frequency: Duration::from_millis(100), num_members });
    let lan = Config::new_lan(MEMBERS_USUAL);
    Config {
        probe_rtt: Duration::from_millis(300),
        suspect_to_down_after: Duration::from_secs(5),
        remove_down_after: Some(LOOKED_FOR),
        max_transmissions: NonZeroU8::MIN.saturating_add(9),
        max_packet_size: NonZeroUsize::MIN.saturating_add(PACKET_BYTES_MAX - HEAD_BYTES - 1),
        periodic_announce: periodic(30, 1),
        periodic_announce_to_down_members: periodic(5, 2),
        periodic_gossip: gossip,
        ..lan
    }
}

#[cfg(test)]
mod tests;
