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
//! | `index` | what follows from records, without a look at all |
//! | [`networks`] `install` | networks that all hosts know, and their parts on this one |
//! | [`endpoints`] `held` | who is on them here, and addresses that two have |
//! | [`addresses`] | getting addresses of other hosts, and giving some |
//! | [`steer`] | what the datapath is told |
//! | [`forget`] | giving up on a host |

pub mod addresses;
pub mod agent;
pub mod endpoints;
#[cfg(test)]
mod fixtures;
pub mod forget;
mod held;
mod index;
mod install;
pub mod member;
pub mod networks;
pub mod steer;
