//! The task between control and etcd.
//!
//! # Theory of operation
//! Once a second, and whenever control or the [`feed`](super::feed) has something to say, it looks at what the
//! [`mirror`](super::mirror) wants written, and writes it. Calls are made one after the other, and each has its time.
//!
//! When etcd is away, what is known stays, what control publishes waits in the mirror, and what all must
//! agree on is refused. A lease that ended meanwhile is replaced, and everything that went with it is
//! written again. An etcd that has lost everything is given again what this host knows.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};
use vswitch_sys::wallclock;

use super::super::ledger::TOMBSTONE_AGE;
use super::super::record::{Clock, Key, Record};
use super::super::view::{Answer, Ask, Event, Refused, Request, Source, Wish};
use super::client::Client;
use super::error::{Error, Result};
use super::feed::{Feed, Update};
use super::identity::{self, Memory};
use super::mirror::{Leases, Mirror};
use super::shares;
use super::wire::{Change, Condition, KeyValue, Outcome};

/// How often it looks at what is due.
const BEAT: Duration = Duration::from_secs(1);

/// After so many beats a new lease is taken for tombstones, so that none goes much before its time.
const GRAVES_BEATS: u64 = 3600;

/// How often what somebody else changes at the same time is tried.
const TRIES_MAX: usize = 16;

/// How long the end may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) client: Client,
    /// What all keys of the cluster begin with.
    pub(super) prefix: String,
    pub(super) memory: Memory,
    /// Seconds without a sign of life after which this host's records go.
    pub(super) lease_s: u32,
    pub(super) mirror: Mirror,
    pub(super) clock: Clock,
    pub(super) leases: Option<Leases>,
    /// Beats since the lease was kept alive, and since the one for tombstones was taken.
    pub(super) since: (u64, u64),
    /// Whether the etcd is the one of our cluster, and what is wrong if it is not.
    pub(super) known: std::result::Result<(), String>,
    pub(super) calls: Trouble,
    pub(super) news: Trouble,
}

/// Says once that something does not work, and once that it does again.
#[derive(Debug)]
pub(super) struct Trouble {
    what: &'static str,
    line: Option<String>,
}

impl Trouble {
    pub(super) const fn new(what: &'static str) -> Self {
        Self { what, line: None }
    }

    fn begins(&mut self, line: String) {
        if self.line.as_ref() != Some(&line) {
            tracing::warn!("{}: {line}", self.what);
        }
        self.line = Some(line);
    }

    /// Whether it was there.
    fn ends(&mut self) -> bool {
        let was = self.line.take().is_some();
        if was {
            tracing::warn!("{}: etcd is back", self.what);
        }
        was
    }
}

