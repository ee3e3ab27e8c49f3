//! The resolver: it finds out names that are not ours, by asking the host's name servers.
//!
//! # Theory of operation
//!
//! The datapath has no network, so it asks here: one message of its channel is one question, and one message
//! back its answer ([`vswitch_contract::names`]). Each question is a task of its own, beside the actor and
//! never in its way. It goes to at most [`servers::SERVERS_MAX`] servers, from the host's network namespace,
//! so that a server on the host's loopback, such as that of systemd-resolved, is one like any other. It goes
//! over UDP from a port of its own with an identifier nobody can guess, and again over TCP if the answer was
//! cut short.
//!
//! The servers are asked in the order of the file. The next one is asked, too, when one fails or refuses,
//! and when it has had a [`HEAD_START`]; at once where it is known to be silent ([`servers`]). The first
//! answer that is no failure is the answer. After [`PATIENCE`], or [`PATIENCE_WITH_SILENT`] where all are
//! known to be silent, the last failure is passed on, and silence of all becomes one: a client asks for one
//! name under several, and each several times, and all of it is to take no longer than seconds.
//!
//! Questions and answers pass byte by byte but for identifiers and lifetimes, so what a container asks
//! for is what the server is asked for. Answers are kept for as long as they say, within the limits of
//! [`cache`]; one that comes late is kept for who asks again.
//!
//! | module | |
//! |---|---|
//! | [`servers`] | which servers there are: the host's `resolv.conf`; which of them keep silent |
//! | [`exchange`] | one question to one server |
//! | [`cache`] | answers that still hold |

pub mod cache;
pub mod exchange;
pub mod servers;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use vswitch_contract::names::NUMBER_BYTES;
use vswitch_contract::names::message::{self, Query, Rcode};
use vswitch_sys::clock;
use vswitch_sys::seqpacket::{Channel, MESSAGE_BYTES_MAX};

use crate::resolver::cache::Cache;
use crate::resolver::servers::{SERVERS_MAX, Server, Servers};

/// Questions of one datapath that are worked on at once: as many as it keeps askers for. One that has more is
/// told that the server failed.
pub const QUESTIONS_MAX: usize = 1024;
/// Time that a server has to answer before the next is asked, too.
pub const HEAD_START: Duration = Duration::from_millis(300);
/// Time after which a server that has said nothing, to any question, is known to be silent: so short that all
/// are, one after the other, within [`PATIENCE`].
pub const SILENT_AFTER: Duration = Duration::from_millis(1250);
/// Time that a question may take.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Time that a question may take where all servers are known to be silent.
pub const PATIENCE_WITH_SILENT: Duration = Duration::from_millis(250);

/// The resolver. Clones are the same.
#[derive(Clone, Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    servers: Mutex<Servers>,
    cache: Mutex<Cache>,
    port: u16,
}

impl Resolver {
    /// A resolver that asks the servers which the file at `resolv_conf` names.
    pub fn new(resolv_conf: PathBuf) -> Self {
        Self::with_port(resolv_conf, exchange::DNS_PORT)
    }

    fn with_port(resolv_conf: PathBuf, port: u16) -> Self {
        let (servers, cache) = (Mutex::new(Servers::new(resolv_conf)), Mutex::new(Cache::default()));
        Self { shared: Arc::new(Shared { servers, cache, port }) }
    }

    /// Serves the datapath at the other end of a channel, until that is gone.
    ///
    /// # Errors
    /// When the runtime cannot wait for the channel.
    pub fn serve(&self, channel: Channel) -> io::Result<()> {
        let channel = Arc::new(channel.into_async()?);
        tokio::spawn(self.clone().receive(channel, Arc::new(Semaphore::new(QUESTIONS_MAX))));
        Ok(())
    }

