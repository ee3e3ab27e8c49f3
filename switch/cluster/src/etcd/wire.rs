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

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyValue {
    /// The key. Bytes that are no text become replacement characters; our keys have none.
    #[serde(with = "text")]
    pub key: String,
    /// The value.
    #[serde(with = "bytes")]
    pub value: Vec<u8>,
    /// The revision of its last change.
    #[serde(with = "number")]
    pub mod_revision: i64,
    /// The lease it goes with, zero for none.
    #[serde(with = "number")]
    pub lease: i64,
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
    kind: String,
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
    pub(super) created: bool,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    #[serde(with = "number")]
    pub(super) compact_revision: i64,
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

/// The end of the keys that start with `prefix`: the prefix with its last byte one higher.
fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Keys with this prefix from `start` on, as they were at a revision, or as they are now.
pub(super) fn range(prefix: &str, start: &str, revision: Option<i64>, limit: u32) -> Value {
    json!({
        "key": encode(start),
        "range_end": encode(range_end(prefix)),
        "revision": revision.unwrap_or_default().to_string(),
        "limit": limit.to_string(),
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

pub(super) fn watch(prefix: &str, from: i64) -> Value {
    json!({ "create_request": {
        "key": encode(prefix),
        "range_end": encode(range_end(prefix)),
        "start_revision": from.to_string(),
    }})
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

mod text {
    use serde::Deserializer;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        let bytes = super::bytes::deserialize(deserializer)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(range_end("/a/"), b"/a0");
        assert_eq!(range_end(""), [0]);
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
        let now = KeyValue { key: "x".to_owned(), mod_revision: 8, ..KeyValue::default() };
        assert_eq!(txn.outcome(), Outcome::Stale(vec![now]));
        let text = r#"{"header":{"revision":"9"},"succeeded":true,"responses":[{"response_put":{}}]}"#;
        let txn: Txn = serde_json::from_str(text).expect("json");
        assert_eq!(txn.outcome(), Outcome::Done(9));
    }
}