impl Keeper {
    /// Looks whether everything is right, as far as this can be seen now.
    pub(super) async fn first_look(&mut self) -> std::result::Result<(), String> {
        let key = format!("{}{}", self.prefix, identity::KEY);
        match self.client.read(&key).await {
            Ok((found, _)) => self.identify(&found).await,
            Err(error) if error.is_passing() => {
                self.calls.begins(error.to_string());
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Works until control has gone.
    pub(super) async fn work(mut self, mut source: Source) {
        let mut feed = Feed::start(self.client.clone(), self.prefix.clone());
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = source.requests.recv() => match request {
                    Some(request) => self.serve(request, &source).await,
                    None => break,
                },
                update = feed.next() => self.take(update, &source).await,
                _ = beat.tick() => self.beat(&feed).await,
            }
            self.flush(&source).await;
        }
        if let Some(leases) = self.leases {
            drop(timeout(FAREWELL, self.client.revoke(leases.life)).await);
        }
    }

    async fn serve(&mut self, request: Request, source: &Source) {
        match request {
            Request::Publish(records) => {
                for record in records {
                    self.clock.see(record.version);
                    self.mirror.publish(record);
                }
            }
            // Who asked may have gone.
            Request::Claim(records, answer) => drop(answer.send(self.claim(records, source).await)),
            Request::Acquire(ask, answer) => drop(answer.send(self.acquire(&ask, source).await)),
        }
    }

    async fn take(&mut self, update: Update, source: &Source) {
        match update {
            Update::Snapshot(all) => {
                self.news.ends();
                self.snapshot(&all, source).await;
            }
            Update::Changes(changes) => {
                self.news.ends();
                if self.known.is_ok() {
                    let events = self.mirror.follow(&changes);
                    self.tell(source, events);
                }
            }
            Update::Away(error) => self.news.begins(error.to_string()),
        }
    }

    /// Everything that is under the prefix. Nothing of it is believed before it is known to be of our cluster.
    async fn snapshot(&mut self, all: &[KeyValue], source: &Source) {
        let lost: Vec<Record> = self.mirror.live().cloned().collect();
        self.known = self.identify(all).await;
        if let Err(line) = self.known.clone() {
            return self.calls.begins(line);
        }
        let events = self.mirror.snapshot(all);
        self.mirror.restore(lost);
        self.tell(source, events);
    }

    /// Compares the cluster in etcd with ours, or writes that it is ours.
    pub(super) async fn identify(&mut self, all: &[KeyValue]) -> std::result::Result<(), String> {
        let key = format!("{}{}", self.prefix, identity::KEY);
        let mut found = all.iter().find(|found| found.key == key).map(|found| found.value.clone());
        if found.is_none() {
            let value = serde_json::to_vec(&self.memory.identity()?).map_err(|error| error.to_string())?;
            let conditions = [Condition { key: key.clone(), mod_revision: 0 }];
            let changes = [Change::Put { key, value: value.clone(), lease: None }];
            let outcome =
                self.client.commit(&conditions, &changes).await.map_err(|error| error.to_string())?;
            found = match outcome {
                Outcome::Done(_) => Some(value),
                Outcome::Stale(now) => now.into_iter().next().map(|found| found.value),
            };
        }
        self.memory.accept(&found.unwrap_or_default(), &self.prefix)
    }

    fn tell(&mut self, source: &Source, events: Vec<Event>) {
        for event in events {
            if let Event::Records(records) = &event {
                records.iter().for_each(|record| self.clock.see(record.version));
            }
            // Control has gone; so will we.
            let _ = source.events.send(event);
        }
    }

    /// Keeps the leases alive, or takes new ones.
    async fn beat(&mut self, feed: &Feed) {
        self.since = (self.since.0 + 1, self.since.1 + 1);
        let every = u64::from(self.lease_s / 3).max(1);
        let is_due = self.leases.is_none() || self.calls.line.is_some() || self.since.0 >= every;
        if self.known.is_err() || !is_due {
            return;
        }
        match self.keep().await {
            Ok(()) => {
                if self.calls.ends() {
                    feed.again();
                }
            }
            Err(error) => self.calls.begins(error.to_string()),
        }
    }

    async fn keep(&mut self) -> Result<()> {
        if let Some(leases) = self.leases {
            match self.client.keep_alive(leases.life).await {
                Err(Error::LeaseEnded) => self.leases = None,
                kept => {
                    kept?;
                    self.since.0 = 0;
                }
            }
        }
        let graves = match self.leases {
            Some(_) if self.since.1 < GRAVES_BEATS => return Ok(()),
            _ => {
                let seconds = u32::try_from(TOMBSTONE_AGE.as_secs()).unwrap_or(u32::MAX);
                self.client.grant(seconds).await?
            }
        };
        let life = match self.leases {
            Some(leases) => leases.life,
            None => {
                self.mirror.publish_again();
                self.client.grant(self.lease_s).await?
            }
        };
        self.leases = Some(Leases { life, graves });
        self.since = (0, 0);
        Ok(())
    }

    /// Writes what waits.
    async fn flush(&mut self, source: &Source) {
        while self.known.is_ok() && self.calls.line.is_none() && !self.mirror.is_settled() {
            let Some(leases) = self.leases else { return };
            let batch = self.mirror.batch(leases);
            if batch.is_empty() {
                continue;
            }
            match self.write(batch, leases, source).await {
                Ok(_) => {}
                Err(Error::LeaseEnded) => {
                    self.leases = None;
                    self.calls.begins(Error::LeaseEnded.to_string());
                }
                Err(error) => self.calls.begins(error.to_string()),
            }
        }
    }

    /// Writes records if nobody has changed their keys meanwhile; says whether they were.
    async fn write(&mut self, records: Vec<Record>, leases: Leases, source: &Source) -> Result<bool> {
        let conditions = self.mirror.conditions(&records);
        let changes = self.mirror.changes(&records, leases);
        match self.client.commit(&conditions, &changes).await? {
            Outcome::Done(revision) => {
                self.mirror.wrote(records, leases, revision);
                Ok(true)
            }
            Outcome::Stale(now) => {
                let events = self.mirror.missed(&records, &now);
                self.tell(source, events);
                Ok(false)
            }
        }
    }

    /// The leases, if everybody can be asked.
    fn ready(&self) -> std::result::Result<Leases, String> {
        self.known.clone()?;
        match (&self.calls.line, self.leases) {
            (Some(line), _) => Err(line.clone()),
            (None, Some(leases)) => Ok(leases),
            (None, None) => Err("etcd has not answered yet: try again".to_owned()),
        }
    }

    async fn claim(&mut self, records: Vec<Record>, source: &Source) -> std::result::Result<(), Refused> {
        for record in &records {
            self.clock.see(record.version);
        }
        let leases = self.ready().map_err(Refused::Unsure)?;
        for _ in 0..TRIES_MAX {
            let there: Vec<&Record> =
                records.iter().filter_map(|record| self.mirror.get(&record.key)).collect();
            if let Some(taken) = there.iter().find(|there| !records.contains(there)) {
                return Err(Refused::Taken(Box::new((*taken).clone())));
            }
            if there.len() == records.len() {
                // Ours: the answer to an earlier attempt was lost.
                return Ok(());
            }
            match self.write(records.clone(), leases, source).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(Refused::Unsure(error.to_string())),
            }
        }
        Err(Refused::Unsure("too many hosts change the same at once: try again".to_owned()))
    }