    /// Works on as many questions at once as there are places.
    async fn receive(self, channel: Arc<AsyncFd<Channel>>, places: Arc<Semaphore>) {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        while let Ok(mut guard) = channel.readable().await {
            match channel.get_ref().receive(&mut buffer) {
                Ok(Some((length, _))) => {
                    let asked = &buffer[..length];
                    // The datapath limits how many it has in flight, as long as it is what it was.
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                        refuse(&channel, asked);
                        continue;
                    };
                    let (resolver, channel, asked) = (self.clone(), Arc::clone(&channel), asked.to_vec());
                    tokio::spawn(async move {
                        resolver.answer(channel, asked).await;
                        drop(place);
                    });
                }
                Ok(None) => guard.clear_ready(),
                Err(_) => return,
            }
        }
    }

    async fn answer(self, channel: Arc<AsyncFd<Channel>>, asked: Vec<u8>) {
        let (number, question) = asked.split_at(asked.len().min(NUMBER_BYTES));
        let Some(answer) = self.find_out(question).await else { return };
        // On a full or closed channel the answer is lost: the datapath gives the question up in time.
        let _ = channel.get_ref().send(&[number, &answer].concat(), &[]);
    }

    /// The answer to a question; `None` for what is none.
    pub async fn find_out(&self, question: &[u8]) -> Option<Vec<u8>> {
        let query = Query::parse(question).ok()?;
        let kept = lock(&self.shared.cache).look_up(question, &query, clock::now());
        if kept.is_some() {
            return kept;
        }
        let servers = lock(&self.shared.servers).now();
        let mut answer = self.ask_all(servers, question).await.unwrap_or_else(|| failure(&query));
        message::set_id(&mut answer, query.id);
        Some(answer)
    }

    /// The first answer that is no failure, or else the last failure; `None` where all keep silent.
    async fn ask_all(&self, servers: Vec<Server>, question: &[u8]) -> Option<Vec<u8>> {
        let all_silent = servers.iter().all(Server::is_silent);
        let patience = if all_silent { PATIENCE_WITH_SILENT } else { PATIENCE };
        let mut best = None;
        // In time or not, a failure that was heard is passed on.
        let _ = timeout(patience, self.ask_in_turn(servers, question, &mut best)).await;
        best
    }

    /// Asks each server, with a head start before the next, until there is an answer that is no failure.
    async fn ask_in_turn(&self, servers: Vec<Server>, question: &[u8], best: &mut Option<Vec<u8>>) {
        let (tell, mut told) = mpsc::channel(SERVERS_MAX);
        for (place, server) in servers.into_iter().enumerate() {
            let is_silent = server.is_silent();
            if !self.begin(place, server, question, tell.clone()) || is_silent {
                continue;
            }
            let until = Instant::now() + HEAD_START;
            while let Ok(Some((from, answer))) = timeout_at(until, told.recv()).await {
                *best = answer.or(best.take());
                if is_good(best) {
                    return;
                }
                if from == place {
                    break;
                }
            }
        }
        drop(tell);
        while !is_good(best)
            && let Some((_, answer)) = told.recv().await
        {
            *best = answer.or(best.take());
        }
    }

    /// Begins to ask a server, which goes on by itself. Says whether it did: a server that owes too many
    /// answers is not asked.
    fn begin(&self, from: usize, server: Server, question: &[u8], tell: Told) -> bool {
        let Some(place) = server.place() else { return false };
        let (resolver, question) = (self.clone(), question.to_vec());
        tokio::spawn(async move {
            let answer = resolver.ask_one(&server, &question).await;
            // Nobody listens to what comes late.
            let _ = tell.send((from, answer)).await;
            drop(place);
        });
        true
    }

    /// Asks a server, notes whether it speaks, and keeps its answer.
    async fn ask_one(&self, server: &Server, question: &[u8]) -> Option<Vec<u8>> {
        let before = server.answers();
        let mut asking = std::pin::pin!(exchange::ask((server.address, self.shared.port).into(), question));
        let answer = match timeout(SILENT_AFTER, &mut asking).await {
            Ok(answer) => answer,
            Err(_) => {
                server.was_silent_since(before);
                asking.await
            }
        };
        let answer =
            answer.inspect_err(|error| tracing::debug!("{}: no answer: {error}", server.address)).ok()?;
        server.speaks();
        let query = Query::parse(question).ok()?;
        let mut cache = lock(&self.shared.cache);
        if cache.look_up(question, &query, clock::now()).is_none() {
            cache.keep(question, &query, &answer, clock::now());
        }
        drop(cache);
        Some(answer)
    }
}

/// An answer of the server at a place in the list of them; `None` for none.
type Told = mpsc::Sender<(usize, Option<Vec<u8>>)>;

/// Whether there is an answer that no other server could better.
fn is_good(answer: &Option<Vec<u8>>) -> bool {
    let is_failure = |answer| matches!(Rcode::of(answer), Some(Rcode::ServerFailure | Rcode::Refused));
    answer.as_deref().is_some_and(|answer| !is_failure(answer))
}

/// Answers a question by a server failure, at once.
fn refuse(channel: &AsyncFd<Channel>, asked: &[u8]) {
    let (number, question) = asked.split_at(asked.len().min(NUMBER_BYTES));
    if let Ok(query) = Query::parse(question) {
        let _ = channel.get_ref().send(&[number, &failure(&query)].concat(), &[]);
    }
}

fn failure(query: &Query<'_>) -> Vec<u8> {
    let mut failure = Vec::new();
    message::empty(query, Rcode::ServerFailure, &mut failure);
    failure
}

/// Locks for a moment that nothing waits in; what a panic left is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
