//! The driver `bridge`: a segment on this host, with a port to the host.

use crate::api::types::{self, Map};
use crate::cleanup::Cleanup;
use crate::control::Control;
use crate::error::Result;
use crate::network::options::{BRIDGE_NAME, OverlayOptions};
use crate::network::predefined::DEFAULT_NETWORK;
use crate::sandbox::interface;
use crate::state::Network;

/// The name of the driver.
pub const NAME: &str = "bridge";
/// The scope of networks of one host.
pub const SCOPE: &str = "local";

/// Refuses options of other drivers.
///
/// # Errors
/// For such.
pub fn plan(options: &Map) -> Result<()> {
    OverlayOptions::refuse(options)
}

/// Says the name of its host port, where nobody chose it and it does not follow from the identifier.
pub fn show(name: &str, network: &Network, shown: &mut types::Network) {
    SCOPE.clone_into(&mut shown.scope);
    if let Some(host_port) = network.host_port.as_ref().filter(|_| name == DEFAULT_NETWORK) {
        shown.options.insert(BRIDGE_NAME.to_owned(), host_port.interface.clone());
    }
}

impl Control {
    pub(crate) async fn bridge_up(&mut self, name: &str) -> Result<()> {
        self.add_host_port(name).await
    }

    pub(crate) async fn bridge_down(&mut self, name: &str) -> Cleanup {
        let host_port = self.state.network(name).ok().and_then(|network| network.host_port.take());
        match host_port {
            Some(host_port) => self.remove_host_port(host_port).await,
            None => Cleanup::default(),
        }
    }

    /// Makes the host port of a network again, if it is to have one and the datapath lacks it.
    pub(crate) async fn bridge_restore(&mut self, name: &str) -> Result<()> {
        let network = self.state.network(name)?;
        let (mac, host_port) = (network.gateway_mac, network.host_port.clone());
        let missing = host_port.filter(|host_port| !self.remains.contains_key(&host_port.port));
        let Some(host_port) = missing else { return Ok(()) };
        let network = network.clone();
        if network.is_shared() {
            // The host may have another use for its subnet since it was made.
            self.check_room(&network)?;
        }
        interface::remove_leftover(&host_port.interface, mac)?;
        self.make_host_port(name, &host_port).await
    }
}
