//! Views of several hosts in one etcd: what one says all hear, and what happens when some are away.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vswitch_cluster::etcd::{Options, prepare};
use vswitch_cluster::id::Id;
use vswitch_cluster::ledger::Ledger;
use vswitch_cluster::record::{Clock, Endpoint, Host, HostId, Key, More, Record, Space, Value};
use vswitch_cluster::space::{Range, owned};
use vswitch_cluster::view::{self, Answer, Ask, Event, Presence, Refused, View, Wish};
use vswitch_frame::Mac;
use vswitch_sys::wallclock;
use vswitch_tests::etcd::Etcd;
use vswitch_tests::namespace::Namespace;

use super::{Folder, access, client, run};

const NETWORK: Id = Id::new([0x12; 32]);
const LEASE_S: u32 = 3;

/// A host without a switch: what it says, and what it has heard.
struct Member {
    me: HostId,
    view: View,
    events: mpsc::UnboundedReceiver<Event>,
    task: JoinHandle<()>,
    known: Ledger,
    up: BTreeSet<HostId>,
    clock: Clock,
    _folder: Folder,
}

fn id(number: u8) -> HostId {
    HostId::new([number; 16])
}

fn options(url: &str, folder: &Folder) -> Options {
    Options { access: access(url), state_dir: folder.0.clone(), lease_s: LEASE_S }
}

impl Member {
    async fn join(url: &str, number: u8) -> Self {
        let folder = Folder::new();
        let prepared = prepare("test", options(url, &folder)).await.expect("it may take part");
        let (view, events, source) = view::channel();
        let me = id(number);
        let task = prepared.start(me, source);
        let (known, up, clock) = (Ledger::default(), BTreeSet::new(), Clock::default());
        let mut member = Self { me, view, events, task, known, up, clock, _folder: folder };
        let vtep = IpAddr::from([192, 0, 2, number]);
        let host = Host { name: format!("host{number}"), vtep, more: More::new() };
        member.say(Key::Host(me), Some(Value::Host(host)));
        member
    }

    fn draft(&mut self, key: Key, value: Option<Value>) -> Record {
        Record { key, version: self.clock.next(wallclock::since_epoch()), host: self.me, value }
    }

    fn say(&mut self, key: Key, value: Option<Value>) -> Record {
        let record = self.draft(key, value);
        self.known.say(record.clone());
        self.view.publish(vec![record.clone()]);
        record
    }

    fn endpoint(&mut self, last: u8) -> Record {
        let endpoint = Endpoint {
            sandbox: format!("c{last}"),
            id: Id::new([last; 32]),
            addresses: vec![IpAddr::from([10, 9, 0, last])],
            vtep: IpAddr::from([192, 0, 2, 1]),
            names: vec![format!("c{last}")],
            more: More::new(),
        };
        self.say(endpoint_key(last), Some(Value::Endpoint(endpoint)))
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Records(records) => {
                for record in records {
                    self.clock.see(record.version);
                    self.known.say(record);
                }
            }
            Event::Host(host, Presence::Up) => assert!(self.up.insert(host)),
            Event::Host(host, Presence::Down) => assert!(self.up.remove(&host)),
            Event::Asked(ask, answer) => drop(answer.send(self.give(&ask))),
        }
    }

    /// Gives addresses as control does, but for what it uses: the first address of each range.
    fn give(&mut self, ask: &Ask) -> Answer {
        let Wish::Exact(address) = ask.wish else { return Err("none is left".to_owned()) };
        let mine = owned(self.known.iter(), NETWORK, Some(self.me));
        let range = mine.iter().find(|range| range.contains(address) && range.first != address);
        let range = range.ok_or_else(|| format!("address {address} is taken"))?;
        let above = Space { last: range.last, owner: Some(ask.host) };
        Ok(vec![self.say(Key::Space(NETWORK, address), Some(Value::Space(above)))])
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        while !holds(self) {
            let event = timeout(Duration::from_secs(60), self.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("waited in vain: {what}"));
            self.take(event.expect("the source works"));
        }
    }

    async fn hears(&mut self, record: &Record) {
        self.until("a record", |member| member.known.find(&record.key) == Some(record)).await;
    }

    async fn sees(&mut self, others: &[u8]) {
        let others: BTreeSet<HostId> = others.iter().map(|number| id(*number)).collect();
        self.until("who is there", |member| member.up == others).await;
    }

    /// Claims an address space that nobody has.
    async fn claim_space(&mut self, last: &str) -> Result<(), Refused> {
        let space = Space { last: last.parse().expect("an address"), owner: None };
        let key = Key::Space(NETWORK, IpAddr::from([10, 9, 0, 0]));
        let record = self.draft(key, Some(Value::Space(space)));
        let claimed = self.view.claim(vec![record.clone()]).await;
        if claimed.is_ok() {
            self.known.say(record);
        }
        claimed
    }

    /// Asks as control does, and takes part meanwhile.
    async fn acquire(&mut self, wish: Wish) -> Result<Vec<Record>, String> {
        let ask = Ask { network: NETWORK, name: "wide".to_owned(), host: self.me, wish };
        let view = self.view.clone();
        let mut asked = std::pin::pin!(view.acquire(ask));
        loop {
            tokio::select! {
                answer = &mut asked => {
                    let records = answer?;
                    for record in &records {
                        self.known.say(record.clone());
                    }
                    return Ok(records);
                }
                Some(event) = self.events.recv() => self.take(event),
            }
        }
    }
}

fn endpoint_key(last: u8) -> Key {
    Key::Endpoint(NETWORK, Mac([2, 0x42, 10, 9, 0, last]))
}

/// Waits until the source serves: until then it refuses what all must agree on.
async fn ready(member: &mut Member) {
    let mut claimed = member.claim_space("10.9.0.255").await;
    while matches!(claimed, Err(Refused::Unsure(_))) {
        tokio::task::yield_now().await;
        claimed = member.claim_space("10.9.0.255").await;
    }
}

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
        let Member { view, task, .. } = b;
        drop(view);
        task.await.expect("it ends");
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
        let client = client(&etcd.url());
        while client.read("/vswitch/test/records/").await.is_ok_and(|(found, _)| found.len() < 5) {
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
