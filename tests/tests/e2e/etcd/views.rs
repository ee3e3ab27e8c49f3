//! Views of several hosts in one etcd: what one says all hear, and what happens when some are away.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vswitch_cluster::etcd::prepare;
use vswitch_cluster::etcd::wire::KeyRange;
use vswitch_cluster::record::Key;
use vswitch_cluster::space::{Range, owned};
use vswitch_cluster::view::{Refused, Wish};
use vswitch_sys::clock;
use vswitch_tests::etcd::Etcd;
use vswitch_tests::namespace::Namespace;
use vswitch_tests::wait::DEADLINE;

use super::member::{Member, NETWORK, endpoint_key, options, ready};
use super::{Folder, client, run};

#[test]
fn what_one_says_all_hear_and_the_newest_wins() {
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let mut a = Member::join(&etcd.url(), 1).await;
        let said = a.endpoint(5);
        let mut b = Member::join(&etcd.url(), 2).await;
        b.hears(&said).await;
        b.sees(&[1]).await;
        a.sees(&[2]).await;
        // It moved; what its old host says late is outranked.
        let moved = b.endpoint(5);
        a.hears(&moved).await;
        let gone = b.say(endpoint_key(5), None);
        a.hears(&gone).await;
        // A host that leaves says so.
        b.leave().await;
        a.sees(&[]).await;
    });
}

#[test]
fn what_is_claimed_is_claimed_once() {
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let mut a = Member::join(&etcd.url(), 1).await;
        let mut b = Member::join(&etcd.url(), 2).await;
        ready(&mut a).await;
        ready(&mut b).await;
        let Err(Refused::Taken(record)) = b.claim_space("10.9.0.255").await else { panic!("it is taken") };
        assert_eq!(record.host, a.me);

        // Everybody takes until nothing is left; no address has two owners.
        let subnet = Wish::Some("10.9.0.0/24".parse().expect("a subnet"));
        let mut taken: Vec<Range> = Vec::new();
        let mut refused = 0;
        while refused < 2 {
            for member in [&mut a, &mut b] {
                match member.acquire(subnet).await {
                    Ok(records) => taken.extend(owned(&records, NETWORK, Some(member.me))),
                    Err(_) => refused += 1,
                }
            }
        }
        let addresses: u128 = taken.iter().map(|range| range.size() + 1).sum();
        assert_eq!(addresses, 256);
        let firsts: BTreeSet<IpAddr> = taken.iter().map(|range| range.first).collect();
        assert_eq!(firsts.len(), taken.len());
    });
}

#[test]
fn a_host_is_asked_for_addresses_that_it_has() {
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let mut a = Member::join(&etcd.url(), 1).await;
        ready(&mut a).await;
        a.acquire(Wish::Some("10.9.0.0/24".parse().expect("a subnet"))).await.expect("a share");
        let mut b = Member::join(&etcd.url(), 2).await;
        ready(&mut b).await;
        b.sees(&[1]).await;
        let (free, used) = (IpAddr::from([10, 9, 0, 7]), IpAddr::from([10, 9, 0, 0]));
        let serve = async |a: &mut Member| loop {
            let event = a.events.recv().await.expect("the source works");
            a.take(event);
        };
        let given = tokio::select! {
            given = b.acquire(Wish::Exact(free)) => given.expect("given"),
            () = serve(&mut a) => unreachable!("it goes on"),
        };
        assert_eq!(owned(&given, NETWORK, Some(b.me))[0].first, free);
        let refusal = tokio::select! {
            refusal = b.acquire(Wish::Exact(used)) => refusal.expect_err("it is in use"),
            () = serve(&mut a) => unreachable!("it goes on"),
        };
        assert_eq!(refusal, "address 10.9.0.0 is taken");
        // One that has died cannot be asked.
        a.task.abort();
        b.sees(&[]).await;
        let refusal = b.acquire(Wish::Exact(used)).await.expect_err("nobody to ask");
        assert!(refusal.contains("vswitch cluster forget 010101010101"), "{refusal}");
    });
}

#[test]
fn a_host_that_died_is_down_and_up_again_when_it_is_back() {
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let mut a = Member::join(&etcd.url(), 1).await;
        let mut b = Member::join(&etcd.url(), 2).await;
        let said = b.endpoint(6);
        a.hears(&said).await;
        a.sees(&[2]).await;
        b.task.abort();
        a.sees(&[]).await;
        let mut b = Member::join(&etcd.url(), 2).await;
        a.sees(&[2]).await;
        let again = b.endpoint(6);
        a.hears(&again).await;
    });
}

#[test]
fn etcd_may_be_away_and_may_lose_everything() {
    let host = Namespace::new();
    let mut etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let mut a = Member::join(&etcd.url(), 1).await;
        let mut b = Member::join(&etcd.url(), 2).await;
        ready(&mut a).await;
        let before = a.endpoint(7);
        b.hears(&before).await;
        etcd.stop();
        let meanwhile = a.endpoint(8);
        // The first refusal may be that etcd did not answer this very claim.
        let Err(Refused::Unsure(why)) = a.claim_space("10.9.0.255").await else { panic!("nobody agrees") };
        assert!(why.contains("no etcd answers on 127.0.0.1:2379") && !why.contains('\n'), "{why}");
        etcd.start_again();
        b.hears(&meanwhile).await;
        assert_eq!(b.known.get(&before.key), Some(&before));

        etcd.stop();
        etcd.forget();
        etcd.start_again();
        // A new host takes the cluster for the one it finds, so it comes after those that know.
        let (client, all) = (client(&etcd.url()), KeyRange::prefix("/vswitch/test/records/"));
        let from = clock::now();
        while client.read(&all).await.is_ok_and(|(found, _)| found.len() < 7) {
            assert!(clock::now().since(from) < DEADLINE, "not all is written again");
            tokio::task::yield_now().await;
        }
        let mut c = Member::join(&etcd.url(), 3).await;
        let space = a.known.get(&Key::Space(NETWORK, IpAddr::from([10, 9, 0, 0]))).cloned();
        for record in [before, meanwhile, space.expect("it was claimed")] {
            c.hears(&record).await;
        }
    });
}

#[test]
fn a_foreign_cluster_is_refused() {
    let host = Namespace::new();
    let etcd = Etcd::start(&host, "127.0.0.1");
    run(&host, async || {
        let (ours, theirs) = (Folder::new(), Folder::new());
        let url = etcd.url();
        prepare("one", options(&url, &ours)).await.expect("a new cluster");
        prepare("two", options(&url, &theirs)).await.expect("another one");
        prepare("one", options(&url, &ours)).await.expect("the same again");
        let refusal = prepare("one", options(&url, &theirs)).await.expect_err("a foreign cluster");
        assert!(refusal.starts_with("etcd has another cluster under /vswitch/one/ ("), "{refusal}");
        let refusal = prepare("a/b", options(&url, &ours)).await.expect_err("no name");
        assert!(refusal.starts_with("\"a/b\" is no name of a cluster"), "{refusal}");
    });
}
