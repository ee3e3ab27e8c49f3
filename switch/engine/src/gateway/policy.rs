//! Which network may reach which.

use crate::network::{GatewayMode, Network};

/// Whether packets of a family may go from the containers of one network to those of another by their own
/// addresses: not where either has no way out, and only where neither hides its containers.
pub(super) fn allows(from: &Network, to: &Network, ipv4: bool) -> bool {
    let open = |network: &Network| {
        let mode = if ipv4 { network.mode_v4 } else { network.mode_v6 };
        !network.internal && matches!(mode, GatewayMode::Routed | GatewayMode::NatUnprotected)
    };
    open(from) && open(to)
}
