//! Contenders between a program of the host and a container, whose ports are published on the host's loopback
//! address.
//!
//! ```text
//!   program ── 127.0.0.1 ── the switch's relay, or docker-proxy and the kernel's bridge ── container
//! ```
//! Docker has one docker-proxy for each published port, and nothing else serves the loopback address.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use vswitch_sys::netlink::Netlink;
use vswitch_sys::netns::{NetNs, run_in};
use vswitch_traffic::{KernelBridge, Place, Process, netns_path, place};

use super::Contender;
use super::switch::Switch;
use super::who::{Peer, PortType, Who};
use crate::error::BenchError;
use crate::process::Program;

/// Ports that are published, and that a container listens on when it lets the kernel choose.
const PORTS: (u16, u16) = (5000, 5079);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Where packages put docker-proxy.
const PLACES: [&str; 3] =
    ["/usr/sbin/docker-proxy", "/usr/libexec/docker/docker-proxy", "/usr/bin/docker-proxy"];
const MEND: &str = "apt-get install docker.io, or unpack it with \"apt-get download docker.io\" and \"dpkg -x\" and \
                    name its usr/sbin/docker-proxy with --docker-proxy";

/// The switch, and docker-proxy: the one at a path, or the one that is installed.
///
/// # Errors
/// When it is not installed, or something cannot be made.
pub fn contenders(docker_proxy: Option<&Path>) -> Result<Vec<Contender>, BenchError> {
    Ok(vec![switch()?, kernel(docker_proxy)?])
}

fn switch() -> Result<Contender, BenchError> {
    let host = NetNs::anonymous()?;
    run_in(&host, Netlink::open)??.set_up("lo")?;
    let switch = Switch::start_in(host, "switch")?;
    switch.tell(&["network", "create", "bench", "--subnet", "10.9.0.0/16"])?;
    let container = NetNs::anonymous()?;
    let netns = netns_path(&container);
    switch.tell(&["attach", "c", "--netns", &netns.to_string_lossy(), "--network", "bench"])?;
    let (first, last) = PORTS;
    for protocol in ["tcp", "udp"] {
        let range = format!("{first}-{last}");
        switch.tell(&["publish", "c", &format!("{HOST}:{range}:{range}/{protocol}")])?;
    }
    let Switch { host, process, .. } = switch;
    let places = places(&host, &container, Ipv4Addr::new(10, 9, 0, 2).into())?;
    Ok(Contender {
        who: Who::Switch(PortType::Tap),
        places,
        _programs: vec![process],
        _namespaces: vec![host, container],
    })
}

/// docker-proxy in front of the kernel's bridge.
pub(super) fn kernel(docker_proxy: Option<&Path>) -> Result<Contender, BenchError> {
    let installed = || PLACES.into_iter().map(PathBuf::from).find(|path| path.exists());
    let program = docker_proxy.map(Path::to_owned).or_else(installed);
    let program = program.ok_or_else(|| BenchError::missing("docker-proxy", MEND))?;
    let bridge = KernelBridge::new("docker0", [172, 17])?;
    let KernelBridge { host, containers: [container, unused], places: [own, _] } = bridge;
    let mut netlink = run_in(&host, Netlink::open)??;
    netlink.set_up("lo")?;
    let gateway =
        ipnet::IpNet::new(Ipv4Addr::new(172, 17, 0, 1).into(), 16).map_err(std::io::Error::other)?;
    netlink.add_address("docker0", gateway)?;
    let mut programs = Vec::new();
    for port in PORTS.0..=PORTS.1 {
        for protocol in ["tcp", "udp"] {
            programs.push(relay(&host, &program, protocol, port, own.address)?);
        }
    }
    let places = places(&host, &container, own.address)?;
    Ok(Contender {
        who: Who::Peer(Peer::DockerProxy),
        places,
        _programs: programs,
        _namespaces: vec![host, container, unused],
    })
}

/// Starts docker-proxy for a port, and waits until it says on descriptor 3 that it listens.
fn relay(
    host: &NetNs,
    program: &Path,
    protocol: &str,
    port: u16,
    container: IpAddr,
) -> Result<Process, BenchError> {
    let (program, port) = (program.to_string_lossy(), port.to_string());
    let (from, to) = (HOST.to_string(), container.to_string());
    let own = ["-proto", protocol, "-host-ip", &from, "-host-port", &port];
    let words = ["-c", "exec \"$@\" 3>&1 >/dev/null", "sh", &program];
    let theirs = ["-container-ip", &to, "-container-port", &port];
    let words = words.into_iter().chain(own).chain(theirs);
    Program::new(host, "sh", words, MEND)?.spawn_and_wait_for("0")
}

/// The host is the source; the container is reached at the host's loopback address.
fn places(host: &NetNs, container: &NetNs, address: IpAddr) -> Result<[Place; 2], BenchError> {
    let (first, last) = PORTS;
    let range = format!("{first} {last}");
    run_in(container, || std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", range))??;
    Ok([place(host, HOST), Place { reached_at: Some(HOST), ..place(container, address) }])
}
