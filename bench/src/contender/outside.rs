//! Contenders between a container and the world outside, which is a namespace behind the host's uplink.
//!
//! ```text
//!   container ── host: the switch, or the kernel's bridge and rules ── veth ── world
//!   10.9.0.2     198.51.100.1                                                 198.51.100.2
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ipnet::IpNet;
use vswitch_sys::netlink::{LinkChange, Netlink, VethPeer};
use vswitch_sys::netns::{NetNs, run_in};
use vswitch_traffic::{KernelBridge, Place, Process, netns_path, place, plug_in};

use super::switch::Switch;
use super::who::{Peer, PortType, Who};
use super::{Contender, docker_rules};
use crate::attach::attach;
use crate::error::BenchError;
use crate::process::Program;
use crate::road::Road;

const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// Ports that are published, and that a container listens on when it lets the kernel choose.
const PORTS: (u16, u16) = (5000, 5199);
/// Ports that connections to the other end come from: few enough that each has a claimed port, and none waits
/// for another's end.
pub const SOURCE_PORTS: (u16, u16) = (20_000, 23_999);

/// The switch and the kernel.
///
/// # Errors
/// When a program is not installed, or something cannot be made.
pub fn contenders(road: Road) -> Result<Vec<Contender>, BenchError> {
    Ok(vec![switch(road)?, kernel(road)?])
}

fn switch(road: Road) -> Result<Contender, BenchError> {
    let host = NetNs::anonymous()?;
    let world = connect_world(&host)?;
    let switch = Switch::start_in(host, road.name())?;
    switch.tell(&["network", "create", "bench", "--subnet", "10.9.0.0/16"])?;
    let container = NetNs::anonymous()?;
    let netns = netns_path(&container);
    switch.tell(&["attach", "c", "--netns", &netns.to_string_lossy(), "--network", "bench"])?;
    if road == Road::Published {
        let (first, last) = PORTS;
        for protocol in ["tcp", "udp"] {
            let range = format!("{first}-{last}");
            switch.tell(&["publish", "c", &format!("{range}:{range}/{protocol}")])?;
        }
    }
    let address = Ipv4Addr::new(10, 9, 0, 2).into();
    let places = places(road, &container, address, &world)?;
    let Switch { host, process, .. } = switch;
    Ok(Contender {
        who: Who::Switch(PortType::Tap),
        places,
        _programs: vec![process],
        _namespaces: vec![host, container, world],
    })
}

/// Containers of one host, and a world that they reach through it.
#[derive(Debug)]
pub struct Crowd {
    /// Its name.
    pub who: Who,
    /// The containers.
    pub containers: Vec<NetNs>,
    /// The world.
    pub world: NetNs,
    /// The address of the first container. The gateway's is the one before, and others follow.
    pub first: Ipv4Addr,
    /// The world's address.
    pub target: Ipv4Addr,
    _programs: Vec<Process>,
    _host: NetNs,
}

/// A crowd behind the switch.
///
/// # Errors
/// When something cannot be made.
pub fn crowd_of_switch(count: usize) -> Result<Crowd, BenchError> {
    let host = NetNs::anonymous()?;
    let world = connect_world(&host)?;
    let switch = Switch::start_in(host, &format!("crowd-{count}-{}", next_number()))?;
    let (containers, _) = attach(&switch, count)?;
    let Switch { host, process, .. } = switch;
    let who = Who::Switch(PortType::Tap);
    let first = Ipv4Addr::new(10, 9, 0, 2);
    Ok(Crowd { who, containers, world, first, target: WORLD, _programs: vec![process], _host: host })
}

/// A crowd behind the kernel's bridge and MASQUERADE.
///
/// # Errors
/// When a program is not installed, or something cannot be made.
pub fn crowd_of_kernel(count: usize) -> Result<Crowd, BenchError> {
    const FIRST: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
    let (bridge, world) = masquerading(docker_rules::RULES.to_owned())?;
    let KernelBridge { host, containers, .. } = bridge;
    let mut containers: Vec<NetNs> = containers.into_iter().take(count).collect();
    let mut netlink = run_in(&host, Netlink::open)??;
    for number in containers.len()..count {
        let container = NetNs::anonymous()?;
        let port = format!("port{number}");
        netlink.create_veth(&port, VethPeer { name: "eth0", netns: Some(container.as_fd()) })?;
        let change = LinkChange { master: Some("docker0"), up: Some(true), ..LinkChange::default() };
        netlink.change(&port, change)?;
        plug_in(&container, nth(FIRST, number).into())?;
        containers.push(container);
    }
    for container in &containers {
        lead_out(container)?;
    }
    let who = Who::Peer(Peer::Kernel);
    let programs = Vec::new();
    Ok(Crowd { who, containers, world, first: FIRST, target: WORLD, _programs: programs, _host: host })
}

impl Crowd {
    /// A container, by number, as an end of a measurement.
    pub fn place(&self, number: usize) -> Place {
        place(&self.containers[number], nth(self.first, number).into())
    }

    /// The address of the containers' gateway.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() - 1)
    }
}

