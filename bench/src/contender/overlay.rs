//! Contenders between two hosts, which carry one network between them over VXLAN.
//!
//! ```text
//!   container ── host: the switch, or the kernel's bridge and vxlan ── veth ── host ── container
//!   10.9.0.2     192.0.2.1                                                     192.0.2.2    10.9.0.3
//! ```
//! A veth pair can do whatever a NIC may be able to, so the underlay's features are those left switched on.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use ipnet::IpNet;
use vswitch_sys::netlink::{LinkChange, Netlink, VethPeer};
use vswitch_sys::netns::{NetNs, run_in};
use vswitch_traffic::{netns_path, plug_in};

use super::switch::Switch;
use super::who::{Peer, PortType, Who};
use super::{Contender, containers};
use crate::error::BenchError;
use crate::process::Program;
use crate::road::Road;

const HOSTS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const VNI: &str = "4097";
/// MTU that an underlay of 1,500 bytes has room for.
const MTU: u32 = 1450;

/// The switch and the kernel.
///
/// # Errors
/// When a program is not installed, or something cannot be made.
pub fn contenders(road: Road) -> Result<Vec<Contender>, BenchError> {
    Ok(vec![switch(road)?, kernel(road)?])
}

fn switch(road: Road) -> Result<Contender, BenchError> {
    let (containers, places) = containers()?;
    let (mut programs, mut namespaces) = (Vec::new(), Vec::new());
    for (number, host) in underlay(road)?.into_iter().enumerate() {
        let switch = Switch::start_in(host, &format!("switch-{number}"))?;
        let (vni, peers) = (format!("vswitch.vni={VNI}"), format!("vswitch.peers={}", HOSTS[1 - number]));
        let network = ["network", "create", "bench", "-d", "overlay", "--subnet", "10.9.0.0/16"];
        switch.tell(&[&network[..], &["-o", &vni, "-o", &peers]].concat())?;
        let (netns, ip) = (netns_path(&containers[number]), places[number].address.to_string());
        let place = ["--netns", &netns.to_string_lossy(), "--network", "bench", "--ip", &ip];
        switch.tell(&[&["attach", "c"], place.as_slice()].concat())?;
        let Switch { host, process, .. } = switch;
        programs.push(process);
        namespaces.push(host);
    }
    namespaces.extend(containers);
    Ok(Contender { who: Who::Switch(PortType::Tap), places, _programs: programs, _namespaces: namespaces })
}

/// The kernel's bridge and vxlan interface on each host, as Docker's overlay networks have them.
pub(super) fn kernel(road: Road) -> Result<Contender, BenchError> {
    let (containers, places) = containers()?;
    let hosts = underlay(road)?;
    for (number, (host, container)) in hosts.iter().zip(&containers).enumerate() {
        let mut netlink = run_in(host, Netlink::open)??;
        netlink.create_bridge("br0")?;
        netlink.set_up("br0")?;
        let ends = ["dev", "u0", "local", HOSTS[number], "remote", HOSTS[1 - number]];
        let device = ["link", "add", "vx0", "type", "vxlan", "id", VNI, "dstport", "4789"];
        Program::new(host, "ip", [&device[..], &ends].concat(), "apt-get install iproute2")?.run("")?;
        netlink.create_veth("c0", VethPeer { name: "eth0", netns: Some(container.as_fd()) })?;
        for port in ["vx0", "c0"] {
            let mtu = Some(MTU);
            let change = LinkChange { master: Some("br0"), mtu, up: Some(true), ..LinkChange::default() };
            netlink.change(port, change)?;
        }
        let mut inside = run_in(container, Netlink::open)??;
        inside.change("eth0", LinkChange { mtu: Some(MTU), ..LinkChange::default() })?;
        plug_in(container, places[number].address)?;
    }
    let namespaces = hosts.into_iter().chain(containers).collect();
    let who = Who::Peer(Peer::KernelVxlan);
    Ok(Contender { who, places, _programs: Vec::new(), _namespaces: namespaces })
}

/// Two hosts joined by a veth pair that can what the road says.
fn underlay(road: Road) -> Result<[NetNs; 2], BenchError> {
    let hosts = [NetNs::anonymous()?, NetNs::anonymous()?];
    run_in(&hosts[0], Netlink::open)??
        .create_veth("u0", VethPeer { name: "u0", netns: Some(hosts[1].as_fd()) })?;
    for (host, address) in hosts.iter().zip(HOSTS) {
        let mut netlink = run_in(host, Netlink::open)??;
        let address: Ipv4Addr = address.parse().map_err(std::io::Error::other)?;
        let net = IpNet::new(IpAddr::from(address), 24).map_err(std::io::Error::other)?;
        netlink.set_up("lo")?;
        netlink.add_address("u0", net)?;
        netlink.set_up("u0")?;
        let off = switched_off(road);
        if !off.is_empty() {
            let features = off.iter().flat_map(|feature| [*feature, "off"]);
            let arguments = ["-K", "u0"].into_iter().chain(features);
            Program::new(host, "ethtool", arguments, "apt-get install ethtool")?.run("")?;
        }
    }
    Ok(hosts)
}

/// Features that the underlay of a road lacks.
fn switched_off(road: Road) -> &'static [&'static str] {
    match road {
        Road::OverlayTunnelGso | Road::C2c | Road::Masquerade | Road::Published | Road::Proxy => &[],
        Road::OverlayUdpGso => &["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"],
        Road::OverlayPlain => {
            &["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-udp-segmentation"]
        }
    }
}
