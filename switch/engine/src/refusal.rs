//! Why control was refused.

use std::fmt;

use vswitch_frame::{Mac, NetworkId, PortId};

/// Why a network or port was not added. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The identifier is not below [`NetworkId::LIMIT`].
    NetworkLimit(NetworkId),
    /// There is a network of this identifier.
    NetworkExists(NetworkId),
    /// There is no network of this identifier.
    NetworkUnknown(NetworkId),
    /// The identifier is not below [`PortId::LIMIT`].
    PortLimit(PortId),
    /// There is a port of this identifier.
    PortExists(PortId),
    /// More fixed addresses than [`Limits::addresses_per_port`](crate::Limits::addresses_per_port), which
    /// is given.
    TooManyAddresses(usize),
    /// No station may have this address: it is zero or a multicast address.
    NoStation(Mac),
    /// The address is fixed at another port of the same network.
    AddressTaken(Mac, PortId),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NetworkLimit(NetworkId(id)) => {
                write!(f, "network {id} is beyond the limit of {}: remove a network first", NetworkId::LIMIT)
            }
            Self::NetworkExists(NetworkId(id)) => {
                write!(f, "network {id} exists already: remove it first, or choose another number")
            }
            Self::NetworkUnknown(NetworkId(id)) => write!(f, "no network {id}: add it first"),
            Self::PortLimit(PortId(id)) => {
                write!(f, "port {id} is beyond the limit of {}: remove a port first", PortId::LIMIT)
            }
            Self::PortExists(PortId(id)) => {
                write!(f, "port {id} exists already: remove it first, or choose another number")
            }
            Self::TooManyAddresses(limit) => {
                write!(f, "more than {limit} addresses for one port: give fewer")
            }
            Self::NoStation(mac) => {
                write!(
                    f,
                    "{mac} cannot be the address of a port: give one that is neither zero nor multicast"
                )
            }
            Self::AddressTaken(mac, PortId(port)) => {
                write!(f, "{mac} is the address of port {port} on this network: give another")
            }
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_one_line_that_names_the_thing() {
        let mac = Mac([2, 0, 0, 0, 0, 7]);
        let refusals = [
            (Refusal::NetworkLimit(NetworkId(7)), "7"),
            (Refusal::NetworkExists(NetworkId(7)), "7"),
            (Refusal::NetworkUnknown(NetworkId(7)), "7"),
            (Refusal::PortLimit(PortId(7)), "7"),
            (Refusal::PortExists(PortId(7)), "7"),
            (Refusal::TooManyAddresses(7), "7"),
            (Refusal::NoStation(mac), "02:00:00:00:00:07"),
            (Refusal::AddressTaken(mac, PortId(3)), "02:00:00:00:00:07"),
        ];
        for (refusal, thing) in refusals {
            let text = refusal.to_string();
            assert!(text.contains(thing) && text.contains(": ") && !text.contains('\n'), "{text}");
        }
    }
}
