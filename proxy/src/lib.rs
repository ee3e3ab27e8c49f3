//! Relay between sockets of the host and containers: published ports for clients that no frame of ours comes
//! from.
//!
//! # Scope
//!
//! A socket of the host's holds every published port. What it accepts is relayed here: clients on the host
//! itself, IPv6 clients of an IPv4 container and the reverse, clients from interfaces that are not ours. The
//! host's side is a descriptor; the container's side is a TCP endpoint of our own, or datagrams, and speaks
//! in frames.
//!
//! # Theory of operation
//!
//! ```text
//!  client ── host's TCP ── Stream ══ buffers of one smoltcp socket ══ frames ── switch ── container
//! ```
//!
//! * The buffers of the container-side socket are the only ones: the host's socket is read straight into the
//!   send buffer, and written straight from the receive buffer. When a buffer is full, nobody reads into it,
//!   and the window on that side closes. That is all the back-pressure there is.
//! * Each relay has a TCP stack of its own, with one socket. A stack looks at all its sockets for each
//!   packet; with one stack for all, 10,000 relays would cost 10,000 looks a packet. A frame finds its relay
//!   by its addresses and ports.
//! * Work is done when it is due: each relay, listener and session has at most one entry in one ordered
//!   list of deadlines, and [`Proxy::work`] takes those that are over. Nothing walks through all relays.
//! * Toward the container the source is the client's own address where that is routable there, and
//!   the gateway's address with a port of the proxy's where it is not ([`source`]).
//!
//! Ends, resets and silence are in [`relay`]; datagrams are in [`session`] and [`fragments`]; limits in
//! [`limits`], and who gives way at them in [`shares`].
#![forbid(unsafe_code)]

pub mod binding;
mod counts;
mod datagram;
mod deadlines;
mod flow;
pub mod fragments;
pub mod limits;
mod link;
mod numbers;
mod proxy;
pub mod relay;
mod secret;
mod sequence;
pub mod session;
pub mod shares;
mod source;
mod timestamp;
mod token;

pub use binding::{Binding, Bindings};
pub use counts::Counts;
pub use limits::Limits;
pub use proxy::{Proxy, Refused};
pub use token::Token;
