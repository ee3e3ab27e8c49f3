//! The task between control and etcd.
//!
//! # Theory of operation
//! Once a second, and whenever control or the [`feed`](super::feed) has something to say, the task looks at
//! what the [`mirror`](super::mirror) wants written, and writes it. Calls are made one after the other, and
//! each has its time; nothing here waits for another host.
//!
//! A network's endpoints are followed from the moment at which control publishes this host's subscription to
//! it, until it is withdrawn.
//!
//! When etcd is away, what is known stays, what control publishes waits in the mirror, and what all must
//! agree on is refused. A lease that ended meanwhile is replaced, and everything that went with it is
//! written again. An etcd that has lost everything is given again what this host knows.
//!
//! Getting addresses is in [`acquire`](super::acquire), leases are in [`lease`](super::lease).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use vswitch_sys::wallclock;

use super::super::record::{Clock, HostId, Record};
use super::super::view::{Answer, Ask, Event, Refused, Request};
use super::client::Client;
use super::error::{Error, Result};
use super::feed::{Feed, Page, Update};
use super::identity::{self, Memory};
use super::layout::Layout;
use super::lease::Held;
use super::mirror::{Leases, Mirror};
use super::prepared::Prepared;
use super::wire::{Event as Change, Outcome};

/// The time between two looks at what is due.
const BEAT: Duration = Duration::from_secs(1);

/// Beats between two readings of all there is for records that were ahead of their time.
const READ_AGAIN_BEATS: u64 = 60;

/// Attempts at a change that somebody else makes at the same time.
pub(super) const TRIES_MAX: usize = 16;

