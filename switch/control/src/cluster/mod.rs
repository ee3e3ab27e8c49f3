//! Control's part in the cluster it is in.
//!
//! # Theory of operation
//! ```text
//!   a job ──► state ──► say_endpoints ──► records ──► journal ──► view ──► other hosts
//!   view ──► hear ──► records ──► networks, pools ──► steer ──► tunnels and names of the datapath
//! ```
//!
//! | file | |
//! |---|---|
//! | [`member`] [`agent`] | a host's part; saying and hearing |
//! | [`networks`] [`endpoints`] | networks that are on all hosts, and who is on them |
//! | [`addresses`] | getting addresses of other hosts, and giving some |
//! | [`steer`] | what the datapath is told |
//! | [`forget`] | giving up on a host |

pub mod addresses;
pub mod agent;
pub mod endpoints;
pub mod forget;
pub mod member;
pub mod networks;
pub mod steer;
