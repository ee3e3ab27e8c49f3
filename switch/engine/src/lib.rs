//! The switch, pure: admission, learning, lookup, isolation groups, and the gateways of its networks.
//!
//! # Theory of operation
//!
//! A [`Switch`] holds networks, the ports on them, and one forwarding table. It moves no bytes and makes
//! no system call: it is handed the *burst* one port received and sorts it into [`Verdicts`], vectors of
//! frames that share a fate. The caller then walks each vector in one straight loop.
//!
//! ```text
//!        burst of one port                                  ┌► forward   (egress port, frame)
//! process ► parse ► guard ► admit ► learn ► look up ► rules ┼► flood     (frame; flood_targets says where)
//!             │       │       │                │        │   ├► multicast (audience, frame)
//!             │       │       │                │        │   ├► local     (frame; serve moves it on)
//!             └───────┴───────┴────────────────┴────────┴───┴► drop      (reason, counting port, frame)
//! ```
//!
//! * **Conservation.** Every frame of a burst ends up in exactly one vector. There is no error to return:
//!   a frame that goes nowhere has a [`DropReason`](vswitch_frame::DropReason).
//! * **Walls.** The table's key is *(network, address)* and a port floods to the ports of its own network,
//!   so no frame leaves its network but through its [`gateway`].
//! * **Groups.** A frame never goes from a port to a port of the same isolation group. Reflection, ICC
//!   off and tunnel split-horizon are that one rule.
//! * **Order.** A burst is walked once, in order, and each vector keeps that order.
//! * **Time** is an argument, and so is the seed of the hash. Ageing happens in [`Switch::poll`], which the
//!   caller owes a call at [`Switch::poll_at`].
//! * **Limits.** [`Limits`] bounds what containers can make the switch remember; `PortId::LIMIT` and
//!   `NetworkId::LIMIT` bound what control can. At the first kind of limit frames still flow and a counter
//!   in [`Stats`] moves; at the second control gets a [`Refusal`].
//!
//! | module | answers |
//! |---|---|
//! | [`switch`] | what the owner of the switch can do: networks, ports, reading the table, ageing |
//! | [`process`] | what happens to a frame, and the tiers that make it fast |
//! | [`table`] | learning, moves, fixed addresses, ageing, limits |
//! | [`ports`] | which ports and networks there are, and who floods to whom |
//! | [`dns`] | what containers learn of names |
//! | [`gateway`] | what a network's gateway answers, and what is routed through it |
//! | `bindings` | whose an IP address is |
//! | `prefixes` | which prefixes an address is in |
//! | `link_local` | IPv6 addresses that hold on one link |
//! | `remotes` | endpoints beyond tunnels |
//! | `security` | whether a container speaks for itself |
//! | [`policy`] | who may talk to whom: the user's rules, walls between networks, accepted flows |
//! | [`snoop`] | who gets a multicast frame |
//! | [`network`] | what control says about a network and about who is behind a port |
//! | [`announce`] | saying where a container's addresses are, on its behalf |
//! | [`limits`] [`verdicts`] [`stats`] [`refusal`] | the types they hand over |
#![forbid(unsafe_code)]

pub mod announce;
mod bindings;
pub mod dns;
pub mod gateway;
pub mod limits;
mod link_local;
pub mod network;
pub mod policy;
pub mod ports;
mod prefixes;
pub mod process;
pub mod refusal;
mod remotes;
mod security;
pub mod snoop;
pub mod stats;
pub mod switch;
pub mod table;
pub mod verdicts;

pub use gateway::outside::Entrance;
pub use gateway::way_out::{Hop, Route, Uplink, WayOut};
pub use limits::Limits;
pub use network::{Endpoint, Family, Gateway, GatewayMode, Network, Remote, Station};
pub use policy::{
    Action, Count, End, Field, Interface, Limit, Period, Ports as PortRange, Protocol, PublishedAs,
    PublishedPorts, Rule, State,
};
pub use ports::Port;
pub use refusal::Refusal;
pub use snoop::{Audience, Listeners, Query};
pub use stats::Stats;
pub use switch::Switch;
pub use table::Entry;
pub use verdicts::{MadeError, Outbound, Verdicts};
