//! VXLAN (RFC 7348), pure: Ethernet frames of one network carried between hosts in UDP datagrams.
//!
//! # Scope
//!
//! This crate knows the format on the wire: the [header](Header) between the outer UDP header and the
//! inner frame, and the [identifier](Vni) of the network it names. Outer headers, sockets, and the
//! question which host an address lives on are not here.
#![forbid(unsafe_code)]

mod header;
mod vni;

pub use header::{HEADER_BYTES, Header, Malformed};
pub use vni::{Vni, VniError};

/// The UDP port assigned to VXLAN (RFC 7348, 8).
pub const UDP_PORT: u16 = 4789;
