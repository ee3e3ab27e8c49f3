//! Calls, leases and watches against a real etcd.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::timeout;
use vswitch_cluster::etcd::error::Error;
use vswitch_cluster::etcd::feed::{Feed, Update};
use vswitch_cluster::etcd::watch::{Create, News, Watch};
use vswitch_cluster::etcd::wire::{Change, Condition, Event, KeyRange, LeaseId, Outcome};
use vswitch_tests::etcd::Etcd;
use vswitch_tests::namespace::Namespace;

use super::{client, run};

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Change {
    Change::Put { key: key.to_owned(), value: value.as_bytes().to_vec(), lease }
}

fn all() -> KeyRange {
    KeyRange::prefix("/a/")
}

/// The next changes.
async fn heard(watch: &mut Watch) -> Vec<Event> {
    loop {
        let news = timeout(Duration::from_secs(30), watch.next()).await.expect("soon").expect("a watch");
        if let News::Changes(_, events, _) = news {
            return events;
        }
    }
}

fn is(key: &str, mod_revision: i64) -> Condition {
    Condition { key: key.to_owned(), mod_revision }
}

#[test]
fn changes_happen_if_their_conditions_hold() {
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let client = client(&etcd.url());
        let made = client.commit(&[is("/a/x", 0)], &[put("/a/x", "one", None)]).await.expect("etcd");
        let Outcome::Done(revision) = made else { panic!("{made:?}") };
        let Outcome::Stale(now) =
            client.commit(&[is("/a/x", 0)], &[put("/a/x", "two", None)]).await.expect("etcd")
        else {
            panic!("it is there already");
        };
        assert_eq!((now[0].value.as_slice(), now[0].mod_revision), (&b"one"[..], revision));
        let delete = Change::Delete { key: "/a/x".to_owned() };
        client.commit(&[is("/a/x", revision)], &[delete]).await.expect("etcd");
        assert_eq!(client.read(&all()).await.expect("etcd").0, []);

        // More keys than are read at once, and neighbours of the prefix.
        let keys: Vec<String> = (0..1100).map(|number| format!("/a/{number:04}")).collect();
        for some in keys.chunks(100) {
            let changes: Vec<Change> = some.iter().map(|key| put(key, "v", None)).collect();
            client.commit(&[], &changes).await.expect("etcd");
        }
        client.commit(&[], &[put("/a", "v", None), put("/a0", "v", None)]).await.expect("etcd");
        let (found, _) = client.read(&all()).await.expect("etcd");
        assert_eq!(found.into_iter().map(|found| found.key).collect::<Vec<_>>(), keys);
    });
}

#[test]
fn what_goes_with_a_lease_goes_when_it_ends() {
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let client = client(&etcd.url());
        let (short, long) = (LeaseId(7), LeaseId(8));
        client.grant(short, 2).await.expect("a lease");
        client.grant(long, 60).await.expect("a lease");
        client.grant(long, 60).await.expect("the same lease");
        assert_eq!(etcd.leases().len(), 2);
        let changes = [put("/a/short", "", Some(short)), put("/a/long", "", Some(long))];
        client.commit(&[], &changes).await.expect("etcd");
        let (_, from) = client.read(&all()).await.expect("etcd");
        client.keep_alive(long).await.expect("kept");
        let range = Create { id: 1, range: all(), from: from + 1 };
        let mut watch = client.watch(&[range]).await.expect("watch");
        let events = heard(&mut watch).await;
        assert_eq!((events[0].kv.key.as_str(), events[0].is_delete()), ("/a/short", true));
        assert_eq!(client.keep_alive(short).await, Err(Error::LeaseEnded));
        let late = client.commit(&[], &[put("/a/short", "", Some(short))]).await;
        assert_eq!(late, Err(Error::LeaseEnded));
        client.revoke(long).await.expect("revoked");
        let events = heard(&mut watch).await;
        assert_eq!((events[0].kv.key.as_str(), events[0].is_delete()), ("/a/long", true));
    });
}

#[test]
fn a_member_that_does_not_answer_is_passed_over() {
    let host = Namespace::new();
    let mut etcd = Etcd::start(&host, "127.0.0.2");
    run(&host, async || {
        let client = client("etcd://127.0.0.1,127.0.0.2");
        client.grant(LeaseId(7), 60).await.expect("by way of the second");
        etcd.stop();
        let refusal = client.grant(LeaseId(7), 60).await.expect_err("nobody is there");
        assert!(refusal.is_passing(), "{refusal}");
        let line = refusal.to_string();
        assert!(line.starts_with("no etcd answers on 127.0.0.") && line.contains("refused"), "{line}");
    });
}

