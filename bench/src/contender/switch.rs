//! The switch: `vswitch run` in a host namespace of its own, told what to do as any operator would.

use std::path::{Path, PathBuf};

use vswitch_sys::netns::NetNs;
use vswitch_traffic::{Process, netns_path, start_switch};

use super::who::{PortType, Who};
use super::{Contender, containers, directory};
use crate::error::BenchError;
use crate::process::Program;

/// A running switch.
#[derive(Debug)]
pub struct Switch {
    /// The namespace it is the switch of.
    pub host: NetNs,
    /// Its control process.
    pub process: Process,
    /// Its control socket.
    pub socket: PathBuf,
}

impl Switch {
    /// Starts `vswitch run`, its files in a directory in memory called `name`, and waits until it answers.
    ///
    /// # Errors
    /// When it ends without being ready.
    pub fn start(name: &str) -> Result<Self, BenchError> {
        Self::launch(NetNs::anonymous()?, name, None)
    }

    /// Starts `vswitch run` with its state in another directory; else like [`start`](Self::start).
    ///
    /// # Errors
    /// When it ends without being ready.
    pub fn start_with_state(name: &str, state: &Path) -> Result<Self, BenchError> {
        Self::launch(NetNs::anonymous()?, name, Some(state))
    }

    /// Starts `vswitch run` as the switch of this host; else like [`start`](Self::start).
    ///
    /// # Errors
    /// When it ends without being ready.
    pub fn start_in(host: NetNs, name: &str) -> Result<Self, BenchError> {
        Self::launch(host, name, None)
    }

    fn launch(host: NetNs, name: &str, state: Option<&Path>) -> Result<Self, BenchError> {
        let directory = directory(name)?;
        let socket = directory.join("control.sock");
        let process = start_switch(&host, &socket, state.unwrap_or(&directory.join("state")))?;
        Ok(Self { host, process, socket })
    }

    /// Runs a `vswitch` command against it, and answers with what it printed.
    ///
    /// # Errors
    /// With the command's own message when it fails.
    pub fn tell(&self, arguments: &[&str]) -> Result<String, BenchError> {
        let socket = self.socket.to_string_lossy();
        Program::vswitch(&self.host, arguments.iter().copied().chain(["--socket", &socket]))?.run("")
    }
}

pub(super) fn contender(port_type: PortType) -> Result<Contender, BenchError> {
    let who = Who::Switch(port_type);
    let switch = Switch::start(&who.to_string())?;
    switch.tell(&["network", "create", "bench", "--subnet", "10.9.0.0/16"])?;
    let (containers, places) = containers()?;
    for ((container, place), name) in containers.iter().zip(&places).zip(["source", "target"]) {
        let (netns, ip) = (netns_path(container), place.address.to_string());
        let place = ["--netns", &netns.to_string_lossy(), "--network", "bench", "--ip", &ip];
        switch.tell(&[&["attach", name, "--port-type", port_type.name()], place.as_slice()].concat())?;
    }
    let [from, to] = containers;
    let Switch { host, process, .. } = switch;
    Ok(Contender { who, places, _programs: vec![process], _namespaces: vec![host, from, to] })
}
