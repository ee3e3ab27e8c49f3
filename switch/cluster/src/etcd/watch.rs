//! A watch: changes as they happen, one JSON text to a line, over an answer that does not end.

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::address::Endpoint;
use super::error::{Error, Result};
use super::transport::{Driver, failed};
use super::wire::{Event, Streamed, Watched};

/// The most bytes of one message; etcd sends a revision's events in one.
const MESSAGE_MAX: usize = 64 << 20;

/// An open watch. Dropping it ends it.
pub struct Watch {
    endpoint: Endpoint,
    user: String,
    body: Incoming,
    /// etcd's revision when the watch began.
    revision: i64,
    /// The part of the next messages that has arrived.
    arrived: Vec<u8>,
    _driver: Driver,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Watch {
    /// The watch that an answer is, once etcd has said that there is one.
    pub(super) async fn created(
        endpoint: Endpoint,
        body: Incoming,
        driver: Driver,
        user: &str,
    ) -> Result<Self> {
        let user = user.to_owned();
        let mut watch = Self { endpoint, user, body, revision: 0, arrived: Vec::new(), _driver: driver };
        let first = watch.message().await?;
        if !first.created {
            return Err(watch.strange("a watch begins with something else"));
        }
        watch.revision = first.header.revision;
        Ok(watch)
    }

    /// The revision etcd was at when the watch began.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The next changes, and the revision they lead to. May be dropped while it waits, and asked again.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the changes that are asked for are gone; the others when the watch has
    /// ended.
    pub async fn next(&mut self) -> Result<(Vec<Event>, i64)> {
        loop {
            let message = self.message().await?;
            let newest = message.events.iter().map(|event| event.kv.mod_revision).max();
            if let Some(newest) = newest {
                return Ok((message.events, newest));
            }
        }
    }

    async fn message(&mut self) -> Result<Watched> {
        let line = self.line().await?;
        let message: Streamed<Watched> =
            serde_json::from_slice(&line).map_err(|error| self.strange(&error.to_string()))?;
        if let Some(refusal) = message.error {
            return Err(Error::said(&self.endpoint, refusal.code, &refusal.message, &self.user));
        }
        let message = message.result.unwrap_or_default();
        if message.compact_revision > 0 {
            return Err(Error::Compacted);
        }
        if message.canceled {
            return Err(self.canceled(&message.cancel_reason));
        }
        Ok(message)
    }

    /// The reason is the text of a gRPC error, whose code has a name here.
    fn canceled(&self, reason: &str) -> Error {
        let message = reason.split_once(" desc = ").map_or(reason, |(_, message)| message);
        let code = [("Unauthenticated", 16), ("PermissionDenied", 7), ("Unavailable", 14)];
        let code = code.iter().find(|(name, _)| reason.contains(name)).map_or(0, |(_, code)| *code);
        Error::said(&self.endpoint, code, message, &self.user)
    }

    async fn line(&mut self) -> Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let end = self.arrived[searched..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end.map(|end| end + searched) {
                let rest = self.arrived.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.arrived, rest));
            }
            searched = self.arrived.len();
            if searched > MESSAGE_MAX {
                return Err(self.strange("a message has no end"));
            }
            let frame = self.body.frame().await.ok_or_else(|| self.ended())?;
            let frame = frame.map_err(|error| failed(&self.endpoint, &error))?;
            if let Ok(data) = frame.into_data() {
                self.arrived.extend_from_slice(&data);
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
