//! A host without a switch, with a view in an etcd.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vswitch_cluster::etcd::{Options, prepare};
use vswitch_cluster::id::Id;
use vswitch_cluster::ledger::Ledger;
use vswitch_cluster::record::{Clock, Endpoint, Host, HostId, Key, More, Record, Space, Subscription, Value};
use vswitch_cluster::space::owned;
use vswitch_cluster::view::{self, Answer, Ask, Event, Presence, Refused, View, Wish};
use vswitch_frame::Mac;
use vswitch_sys::wallclock;

use super::{Folder, access};

pub(super) const NETWORK: Id = Id::new([0x12; 32]);
pub(super) const LEASE_S: u32 = 3;

/// A host without a switch: what it says, and what it has heard.
pub(super) struct Member {
    pub(super) me: HostId,
    pub(super) view: View,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) task: JoinHandle<()>,
    pub(super) known: Ledger,
    pub(super) up: BTreeSet<HostId>,
    pub(super) clock: Clock,
    _folder: Folder,
}

pub(super) fn id(number: u8) -> HostId {
    HostId::new([number; 16])
}

pub(super) fn options(url: &str, folder: &Folder) -> Options {
    Options { access: access(url), state_dir: folder.0.clone(), lease_s: LEASE_S }
}

impl Member {
    /// A host that wants to hear of the network's endpoints.
    pub(super) async fn join(url: &str, number: u8) -> Self {
        let mut member = Self::come(url, number).await;
        member.subscribe(true);
        member
    }

    /// A host that does not.
    pub(super) async fn come(url: &str, number: u8) -> Self {
        let folder = Folder::new();
        let prepared = prepare("test", options(url, &folder)).await.expect("it may take part");
        let (view, events, source) = view::channel();
        let me = id(number);
        let task = prepared.start(me, source);
        let (known, up, clock) = (Ledger::of(me), BTreeSet::new(), Clock::default());
        let mut member = Self { me, view, events, task, known, up, clock, _folder: folder };
        let vtep = IpAddr::from([192, 0, 2, number]);
        let host = Host { name: format!("host{number}"), vtep, more: More::new() };
        member.say(Key::Host(me), Some(Value::Host(host)));
        member
    }

    pub(super) fn subscribe(&mut self, is_wanted: bool) {
        let value = is_wanted.then(|| Value::Subscription(Subscription::default()));
        self.say(Key::Subscription(NETWORK, self.me), value);
        if !is_wanted {
            self.known.forget_endpoints(NETWORK);
        }
    }

    /// Leaves as control does.
    pub(super) async fn leave(self) {
        let Self { view, task, .. } = self;
        drop(view);
        task.await.expect("it ends");
    }

    pub(super) fn draft(&mut self, key: Key, value: Option<Value>) -> Record {
        Record { key, version: self.clock.next(wallclock::since_epoch()), host: self.me, value }
    }

    pub(super) fn say(&mut self, key: Key, value: Option<Value>) -> Record {
        let record = self.draft(key, value);
        self.known.say(record.clone());
        self.view.publish(vec![record.clone()]);
        record
    }

    pub(super) fn endpoint(&mut self, last: u8) -> Record {
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

    pub(super) fn take(&mut self, event: Event) {
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
    pub(super) fn give(&mut self, ask: &Ask) -> Answer {
        let Wish::Exact(address) = ask.wish else { return Err("none is left".to_owned()) };
        let mine = owned(self.known.iter(), NETWORK, Some(self.me));
        let range = mine.iter().find(|range| range.contains(address) && range.first != address);
        let range = range.ok_or_else(|| format!("address {address} is taken"))?;
        let above = Space { last: range.last, owner: Some(ask.host) };
        Ok(vec![self.say(Key::Space(NETWORK, address), Some(Value::Space(above)))])
    }

    pub(super) async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        while !holds(self) {
            let event = timeout(Duration::from_secs(60), self.events.recv()).await;
            let event = event.unwrap_or_else(|_| panic!("waited in vain: {what}"));
            self.take(event.expect("the source works"));
        }
    }

    pub(super) async fn hears(&mut self, record: &Record) {
        self.until("a record", |member| member.known.find(&record.key) == Some(record)).await;
    }

    pub(super) async fn sees(&mut self, others: &[u8]) {
        let others: BTreeSet<HostId> = others.iter().map(|number| id(*number)).collect();
        self.until("who is there", |member| member.up == others).await;
    }

    /// Claims an address space that nobody has.
    pub(super) async fn claim_space(&mut self, last: &str) -> Result<(), Refused> {
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
    pub(super) async fn acquire(&mut self, wish: Wish) -> Result<Vec<Record>, String> {
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

pub(super) fn endpoint_key(last: u8) -> Key {
    Key::Endpoint(NETWORK, Mac([2, 0x42, 10, 9, 0, last]))
}

/// Waits until the source serves: until then it refuses what all must agree on.
pub(super) async fn ready(member: &mut Member) {
    let mut claimed = member.claim_space("10.9.0.255").await;
    while matches!(claimed, Err(Refused::Unsure(_))) {
        tokio::task::yield_now().await;
        claimed = member.claim_space("10.9.0.255").await;
    }
}
