//! etcd's v3 API as its gateway speaks it: JSON, with bytes in base64 and 64-bit numbers as text.
//!
//! Fields with their zero value are left out of answers, so all of them have defaults. Only the used part is
//! here; the whole is etcd's `api/etcdserverpb/rpc.proto`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseId(pub i64);

/// Keys from one on up to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyRange {
    /// The first.
    pub start: Vec<u8>,
    /// The first that is no longer one of them.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// The keys from `start` on up to `end`.
    pub fn between(start: &str, end: &str) -> Self {
        Self { start: start.into(), end: end.into() }
    }

    /// The keys that start with `prefix`: they end before the prefix with its last byte one higher.
    pub fn prefix(prefix: &str) -> Self {
        let mut end = prefix.as_bytes().to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start: prefix.into(), end };
            }
        }
        Self { start: prefix.into(), end: vec![0] }
    }

    /// One key.
    pub fn one(key: &str) -> Self {
        Self::between(key, &format!("{key}\0"))
    }

    /// Whether it has a key.
    pub fn contains(&self, key: &str) -> bool {
        (self.start.as_slice()..self.end.as_slice()).contains(&key.as_bytes())
    }
}

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Found")]
pub struct KeyValue {
    /// The key. Bytes that are no text become replacement characters; our keys have none.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// The lease it goes with, zero for none.
    pub lease: i64,
    /// The key's bytes, where they are no text.
    odd: Option<Box<[u8]>>,
}

impl KeyValue {
    /// A key with its value.
    pub fn new(key: &str, value: Vec<u8>, mod_revision: i64, lease: i64) -> Self {
        Self { key: key.to_owned(), value, mod_revision, lease, odd: None }
    }

    /// The least key behind this one.
    pub(super) fn behind(&self) -> Vec<u8> {
        let bytes = self.odd.as_deref().unwrap_or(self.key.as_bytes());
        [bytes, &[0]].concat()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Found {
    #[serde(with = "bytes")]
    key: Vec<u8>,
    #[serde(with = "bytes")]
    value: Vec<u8>,
    #[serde(with = "number")]
    mod_revision: i64,
    #[serde(with = "number")]
    lease: i64,
}

impl From<Found> for KeyValue {
    fn from(found: Found) -> Self {
        let Found { key, value, mod_revision, lease } = found;
        let (key, odd) = match String::from_utf8(key) {
            Ok(key) => (key, None),
            Err(error) => {
                let bytes = error.into_bytes();
                (String::from_utf8_lossy(&bytes).into_owned(), Some(bytes.into()))
            }
        };
        Self { key, value, mod_revision, lease, odd }
    }
}

/// A condition of a change: its key was last changed by this revision or, where that is zero, is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The key.
    pub key: String,
    /// The revision.
    pub mod_revision: i64,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes it.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// The lease it goes with.
        lease: Option<LeaseId>,
    },
    /// Removes it.
    Delete {
        /// The key.
        key: String,
    },
}

/// The outcome of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The revision that made all changes.
    Done(i64),
    /// The conditions' keys as they are now: some condition does not hold, and nothing was changed.
    Stale(Vec<KeyValue>),
}

/// An event: a key was written, or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// `PUT` or `DELETE`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The key as it is now; of one that is gone, key and revision.
    pub kv: KeyValue,
}

