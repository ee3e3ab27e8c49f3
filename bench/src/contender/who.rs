//! Names of the contenders: the switch and its peers.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A kind of port that containers are attached with.
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

/// A peer, beside which the switch is measured.
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

/// A contender's name.
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
