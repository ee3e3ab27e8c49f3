//! The switch: `vswitch run` in a host namespace of its own, told what to do as any operator would.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ChildStderr, Stdio};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use vswitch_sys::netns::NetNs;
use vswitch_traffic::netns_path;

use super::{Contender, Who, containers};
use crate::error::BenchError;
use crate::process::{Process, Program};
use crate::stage;

/// The kinds of port that containers are attached with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortType {
    /// A TAP that is the container's interface
    Tap,
    /// A veth pair, its far end a packet socket
    Veth,
}

impl PortType {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PortType::Tap => "tap",
            PortType::Veth => "veth",
        }
    }
}

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
    /// Starts `vswitch run`, its files in a directory called `name`, and waits until it answers.
    ///
    /// # Errors
    /// When it ends without being ready.
    pub fn start(name: &str) -> Result<Self, BenchError> {
        let host = NetNs::anonymous()?;
        let socket = stage::directory(name)?.join("control.sock");
        let arguments = ["run", "--socket", &socket.to_string_lossy()];
        let mut process = Program::vswitch(&host, arguments)?.spawn(Stdio::piped())?;
        if let Some(stderr) = process.child.stderr.take() {
            await_ready(stderr, &socket)?;
        }
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

/// Waits for the line that says the socket is there, then lets whatever else it says through.
fn await_ready(stderr: ChildStderr, socket: &PathBuf) -> Result<(), BenchError> {
    let mut lines = BufReader::new(stderr);
    let mut said = String::new();
    while UnixStream::connect(socket).is_err() {
        if lines.read_line(&mut said)? == 0 {
            let said = said.trim().to_owned();
            return Err(BenchError::Program {
                name: "vswitch run".to_owned(),
                said,
                mend: "see its message",
            });
        }
    }
    std::thread::spawn(move || {
        // A switch that nobody reads from would block when its pipe is full.
        let _ = std::io::copy(&mut lines.by_ref(), &mut std::io::stderr());
    });
    Ok(())
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
