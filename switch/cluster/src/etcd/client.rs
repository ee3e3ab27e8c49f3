//! A client of etcd: calls that find a member which answers, and a token when one is needed.
//!
//! # Theory of operation
//! The client speaks the JSON of etcd's gateway over HTTP/1.1 ([`wire`], [`super::transport`]; why not gRPC
//! is in docs/decisions/0010-etcd-by-its-gateway.md). A call goes to the member that answered last; when that
//! one is unreachable, silent, or says that it cannot serve, to the next, each once. So a call takes at most
//! [`CALL`] for each member. A call may have been done although its answer was lost, and then be done again
//! elsewhere: callers ask only for what may be done twice.
//!
//! Where etcd wants to know who we are, name and password are changed for a token with the first call, and
//! again when etcd has forgotten it. Of a stream, etcd up to 3.4.13 says no more than that it is denied,
//! whatever is wrong with its token: so a denied stream is asked for once more with a new one.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::{Address, Endpoint};
use super::error::{Error, Result};
use super::tls;
use super::transport::{Connection, Outgoing, Said, failed};
use super::watch::{Create, Watch};
use super::wire::{self, Change, Condition, LeaseId, Outcome};

/// The time a member has to answer. etcd itself gives up on agreement after five seconds and a little.
pub const CALL: Duration = Duration::from_secs(6);

/// Bytes of an answer; etcd's own limit for a request is 1.5 MiB.
const ANSWER_MAX: usize = 16 << 20;

/// Connections that are kept for the next call.
const IDLE_MAX: usize = 4;

/// The way to an etcd, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its members.
    pub address: Address,
    /// The files of TLS.
    pub tls: Option<tls::Files>,
    /// The user's name, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// A client. Clones share everything.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    endpoints: Vec<Endpoint>,
    tls: Option<TlsConnector>,
    user: Option<(String, String)>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// The member that answered last.
    preferred: usize,
    token: Option<String>,
    /// Open connections, each with its member.
    idle: Vec<(usize, Connection)>,
}

/// Something to ask.
struct Question {
    path: &'static str,
    body: Bytes,
    /// Whether request and answer go on.
    is_stream: bool,
}

