//! When to compare what is known, and with whom.
//!
//! # Theory of operation
//! Every [`SUMS_EVERY`] a member tells another one its sums: that of what all hosts know, and those of the
//! networks that both subscribe to. In turns that is any member, and a subscriber of its networks one after
//! the other. Some more are told when they have come. Who hears of sums that are not its own compares
//! records with who told, over TCP. So at rest this costs a packet a second, however many hosts and records
//! there are.
//!
//! What is not known at all yet is compared at once: networks that this host has begun to follow.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use vswitch_frame::Instant;

use super::super::id::Id;
use super::super::ledger::Ledger;
use super::super::record::{HostId, Scope};
use super::members::Members;
use super::packet::{SUMS_MAX, Sums};
use super::talk::{Appointment, Talk};

/// The time between two packets of sums.
pub const SUMS_EVERY: Duration = Duration::from_secs(1);
/// The most conversations that a member begins at once.
const TALKS_MAX: usize = 4;
/// Members that tell one that has come their sums, on average.
const WELCOMES: usize = 16;
/// Members that have come and are told sums at one time.
const WELCOMED_AT_ONCE: usize = 2;

/// See the [module](self).
#[derive(Debug)]
pub struct Agenda {
    /// Networks whose endpoints this host follows.
    follows: BTreeSet<Id>,
    at: Instant,
    /// Whether the next sums go to any member.
    is_anybodys_turn: bool,
    /// The network whose subscriber was told last.
    told: Option<Id>,
    newcomers: BTreeSet<HostId>,
    /// Scopes that are to be compared at once.
    eager: BTreeSet<Scope>,
    /// Scopes that are being compared.
    busy: BTreeSet<Scope>,
    /// Conversations that were begun here and have not ended.
    talks: usize,
}

impl Agenda {
    /// Nothing to do but to begin.
    pub fn new(now: Instant) -> Self {
        Self {
            follows: BTreeSet::new(),
            at: now + SUMS_EVERY,
            is_anybodys_turn: true,
            told: None,
            newcomers: BTreeSet::new(),
            eager: BTreeSet::new(),
            busy: BTreeSet::new(),
            talks: 0,
        }
    }

    /// The time at which there is something to do.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// Whether this host has the records of a scope.
    pub fn has(&self, scope: Scope) -> bool {
        match scope {
            Scope::Global => true,
            Scope::Network(network) => self.follows.contains(&network),
        }
    }

    /// Follows a network, or no longer; says whether that is news.
    pub fn follow(&mut self, network: Id, follows: bool) -> bool {
        if follows {
            self.eager.insert(Scope::Network(network));
            self.follows.insert(network)
        } else {
            self.eager.remove(&Scope::Network(network));
            self.follows.remove(&network)
        }
    }

    /// A member has come.
    pub fn greet(&mut self, host: HostId, members: &Members, rng: &mut SmallRng) {
        if rng.random_range(0..members.len().max(1)) < WELCOMES {
            self.newcomers.insert(host);
        }
    }

    /// The members to tell sums now, if it is time to.
    pub fn due(
        &mut self,
        now: Instant,
        members: &Members,
        ledger: &Ledger,
        rng: &mut SmallRng,
    ) -> Vec<HostId> {
        if now < self.at {
            return Vec::new();
        }
        self.at = now + SUMS_EVERY;
        self.is_anybodys_turn = !self.is_anybodys_turn;
        let any = |rng: &mut SmallRng| members.any(Scope::Global, ledger, rng);
        let next = if self.is_anybodys_turn {
            any(rng)
        } else {
            self.next_subscriber(members, ledger, rng).or_else(|| any(rng))
        };
        let mut hosts: BTreeSet<HostId> = next.into_iter().collect();
        for _ in 0..WELCOMED_AT_ONCE {
            hosts.extend(self.newcomers.iter().copied().choose(rng));
        }
        self.newcomers.retain(|host| !hosts.contains(host) && members.address_of(*host).is_some());
        hosts.into_iter().collect()
    }

