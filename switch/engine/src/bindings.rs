//! The owners of IP addresses: gateways of networks, and endpoints behind ports.
//!
//! # Theory of operation
//!
//! Control says every address when it makes a network, a port, or says anew who is behind one, so nothing is
//! learned here and nothing ages. Different networks may use the same addresses: the key is *(address,
//! network)*, in this order, so that all networks with an address are found in one look.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vswitch_frame::{NetworkId, PortId};

/// The owner of an address on its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The gateway's.
    Gateway,
    /// The endpoint's behind this port.
    Port(PortId),
}

/// The addresses of all networks.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    owners: BTreeMap<(IpAddr, NetworkId), Owner>,
}

impl Bindings {
    /// Notes addresses. One that somebody else had is now this owner's.
    pub(crate) fn bind(
        &mut self,
        network: NetworkId,
        owner: Owner,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) {
        for address in addresses {
            self.owners.insert((address, network), owner);
        }
    }

    /// Forgets those of these addresses that are still this owner's.
    pub(crate) fn release(
        &mut self,
        network: NetworkId,
        owner: Owner,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) {
        for address in addresses {
            if self.owners.get(&(address, network)) == Some(&owner) {
                self.owners.remove(&(address, network));
            }
        }
    }

    /// Forgets a network.
    pub(crate) fn forget(&mut self, network: NetworkId) {
        self.owners.retain(|(_, of), _| *of != network);
    }

    /// The port that has an address on a network.
    pub(crate) fn port_of(&self, network: NetworkId, address: IpAddr) -> Option<PortId> {
        match self.owners.get(&(address, network)) {
            Some(Owner::Port(port)) => Some(*port),
            Some(Owner::Gateway) | None => None,
        }
    }

    /// The owner of an address, seen from a network: on that one if it is there, otherwise on the first that
    /// has it.
    pub(crate) fn find(&self, from: NetworkId, address: IpAddr) -> Option<(NetworkId, Owner)> {
        if let Some(owner) = self.owners.get(&(address, from)) {
            return Some((from, *owner));
        }
        let everywhere = (address, NetworkId(0))..=(address, NetworkId(u16::MAX));
        self.owners.range(everywhere).next().map(|((_, network), owner)| (*network, *owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: NetworkId = NetworkId(1);
    const BLUE: NetworkId = NetworkId(2);
    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn an_address_is_looked_for_at_home_first() {
        let mut bindings = Bindings::default();
        assert_eq!(bindings.find(RED, ADDRESS), None);
        bindings.bind(BLUE, Owner::Gateway, [ADDRESS]);
        assert_eq!(bindings.find(RED, ADDRESS), Some((BLUE, Owner::Gateway)));
        bindings.bind(RED, Owner::Port(PortId(3)), [ADDRESS]);
        assert_eq!(bindings.find(BLUE, ADDRESS), Some((BLUE, Owner::Gateway)));
        assert_eq!(bindings.find(RED, ADDRESS), Some((RED, Owner::Port(PortId(3)))));
        assert_eq!(bindings.find(NetworkId(0), ADDRESS), Some((RED, Owner::Port(PortId(3)))));
        bindings.forget(BLUE);
        assert_eq!(bindings.find(BLUE, ADDRESS), Some((RED, Owner::Port(PortId(3)))));
    }

    #[test]
    fn only_its_owner_releases_an_address() {
        let mut bindings = Bindings::default();
        bindings.bind(RED, Owner::Port(PortId(1)), [ADDRESS]);
        bindings.bind(RED, Owner::Port(PortId(2)), [ADDRESS]);
        bindings.release(RED, Owner::Port(PortId(1)), [ADDRESS]);
        assert_eq!(bindings.find(RED, ADDRESS), Some((RED, Owner::Port(PortId(2)))));
        bindings.release(RED, Owner::Port(PortId(2)), [ADDRESS]);
        assert_eq!(bindings.find(RED, ADDRESS), None);
    }
}
