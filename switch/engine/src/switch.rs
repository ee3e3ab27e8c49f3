//! The switch as its owner sees it: networks, ports, reading the table, ageing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vswitch_frame::{Instant, Mac, NetworkId, PortId};

use crate::bindings::{Bindings, Owner};
use crate::dns::index::Index;
use crate::gateway::budget::Budget;
use crate::gateway::schedule::Due;
use crate::gateway::way_out::Ways;
use crate::limits::Limits;
use crate::network::{Network, Station};
use crate::policy::{Count, Policy, PublishedPorts, Rule};
use crate::ports::{Port, Ports};
use crate::refusal::Refusal;
use crate::remotes::Remotes;
use crate::security::Guard;
use crate::snoop::Snoop;
use crate::stats::Stats;
use crate::table::{Entry, Key, Table};

/// An L2 switch. See the [crate] for how it works.
#[derive(Debug)]
pub struct Switch {
    pub(crate) ports: Ports,
    pub(crate) names: Index,
    pub(crate) table: Table,
    pub(crate) stats: Stats,
    pub(crate) bindings: Bindings,
    pub(crate) hosts: BTreeSet<IpAddr>,
    pub(crate) out: Ways,
    /// Errors that may still be sent to senders outside.
    pub(crate) errors: Budget,
    pub(crate) advertise_at: Option<Instant>,
    pub(crate) advertisements: Vec<Due>,
    pub(crate) seed: u64,
    pub(crate) policy: Policy,
    pub(crate) snoop: Snoop,
    pub(crate) remotes: Remotes,
    limits: Limits,
}

