//! The driver `overlay`: a segment that spans hosts, with a port to this host and a tunnel to the others.
//!
//! Without a cluster the options say it all: the identifier on the wire, and the hosts that have the network.
//! Then who lives where is learned from frames, and the addresses of each host's containers come from its own
//! `--ip-range`. The other end may be anything that speaks VXLAN.
//!
//! Each host is the gateway of its own containers, so the host ports of a network's hosts, which all have the
//! same addresses, are kept apart: nothing goes between a host's port and a tunnel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use vswitch_contract::reserved::PORTS_FREE;
use vswitch_contract::tunnel::Vni;
use vswitch_contract::tunnel::inner_mtu;
use vswitch_frame::PortId;
use vswitch_sys::udp;

use crate::api::types::{self, Map};
use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::error::failed;
use crate::error::{Code, Error, Result};
use crate::host::tunnels::{TunnelWish, underlay_mtu};
use crate::network::describe;
use crate::network::driver::bridge;
use crate::network::options::{MTU, NetworkOptions, OverlayOptions, VNI, VTEP};
use crate::state::Network;
use crate::state::overlay::Overlay;

/// The driver of networks that span hosts.
pub const DRIVER: &str = "overlay";
/// The sandbox that is shown for a tunnel's port. No sandbox can have this name.
pub const NAME: &str = "(tunnel)";
/// The sandbox that is shown for frames that come through no tunnel of ours.
pub const NAME_OF_ALL: &str = "(tunnels)";

/// Docker's scope of networks that span hosts.
pub const SCOPE_SHARED: &str = "swarm";
/// Docker's option of networks whose packets are encrypted between hosts.
const ENCRYPTED: &str = "encrypted";

/// Reads the options of a new network.
///
/// # Errors
/// When they do not say enough, or the host is not on the way to the others.
pub fn plan(options: &Map) -> Result<Plan> {
    Plan::new(OverlayOptions::parse(options)?)
}

/// Says whether a network is the cluster's.
pub fn show(network: &Network, shown: &mut types::Network) {
    let scope = if network.is_shared() { SCOPE_SHARED } else { bridge::SCOPE };
    scope.clone_into(&mut shown.scope);
}

/// Refuses encryption, whatever the driver.
///
/// # Errors
/// When it is asked for.
pub fn refuse_encrypted(options: &Map) -> Result<()> {
    if options.contains_key(ENCRYPTED) {
        let message = format!("option {ENCRYPTED}: tunnels are not encrypted yet: leave it out");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    Ok(())
}

/// An overlay to be.
#[derive(Clone, Debug)]
pub struct Plan {
    options: OverlayOptions,
    vni: Vni,
    vtep: IpAddr,
    shared: bool,
    /// The largest network packet that its tunnel takes, in bytes.
    pub mtu: u32,
}

impl Plan {
    /// Reads the options of a new network.
    ///
    /// # Errors
    /// When they do not say enough, or the host is not on the way to the others.
    pub fn new(options: OverlayOptions) -> Result<Self> {
        let vni = options.vni.ok_or_else(|| {
            let message = format!("a network of driver {DRIVER} needs an identifier: give -o {VNI}=NUMBER");
            Error::new(Code::InvalidArgument, message)
        })?;
        let vtep = match (options.vtep, options.peers.first()) {
            (Some(vtep), _) => vtep,
            (None, Some(peer)) => udp::local_towards(*peer)
                .map_err(|error| failed(&format!("find a way to peer {peer}"), &error))?,
            (None, None) => {
                let message =
                    format!("no peer says which of this host's addresses to use: give -o {VTEP}=IP");
                return Err(Error::new(Code::InvalidArgument, message));
            }
        };
        Ok(Self { options, vni, vtep, shared: false, mtu: room(vtep)? })
    }

    /// The overlay of a network of the cluster, of which this host is at `vtep`.
    ///
    /// # Errors
    /// When this host is not there.
    pub fn shared(vni: Vni, vtep: IpAddr) -> Result<Self> {
        Ok(Self { options: OverlayOptions::default(), vni, vtep, shared: true, mtu: room(vtep)? })
    }

    /// Refuses an MTU that the underlay has no room for.
    ///
    /// # Errors
    /// For such.
    pub fn check(&self, options: &NetworkOptions) -> Result<()> {
        if u32::from(options.mtu) <= self.mtu {
            return Ok(());
        }
        let (mtu, most) = (options.mtu, self.mtu);
        let message =
            format!("{MTU}={mtu}: a tunnel from {} has room for {most}: use that or less", self.vtep);
        Err(Error::new(Code::InvalidArgument, message))
    }
}

/// The largest network packet that a tunnel from this address takes, in bytes.
fn room(vtep: IpAddr) -> Result<u32> {
    let underlay = usize::try_from(underlay_mtu(vtep)?).unwrap_or(usize::MAX);
    Ok(u32::try_from(inner_mtu(underlay, vtep)).unwrap_or(u32::MAX))
}

impl Control {
    /// Makes the host port and the tunnel of a network that is known to the datapath.
    pub(crate) async fn overlay_up(&mut self, name: &str, plan: Plan) -> Result<()> {
        self.bridge_up(name).await?;
        let Some(port) = self.state.port_numbers.take().map(PortId) else {
            let message = format!("{} ports is the most there can be: remove one", PORTS_FREE);
            return Err(Error::new(Code::LimitReached, message));
        };
        let Plan { options, vni, vtep, shared, .. } = plan;
        let overlay = Overlay { port, vni, vtep, peers: options.peers.into_iter().collect(), shared };
        self.state.network(name)?.overlay = Some(overlay);
        if let Err(error) = self.raise_tunnel(name).await {
            self.lower_tunnel(name).await;
            return Err(error);
        }
        Ok(())
    }

    /// Makes the datapath have the tunnel that a network shall have, with its peers.
    pub(crate) async fn raise_tunnel(&mut self, name: &str) -> Result<()> {
        let network = self.state.network(name)?;
        let Some(overlay) = network.overlay.clone() else { return Ok(()) };
        let (number, group) = (network.number, describe::group(network, overlay.port));
        let Overlay { port, vni, vtep, peers, shared } = overlay;
        let wish = TunnelWish { port, group, vni, local: vtep, learning: !shared };
        self.tunnels.up(number, wish).await?;
        if shared {
            // Its peers come and go with what the cluster says.
            return Ok(());
        }
        self.tunnels.set_peers(number, peers).await
    }

    pub(crate) async fn overlay_down(&mut self, name: &str) -> Cleanup {
        self.lower_tunnel(name).await;
        self.bridge_down(name).await
    }

    /// Removes the tunnel of a network, if it has one.
    async fn lower_tunnel(&mut self, name: &str) {
        let Ok(network) = self.state.network(name) else { return };
        let Some(overlay) = network.overlay.take() else { return };
        let number = network.number;
        if let Err(error) = self.tunnels.down(number).await {
            tracing::warn!("the tunnel of network {name:?} was not removed: {error}");
        }
        self.state.port_numbers.give_back(overlay.port.0);
    }

    /// Removes tunnels that the datapath has and no network.
    pub(crate) async fn remove_strange_tunnels(&mut self) {
        let wanted = self.state.networks.values().filter(|network| network.overlay.is_some());
        let numbers: BTreeSet<_> = wanted.map(|network| network.number).collect();
        for (number, _) in self.link.tunnels().await {
            if !numbers.contains(&number)
                && let Err(error) = self.tunnels.down(number).await
            {
                tracing::warn!("a tunnel that nobody has was not removed: {error}");
            }
        }
    }
}
