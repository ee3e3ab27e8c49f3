//! The nouns of the switch: what a frame is, where its bytes live, and what may be done to it.
//!
//! Everything here is pure: no system call, no clock, no random source, no unsafe code. The other
//! crates meet only through these types.
//!
//! | module | noun |
//! |---|---|
//! | [`addr`] | MAC addresses and the identifiers of ports, networks and isolation groups |
//! | [`pool`] | the fixed store of buffers that frames live in |
//! | [`slot`] | the layout of one buffer of the pool |
//! | [`frame`] | one Ethernet frame, super-frame or not |
//! | [`offload`] | the segmentation and checksum work the sender left for later |
//! | [`headers`] | where a frame's headers are: parsed once, checked, then trusted |
//! | [`checksum`] | RFC 1071 sums |
//! | [`flow`] | a hash by which the frames of one flow find each other |
//! | [`run`] | which frames one super-frame may stand for |
//! | [`mod@coalesce`] | many frames of one flow into one super-frame |
//! | [`mod@split`] | a super-frame into the frames it stands for |
//! | [`mod@drop`] | why a frame went nowhere |
//! | [`hash`] | the seeded hash of tables whose keys others choose |
//! | [`time`] | instants, handed in by whoever owns the clock |
#![forbid(unsafe_code)]

pub mod addr;
pub mod checksum;
pub mod coalesce;
pub mod drop;
pub mod flow;
pub mod frame;
pub mod hash;
pub mod headers;
mod lengths;
pub mod offload;
pub mod pool;
pub mod run;
pub mod slot;
pub mod split;
pub mod time;

pub use addr::{GroupId, Mac, NetworkId, PortId};
pub use drop::DropReason;
pub use frame::Frame;
pub use headers::Headers;
pub use offload::{Accepts, Checksum, Gso, GsoKind, Offload};
pub use pool::Pool;
pub use time::Instant;
