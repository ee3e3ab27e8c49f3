//! Tunnels: what makes a network span hosts.
//!
//! # Theory of operation
//! A network of driver `overlay` has one tunnel on each host (the crate `vxlan`), a port of the switch without a
//! descriptor: all tunnels of a host share one receiving socket and, for each VTEP address of the host, a set of
//! sending ones. They are opened here for the first tunnel that needs them, and closed with the last.
//!
//! Who the other hosts are and who lives on them is said by others: by the network's options, or by the
//! cluster. What is told is kept by the [`link`](super::link) and said again to every new datapath; a control that
//! takes up with a datapath finds it there. Every verb may be said twice.
//!
//! | verb | |
//! |---|---|
//! | [`up`](Tunnels::up) [`down`](Tunnels::down) | a network's tunnel begins and ends |
//! | [`add_peer`](Tunnels::add_peer) [`remove_peer`](Tunnels::remove_peer) | another host has the network, or no longer; packets of strangers are dropped |
//! | [`record`](Tunnels::record) [`forget`](Tunnels::forget) | an endpoint of the network lives there, or nowhere |
//! | [`known`](Tunnels::known) | what was said, by this control or one before it |
//!
//! The underlay's MTU is followed ([`Tunnels::follow`]): what a tunnel has room for follows from it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::sync::Mutex;
use vswitch_contract::tunnel::{Record, Vni};
use vswitch_frame::{GroupId, Mac, NetworkId, PortId};
use vswitch_sys::netlink::Netlink;
use vswitch_sys::netlink::watch::AddressWatch;
use vswitch_sys::udp;

use super::error::{Code, Error, Result};
use super::interface::failed;
use super::link::{KnownTunnel, Link, LinkError};
use vswitch_contract::tunnel::{RECORD_ADDRESSES_MAX, TUNNEL_SENDERS, TunnelSocket, TunnelSpec};

/// The first source port of tunnels (RFC 7348, 5).
const SOURCE_PORTS_FROM: u16 = 49_152;

/// Speaks of tunnels to the datapath. Clones speak of the same.
#[derive(Clone, Debug)]
pub struct Tunnels {
    link: Link,
    /// The UDP port of all VTEPs.
    port: u16,
    /// One at a time opens and closes sockets.
    sockets: Arc<Mutex<()>>,
}

