//! An etcd for tests, as its gateway of 3.4 speaks, with the faults that a real one cannot be made to have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use super::client::Access;

/// The interval at which a stream looks for events.
const LOOK: Duration = Duration::from_millis(10);

/// See the [module](self). It ends when this is dropped.
pub(super) struct Fake {
    pub(super) access: Access,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The state of the etcd, and its faults.
#[derive(Default)]
pub(super) struct State {
    keys: BTreeMap<String, KeyValue>,
    revision: i64,
    /// Events in the order of their revisions.
    events: Vec<(String, Value)>,
    /// The time to live of each lease.
    pub(super) leases: BTreeMap<i64, i64>,
    /// Times to live that were asked for.
    pub(super) grants: Vec<i64>,
    /// Paths that were asked for.
    pub(super) asked: Vec<String>,
    /// Numbers of tokens given, and the one that is no longer known.
    tokens: u32,
    pub(super) stale: Option<String>,
    /// Watches that were given up.
    pub(super) canceled: usize,
    /// Whether users are asked for.
    pub(super) wants_users: bool,
    /// The time to live that no lease is granted for.
    pub(super) refused_ttl: Option<i64>,
    /// The time to live whose lease is granted, and the answer lost.
    pub(super) lost_ttl: Option<i64>,
    /// Whether every page says that there are more.
    pub(super) has_no_end: bool,
    /// Whether streams stay open and say nothing.
    pub(super) is_mute: bool,
}

#[derive(Clone, Default)]
struct KeyValue {
    value: String,
    revision: i64,
    lease: i64,
}

fn decode(text: &Value) -> String {
    let bytes = STANDARD.decode(text.as_str().unwrap_or_default()).expect("base64");
    String::from_utf8(bytes).expect("keys are text")
}

fn number(value: &Value) -> i64 {
    value.as_str().map_or_else(|| value.as_i64(), |text| text.parse().ok()).unwrap_or_default()
}

fn refusal(code: i64, message: &str) -> (u16, Value) {
    let status = if code == 16 { 401 } else { 400 };
    (status, json!({ "error": message, "message": message, "code": code }))
}

impl State {
    pub(super) fn put(&mut self, key: &str, value: impl AsRef<[u8]>, lease: i64) {
        self.revision += 1;
        let value = KeyValue { value: STANDARD.encode(value), revision: self.revision, lease };
        self.keys.insert(key.to_owned(), value);
        let event = json!({ "kv": self.shown(key) });
        self.events.push((key.to_owned(), event));
    }

    /// The lease that a key goes with.
    pub(super) fn lease_of(&self, key: &str) -> Option<i64> {
        self.keys.get(key).map(|found| found.lease)
    }

    fn shown(&self, key: &str) -> Value {
        let KeyValue { value, revision, lease } = &self.keys[key];
        json!({ "key": STANDARD.encode(key), "value": value, "mod_revision": revision.to_string(),
            "lease": lease.to_string() })
    }

    fn header(&self) -> Value {
        json!({ "revision": self.revision.to_string() })
    }

    fn range(&self, body: &Value) -> Value {
        let (start, end) = (decode(&body["key"]), decode(&body["range_end"]));
        let end = if end.is_empty() { format!("{start}\0") } else { end };
        let limit = usize::try_from(number(&body["limit"])).expect("limit");
        let all: Vec<&String> = self.keys.range(start..end).map(|(key, _)| key).collect();
        let some = if limit == 0 { all.len() } else { limit.min(all.len()) };
        let shown = all[..some].iter().map(|key| {
            let mut shown = self.shown(key);
            if body["keys_only"] == true {
                shown["value"] = Value::Null;
                shown.as_object_mut().expect("object").remove("value");
            }
            shown
        });
        let more = some < all.len() || self.has_no_end;
        json!({ "header": self.header(), "kvs": shown.collect::<Vec<_>>(), "more": more })
    }

