//! Targets of published ports, as the proxy wants to hear them.

use std::net::SocketAddr;

use vswitch_contract::relay::{Target, Targets};
use vswitch_proxy::{Binding, Bindings};

/// Targets of one port of the container. `publication` is the number by which the proxy knows the published
/// range.
pub(super) fn bindings(targets: &Targets, port: u16, publication: u64) -> Bindings {
    let binding = |target: Target| Binding {
        publication,
        network: target.network,
        container: SocketAddr::new(target.container, port),
        container_mac: target.container_mac,
        gateway_mac: target.gateway_mac,
        gateway: target.gateway,
        prefix: target.prefix,
        mtu: target.mtu,
        keeps_client: target.keeps_client,
    };
    Bindings { v4: targets.v4.map(binding), v6: targets.v6.map(binding) }
}

/// Whether a relay that leads by a binding leads to one of these targets.
pub(super) fn include(targets: &Targets, binding: &Binding) -> bool {
    let is_same = |target: &Target| {
        let mac = target.container_mac == binding.container_mac;
        mac && (target.network, target.container) == (binding.network, binding.container.ip())
    };
    targets.v4.iter().chain(&targets.v6).any(is_same)
}
