//! Tunnels: the datapath's ends of overlays, which span hosts.
//!
//! # Theory of operation
//! A network of driver `overlay` has one tunnel on each host (the crate `vxlan`), a port of the switch
//! without a descriptor: all tunnels of a host share one receiving socket and, for each VTEP address of the
//! host, a set of sending ones. They are opened here for the first tunnel that needs them, and closed with
//! the last.
//!
//! Other hosts, and the containers that live on them, are said by others: by the network's options
//! ([`set_peers`](Tunnels::set_peers)), or by the cluster ([`set_beyond`](Tunnels::set_beyond)). The facts
//! are kept by the [`link`](crate::link) and said again to every new datapath; a control that takes up with a
//! datapath finds them there.
//!
//! The underlay's MTU is followed ([`Tunnels::follow`]): what a tunnel has room for follows from it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::Mutex;
use vswitch_contract::fact::{self, Change, Fact, Held, Key};
use vswitch_contract::tunnel::{TUNNEL_SENDERS, TunnelSocket, TunnelSpec, Vni, inner_mtu};
use vswitch_frame::{GroupId, NetworkId, PortId};
use vswitch_sys::netlink::Netlink;
use vswitch_sys::udp;

use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::host::changes::Changes;
use crate::link::{Dropped, Link, LinkError};

/// The first source port of tunnels (RFC 7348, 5).
const SOURCE_PORTS_FROM: u16 = 49_152;

/// The tunnels of a datapath. Clones are of the same datapath.
#[derive(Clone, Debug)]
pub struct Tunnels {
    link: Link,
    /// The UDP port of all VTEPs.
    port: u16,
    /// The lock under which sockets are opened and closed.
    sockets: Arc<Mutex<()>>,
}

/// A tunnel as it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelWish {
    /// The port of the switch that it is to be.
    pub port: PortId,
    /// Its isolation group: that of the network's containers where ICC is off.
    pub group: GroupId,
    /// The network's identifier on the wire.
    pub vni: Vni,
    /// The address of this host that its packets come from: its VTEP.
    pub local: IpAddr,
    /// Whether to learn from frames who lives where: for networks without anybody who says it.
    pub learning: bool,
}

impl Tunnels {
    /// The tunnels of the datapath behind this link. `port` is the UDP port of all VTEPs.
    pub fn new(link: Link, port: u16) -> Self {
        Self { link, port, sockets: Arc::default() }
    }

    /// Begins the tunnel of a network that the datapath has. It has no peers at first. One that is as wished
    /// stays as it is, with all it knows; any other is begun anew.
    ///
    /// # Errors
    /// When the host has no such address, somebody else has the sockets' port, or another network the
    /// identifier.
    pub async fn up(&self, network: NetworkId, wish: TunnelWish) -> Result<()> {
        let TunnelWish { port, group, vni, local, learning } = wish;
        let underlay_mtu = underlay_mtu(local)?;
        let spec = TunnelSpec { port, group, vni, local, underlay_mtu, learning };
        if let Some(known) = self.link.tunnel(network).await
            && known != (TunnelSpec { underlay_mtu: known.underlay_mtu, ..spec.clone() })
        {
            self.remove(network).await?;
        }
        // An earlier control may have had another port.
        self.open_sockets(local).await?;
        let raised = self.link.set(Fact::Tunnel(network, spec)).await.map_err(refused);
        self.close_sockets().await;
        raised
    }

    /// Ends the tunnel of a network, if it has one.
    ///
    /// # Errors
    /// When the datapath cannot be told.
    pub async fn down(&self, network: NetworkId) -> Result<()> {
        let done = self.remove(network).await;
        self.close_sockets().await;
        done
    }

    async fn remove(&self, network: NetworkId) -> Result<()> {
        let keys = fact::beyond(network);
        let is_its = |key: &Key| *key == Key::Tunnel(network) || keys.iter().any(|keys| keys.contains(key));
        self.link.remove_where(is_its).await.map_err(refused)
    }

    /// Says which other hosts have the network: packets from their VTEPs are taken, and what is for everybody
    /// goes there.
    ///
    /// # Errors
    /// When one can be no peer: it is this host, no host at all, of the other version of IP, or one too many;
    /// all others are said.
    pub async fn set_peers(&self, network: NetworkId, peers: impl IntoIterator<Item = IpAddr>) -> Result<()> {
        let [_, keys, _] = fact::beyond(network);
        let wanted = peers.into_iter().map(|vtep| Held::from(Fact::Peer(network, vtep)));
        let refused_peers = self.link.agree(&[keys], wanted).await.map_err(refused)?;
        match refused_peers.into_iter().next() {
            None => Ok(()),
            Some((_, why)) => Err(refused(LinkError::Refused(why))),
        }
    }

    /// The other hosts that have the network of a tunnel, each with the largest network packet that is taken
    /// for it, in bytes. None where there is no tunnel.
    ///
    /// # Errors
    /// When the datapath cannot be asked.
    pub async fn peers(&self, network: NetworkId) -> Result<Vec<(IpAddr, u32)>> {
        let Some(spec) = self.link.tunnel(network).await else { return Ok(Vec::new()) };
        let underlay = usize::try_from(spec.underlay_mtu).unwrap_or(usize::MAX);
        let room = u32::try_from(inner_mtu(underlay, spec.local)).unwrap_or(u32::MAX);
        let narrow = self.link.narrow_paths(network).await.map_err(refused)?;
        let peers = self.link.peers(network).await.into_iter();
        Ok(peers.map(|vtep| (vtep, narrow.get(&vtep).copied().unwrap_or(room))).collect())
    }

