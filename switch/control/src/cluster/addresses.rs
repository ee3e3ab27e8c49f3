//! Addresses of networks that are shared: getting some from another host, and giving some away.

use std::net::IpAddr;

use vswitch_cluster::id::Id;
use vswitch_cluster::record::{HostId, Key, Space, Value};
use vswitch_cluster::space::{Gift, Range, give};
use vswitch_cluster::view::{Answer, Ask, View, Wish};
use vswitch_frame::Mac;

use crate::actor::Handle;
use crate::cluster::member::Cluster;
use crate::control::Control;
use crate::error::{Code, Error, Result};

/// Tries of a job after another host gave addresses: somebody else may be faster.
const TRIES_MAX: usize = 4;

/// Does a job that may need addresses which another host owns. The job is refused then, the other host asked
/// while no job waits, and the job done again.
///
/// # Errors
/// Errors of the job, and why nobody gave an address.
pub async fn with_addresses<T, F>(handle: &Handle, job: F) -> Result<T>
where
    T: Send + 'static,
    F: AsyncFnOnce(&mut Control) -> Result<T> + Clone + Send + 'static,
{
    for _ in 0..TRIES_MAX {
        let job = job.clone();
        let tried = handle.run(async move |control| {
            let outcome = job(control).await;
            let cluster = control.cluster.as_mut();
            let wanted = cluster.and_then(|cluster| Some((cluster.view.clone(), cluster.wanted.take()?)));
            Ok((outcome, wanted))
        });
        let (view, ask) = match tried.await? {
            (Err(_), Some(wanted)) => wanted,
            (outcome, _) => return outcome,
        };
        acquire(handle.clone(), view, ask).await?;
    }
    handle.run(job).await
}

/// Gets addresses and takes them in. What another host has given is taken in whether or not the client is
/// still there, or nobody would have it.
async fn acquire(handle: Handle, view: View, ask: Ask) -> Result<()> {
    finish(async move {
        let records = view.acquire(ask).await;
        let records = records.map_err(|message| Error::new(Code::AddressElsewhere, message))?;
        let taken = handle.note(async move |control| {
            records.into_iter().for_each(|record| control.take_in(record));
        });
        taken.await
    })
    .await
}

/// Finishes something whether or not the client that asked for it is still there.
///
/// # Errors
/// Its own.
pub(crate) async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let done = tokio::spawn(work).await;
    done.map_err(|error| Error::new(Code::Internal, format!("what was asked for ended early: {error}")))?
}

impl Control {
    /// Refuses an endpoint whose addresses or MAC address another host has, or whose addresses it must give
    /// first.
    ///
    /// # Errors
    /// For such an endpoint; addresses to be given first are noted.
    pub(crate) fn check_shared(&mut self, name: &str, addresses: &[IpAddr], mac: Option<Mac>) -> Result<()> {
        let Some(network) = self.state.networks.get(name).filter(|network| network.is_shared()) else {
            return Ok(());
        };
        let id = network.id;
        let Some(cluster) = &mut self.cluster else {
            let message = format!(
                "network {name:?} is the cluster's, and this host is in none: start the daemon with --advertise and --join"
            );
            return Err(Error::new(Code::AddressElsewhere, message));
        };
        cluster.wanted = None;
        if let Some((address, sandbox, host)) = taken_elsewhere(cluster, id, addresses) {
            let message = format!(
                "address {address} is taken by {sandbox} on host {}: choose another one, or none for the next free one",
                cluster.name_of(host)
            );
            return Err(Error::new(Code::AddressInUse, message));
        }
        let same_mac = mac.and_then(|mac| cluster.endpoint(id, mac));
        if let Some((record, _)) = same_mac.filter(|(record, _)| record.host != cluster.me) {
            let message = format!(
                "MAC address {} is in use on network {name:?}, on host {}: choose another one, or none",
                mac.unwrap_or_default(),
                cluster.name_of(record.host)
            );
            return Err(Error::new(Code::MacInUse, message));
        }
        if let Some(wish) = network.pools.missing(addresses) {
            let host = cluster.me;
            cluster.awaited.insert(id);
            cluster.wanted = Some(Ask { network: id, name: name.to_owned(), host, wish });
            let message =
                format!("no address of network {name:?} is this host's: another host must give some");
            return Err(Error::new(Code::AddressElsewhere, message));
        }
        Ok(())
    }

