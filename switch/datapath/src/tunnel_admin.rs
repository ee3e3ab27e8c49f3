//! Carries out control's commands about tunnels.
//!
//! Who lives beyond a tunnel is known in two places: where frames to it go, to the tunnel; that it is beyond the
//! tunnel, and what it may send from, to the switch. Here they are kept alike.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use vswitch_engine::{Port, Station};
use vswitch_frame::{Mac, NetworkId, PortId};
use vswitch_sys::clock;
use vswitch_vxlan::{Outcome, Record};

use super::TUNNEL_SOCKET;
use super::turn::Datapath;
use vswitch_contract::command::{Reply, TunnelCommand};
use vswitch_contract::tunnel::{TunnelSocket, TunnelSpec};

impl Datapath {
    /// Carries out a command about tunnels, and about who is beyond them.
    pub(super) fn carry_out_for_tunnels(&mut self, command: TunnelCommand, fd: Option<OwnedFd>) -> Reply {
        let outcome = match command {
            TunnelCommand::Name(network, mac, remote) => {
                self.switch.name_remote(network, mac, remote);
                Ok(())
            }
            TunnelCommand::ForgetNames => {
                self.switch.forget_remote_names();
                Ok(())
            }
            TunnelCommand::SetSocket(which) => self.set_tunnel_socket(which, fd),
            TunnelCommand::CloseSocket(which) => {
                self.close_tunnel_socket(which);
                Ok(())
            }
            TunnelCommand::Add(network, spec) => self.add_tunnel(network, spec),
            TunnelCommand::SetMtu(network, bytes) => {
                if let Some((port, mtu)) = self.overlay.set_mtu(network, bytes) {
                    self.switch.set_mtu(port, mtu);
                }
                Ok(())
            }
            TunnelCommand::Remove(network) => {
                if let Some(port) = self.overlay.remove(network) {
                    self.switch.remove_port(port);
                }
                Ok(())
            }
            TunnelCommand::AddPeer(network, vtep) => self.add_peer(network, vtep),
            TunnelCommand::RemovePeer(network, vtep) => {
                if let Some((_, tunnel)) = self.overlay.of(network) {
                    tunnel.remove_peer(vtep);
                }
                Ok(())
            }
            TunnelCommand::SetRecords(network, records) => self.set_records(network, records),
            TunnelCommand::ForgetRecord(network, mac, version) => self.forget_record(network, mac, version),
        };
        outcome.map_or_else(Reply::Refused, |()| Reply::Done)
    }

    fn set_tunnel_socket(&mut self, which: TunnelSocket, fd: Option<OwnedFd>) -> Result<(), String> {
        let fd = fd.ok_or("a socket of tunnels needs a descriptor")?;
        if matches!(which, TunnelSocket::Receiver { .. }) {
            let added = self.poller.add(fd.as_fd(), TUNNEL_SOCKET);
            added.map_err(|error| format!("cannot wait for the tunnels' socket: {error}"))?;
        }
        if let Some(old) = self.overlay.set_socket(which, fd) {
            let _ = self.poller.remove(old.as_fd());
        }
        Ok(())
    }

    /// Closes a socket. Control has a duplicate, so it must leave the poller first.
    fn close_tunnel_socket(&mut self, which: TunnelSocket) {
        if let Some(old) = self.overlay.close_socket(which) {
            let _ = self.poller.remove(old.as_fd());
        }
    }

    fn add_tunnel(&mut self, network: NetworkId, spec: TunnelSpec) -> Result<(), String> {
        let TunnelSpec { port, group, .. } = spec;
        let mtu = self.overlay.add(network, spec)?;
        let described = Port { network, group, mtu, addresses: Vec::new(), station: Station::Tunnel };
        self.switch.add_port(port, described).map_err(|refusal| {
            self.overlay.remove(network);
            refusal.to_string()
        })
    }

    fn add_peer(&mut self, network: NetworkId, vtep: IpAddr) -> Result<(), String> {
        let (_, tunnel) = self.overlay.of(network).ok_or("the network has no tunnel")?;
        tunnel.add_peer(vtep).map_err(|error| error.to_string())
    }

    fn set_records(&mut self, network: NetworkId, records: Vec<Record>) -> Result<(), String> {
        let (port, tunnel) = self.overlay.of(network).ok_or("the network has no tunnel")?;
        for record in records {
            let (mac, addresses) = (record.mac, record.addresses.clone());
            let elsewhere = record.vtep != tunnel.settings().local;
            match tunnel.table.set(record) {
                Outcome::Applied if elsewhere => {
                    self.switch.set_remote(port, mac, &addresses);
                }
                Outcome::Applied => self.switch.forget_remote(port, mac),
                Outcome::Stale => {}
                Outcome::Full => return Err(format!("the record of {mac} is one too many")),
            }
        }
        Ok(())
    }

    fn forget_record(&mut self, network: NetworkId, mac: Mac, version: u64) -> Result<(), String> {
        let (port, tunnel) = self.overlay.of(network).ok_or("the network has no tunnel")?;
        if tunnel.table.remove(mac, version, clock::now()) == Outcome::Applied {
            self.switch.forget_remote(port, mac);
        }
        Ok(())
    }

    /// Removes a port. What records say of its addresses holds now: the container may have moved.
    pub(super) fn remove_port(&mut self, id: PortId) {
        let was = self.switch.port(id).map(|port| (port.network, port.addresses.clone()));
        self.switch.remove_port(id);
        self.close(id);
        let Some((network, addresses)) = was else { return };
        let Some((port, tunnel)) = self.overlay.of(network) else { return };
        for mac in addresses {
            let elsewhere = tunnel.table.find(mac).filter(|entry| {
                matches!(entry.origin, vswitch_vxlan::table::Origin::Control { .. })
                    && entry.vtep != tunnel.settings().local
            });
            if let Some(entry) = elsewhere {
                self.switch.set_remote(port, mac, &entry.addresses);
            }
        }
    }
}
