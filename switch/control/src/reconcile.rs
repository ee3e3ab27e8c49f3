//! Reconciliation after a start: the datapath, the kernel and the state are made to agree.
//!
//! # Theory of operation
//! The state is what was promised to clients. The datapath that was found, if any, has ports of which it
//! still moves frames. What both agree on is left untouched, so no frame is lost. What the datapath or the
//! kernel has and the state has not is removed: a control died before it could promise it, or before it
//! could finish removing it. What the state has and the datapath has not is made again, under the same
//! name, with the same addresses.
//!
//! Little can be left over in the kernel. A TAP goes with its last descriptor, a veth pair with its far
//! side's namespace, and that with its last descriptor; so all of them are found through the datapath. A
//! namespace's name stays by itself, so it is noted before it is made ([`Control::make_namespace`]).
//!
//! Anything that cannot be made again, because the container is gone or something else has taken its
//! place, is [gone](crate::sandbox::gone): it stays in the state until it is detached, and is said in the
//! log.

use std::collections::BTreeSet;
use std::io;

use vswitch_contract::fact::{self, Fact, Key};
use vswitch_contract::network::Station;
use vswitch_contract::port::PortSpec;
use vswitch_frame::{NetworkId, PortId};
use vswitch_sys::netns::{NetNs, named_path};

use crate::calendar;
use crate::control::Control;
use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::link::LinkError;
use crate::network::describe;
use crate::network::options::PortType;
use crate::sandbox::interface::{FarSide, Remains, unique_name};
use crate::state::mode::Mode;
use crate::state::{Endpoint, Identity, Place};

impl Control {
    /// Makes everything agree with the state.
    ///
    /// # Errors
    /// When the process may open no more descriptors, or the datapath cannot be started.
    pub(crate) async fn reconcile(&mut self) -> Result<()> {
        self.remove_unfinished_namespaces();
        self.resume_far_side().await?;
        self.reconcile_networks().await?;
        self.reconcile_ports().await?;
        self.sweep_far_side();
        self.restore_drivers().await;
        for name in self.state.sandboxes.keys().cloned().collect::<Vec<_>>() {
            let routes = self.default_routes(&name, None);
            let restored = match self.make_missing_of(&name).await {
                Ok(()) => self.settle(&name, &routes).await,
                refused => refused,
            };
            if let Err(error) = restored {
                tracing::warn!("sandbox {name:?} could not be restored: {error}");
                self.lose_sandbox(&name).await;
            }
        }
        let made = self.state.sandboxes.values().find(|sandbox| sandbox.made && sandbox.place.is_some());
        if let Some(place) = made.and_then(|sandbox| sandbox.place.clone()) {
            self.note_mounts(&place);
        }
        self.restore_published().await;
        self.files.restore(&self.state);
        Ok(())
    }

    fn remove_unfinished_namespaces(&mut self) {
        for (name, identity) in self.state.namespaces.clone() {
            remove_name(&name, Some(&identity));
            self.state.namespaces.remove(&name);
        }
    }

    async fn resume_far_side(&mut self) -> Result<()> {
        let kept = self.link.far_side().await.and_then(|fd| fd.map(FarSide::resume).transpose());
        self.far = kept.map_err(|error| failed("take up the private namespace of veth pairs", &error))?;
        Ok(())
    }

    async fn reconcile_networks(&mut self) -> Result<()> {
        let mut wanted: Vec<_> = self
            .state
            .networks
            .iter()
            .map(|(name, network)| (network.number, describe::network(name, network)))
            .collect();
        for (number, network) in self.link.networks().await {
            let agreed = wanted.iter().position(|known| *known == (number, network.clone()));
            match agreed {
                Some(index) => drop(wanted.swap_remove(index)),
                None => self.forget_facts_of(number).await.map_err(down)?,
            }
        }
        for (number, network) in wanted {
            self.link.set(Fact::Network(number, network)).await.map_err(down)?;
        }
        // The cluster says anew who is there.
        self.link.remove_where(|key| matches!(key, Key::Name(..))).await.map_err(down)?;
        self.push_rules(self.state.rules.clone()).await
    }

    /// Takes back a network with its ports, and all that is beyond it.
    async fn forget_facts_of(&self, network: NetworkId) -> std::result::Result<(), LinkError> {
        let beyond = fact::beyond(network);
        let ports = self.link.ports().await?.into_iter().filter(|(_, spec, _)| spec.network == network);
        let ports: BTreeSet<PortId> = ports.map(|(id, ..)| id).collect();
        let is_its = |key: &Key| {
            matches!(key, Key::Network(id) | Key::Tunnel(id) if *id == network)
                || matches!(key, Key::Port(id) if ports.contains(id))
                || beyond.iter().any(|keys| keys.contains(key))
        };
        self.link.remove_where(is_its).await
    }

