//! A stream of watches: changes of many ranges as they happen, one JSON text to a line, over one request and
//! one answer that both do not end.
//!
//! Ranges are added and given up while the stream is open, and it can be asked whether it lives. Each message
//! has a limit: one that is larger is dropped as it arrives, and its range is to be read again.

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::sync::mpsc;

use super::address::Endpoint;
use super::error::{Error, Result};
use super::transport::{Driver, failed};
use super::wire::{self, Event, KeyRange, Streamed, Watched};

/// The most bytes of one message. etcd sends changes in pieces as large as the requests it takes (1.5 MiB).
const MESSAGE_MAX: usize = 16 << 20;

/// The beginning of a message that is too large, in which its watch is named.
const HEAD: usize = 512;

/// A range to follow.
#[derive(Clone, Debug)]
pub struct Create {
    /// The number of the watch, which is another one for each of a stream, and not zero.
    pub id: i64,
    /// The range.
    pub range: KeyRange,
    /// The first revision to hear of.
    pub from: i64,
}

impl Create {
    /// The line that asks for it.
    pub(super) fn request(&self) -> String {
        format!("{}\n", wire::create(self.id, &self.range, self.from))
    }
}

/// News of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A watch has begun, when etcd was at this revision.
    Created(i64, i64),
    /// Changes of a watch, and the first revision that is still to be heard of.
    Changes(i64, Vec<Event>, i64),
    /// A watch that has ended, or whose changes cannot be had: if it is wanted, its range is to be read
    /// again; all of them, if it is not known which.
    Lost(Option<i64>),
    /// Nothing has happened.
    Alive,
}

/// An open stream. Dropping it ends it.
pub struct Watch {
    pub(super) endpoint: Endpoint,
    user: String,
    requests: mpsc::UnboundedSender<Bytes>,
    body: Incoming,
    /// The part of the next messages that has arrived, and how much of it was handed on.
    arrived: (Vec<u8>, usize),
    /// The beginning of the message that is dropped.
    head: Option<Vec<u8>>,
    /// The first message, until it is asked for.
    first: Option<News>,
    _driver: Driver,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Watch {
    /// The stream that an answer is, once etcd has said that there is one.
    pub(super) async fn created(
        endpoint: Endpoint,
        requests: mpsc::UnboundedSender<Bytes>,
        body: Incoming,
        driver: Driver,
        user: &str,
    ) -> Result<Self> {
        let (user, arrived) = (user.to_owned(), (Vec::new(), 0));
        let mut watch =
            Self { endpoint, user, requests, body, arrived, head: None, first: None, _driver: driver };
        let first = watch.next().await?;
        if matches!(first, News::Changes(..) | News::Alive) {
            return Err(watch.strange("a watch begins with something else"));
        }
        watch.first = Some(first);
        Ok(watch)
    }

    /// Follows one more range.
    pub fn create(&self, range: &Create) {
        self.ask(range.request());
    }

    /// Follows a range no longer.
    pub fn cancel(&self, id: i64) {
        self.ask(format!("{}\n", wire::cancel(id)));
    }

    /// Asks for a sign of life.
    pub fn ask_progress(&self) {
        self.ask(format!("{}\n", wire::progress()));
    }

    /// An error of the connection is seen by whoever reads.
    fn ask(&self, line: String) {
        let _ = self.requests.send(line.into());
    }

    /// The next news. May be dropped while it waits, and asked again.
    ///
    /// # Errors
    /// [`Error`], when the stream has ended, or one of its watches for a reason that is all of theirs.
    pub async fn next(&mut self) -> Result<News> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let line = match self.line().await? {
            Line::Whole(line) => line,
            Line::TooLarge(head) => return Ok(News::Lost(named(&head))),
        };
        let message: Streamed<Watched> =
            serde_json::from_slice(&line).map_err(|error| self.strange(&error.to_string()))?;
        if let Some(refusal) = message.error {
            return Err(Error::said(&self.endpoint, refusal.code, &refusal.message, &self.user));
        }
        self.read(message.result.unwrap_or_default())
    }

    fn read(&self, message: Watched) -> Result<News> {
        let Watched { header, watch_id: id, events, fragment, .. } = message;
        if message.compact_revision > 0 || message.canceled && message.cancel_reason.is_empty() {
            return Ok(News::Lost(Some(id)));
        }
        if message.canceled {
            return Err(self.canceled(&message.cancel_reason));
        }
        if message.created {
            return Ok(News::Created(id, header.revision));
        }
        Ok(match events.iter().map(|event| event.kv.mod_revision).max() {
            Some(newest) => News::Changes(id, events, newest + i64::from(!fragment)),
            None => News::Alive,
        })
    }

    /// The reason is the text of a gRPC error, whose code has a name here.
    fn canceled(&self, reason: &str) -> Error {
        let message = reason.split_once(" desc = ").map_or(reason, |(_, message)| message);
        let code = [("Unauthenticated", 16), ("PermissionDenied", 7), ("Unavailable", 14)];
        let code = code.iter().find(|(name, _)| reason.contains(name)).map_or(0, |(_, code)| *code);
        Error::said(&self.endpoint, code, message, &self.user)
    }

    async fn line(&mut self) -> Result<Line> {
        let mut searched = self.arrived.1;
        loop {
            let (bytes, begin) = &mut self.arrived;
            if let Some(length) = bytes[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + length + 1;
                let line = bytes[*begin..end].to_vec();
                *begin = end;
                return Ok(self.head.take().map_or(Line::Whole(line), Line::TooLarge));
            }
            bytes.drain(..*begin);
            *begin = 0;
            if bytes.len() > MESSAGE_MAX || self.head.is_some() {
                self.head.get_or_insert_with(|| bytes[..HEAD].to_vec());
                bytes.clear();
            }
            searched = bytes.len();
            let frame = self.body.frame().await.ok_or_else(|| self.ended())?;
            let frame = frame.map_err(|error| failed(&self.endpoint, &error))?;
            if let Ok(data) = frame.into_data() {
                self.arrived.0.extend_from_slice(&data);
            }
        }
    }

    fn ended(&self) -> Error {
        Error::Unreachable { endpoint: self.endpoint.clone(), why: "it ended the watch".to_owned() }
    }

    fn strange(&self, why: &str) -> Error {
        Error::Protocol { endpoint: self.endpoint.clone(), why: why.to_owned() }
    }
}

enum Line {
    Whole(Vec<u8>),
    /// Its beginning.
    TooLarge(Vec<u8>),
}

/// The watch that a message is of, by its beginning.
fn named(head: &[u8]) -> Option<i64> {
    let text = String::from_utf8_lossy(head);
    let (_, rest) = text.split_once("\"watch_id\":")?;
    let rest = rest.trim_start().strip_prefix('"')?;
    rest.split_once('"')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_its_watch_at_its_beginning() {
        let text =
            br#"{"result":{"header":{"cluster_id":"14","revision":"4"},"watch_id":"17","events":[{"kv"#;
        assert_eq!(named(text), Some(17));
        assert_eq!(named(br#"{"watch_id": "3","#), Some(3));
        assert_eq!(named(b"{}"), None);
    }
}
