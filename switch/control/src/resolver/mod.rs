//! The resolver: it finds out names that are not ours, by asking the host's name servers.
//!
//! # Theory of operation
//!
//! The datapath has no network, so it asks here: one message of its channel is one question, and one message
//! back its answer ([`vswitch_contract::names`]). Each question is a task of its own, beside the actor and
//! never in its way. It goes to at most [`servers::SERVERS_MAX`] servers in turn, to each for
//! [`exchange::PATIENCE`], over UDP from a port of its own with an identifier nobody can guess, and again
//! over TCP if the answer was cut short. A server that fails, refuses or keeps silent is followed by the
//! next; the last failure is passed on, and silence of all becomes one.
//!
//! Questions and answers pass byte by byte but for identifiers and lifetimes, so what a container asks
//! for is what the server is asked for. Answers are kept for as long as they say, within the limits of
//! [`cache`].
//!
//! | module | |
//! |---|---|
//! | [`servers`] | which servers there are: the host's `resolv.conf` |
//! | [`exchange`] | one question to one server |
//! | [`cache`] | answers that still hold |

pub mod cache;
pub mod exchange;
pub mod servers;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use vswitch_contract::names::NUMBER_BYTES;
use vswitch_contract::names::message::{self, Query, Rcode};
use vswitch_sys::clock;
use vswitch_sys::seqpacket::{Channel, MESSAGE_BYTES_MAX};

use crate::resolver::cache::Cache;
use crate::resolver::servers::Servers;

/// Questions of one datapath that are worked on at once: as many as it keeps askers for. One that has more is
/// told that the server failed.
pub const QUESTIONS_MAX: usize = 1024;

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
        let mut answer = None;
        for server in servers {
            let found = exchange::ask((server, self.shared.port).into(), question).await;
            let Ok(found) = found.inspect_err(|error| tracing::debug!(%server, "no answer: {error}")) else {
                continue;
            };
            let failed = matches!(Rcode::of(&found), Some(Rcode::ServerFailure | Rcode::Refused));
            answer = Some(found);
            if !failed {
                break;
            }
        }
        let mut answer = answer.unwrap_or_else(|| failure(&query));
        message::set_id(&mut answer, query.id);
        lock(&self.shared.cache).keep(question, &query, &answer, clock::now());
        Some(answer)
    }
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
