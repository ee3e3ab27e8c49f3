//! A network's end on this host, and all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use vswitch_frame::{Frame, Instant, Mac, NetworkId};

use crate::mtu::inner_mtu;
use crate::path::{Paths, ROOM_MIN};
use crate::table::{Limits, Table};
use crate::vni::Vni;

/// VTEPs of one network, at most: a broadcast costs a send for each.
pub const PEERS_MAX: usize = 4096;

/// The settings a tunnel is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The network's identifier on the wire. A network of several subnets may have a tunnel for each.
    pub vni: Vni,
    /// This host's own VTEP: the address that its packets come from.
    pub local: IpAddr,
    /// MTU of the underlay: of IP packets between the VTEPs.
    pub underlay_mtu: usize,
    /// Whether inner VLAN tags are carried. Otherwise, as RFC 7348, 6.1 wants it, they are stripped on the
    /// way out, and frames that come with one are dropped.
    pub tags: bool,
    /// Whether to learn from frames who lives where: for networks without a control plane that knows.
    pub learning: bool,
}

/// The destination of a frame for a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// One VTEP.
    Vtep(IpAddr),
    /// Every peer: broadcast, multicast, or nobody knows (head-end replication).
    Everyone,
    /// Nowhere: it lives on this host.
    Here,
}

/// A network's end on this host. As a port of the switch it is alone in its isolation group, so that what
/// came from a tunnel never leaves through it (split horizon).
#[derive(Debug)]
pub struct Tunnel {
    settings: Settings,
    peers: Vec<IpAddr>,
    mtu: usize,
    paths: Paths,
    /// The table of who lives where.
    pub table: Table,
}

impl Tunnel {
    /// A tunnel without peers. The seed should be secret.
    pub fn new(settings: Settings, limits: Limits, seed: u64) -> Self {
        let mtu = inner_mtu(settings.underlay_mtu, settings.local);
        let (peers, paths) = (Vec::new(), Paths::default());
        Self { settings, peers, mtu, paths, table: Table::new(limits, seed) }
    }

    /// The settings it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The largest network packet that fits, in bytes: what containers are told, and the limit for
    /// "packet too big". A VLAN tag that is carried takes four bytes of it.
    pub fn mtu(&self) -> usize {
        self.mtu
    }

    /// The underlay's MTU changed. What was noted of paths is forgotten: they may begin elsewhere now.
    pub fn set_underlay_mtu(&mut self, bytes: usize) {
        self.settings.underlay_mtu = bytes;
        self.mtu = inner_mtu(bytes, self.settings.local);
        self.paths.clear();
    }

    /// Notes the MTU of the path to a VTEP: the largest IP packet between the two hosts that arrives uncut.
    /// It is forgotten in time.
    pub fn note_path(&mut self, vtep: IpAddr, path_mtu: usize) {
        let bytes = inner_mtu(path_mtu, vtep);
        if bytes < self.mtu {
            self.paths.note(vtep, bytes, PEERS_MAX);
        }
    }

    /// The narrow paths that are known: VTEPs, and the largest network packet that each has room for.
    pub fn narrow_paths(&self) -> impl Iterator<Item = (IpAddr, usize)> {
        self.paths.iter().map(|(vtep, _)| (vtep, self.room(vtep)))
    }

    /// The largest network packet that is taken for a VTEP, in bytes.
    #[inline]
    pub fn room(&self, vtep: IpAddr) -> usize {
        self.paths.find(vtep).map_or(self.mtu, |uncut| uncut.max(ROOM_MIN).min(self.mtu))
    }

    /// The largest network packet that arrives at a VTEP uncut, in bytes.
    #[inline]
    pub(crate) fn uncut(&self, vtep: IpAddr) -> usize {
        self.paths.find(vtep).unwrap_or(self.mtu)
    }

    /// The room that the path of a frame has, if it is too large for that though not for the tunnel. The
    /// frame must have been parsed.
    pub fn too_big(&self, frame: &Frame) -> Option<usize> {
        let bytes = frame.mtu_bytes();
        if bytes <= ROOM_MIN || bytes > self.mtu || self.paths.is_empty() {
            return None;
        }
        match self.destination(frame.destination()) {
            Destination::Vtep(vtep) => Some(self.room(vtep)).filter(|room| bytes > *room),
            Destination::Everyone | Destination::Here => None,
        }
    }

    /// The VTEPs of the other hosts, in ascending order.
    pub fn peers(&self) -> &[IpAddr] {
        &self.peers
    }

    /// Whether packets from this address may be of this network.
    pub fn is_peer(&self, address: IpAddr) -> bool {
        self.peers.binary_search(&address).is_ok()
    }

