//! The task between control and etcd.
//!
//! # Theory of operation
//! Once a second, and whenever control or the [`feed`](super::feed) has something to say, the task looks at
//! what the [`mirror`](super::mirror) wants written, and writes it. Calls are made one after the other, and
//! each has its time; nothing here waits for another host.
//!
//! When etcd is away, what is known stays, what control publishes waits in the mirror, and what all must
//! agree on is refused. A lease that ended meanwhile is replaced, and everything that went with it is
//! written again. An etcd that has lost everything is given again what this host knows.
//!
//! Getting addresses is in [`acquire`](super::acquire).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::ledger::TOMBSTONE_AGE;
use super::super::record::{Clock, HostId, Record};
use super::super::view::{Answer, Ask, Event, Refused, Request};
use super::client::Client;
use super::error::{Error, Result};
use super::feed::{Feed, Update};
use super::identity::{self, Memory};
use super::mirror::{Leases, Mirror};
use super::prepared::Prepared;
use super::wire::{KeyValue, Outcome};

/// The time between two looks at what is due.
const BEAT: Duration = Duration::from_secs(1);

/// Beats after which a new lease is taken for tombstones, so that none goes much before its time.
const GRAVES_BEATS: u64 = 3600;

/// Attempts at a change that somebody else makes at the same time.
pub(super) const TRIES_MAX: usize = 16;

/// The time that the end may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) me: HostId,
    /// The beginning of all keys of the cluster.
    pub(super) prefix: String,
    memory: Memory,
    /// Seconds without a sign of life after which this host's records go.
    lease_s: u32,
    pub(super) mirror: Mirror,
    pub(super) clock: Clock,
    leases: Option<Leases>,
    /// Beats since the lease was kept alive, and since the one for tombstones was taken.
    since: (u64, u64),
    /// Whether the etcd is the one of our cluster, and what is wrong if it is not.
    known: std::result::Result<(), String>,
    /// Whether a look at everything showed that it is not.
    is_foreign: bool,
    calls: Trouble,
    news: Trouble,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Questions that others were asked, by number.
    pub(super) asked: BTreeMap<String, Asked>,
    /// Keys of questions that are being answered, or were.
    pub(super) answered: BTreeSet<String>,
    /// Takes control's answers.
    pub(super) answers: mpsc::UnboundedSender<(HostId, String, Answer)>,
    arriving: Option<mpsc::UnboundedReceiver<(HostId, String, Answer)>>,
}

/// A question to an owner, and who else can be asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ask: Ask,
    pub(super) owner: HostId,
    pub(super) others: Vec<HostId>,
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) beats: u32,
}

/// Says once that something does not work, and once that it does again.
#[derive(Debug)]
struct Trouble {
    what: &'static str,
    line: Option<String>,
}

impl Trouble {
    const fn new(what: &'static str) -> Self {
        Self { what, line: None }
    }

    fn begins(&mut self, line: String) {
        if self.line.as_ref() != Some(&line) {
            tracing::warn!("{}: {line}", self.what);
        }
        self.line = Some(line);
    }

    /// Notes that it works again; says whether it did not.
    fn ends(&mut self) -> bool {
        let was = self.line.take().is_some();
        if was {
            tracing::warn!("{}: no longer, etcd is back", self.what);
        }
        was
    }
}

impl Keeper {
    pub(super) fn new(prepared: Prepared, me: HostId, events: mpsc::UnboundedSender<Event>) -> Self {
        let Prepared { client, memory, prefix, lease_s } = prepared;
        let (answers, arriving) = mpsc::unbounded_channel();
        Self {
            client,
            me,
            mirror: Mirror::new(me, format!("{prefix}records/")),
            prefix,
            memory,
            lease_s,
            clock: Clock::default(),
            leases: None,
            since: (0, 0),
            known: Err("etcd has not answered yet: try again".to_owned()),
            is_foreign: false,
            calls: Trouble::new("what this host has to say waits"),
            news: Trouble::new("nothing is heard of other hosts"),
            events,
            asked: BTreeMap::new(),
            answered: BTreeSet::new(),
            answers,
            arriving: Some(arriving),
        }
    }

