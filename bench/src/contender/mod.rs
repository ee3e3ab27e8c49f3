//! What is measured: the switch and its peers, each with two containers of its own.
//!
//! A contender lives in a host namespace and two container namespaces that have no names, and its
//! programs are killed when this process ends: whatever way that happens, the kernel cleans up.

mod bridge;
mod docker_rules;
pub mod local;
pub mod outside;
pub mod overlay;
mod ovs;
mod switch;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use vswitch_sys::netns::NetNs;
use vswitch_traffic::{KernelBridge, Place, Process, place};

pub use switch::{PortType, Switch};

use crate::error::BenchError;
use crate::results::Road;

/// What the switch is measured beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// The kernel's bridge and nothing else
    Bridge,
    /// The kernel's bridge with br_netfilter and the iptables rules Docker installs
    DockerRules,
    /// Open vSwitch's userspace datapath as it comes; its containers cannot use transmit offloads
    Ovs,
    /// Open vSwitch's userspace datapath with its experimental TSO
    OvsTso,
    /// The kernel's bridge, routing, MASQUERADE and DNAT, with the iptables rules Docker installs
    #[value(skip)]
    Kernel,
    /// The kernel's bridge and vxlan interface on two hosts
    #[value(skip)]
    KernelVxlan,
    /// docker-proxy in front of the kernel's bridge
    #[value(skip)]
    DockerProxy,
}

/// One of those that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The switch, its ports of one kind.
    Switch(PortType),
    /// A peer.
    Peer(Peer),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Who::Switch(PortType::Tap) => "vswitch tap",
            Who::Switch(PortType::Veth) => "vswitch veth",
            Who::Peer(Peer::Bridge) => "bridge",
            Who::Peer(Peer::DockerRules) => "docker-rules",
            Who::Peer(Peer::Ovs) => "ovs",
            Who::Peer(Peer::OvsTso) => "ovs-tso",
            Who::Peer(Peer::Kernel) => "kernel",
            Who::Peer(Peer::KernelVxlan) => "kernel-vxlan",
            Who::Peer(Peer::DockerProxy) => "docker-proxy",
        })
    }
}

/// One of those that are measured, set up and running.
#[derive(Debug)]
pub struct Contender {
    /// Which it is.
    pub who: Who,
    /// Its two containers: the source and the target of a measurement.
    pub places: [Place; 2],
    /// What keeps it running; programs end before the namespaces they are in.
    _programs: Vec<Process>,
    _namespaces: Vec<NetNs>,
}

impl Contender {
    /// Sets it up and starts it.
    ///
    /// # Errors
    /// When a program it needs is not installed, or something cannot be made.
    pub fn start(who: Who) -> Result<Self, BenchError> {
        match who {
            Who::Switch(port_type) => switch::contender(port_type),
            Who::Peer(Peer::Bridge) => bridge::contender(),
            Who::Peer(Peer::DockerRules) => docker_rules::contender(),
            Who::Peer(Peer::Ovs) => ovs::contender(false),
            Who::Peer(Peer::OvsTso) => ovs::contender(true),
            Who::Peer(Peer::Kernel) => outside::kernel(Road::Masquerade),
            Who::Peer(Peer::KernelVxlan) => overlay::kernel(Road::OverlayTunnelGso),
            Who::Peer(Peer::DockerProxy) => local::kernel(None),
        }
    }

    /// A bridge of the kernel's as a contender.
    fn on_bridge(peer: Peer, bridge: KernelBridge) -> Self {
        let [from, to] = bridge.containers;
        Self {
            who: Who::Peer(peer),
            places: bridge.places,
            _programs: Vec::new(),
            _namespaces: vec![bridge.host, from, to],
        }
    }
}

/// Makes a directory for a contender's files, on the stage.
fn directory(name: &str) -> io::Result<PathBuf> {
    let path = Path::new("/run").join(name.replace(' ', "-"));
    fs::create_dir(&path)?;
    Ok(path)
}

/// The address of a container, by its number, in the network of all contenders but Docker's.
fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 9, 0, 2 + number).into()
}

/// Two containers with nothing in them yet.
fn containers() -> Result<([NetNs; 2], [Place; 2]), BenchError> {
    let [from, to] = [NetNs::anonymous()?, NetNs::anonymous()?];
    let places = [place(&from, address(0)), place(&to, address(1))];
    Ok(([from, to], places))
}
