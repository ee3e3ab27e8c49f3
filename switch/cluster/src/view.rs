//! The view: it tells control of other hosts, and takes from it what others shall know.
//!
//! # Theory of operation
//! A *source* is a task beside the actor ([gossip](super::gossip), [etcd](super::etcd)). It and control
//! exchange messages, and share nothing:
//!
//! ```text
//!   control ── Request ──► source      Publish, Claim, Acquire
//!   control ◄── Event ──── source      Records, Host, Asked, Lost
//! ```
//!
//! What a source must do:
//!
//! * **Start with all it knows**: every live record, and the state of every host, are the first events.
//! * **Records**: hand over each record that is news, tombstones included, in any order: control merges them
//!   by [`Record::rank`]. Records that control published come back only if somebody else's outranks them.
//! * **Publish**: bring records to all others as soon as it can, whatever happens meanwhile. The queue is the
//!   source's: control never waits. Publishing a tombstone withdraws.
//! * **Claim**: publish, but only if none of the keys has a live record, as far as this can be known.
//! * **Acquire**: get this host some addresses of a network, so that nobody else has them. The answer is the
//!   [`Key::Space`](super::record::Key::Space) records that say so, already published.
//! * **Asked**: a source without a place where all agree asks the owner of the addresses; the question
//!   arrives at the owner's control by this event, and what it answers is handed to the host that asked.
//! * **Host**: say when another host is reachable and when it is not. What it wrote stays in place, but
//!   frames are no longer sent to it and its names are not answered.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::id::Id;
use super::record::{HostId, Record};

/// A question for addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The identifier of the network.
    pub network: Id,
    /// The name of the network, for people.
    pub name: String,
    /// The host that asks.
    pub host: HostId,
    /// The addresses.
    pub wish: Wish,
}

/// The addresses that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// This one.
    Exact(IpAddr),
    /// Some of this subnet: half of what the owner has left is usual.
    Some(IpNet),
}

/// The answer to a question: records that say whose the addresses are now, or one line why not.
pub type Answer = Result<Vec<Record>, String>;

/// A wish of control to a source.
#[derive(Debug)]
pub enum Request {
    /// Says something new.
    Publish(Vec<Record>),
    /// Says something new unless somebody has said something of one of these keys, which is then the answer.
    Claim(Vec<Record>, oneshot::Sender<Result<(), Refused>>),
    /// Gets addresses.
    Acquire(Ask, oneshot::Sender<Answer>),
}

/// The reason that a claim came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The record of somebody else, who was first.
    Taken(Box<Record>),
    /// One line why nobody can say now.
    Unsure(String),
}

/// News from a source to control.
#[derive(Debug)]
pub enum Event {
    /// Records that are news. The source has them, too: they are shared.
    Records(Vec<Arc<Record>>),
    /// A host that has come, or is gone.
    Host(HostId, Presence),
    /// A question of another host, for addresses that this one owns.
    Asked(Ask, oneshot::Sender<Answer>),
}

/// Whether a host takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// A host that does.
    Up,
    /// A host that cannot be reached, or has left.
    Down,
}

/// Control's end. Clones are the same view.
#[derive(Clone, Debug)]
pub struct View {
    requests: mpsc::UnboundedSender<Request>,
    common_space: bool,
}

/// The source's end.
#[derive(Debug)]
pub struct Source {
    /// Control's wishes.
    pub requests: mpsc::UnboundedReceiver<Request>,
    /// Takes news for control.
    pub events: mpsc::UnboundedSender<Event>,
}

/// Both ends, and the news that the source tells.
pub fn channel() -> (View, mpsc::UnboundedReceiver<Event>, Source) {
    let (requests, wanted) = mpsc::unbounded_channel();
    let (events, told) = mpsc::unbounded_channel();
    (View { requests, common_space: false }, told, Source { requests: wanted, events })
}

impl View {
    /// This view, for a source where all agree: addresses of a new network are nobody's at first.
    pub fn with_common_space(self) -> Self {
        Self { common_space: true, ..self }
    }

    /// The first owner of the addresses of a network that this host makes.
    pub fn first_owner(&self, me: HostId) -> Option<HostId> {
        (!self.common_space).then_some(me)
    }

    /// Has records brought to all others. Never waits.
    pub fn publish(&self, records: Vec<Record>) {
        if !records.is_empty() {
            // A source that is gone ended with the daemon.
            let _ = self.requests.send(Request::Publish(records));
        }
    }

    /// Has records brought to all others unless somebody was first.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn claim(&self, records: Vec<Record>) -> Result<(), Refused> {
        let gone = || Refused::Unsure("the cluster's source has ended: start the daemon again".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Claim(records, answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Gets addresses for this host. Takes as long as another host takes to answer, so never within a job.
    ///
    /// # Errors
    /// One line, when nobody has one left, or who has cannot be reached.
    pub async fn acquire(&self, ask: Ask) -> Answer {
        let gone = |_| "the cluster's source has ended: start the daemon again".to_owned();
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(Request::Acquire(ask, answer)).map_err(|error| gone(error.to_string()));
        match sent {
            Ok(()) => answered.await.map_err(|error| gone(error.to_string())).and_then(|answer| answer),
            Err(refusal) => Err(refusal),
        }
    }
}