    /// Works until control has gone.
    pub(super) async fn work(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let Some(mut arriving) = self.arriving.take() else { return };
        let mut feed = Feed::start(self.client.clone(), self.prefix.clone());
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => break,
                },
                update = feed.next() => self.take(update).await,
                // This keeps an end of the channel, so there is always one.
                Some((to, number, answer)) = arriving.recv() => self.reply(to, &number, &answer).await,
                _ = beat.tick() => self.beat(&feed).await,
            }
            self.flush().await;
        }
        if let Some(leases) = self.leases {
            drop(timeout(FAREWELL, self.client.revoke(leases.life)).await);
        }
    }

    async fn serve(&mut self, request: Request) {
        match request {
            Request::Publish(records) => {
                for record in records {
                    self.clock.see(record.version);
                    self.mirror.publish(record);
                }
            }
            // The task that asked may have gone.
            Request::Claim(records, answer) => drop(answer.send(self.claim(records).await)),
            Request::Acquire(ask, answer) => self.acquire(ask, answer).await,
        }
    }

    async fn take(&mut self, update: Update) {
        match update {
            Update::Snapshot(all) => {
                self.news.ends();
                self.snapshot(&all).await;
            }
            Update::Changes(changes) => {
                self.news.ends();
                if self.known.is_err() {
                    return;
                }
                let events = self.mirror.follow(&changes);
                self.tell(events);
                for change in &changes {
                    if change.is_delete() {
                        self.answered.remove(&change.kv.key);
                    } else {
                        self.open(&change.kv).await;
                    }
                }
            }
            Update::Away(error) => self.news.begins(error.to_string()),
        }
    }

    /// Takes in all keys under the prefix. Nothing of them is believed before they are known to be of our
    /// cluster.
    async fn snapshot(&mut self, all: &[KeyValue]) {
        let lost: Vec<Record> = self.mirror.live().cloned().collect();
        self.known = identity::verify(&self.client, &mut self.memory, &self.prefix, all).await;
        self.is_foreign = self.known.is_err();
        if let Err(line) = self.known.clone() {
            return self.calls.begins(line);
        }
        self.calls.line = None;
        let events = self.mirror.snapshot(all);
        self.mirror.restore(lost);
        self.tell(events);
        self.answered.retain(|key| all.iter().any(|found| found.key == *key));
        for found in all {
            self.open(found).await;
        }
    }

    fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            if let Event::Records(records) = &event {
                records.iter().for_each(|record| self.clock.see(record.version));
            }
            // Control has gone; so will we.
            let _ = self.events.send(event);
        }
    }

    /// Keeps the leases alive, or takes new ones.
    async fn beat(&mut self, feed: &Feed) {
        self.give_up_waiting().await;
        if std::mem::take(&mut self.is_foreign) {
            // Somebody may have mended it.
            feed.anew();
        }
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
        if self.leases.is_some() && self.since.1 < GRAVES_BEATS {
            return Ok(());
        }
        let seconds = u32::try_from(TOMBSTONE_AGE.as_secs()).unwrap_or(u32::MAX);
        let graves = self.client.grant(seconds).await?;
        let life = match self.leases {
            Some(leases) => leases.life,
            None => {
                let life = self.client.grant(self.lease_s).await?;
                self.mirror.publish_again();
                life
            }
        };
        self.leases = Some(Leases { life, graves });
        self.since = (0, 0);
        Ok(())
    }

    /// Writes the records that wait.
    pub(super) async fn flush(&mut self) {
        while self.known.is_ok() && self.calls.line.is_none() && !self.mirror.is_settled() {
            let Some(leases) = self.leases else { return };
            let batch = self.mirror.batch(leases);
            if batch.is_empty() {
                continue;
            }
            if let Err(error) = self.write(batch, leases).await {
                if error == Error::LeaseEnded {
                    self.leases = None;
                }
                self.calls.begins(error.to_string());
            }
        }
    }

    /// Writes records if nobody has changed their keys meanwhile; says whether they were.
    pub(super) async fn write(&mut self, records: Vec<Record>, leases: Leases) -> Result<bool> {
        let conditions = self.mirror.conditions(&records);
        let changes = self.mirror.changes(&records, leases);
        match self.client.commit(&conditions, &changes).await? {
            Outcome::Done(revision) => {
                self.mirror.wrote(records, leases, revision);
                Ok(true)
            }
            Outcome::Stale(now) => {
                let events = self.mirror.missed(&records, &now);
                self.tell(events);
                Ok(false)
            }
        }
    }

    /// The leases, if everybody can be asked.
    pub(super) fn ready(&self) -> std::result::Result<Leases, String> {
        self.known.clone()?;
        match (&self.calls.line, self.leases) {
            (Some(line), _) => Err(line.clone()),
            (None, Some(leases)) => Ok(leases),
            (None, None) => Err("etcd has not answered yet: try again".to_owned()),
        }
    }

    async fn claim(&mut self, records: Vec<Record>) -> std::result::Result<(), Refused> {
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
            match self.write(records.clone(), leases).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(Refused::Unsure(error.to_string())),
            }
        }
        Err(Refused::Unsure("too many hosts change the same at once: try again".to_owned()))
    }
}
