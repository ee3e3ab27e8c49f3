//! Two containers on a bridge of the kernel's, beside which the switch is measured.
//!
//! Everything is in namespaces without names, kept alive by the value alone: when it goes, in whatever way
//! the process ends, the kernel takes the bridge, the interfaces and the namespaces away.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use vswitch_sys::netlink::{LinkChange, Netlink, VethPeer};
use vswitch_sys::netns::{NetNs, run_in};

use crate::place::{Place, place};

/// Whether the host's iptables rules see bridged IPv4 packets.
const CALL_IPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Two containers on a bridge of the kernel's.
#[derive(Debug)]
pub struct KernelBridge {
    /// The namespace the bridge is in.
    pub host: NetNs,
    /// The containers, each with an interface `eth0` on the bridge.
    pub containers: [NetNs; 2],
    /// The containers as ends of a measurement.
    pub places: [Place; 2],
}

impl KernelBridge {
    /// Makes a bridge named `name` and two containers with the addresses `a.b.0.2` and `a.b.0.3`, in a
    /// network of 16 bits. No iptables rule sees what passes between them.
    ///
    /// # Errors
    /// When namespaces or interfaces cannot be made, as without root.
    pub fn new(name: &str, network: [u8; 2]) -> io::Result<Self> {
        let host = NetNs::anonymous()?;
        let containers = [NetNs::anonymous()?, NetNs::anonymous()?];
        let mut netlink = run_in(&host, Netlink::open)??;
        netlink.create_bridge(name)?;
        netlink.set_up(name)?;
        let [a, b] = network;
        let places = [2, 3].map(|last| IpAddr::from(Ipv4Addr::new(a, b, 0, last)));
        for (port, (container, address)) in ["port0", "port1"].into_iter().zip(containers.iter().zip(places))
        {
            netlink.create_veth(port, VethPeer { name: "eth0", netns: Some(container.as_fd()) })?;
            netlink
                .change(port, LinkChange { master: Some(name), up: Some(true), ..LinkChange::default() })?;
            plug_in(container, address)?;
        }
        let [from, to] = &containers;
        let places = [place(from, places[0]), place(to, places[1])];
        let bridge = Self { host, containers, places };
        bridge.call_iptables(false)?;
        Ok(bridge)
    }

    /// Says whether the host namespace's iptables rules see what the bridge forwards, as Docker has it.
    ///
    /// # Errors
    /// `NotFound` when they are to, and the kernel has no br_netfilter.
    pub fn call_iptables(&self, on: bool) -> io::Result<()> {
        let value = if on { "1" } else { "0" };
        match run_in(&self.host, || std::fs::write(CALL_IPTABLES, value))? {
            // Without br_netfilter nothing is seen anyway.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !on => Ok(()),
            other => other,
        }
    }
}

/// Gives a container's `eth0` its address, and brings it and loopback up.
pub fn plug_in(container: &NetNs, address: IpAddr) -> io::Result<()> {
    let mut netlink = run_in(container, Netlink::open)??;
    let net = ipnet::IpNet::new(address, 16).map_err(io::Error::other)?;
    netlink.set_up("lo")?;
    netlink.add_address("eth0", net)?;
    netlink.set_up("eth0")?;
    Ok(())
}
