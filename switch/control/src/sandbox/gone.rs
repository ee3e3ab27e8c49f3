//! Containers that are gone: noticing it, and letting go of what was made for them.
//!
//! # Theory of operation
//! A container goes without a word: its last process ends, or somebody deletes the name of its namespace, or
//! its interface. So control looks every [`LOOK_EVERY`] whether an interface has vanished, and whether the
//! path of a namespace still leads there: a system call or two for each, of a microsecond or less. Nobody
//! else would tell: a TAP keeps the namespace alive in which it was made, and a packet socket hears that its
//! interface went down, but not that it is gone. Where only the path is gone and a process is inside, the
//! container lives on, and is found by the path of that process from then on.
//!
//! An endpoint that is gone keeps its addresses, its number and its published ports, and so does its sandbox
//! its name. Its port of the switch goes, and with it the forwarding entries, names and bindings; clients of
//! its published ports are reset. It is there again when the sandbox is [attached](super::again) again, or
//! made again after a start.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vswitch_contract::fact::Key;
use vswitch_frame::PortId;
use vswitch_sys::netns::NetNs;

use crate::actor::Handle;
use crate::calendar;
use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::sandbox::interface::Remains;
use crate::state::{NamespaceNumbers, Place, Sandbox};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Everything that is found to be gone, and not yet noted.
#[derive(Debug, Default)]
pub(crate) struct Vanished {
    /// Sandboxes to whose namespaces their paths lead no longer.
    sandboxes: Vec<String>,
    /// Ports whose interfaces have vanished.
    ports: Vec<PortId>,
}

/// Looks for what is gone, until the daemon stops.
pub(crate) async fn follow(handle: Handle) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(vanished) = handle.look(Control::vanished).await else { return };
        if vanished.sandboxes.is_empty() && vanished.ports.is_empty() {
            continue;
        }
        let noted = handle.note(async move |control| control.let_go(vanished).await);
        if let Err(error) = noted.await {
            tracing::warn!("what is gone was not noted: {error}");
        }
    }
}

impl Control {
    fn vanished(&self) -> Vanished {
        let mut vanished = Vanished::default();
        for (name, sandbox) in self.state.sandboxes.iter().filter(|(_, sandbox)| sandbox.gone.is_none()) {
            if sandbox.place.as_ref().is_some_and(|place| !leads_there(place)) {
                vanished.sandboxes.push(name.clone());
            }
            let there = sandbox.endpoints.iter().filter(|endpoint| endpoint.gone.is_none());
            let ports = there.map(|endpoint| endpoint.port);
            vanished.ports.extend(ports.filter(|port| self.has_vanished(*port)));
        }
        vanished
    }

    fn has_vanished(&self, port: PortId) -> bool {
        let remains = || self.remains.get(&port).is_some_and(Remains::has_vanished);
        self.link.has_vanished(port) || remains()
    }

    async fn let_go(&mut self, vanished: Vanished) {
        let inside = if vanished.sandboxes.is_empty() { BTreeMap::new() } else { processes() };
        for name in vanished.sandboxes {
            let Some(place) = self.state.sandboxes.get_mut(&name).and_then(|known| known.place.as_mut())
            else {
                continue;
            };
            // Somebody else's may have got its numbers meanwhile.
            let is_it = |path: &&PathBuf| NetNs::open(path).is_ok_and(|netns| place.identity.is_of(&netns));
            if let Some(path) = inside.get(&place.identity.numbers).filter(is_it) {
                place.path.clone_from(path);
                continue;
            }
            tracing::warn!("sandbox {name:?} is gone: {} is no more", place.path.display());
            self.lose_sandbox(&name).await;
        }
        for port in vanished.ports {
            self.lose_endpoint(port).await;
        }
    }

    /// Lets go of all that was made for a sandbox whose container is gone.
    pub(crate) async fn lose_sandbox(&mut self, name: &str) {
        let since = calendar::now();
        let Some(sandbox) = self.state.sandboxes.get_mut(name) else { return };
        sandbox.gone.get_or_insert_with(|| since.clone());
        for endpoint in &mut sandbox.endpoints {
            endpoint.gone.get_or_insert_with(|| since.clone());
        }
        let ports: Vec<PortId> = sandbox.endpoints.iter().map(|endpoint| endpoint.port).collect();
        // First nobody is led there any more.
        self.lead_again(name).await;
        self.remove_ports(&ports).await;
    }

    /// Lets go of an endpoint whose interface is gone. Its sandbox may have others.
    async fn lose_endpoint(&mut self, port: PortId) {
        let found = self.state.endpoints().find(|(_, known)| known.port == port && known.gone.is_none());
        let Some(name) = found.map(|(name, _)| name.to_owned()) else { return };
        let Some(sandbox) = self.state.sandboxes.get_mut(&name) else { return };
        for endpoint in sandbox.endpoints.iter_mut().filter(|endpoint| endpoint.port == port) {
            endpoint.gone = Some(calendar::now());
            tracing::warn!("sandbox {name:?} has lost its interface on network {:?}", endpoint.network);
        }
        let routes = self.default_routes(&name, None);
        if let Err(error) = self.settle(&name, &routes).await {
            tracing::warn!("sandbox {name:?} may be without a default route now: {error}");
        }
        self.lead_again(&name).await;
        self.remove_ports(&[port]).await;
    }

    /// Removes ports and what is left of their interfaces. The latter goes on beside everything else.
    pub(crate) async fn remove_ports(&mut self, ports: &[PortId]) {
        let mut cleanup = Cleanup::default();
        for port in ports {
            if let Err(error) = self.link.remove(Key::Port(*port)).await {
                tracing::warn!(port = port.0, "the datapath could not remove a port: {error}");
            }
            self.remains.remove(port).into_iter().for_each(|remains| cleanup.destroy(remains));
        }
        drop(cleanup);
    }

    /// The moment since when the container of a sandbox is gone, if it is: its own, or the one whose network
    /// it shares.
    pub(crate) fn gone_since<'a>(&'a self, sandbox: &'a Sandbox) -> Option<&'a str> {
        let owner = sandbox.mode.shared().map_or(Some(sandbox), |other| self.state.sandboxes.get(other));
        owner?.gone.as_deref()
    }
}

/// Whether the namespace is still where its path leads. Of a path that may not be looked at it is assumed.
fn leads_there(place: &Place) -> bool {
    numbers_at(&place.path).map_or_else(
        |error| error.kind() == std::io::ErrorKind::PermissionDenied,
        |found| place.identity.may_be(found),
    )
}

/// The numbers of the namespace that a file stands for.
pub(crate) fn numbers_at(path: &Path) -> std::io::Result<NamespaceNumbers> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Namespaces that processes are in, each with the path by which one of them leads there.
fn processes() -> BTreeMap<NamespaceNumbers, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            let path = entry.path().join("ns/net");
            numbers_at(&path).into_iter().for_each(|numbers| drop(found.insert(numbers, path.clone())));
        }
    }
    found
}