/// The address so many behind another.
fn nth(first: Ipv4Addr, number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + u32::try_from(number).unwrap_or(0))
}

/// A number that no crowd before had.
fn next_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Relaxed)
}

/// The kernel's bridge with rules, behind an uplink to the world, forwarding on.
fn masquerading(rules: String) -> Result<(KernelBridge, NetNs), BenchError> {
    let bridge = KernelBridge::new("docker0", [172, 17])?;
    let world = connect_world(&bridge.host)?;
    let mut netlink = run_in(&bridge.host, Netlink::open)??;
    netlink.add_address("docker0", net(Ipv4Addr::new(172, 17, 0, 1), 16)?)?;
    run_in(&bridge.host, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
    Program::new(&bridge.host, "iptables-restore", [], "apt-get install iptables")?.run(&rules)?;
    Ok((bridge, world))
}

/// Gives a container on the kernel's bridge its default route.
fn lead_out(container: &NetNs) -> Result<(), BenchError> {
    let mut inside = run_in(container, Netlink::open)??;
    let everywhere: IpNet = net(Ipv4Addr::UNSPECIFIED, 0)?;
    Ok(inside.add_route("eth0", everywhere, Some(Ipv4Addr::new(172, 17, 0, 1).into()))?)
}

/// The kernel's bridge with the rules Docker installs, forwarding on.
pub(super) fn kernel(road: Road) -> Result<Contender, BenchError> {
    let mut rules = docker_rules::RULES.to_owned();
    if road == Road::Published {
        rules = publish(&rules);
    }
    let (bridge, world) = masquerading(rules)?;
    let KernelBridge { host, containers: [container, unused], places: [own, _] } = bridge;
    lead_out(&container)?;
    let places = places(road, &container, own.address, &world)?;
    Ok(Contender {
        who: Who::Peer(Peer::Kernel),
        places,
        _programs: Vec::new(),
        _namespaces: vec![host, container, unused, world],
    })
}

/// Docker's rules with those for the published ports, in the places where Docker puts them.
fn publish(rules: &str) -> String {
    let (first, last) = PORTS;
    let mut published = String::new();
    let mut table = "";
    for line in rules.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        if table == "filter" && line.starts_with("-A DOCKER ! -i docker0 -o docker0 -j DROP") {
            for protocol in ["tcp", "udp"] {
                published += &format!(
                    "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p {protocol} --dport {first}:{last} -j ACCEPT\n"
                );
            }
        }
        if table == "nat" && line == "COMMIT" {
            for protocol in ["tcp", "udp"] {
                published += &format!(
                    "-A DOCKER ! -i docker0 -p {protocol} --dport {first}:{last} -j DNAT --to-destination 172.17.0.2\n"
                );
            }
        }
        published += line;
        published.push('\n');
    }
    published
}

/// Source and target of a road.
fn places(road: Road, container: &NetNs, address: IpAddr, world: &NetNs) -> io::Result<[Place; 2]> {
    let (inside, outside) = (place(container, address), place(world, WORLD.into()));
    Ok(match road {
        Road::C2c | Road::Masquerade | Road::OverlayTunnelGso | Road::OverlayUdpGso | Road::OverlayPlain => {
            choose_ports(container, SOURCE_PORTS)?;
            [inside, outside]
        }
        Road::Published | Road::Proxy => {
            choose_ports(container, PORTS)?;
            choose_ports(world, SOURCE_PORTS)?;
            [outside, Place { reached_at: Some(HOST.into()), ..inside }]
        }
    })
}

/// Has the kernel choose ports from these, and again a second after a connection from one has ended.
fn choose_ports(netns: &NetNs, (first, last): (u16, u16)) -> io::Result<()> {
    run_in(netns, || {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{first} {last}"))?;
        std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")
    })?
}

/// Makes the world, and the host's uplink with its default route.
fn connect_world(host: &NetNs) -> Result<NetNs, BenchError> {
    let world = NetNs::anonymous()?;
    let mut netlink = run_in(host, Netlink::open)??;
    netlink.create_veth("uplink", VethPeer { name: "eth0", netns: Some(world.as_fd()) })?;
    netlink.add_address("uplink", net(HOST, 24)?)?;
    netlink.set_up("lo")?;
    netlink.set_up("uplink")?;
    let mut beyond = run_in(&world, Netlink::open)??;
    beyond.set_up("lo")?;
    beyond.add_address("eth0", net(WORLD, 24)?)?;
    beyond.set_up("eth0")?;
    netlink.add_route("uplink", net(Ipv4Addr::UNSPECIFIED, 0)?, Some(WORLD.into()))?;
    Ok(world)
}

fn net(address: Ipv4Addr, prefix: u8) -> io::Result<IpNet> {
    IpNet::new(address.into(), prefix).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports_get_their_rules_before_the_drop() {
        let rules = publish(docker_rules::RULES);
        let at = |text: &str| rules.find(text).unwrap_or(usize::MAX);
        assert!(at("--dport 5000:5199 -j ACCEPT") < at("-A DOCKER ! -i docker0 -o docker0 -j DROP"));
        assert_eq!(rules.matches("-j DNAT").count(), 2);
    }
}
