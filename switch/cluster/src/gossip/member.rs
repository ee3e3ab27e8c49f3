//! A host as gossip knows it.

use std::net::SocketAddr;

use foca::Identity;
use serde::{Deserialize, Serialize};

use super::super::record::HostId;

/// A host that takes part, in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// The address where it is reached.
    pub address: SocketAddr,
    /// Its host.
    pub host: HostId,
    /// The number of its life: the later, the higher. A host that was taken for dead begins another.
    pub life: u64,
}

impl Identity for Member {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Self> {
        Some(Self { life: self.life + 1, ..*self })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.life, self.host) > (adversary.life, adversary.host)
    }
}
