//! The daemon's belongings, and nothing that is done with them: operations are where their noun is.

use std::collections::BTreeMap;

use vswitch_frame::PortId;

use crate::cluster::member::Cluster;
use crate::error::Result;
use crate::host::tunnels::Tunnels;
use crate::link::Link;
use crate::publish::claims::Claims;
use crate::sandbox::files::Files;
use crate::sandbox::interface::{FarSide, Remains};
use crate::state::State;
use crate::state::store::{Parcel, Promise, Store};

/// Everything the daemon owns. One job at a time has it: see [`actor`](crate::actor).
#[derive(Debug)]
pub struct Control {
    pub(crate) state: State,
    pub(crate) store: Store,
    /// Remains of each port's interface, to destroy when it goes.
    pub(crate) remains: BTreeMap<PortId, Remains>,
    pub(crate) claims: Claims,
    pub(crate) link: Link,
    pub(crate) tunnels: Tunnels,
    /// The names of uplinks that the operator chose, in their places.
    pub(crate) uplinks: Vec<String>,
    /// This host's part in the cluster it is in.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) far: Option<FarSide>,
    pub(crate) files: Files,
    pub(crate) offloads_noted: bool,
    /// Whether others do not see the names of namespaces that are made here.
    pub(crate) has_private_mounts: bool,
}

impl Control {
    /// Control as those see it who only look on: with this state, and nothing that is not shared.
    pub(crate) fn onlooker(&self, store: Store, state: State) -> Self {
        Self {
            state,
            store,
            remains: BTreeMap::new(),
            claims: self.claims.clone(),
            link: self.link.clone(),
            tunnels: self.tunnels.clone(),
            uplinks: self.uplinks.clone(),
            cluster: self.cluster.as_ref().map(Cluster::onlooker),
            far: None,
            files: self.files.clone(),
            offloads_noted: self.offloads_noted,
            has_private_mounts: self.has_private_mounts,
        }
    }

    /// Has what has changed written down, and then the cluster told, as soon as that can be.
    pub(crate) fn owe(&mut self) {
        let parcel = self.parcel();
        self.store.owe(&mut self.state, parcel);
    }

    /// Has what has changed written down, and then the cluster told; the promise is kept when it is.
    pub(crate) fn promise(&mut self) -> Promise {
        let parcel = self.parcel();
        self.store.promise(&mut self.state, parcel)
    }

    /// Waits until what has changed is written down. Where nothing can be, as after a start on a disk that
    /// may only be read, it is owed.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) async fn write_down(&mut self) -> Result<()> {
        if self.store.trouble().is_some() {
            self.owe();
            return Ok(());
        }
        self.promise().kept().await
    }

    /// The records that the cluster is to be told of what has changed.
    fn parcel(&mut self) -> Option<Parcel> {
        self.say_endpoints();
        let cluster = self.cluster.as_mut().filter(|cluster| !cluster.outbox.is_empty())?;
        Some(Parcel { view: cluster.view.clone(), records: std::mem::take(&mut cluster.outbox) })
    }
}