/// The time that the end may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) client: Client,
    pub(super) me: HostId,
    pub(super) layout: Layout,
    memory: Memory,
    /// Seconds without a sign of life after which this host's records go.
    lease_s: u32,
    pub(super) mirror: Mirror,
    pub(super) clock: Clock,
    held: Held,
    /// Beats since the lease was kept alive, and since all was read for records that were ahead.
    since: (u64, u64),
    /// Whether all is read, and what is wrong if it is not.
    known: std::result::Result<(), String>,
    /// Whether the etcd was seen not to be the one of our cluster.
    is_foreign: bool,
    calls: Trouble,
    news: Trouble,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// Questions that others were asked, by number.
    pub(super) asked: BTreeMap<String, Asked>,
    /// Keys of questions that are being answered, or were.
    pub(super) answered: BTreeSet<String>,
    /// Keys of them that were not met while they are read.
    unmet: BTreeSet<String>,
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
        let layout = Layout::new(prefix, me);
        Self {
            client,
            me,
            mirror: Mirror::new(me, layout.clone()),
            layout,
            memory,
            lease_s,
            clock: Clock::default(),
            held: Held::default(),
            since: (0, READ_AGAIN_BEATS),
            known: Err("etcd has not answered yet: try again".to_owned()),
            is_foreign: false,
            calls: Trouble::new("what this host has to say waits"),
            news: Trouble::new("nothing is heard of other hosts"),
            events,
            asked: BTreeMap::new(),
            answered: BTreeSet::new(),
            unmet: BTreeSet::new(),
            answers,
            arriving: Some(arriving),
        }
    }

    /// Works until control has gone.
    pub(super) async fn work(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let Some(mut arriving) = self.arriving.take() else { return };
        let mut feed = Feed::start(self.client.clone(), self.layout.global());
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
            for (network, is_wanted) in self.mirror.turned() {
                let range = self.layout.endpoints(network);
                if is_wanted { feed.follow(range) } else { feed.leave(range) }
            }
            self.flush().await;
        }
        if let Some(life) = self.held.life() {
            drop(timeout(FAREWELL, self.client.revoke(life)).await);
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
            Update::Page(page) => {
                self.news.ends();
                if page.range == self.layout.identity() {
                    self.meet(&page).await;
                } else if !self.is_foreign {
                    self.read(&page).await;
                }
            }
            Update::Changes(changes) => {
                self.news.ends();
                if !self.is_foreign {
                    self.hear(&changes).await;
                }
            }
            Update::Away(error) => self.news.begins(error.to_string()),
        }
    }

    /// Looks whose the etcd is. Nothing of it is believed before it is known to be of our cluster.
    async fn meet(&mut self, page: &Page) {
        let prefix = &self.layout.prefix;
        let verified = identity::verify(&self.client, &mut self.memory, prefix, &page.found).await;
        self.is_foreign = verified.is_err();
        if let Err(line) = verified {
            self.known = Err(line.clone());
            self.calls.begins(line);
        }
    }

    /// Takes in some of the keys that there are.
    async fn read(&mut self, page: &Page) {
        let Page { range, found, is_first, is_last } = page;
        let events = self.mirror.page(range, found, (*is_first, *is_last), wallclock::since_epoch());
        self.tell(events);
        if *range == self.layout.asks() {
            if *is_first {
                self.unmet.clone_from(&self.answered);
            }
            self.unmet.retain(|key| found.iter().all(|found| found.key != *key));
            if *is_last {
                let unmet = std::mem::take(&mut self.unmet);
                self.answered.retain(|key| !unmet.contains(key));
            }
        }
        for found in found {
            self.open(found).await;
        }
        if *range == self.layout.answers() && *is_last && self.known.is_err() {
            self.known = Ok(());
            self.calls.line = None;
        }
    }

    async fn hear(&mut self, changes: &[Change]) {
        let events = self.mirror.follow(changes, wallclock::since_epoch());
        self.tell(events);
        for change in changes {
            if change.is_delete() {
                self.answered.remove(&change.kv.key);
            } else {
                self.open(&change.kv).await;
            }
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

    /// Keeps the lease alive, or takes a new one.
    async fn beat(&mut self, feed: &Feed) {
        self.give_up_waiting().await;
        self.since = (self.since.0 + 1, self.since.1 + 1);
        if self.is_foreign {
            // Somebody may have mended it.
            let look = identity::look(&self.client, &mut self.memory, &self.layout.prefix).await;
            if look == Ok(None) {
                self.is_foreign = false;
                feed.anew();
            }
        }
        if self.since.1 >= READ_AGAIN_BEATS && self.mirror.sweep(wallclock::since_epoch()) {
            self.since.1 = 0;
            feed.anew();
        }
        let every = u64::from(self.lease_s / 3).max(1);
        let is_due = self.held.life().is_none() || self.calls.line.is_some() || self.since.0 >= every;
        if self.known.is_err() || !is_due {
            return;
        }
        let version = self.clock.next(wallclock::since_epoch());
        match self.held.keep(&self.client, self.me, self.lease_s, version).await {
            Ok(is_new) => {
                self.since.0 = 0;
                if is_new {
                    self.mirror.publish_again();
                    // An etcd that does not know the old lease may have lost more.
                    feed.anew();
                }
                if self.calls.ends() {
                    feed.again();
                }
            }
            Err(error) => self.calls.begins(error.to_string()),
        }
    }

    /// Writes the records that wait.
    pub(super) async fn flush(&mut self) {
        let mut misses = 0;
        while self.known.is_ok() && self.calls.line.is_none() && !self.mirror.is_settled() {
            let Some(leases) = self.held.leases(self.me) else { return };
            let batch = self.mirror.batch(leases);
            if batch.is_empty() {
                continue;
            }
            match self.write(batch, leases).await {
                Ok(true) => {}
                Ok(false) => {
                    misses += 1;
                    if misses >= TRIES_MAX {
                        // The next beat tries again.
                        return;
                    }
                }
                Err(error) => self.calls.begins(error.to_string()),
            }
        }
    }

    /// Writes records if nobody has changed their keys meanwhile; says whether they were.
    pub(super) async fn write(&mut self, records: Vec<Arc<Record>>, leases: Leases) -> Result<bool> {
        if records.iter().any(|record| record.value.is_none()) {
            self.held.dig(&self.client, leases.graves).await?;
        }
        let conditions = self.mirror.conditions(&records);
        let changes = self.mirror.changes(&records, leases);
        match self.client.commit(&conditions, &changes).await {
            Ok(Outcome::Done(revision)) => {
                self.mirror.wrote(records, leases, revision);
                Ok(true)
            }
            Ok(Outcome::Stale(now)) => {
                let events = self.mirror.missed(&records, &now, wallclock::since_epoch());
                self.tell(events);
                Ok(false)
            }
            Err(error) => {
                if error == Error::LeaseEnded {
                    self.held.doubt();
                }
                Err(error)
            }
        }
    }

    /// The leases, if everybody can be asked.
    pub(super) fn ready(&self) -> std::result::Result<Leases, String> {
        self.known.clone()?;
        match (&self.calls.line, self.held.leases(self.me)) {
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
        let wanted: Vec<Arc<Record>> = records.into_iter().map(Arc::new).collect();
        for _ in 0..TRIES_MAX {
            let there: Vec<&Record> =
                wanted.iter().filter_map(|record| self.mirror.get(&record.key)).collect();
            if let Some(taken) = there.iter().find(|there| wanted.iter().all(|record| **record != ***there)) {
                return Err(Refused::Taken(Box::new((*taken).clone())));
            }
            if there.len() == wanted.len() {
                // Ours: the answer to an earlier attempt was lost.
                return Ok(());
            }
            match self.write(wanted.clone(), leases).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => return Err(Refused::Unsure(error.to_string())),
            }
        }
        Err(Refused::Unsure("too many hosts change the same at once: try again".to_owned()))
    }
}
