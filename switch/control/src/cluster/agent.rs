//! Control's agent in its cluster: how control says and hears something.
//!
//! A record is written down with the job that says it, and goes out once that is on the disk
//! ([`store`](crate::state::store)), so that no host knows of what this one could forget. Records that must
//! not be forgotten are written down, too: the addresses that this host owns, networks, and other hosts,
//! which are looked for after a restart.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use vswitch_cluster::Options;
use vswitch_cluster::record::{Host, HostId, Key, More, Record, Value};
use vswitch_cluster::view::{Event, Presence, View};
use vswitch_sys::{clock, random, wallclock};

use crate::actor::Handle;
use crate::cluster::member::Cluster;
use crate::control::Control;
use crate::error::Result;
use crate::error::failed;

/// Events that are taken in by one job.
const EVENTS_MAX: usize = 256;

/// Time between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks after which a cluster has said all that it had to say to a host that came in.
const LOOKS_TO_SETTLE: u32 = 3;

impl Control {
    /// Makes this host one of a cluster: draws its identifier if it has none yet, and says who it is.
    pub(crate) fn enter_cluster(&mut self, options: &Options, view: View) -> Result<HostId> {
        let me = match self.state.host {
            Some(me) => me,
            None => HostId::new(random::bytes().map_err(|error| failed("draw an identifier", &error))?),
        };
        self.state.host = Some(me);
        let mut cluster = Cluster::new(me, options, view, self.state.said.values());
        // It is written down already.
        cluster.send();
        let host = Value::Host(Host { name: options.host.clone(), vtep: options.vtep, more: More::new() });
        let is_said =
            cluster.known.get(&Key::Host(me)).and_then(|record| record.value.as_ref()) == Some(&host);
        self.cluster = Some(cluster);
        self.resume_networks();
        if !is_said {
            self.say(Key::Host(me), Some(host));
        }
        Ok(me)
    }

    /// Says something to the cluster, once the job it belongs to is written down.
    pub(crate) fn say(&mut self, key: Key, value: Option<Value>) {
        let Some(cluster) = &mut self.cluster else { return };
        let record = cluster.draft(key, value);
        cluster.outbox.push(record.clone());
        self.take_in(record);
    }

    /// Takes a record in, and writes it down if it must not be forgotten.
    pub(crate) fn take_in(&mut self, record: impl Into<Arc<Record>>) {
        let Some(cluster) = &mut self.cluster else { return };
        let record = record.into();
        let (key, is_kept) = (record.key.to_string(), cluster.is_kept(&record));
        if !cluster.take_in(record.clone()) {
            return;
        }
        if is_kept {
            self.state.said.insert(key, Record::clone(&record));
        } else {
            self.state.said.remove(&key);
        }
    }

    /// Makes the pools of networks give what this host owns, but for what others have all the same.
    pub(crate) fn follow_spaces(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        for id in std::mem::take(&mut cluster.touched.spaces) {
            let Some(name) = cluster.here.get(&id) else { continue };
            let (owned, held) = (cluster.index.owned(id), cluster.index.held(id));
            let held: Vec<IpAddr> = held.map(|(_, held)| held.address).collect();
            // Not a change to be written down: it follows from records.
            self.state.networks.derive(name, |network| network.pools.set_owned(&owned, &held));
        }
    }

    /// Takes in the events of a source.
    async fn hear(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Records(records) => records.into_iter().for_each(|record| self.take_in(record)),
                Event::Host(host, presence) => self.follow_host(host, presence),
                Event::Asked(..) => {}
            }
        }
        self.reassert();
    }

    /// Does what no record and no request asks for: forgets tombstones and addresses of networks that are
    /// gone for long, and, once the cluster has had the time to say all, what it has not said again.
    async fn do_what_is_due(&mut self, settled: bool) {
        if settled {
            self.agree().await;
        }
        let Some(cluster) = &mut self.cluster else { return };
        cluster.known.sweep(wallclock::since_epoch());
        // A container that waits for longer begins again.
        cluster.awaited.clear();
        let mut over = cluster.take_forgotten();
        over.extend(cluster.take_orphans(clock::now()));
        over.into_iter().for_each(|key| self.say(key, None));
    }

    fn follow_host(&mut self, host: HostId, presence: Presence) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.follow_presence(host, presence == Presence::Up);
    }

    /// Says again who this host is when others gave up on it.
    fn reassert(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let key = Key::Host(cluster.me);
        if cluster.known.get(&key).is_none() {
            let (name, vtep) = (cluster.host.clone(), cluster.vtep);
            self.say(key, Some(Value::Host(Host { name, vtep, more: More::new() })));
        }
    }
}

/// Brings the events of a source to control, until either ends.
pub async fn follow(handle: Handle, mut events: mpsc::UnboundedReceiver<Event>) {
    let mut batch = Vec::new();
    let mut looks = 0;
    let mut due = interval(LOOK_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = events.recv_many(&mut batch, EVENTS_MAX) => if heard == 0 { return },
            _ = due.tick() => {
                looks += 1;
                let settled = looks == LOOKS_TO_SETTLE;
                let looked = handle.note(async move |control| control.do_what_is_due(settled).await);
                if let Err(error) = looked.await {
                    tracing::warn!("the cluster was not looked after: {error}");
                }
                continue;
            }
        }
        for asked in batch.extract_if(.., |event| matches!(event, Event::Asked(..))) {
            let (Event::Asked(ask, answer), handle) = (asked, handle.clone()) else { continue };
            tokio::spawn(async move {
                let outcome = handle.run(async move |control| Ok(control.give(&ask))).await;
                // The asker may have gone.
                let _ = answer.send(outcome.unwrap_or_else(|error| Err(error.message)));
            });
        }
        let events = std::mem::take(&mut batch);
        let heard = handle.note(async move |control| control.hear(events).await);
        if let Err(error) = heard.await {
            tracing::warn!("what the cluster says was not taken in: {error}");
        }
    }
}
