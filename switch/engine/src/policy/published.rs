//! Ports of containers that are published: those that may be reached at the container's own address, too,
//! where the gateway mode makes a difference between published ports and others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vswitch_frame::NetworkId;

use super::rules::Ports;

/// Published ports of one container address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPorts {
    /// The container's network.
    pub network: NetworkId,
    /// The container's address.
    pub address: IpAddr,
    /// The number of the protocol.
    pub protocol: u8,
    /// The container's ports, which are not those of the host that stand for them.
    pub ports: Ports,
}

/// All published ports. A port that is published twice is there twice.
#[derive(Debug, Default)]
pub(crate) struct Directory(BTreeMap<(NetworkId, IpAddr), Vec<(u8, Ports)>>);

impl Directory {
    pub(crate) fn add(&mut self, PublishedPorts { network, address, protocol, ports }: PublishedPorts) {
        self.0.entry((network, address)).or_default().push((protocol, ports));
    }

    /// Forgets one entry that is just this, if there is any.
    pub(crate) fn remove(&mut self, published: &PublishedPorts) {
        let key = (published.network, published.address);
        let Some(entries) = self.0.get_mut(&key) else { return };
        let is_same =
            |(protocol, ports): &(u8, Ports)| (*protocol, ports) == (published.protocol, &published.ports);
        if let Some(index) = entries.iter().position(is_same) {
            entries.swap_remove(index);
        }
        if entries.is_empty() {
            self.0.remove(&key);
        }
    }

    pub(crate) fn forget_network(&mut self, network: NetworkId) {
        self.0.retain(|(of, _), _| *of != network);
    }

    pub(crate) fn has(&self, network: NetworkId, (address, port): (IpAddr, u16), protocol: u8) -> bool {
        let entries = self.0.get(&(network, address)).map(Vec::as_slice).unwrap_or_default();
        entries.iter().any(|(number, ports)| *number == protocol && ports.contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_twice_is_there_until_both_are_gone() {
        let address: IpAddr = [10, 1, 0, 2].into();
        let entry = |ports| PublishedPorts { network: NetworkId(1), address, protocol: 6, ports };
        let mut directory = Directory::default();
        directory.add(entry(80..=89));
        directory.add(entry(80..=89));
        directory.add(entry(85..=85));
        let has = |directory: &Directory, port| directory.has(NetworkId(1), (address, port), 6);
        assert!(
            !directory.has(NetworkId(2), (address, 80), 6) && !directory.has(NetworkId(1), (address, 80), 17)
        );
        for (removed, has_80, has_85) in
            [(80..=89, true, true), (80..=89, false, true), (85..=85, false, false)]
        {
            assert!(has(&directory, 85) && !has(&directory, 90));
            directory.remove(&entry(removed));
            assert_eq!((has(&directory, 80), has(&directory, 85)), (has_80, has_85));
        }
    }
}
