//! Gossip as a machine: packets, answers and time go in, packets and news come out. No socket, no clock.
//!
//! # Theory of operation
//! Who takes part is decided by SWIM (the crate `foca`): each member probes another one every second, by way
//! of others if it must, and who does not answer is suspected, then down, and known as such to all. Who finds
//! itself down and is not begins another life.
//!
//! News spreads on the same packets. A record that is news is sent on at once to a few members, and some more
//! times within the next second: an epidemic reaches all in a few round trips. What is lost all the same, or
//! does not fit a packet, is found by comparing whole ledgers over TCP, with one member every
//! [`COMPARE_EVERY`], and with each that has come: so a partition heals, and a host that is new learns
//! everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foca::{
    AccumulatingRuntime, BroadcastHandler, Config, Foca, Invalidates, OwnedNotification, PeriodicParams,
    PostcardCodec, Timer,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use vswitch_frame::Instant;

use super::super::id::Id;
use super::super::ledger::Ledger;
use super::super::record::{HostId, Key, Record, Version};
use super::super::view::{Event, Presence, Refused};
use super::member::Member;

/// The longest packet before it is sealed, in bytes: with what sealing adds and headers it fits every usual
/// link.
pub const PACKET_BYTES_MAX: usize = 1280;
/// The longest record that travels in packets, in bytes; longer ones are fetched.
const RECORD_BYTES_MAX: usize = 1000;
/// The time between two comparisons of a member's records with another's.
pub const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// The time between two looks at tombstones.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Members for which waiting times and repetitions are laid out.
const MEMBERS_USUAL: NonZeroU32 = NonZeroU32::new(100).unwrap();

/// The time: this host's own, which never goes back, and the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The time since some moment.
    pub instant: Instant,
    /// The time of day, since 1970.
    pub since_epoch: Duration,
}

/// The knowledge of one side in few bytes: the version of each key.
pub type Digest = Vec<(Key, Version, HostId)>;

/// The difference between one side's records and another side's digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Records that the other side does not know.
    pub newer: Vec<Record>,
    /// Keys of records that only the other side knows.
    pub wanted: Vec<Key>,
}

/// Effects: work to be done outside.
#[derive(Debug, Default)]
pub struct Effects {
    /// Packets, each with the address it goes to.
    pub packets: Vec<(SocketAddr, Vec<u8>)>,
    /// News for control.
    pub events: Vec<Event>,
    /// Members with which to compare all records.
    pub compare: BTreeSet<SocketAddr>,
}

/// See the [module](self).
pub struct Machine {
    foca: Foca<Member, PostcardCodec, SmallRng, News>,
    shared: Arc<Mutex<Shared>>,
    timers: BTreeMap<(Instant, u64), Timer<Member>>,
    timers_set: u64,
    up: BTreeMap<HostId, SocketAddr>,
    compare_at: Instant,
    /// The member that was compared with last.
    compared: Option<HostId>,
    sweep_at: Instant,
    effects: Effects,
}

/// The state that the handler of news and the machine both use.
#[derive(Debug)]
struct Shared {
    ledger: Ledger,
    /// The time of day.
    since_epoch: Duration,
    fresh: Vec<Arc<Record>>,
}

/// The handler of news: takes it from packets.
struct News(Arc<Mutex<Shared>>);

/// The rank of a record, by which it makes news of older ones of its key obsolete.
struct Rank {
    key: Key,
    rank: (Version, HostId),
}

impl Invalidates for Rank {
    fn invalidates(&self, other: &Self) -> bool {
        self.key == other.key && self.rank >= other.rank
    }
}

