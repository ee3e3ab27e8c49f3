//! Facts that the datapath was told, by kind.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_contract::claim::Claimed;
use vswitch_contract::fact::{self, Fact, Facts, Held, Key};
use vswitch_contract::network::Network;
use vswitch_contract::port::PortSpec;
use vswitch_contract::relay::{Binding, Relayed};
use vswitch_contract::tunnel::{TunnelSocket, TunnelSpec};
use vswitch_contract::uplink::UplinkSpec;
use vswitch_frame::{NetworkId, PortId};

use super::shared::Link;

/// A claimed port and its socket.
pub type Claim = (Claimed, Arc<OwnedFd>);

impl Link {
    /// Looks at the facts.
    pub async fn facts<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&self.shared.state.lock().await.facts)
    }

    /// Networks.
    pub async fn networks(&self) -> BTreeMap<NetworkId, Network> {
        let own = |held: &Held| {
            if let Fact::Network(id, network) = &held.fact { Some((*id, network.clone())) } else { None }
        };
        self.facts(|facts| networks(facts).filter_map(own).collect()).await
    }

    /// Ports, each with a duplicate of its descriptor.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub async fn ports(&self) -> io::Result<Vec<(PortId, PortSpec, OwnedFd)>> {
        let all = Key::Port(PortId(0))..=Key::Port(PortId(u16::MAX));
        let own = |held: &Held| match (&held.fact, held.fds.first()) {
            (Fact::Port(id, spec), Some(fd)) => Some(fd.try_clone().map(|fd| (*id, spec.clone(), fd))),
            _ => None,
        };
        self.facts(|facts| facts.range(all).filter_map(own).collect()).await
    }

    /// A duplicate of the private namespace of veth pairs, if this control or one before it made it.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub async fn far_side(&self) -> io::Result<Option<OwnedFd>> {
        let fd = |facts: &Facts| facts.get(&Key::FarSide).and_then(|held| held.fds.first()).cloned();
        self.facts(fd).await.map(|fd| fd.try_clone()).transpose()
    }

    /// Addresses of the host that networks leave with instead of the uplink's.
    pub async fn source_addresses(&self) -> Vec<IpAddr> {
        let of =
            |network: Network| [network.source_v4.map(IpAddr::from), network.source_v6.map(IpAddr::from)];
        self.networks().await.into_values().flat_map(of).flatten().collect()
    }

    /// Subnets whose addresses mean containers beyond an interface of the host, too.
    pub async fn reachable_subnets(&self, interface: Option<&str>) -> Vec<IpNet> {
        let networks = self.networks().await.into_values();
        networks.flat_map(|network| network.subnets_in_sight(interface).collect::<Vec<_>>()).collect()
    }

    /// Published ports.
    pub async fn bindings(&self) -> Vec<Binding> {
        let own = |held: &Held| if let Fact::Binding(binding) = held.fact { Some(binding) } else { None };
        self.facts(|facts| facts.range(..).filter_map(own).collect()).await
    }

    /// Sockets of published ranges, in the order of ports.
    pub async fn sockets(&self) -> BTreeMap<Relayed, Vec<Arc<OwnedFd>>> {
        let mut sockets: BTreeMap<Relayed, Vec<Arc<OwnedFd>>> = BTreeMap::new();
        self.facts(|facts| {
            for held in facts.range(..) {
                if let Fact::Sockets(relayed, _) = held.fact {
                    sockets.entry(relayed).or_default().extend(held.fds.iter().cloned());
                }
            }
        })
        .await;
        sockets
    }

    /// Claimed ports.
    pub async fn claims(&self) -> Vec<Claim> {
        let own = |held: &Held| match (&held.fact, held.fds.first()) {
            (Fact::Claim(claimed), Some(socket)) => Some((*claimed, Arc::clone(socket))),
            _ => None,
        };
        self.facts(|facts| facts.range(..).filter_map(own).collect()).await
    }

    /// Duplicates of the packet sockets of the uplinks, by their places.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub async fn uplink_sockets(&self) -> io::Result<BTreeMap<u16, OwnedFd>> {
        let copy = |(place, _, fd): (u16, &UplinkSpec, &Arc<OwnedFd>)| Ok((place, fd.try_clone()?));
        self.facts(|facts| uplinks(facts).map(copy).collect()).await
    }

    /// The tunnel of a network.
    pub async fn tunnel(&self, network: NetworkId) -> Option<TunnelSpec> {
        self.facts(|facts| facts.get(&Key::Tunnel(network)).and_then(tunnel)).await.map(|(_, spec)| spec)
    }

    /// Every tunnel.
    pub async fn tunnels(&self) -> Vec<(NetworkId, TunnelSpec)> {
        let all = Key::Tunnel(NetworkId(0))..=Key::Tunnel(NetworkId(u16::MAX));
        self.facts(|facts| facts.range(all).filter_map(tunnel).collect()).await
    }

    /// The peers of the tunnel of a network.
    pub async fn peers(&self, network: NetworkId) -> Vec<IpAddr> {
        let [_, keys, _] = fact::beyond(network);
        let own = |held: &Held| if let Fact::Peer(_, vtep) = held.fact { Some(vtep) } else { None };
        self.facts(|facts| facts.range(keys).filter_map(own).collect()).await
    }

    /// Sockets that tunnels share.
    pub async fn tunnel_sockets(&self) -> BTreeSet<TunnelSocket> {
        let own = |held: &Held| if let Fact::TunnelSocket(which) = held.fact { Some(which) } else { None };
        self.facts(|facts| facts.range(Key::Rules..=Key::Tunnel(NetworkId(0))).filter_map(own).collect())
            .await
    }
}

fn networks(facts: &Facts) -> impl Iterator<Item = &Held> {
    facts.range(Key::Network(NetworkId(0))..=Key::Network(NetworkId(u16::MAX)))
}

fn tunnel(held: &Held) -> Option<(NetworkId, TunnelSpec)> {
    if let Fact::Tunnel(network, spec) = &held.fact { Some((*network, spec.clone())) } else { None }
}

/// Uplinks, by their places, each with its packet socket.
pub(crate) fn uplinks(facts: &Facts) -> impl Iterator<Item = (u16, &UplinkSpec, &Arc<OwnedFd>)> {
    facts.range(Key::Uplink(0)..=Key::Uplink(u16::MAX)).filter_map(|held| {
        match (&held.fact, held.fds.first()) {
            (Fact::Uplink(place, spec), Some(fd)) => Some((*place, spec, fd)),
            _ => None,
        }
    })
}
