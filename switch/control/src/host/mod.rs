//! The host around the switch.
//!
//! | file | |
//! |---|---|
//! | [`port`] | the interface by which the host reaches a network |
//! | [`addresses`] | addresses of the host, told to the datapath |
//! | [`ways_out`] [`uplink`] [`claims`] | the uplinks of the host, what the datapath is told of them, and the ports held for them |
//! | [`tunnels`] | tunnels: their sockets and their underlay |

pub mod addresses;
pub mod claims;
pub mod port;
pub mod tunnels;
pub mod uplink;
pub mod ways_out;