impl BroadcastHandler<Member> for News {
    type Key = Rank;
    type Error = serde_json::Error;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Member>) -> serde_json::Result<Option<Rank>> {
        let record: Arc<Record> = Arc::new(serde_json::from_slice(data)?);
        let (key, rank) = (record.key.clone(), record.rank());
        let mut shared = lock(&self.0);
        let since_epoch = shared.since_epoch;
        let is_news = match sender {
            Some(_) => shared.ledger.merge(Arc::clone(&record), since_epoch).is_news(),
            None => shared.ledger.say(Arc::clone(&record)),
        };
        if is_news && sender.is_some() {
            shared.fresh.push(record);
        }
        Ok(is_news.then_some(Rank { key, rank }))
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("me", self.foca.identity())
            .field("up", &self.up)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A host alone. `seed` need not be secret: chance only spreads load here.
    pub fn new(me: Member, seed: u64, now: Now) -> Self {
        let shared = Shared { ledger: Ledger::of(me.host), since_epoch: now.since_epoch, fresh: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let news = News(Arc::clone(&shared));
        let rng = SmallRng::seed_from_u64(seed);
        Self {
            foca: Foca::with_custom_broadcast(me, config(), rng, PostcardCodec, news),
            shared,
            timers: BTreeMap::new(),
            timers_set: 0,
            up: BTreeMap::new(),
            compare_at: now.instant + COMPARE_EVERY,
            compared: None,
            sweep_at: now.instant + SWEEP_EVERY,
            effects: Effects::default(),
        }
    }

    /// This host.
    pub fn me(&self) -> Member {
        *self.foca.identity()
    }

    /// The effects since the last time.
    pub fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// The time at which [`tick`](Self::tick) has something to do.
    pub fn poll_at(&self) -> Instant {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        timer.into_iter().fold(self.compare_at.min(self.sweep_at), Instant::min)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now.instant) {
            let timer = entry.remove();
            self.drive(now, |foca, runtime| foca.handle_timer(timer, runtime));
        }
        if self.compare_at <= now.instant {
            self.compare_at = now.instant + COMPARE_EVERY;
            self.compare_with_next();
        }
        if self.sweep_at <= now.instant {
            self.sweep_at = now.instant + SWEEP_EVERY;
            lock(&self.shared).ledger.sweep(now.since_epoch);
        }
    }

    /// Takes a packet in.
    pub fn receive(&mut self, packet: &[u8], now: Now) {
        self.drive(now, |foca, runtime| foca.handle_data(packet, runtime));
        if self.take_fresh() {
            self.drive(now, |foca, runtime| foca.gossip(runtime));
        }
    }

    /// Makes another host's acquaintance.
    pub fn join(&mut self, other: Member, now: Now) {
        if other.host != self.me().host {
            self.drive(now, |foca, runtime| foca.announce(other, runtime));
            self.effects.compare.insert(other.address);
        }
    }

    /// Says that this host goes.
    pub fn leave(&mut self, now: Now) {
        self.drive(now, |foca, runtime| foca.leave_cluster(runtime));
    }

    /// Says something new.
    pub fn publish(&mut self, records: Vec<Record>, now: Now) {
        let mut is_long = false;
        for record in records {
            is_long |= !self.spread(&record);
        }
        self.drive(now, |foca, runtime| foca.gossip(runtime));
        if is_long {
            self.effects.compare.extend(self.up.values());
        }
    }

    /// Says something new, unless somebody has said something of one of the keys.
    ///
    /// # Errors
    /// The record that somebody has written.
    pub fn claim(&mut self, records: Vec<Record>, now: Now) -> Result<(), Refused> {
        let taken = records.iter().find_map(|record| lock(&self.shared).ledger.get(&record.key).cloned());
        if let Some(taken) = taken {
            return Err(Refused::Taken(Box::new(taken)));
        }
        self.publish(records, now);
        Ok(())
    }

    /// Whether another member knows the same, by its [`mark`](Self::mark).
    pub fn agrees(&self, mark: u64) -> bool {
        self.mark() == mark
    }

    /// The sum of the marks of all records.
    pub fn mark(&self) -> u64 {
        let shared = lock(&self.shared);
        shared.ledger.iter().fold(0, |sum, record| sum.wrapping_add(record.mark()))
    }

    /// The records that are known, in few bytes.
    pub fn digest(&self) -> Digest {
        let shared = lock(&self.shared);
        shared.ledger.iter().map(|record| (record.key.clone(), record.version, record.host)).collect()
    }

    /// The difference between this side and one with that digest.
    pub fn compare(&self, digest: &Digest) -> Difference {
        let shared = lock(&self.shared);
        let other: BTreeMap<&Key, (Version, HostId)> =
            digest.iter().map(|(key, version, host)| (key, (*version, *host))).collect();
        let is_newer = |record: &&Record| other.get(&record.key).is_none_or(|rank| *rank < record.rank());
        let is_older = |key: &Key, rank: (Version, HostId)| {
            shared.ledger.find(key).is_none_or(|record| record.rank() < rank)
        };
        Difference {
            newer: shared.ledger.iter().filter(is_newer).cloned().collect(),
            wanted: other
                .iter()
                .filter(|(key, rank)| is_older(key, **rank))
                .map(|(key, _)| (*key).clone())
                .collect(),
        }
    }

    /// The records of these keys.
    pub fn records(&self, keys: &[Key]) -> Vec<Record> {
        let shared = lock(&self.shared);
        keys.iter().filter_map(|key| shared.ledger.find(key).cloned()).collect()
    }

    /// Takes in records that another member sent over TCP.
    pub fn merge(&mut self, records: Vec<Record>, now: Now) {
        let mut fresh = Vec::new();
        for record in records.into_iter().map(Arc::new) {
            let since_epoch = now.since_epoch;
            let is_news = lock(&self.shared).ledger.merge(Arc::clone(&record), since_epoch).is_news();
            fresh.extend(is_news.then_some(record));
        }
        if !fresh.is_empty() {
            self.effects.events.push(Event::Records(fresh));
        }
    }

    /// Endpoints of a network that other hosts have said.
    pub fn endpoints(&self, network: Id) -> Vec<Record> {
        let (shared, me) = (lock(&self.shared), self.me().host);
        shared.ledger.endpoints(network).filter(|record| record.host != me).cloned().collect()
    }

    /// The records of who owns the addresses of a network, by its identifier.
    pub fn spaces(&self, network: Id) -> impl Iterator<Item = Record> + use<> {
        lock(&self.shared).ledger.spaces(network).cloned().collect::<Vec<_>>().into_iter()
    }

    /// The address where a host is reached, if it is up.
    pub fn address_of(&self, host: HostId) -> Option<SocketAddr> {
        self.up.get(&host).copied()
    }

    /// Hosts that are up, but for this one.
    pub fn up(&self) -> &BTreeMap<HostId, SocketAddr> {
        &self.up
    }

    /// Takes a record in and lets it travel in packets; says whether it is short enough to.
    fn spread(&mut self, record: &Record) -> bool {
        match serde_json::to_vec(record) {
            Ok(text) if text.len() <= RECORD_BYTES_MAX => {
                // A text that it refuses is not longer than a packet, and so is nothing.
                let _ = self.foca.add_broadcast(&text);
                true
            }
            _ => {
                lock(&self.shared).ledger.say(record.clone());
                false
            }
        }
    }

    /// Tells control what came in packets; says whether anything did.
    fn take_fresh(&mut self) -> bool {
        let fresh = std::mem::take(&mut lock(&self.shared).fresh);
        let any = !fresh.is_empty();
        if any {
            self.effects.events.push(Event::Records(fresh));
        }
        any
    }

    /// Has the records compared with each member in turn, in the order of their identifiers.
    fn compare_with_next(&mut self) {
        let next = self.up.iter().find(|(host, _)| Some(**host) > self.compared).or(self.up.iter().next());
        let next = next.map(|(host, address)| (*host, *address));
        self.compared = next.map(|(host, _)| host);
        self.effects.compare.extend(next.map(|(_, address)| address));
    }

    fn drive(
        &mut self,
        now: Now,
        act: impl FnOnce(
            &mut Foca<Member, PostcardCodec, SmallRng, News>,
            &mut AccumulatingRuntime<Member>,
        ) -> Result<(), foca::Error>,
    ) {
        let mut runtime = AccumulatingRuntime::new();
        lock(&self.shared).since_epoch = now.since_epoch;
        if let Err(error) = act(&mut self.foca, &mut runtime) {
            tracing::debug!("gossip: {error}");
        }
        while let Some((to, packet)) = runtime.to_send() {
            self.effects.packets.push((to.address, packet.to_vec()));
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            self.timers_set += 1;
            self.timers.insert((now.instant + after, self.timers_set), timer);
        }
        let mut changed = false;
        while let Some(notification) = runtime.to_notify() {
            changed |= matches!(
                notification,
                OwnedNotification::MemberUp(_)
                    | OwnedNotification::MemberDown(_)
                    | OwnedNotification::Rename(..)
            );
        }
        if changed {
            self.follow_members();
        }
    }

    /// Follows hosts as they come and go. One may be up under one address and down under another: it is up
    /// then.
    fn follow_members(&mut self) {
        let mut newest: Vec<Member> = self.foca.iter_members().map(|member| *member.id()).collect();
        newest.sort_by_key(|member| member.life);
        let me = self.me().host;
        let now_up: BTreeMap<HostId, SocketAddr> = newest
            .iter()
            .filter(|member| member.host != me)
            .map(|member| (member.host, member.address))
            .collect();
        let before = std::mem::replace(&mut self.up, now_up);
        let Effects { events, compare, .. } = &mut self.effects;
        for host in before.keys().filter(|host| !self.up.contains_key(host)) {
            events.push(Event::Host(*host, Presence::Down));
        }
        for (host, address) in self.up.iter().filter(|(host, _)| !before.contains_key(host)) {
            events.push(Event::Host(*host, Presence::Up));
            compare.insert(*address);
        }
    }
}

/// Locks for a moment that nothing waits in; the state that a panic left is as good as before.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The settings of SWIM: down within about ten seconds, news within one, a partition healed within about ten.
fn config() -> Config {
    let periodic = |frequency, members| {
        NonZeroUsize::new(members).map(|num_members| PeriodicParams { frequency, num_members })
    };
    let lan = Config::new_lan(MEMBERS_USUAL);
    Config {
        probe_rtt: Duration::from_millis(300),
        suspect_to_down_after: Duration::from_secs(5),
        max_transmissions: NonZeroU8::MIN.saturating_add(9),
        max_packet_size: NonZeroUsize::MIN.saturating_add(PACKET_BYTES_MAX - 1),
        periodic_announce: periodic(Duration::from_secs(10), 1),
        periodic_announce_to_down_members: periodic(Duration::from_secs(5), 2),
        periodic_gossip: periodic(Duration::from_millis(100), 3),
        ..lan
    }
}

#[cfg(test)]
mod tests;
