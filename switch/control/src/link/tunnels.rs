//! Tunnels, as the datapath is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::unix::AsyncFd;
use vswitch_contract::tunnel::Record;
use vswitch_frame::{Mac, NetworkId};
use vswitch_sys::seqpacket::Channel;

use super::{Link, LinkError, State, must};
use vswitch_contract::command::{Command, TunnelCommand};
use vswitch_contract::tunnel::{RECORDS_MAX, TunnelSocket, TunnelSpec};

/// A tunnel, and what the datapath was told of its network beyond this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownTunnel {
    /// What it is made from.
    pub spec: TunnelSpec,
    /// The VTEPs of the network's other hosts.
    pub peers: BTreeSet<IpAddr>,
    /// Who lives where.
    pub records: BTreeMap<Mac, Record>,
}

impl Link {
    /// The tunnel of a network.
    pub async fn tunnel(&self, network: NetworkId) -> Option<KnownTunnel> {
        self.shared.state.lock().await.tunnels.get(&network).cloned()
    }

    /// Every tunnel, without its records.
    pub async fn tunnels(&self) -> Vec<(NetworkId, TunnelSpec)> {
        let state = self.shared.state.lock().await;
        state.tunnels.iter().map(|(network, known)| (*network, known.spec.clone())).collect()
    }

    /// The sockets that tunnels share.
    pub async fn tunnel_sockets(&self) -> Vec<TunnelSocket> {
        self.shared.state.lock().await.tunnel_sockets.keys().copied().collect()
    }

    /// Hands over a socket for tunnels.
    ///
    /// # Errors
    /// [`LinkError`]; then it is closed.
    pub async fn set_tunnel_socket(&self, which: TunnelSocket, fd: OwnedFd) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let rides_along = fd.try_clone()?;
        state.tunnel_sockets.insert(which, fd);
        let done = self
            .tell(&mut state, Command::Tunnel(TunnelCommand::SetSocket(which)), Some(rides_along.as_fd()))
            .await;
        done.inspect_err(|_| {
            state.tunnel_sockets.remove(&which);
        })
    }

    /// Closes a socket that no tunnel needs.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have it.
    pub async fn close_tunnel_socket(&self, which: TunnelSocket) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.tunnel_sockets.remove(&which);
        self.tell(&mut state, Command::Tunnel(TunnelCommand::CloseSocket(which)), None).await
    }

    /// Makes the tunnel of a network, and starts its counters at zero.
    ///
    /// # Errors
    /// [`LinkError`]; then there is none.
    pub async fn add_tunnel(&self, network: NetworkId, spec: TunnelSpec) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        self.shared.counters.reset(spec.port);
        let known = KnownTunnel { spec: spec.clone(), peers: BTreeSet::new(), records: BTreeMap::new() };
        state.tunnels.insert(network, known);
        let done = self.tell(&mut state, Command::Tunnel(TunnelCommand::Add(network, spec)), None).await;
        done.inspect_err(|_| {
            state.tunnels.remove(&network);
        })
    }

    /// Says the MTU of a tunnel's underlay.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn set_tunnel_mtu(&self, network: NetworkId, mtu: u32) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        if let Some(known) = state.tunnels.get_mut(&network) {
            known.spec.underlay_mtu = mtu;
        }
        self.tell(&mut state, Command::Tunnel(TunnelCommand::SetMtu(network, mtu)), None).await
    }

    /// Removes the tunnel of a network.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will not have it.
    pub async fn remove_tunnel(&self, network: NetworkId) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        state.tunnels.remove(&network);
        self.tell(&mut state, Command::Tunnel(TunnelCommand::Remove(network)), None).await
    }

    /// Makes an address a VTEP of a network.
    ///
    /// # Errors
    /// [`LinkError`]; then it is none.
    pub async fn add_peer(&self, network: NetworkId, vtep: IpAddr) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        let is_new = state.tunnels.get_mut(&network).is_some_and(|known| known.peers.insert(vtep));
        let done = self.tell(&mut state, Command::Tunnel(TunnelCommand::AddPeer(network, vtep)), None).await;
        done.inspect_err(|_| {
            if let (true, Some(known)) = (is_new, state.tunnels.get_mut(&network)) {
                known.peers.remove(&vtep);
            }
        })
    }

    /// Takes back that an address is a VTEP of a network.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn remove_peer(&self, network: NetworkId, vtep: IpAddr) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        if let Some(known) = state.tunnels.get_mut(&network) {
            known.peers.remove(&vtep);
        }
        self.tell(&mut state, Command::Tunnel(TunnelCommand::RemovePeer(network, vtep)), None).await
    }

    /// Says who of a network lives where. Of two records of one address the newer holds.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn set_records(&self, network: NetworkId, records: Vec<Record>) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        if let Some(known) = state.tunnels.get_mut(&network) {
            for record in &records {
                let older = |held: &Record| (held.version, held.vtep) < (record.version, record.vtep);
                if known.records.get(&record.mac).is_none_or(older) {
                    known.records.insert(record.mac, record.clone());
                }
            }
        }
        for page in records.chunks(RECORDS_MAX) {
            self.tell(&mut state, Command::Tunnel(TunnelCommand::SetRecords(network, page.to_vec())), None)
                .await?;
        }
        Ok(())
    }

    /// Says that an endpoint of a network is gone, as of a version.
    ///
    /// # Errors
    /// [`LinkError::Down`]; the next datapath will be told.
    pub async fn forget_record(&self, network: NetworkId, mac: Mac, version: u64) -> Result<(), LinkError> {
        let mut state = self.shared.state.lock().await;
        if let Some(known) = state.tunnels.get_mut(&network) {
            known.records.retain(|held, record| *held != mac || record.version > version);
        }
        self.tell(&mut state, Command::Tunnel(TunnelCommand::ForgetRecord(network, mac, version)), None).await
    }
}

/// Tells a new datapath of all tunnels.
pub(super) async fn tell_all(channel: &AsyncFd<Channel>, state: &State) -> io::Result<()> {
    for (which, fd) in &state.tunnel_sockets {
        must(channel, &Command::Tunnel(TunnelCommand::SetSocket(*which)), Some(fd.as_fd())).await?;
    }
    for (network, KnownTunnel { spec, peers, records }) in &state.tunnels {
        must(channel, &Command::Tunnel(TunnelCommand::Add(*network, spec.clone())), None).await?;
        for peer in peers {
            must(channel, &Command::Tunnel(TunnelCommand::AddPeer(*network, *peer)), None).await?;
        }
        let records: Vec<Record> = records.values().cloned().collect();
        for page in records.chunks(RECORDS_MAX) {
            must(channel, &Command::Tunnel(TunnelCommand::SetRecords(*network, page.to_vec())), None).await?;
        }
    }
    Ok(())
}