    /// Says all that is beyond the tunnel of a network: peers, records and names, in place of all that was
    /// said. Returns the facts that the datapath refused, and why.
    ///
    /// # Errors
    /// When the datapath cannot be told.
    pub async fn set_beyond(
        &self,
        network: NetworkId,
        wanted: impl IntoIterator<Item = Fact>,
    ) -> Result<Vec<Dropped>> {
        let wanted = wanted.into_iter().map(Held::from);
        self.link.agree(&fact::beyond(network), wanted).await.map_err(refused)
    }

    /// Changes what is beyond the tunnel of a network, as far as the datapath takes it. Returns the facts
    /// that it refused, and why.
    ///
    /// # Errors
    /// When the datapath cannot be told.
    pub async fn change_beyond(&self, changes: Vec<Change>) -> Result<Vec<Dropped>> {
        self.link.offer(changes).await.map_err(refused)
    }

    /// Tells the datapath whenever the MTU of an underlay changes, until it is dropped.
    pub async fn follow(self) {
        let mut changes = Changes::listen();
        loop {
            let mut settled = true;
            for (network, spec) in self.link.tunnels().await {
                // An address that is gone for the moment says nothing about the MTU.
                let Ok(mtu) = underlay_mtu(spec.local) else {
                    settled = false;
                    continue;
                };
                if mtu != spec.underlay_mtu
                    && let Err(error) =
                        self.link.set(Fact::Tunnel(network, TunnelSpec { underlay_mtu: mtu, ..spec })).await
                {
                    settled = false;
                    tracing::warn!("the datapath was not told of a tunnel's MTU: {error}");
                }
            }
            changes.next(settled).await;
        }
    }

    async fn open_sockets(&self, local: IpAddr) -> Result<()> {
        let _guard = self.sockets.lock().await;
        let open = self.link.tunnel_sockets().await;
        let receiver = TunnelSocket::Receiver { port: self.port };
        if !open.contains(&receiver) {
            let fd = udp::open_receiver(self.port).map_err(|error| taken(self.port, &error))?;
            self.link.set(Held::new(Fact::TunnelSocket(receiver), [fd])).await.map_err(refused)?;
        }
        let mut ports = SOURCE_PORTS_FROM..=u16::MAX;
        for index in 0..TUNNEL_SENDERS {
            let which = TunnelSocket::Sender { local, index };
            if !open.contains(&which) {
                let fd = open_sender(local, &mut ports)?;
                self.link.set(Held::new(Fact::TunnelSocket(which), [fd])).await.map_err(refused)?;
            }
        }
        Ok(())
    }

    /// Closes the sockets that no tunnel needs.
    async fn close_sockets(&self) {
        let _guard = self.sockets.lock().await;
        let tunnels = self.link.tunnels().await;
        for which in self.link.tunnel_sockets().await {
            let needed = match which {
                TunnelSocket::Receiver { port } => port == self.port && !tunnels.is_empty(),
                TunnelSocket::Sender { local, .. } => tunnels.iter().any(|(_, spec)| spec.local == local),
            };
            if !needed && let Err(error) = self.link.remove(Key::TunnelSocket(which)).await {
                tracing::warn!("a socket of tunnels was not closed: {error}");
            }
        }
    }
}

/// Opens a sending socket at the first free one of these ports.
fn open_sender(local: IpAddr, ports: &mut impl Iterator<Item = u16>) -> Result<OwnedFd> {
    loop {
        let Some(port) = ports.next() else {
            let message =
                format!("every UDP port from {SOURCE_PORTS_FROM} on of {local} is in use: free one");
            return Err(Error::new(Code::PortInUse, message));
        };
        match udp::open_sender(SocketAddr::new(local, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return Err(no_such(local)),
            outcome => return outcome.map_err(|error| failed("open a socket for tunnels", &error)),
        }
    }
}

/// The MTU of the interface that has an address, in bytes.
///
/// # Errors
/// When the host has no such address.
pub fn underlay_mtu(local: IpAddr) -> Result<u32> {
    let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
    let addresses = netlink.addresses().map_err(crate::error::refused)?;
    let index = addresses.iter().find(|address| address.net.addr() == local).map(|address| address.index);
    let links = netlink.links().map_err(crate::error::refused)?;
    let link = index.and_then(|index| links.into_iter().find(|link| link.index == index));
    link.map(|link| link.mtu).ok_or_else(|| no_such(local))
}

fn no_such(local: IpAddr) -> Error {
    let message =
        format!("{local} is no address of this host: give one that the network's other hosts reach");
    Error::new(Code::InvalidArgument, message)
}

fn taken(port: u16, error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::AddrInUse {
        let message = format!(
            "UDP port {port} is in use, perhaps by a vxlan interface of the kernel: remove that \
             (ip -d link show type vxlan)"
        );
        return Error::new(Code::PortInUse, message);
    }
    failed("open the socket of tunnels", error)
}

fn refused(error: LinkError) -> Error {
    match error {
        LinkError::Refused(why) => Error::new(Code::InvalidArgument, why),
        LinkError::Down(_) => Error::new(Code::Internal, error.to_string()),
    }
}