    /// Makes an address a peer. One that is already is no error.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub fn add_peer(&mut self, address: IpAddr) -> Result<(), PeerError> {
        if address == self.settings.local {
            return Err(PeerError::Own(address));
        }
        if address.is_multicast() || address.is_unspecified() {
            return Err(PeerError::NoHost(address));
        }
        if address.is_ipv4() != self.settings.local.is_ipv4() {
            return Err(PeerError::Family(address, self.settings.local));
        }
        if let Err(place) = self.peers.binary_search(&address) {
            if self.peers.len() >= PEERS_MAX {
                return Err(PeerError::Full(address));
            }
            self.peers.insert(place, address);
        }
        Ok(())
    }

    /// Packets from this address are no longer welcome. What was learned from it is forgotten; records
    /// stay until control says otherwise.
    pub fn remove_peer(&mut self, address: IpAddr) {
        if let Ok(place) = self.peers.binary_search(&address) {
            self.peers.remove(place);
            self.table.forget_learned_at(address);
            self.paths.forget(address);
        }
    }

    /// The destination of a frame for this address.
    #[inline]
    pub fn destination(&self, mac: Mac) -> Destination {
        match if mac.is_multicast() { None } else { self.table.look_up(mac) } {
            Some(vtep) if vtep == self.settings.local => Destination::Here,
            Some(vtep) => Destination::Vtep(vtep),
            None => Destination::Everyone,
        }
    }
}

/// An address that cannot be a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerError {
    /// It is this host's.
    Own(IpAddr),
    /// Multicast or unspecified.
    NoHost(IpAddr),
    /// It and the local address are not of one family.
    Family(IpAddr, IpAddr),
    /// There are [`PEERS_MAX`].
    Full(IpAddr),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(peer) => write!(f, "{peer} is this host's own tunnel address: name only other hosts"),
            Self::NoHost(peer) => {
                write!(f, "{peer} is no host's address: give the unicast address of a peer")
            }
            Self::Family(peer, local) => {
                write!(f, "no tunnel from {local} to {peer}: give both addresses of one IP version")
            }
            Self::Full(peer) => {
                write!(f, "{peer} is one peer too many: a network spans at most {PEERS_MAX} other hosts")
            }
        }
    }
}

impl std::error::Error for PeerError {}

/// All tunnels of this host, by identifier.
#[derive(Debug)]
pub struct Tunnels {
    tunnels: BTreeMap<Vni, Tunnel>,
    limits: Limits,
    seed: u64,
}

impl Tunnels {
    /// No tunnels. Those to come have tables with these limits; the seed should be secret.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self { tunnels: BTreeMap::new(), limits, seed }
    }

    /// Makes a tunnel.
    ///
    /// # Errors
    /// See [`TunnelError`].
    pub fn add(&mut self, settings: Settings) -> Result<&mut Tunnel, TunnelError> {
        if self.tunnels.contains_key(&settings.vni) {
            return Err(TunnelError::Taken(settings.vni));
        }
        if self.tunnels.len() >= NetworkId::LIMIT {
            return Err(TunnelError::Full);
        }
        let tunnel = Tunnel::new(settings, self.limits, self.seed);
        Ok(self.tunnels.entry(settings.vni).or_insert(tunnel))
    }

    /// Forgets a tunnel and all it knows.
    pub fn remove(&mut self, vni: Vni) {
        self.tunnels.remove(&vni);
    }

    /// The tunnel with this identifier.
    pub fn get(&self, vni: Vni) -> Option<&Tunnel> {
        self.tunnels.get(&vni)
    }

    /// The tunnel with this identifier, to change.
    pub fn get_mut(&mut self, vni: Vni) -> Option<&mut Tunnel> {
        self.tunnels.get_mut(&vni)
    }

    /// All of them, in the order of their identifiers.
    pub fn iter(&self) -> impl Iterator<Item = &Tunnel> {
        self.tunnels.values()
    }

    /// Whether any tunnel knows of a narrow path.
    pub fn any_is_narrow(&self) -> bool {
        self.tunnels.values().any(|tunnel| !tunnel.paths.is_empty())
    }

    /// When [`sweep`](Self::sweep) has something to do, if ever.
    pub fn sweep_at(&self) -> Option<Instant> {
        let times = self.tunnels.values().map(|tunnel| [tunnel.table.sweep_at(), tunnel.paths.sweep_at()]);
        times.flatten().flatten().min()
    }

    /// Forgets what is too old of addresses and paths.
    pub fn sweep(&mut self, now: Instant) {
        for tunnel in self.tunnels.values_mut() {
            tunnel.table.sweep(now);
            tunnel.paths.sweep(now);
        }
    }
}

/// Why there is no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelError {
    /// Another one has the identifier.
    Taken(Vni),
    /// There are [`NetworkId::LIMIT`].
    Full,
}

impl fmt::Display for TunnelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(vni) => {
                write!(f, "VXLAN identifier {vni} is in use by another network: give a free one")
            }
            Self::Full => {
                write!(f, "no more than {} tunnels: remove one that is not needed", NetworkId::LIMIT)
            }
        }
    }
}

impl std::error::Error for TunnelError {}
