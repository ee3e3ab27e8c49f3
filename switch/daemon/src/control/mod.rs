//! The privileged process: API, networks, addresses, interfaces.

pub mod link;
