//! A host as gossip knows it.

use std::net::SocketAddr;

use foca::Identity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::record::HostId;

/// A host that takes part, in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// The address where it is reached.
    pub address: SocketAddr,
    /// Its host.
    #[serde(serialize_with = "write_host", deserialize_with = "read_host")]
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

/// Writes a host in as few bytes as the format takes.
fn write_host<S: Serializer>(host: &HostId, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        host.serialize(serializer)
    } else {
        host.bytes().serialize(serializer)
    }
}

fn read_host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HostId, D::Error> {
    if deserializer.is_human_readable() {
        HostId::deserialize(deserializer)
    } else {
        <[u8; 16]>::deserialize(deserializer).map(HostId::new)
    }
}
