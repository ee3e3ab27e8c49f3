//! Relay between a connection accepted on the host and one to a container.
//!
//! # Scope
//!
//! This crate knows how bytes pass between two stream connections within a bound on memory: a [`Relay`] is
//! two [`Pipe`]s, one for each direction, and says of each side whether to read from it and whether to
//! write to it. It is pure: whoever owns the connections does the reading and writing. Accepting and
//! making connections is not here.
//!
//! The *initiator* is the side that asked for the connection, the *target* the side it was asked of.
#![forbid(unsafe_code)]

mod pipe;
mod relay;

pub use pipe::{Pipe, State};
pub use relay::{Relay, Side};
