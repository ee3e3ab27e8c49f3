//! Reading a range a page at a time, all at one revision.
//!
//! Answers have a limit, so a page that is too large is asked for again with fewer keys. A single key whose
//! value alone is too large is passed over: it is nothing that a switch wrote, and the rest must be read.

use serde_json::Value;

use super::client::Client;
use super::error::{Error, Result};
use super::wire::{self, KeyRange, KeyValue};

/// Keys of a page.
const PAGE: u32 = 500;

/// The part of a range that is still to be read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    rest: KeyRange,
    /// The revision, once there is one.
    revision: Option<i64>,
    limit: u32,
}

/// Some keys of a range, in their order.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) found: Vec<KeyValue>,
    pub(super) revision: i64,
    /// Where to go on, if there is more.
    pub(super) next: Option<Reading>,
}

impl Reading {
    /// The whole range, at a revision or as it is now.
    pub(super) fn new(range: KeyRange, revision: Option<i64>) -> Self {
        Self { rest: range, revision, limit: PAGE }
    }

    /// The next page. Nothing is lost when it is dropped while it waits.
    pub(super) async fn page(&self, client: &Client) -> Result<Read> {
        let mut limit = self.limit;
        loop {
            match self.ask(client, limit, false).await {
                Err(Error::TooLarge { .. }) if limit > 1 => limit /= 2,
                Err(Error::TooLarge { .. }) => {
                    let page = self.ask(client, 1, true).await?;
                    let key = page.kvs.first().map(|found| found.key.clone()).unwrap_or_default();
                    tracing::warn!("etcd has more than can be read under {key}: remove it");
                    let read = self.go_on(client, page, limit)?;
                    return Ok(Read { found: Vec::new(), ..read });
                }
                page => return self.go_on(client, page?, limit),
            }
        }
    }

    async fn ask(&self, client: &Client, limit: u32, keys_only: bool) -> Result<wire::Range> {
        let body: Value = wire::range(&self.rest, self.revision, limit, keys_only);
        client.call("/v3/kv/range", &body).await
    }

    fn go_on(&self, client: &Client, page: wire::Range, limit: u32) -> Result<Read> {
        let wire::Range { header, kvs: found, more } = page;
        let revision = self.revision.unwrap_or(header.revision);
        let mut next = None;
        if more {
            let start = found.last().map(KeyValue::behind).unwrap_or_default();
            if start <= self.rest.start {
                return Err(client.strange("it has more, and a page that does not go on"));
            }
            let rest = KeyRange { start, end: self.rest.end.clone() };
            next = Some(Self { rest, revision: Some(revision), limit: PAGE.min(limit * 2) });
        }
        Ok(Read { found, revision, next })
    }
}

impl Client {
    /// Every key of a range, and the revision at which they were so.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read(&self, range: &KeyRange) -> Result<(Vec<KeyValue>, i64)> {
        let (mut all, mut reading) = (Vec::new(), Reading::new(range.clone(), None));
        loop {
            let read = reading.page(self).await?;
            all.extend(read.found);
            match read.next {
                Some(next) => reading = next,
                None => return Ok((all, read.revision)),
            }
        }
    }
}