enum Answer {
    Whole(Bytes),
    Watch(Watch),
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.shared.endpoints).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that has not connected yet.
    ///
    /// # Errors
    /// One line that says which file is wrong, or which is missing.
    pub fn new(access: &Access) -> std::result::Result<Self, String> {
        if access.address.secure && access.tls.is_none() {
            return Err(
                "etcds:// needs --cluster-ca FILE, with the certificate of etcd's authority".to_owned()
            );
        }
        let tls = access.tls.as_ref().map(tls::connector).transpose()?;
        let user = access.user.as_ref().map(|(name, file)| {
            let path = file.display();
            let password = std::fs::read_to_string(file)
                .map_err(|error| format!("--cluster-password-file {path}: {error}"))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            if password.is_empty() {
                return Err(format!("--cluster-password-file {path}: there is no password in it"));
            }
            Ok((name.clone(), password))
        });
        let endpoints = access.address.endpoints.clone();
        let shared = Shared { endpoints, tls, user: user.transpose()?, now: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes all changes if every condition holds, or none. May be done twice.
    ///
    /// # Errors
    /// [`Error`]; the changes may have been made nevertheless when no member was heard.
    pub async fn commit(&self, conditions: &[Condition], changes: &[Change]) -> Result<Outcome> {
        let txn: wire::Txn = self.call("/v3/kv/txn", &wire::txn(conditions, changes)).await?;
        Ok(txn.outcome())
    }

    /// Has a lease of so many seconds: keys written with it go when it is not kept alive for that long. Asked
    /// for twice, it is one lease; the time it has left is then what it was.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn grant(&self, lease: LeaseId, seconds: u32) -> Result<()> {
        let body = json!({ "ID": lease.0.to_string(), "TTL": seconds.to_string() });
        match self.call::<Value>("/v3/lease/grant", &body).await {
            Err(Error::Refused { why, .. }) if why.contains("lease already exists") => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Gives a lease its whole time again.
    ///
    /// # Errors
    /// [`Error::LeaseEnded`], and the others.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        let body = json!({ "ID": lease.0.to_string() });
        let answer: wire::Streamed<wire::Lease> = self.call("/v3/lease/keepalive", &body).await?;
        match answer.result {
            Some(lease) if lease.ttl > 0 => Ok(()),
            _ => Err(Error::LeaseEnded),
        }
    }

    /// Ends a lease: keys written with it go now.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn revoke(&self, lease: LeaseId) -> Result<()> {
        let body = json!({ "ID": lease.0.to_string() });
        self.call::<Value>("/v3/lease/revoke", &body).await.map(drop)
    }

    /// Follows the changes of ranges. There must be one at least: etcd answers nothing before.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn watch(&self, ranges: &[Create]) -> Result<Watch> {
        let body = Bytes::from(ranges.iter().map(Create::request).collect::<String>());
        match self.somewhere(&Question { path: "/v3/watch", body, is_stream: true }).await? {
            (_, Answer::Watch(watch)) => Ok(watch),
            (endpoint, Answer::Whole(_)) => {
                Err(Error::Protocol { endpoint, why: "a watch has an end".to_owned() })
            }
        }
    }

    /// Has the next call go to another member than this one, which is not heard any more.
    pub(super) fn avoid(&self, endpoint: &Endpoint) {
        let mut now = self.now();
        if self.endpoint(now.preferred) == endpoint {
            now.preferred = (now.preferred + 1) % self.shared.endpoints.len();
        }
    }

    /// The error that the member that answered last is odd.
    pub(super) fn strange(&self, why: &str) -> Error {
        Error::Protocol { endpoint: self.endpoint(self.now().preferred).clone(), why: why.to_owned() }
    }

    pub(super) async fn call<T: DeserializeOwned>(&self, path: &'static str, body: &Value) -> Result<T> {
        let body = Bytes::from(body.to_string());
        let (endpoint, answer) = self.somewhere(&Question { path, body, is_stream: false }).await?;
        let why = match answer {
            Answer::Whole(answer) => match serde_json::from_slice(&answer) {
                Ok(answer) => return Ok(answer),
                Err(error) => error.to_string(),
            },
            Answer::Watch(_) => "an answer has no end".to_owned(),
        };
        Err(Error::Protocol { endpoint, why })
    }

    /// Asks one member after the other, until one answers for all of them.
    async fn somewhere(&self, question: &Question) -> Result<(Endpoint, Answer)> {
        let (first, count) = (self.now().preferred, self.shared.endpoints.len());
        let mut outcome = self.ask(first, question).await;
        let mut index = first;
        for step in 1..count {
            if !outcome.as_ref().is_err_and(Error::is_of_one_member) {
                break;
            }
            index = (first + step) % count;
            outcome = self.ask(index, question).await;
        }
        if outcome.is_ok() {
            self.now().preferred = index;
        }
        outcome.map(|answer| (self.endpoint(index).clone(), answer))
    }

    /// Asks a member with the token that there is, and once more with a new one.
    async fn ask(&self, index: usize, question: &Question) -> Result<Answer> {
        let known = self.now().token.clone();
        let is_new = known.is_none();
        let token = match known {
            None => self.authenticate(index).await?,
            known => known,
        };
        let outcome = self.ask_as(index, question, token).await;
        let is_stale = match &outcome {
            Err(Error::Token { .. }) => true,
            Err(Error::Forbidden { .. }) => question.is_stream && !is_new,
            _ => false,
        };
        if !is_stale || self.shared.user.is_none() {
            return outcome;
        }
        let token = self.authenticate(index).await?;
        self.ask_as(index, question, token).await
    }

    async fn ask_as(&self, index: usize, question: &Question, token: Option<String>) -> Result<Answer> {
        let Question { path, body, is_stream } = question;
        let answer = async {
            if *is_stream {
                self.open_watch(index, path, body, token.as_deref()).await.map(Answer::Watch)
            } else {
                self.exchange(index, path, body, token.as_deref()).await.map(Answer::Whole)
            }
        };
        timeout(CALL, answer).await.unwrap_or_else(|_| Err(silent(self.endpoint(index))))
    }

    /// A watch has a connection of its own.
    async fn open_watch(&self, index: usize, path: &str, body: &Bytes, token: Option<&str>) -> Result<Watch> {
        let endpoint = self.endpoint(index);
        let said = Said { token, needs_leader: true };
        let mut connection = Connection::open(endpoint, self.shared.tls.as_ref()).await?;
        let (requests, stream) = mpsc::unbounded_channel();
        // The other end is here.
        let _ = requests.send(body.clone());
        let answer = connection.post(endpoint, path, Outgoing::Stream(stream), said).await?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(self.refusal(endpoint, status, &collect(endpoint, answer).await?));
        }
        let (body, driver) = (answer.into_body(), connection.into_driver());
        Watch::created(endpoint.clone(), requests, body, driver, self.user()).await
    }

    /// Changes name and password for a token, where there are any and etcd wants them.
    async fn authenticate(&self, index: usize) -> Result<Option<String>> {
        let Some((name, password)) = &self.shared.user else { return Ok(None) };
        let body = Bytes::from(json!({ "name": name, "password": password }).to_string());
        let exchange = self.exchange(index, "/v3/auth/authenticate", &body, None);
        let endpoint = self.endpoint(index);
        let answer = match timeout(CALL, exchange).await.unwrap_or_else(|_| Err(silent(endpoint))) {
            Err(Error::Refused { why, .. }) if why.contains("authentication is not enabled") => {
                return Ok(None);
            }
            answer => answer?,
        };
        let answer: wire::Authenticated = serde_json::from_slice(&answer)
            .map_err(|error| Error::Protocol { endpoint: endpoint.clone(), why: error.to_string() })?;
        self.now().token = Some(answer.token.clone());
        Ok(Some(answer.token))
    }

    /// One request to one member, over a connection that is open if there is one.
    async fn exchange(&self, index: usize, path: &str, body: &Bytes, token: Option<&str>) -> Result<Bytes> {
        let endpoint = self.endpoint(index);
        let said = Said { token, needs_leader: false };
        let (connection, answer) = loop {
            let idle = self.idle(index);
            let was_idle = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => Connection::open(endpoint, self.shared.tls.as_ref()).await?,
            };
            match connection.post(endpoint, path, Outgoing::Whole(Some(body.clone())), said).await {
                // The idle one may have been closed meanwhile; the next one is new in the end.
                Err(_) if was_idle => {}
                answer => break (connection, answer?),
            }
        };
        let status = answer.status();
        let answer = collect(endpoint, answer).await?;
        if connection.is_open() {
            let mut now = self.now();
            if now.idle.len() < IDLE_MAX {
                now.idle.push((index, connection));
            }
        }
        if status == StatusCode::OK { Ok(answer) } else { Err(self.refusal(endpoint, status, &answer)) }
    }

    fn refusal(&self, endpoint: &Endpoint, status: StatusCode, body: &[u8]) -> Error {
        if let Ok(refusal) = serde_json::from_slice::<wire::Refusal>(body) {
            return Error::said(endpoint, refusal.code, &refusal.message, self.user());
        }
        let text = String::from_utf8_lossy(body);
        let (endpoint, text) = (endpoint.clone(), text.trim());
        if text.contains("HTTP request to an HTTPS server") {
            let why = "it wants TLS: give --cluster-ca FILE".to_owned();
            return Error::Tls { endpoint, why };
        }
        Error::Protocol { endpoint, why: format!("{status} {}", text.chars().take(80).collect::<String>()) }
    }

    fn idle(&self, index: usize) -> Option<Connection> {
        let mut now = self.now();
        let at = now.idle.iter().position(|(of, _)| *of == index)?;
        Some(now.idle.swap_remove(at).1)
    }

    fn endpoint(&self, index: usize) -> &Endpoint {
        &self.shared.endpoints[index]
    }

    fn user(&self) -> &str {
        self.shared.user.as_ref().map_or("", |(name, _)| name)
    }

    /// Never held across an await.
    fn now(&self) -> MutexGuard<'_, Now> {
        self.shared.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn silent(endpoint: &Endpoint) -> Error {
    Error::Silent { endpoint: endpoint.clone(), seconds: CALL.as_secs() }
}

async fn collect(endpoint: &Endpoint, answer: hyper::Response<hyper::body::Incoming>) -> Result<Bytes> {
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            return Error::TooLarge { endpoint: endpoint.clone(), bytes: ANSWER_MAX };
        }
        failed(endpoint, error.as_ref())
    })
}