impl Switch {
    /// A switch without networks. `seed` must be secret and random: it keeps containers from choosing
    /// addresses that collide in the table.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let table = Table::new(limits, seed);
        Self {
            ports: Ports::default(),
            names: Index::default(),
            table,
            stats: Stats::default(),
            bindings: Bindings::default(),
            hosts: BTreeSet::new(),
            out: Ways::default(),
            errors: Budget::default(),
            advertise_at: None,
            advertisements: Vec::new(),
            policy: Policy::new(seed),
            snoop: Snoop::default(),
            remotes: Remotes::new(seed),
            seed,
            limits,
        }
    }

    /// Adds a network, with no ports.
    ///
    /// # Errors
    /// The identifier is in use or beyond the limit.
    pub fn add_network(&mut self, id: NetworkId, network: Network) -> Result<(), Refusal> {
        let addresses = network.gateway.iter().flat_map(|gateway| gateway.addresses.clone());
        let addresses: Vec<IpAddr> = addresses.collect();
        let advertises_router = network.advertises_router();
        self.ports.add_network(id, network)?;
        if let Some(network) = self.ports.network(id) {
            self.snoop.add_network(id, network);
        }
        self.bindings.bind(id, Owner::Gateway, addresses);
        if advertises_router {
            self.advertise_at = Some(Instant::ZERO);
        }
        Ok(())
    }

    /// Removes a network with its ports and its table. Returns the ports there were; none if there is
    /// no such network.
    pub fn remove_network(&mut self, id: NetworkId) -> Vec<PortId> {
        self.table.forget_network(id);
        self.names.remove_network(id);
        self.bindings.forget(id);
        self.snoop.remove_network(id);
        self.remotes.forget_network(id);
        self.advertisements.retain(|due| due.network != id);
        let ports = self.ports.remove_network(id);
        ports.iter().for_each(|port| self.policy.forget_port(*port));
        self.policy.forget_network(id);
        ports
    }

    /// A network, as it was described when it was added.
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.ports.network(id)
    }

    /// Adds a port to a network. An address that was learned at another port, or that was beyond a tunnel, is
    /// now fixed at this one.
    ///
    /// # Errors
    /// The identifier is in use or beyond the limit, there is no such network, or an address is not
    /// one of a station or is fixed at another port of the network. Nothing has changed then.
    pub fn add_port(&mut self, id: PortId, port: Port) -> Result<(), Refusal> {
        self.ports.check(id, port.network)?;
        if port.addresses.len() > self.limits.addresses_per_port {
            return Err(Refusal::TooManyAddresses(self.limits.addresses_per_port));
        }
        for &mac in &port.addresses {
            if !mac.is_station() {
                return Err(Refusal::NoStation(mac));
            }
            let owner = self.table.fixed_at(Key::new(port.network, mac));
            if let Some(owner) = owner.filter(|owner| !self.is_tunnel(*owner)) {
                return Err(Refusal::AddressTaken(mac, owner));
            }
        }
        for &mac in &port.addresses {
            self.table.fix(Key::new(port.network, mac), id);
            let before = self.remotes.forget(Key::new(port.network, mac));
            self.end_flows_beyond(port.network, before);
        }
        let (network, station) = (port.network, port.station.clone());
        self.ports.add(id, port)?;
        self.snoop.add_port(id, network, &station);
        self.bindings.bind(network, Owner::Port(id), addresses_of(&station));
        self.names.add(network, id, &station);
        Ok(())
    }

    /// A port, as it was described when it was added, or since.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id)
    }

    /// Says anew who is behind a port. Returns whether there is one.
    pub fn set_station(&mut self, id: PortId, station: Station) -> bool {
        let Some(network) = self.ports.get(id).map(|port| port.network) else { return false };
        let Some(before) = self.ports.set_station(id, station.clone()) else { return false };
        self.advertise_soon(network);
        let (old, new) = (addresses_of(&before), addresses_of(&station));
        // Of an address that was somebody else's, or will be, the flows are not its own.
        let gone = old.iter().filter(|address| !new.contains(address));
        let come = new.iter().filter(|address| !old.contains(address));
        gone.chain(come).for_each(|address| self.policy.forget_address(id, *address));
        if sandbox_of(&before) != sandbox_of(&station) {
            self.policy.forget_port(id);
            self.table.forget_port(id);
            self.snoop.forget_memberships(id, network);
        }
        self.bindings.release(network, Owner::Port(id), old);
        self.bindings.bind(network, Owner::Port(id), new);
        self.names.remove(network, id, &before);
        self.names.add(network, id, &station);
        true
    }

    /// Says which addresses the host has beside those of gateways: what is for them goes to the host port.
    pub fn set_host_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.hosts = addresses.into_iter().collect();
    }

    /// Notes ports of a container that are published.
    pub fn publish(&mut self, published: PublishedPorts) {
        self.policy.publish(published);
    }

    /// Notes that they are published no longer; flows that were begun to them from elsewhere end.
    pub fn unpublish(&mut self, published: &PublishedPorts) {
        let port = self.bindings.port_of(published.network, published.address);
        self.policy.unpublish(published, port);
    }

    /// Removes a port, its addresses and what was learned there. Returns whether there was one.
    pub fn remove_port(&mut self, id: PortId) -> bool {
        let Some(port) = self.ports.remove(id) else {
            return false;
        };
        self.names.remove(port.network, id, &port.station);
        self.bindings.release(port.network, Owner::Port(id), addresses_of(&port.station));
        for mac in port.addresses {
            self.table.unfix(Key::new(port.network, mac));
        }
        if port.station == Station::Tunnel {
            self.remotes.forget_network(port.network);
            self.table.unfix_port(port.network, id);
        }
        self.table.forget_port(id);
        self.snoop.remove_port(id, port.network);
        self.policy.forget_port(id);
        true
    }

    /// Says that an endpoint is beyond a tunnel, and its addresses; or says it anew. Returns whether it is:
    /// not if the port is no tunnel, and not if an endpoint of this host has the MAC address.
    pub fn set_remote(&mut self, tunnel: PortId, mac: Mac, addresses: &[IpAddr]) -> bool {
        let Some(port) = self.ports.get(tunnel).filter(|port| port.station == Station::Tunnel) else {
            return false;
        };
        let key = Key::new(port.network, mac);
        let lives_here = self.table.fixed_at(key).is_some_and(|at| at != tunnel);
        if lives_here || !mac.is_station() {
            return false;
        }
        self.table.fix(key, tunnel);
        let secured = self.ports.network(port.network).is_some_and(|network| network.port_security);
        let guarded = secured && !addresses.is_empty();
        let guard = guarded.then(|| Guard::of(vec![mac], addresses.iter().copied()));
        let before = self.remotes.set(key, addresses.to_vec(), guard);
        let gone = before.iter().filter(|address| !addresses.contains(address));
        let come = addresses.iter().filter(|address| !before.contains(address));
        gone.chain(come).for_each(|address| self.policy.forget_address(tunnel, *address));
        true
    }

    /// Ends the flows of somebody beyond the tunnel of a network who had these addresses.
    fn end_flows_beyond(&mut self, network: NetworkId, addresses: Vec<IpAddr>) {
        if addresses.is_empty() {
            return;
        }
        let tunnels = self.ports.members_where(network, |port| port.station == Station::Tunnel);
        let tunnels: Vec<PortId> = tunnels.map(|(id, _)| id).collect();
        for tunnel in tunnels {
            addresses.iter().for_each(|address| self.policy.forget_address(tunnel, *address));
        }
    }

    /// Says that an endpoint is not beyond a tunnel any more.
    pub fn forget_remote(&mut self, tunnel: PortId, mac: Mac) {
        let Some(network) = self.ports.get(tunnel).map(|port| port.network) else { return };
        let key = Key::new(network, mac);
        if self.table.fixed_at(key) == Some(tunnel) {
            self.table.unfix(key);
        }
        let before = self.remotes.forget(key);
        before.into_iter().for_each(|address| self.policy.forget_address(tunnel, address));
    }

    /// Whether a port is a tunnel.
    pub(crate) fn is_tunnel(&self, id: PortId) -> bool {
        self.ports.get(id).is_some_and(|port| port.station == Station::Tunnel)
    }

    /// Says the MTU of a port, in bytes. Returns whether there is one.
    pub fn set_mtu(&mut self, id: PortId, mtu: usize) -> bool {
        self.ports.set_mtu(id, mtu)
    }

    /// The ports to which a flooded frame of a port goes, with their MTU in bytes: the other ports of its
    /// network that are not in its group. None if there is no such port.
    pub fn flood_targets(&self, ingress: PortId) -> impl Iterator<Item = (PortId, usize)> {
        self.ports.flood_targets(ingress)
    }

    /// Whether a flooded frame of a port goes to another: one of [`flood_targets`](Self::flood_targets).
    pub fn reaches(&self, ingress: PortId, other: PortId) -> bool {
        let (from, to) = (self.ports.get(ingress), self.ports.get(other));
        let both = from.zip(to).filter(|(from, to)| ingress != other && from.network == to.network);
        both.is_some_and(|(from, to)| !to.is_apart_from(from))
    }

    /// The forwarding table of a network, in no order.
    pub fn table(&self, network: NetworkId) -> impl Iterator<Item = Entry> {
        self.table.entries(network)
    }

    /// The counters since the switch was made.
    pub fn stats(&self) -> Stats {
        Stats { displaced: self.policy.displaced(), ..self.stats }
    }

    /// When [`poll`](Self::poll) wants to be called; `None` if there is nothing to wait for.
    pub fn poll_at(&self) -> Option<Instant> {
        let times = [self.table.sweep_at(), self.policy.poll_at(), self.snoop.poll_at(), self.advertise_at];
        times.into_iter().flatten().min()
    }

    /// Puts these rules in place of all there are. A rule that was there before, known by its number, goes
    /// on counting.
    pub fn set_rules(&mut self, rules: Vec<Rule>) {
        self.policy.set_rules(rules);
    }

    /// The count of each rule, by its number, in the order of the rules.
    pub fn rule_counts(&self) -> impl Iterator<Item = (u32, Count)> {
        self.policy.counts()
    }

    /// Forgets learned addresses and flows that have grown too old, and notes which routers are to be
    /// advertised: ask [`next_advertisement`](Self::next_advertisement), and which
    /// [queries](Self::next_query). Before [`poll_at`](Self::poll_at) it does nothing, at no cost.
    pub fn poll(&mut self, now: Instant) {
        self.table.sweep(now);
        self.policy.poll(now);
        self.snoop.poll(now);
        self.schedule_advertisements(now);
    }
}

/// The sandbox of a container.
fn sandbox_of(station: &Station) -> Option<u32> {
    match station {
        Station::Container(endpoint) => Some(endpoint.sandbox),
        Station::Unknown | Station::Host | Station::Tunnel => None,
    }
}

/// The addresses of a container.
fn addresses_of(station: &Station) -> Vec<IpAddr> {
    match station {
        Station::Container(endpoint) => endpoint.addresses.iter().map(ipnet::IpNet::addr).collect(),
        Station::Unknown | Station::Host | Station::Tunnel => Vec::new(),
    }
}
