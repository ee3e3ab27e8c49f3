//! Facts about ports.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ipnet::IpNet;
use vswitch_contract::fact::{Fact, Held};
use vswitch_contract::port::PortSpec;
use vswitch_engine::{Endpoint, Port, Station};
use vswitch_frame::{Accepts, NetworkId, PortId};
use vswitch_sys::device::{Device, DeviceKind};
use vswitch_sys::packet::Framing;
use vswitch_vxlan::table::Origin;

use super::apply::Refusal;
use crate::ports::{self, Egress};
use crate::turn::Datapath;

/// The sandbox that stations of which nothing is known are charged as.
const NOBODY: u32 = 0;

impl Datapath {
    /// Makes a port as its fact says. A port of which only the station changes goes on as it is.
    pub(super) fn set_port(
        &mut self,
        id: PortId,
        spec: &PortSpec,
        held: &Held,
        old: Option<&Held>,
    ) -> Result<(), Refusal> {
        let fd = held.fds.first().ok_or("a port needs a descriptor")?;
        let Some((old, Fact::Port(_, before))) = old.map(|old| (old, &old.fact)) else {
            return self.add_port(id, spec, fd);
        };
        let restationed = PortSpec { station: spec.station.clone(), ..before.clone() };
        if restationed == *spec && old.has_fds_of(held) {
            self.switch.set_station(id, spec.station.clone());
            return Ok(());
        }
        self.remove_port(id);
        self.add_port(id, spec, fd).inspect_err(|_| {
            // The port was one before, so it can be again.
            let _ = old.fds.first().map(|fd| self.add_port(id, before, fd));
        })
    }

    fn add_port(&mut self, id: PortId, spec: &PortSpec, fd: &Arc<OwnedFd>) -> Result<(), Refusal> {
        let PortSpec { network, kind, group, mtu, accepts, addresses, station } = spec.clone();
        let port = Port { network, group, mtu: usize::from(mtu), addresses, station };
        self.switch.add_port(id, port).map_err(|refusal| refusal.to_string())?;
        let device = Device::new(Arc::clone(fd), kind);
        if let Err(error) = self.poller.add(device.as_fd(), id.index()) {
            self.switch.remove_port(id);
            return Err(format!("cannot wait for the descriptor: {error}"));
        }
        self.worker.ports.insert(id, Egress::Device(ports::Port::new(device, accepts)));
        Ok(())
    }

    /// Removes a port. A record of one of its addresses holds now: the container may have moved.
    pub(super) fn remove_port(&mut self, id: PortId) {
        let was = self.switch.port(id).map(|port| (port.network, port.addresses.clone()));
        self.switch.remove_port(id);
        self.close(id);
        let Some((network, addresses)) = was else { return };
        let Some((port, tunnel)) = self.tunnels.of(network) else { return };
        for mac in addresses {
            let elsewhere = tunnel.table.find(mac).filter(|entry| {
                matches!(entry.origin, Origin::Control { .. }) && entry.vtep != tunnel.settings().local
            });
            if let Some(entry) = elsewhere {
                self.switch.set_remote(port, mac, &entry.addresses);
            }
        }
    }

    /// Ends all that the container which was behind a port has on the way out, and clients have with it,
    /// under addresses that it has no more: before anybody else is told to have them, or its number.
    pub(super) fn forget_departed(&mut self, before: Option<&Fact>, now: Option<&PortSpec>) {
        let Some(Fact::Port(_, PortSpec { network, station: Station::Container(was), .. })) = before else {
            return;
        };
        let is = match now {
            Some(PortSpec { network: same, station: Station::Container(is), .. })
                if same == network && is.sandbox == was.sandbox =>
            {
                Some(is)
            }
            _ => None,
        };
        let addresses = |of: &Endpoint| of.addresses.iter().map(IpNet::addr).collect::<Vec<_>>();
        let stays = is.map(addresses).unwrap_or_default();
        let gone: Vec<IpAddr> = addresses(was).into_iter().filter(|own| !stays.contains(own)).collect();
        if is.is_none() || !gone.is_empty() {
            self.nat.forget(*network, was.sandbox, &gone, &stays);
        }
        for address in gone {
            self.relays.forget(*network, address, &mut self.worker.pool);
        }
    }

    /// Ends what stations of which nothing is known have on the way out of a network that is gone.
    pub(super) fn forget_network(&mut self, network: NetworkId) {
        self.nat.forget(network, NOBODY, &[], &[]);
    }

    /// Waits for the packet socket of an uplink, in place of the one before.
    pub(super) fn open_uplink(
        &mut self,
        port: PortId,
        fd: Arc<OwnedFd>,
        framing: Framing,
    ) -> Result<(), Refusal> {
        let device = Device::new(fd, DeviceKind::Packet(framing));
        self.poller
            .add(device.as_fd(), port.index())
            .map_err(|error| format!("cannot wait for the uplink's descriptor: {error}"))?;
        self.close(port);
        self.worker.ports.insert(port, Egress::Device(ports::Port::new(device, Accepts::ALL)));
        self.worker.ports.set_ready(port);
        Ok(())
    }

    /// Closes a port's descriptor. Control has a duplicate, so it must leave the poller first.
    pub(super) fn close(&mut self, id: PortId) {
        self.resolver.forget_port(id);
        self.worker.floods.forget(id, &mut self.worker.pool);
        if let Some(Egress::Device(port)) = self.worker.ports.remove(id) {
            let _ = self.poller.remove(port.device.as_fd());
        }
    }
}
