//! Network address translation, pure: no clock, no random source, no system call.
//!
//! # Theory of operation
//!
//! A **flow** is two tuples: what the packets of either side look like when they come to us. A packet of
//! one side is translated into the reverse of the other side's tuple. Outbound flows, flows to published
//! ports, and hairpins from inside to inside are all of this one form, and one look-up finds each.
//!
//! ```text
//!  inside                      flow                           outside
//!  10.0.0.2:5000 → 8.8.8.8:53   │ initiator's tuple            192.0.2.1:5000 → 8.8.8.8:53
//!  10.0.0.2:5000 ← 8.8.8.8:53   │ target's tuple, reversed     192.0.2.1:5000 ← 8.8.8.8:53
//! ```
//!
//! A **mapping** binds an inside end to an outside end, whoever it talks to. A **binding** is a published
//! range of ports. A **claim** is an outside port that control holds for us. A **realm** is a network, or
//! outside: inside addresses of two networks may be the same.
//!
//! A packet's walk, in `receive.rs`: read and check it; find its flow; or begin one (`begin.rs`), or say why
//! not; note it; rewrite it. ICMP errors go the way of the packet they quote, fragments that of their first.
//!
//! Not here: routing, MAC addresses, time to live, and the decision which frames come here. Nothing leaves
//! this crate for outside that was not translated, but what a network of plain addresses sends.
//!
//! Behaviour follows RFC 4787 (UDP), RFC 5382 (TCP), RFC 5508 (ICMP) and RFC 7857; docs/nat.md says where,
//! and which test shows it.
#![forbid(unsafe_code)]

mod answer;
mod begin;
pub mod binding;
pub mod checksum;
pub mod destination;
pub mod flow;
mod fragments;
mod identification;
mod index;
mod ip;
pub mod limits;
pub mod listing;
mod mapping;
pub mod mss;
pub mod nat;
mod owners;
mod packet;
mod ports;
mod receive;
pub mod record;
mod restore;
mod rewrite;
mod slab;
mod table;
pub mod tcp;
mod tick;
pub mod too_big;
pub mod tuple;
mod unsolicited;
pub mod verdict;

pub use binding::{Binding, BindingError};
pub use destination::{CameBy, Destination};
pub use flow::{Class, Origin};
pub use limits::{Filtering, Limits, Timeouts};
pub use listing::Listed;
pub use nat::{Nat, Stats, Uplink, Wanted};
pub use record::Record;
pub use tcp::TcpState;
pub use tuple::{Protocol, Realm, Tuple};
pub use verdict::{Inside, Leaving, Verdicts};