    fn txn(&mut self, body: &Value) -> Value {
        let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
        let holds = list("compare").iter().all(|compare| {
            let known = self.keys.get(&decode(&compare["key"])).map_or(0, |found| found.revision);
            known == number(&compare["mod_revision"])
        });
        if !holds {
            let ranges: Vec<Value> = list("failure")
                .iter()
                .map(|read| json!({ "response_range": self.range(&read["request_range"]) }))
                .collect();
            return json!({ "header": self.header(), "responses": ranges });
        }
        for change in list("success") {
            let put = &change["request_put"];
            if put.is_object() {
                let value = STANDARD.decode(put["value"].as_str().unwrap_or_default()).expect("base64");
                self.put(&decode(&put["key"]), value, number(&put["lease"]));
            }
        }
        json!({ "header": self.header(), "succeeded": true })
    }

    /// An answer with its status; `None` for one that never comes.
    fn answer(&mut self, path: &str, body: &Value, token: &str) -> Option<(u16, Value)> {
        self.asked.push(path.to_owned());
        let is_stale = self.wants_users && (token.is_empty() || self.stale.as_deref() == Some(token));
        Some(match path {
            "/v3/auth/authenticate" => {
                self.tokens += 1;
                (200, json!({ "token": format!("t{}.1", self.tokens) }))
            }
            // 3.4 does not look at the token here.
            "/v3/lease/keepalive" => {
                let ttl = self.leases.get(&number(&body["ID"])).copied().unwrap_or_default();
                (200, json!({ "result": { "ID": body["ID"], "TTL": ttl.to_string() } }))
            }
            _ if is_stale => refusal(16, "etcdserver: invalid auth token"),
            "/v3/kv/range" => (200, self.range(body)),
            "/v3/kv/txn" => (200, self.txn(body)),
            "/v3/lease/grant" => return self.grant(body),
            "/v3/lease/revoke" => {
                let lease = number(&body["ID"]);
                self.leases.remove(&lease);
                self.keys.retain(|_, found| found.lease != lease);
                (200, json!({}))
            }
            _ => refusal(12, "Not Implemented"),
        })
    }

    fn grant(&mut self, body: &Value) -> Option<(u16, Value)> {
        let (ttl, wanted) = (number(&body["TTL"]), number(&body["ID"]));
        self.grants.push(ttl);
        if self.refused_ttl == Some(ttl) {
            return Some(refusal(8, "etcdserver: too many requests"));
        }
        let id = if wanted == 0 { 1000 + i64::try_from(self.grants.len()).expect("few") } else { wanted };
        if self.leases.insert(id, ttl).is_some() {
            return Some(refusal(9, "etcdserver: lease already exists"));
        }
        let answer = json!({ "ID": id.to_string(), "TTL": ttl.to_string() });
        (self.lost_ttl != Some(ttl)).then_some((200, answer))
    }

    /// The answer of a stream to a request.
    fn streamed(&self, request: &Value, token: &str) -> Vec<Value> {
        let create = &request["create_request"];
        if create.is_object() {
            let mut result =
                json!({ "header": self.header(), "watch_id": create["watch_id"], "created": true });
            // Up to 3.4.13, whatever is wrong with the token.
            if self.wants_users && self.stale.as_deref() == Some(token) {
                result["canceled"] = json!(true);
                result["cancel_reason"] =
                    json!("rpc error: code = PermissionDenied desc = etcdserver: permission denied");
            }
            return vec![json!({ "result": result })];
        }
        if request["progress_request"].is_object() && !self.is_mute {
            return vec![json!({ "result": { "header": self.header(), "watch_id": "-1" } })];
        }
        Vec::new()
    }
}

impl Fake {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("etcd://{}", listener.local_addr().expect("address"));
        let access = Access { address: url.parse().expect("an address"), tls: None, user: None };
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (reader, writer) = stream.into_split();
                tasks.spawn(serve(BufReader::new(reader), writer, Arc::clone(&shared)));
            }
        });
        Self { access, state, task }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn line(reader: &mut BufReader<OwnedReadHalf>) -> Option<String> {
    let mut line = String::new();
    let read = reader.read_line(&mut line).await.ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}