impl Event {
    /// Whether the key is gone.
    pub fn is_delete(&self) -> bool {
        self.kind == "DELETE"
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header {
    #[serde(with = "number")]
    pub(super) revision: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Range {
    pub(super) header: Header,
    pub(super) kvs: Vec<KeyValue>,
    pub(super) more: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OneResponse {
    response_range: Option<Range>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Txn {
    header: Header,
    succeeded: bool,
    responses: Vec<OneResponse>,
}

impl Txn {
    pub(super) fn outcome(self) -> Outcome {
        if self.succeeded {
            return Outcome::Done(self.header.revision);
        }
        let ranges = self.responses.into_iter().filter_map(|response| response.response_range);
        Outcome::Stale(ranges.flat_map(|range| range.kvs).collect())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Lease {
    #[serde(rename = "ID", with = "number")]
    pub(super) id: i64,
    /// Seconds; zero when there is no such lease.
    #[serde(rename = "TTL", with = "number")]
    pub(super) ttl: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) header: Header,
    #[serde(with = "number")]
    pub(super) watch_id: i64,
    pub(super) created: bool,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(with = "number")]
    pub(super) compact_revision: i64,
    /// Whether more events of the last revision follow.
    pub(super) fragment: bool,
    pub(super) events: Vec<Event>,
}

/// An answer of a streaming call.
#[derive(Debug, Deserialize)]
pub(super) struct Streamed<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<Refusal>,
}

/// A refusal. Older gateways say it as `error`, newer ones as `message`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refusal {
    #[serde(alias = "grpc_code")]
    pub(super) code: i64,
    pub(super) message: String,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// The first keys of a range, as they were at a revision, or as they are now.
pub(super) fn range(range: &KeyRange, revision: Option<i64>, limit: u32, keys_only: bool) -> Value {
    json!({
        "key": encode(&range.start),
        "range_end": encode(&range.end),
        "revision": revision.unwrap_or_default().to_string(),
        "limit": limit.to_string(),
        "keys_only": keys_only,
    })
}

pub(super) fn txn(conditions: &[Condition], changes: &[Change]) -> Value {
    let compare = |condition: &Condition| {
        json!({
            "key": encode(&condition.key),
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": condition.mod_revision.to_string(),
        })
    };
    let request = |change: &Change| match change {
        Change::Put { key, value, lease } => json!({ "request_put": {
            "key": encode(key),
            "value": encode(value),
            "lease": lease.map_or(0, |lease| lease.0).to_string(),
        }}),
        Change::Delete { key } => json!({ "request_delete_range": { "key": encode(key) } }),
    };
    let read = |condition: &Condition| json!({ "request_range": { "key": encode(&condition.key) } });
    json!({
        "compare": conditions.iter().map(compare).collect::<Vec<_>>(),
        "success": changes.iter().map(request).collect::<Vec<_>>(),
        "failure": conditions.iter().map(read).collect::<Vec<_>>(),
    })
}

/// A stream's request to follow a range from a revision on.
pub(super) fn create(id: i64, range: &KeyRange, from: i64) -> Value {
    json!({ "create_request": {
        "key": encode(&range.start),
        "range_end": encode(&range.end),
        "start_revision": from.to_string(),
        "watch_id": id.to_string(),
        "fragment": true,
    }})
}

/// A stream's request to follow a range no longer.
pub(super) fn cancel(id: i64) -> Value {
    json!({ "cancel_request": { "watch_id": id.to_string() } })
}

/// A stream's request for a sign of life.
pub(super) fn progress() -> Value {
    json!({ "progress_request": {} })
}

mod number {
    use serde::{Deserialize, Deserializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(number),
            Either::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

mod bytes {
    use base64::Engine;
    use serde::{Deserialize, Deserializer, de::Error};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        super::STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(KeyRange::prefix("/a/"), KeyRange::between("/a/", "/a0"));
        assert_eq!(KeyRange::prefix("").end, [0]);
        assert!(KeyRange::prefix("/a/").contains("/a/x") && !KeyRange::prefix("/a/").contains("/a0"));
    }

    #[test]
    fn keys_that_are_no_text_are_gone_past() {
        let found: KeyValue = serde_json::from_str(r#"{"key":"L2Ev/w=="}"#).expect("json");
        assert_eq!((found.key.as_str(), found.behind().as_slice()), ("/a/\u{fffd}", &b"/a/\xff\0"[..]));
    }

    #[test]
    fn answers_are_read() {
        let text = r#"{"header":{"cluster_id":"14841639068965178418","revision":"4"},"events":[
            {"kv":{"key":"L2EveA==","mod_revision":"3","value":"eA==","lease":"7587899051507786248"}},
            {"type":"DELETE","kv":{"key":"L2EveA==","mod_revision":"4"}}]}"#;
        let watched: Watched = serde_json::from_str(text).expect("json");
        let [put, delete] = &watched.events[..] else { panic!("two events") };
        assert_eq!(
            (put.kv.key.as_str(), put.kv.value.as_slice(), put.kv.mod_revision),
            ("/a/x", &b"x"[..], 3)
        );
        assert!(!put.is_delete() && delete.is_delete());

        let text = r#"{"header":{"revision":"9"},"responses":[
            {"response_range":{"kvs":[{"key":"eA==","mod_revision":"8"}],"count":"1"}},{"response_range":{}}]}"#;
        let txn: Txn = serde_json::from_str(text).expect("json");
        let now = KeyValue::new("x", Vec::new(), 8, 0);
        assert_eq!(txn.outcome(), Outcome::Stale(vec![now]));
        let text = r#"{"header":{"revision":"9"},"succeeded":true,"responses":[{"response_put":{}}]}"#;
        let txn: Txn = serde_json::from_str(text).expect("json");
        assert_eq!(txn.outcome(), Outcome::Done(9));
    }
}
