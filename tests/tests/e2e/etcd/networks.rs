//! Endpoints in etcd are heard of by those who subscribe to their network, and cost others nothing.

use std::time::Duration;

use tokio::time::timeout;
use vswitch_tests::etcd::Etcd;
use vswitch_tests::namespace::Namespace;

use super::member::{Member, NETWORK, endpoint_key};
use super::run;

/// The events that etcd has sent to anybody.
const EVENTS: &str = "etcd_debugging_mvcc_events_total";
/// The ranges that anybody follows.
const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";
/// The streams on which they are.
const STREAMS: &str = "etcd_debugging_mvcc_watch_stream_total";
/// The ranges that every host follows.
const GLOBAL: f64 = 5.0;
/// The hosts of the first test.
const HOSTS: f64 = 3.0;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Waits until a counter has a value, while views go on.
async fn counts(etcd: &Etcd, name: &str, value: f64) {
    let mut last = f64::NAN;
    let reached = timeout(LONG, async {
        while last.to_bits() != value.to_bits() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            last = etcd.counter(name);
        }
    });
    assert!(reached.await.is_ok(), "{name} is {last}, not {value}");
}

/// Waits until so many ranges are followed, on a stream for each of three hosts.
async fn settle(etcd: &Etcd, subscriptions: f64) {
    counts(etcd, WATCHERS, GLOBAL * HOSTS + subscriptions).await;
    counts(etcd, STREAMS, HOSTS).await;
}

#[test]
fn a_change_costs_those_who_subscribe_and_nobody_else() {
    const CHANGES: u8 = 50;
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let mut a = Member::join(&etcd.url(), 1).await;
        let mut b = Member::join(&etcd.url(), 2).await;
        let mut c = Member::come(&etcd.url(), 3).await;
        a.sees(&[2, 3]).await;
        b.sees(&[1, 3]).await;
        c.sees(&[1, 2]).await;
        settle(&etcd, 2.0).await;

        let before = etcd.counter(EVENTS);
        let said: Vec<_> = (0..CHANGES).map(|number| a.endpoint(number)).collect();
        for record in &said {
            b.hears(record).await;
        }
        // Every one of them is sent to the two that subscribe, and to nobody else.
        counts(&etcd, EVENTS, before + 2.0 * f64::from(CHANGES)).await;
        assert_eq!(c.known.endpoints(NETWORK).count(), 0);

        // A late subscriber hears all of it, and what follows.
        c.subscribe(true);
        for record in &said {
            c.hears(record).await;
        }
        let moved = b.endpoint(1);
        c.hears(&moved).await;
        // It leaves, and comes back after changes that it does not hear of meanwhile.
        c.subscribe(false);
        settle(&etcd, 2.0).await;
        let before = etcd.counter(EVENTS);
        let gone = a.say(endpoint_key(2), None);
        let new = a.endpoint(200);
        b.hears(&gone).await;
        b.hears(&new).await;
        counts(&etcd, EVENTS, before + 4.0).await;
        c.subscribe(true);
        c.hears(&gone).await;
        c.hears(&new).await;
        assert_eq!(c.known.get(&moved.key), Some(&moved));
    });
}

#[test]
fn a_host_that_starts_again_still_hears_of_its_networks() {
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let mut a = Member::join(&etcd.url(), 1).await;
        let b = Member::join(&etcd.url(), 2).await;
        a.sees(&[2]).await;
        // It has no time to leave, and its second start says nothing that etcd has already.
        b.task.abort();
        let mut b = Member::come(&etcd.url(), 2).await;
        let said = a.endpoint(9);
        b.hears(&said).await;
    });
}

#[test]
fn no_lease_is_left_behind() {
    let host = Namespace::new();
    let mut etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let mut other = Member::join(&etcd.url(), 9).await;
        for start in 0..4 {
            let mut a = Member::join(&etcd.url(), 1).await;
            other.sees(&[1]).await;
            let said = a.endpoint(start);
            other.hears(&said).await;
            let gone = a.say(endpoint_key(start), None);
            other.hears(&gone).await;
            if start == 2 {
                etcd.stop();
                etcd.start_again();
                let said = a.endpoint(100);
                other.hears(&said).await;
            }
            a.leave().await;
            other.sees(&[]).await;
        }
        // One of the other host, and one or, about the full hour, two of tombstones.
        let leases = etcd.leases();
        assert!((2..=3).contains(&leases.len()), "{leases:?}");
    });
}