/// Serves the requests of a connection, until one of them is a stream's.
async fn serve(
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
    state: Shared,
) -> Option<()> {
    loop {
        let path = line(&mut reader).await?.split(' ').nth(1)?.to_owned();
        let (mut length, mut token) = (None, String::new());
        loop {
            let header = line(&mut reader).await?;
            let Some((name, value)) = header.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse::<usize>().ok(),
                "authorization" => value.clone_into(&mut token),
                _ => {}
            }
        }
        let mut body = vec![0; length.unwrap_or_default()];
        reader.read_exact(&mut body).await.ok()?;
        if path == "/v3/watch" {
            return stream(reader, writer, state, serde_json::from_slice(&body).ok(), token).await;
        }
        let body = serde_json::from_slice(&body).ok()?;
        let Some((status, answer)) = lock(&state).answer(&path, &body, &token) else {
            std::future::pending::<()>().await;
            continue;
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", answer.len());
        writer.write_all((head + &answer).as_bytes()).await.ok()?;
    }
}

/// Serves a stream of watches: a request that came whole, or one that goes on in chunks.
async fn stream(
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
    state: Shared,
    whole: Option<Value>,
    token: String,
) -> Option<()> {
    lock(&state).asked.push("/v3/watch".to_owned());
    let (requests, mut arriving) = tokio::sync::mpsc::unbounded_channel::<Value>();
    whole.into_iter().for_each(|request| drop(requests.send(request)));
    tokio::spawn(async move {
        loop {
            let bytes = usize::from_str_radix(&line(&mut reader).await?, 16).ok()?;
            let mut chunk = vec![0; bytes + 2];
            reader.read_exact(&mut chunk).await.ok()?;
            for request in serde_json::Deserializer::from_slice(&chunk[..bytes]).into_iter::<Value>() {
                requests.send(request.ok()?).ok()?;
            }
        }
        #[expect(unreachable_code, reason = "the type of a block that ends by ?")]
        Some(())
    });
    writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.ok()?;
    let mut watched: Vec<(Value, String, String, i64)> = Vec::new();
    let mut beat = tokio::time::interval(LOOK);
    loop {
        let answers = tokio::select! {
            Some(request) = arriving.recv() => {
                let (create, cancel) = (&request["create_request"], &request["cancel_request"]);
                if cancel.is_object() {
                    watched.retain(|(id, ..)| *id != cancel["watch_id"]);
                    lock(&state).canceled += 1;
                } else if create.is_object() {
                    let (start, end) = (decode(&create["key"]), decode(&create["range_end"]));
                    watched.push((create["watch_id"].clone(), start, end, number(&create["start_revision"])));
                }
                lock(&state).streamed(&request, &token)
            }
            _ = beat.tick() => events(&lock(&state), &mut watched),
        };
        for answer in answers {
            let text = format!("{answer}\n");
            writer.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.ok()?;
        }
    }
}

fn events(state: &State, watched: &mut [(Value, String, String, i64)]) -> Vec<Value> {
    if state.is_mute {
        return Vec::new();
    }
    let mut answers = Vec::new();
    for (id, start, end, from) in watched {
        let news = state.events.iter().filter(|(key, event)| {
            (&*start..&*end).contains(&key) && number(&event["kv"]["mod_revision"]) >= *from
        });
        let news: Vec<&Value> = news.map(|(_, event)| event).collect();
        if !news.is_empty() {
            answers.push(json!({ "result": { "header": state.header(), "watch_id": id, "events": news } }));
        }
        *from = state.revision + 1;
    }
    answers
}
