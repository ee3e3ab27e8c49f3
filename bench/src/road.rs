//! The roads that traffic is measured on.

use serde::{Deserialize, Serialize};

/// A way that traffic goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Road {
    /// From container to container.
    #[default]
    C2c,
    /// From a container to the world outside, with the host's address.
    Masquerade,
    /// From the world outside to a container's published port.
    Published,
    /// From host to host over VXLAN, where NICs segment what tunnels carry.
    OverlayTunnelGso,
    /// From host to host over VXLAN, where NICs segment UDP, but nothing inside it.
    OverlayUdpGso,
    /// From host to host over VXLAN, where NICs segment neither.
    OverlayPlain,
    /// From a program of the host to a port published on its loopback address.
    Proxy,
}

impl Road {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Road::C2c => "c2c",
            Road::Masquerade => "masquerade",
            Road::Published => "published",
            Road::OverlayTunnelGso => "overlay --underlay tunnel-gso",
            Road::OverlayUdpGso => "overlay --underlay udp-gso",
            Road::OverlayPlain => "overlay --underlay plain",
            Road::Proxy => "proxy",
        }
    }
}