/// What a tunnel is to be.
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
    /// Of the datapath behind this link. `port` is the UDP port of all VTEPs.
    pub fn new(link: Link, port: u16) -> Self {
        Self { link, port, sockets: Arc::default() }
    }

    /// Begins the tunnel of a network that the datapath has. It has no peers at first. One that is as wished stays as it
    /// is, with all it knows; any other is begun anew.
    ///
    /// # Errors
    /// When the host has no such address, somebody else has the sockets' port, or another network the identifier.
    pub async fn up(&self, network: NetworkId, wish: TunnelWish) -> Result<()> {
        let TunnelWish { port, group, vni, local, learning } = wish;
        let underlay_mtu = underlay_mtu(local)?;
        let spec = TunnelSpec { port, group, vni, local, underlay_mtu, learning };
        if let Some(KnownTunnel { spec: known, .. }) = self.link.tunnel(network).await {
            if known == (TunnelSpec { underlay_mtu: known.underlay_mtu, ..spec.clone() }) {
                // An earlier control may have had another port.
                self.open_sockets(local).await?;
                self.close_sockets().await;
                return self.link.set_tunnel_mtu(network, underlay_mtu).await.map_err(refused);
            }
            self.link.remove_tunnel(network).await.map_err(refused)?;
        }
        self.open_sockets(local).await?;
        if let Err(error) = self.link.add_tunnel(network, spec).await {
            self.close_sockets().await;
            return Err(refused(error));
        }
        Ok(())
    }

    /// Ends the tunnel of a network, if it has one.
    ///
    /// # Errors
    /// When the datapath cannot be told.
    pub async fn down(&self, network: NetworkId) -> Result<()> {
        let done = self.link.remove_tunnel(network).await.map_err(refused);
        self.close_sockets().await;
        done
    }

    /// Another host has the network, too: packets from its VTEP are taken, and what is for everybody goes there.
    ///
    /// # Errors
    /// When it can be no peer: it is this host, no host at all, of the other version of IP, or one too many.
    pub async fn add_peer(&self, network: NetworkId, vtep: IpAddr) -> Result<()> {
        self.link.add_peer(network, vtep).await.map_err(refused)
    }

    /// A host has the network no longer.
    ///
    /// # Errors
    /// When the datapath cannot be told.
    pub async fn remove_peer(&self, network: NetworkId, vtep: IpAddr) -> Result<()> {
        self.link.remove_peer(network, vtep).await.map_err(refused)
    }

    /// Says who of the network lives where, this host's own endpoints among them. Of two records of one MAC address
    /// that with the higher version holds; versions come from one clock of the cluster.
    ///
    /// # Errors
    /// When a record has more than [`RECORD_ADDRESSES_MAX`] addresses, or the datapath cannot be told.
    pub async fn record(&self, network: NetworkId, records: Vec<Record>) -> Result<()> {
        if let Some(record) = records.iter().find(|record| record.addresses.len() > RECORD_ADDRESSES_MAX) {
            let (mac, count) = (record.mac, record.addresses.len());
            let message = format!("{mac} has {count} addresses: at most {RECORD_ADDRESSES_MAX} are carried");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        self.link.set_records(network, records).await.map_err(refused)
    }

    /// Says that an endpoint is gone: records up to this version are void, also those that come late.
    ///
    /// # Errors
    /// When the datapath cannot be told.
    pub async fn forget(&self, network: NetworkId, mac: Mac, version: u64) -> Result<()> {
        self.link.forget_record(network, mac, version).await.map_err(refused)
    }

    /// The tunnel of a network with its peers and records.
    pub async fn known(&self, network: NetworkId) -> Option<KnownTunnel> {
        self.link.tunnel(network).await
    }

    /// Tells the datapath whenever the MTU of an underlay changes, until it is dropped.
    pub async fn follow(self) {
        if let Err(error) = self.try_follow().await {
            tracing::warn!("the MTU below tunnels is not followed any more: {error}");
        }
    }

    async fn try_follow(&self) -> io::Result<()> {
        // The watch comes first, so that no change falls between it and the first look.
        let watch = AddressWatch::open_with_routes()?.into_async()?;
        loop {
            for (network, spec) in self.link.tunnels().await {
                // An address that is gone for the moment says nothing about the MTU.
                let Ok(mtu) = underlay_mtu(spec.local) else { continue };
                if mtu != spec.underlay_mtu
                    && let Err(error) = self.link.set_tunnel_mtu(network, mtu).await
                {
                    tracing::warn!("the datapath was not told of a tunnel's MTU: {error}");
                }
            }
            watch.async_io(Interest::READABLE, AddressWatch::heard).await?;
        }
    }

    async fn open_sockets(&self, local: IpAddr) -> Result<()> {
        let _guard = self.sockets.lock().await;
        let open = self.link.tunnel_sockets().await;
        let receiver = TunnelSocket::Receiver { port: self.port };
        if !open.contains(&receiver) {
            let fd = udp::open_receiver(self.port).map_err(|error| taken(self.port, &error))?;
            self.link.set_tunnel_socket(receiver, fd).await.map_err(refused)?;
        }
        let mut ports = SOURCE_PORTS_FROM..=u16::MAX;
        for index in 0..TUNNEL_SENDERS {
            let which = TunnelSocket::Sender { local, index };
            if !open.contains(&which) {
                let fd = open_sender(local, &mut ports)?;
                self.link.set_tunnel_socket(which, fd).await.map_err(refused)?;
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
            if !needed && let Err(error) = self.link.close_tunnel_socket(which).await {
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
    let addresses = netlink.addresses().map_err(super::interface::refused)?;
    let index = addresses.iter().find(|address| address.net.addr() == local).map(|address| address.index);
    let links = netlink.links().map_err(super::interface::refused)?;
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
