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
use crate::state::store::Store;

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
    /// Writes down what has changed, and what the cluster is to know of it; only then the cluster is told.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.say_endpoints();
        self.store.commit(&mut self.state)?;
        if let Some(cluster) = &mut self.cluster {
            cluster.send();
        }
        Ok(())
    }
}
