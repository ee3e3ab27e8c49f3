//! Control's agent in its cluster: how control says and hears something.
//!
//! A record is written down with the job that says it, and goes out once that is on the disk
//! ([`Control::commit`]), so that no host knows of what this one could forget. Records that must not be
//! forgotten are written down, too: the addresses that this host owns, networks, and other hosts, which are
//! looked for after a restart.

use std::sync::Arc;

use tokio::sync::mpsc;
use vswitch_cluster::id::Id;
use vswitch_cluster::record::{Host, HostId, Key, More, Record, Value};
use vswitch_cluster::view::{Event, Presence, View};
use vswitch_cluster::{Options, space};
use vswitch_sys::random;

use crate::actor::Handle;
use crate::cluster::member::Cluster;
use crate::control::Control;
use crate::error::Result;
use crate::error::failed;

/// Events that are taken in by one job.
const EVENTS_MAX: usize = 256;

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
        if let Key::Space(network, _) = &record.key {
            self.follow_space(*network);
        }
    }

    /// Makes the pools of a network give what this host owns.
    fn follow_space(&mut self, id: Id) {
        let Some(cluster) = &self.cluster else { return };
        let owned = space::owned(cluster.known.spaces(id), id, Some(cluster.me));
        if let Some(name) = self.shared_network(id) {
            // Not a change to be written down: it follows from records.
            self.state.networks.derive(&name, |network| network.pools.set_owned(&owned));
        }
    }

    /// The name of a network of the cluster by its identifier, if this host has it.
    pub(crate) fn shared_network(&self, id: Id) -> Option<String> {
        let mut networks = self.state.networks.iter();
        let found = networks.find(|(_, network)| network.is_shared() && network.id == id);
        found.map(|(name, _)| name.clone())
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

    fn follow_host(&mut self, host: HostId, presence: Presence) {
        let Some(cluster) = &mut self.cluster else { return };
        let changed = match presence {
            Presence::Up => cluster.up.insert(host),
            Presence::Down => cluster.up.remove(&host),
        };
        if changed {
            // Names of its endpoints are answered or no longer.
            let networks = self.state.networks.values().filter(|network| network.is_shared());
            cluster.touched.extend(networks.map(|network| network.id));
        }
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
    while events.recv_many(&mut batch, EVENTS_MAX).await > 0 {
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