    async fn reconcile_ports(&mut self) -> Result<()> {
        let ports = self.link.ports().await.map_err(|error| failed("duplicate a descriptor", &error))?;
        for (port, spec, fd) in ports {
            if self.is_host_port(port, &spec) {
                self.remains.insert(port, Remains::Descriptor(fd));
                continue;
            }
            let Some(endpoint) = self.endpoint_of(port, &spec) else {
                tracing::info!(port = port.0, "removing a port that nobody has");
                self.link.remove(Key::Port(port)).await.map_err(down)?;
                continue;
            };
            let remains = match (&self.far, endpoint.port_type) {
                (Some(side), PortType::Veth) => side.remains(unique_name(endpoint.id), fd),
                _ => Remains::Descriptor(fd),
            };
            self.remains.insert(port, remains);
        }
        Ok(())
    }

    fn is_host_port(&self, port: PortId, spec: &PortSpec) -> bool {
        spec.station == Station::Host
            && self.state.networks.values().any(|network| {
                network.number == spec.network
                    && network.host_port.as_ref().is_some_and(|host| host.port == port)
            })
    }

    /// The endpoint a port was made for.
    fn endpoint_of(&self, port: PortId, spec: &PortSpec) -> Option<&Endpoint> {
        let Station::Container(told) = &spec.station else { return None };
        self.state.endpoints().find_map(|(name, endpoint)| {
            let (sandbox, network) =
                (self.state.sandboxes.get(name)?, self.state.networks.get(&endpoint.network)?);
            let agreed = endpoint.gone.is_none()
                && endpoint.port == port
                && network.number == spec.network
                && u32::from(sandbox.number) == told.sandbox
                && endpoint.addresses == told.addresses
                && spec.addresses == [endpoint.mac];
            agreed.then_some(endpoint)
        })
    }

    /// Deletes veth pairs of which no port is left.
    fn sweep_far_side(&mut self) {
        let Some(far) = &mut self.far else { return };
        let veths = self.remains.values().filter_map(Remains::far_name);
        if let Err(error) = far.sweep(&veths.map(str::to_owned).collect::<BTreeSet<_>>()) {
            tracing::warn!("cannot remove what is left of veth pairs: {error}");
        }
    }

    /// Makes the namespace of a sandbox again if it was ours and is gone, and those of its endpoints that
    /// have no port.
    async fn make_missing_of(&mut self, name: &str) -> Result<()> {
        let Some(sandbox) = self.state.sandboxes.get(name) else { return Ok(()) };
        let all = sandbox.endpoints.clone();
        let is_missing = |endpoint: &&Endpoint| !self.remains.contains_key(&endpoint.port);
        let mut missing: Vec<Endpoint> = all.iter().filter(is_missing).cloned().collect();
        let netns = match sandbox.open(name) {
            Ok(netns) => netns,
            Err(_) if sandbox.made && sandbox.mode == Mode::Own => {
                remove_name(name, None);
                let netns = self.make_namespace(name).await?;
                let identity =
                    Identity::of(&netns).map_err(|error| failed("identify the namespace", &error))?;
                self.state.sandbox(name)?.place = Some(Place { path: named_path(name), identity });
                // Their interfaces, if there are any left, are in another one.
                self.remove_ports(&all.iter().map(|endpoint| endpoint.port).collect::<Vec<_>>()).await;
                missing = all;
                netns
            }
            Err(_) if missing.is_empty() => return Ok(()),
            Err(error) => return Err(error),
        };
        self.state.sandbox(name)?.gone = None;
        for endpoint in missing {
            if let Err(error) = self.make_again(name, &endpoint, &netns).await {
                let network = &endpoint.network;
                tracing::warn!("sandbox {name:?} is without its interface on network {network:?}: {error}");
                let known = self.state.sandbox(name)?.endpoints.iter_mut();
                for lost in known.filter(|known| known.id == endpoint.id) {
                    lost.gone.get_or_insert_with(calendar::now);
                }
            }
        }
        Ok(())
    }
}

/// Removes the name of a namespace that a control left that died over making or removing it: one that leads
/// to the namespace `made`, or the empty file that it is before and after that. Any other is somebody else's.
fn remove_name(name: &str, made: Option<&Identity>) {
    let path = named_path(name);
    let is_ours = match NetNs::open(&path) {
        Ok(netns) => made.is_some_and(|made| made.is_of(&netns)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            std::fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && file.len() == 0)
        }
        Err(_) => false,
    };
    if is_ours && let Err(error) = NetNs::delete_named(name) {
        tracing::warn!("cannot remove network namespace {name:?}, which nobody has: {error}");
    }
}

fn down(error: LinkError) -> Error {
    Error::new(Code::Internal, format!("cannot restore the datapath: {error}"))
}
