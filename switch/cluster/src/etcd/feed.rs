//! Ranges of keys: first the keys there are, then their changes, for as long as anybody listens.
//!
//! # Theory of operation
//! Ranges that are followed from the same moment are read at one revision, a page at a time and in their
//! order; then one stream watches all of them, each from the revision it was read at. A range that is
//! followed later is read and joins the stream; one that is left leaves it. After a failure the stream is
//! opened again, and each range goes on from the revision it had reached. When etcd has forgotten the changes
//! since then, the range is read again; when etcd is another than it was, all are.
//!
//! A stream that hears nothing cannot tell that nothing happens from that nobody is there any more. So one
//! that was quiet for [`QUIET`] asks for a sign of life, and one that has none after [`ANSWER`] is given up.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::client::Client;
use super::error::{Error, Result};
use super::reading::Reading;
use super::watch::{Create, News, Watch};
use super::wire::{Event, KeyRange, KeyValue};

/// The time that a stream is believed to live without a sign.
const QUIET: Duration = Duration::from_secs(10);

/// The time that a stream has to give a sign of life.
const ANSWER: Duration = Duration::from_secs(6);

/// The pause between a failure and the next attempt.
const RETRY: Duration = Duration::from_millis(500);

/// The most updates that wait to be looked at.
const WAITING_MAX: usize = 16;

/// News of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Some keys that a range has.
    Page(Page),
    /// Changes since.
    Changes(Vec<Event>),
    /// An error, for which nothing can be heard now.
    Away(Error),
}

/// Some keys that a range has, in their order. A key of the range that is on none of the pages from the first
/// to the last is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The range.
    pub range: KeyRange,
    /// The keys.
    pub found: Vec<KeyValue>,
    /// Whether this page is the range's first, at which those before it count no more.
    pub is_first: bool,
    /// Whether this page is the range's last.
    pub is_last: bool,
}

/// A wish of who listens.
#[derive(Debug)]
enum Wish {
    Follow(KeyRange),
    Leave(KeyRange),
    Again,
    Anew,
}

/// The end that hears updates. Dropping it ends the feed.
#[derive(Debug)]
pub struct Feed {
    updates: mpsc::Receiver<Update>,
    wishes: mpsc::UnboundedSender<Wish>,
}

impl Feed {
    /// Begins to follow these ranges.
    pub fn start(client: Client, ranges: impl IntoIterator<Item = KeyRange>) -> Self {
        let (sender, updates) = mpsc::channel(WAITING_MAX);
        let (wishes, wished) = mpsc::unbounded_channel();
        let parts = ranges.into_iter().map(Part::new).collect();
        let follower = Follower {
            client,
            parts,
            revision: None,
            reading: None,
            watch: None,
            numbers: 0,
            was_behind: false,
            is_trusted: true,
        };
        tokio::spawn(follower.follow(sender, wished));
        Self { updates, wishes }
    }

    /// The next update. May be dropped while it waits.
    pub async fn next(&mut self) -> Update {
        match self.updates.recv().await {
            Some(update) => update,
            // The task ends only with this end of it.
            None => std::future::pending().await,
        }
    }

    /// Follows one more range.
    pub fn follow(&self, range: KeyRange) {
        self.wish(Wish::Follow(range));
    }

    /// Follows a range no longer. Updates of it that are on their way still come.
    pub fn leave(&self, range: KeyRange) {
        self.wish(Wish::Leave(range));
    }

    /// Opens the stream again now: there is reason to think that it is dead.
    pub fn again(&self) {
        self.wish(Wish::Again);
    }

    /// Reads everything again now.
    pub fn anew(&self) {
        self.wish(Wish::Anew);
    }

    /// The task has gone with the runtime, if at all.
    fn wish(&self, wish: Wish) {
        let _ = self.wishes.send(wish);
    }
}

/// A range that is followed.
struct Part {
    range: KeyRange,
    /// The next revision to hear of, once it is read.
    from: Option<i64>,
    /// The number of its watch in the stream that is open.
    watch: Option<i64>,
}

impl Part {
    fn new(range: KeyRange) -> Self {
        Self { range, from: None, watch: None }
    }
}

struct Follower {
    client: Client,
    parts: Vec<Part>,
    /// The revision at which all is read that is read now.
    revision: Option<i64>,
    /// The part that is read now, once a page of it was.
    reading: Option<(KeyRange, Reading)>,
    watch: Option<Watch>,
    /// Numbers given to watches. None is given twice, so nothing is taken for another range's.
    numbers: i64,
    /// Whether the last stream was of an etcd that knew less than was read.
    was_behind: bool,
    /// Whether the stream has worked since the last time its token was refused.
    is_trusted: bool,
}

impl Follower {
    async fn follow(mut self, updates: mpsc::Sender<Update>, mut wishes: mpsc::UnboundedReceiver<Wish>) {
        loop {
            let outcome = tokio::select! {
                wish = wishes.recv() => {
                    let Some(wish) = wish else { return };
                    self.obey(wish);
                    continue;
                }
                outcome = self.step(&updates) => outcome,
            };
            let Err(error) = outcome else { continue };
            self.close();
            // A token that ended under the stream; the next stream has a new one.
            let is_token = matches!(error, Error::Token { .. } | Error::Forbidden { .. });
            if is_token && std::mem::take(&mut self.is_trusted) {
                continue;
            }
            if updates.send(Update::Away(error)).await.is_err() {
                return;
            }
            // Woken early when another call has found etcd again.
            match timeout(RETRY, wishes.recv()).await {
                Ok(None) => return,
                Ok(Some(wish)) => self.obey(wish),
                Err(_) => {}
            }
        }
    }