#[test]
fn members_stand_in_for_each_other_until_there_is_no_quorum() {
    let host = Namespace::new();
    let mut members = Etcd::start_three(&host, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    run(&host, async || {
        let client = client("etcd://127.0.0.1,127.0.0.2,127.0.0.3");
        client.commit(&[], &[put("/a/1", "v", None)]).await.expect("etcd");
        let mut feed = Feed::start(client.clone(), [all()]);
        assert_eq!(keys(next(&mut feed).await), ("all", vec!["/a/1".to_owned()]));
        members[0].stop();
        // The two that are left elect a leader first.
        let mut written = client.commit(&[], &[put("/a/2", "v", None)]).await;
        while written.is_err() {
            written = client.commit(&[], &[put("/a/2", "v", None)]).await;
        }
        assert_eq!(keys(next(&mut feed).await), ("changed", vec!["/a/2".to_owned()]));
        members[1].stop();
        let refusal = client.commit(&[], &[put("/a/3", "v", None)]).await.expect_err("one is no majority");
        assert!(refusal.is_passing(), "{refusal}");
    });
}

#[test]
fn a_member_that_stops_without_a_word_is_left() {
    let host = Namespace::new();
    let members = Etcd::start_three(&host, ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    run(&host, async || {
        let all_members = "etcd://127.0.0.1,127.0.0.2,127.0.0.3";
        let mut feed = Feed::start(client(all_members), [all()]);
        assert_eq!(keys(next(&mut feed).await), ("all", vec![]));
        // Its connections stay open, and nothing comes from them.
        members[0].signal(Signal::SIGSTOP);
        let writer = client("etcd://127.0.0.2,127.0.0.3");
        while writer.commit(&[], &[put("/a/1", "v", None)]).await.is_err() {}
        let mut heard = keys(next(&mut feed).await);
        heard.1.dedup();
        assert_eq!(heard, ("changed", vec!["/a/1".to_owned()]));
    });
}

#[test]
fn what_is_no_etcd_is_told() {
    let host = Namespace::new();
    run(&host, async || {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:2379").await.expect("a listener");
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            while let Ok((mut stream, _)) = listener.accept().await {
                drop(stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nhello").await);
            }
        });
        let refusal =
            client("etcd://127.0.0.1").grant(LeaseId(7), 60).await.expect_err("it is something else");
        let line = refusal.to_string();
        assert!(!refusal.is_passing(), "{line}");
        assert!(
            line.starts_with("what answers on 127.0.0.1:2379 is no etcd of version 3.4 or later"),
            "{line}"
        );
    });
}

/// The next update that is no complaint.
async fn next(feed: &mut Feed) -> Update {
    loop {
        let update = timeout(Duration::from_secs(30), feed.next()).await.expect("an update");
        if !matches!(update, Update::Away(_)) {
            return update;
        }
    }
}

fn keys(update: Update) -> (&'static str, Vec<String>) {
    match update {
        Update::Page(page) => {
            assert!(page.is_first && page.is_last);
            ("all", page.found.into_iter().map(|found| found.key).collect())
        }
        Update::Changes(changes) => ("changed", changes.into_iter().map(|change| change.kv.key).collect()),
        Update::Away(error) => panic!("{error}"),
    }
}

#[test]
fn a_feed_loses_nothing_while_etcd_is_away() {
    let host = Namespace::new();
    let mut etcd = Etcd::start(&host, "127.0.0.1");
    let one = |key: &str| vec![key.to_owned()];
    run(&host, async || {
        let client = client(&etcd.url());
        let write = async |key: &str| client.commit(&[], &[put(key, "v", None)]).await.expect("etcd");
        write("/a/1").await;
        let mut feed = Feed::start(client.clone(), [all()]);
        assert_eq!(keys(next(&mut feed).await), ("all", one("/a/1")));
        write("/a/2").await;
        assert_eq!(keys(next(&mut feed).await), ("changed", one("/a/2")));
        etcd.stop();
        assert!(matches!(feed.next().await, Update::Away(_)));
        etcd.start_again();
        write("/a/3").await;
        assert_eq!(keys(next(&mut feed).await), ("changed", one("/a/3")));
    });
}

#[test]
fn a_feed_begins_anew_when_etcd_has_forgotten() {
    let host = Namespace::new();
    let mut etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let client = client(&etcd.url());
        let write = async |key: &str| client.commit(&[], &[put(key, "v", None)]).await.expect("etcd");
        write("/a/1").await;
        let mut feed = Feed::start(client.clone(), [all()]);
        assert_eq!(keys(next(&mut feed).await).0, "all");
        // Stopped, it hears nothing of what is then compacted; the call after it finds a new connection.
        etcd.stop();
        assert!(matches!(feed.next().await, Update::Away(_)));
        etcd.start_again();
        let one = client.commit(&[], &[put("/b", "v", None)]).await.expect("etcd");
        let Outcome::Done(revision) = one else { panic!("{one:?}") };
        etcd.ask("/v3/kv/compaction", &json!({ "revision": revision.to_string() }));
        let two = next_after_compaction(&mut feed, &client).await;
        assert_eq!(two, ["/a/1", "/a/2"]);

        etcd.stop();
        etcd.forget();
        etcd.start_again();
        assert_eq!(keys(next(&mut feed).await), ("all", vec![]));
    });
}

/// All keys that the feed knows of after another one is written, however it hears of it.
async fn next_after_compaction(
    feed: &mut Feed,
    client: &vswitch_cluster::etcd::client::Client,
) -> Vec<String> {
    client.commit(&[], &[put("/a/2", "v", None)]).await.expect("etcd");
    let mut known = vec!["/a/1".to_owned()];
    while known.len() < 2 {
        match keys(next(feed).await) {
            ("all", all) => known = all,
            (_, changed) => known.extend(changed),
        }
    }
    known
}
