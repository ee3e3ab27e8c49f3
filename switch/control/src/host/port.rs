//! The host port: how a host and the containers of a network reach each other.
//!
//! A TAP in the host's namespace with the network's gateway addresses, and a port of the switch like
//! any other. The kernel adds the route to the network's subnets with the address, so host and containers
//! talk without a rule, a bridge or forwarding, at full offload.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use vswitch_cluster::family::Family;
use vswitch_contract::fact::{Fact, Held, Key};
use vswitch_contract::network::Station;
use vswitch_contract::port::PortSpec;
use vswitch_contract::reserved::PORTS_FREE;
use vswitch_frame::{Accepts, GroupId, PortId};
use vswitch_sys::device::DeviceKind;
use vswitch_sys::netlink::{LinkChange, Netlink};
use vswitch_sys::tap;

use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::error::{failed, refused};
use crate::names;
use crate::network::describe;
use crate::network::predefined::DEFAULT_NETWORK;
use crate::sandbox::interface::{QUEUE_FRAMES, Remains};
use crate::sandbox::ipv6;
use crate::state::Network;
use crate::state::host_port::HostPort;

/// The sandbox that is shown for a host port. No sandbox can have this name.
pub const HOST: &str = "(host)";
/// The interface of the default network, as `docker0` is Docker's.
const DEFAULT_INTERFACE: &str = "vsw0";

impl Control {
    /// Makes the host port of a network that is known to the datapath, unless nobody may be reached at
    /// its gateway.
    pub(crate) async fn add_host_port(&mut self, name: &str) -> Result<()> {
        let network = self.state.network(name)?;
        let described = describe::network(name, network);
        if described.gateway.is_none_or(|gateway| gateway.isolated) {
            return Ok(());
        }
        let interface = interface_name(name, network);
        let port = self.state.port_numbers.take().map(PortId).ok_or_else(too_many)?;
        let host_port = HostPort { port, interface };
        if let Err(error) = self.make_host_port(name, &host_port).await {
            self.state.port_numbers.give_back(port.0);
            return Err(error);
        }
        self.state.network(name)?.host_port = Some(host_port);
        Ok(())
    }

    /// Makes the interface of a host port and hands it to the datapath.
    pub(crate) async fn make_host_port(&mut self, name: &str, host_port: &HostPort) -> Result<()> {
        let network = self.state.network(name)?;
        let gateway = describe::network(name, network).gateway.map(|gateway| gateway.addresses);
        let (number, mac, mtu) = (network.number, network.gateway_mac, network.options.mtu);
        let addresses = host_addresses(network, &gateway.unwrap_or_default());
        let (fd, accepts) = make(&host_port.interface, mac, mtu, &addresses)?;
        self.note_missing_offloads(accepts);
        let spec = PortSpec {
            network: number,
            kind: DeviceKind::Tap { vnet_header: true },
            group: GroupId::own(host_port.port),
            mtu,
            accepts,
            addresses: vec![mac],
            station: Station::Host,
        };
        let kept = fd.try_clone().map_err(|error| failed("duplicate a descriptor", &error))?;
        let added = self.link.set(Held::new(Fact::Port(host_port.port, spec), [fd])).await;
        added.map_err(|error| Error::new(Code::Internal, format!("the datapath refused a port: {error}")))?;
        self.remains.insert(host_port.port, Remains::Descriptor(kept));
        Ok(())
    }

    /// Removes the host port of a network that is about to go.
    pub(crate) async fn remove_host_port(&mut self, host_port: HostPort) -> Cleanup {
        let mut cleanup = Cleanup::default();
        if let Err(error) = self.link.remove(Key::Port(host_port.port)).await {
            tracing::warn!(port = host_port.port.0, "the datapath could not remove a port: {error}");
        }
        if let Some(remains) = self.remains.remove(&host_port.port) {
            cleanup.destroy(remains);
        }
        self.state.port_numbers.give_back(host_port.port.0);
        cleanup
    }
}

/// The name of a network's host port.
fn interface_name(name: &str, network: &Network) -> String {
    if let Some(chosen) = &network.options.bridge_name {
        return chosen.clone();
    }
    if name == DEFAULT_NETWORK {
        return DEFAULT_INTERFACE.to_owned();
    }
    format!("br-{}", names::short_id(&network.id.to_string()))
}

/// The addresses that the host is to have: those of the gateway, with their subnets.
fn host_addresses(network: &Network, gateway: &[IpAddr]) -> Vec<IpNet> {
    let pools = network.pools.iter().filter(|pool| gateway.contains(&pool.gateway()));
    pools.filter_map(|pool| IpNet::new(pool.gateway(), pool.subnet().prefix_len()).ok()).collect()
}

/// Makes the TAP in the calling thread's namespace, the host's. If it fails nothing is left.
fn make(name: &str, mac: vswitch_frame::Mac, mtu: u16, addresses: &[IpNet]) -> Result<(OwnedFd, Accepts)> {
    let (fd, accepts) = tap::create(name).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            let message = format!(
                "interface name {name:?} is in use on this host: choose another one with \
                 -o com.docker.network.bridge.name=NAME"
            );
            return Error::new(Code::InterfaceInUse, message);
        }
        failed(&format!("make TAP {name:?}"), &error)
    })?;
    if addresses.iter().any(|net| Family::of(net.addr()) == Family::V6) {
        ipv6::enable(name).map_err(|why| {
            let message =
                format!("this host cannot have IPv6 on {name:?}: {why}: use a network without IPv6");
            Error::new(Code::InvalidArgument, message)
        })?;
    } else {
        ipv6::hush(name)?;
    }
    let mut netlink = Netlink::open().map_err(|error| failed("open a netlink socket", &error))?;
    netlink.remove_qdisc(name).map_err(refused)?;
    let change = LinkChange {
        mac: Some(mac),
        mtu: Some(u32::from(mtu)),
        txqueuelen: Some(QUEUE_FRAMES),
        up: Some(true),
        ..LinkChange::default()
    };
    netlink.change(name, change).map_err(refused)?;
    for address in addresses {
        let given = netlink.add_address(name, *address);
        given.map_err(|error| ipv6::refused_address(name, *address, error))?;
    }
    Ok((fd, accepts))
}

fn too_many() -> Error {
    let message = format!("{} ports is the most there can be: disconnect a sandbox", PORTS_FREE);
    Error::new(Code::LimitReached, message)
}
