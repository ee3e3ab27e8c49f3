//! Things that the state has and the host has not, for a reason that may pass.
//!
//! # Theory of operation
//! A start makes again what the state says ([`reconcile`](crate::reconcile)), and goes on without what it
//! cannot: an interface on the host, the tunnel of an overlay, a published port. An address may come late,
//! as by DHCP, somebody may have the port or the name. So all of it is tried again at each change of the
//! host's links, routes and addresses, and in between, further and further apart
//! ([`changes`](crate::host::changes)). What is missing is said once, and again for another reason, and
//! that it is there in the end.
//!
//! A look that finds nothing missing is one between two jobs, and no job.

use std::collections::{BTreeMap, BTreeSet};

use vswitch_frame::NetworkId;

use crate::actor::Handle;
use crate::control::Control;
use crate::error::Result;
use crate::host::changes::Changes;
use crate::link::Link;

/// Missing things, each with the reason.
type Missing = BTreeMap<String, String>;

/// Makes what is missing as soon as it can be, until the daemon stops.
pub(crate) async fn follow(handle: Handle, link: Link) {
    let mut changes = Changes::listen();
    // A start has said it.
    let mut said: Option<Missing> = None;
    loop {
        let Ok(missing) = look(&handle, &link).await else { return };
        if let Some(before) = &said {
            for (what, why) in missing.iter().filter(|(what, why)| before.get(*what) != Some(why)) {
                tracing::warn!("{what} is missing, and tried again: {why}");
            }
        }
        for what in said.iter().flat_map(Missing::keys).filter(|what| !missing.contains_key(*what)) {
            tracing::warn!("{what} was missing, and is no longer");
        }
        let settled = missing.is_empty();
        said = Some(missing);
        changes.next(settled).await;
    }
}

/// Makes what is missing, if anything is, and says what still is.
async fn look(handle: &Handle, link: &Link) -> Result<Missing> {
    let (mut lacks, wanted) = handle.look(|control| (control.lacks(), control.tunnels_wanted())).await?;
    if !lacks && !wanted.is_empty() {
        let raised: BTreeSet<_> = link.tunnels().await.into_iter().map(|(network, _)| network).collect();
        lacks = !wanted.is_subset(&raised);
    }
    if !lacks {
        return Ok(Missing::new());
    }
    handle.run(async |control| Ok(control.make_missing().await)).await
}

impl Control {
    /// Whether an interface on the host or a published port is missing.
    fn lacks(&self) -> bool {
        let ports = self.state.networks.values().filter_map(|network| network.host_port.as_ref());
        let mut sandboxes = self.state.sandboxes.values();
        ports.into_iter().any(|port| !self.remains.contains_key(&port.port))
            || sandboxes.any(|sandbox| {
                let mut published = sandbox.published.iter().chain(&sandbox.draining);
                published.any(|one| !self.claims.holds(one))
            })
    }

    /// Networks that are to have a tunnel.
    fn tunnels_wanted(&self) -> BTreeSet<NetworkId> {
        let overlays = self.state.networks.values().filter(|network| network.overlay.is_some());
        overlays.map(|network| network.number).collect()
    }

    /// Tries to make all that is missing. Returns what still is.
    async fn make_missing(&mut self) -> Missing {
        let mut missing = Missing::new();
        for name in self.state.networks.keys().cloned().collect::<Vec<_>>() {
            if let Err(error) = self.bridge_restore(&name).await {
                missing.insert(format!("the host's interface on network {name:?}"), error.to_string());
            }
            let overlay = self.state.networks.get(&name).filter(|network| network.overlay.is_some());
            let Some((id, number)) = overlay.map(|network| (network.id, network.number)) else { continue };
            if self.link.tunnel(number).await.is_some() {
                continue;
            }
            match (self.raise_tunnel(&name).await, &mut self.cluster) {
                (Err(error), _) => {
                    missing.insert(format!("the tunnel of network {name:?}"), error.to_string());
                }
                // Hosts and endpoints beyond it have yet to be said.
                (Ok(()), Some(cluster)) => cluster.touch(id),
                (Ok(()), None) => {}
            }
        }
        for (name, published, error) in self.claim_missing().await {
            let place = published.place();
            let what = format!("{place}/{}, a published port of sandbox {name:?},", published.protocol);
            missing.insert(what, error.to_string());
        }
        missing
    }
}