    /// Gives addresses of this host's to another one.
    pub(crate) fn give(&mut self, ask: &Ask) -> Answer {
        let Some(cluster) = &self.cluster else { return Err("this host is in no cluster".to_owned()) };
        let id = ask.network;
        let name = cluster.here.get(&id).map(String::as_str).or_else(|| cluster.index.name(id));
        let Some(name) = name.map(str::to_owned) else {
            return Err(format!("network {:?} is not there: see \"vswitch network ls\"", ask.name));
        };
        let mine = cluster.index.owned(id);
        let mut used = match self.state.networks.get(&name).filter(|network| network.id == id) {
            Some(network) => network.pools.unavailable(),
            None => self.known_network(&name).map_err(|error| error.message)?.pools.unavailable(),
        };
        used.extend(cluster.index.addresses(id));
        used.extend(cluster.index.held(id).map(|(_, held)| held.address));
        let Some(gift) = give(&mine, &used, ask.wish) else { return Err(self.why_not(&name, &mine, ask)) };
        self.hand_over_space(id, gift, ask)
    }

    /// Says whose a range is now, and what is left of it.
    fn hand_over_space(&mut self, network: Id, gift: Gift, ask: &Ask) -> Answer {
        let me = self.cluster.as_ref().map(|cluster| cluster.me);
        let parts = [(gift.below, me), (Some(gift.given), Some(ask.host)), (gift.above, me)];
        let mut keys = Vec::new();
        for (range, owner) in parts.into_iter().filter_map(|(range, owner)| Some((range?, owner))) {
            let key = Key::Space(network, range.first);
            keys.push(key.clone());
            self.say(key, Some(Value::Space(Space { last: range.last, owner })));
        }
        let known = self.cluster.as_ref().map(|cluster| &cluster.known);
        Ok(known
            .into_iter()
            .flat_map(|known| keys.iter().filter_map(|key| known.get(key).cloned()))
            .collect())
    }

    fn why_not(&self, name: &str, mine: &[Range], ask: &Ask) -> String {
        let here = self.cluster.as_ref().map(|cluster| cluster.name_of(cluster.me)).unwrap_or_default();
        match ask.wish {
            Wish::Some(subnet) => {
                format!(
                    "no available addresses on this pool ({subnet}), on host {here} neither: disconnect a sandbox"
                )
            }
            Wish::Exact(address) if mine.iter().any(|range| range.contains(address)) => {
                let mut endpoints = self.state.endpoints().filter(|(_, endpoint)| endpoint.network == name);
                let holder = endpoints
                    .find(|(_, endpoint)| endpoint.addresses.iter().any(|net| net.addr() == address));
                match holder {
                    Some((sandbox, _)) => format!(
                        "address {address} is taken by {sandbox} on host {here}: choose another one, or none for the next free one"
                    ),
                    None => format!(
                        "address {address} of network {name:?} is no endpoint's to have: choose another one, or none"
                    ),
                }
            }
            Wish::Exact(address) => format!("address {address} is not host {here}'s any more: try again"),
        }
    }
}

/// The sandbox on another host that has one of these addresses, as far as is known.
fn taken_elsewhere(cluster: &Cluster, network: Id, addresses: &[IpAddr]) -> Option<(IpAddr, String, HostId)> {
    addresses.iter().find_map(|address| {
        let said = cluster.index.at(network, *address).filter_map(|mac| cluster.endpoint(network, mac));
        let said = said.filter(|(record, _)| record.host != cluster.me);
        let said = said.map(|(record, endpoint)| (*address, endpoint.sandbox.clone(), record.host)).next();
        let held = || cluster.index.held(network).find(|(_, held)| held.address == *address);
        said.or_else(|| held().map(|(host, held)| (*address, held.sandbox.clone(), host)))
    })
}
