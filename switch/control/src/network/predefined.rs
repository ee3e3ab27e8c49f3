//! The networks that are no networks: Docker lists `host` and `none` beside `bridge`, so we do.
//!
//! They are ways to run a sandbox, in the host's network namespace and with a loopback only. Nothing
//! connects to them, and nothing removes them.

use vswitch_cluster::id::Id;

use crate::error::{Code, Error};

/// The network that is always there.
pub const DEFAULT_NETWORK: &str = "bridge";

/// The IPAM driver of every network.
pub const IPAM_DRIVER: &str = "default";

/// A network that is none.
#[derive(Clone, Copy, Debug)]
pub struct Predefined {
    /// Its name.
    pub name: &'static str,
    /// Its driver, as Docker calls it.
    pub driver: &'static str,
    /// Its identifier: the SHA-256 digest of its name, so it is the same on every host.
    pub id: Id,
}

/// Both of them.
pub const PREDEFINED: [Predefined; 2] = [
    Predefined {
        name: "host",
        driver: "host",
        id: Id::new([
            0x47, 0x40, 0xae, 0x63, 0x47, 0xb0, 0x17, 0x2c, 0x01, 0x25, 0x4f, 0xf5, 0x5b, 0xae, 0x5a, 0xff,
            0x51, 0x99, 0xf4, 0x44, 0x6e, 0x7f, 0x6d, 0x64, 0x3d, 0x40, 0x18, 0x5b, 0x3f, 0x47, 0x51, 0x45,
        ]),
    },
    Predefined {
        name: "none",
        driver: "null",
        id: Id::new([
            0x14, 0x0b, 0xed, 0xbf, 0x9c, 0x3f, 0x6d, 0x56, 0xa9, 0x84, 0x6d, 0x2b, 0xa7, 0x08, 0x87, 0x98,
            0x68, 0x3f, 0x4d, 0xa0, 0xc2, 0x48, 0x23, 0x13, 0x36, 0xe6, 0xa0, 0x56, 0x79, 0xe4, 0xfd, 0xfe,
        ]),
    },
];

/// The predefined network of this name.
pub fn find(name: &str) -> Option<&'static Predefined> {
    PREDEFINED.iter().find(|predefined| predefined.name == name)
}

/// The refusal to have anything connected to a network that is none.
pub fn no_segment(name: &str) -> Error {
    let message = format!(
        "network {name} is pre-defined and takes no endpoints: use \"vswitch sandbox create --network {name}\""
    );
    Error::new(Code::NetworkPredefined, message)
}

/// Whether a network is one of those that are always there.
pub fn is_predefined(name: &str) -> bool {
    name == DEFAULT_NETWORK || find(name).is_some()
}
