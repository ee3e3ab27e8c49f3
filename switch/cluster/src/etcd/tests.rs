//! A source, a feed and a client beside an etcd with faults that a real one cannot be made to have.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;
use vswitch_sys::wallclock;

use super::super::record::{Clock, Host, HostId, Key, More, Record, Value};
use super::super::view::{self, View};
use super::client::Client;
use super::error::Error;
use super::fake::Fake;
use super::feed::{Feed, Update};
use super::watch::Create;
use super::wire::KeyRange;
use super::{Options, prepare};

/// The time that anything here may take.
const LONG: Duration = Duration::from_secs(60);
const HOST: HostId = HostId::new([1; 16]);
const LEASE_S: u32 = 7;

/// A folder that is gone when the test is.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vswitch-etcd-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = timeout(LONG, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    held.await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// A source of a cluster "c" that takes part.
async fn join(fake: &Fake, folder: &Folder) -> View {
    let options = Options { access: fake.access.clone(), state_dir: folder.0.clone(), lease_s: LEASE_S };
    let prepared = prepare("c", options).await.expect("it may take part");
    let (view, mut events, source) = view::channel();
    drop(prepared.start(HOST, source));
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    view
}

fn all() -> KeyRange {
    KeyRange::prefix("/a/")
}

/// The next update, in time.
async fn next(feed: &mut Feed) -> Update {
    timeout(LONG, feed.next()).await.expect("an update in time")
}

/// The keys of the next update that is no complaint.
async fn keys(feed: &mut Feed) -> Vec<String> {
    loop {
        match next(feed).await {
            Update::Page(page) => return page.found.into_iter().map(|found| found.key).collect(),
            Update::Changes(changes) => return changes.into_iter().map(|change| change.kv.key).collect(),
            Update::Away(_) => {}
        }
    }
}

#[tokio::test]
async fn a_watch_that_is_denied_with_an_old_token_is_opened_with_a_new_one() {
    let (mut fake, folder) = (Fake::start().await, Folder::new("token"));
    let password = folder.0.join("password");
    std::fs::write(&password, "s").expect("a file");
    fake.access.user = Some(("switch".to_owned(), password));
    fake.state().wants_users = true;
    let client = Client::new(&fake.access).expect("a client");
    let range = [Create { id: 1, range: all(), from: 1 }];
    client.watch(&range).await.expect("watched");
    fake.state().stale = Some("t1.1".to_owned());
    timeout(LONG, client.watch(&range)).await.expect("in time").expect("watched with a new token");
}

#[tokio::test]
async fn no_lease_is_left_behind_while_grants_fail() {
    let (fake, folder) = (Fake::start().await, Folder::new("grants"));
    fake.state().refused_ttl = Some(i64::from(LEASE_S));
    let _view = join(&fake, &folder).await;
    until("a few attempts", || {
        let state = fake.state();
        state.grants.iter().filter(|ttl| **ttl == i64::from(LEASE_S)).count() >= 4
    })
    .await;
    let leases = fake.state().leases.clone();
    assert!(leases.len() <= 1, "{} leases of a host that has none: {leases:?}", leases.len());
}

#[tokio::test]
async fn a_lease_whose_grant_was_not_heard_of_is_the_one_that_is_used() {
    let (fake, folder) = (Fake::start().await, Folder::new("lost"));
    fake.state().lost_ttl = Some(i64::from(LEASE_S));
    let view = join(&fake, &folder).await;
    let value = Some(Value::Host(Host {
        name: "a".to_owned(),
        vtep: IpAddr::from([192, 0, 2, 1]),
        more: More::new(),
    }));
    let version = Clock::default().next(wallclock::since_epoch());
    view.publish(vec![Record { key: Key::Host(HOST), version, host: HOST, value }]);
    until("its record", || fake.state().lease_of(&format!("/vswitch/c/records/host/{HOST}")).is_some()).await;
    let state = fake.state();
    let leases: Vec<i64> = state.leases.keys().copied().collect();
    assert_eq!(leases, Vec::from_iter(state.lease_of(&format!("/vswitch/c/records/host/{HOST}"))));
}

