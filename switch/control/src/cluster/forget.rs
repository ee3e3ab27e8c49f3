//! Giving up on a host that does not come back, and showing what the cluster is.

use vswitch_cluster::record::{Host, HostId, Key, Space, Value};

use crate::api::types;
use crate::cluster::member::Cluster;
use crate::control::Control;
use crate::error::{Code, Error, Result};

impl Control {
    /// Gives up on a host: what it said goes, and its addresses are this host's. Returns its identifier.
    ///
    /// # Errors
    /// When it is this host, can be reached, or is not known; and, unless it is `forced`, when this host does
    /// not reach most of the others, for then it may be this one that is cut off.
    pub fn forget_host(&mut self, key: &str, forced: bool) -> Result<String> {
        let cluster = self.cluster.as_ref().ok_or_else(no_cluster)?;
        let host = find(cluster, key)?;
        if host == cluster.me || cluster.up.contains(&host) {
            let message = format!("host {key:?} is there: stop its daemon first");
            return Err(Error::new(Code::HostInUse, message));
        }
        let others = hosts(cluster).filter(|(other, _)| *other != host).count();
        let reached = hosts(cluster).filter(|(other, _)| cluster.up.contains(other)).count() + 1;
        if !forced && reached * 2 <= others {
            let message = format!(
                "host {key:?} may be there: this host reaches {} of {} others, and may be the one that is cut off: say \
                 so on one that reaches most of them, or say --force",
                reached - 1,
                others - 1
            );
            return Err(Error::new(Code::HostInUse, message));
        }
        let me = cluster.me;
        let news = cluster.known.iter().filter_map(|record| match (&record.key, &record.value) {
            (Key::Space(..), Some(Value::Space(space))) if space.owner == Some(host) => {
                let mine = Value::Space(Space { last: space.last, owner: Some(me) });
                Some((record.key.clone(), Some(mine)))
            }
            (Key::Endpoint(..) | Key::Subscription(..), Some(_)) if record.host == host => {
                Some((record.key.clone(), None))
            }
            _ => None,
        });
        let mut news: Vec<(Key, Option<Value>)> = news.collect();
        news.push((Key::Host(host), None));
        news.into_iter().for_each(|(key, value)| self.say(key, value));
        Ok(host.to_string())
    }

    /// Shows the cluster, as this host sees it.
    ///
    /// # Errors
    /// When this host is in none.
    pub fn show_cluster(&self) -> Result<types::Cluster> {
        let cluster = self.cluster.as_ref().ok_or_else(no_cluster)?;
        let mut endpoints = std::collections::BTreeMap::<HostId, usize>::new();
        let mut records = 0;
        for record in cluster.known.iter().filter(|record| record.value.is_some()) {
            records += 1;
            if matches!(record.key, Key::Endpoint(..)) {
                *endpoints.entry(record.host).or_default() += 1;
            }
        }
        let hosts = hosts(cluster).map(|(id, host)| types::ClusterHost {
            id: id.to_string(),
            name: host.name.clone(),
            vtep: host.vtep.to_string(),
            state: match id {
                _ if id == cluster.me => "self",
                _ if cluster.up.contains(&id) => "up",
                _ => "down",
            }
            .to_owned(),
            endpoints: endpoints.get(&id).copied().unwrap_or_default(),
        });
        Ok(types::Cluster {
            name: cluster.name.clone(),
            id: cluster.me.to_string(),
            hosts: hosts.collect(),
            records,
        })
    }
}

fn hosts(cluster: &Cluster) -> impl Iterator<Item = (HostId, &Host)> {
    cluster.known.iter().filter_map(|record| match (&record.key, &record.value) {
        (Key::Host(id), Some(Value::Host(host))) => Some((*id, host)),
        _ => None,
    })
}

/// The host of this name, identifier or beginning of that.
fn find(cluster: &Cluster, key: &str) -> Result<HostId> {
    let matching = |(id, host): &(HostId, &Host)| {
        host.name == key || (!key.is_empty() && id.to_string().starts_with(key))
    };
    let found: Vec<HostId> = hosts(cluster).filter(matching).map(|(id, _)| id).collect();
    match *found.as_slice() {
        [host] => Ok(host),
        [] => {
            Err(Error::new(Code::HostNotFound, format!("host {key:?} not found: see \"vswitch cluster ls\"")))
        }
        _ => {
            let message = format!(
                "host {key:?}: several are called so: write its identifier, see \"vswitch cluster ls\""
            );
            Err(Error::new(Code::InvalidArgument, message))
        }
    }
}

fn no_cluster() -> Error {
    let message = "this host is in no cluster: start the daemon with --advertise, and --join HOST unless it is the first";
    Error::new(Code::HostNotFound, message)
}
