//! The host around the switch.
//!
//! | file | |
//! |---|---|
//! | [`port`] | the interface by which the host reaches a network |
//! | [`changes`] | changes of links, routes and addresses, and the times of other tries |
//! | [`addresses`] | addresses of the host, told to the datapath |
//! | [`ways_out`] `routes` | interfaces that are uplinks, and the routes through them |
//! | [`uplink`] [`claims`] | what the datapath is told of uplinks, and the ports held for them |
//! | [`tunnels`] | tunnels: their sockets and their underlay |

pub mod addresses;
pub mod changes;
pub mod claims;
pub mod port;
mod routes;
pub mod tunnels;
pub mod uplink;
pub mod ways_out;
