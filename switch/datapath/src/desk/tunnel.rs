//! Facts about tunnels, and about the endpoints beyond them.
//!
//! An endpoint beyond a tunnel is known in two places, which are kept alike here: the tunnel knows where
//! frames to it go; the switch knows that it is beyond the tunnel, and what it may send from.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use vswitch_contract::fact::{Fact, Held};
use vswitch_contract::tunnel::{TunnelSocket, TunnelSpec};
use vswitch_engine::{Port, Station};
use vswitch_frame::{Mac, NetworkId};
use vswitch_vxlan::{Outcome, Record};

use super::apply::Refusal;
use crate::ports::Egress;
use crate::ready::TUNNEL_SOCKET;
use crate::turn::Datapath;

const NO_TUNNEL: &str = "the network has no tunnel";

impl Datapath {
    pub(super) fn set_tunnel_socket(
        &mut self,
        which: TunnelSocket,
        held: &Held,
        old: Option<&Held>,
    ) -> Result<(), Refusal> {
        let fd = held.fds.first().ok_or("a socket of tunnels needs a descriptor")?;
        if old.is_some_and(|old| old.has_fds_of(held)) {
            return Ok(());
        }
        if matches!(which, TunnelSocket::Receiver { .. }) {
            let added = self.poller.add(fd.as_fd(), TUNNEL_SOCKET);
            added.map_err(|error| format!("cannot wait for the tunnels' socket: {error}"))?;
        }
        if let Some(old) = self.tunnels.set_socket(which, Arc::clone(fd)) {
            let _ = self.poller.remove(old.as_fd());
        }
        Ok(())
    }

    /// Closes a socket. Control has a duplicate, so it must leave the poller first.
    pub(super) fn close_tunnel_socket(&mut self, which: TunnelSocket) {
        if let Some(old) = self.tunnels.close_socket(which) {
            let _ = self.poller.remove(old.as_fd());
        }
    }

    /// Makes a tunnel as its fact says. A tunnel of which only the underlay's MTU changes goes on with all it
    /// knows.
    pub(super) fn set_tunnel(
        &mut self,
        network: NetworkId,
        spec: &TunnelSpec,
        before: Option<&Fact>,
    ) -> Result<(), Refusal> {
        let Some(Fact::Tunnel(_, before)) = before else { return self.add_tunnel(network, spec) };
        if *before != (TunnelSpec { underlay_mtu: before.underlay_mtu, ..spec.clone() }) {
            return Err("a tunnel does not change but for its MTU: take it back first".to_owned());
        }
        if let Some((port, mtu)) = self.tunnels.set_mtu(network, spec.underlay_mtu) {
            self.switch.set_mtu(port, mtu);
        }
        Ok(())
    }

    fn add_tunnel(&mut self, network: NetworkId, spec: &TunnelSpec) -> Result<(), Refusal> {
        let TunnelSpec { port, group, .. } = *spec;
        let mtu = self.tunnels.add(network, spec.clone())?;
        let described = Port { network, group, mtu, addresses: Vec::new(), station: Station::Tunnel };
        self.switch.add_port(port, described).map_err(|refusal| {
            self.tunnels.remove(network);
            refusal.to_string()
        })?;
        self.worker.ports.insert(port, Egress::Tunnel);
        Ok(())
    }

    pub(super) fn remove_tunnel(&mut self, network: NetworkId) {
        if let Some(port) = self.tunnels.remove(network) {
            self.switch.remove_port(port);
            self.worker.floods.forget(port, &mut self.worker.pool);
            self.worker.ports.remove(port);
        }
    }

    pub(super) fn add_peer(&mut self, network: NetworkId, vtep: IpAddr) -> Result<(), Refusal> {
        let (_, tunnel) = self.tunnels.of(network).ok_or(NO_TUNNEL)?;
        tunnel.add_peer(vtep).map_err(|error| error.to_string())
    }

    pub(super) fn remove_peer(&mut self, network: NetworkId, vtep: IpAddr) {
        if let Some((_, tunnel)) = self.tunnels.of(network) {
            tunnel.remove_peer(vtep);
        }
    }

    /// Says where an endpoint lives. Control has compared versions: its word holds, whatever it said before.
    pub(super) fn set_record(&mut self, network: NetworkId, record: &Record) -> Result<(), Refusal> {
        let (port, tunnel) = self.tunnels.of(network).ok_or(NO_TUNNEL)?;
        let mut outcome = tunnel.table.set(record.clone());
        if outcome == Outcome::Stale {
            tunnel.table.erase(record.mac);
            outcome = tunnel.table.set(record.clone());
        }
        if outcome == Outcome::Full {
            return Err(format!("the record of {} is one too many", record.mac));
        }
        if record.vtep == tunnel.settings().local {
            self.switch.forget_remote(port, record.mac);
        } else {
            self.switch.set_remote(port, record.mac, &record.addresses);
        }
        Ok(())
    }

    pub(super) fn remove_record(&mut self, network: NetworkId, mac: Mac) {
        if let Some((port, tunnel)) = self.tunnels.of(network) {
            tunnel.table.erase(mac);
            self.switch.forget_remote(port, mac);
        }
    }
}
