//! VXLAN (RFC 7348), pure: Ethernet frames of one network carried between hosts in UDP datagrams.
//!
//! # Theory of operation
//!
//! A network that spans hosts has one [`Tunnel`] on each of them, a port of the switch like any other.
//! What the switch sends there goes through [`encapsulate`]: the destination's MAC says to which host
//! (its *VTEP*, the tunnel's end there), or, where nobody knows, a copy goes to each of them. What comes
//! back goes through [`decapsulate`] and enters the switch as received from that port. Since a frame
//! never leaves where it came in, nothing goes from host to host through a third (*split horizon*).
//!
//! The control plane says who lives where, in versioned records ([`table`]); learning from frames is a
//! fallback that never outranks it. Questions for an address that a record answers are not carried
//! ([`neighbour`]).
//!
//! Payload is not copied: both ways work on descriptions of pieces, for gathered sends and writes. Nor is
//! there a socket here: outer headers are the kernel's, and what the owner of the sockets must do is
//! little and written in `docs/vxlan.md`, beside each requirement of the RFC and its test.
//!
//! | module | what |
//! |---|---|
//! | [`header`] | the eight bytes in front of an inner frame |
//! | [`vni`] | the identifier of a network |
//! | [`table`] | who lives where, and whose address is whose |
//! | [`tunnel`] | a network's end on this host, and all of them |
//! | [`encapsulate`] | frames into gathered sends |
//! | [`decapsulate`] | datagrams into frames and super-frames |
//! | [`neighbour`] | ARP and ND answered from the table |
//! | [`mtu`] | what a tunnel leaves of the underlay's MTU |
//! | [`path`] | paths that leave less |
#![forbid(unsafe_code)]

pub mod decapsulate;
pub mod encapsulate;
pub mod header;
pub mod mtu;
pub mod neighbour;
pub mod path;
pub mod table;
pub mod tunnel;
pub mod vni;

pub use decapsulate::{Decapsulator, Inner, Received};
pub use encapsulate::{Encapsulator, Send, Sender};
pub use header::{HEADER_BYTES, Header, Malformed, UDP_PORT};
pub use neighbour::Answer;
pub use table::{Limits, Outcome, Record, Table};
pub use tunnel::{Destination, Settings, Tunnel, Tunnels};
pub use vni::{Vni, VniError};
