//! Networks of the cluster: claimed by one host, known to all.
//!
//! A network is claimed by its name, its number on the wire and its addresses before it is made, so that two
//! hosts cannot make two of one name. Hosts that are cut off from each other can; when they meet again the
//! newer record wins, and a host that has endpoints on the other network keeps that to itself and says so in
//! the log.
//!
//! A network that is removed while a host that was cut off has endpoints on it is said again by that host.
//! So whose its addresses are is not forgotten with it: each host says of its own that they are nobody's when
//! the network has been gone for as long as a tombstone stays.

use vswitch_cluster::record::{self, Key, More, Network, Record, Space, Value};
use vswitch_cluster::view::{Refused, View};
use vswitch_contract::tunnel::Vni;

use crate::actor::Handle;
use crate::api::types;
use crate::cluster::addresses::finish;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::names;
use crate::network;
use crate::network::driver::Plan;
use crate::network::driver::overlay;
use crate::network::ipam::{Pool, PoolPlan};
use crate::network::options::{OverlayOptions, PEERS};
use crate::state;

/// The first number on the wire, as Docker has it.
const VNI_FIRST: u32 = 4096;
/// Numbers that are tried.
const VNIS_TRIED: u32 = 16;

/// A network to be claimed.
struct Draft {
    view: View,
    records: Vec<Record>,
}

/// Makes a network, of the cluster if it shall span hosts and this host is in one. Returns its identifier.
///
/// # Errors
/// When it is refused, here or by the cluster.
pub async fn create(handle: &Handle, wish: types::NetworkCreate) -> Result<String> {
    let handle = handle.clone();
    // A claim is everybody's knowledge before the network is made: it is made, or the claim taken back,
    // whether or not the client is still there.
    finish(async move { claim_and_make(&handle, wish).await }).await
}

async fn claim_and_make(handle: &Handle, wish: types::NetworkCreate) -> Result<String> {
    for attempt in 0..VNIS_TRIED {
        let asked = wish.clone();
        let Some(draft) = handle.begin(async move |control| control.draft_shared(asked, attempt)).await?
        else {
            return handle.run(async move |control| control.create_network(wish).await).await;
        };
        match draft.view.claim(draft.records.clone()).await {
            Ok(()) => {
                let name = wish.name.clone();
                let claimed = draft.records.clone();
                let made = handle.run(async move |control| control.adopt(&name, draft.records)).await;
                if made.is_err() {
                    give_back(handle, claimed).await;
                }
                return made;
            }
            Err(Refused::Taken(record))
                if matches!(record.key, Key::Vni(_)) && vni_asked(&wish).is_none() => {}
            Err(refused) => return Err(refusal(&wish.name, refused)),
        }
    }
    let message =
        format!("no number on the wire is free for network {:?}: give -o vswitch.vni=NUMBER", wish.name);
    Err(Error::new(Code::LimitReached, message))
}

/// Takes a claim back that nothing was made of.
async fn give_back(handle: &Handle, claimed: Vec<Record>) {
    let done = handle.note(async move |control| {
        claimed.into_iter().for_each(|record| control.say(record.key, None));
    });
    if let Err(error) = done.await {
        tracing::warn!("a network that could not be made is still the cluster's: {error}");
    }
}

fn refusal(name: &str, refused: Refused) -> Error {
    match refused {
        Refused::Taken(record) => match &record.key {
            Key::Vni(vni) => {
                let message =
                    format!("number {vni} on the wire is another network's: give another one, or none");
                Error::new(Code::NameInUse, message)
            }
            Key::Host(_)
            | Key::Network(_)
            | Key::Space(..)
            | Key::Subscription(..)
            | Key::Endpoint(..)
            | Key::Other(_) => Error::new(
                Code::NameInUse,
                format!("network with name {name} already exists: choose another name"),
            ),
        },
        Refused::Unsure(why) => Error::new(Code::AddressElsewhere, format!("network {name:?}: {why}")),
    }
}

