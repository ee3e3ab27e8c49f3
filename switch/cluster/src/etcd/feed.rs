//! All keys with a prefix: first those there are, then their changes, for as long as anybody listens.
//!
//! A watch goes on from the revision it had reached. When etcd has forgotten the changes since then, or is
//! another than it was, there is a new snapshot.
//!
//! A watch that hears nothing cannot tell that nothing happens from that nobody is there any more. So one
//! that was quiet for [`QUIET`] is opened again, which costs one request and loses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::client::Client;
use super::error::{Error, Result};
use super::watch::Watch;
use super::wire::{Event, KeyValue};

/// The time that a watch is believed to live without a sign.
const QUIET: Duration = Duration::from_secs(30);

/// The pause between a failure and the next attempt.
const RETRY: Duration = Duration::from_millis(500);

/// The most updates that wait to be looked at.
const WAITING_MAX: usize = 16;

/// News of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Every key; one that is not among them is gone.
    Snapshot(Vec<KeyValue>),
    /// The changes since.
    Changes(Vec<Event>),
    /// An error, for which nothing can be heard now.
    Away(Error),
}

/// The end that hears updates. Dropping it ends the feed.
#[derive(Debug)]
pub struct Feed {
    updates: mpsc::Receiver<Update>,
    again: Arc<Again>,
}

/// The wish that a watch is opened again.
#[derive(Debug, Default)]
struct Again {
    notify: Notify,
    /// Whether everything is to be read again, too.
    anew: AtomicBool,
}

impl Feed {
    /// Begins to follow.
    pub fn start(client: Client, prefix: String) -> Self {
        let (sender, updates) = mpsc::channel(WAITING_MAX);
        let again = Arc::<Again>::default();
        let follower = Follower { client, prefix, from: None, watch: None };
        tokio::spawn(follower.follow(sender, Arc::clone(&again)));
        Self { updates, again }
    }

    /// The next update. May be dropped while it waits.
    pub async fn next(&mut self) -> Update {
        match self.updates.recv().await {
            Some(update) => update,
            // The task ends only with this end of it.
            None => std::future::pending().await,
        }
    }

    /// Opens the watch again now: there is reason to think that it is dead.
    pub fn again(&self) {
        self.again.notify.notify_one();
    }

    /// Reads everything again now.
    pub fn anew(&self) {
        self.again.anew.store(true, Ordering::Relaxed);
        self.again();
    }
}

struct Follower {
    client: Client,
    prefix: String,
    /// The next revision to hear of.
    from: Option<i64>,
    watch: Option<Watch>,
}

impl Follower {
    async fn follow(mut self, updates: mpsc::Sender<Update>, again: Arc<Again>) {
        loop {
            let update = tokio::select! {
                update = self.next() => update,
                () = again.notify.notified() => {
                    self.watch = None;
                    if again.anew.swap(false, Ordering::Relaxed) {
                        self.from = None;
                    }
                    continue;
                }
                () = updates.closed() => return,
            };
            let update = update.unwrap_or_else(Update::Away);
            let is_away = matches!(update, Update::Away(_));
            if updates.send(update).await.is_err() {
                return;
            }
            if is_away {
                // Woken early when another call has found etcd again.
                drop(timeout(RETRY, again.notify.notified()).await);
            }
        }
    }

    async fn next(&mut self) -> Result<Update> {
        loop {
            let Some(from) = self.from else {
                let (all, revision) = self.client.read(&self.prefix).await?;
                self.from = Some(revision + 1);
                return Ok(Update::Snapshot(all));
            };
            let watch = match &mut self.watch {
                Some(watch) => watch,
                closed @ None => {
                    let watch = self.client.watch(&self.prefix, from).await?;
                    if watch.revision() + 1 < from {
                        // An etcd that knows less than it did is another one, or was restored.
                        self.from = None;
                        continue;
                    }
                    closed.insert(watch)
                }
            };
            match timeout(QUIET, watch.next()).await {
                Ok(Ok((events, revision))) => {
                    self.from = Some(revision + 1);
                    return Ok(Update::Changes(events));
                }
                Ok(Err(error)) => {
                    self.watch = None;
                    if error != Error::Compacted {
                        return Err(error);
                    }
                    self.from = None;
                }
                Err(_) => self.watch = None,
            }
        }
    }
}
