//! The host around the switch.
//!
//! | file | |
//! |---|---|
//! | [`port`] | the interface by which the host reaches a network |
//! | [`addresses`] | addresses of the host, told to the datapath |
//! | [`uplink`] [`claims`] | the way out of the host, and the ports held for it |
//! | [`tunnels`] | sockets and underlay of networks that span hosts |

pub mod addresses;
pub mod claims;
pub mod port;
pub mod tunnels;
pub mod uplink;
