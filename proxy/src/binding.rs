//! Bindings: the port of a container that a listening socket of the host's stands for, and how to reach it.

use std::net::{IpAddr, SocketAddr};

use vswitch_frame::{Mac, NetworkId};

/// The end that a relay leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The number by which the owner knows the published port.
    pub publication: u64,
    /// The container's network.
    pub network: NetworkId,
    /// The address and port the container listens on.
    pub container: SocketAddr,
    /// The container's MAC address.
    pub container_mac: Mac,
    /// The MAC address of the network's gateway, the source of every frame.
    pub gateway_mac: Mac,
    /// The gateway's address of the container's family.
    pub gateway: IpAddr,
    /// Length of the prefix of the container's subnet, in bits.
    pub prefix: u8,
    /// The network's MTU.
    pub mtu: u16,
    /// Whether the container sends what is for addresses beyond its subnet to the gateway. An internal
    /// network has no default route: there every client has the gateway's address.
    pub keeps_client: bool,
}

/// Bindings of the clients of one socket of the host's: to an address of the container of either family, or
/// of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// The binding to an IPv4 address.
    pub v4: Option<Binding>,
    /// The binding to an IPv6 address.
    pub v6: Option<Binding>,
}

impl Bindings {
    /// The binding of a client: to the address of its own family, if there is one. `None` if there is no
    /// address at all.
    pub fn of(&self, client: IpAddr) -> Option<Binding> {
        if client.to_canonical().is_ipv4() { self.v4.or(self.v6) } else { self.v6.or(self.v4) }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.v4.iter().chain(&self.v6)
    }
}

impl From<Binding> for Bindings {
    fn from(binding: Binding) -> Self {
        let none = Self::default();
        if binding.container.is_ipv4() {
            Self { v4: Some(binding), ..none }
        } else {
            Self { v6: Some(binding), ..none }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vswitch_frame::{Mac, NetworkId};

    /// A port of a container of IPv4 that answers by its gateway.
    pub(crate) fn binding(port: u16) -> Binding {
        Binding {
            publication: 1,
            network: NetworkId(1),
            container: ([172, 17, 0, 2], port).into(),
            container_mac: Mac([2; 6]),
            gateway_mac: Mac([4; 6]),
            gateway: [172, 17, 0, 1].into(),
            prefix: 16,
            mtu: 1500,
            keeps_client: true,
        }
    }
}