#[tokio::test]
async fn tombstones_of_every_start_go_with_one_lease() {
    let (fake, folder) = (Fake::start().await, Folder::new("graves"));
    for start in 1..4 {
        let view = join(&fake, &folder).await;
        let version = Clock::default().next(wallclock::since_epoch());
        view.publish(vec![Record { key: Key::Vni(start), version, host: HOST, value: None }]);
        until("a tombstone", || fake.state().lease_of(&format!("/vswitch/c/records/vni/{start}")).is_some())
            .await;
        drop(view);
        until("a farewell", || fake.state().leases.len() == 1).await;
    }
}

#[tokio::test]
async fn one_stream_has_every_range_and_says_nothing_of_others() {
    let fake = Fake::start().await;
    fake.state().put("/a/1", "x", 0);
    let client = Client::new(&fake.access).expect("a client");
    let mut feed = Feed::start(client, [all()]);
    assert_eq!(keys(&mut feed).await, ["/a/1"]);
    until("a stream", || fake.state().asked.iter().any(|path| path == "/v3/watch")).await;
    fake.state().put("/b/1", "x", 0);
    fake.state().put("/c/1", "x", 0);
    feed.follow(KeyRange::prefix("/b/"));
    assert_eq!(keys(&mut feed).await, ["/b/1"]);
    fake.state().put("/c/2", "x", 0);
    fake.state().put("/b/2", "x", 0);
    assert_eq!(keys(&mut feed).await, ["/b/2"]);
    feed.leave(KeyRange::prefix("/b/"));
    until("it has left", || fake.state().canceled == 1).await;
    fake.state().put("/b/3", "x", 0);
    fake.state().put("/a/2", "x", 0);
    assert_eq!(keys(&mut feed).await, ["/a/2"]);
    let streams = fake.state().asked.iter().filter(|path| *path == "/v3/watch").count();
    assert_eq!(streams, 1);
}

#[tokio::test]
async fn a_stream_that_stays_open_and_silent_is_given_up() {
    let fake = Fake::start().await;
    let client = Client::new(&fake.access).expect("a client");
    let mut feed = Feed::start(client, [all()]);
    assert_eq!(keys(&mut feed).await, [""; 0]);
    fake.state().is_mute = true;
    let Update::Away(error) = next(&mut feed).await else { panic!("it hears something") };
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    fake.state().is_mute = false;
    fake.state().put("/a/1", "x", 0);
    assert_eq!(keys(&mut feed).await, ["/a/1"]);
}

#[tokio::test]
async fn changes_that_are_too_large_are_read_again_without_what_is() {
    let fake = Fake::start().await;
    let client = Client::new(&fake.access).expect("a client");
    let mut feed = Feed::start(client, [all()]);
    assert_eq!(keys(&mut feed).await, [""; 0]);
    fake.state().put("/a/1", "x", 0);
    assert_eq!(keys(&mut feed).await, ["/a/1"]);
    fake.state().put("/a/2", vec![b'x'; 20 << 20], 0);
    let mut known = Vec::new();
    while let [] | [_] = known[..] {
        known.extend(keys(&mut feed).await);
        fake.state().put("/a/3", "x", 0);
    }
    known.dedup();
    assert_eq!(known[..2], ["/a/1", "/a/3"]);
}

#[tokio::test]
async fn pages_that_do_not_end_are_refused() {
    let fake = Fake::start().await;
    fake.state().put("/a/x", "x", 0);
    fake.state().has_no_end = true;
    let client = Client::new(&fake.access).expect("a client");
    let line = timeout(Duration::from_secs(10), client.read(&all())).await.expect("it ends");
    let line = line.expect_err("refused").to_string();
    assert!(line.contains("a page that does not go on"), "{line}");
}

#[tokio::test]
async fn a_value_that_is_too_large_is_passed_over() {
    let fake = Fake::start().await;
    for number in 0..6 {
        fake.state().put(&format!("/a/{number}"), "small", 0);
    }
    fake.state().put("/a/4", vec![b'x'; 20 << 20], 0);
    let client = Client::new(&fake.access).expect("a client");
    let (found, _) = client.read(&all()).await.expect("read");
    let keys: Vec<&str> = found.iter().map(|found| found.key.as_str()).collect();
    assert_eq!(keys, ["/a/0", "/a/1", "/a/2", "/a/3", "/a/5"]);
}