fn vni_asked(wish: &types::NetworkCreate) -> Option<Vni> {
    OverlayOptions::parse(&wish.options).ok().and_then(|options| options.vni)
}

impl Control {
    /// The records that claim a new network; `None` for one that is not the cluster's.
    fn draft_shared(&mut self, wish: types::NetworkCreate, attempt: u32) -> Result<Option<Draft>> {
        if wish.driver != overlay::DRIVER || wish.options.contains_key(PEERS) {
            return Ok(None);
        }
        let Some(cluster) = &self.cluster else {
            if vni_asked(&wish).is_some() {
                return Ok(None);
            }
            let message = "a network of driver overlay needs a cluster, or peers: start the daemon with --advertise, \
                           or give -o vswitch.vni and -o vswitch.peers";
            return Err(Error::new(Code::InvalidArgument, message));
        };
        names::check_network(&wish.name)?;
        network::refuse_unsupported(&wish)?;
        if self.state.networks.contains_key(&wish.name) || self.record_of(&wish.name).is_some() {
            let message = format!("network with name {} already exists: choose another name", wish.name);
            return Err(Error::new(Code::NameInUse, message));
        }
        let (vtep, view) = (cluster.vtep, cluster.view.clone());
        let asked = OverlayOptions::parse(&wish.options)?.vni;
        let name = wish.name.clone();
        let network = self
            .draft_network(wish, &Plan::Overlay(overlay::Plan::shared(asked.unwrap_or_default(), vtep)?))?;
        let vni = asked.map_or_else(|| self.free_vni(attempt), Vni::get);
        Ok(Some(Draft { view, records: self.describe_shared(&name, &network, vni) }))
    }

    /// A number on the wire that no network is known to have, and another one at each attempt.
    fn free_vni(&self, attempt: u32) -> u32 {
        let Some(cluster) = &self.cluster else { return VNI_FIRST };
        let mut free =
            (VNI_FIRST..=Vni::MAX.get()).filter(|vni| cluster.known.get(&Key::Vni(*vni)).is_none());
        free.nth(usize::try_from(attempt).unwrap_or(0)).unwrap_or(VNI_FIRST)
    }

    fn describe_shared(&mut self, name: &str, network: &state::Network, vni: u32) -> Vec<Record> {
        let Some(cluster) = &mut self.cluster else { return Vec::new() };
        let id = network.id;
        let value = Value::Network(Box::new(Network {
            id: network.id,
            created: network.created.clone(),
            gateway_mac: network.gateway_mac,
            vni,
            pools: network.pools.iter().map(pool_of).collect(),
            internal: network.internal,
            attachable: network.attachable,
            options: network.written_options.clone(),
            labels: network.labels.clone(),
            more: More::new(),
        }));
        let mut records = vec![
            cluster.draft(Key::Network(name.to_owned()), Some(value)),
            cluster.draft(Key::Vni(vni), Some(Value::Vni { network: id.to_string() })),
        ];
        for subnet in network.pools.iter().map(Pool::subnet) {
            let space = Space { last: subnet.broadcast(), owner: cluster.view.first_owner(cluster.me) };
            records.push(cluster.draft(Key::Space(id, subnet.network()), Some(Value::Space(space))));
        }
        records
    }

    /// Takes in the network that was claimed; the first container makes it here.
    fn adopt(&mut self, name: &str, records: Vec<Record>) -> Result<String> {
        records.into_iter().for_each(|record| self.take_in(record));
        self.record_of(name).map(|network| network.id.to_string()).ok_or_else(|| {
            let message = format!("network {name:?} was removed by another host meanwhile: try again");
            Error::new(Code::NetworkNotFound, message)
        })
    }

    /// Follows what was said of networks by name.
    pub(crate) fn follow_networks(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        for name in std::mem::take(&mut cluster.touched.networks) {
            self.settle_vni(&name);
            self.follow_network(&name);
        }
    }