    /// A subscriber of the network that is next.
    fn next_subscriber(&mut self, members: &Members, ledger: &Ledger, rng: &mut SmallRng) -> Option<HostId> {
        let next = self.follows.iter().find(|network| Some(**network) > self.told);
        self.told = next.or(self.follows.first()).copied();
        members.any(Scope::Network(self.told?), ledger, rng)
    }

    /// The sums that interest a host: those of what both have.
    pub fn sums(&self, host: HostId, ledger: &Ledger) -> Sums {
        let (before, after) =
            self.follows.iter().partition::<Vec<Id>, _>(|network| Some(**network) < self.told);
        let shared = after.into_iter().chain(before).filter(|network| ledger.subscribes(host, *network));
        let networks = shared.take(SUMS_MAX).map(|network| (network, ledger.sum(Scope::Network(network))));
        Sums { global: ledger.sum(Scope::Global), networks: networks.collect() }
    }

    /// Takes a host's sums in; the conversation to be held with it, if any.
    pub fn hear(
        &mut self,
        host: HostId,
        sums: &Sums,
        members: &Members,
        ledger: &Ledger,
    ) -> Option<Appointment> {
        let networks = sums.networks.iter().map(|(network, sum)| (Scope::Network(*network), *sum));
        let said = [(Scope::Global, sums.global)].into_iter().chain(networks);
        let differ = said.filter(|(scope, sum)| self.has(*scope) && ledger.sum(*scope) != *sum);
        let scopes = differ.map(|(scope, _)| scope).filter(|scope| !self.busy.contains(scope)).collect();
        self.appoint(members.address_of(host)?, scopes)
    }

    /// Conversations about what is to be compared at once.
    pub fn eager(&mut self, members: &Members, ledger: &Ledger, rng: &mut SmallRng) -> Vec<Appointment> {
        let mut appointments = Vec::new();
        while let Some(scope) = self.eager.iter().find(|scope| !self.busy.contains(scope)).copied() {
            let Some((host, address)) =
                members.any(scope, ledger, rng).and_then(|host| Some((host, members.address_of(host)?)))
            else {
                // A subscriber that comes later compares by itself.
                self.eager.remove(&scope);
                continue;
            };
            let has = |scope: &Scope| match scope {
                Scope::Global => true,
                Scope::Network(network) => ledger.subscribes(host, *network),
            };
            let scopes = self.eager.iter().filter(|scope| has(scope) && !self.busy.contains(scope));
            let scopes = scopes.copied().collect();
            match self.appoint(address, scopes) {
                Some(appointment) => appointments.push(appointment),
                None => break,
            }
        }
        appointments
    }

    /// A conversation begins with a host that is to be joined.
    pub fn join(&mut self) {
        self.talks += 1;
        self.busy.insert(Scope::Global);
    }

    /// A conversation has ended, well or not.
    pub fn ended(&mut self, talk: &Talk, well: bool) {
        let scopes = match talk {
            Talk::Join => vec![Scope::Global],
            Talk::Compare(scopes) => scopes.clone(),
            Talk::Fetch(_) => return,
        };
        self.talks = self.talks.saturating_sub(1);
        for scope in scopes {
            self.busy.remove(&scope);
            if well {
                self.eager.remove(&scope);
            } else if self.has(scope) {
                self.eager.insert(scope);
            }
        }
        if well && *talk == Talk::Join {
            self.eager.extend(self.follows.iter().map(|network| Scope::Network(*network)));
        }
    }

    fn appoint(&mut self, address: SocketAddr, scopes: Vec<Scope>) -> Option<Appointment> {
        if scopes.is_empty() || self.talks >= TALKS_MAX {
            return None;
        }
        self.talks += 1;
        self.busy.extend(&scopes);
        Some((address, Talk::Compare(scopes)))
    }
}