    async fn acquire(&mut self, ask: &Ask, source: &Source) -> Answer {
        let what = match ask.wish {
            Wish::Exact(address) => format!("address {address} of network {:?}", ask.name),
            Wish::Some(subnet) => format!("addresses of {subnet} of network {:?}", ask.name),
        };
        let leases = self.ready().map_err(|why| format!("{what}: {why}"))?;
        for _ in 0..TRIES_MAX {
            let (mirror, clock) = (&self.mirror, &mut self.clock);
            let version = || clock.next(wallclock::since_epoch());
            let Some(records) = shares::take(mirror.live(), ask, version) else {
                return Err(format!("{what}: {}", self.refusal(ask)));
            };
            match self.write(records.clone(), leases, source).await {
                Ok(true) => return Ok(records),
                Ok(false) => {}
                Err(error) => return Err(format!("{what}: {error}")),
            }
        }
        Err(format!("{what}: too many hosts want some at once: try again"))
    }

    /// Why there is nothing to take.
    fn refusal(&self, ask: &Ask) -> String {
        let owners = shares::owners(self.mirror.live(), ask);
        let gone = owners.iter().find(|owner| self.mirror.get(&Key::Host(**owner)).is_none());
        match (gone, owners.first()) {
            (Some(host), _) => format!(
                "they are host {}'s, which is away: start it again, or give up on it with \
                 \"vswitch cluster forget {}\"",
                host.short(),
                host.short()
            ),
            (None, Some(host)) => {
                format!("host {} has them: choose others, or a larger subnet", host.short())
            }
            (None, None) => "nobody has any: make the network again, with a larger subnet".to_owned(),
        }
    }
}