    fn follow_network(&mut self, name: &str) {
        let Some(local) = self.state.networks.get(name) else { return };
        let (id, is_shared) = (local.id, local.is_shared());
        match self.record_of(name).map(|wanted| wanted.id) {
            None if is_shared && self.has_endpoints(name) => self.say_network_again(name),
            Some(wanted) if wanted != id => {
                let line = format!(
                    "network {name:?} of the cluster is not there on this host: another network here has its \
                     name: remove that one (vswitch network rm {name})"
                );
                if let Some(cluster) = &mut self.cluster {
                    cluster.complain(line);
                }
            }
            _ => {}
        }
    }

    /// Settles which network keeps a number on the wire: two that were made while their hosts were cut off
    /// from each other may have one number, and the one that the number's record does not name gets another
    /// one from the host that made it.
    fn settle_vni(&mut self, name: &str) {
        let Some(cluster) = &self.cluster else { return };
        let key = Key::Network(name.to_owned());
        let record = cluster.known.get(&key).filter(|record| record.host == cluster.me);
        let Some(Value::Network(network)) = record.and_then(|record| record.value.clone()) else { return };
        let id = network.id.to_string();
        let owner = cluster.known.get(&Key::Vni(network.vni)).and_then(|record| record.value.as_ref());
        if !matches!(owner, Some(Value::Vni { network: other }) if *other != id) {
            return;
        }
        let vni = self.free_vni(0);
        tracing::warn!(
            "network {name:?} has number {vni} on the wire from now on: another one has that it had"
        );
        let network = Network { vni, ..*network };
        self.say(Key::Vni(vni), Some(Value::Vni { network: id }));
        self.say(key, Some(Value::Network(Box::new(network))));
    }

    fn has_endpoints(&self, name: &str) -> bool {
        self.state.endpoints().any(|(_, endpoint)| endpoint.network == name)
    }

    /// Says a network again that was removed while it has endpoints: the host that removed it did not know of
    /// them.
    fn say_network_again(&mut self, name: &str) {
        let Some(network) = self.state.networks.get(name).cloned() else { return };
        let Some(vni) = network.overlay.as_ref().map(|overlay| overlay.vni.get()) else { return };
        let records = self.describe_shared(name, &network, vni);
        for record in records.into_iter().filter(|record| !matches!(record.key, Key::Space(..))) {
            self.say(record.key, record.value);
        }
    }

    /// Says that a network of the cluster is gone; nothing for any other network.
    ///
    /// # Errors
    /// When another host has endpoints on it.
    pub(crate) fn withdraw_network(&mut self, name: &str) -> Result<()> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let Some(network) = self.record_of(name) else { return Ok(()) };
        let (id, vni) = (network.id, network.vni);
        if self.state.networks.get(name).is_some_and(|local| local.id != id) {
            return Ok(());
        }
        if let Some(other) = cluster.known.subscribers(id).find(|host| *host != cluster.me) {
            let mut endpoints = cluster.index.endpoints(other, id);
            let sandbox =
                endpoints.find_map(|mac| match &cluster.known.get(&Key::Endpoint(id, mac))?.value {
                    Some(Value::Endpoint(endpoint)) => Some(endpoint.sandbox.as_str()),
                    _ => None,
                });
            let (sandbox, host) = (sandbox.unwrap_or("what is"), cluster.name_of(other));
            let message = format!("network {name} has active endpoints: disconnect {sandbox} on host {host}");
            return Err(Error::new(Code::NetworkInUse, message));
        }
        for key in [Key::Network(name.to_owned()), Key::Vni(vni)] {
            self.say(key, None);
        }
        Ok(())
    }
}

fn pool_of(pool: &Pool) -> record::Pool {
    let PoolPlan { range, reserved, .. } = pool.plan().clone();
    record::Pool { subnet: pool.subnet(), gateway: pool.gateway(), range, reserved }
}

pub(crate) fn plan_of(pool: &record::Pool) -> PoolPlan {
    let record::Pool { subnet, gateway, range, reserved } = pool.clone();
    PoolPlan { subnet, gateway: Some(gateway), range, reserved }
}