    fn obey(&mut self, wish: Wish) {
        match wish {
            Wish::Follow(range) => {
                if self.parts.iter().all(|part| part.range != range) {
                    self.parts.push(Part::new(range));
                }
            }
            Wish::Leave(range) => {
                self.reading.take_if(|(of, _)| *of == range);
                for part in self.parts.extract_if(.., |part| part.range == range) {
                    if let (Some(watch), Some(id)) = (&self.watch, part.watch) {
                        watch.cancel(id);
                    }
                }
            }
            Wish::Again => self.close(),
            Wish::Anew => self.read_all_again(),
        }
    }

    fn close(&mut self) {
        self.watch = None;
        self.parts.iter_mut().for_each(|part| part.watch = None);
    }

    fn read_all_again(&mut self) {
        self.close();
        (self.reading, self.revision) = (None, None);
        self.parts.iter_mut().for_each(|part| part.from = None);
    }

    /// Does the next thing. Nothing is lost when it is dropped while it waits.
    async fn step(&mut self, updates: &mpsc::Sender<Update>) -> Result<()> {
        // Nobody listens any more; so this ends, too.
        let Ok(permit) = updates.reserve().await else { return std::future::pending().await };
        if self.parts.is_empty() {
            return std::future::pending().await;
        }
        let update = match self.parts.iter().position(|part| part.from.is_none()) {
            Some(index) => self.read(index).await?.map(Update::Page),
            None => self.hear().await?.map(Update::Changes),
        };
        if let Some(update) = update {
            permit.send(update);
        }
        Ok(())
    }

    /// Reads the next page of a part.
    async fn read(&mut self, index: usize) -> Result<Option<Page>> {
        let range = self.parts[index].range.clone();
        let begun = self.reading.take_if(|(of, _)| *of == range);
        let (is_first, reading) = match begun {
            Some((_, reading)) => (false, reading),
            None => (true, Reading::new(range.clone(), self.revision)),
        };
        self.reading = (!is_first).then(|| (range.clone(), reading.clone()));
        let read = match reading.page(&self.client).await {
            Err(Error::Compacted) => {
                (self.reading, self.revision) = (None, None);
                return Ok(None);
            }
            read => read?,
        };
        self.revision = Some(read.revision);
        let is_last = read.next.is_none();
        if is_last {
            self.parts[index].from = Some(read.revision + 1);
        }
        self.reading = read.next.map(|next| (range.clone(), next));
        Ok(Some(Page { range, found: read.found, is_first, is_last }))
    }

    /// Hears the next changes. There is a stream then, and every part is watched.
    async fn hear(&mut self) -> Result<Option<Vec<Event>>> {
        (self.reading, self.revision) = (None, None);
        let creates = number(&self.parts, self.numbers);
        if let Some(watch) = &self.watch {
            creates.iter().for_each(|range| watch.create(range));
        } else {
            self.watch = Some(self.client.watch(&creates).await?);
        }
        self.watched(&creates);
        let Some(watch) = &mut self.watch else { return Ok(None) };
        let news = match timeout(QUIET, watch.next()).await {
            Ok(news) => news?,
            Err(_) => {
                watch.ask_progress();
                let Ok(news) = timeout(ANSWER, watch.next()).await else {
                    let endpoint = watch.endpoint.clone();
                    self.client.avoid(&endpoint);
                    return Err(Error::Silent { endpoint, seconds: (QUIET + ANSWER).as_secs() });
                };
                news?
            }
        };
        self.learn(news)
    }

    /// Notes the numbers of watches that were asked for.
    fn watched(&mut self, creates: &[Create]) {
        for Create { id, range, .. } in creates {
            self.numbers = self.numbers.max(*id);
            if let Some(part) = self.parts.iter_mut().find(|part| part.range == *range) {
                part.watch = Some(*id);
            }
        }
    }

    fn learn(&mut self, news: News) -> Result<Option<Vec<Event>>> {
        let of = |parts: &[Part], id| parts.iter().position(|part| part.watch == Some(id));
        match news {
            News::Alive => self.is_trusted = true,
            News::Created(id, revision) => {
                let index = of(&self.parts, id);
                if index.and_then(|index| self.parts[index].from).is_some_and(|from| revision + 1 < from) {
                    return self.behind();
                }
                self.was_behind = false;
            }
            News::Lost(None) => self.read_all_again(),
            News::Lost(Some(id)) => {
                if let Some(index) = of(&self.parts, id) {
                    (self.parts[index].from, self.parts[index].watch) = (None, None);
                    if let Some(watch) = &self.watch {
                        watch.cancel(id);
                    }
                }
            }
            News::Changes(id, events, from) => {
                self.is_trusted = true;
                if let Some(index) = of(&self.parts, id) {
                    self.parts[index].from = Some(from);
                    return Ok(Some(events));
                }
            }
        }
        Ok(None)
    }

    /// An etcd that knows less than it did is a member that lags or, when it still does at the second look,
    /// another etcd, or one that was restored.
    fn behind(&mut self) -> Result<Option<Vec<Event>>> {
        if std::mem::replace(&mut self.was_behind, true) {
            self.was_behind = false;
            self.read_all_again();
            return Ok(None);
        }
        let endpoint = self.watch.as_ref().map(|watch| watch.endpoint.clone());
        Err(endpoint.map_or(Error::Compacted, |endpoint| Error::Unavailable {
            endpoint,
            why: "it knows less than it did".to_owned(),
        }))
    }
}

/// Watches for the parts that have none.
fn number(parts: &[Part], numbers: i64) -> Vec<Create> {
    let parts = parts.iter().filter(|part| part.watch.is_none());
    let create = |(part, id): (&Part, i64)| Some(Create { id, range: part.range.clone(), from: part.from? });
    parts.zip(numbers + 1..).filter_map(create).collect()
}
