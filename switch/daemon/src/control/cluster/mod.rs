//! The cluster: hosts that share networks.
//!
//! # Theory of operation
//! Each host tells the others what is its own, as versioned [`record`]s: itself, its endpoints, the networks
//! that were made on it and the addresses it owns. What the others say arrives through the [`view`], whose
//! source is gossip or etcd, and becomes networks, tunnels, names and refusals here.
//!
//! ```text
//!   a job ──► state ──► say_endpoints ──► records ──► journal ──► view ──► other hosts
//!   view ──► hear ──► records ──► networks, pools ──► steer ──► tunnels and names of the datapath
//! ```
//!
//! | file | |
//! |---|---|
//! | [`record`] [`ledger`] | what is said, and of each thing the newest |
//! | [`view`] | how control and a source talk |
//! | [`gossip`] | a source without a server |
//! | [`etcd`] | a source whose records are kept in an etcd |
//! | [`agent`] | what control has of its cluster: saying, hearing |
//! | [`networks`] [`endpoints`] | networks that are on all hosts, and who is on them |
//! | [`space`] [`addresses`] | whose the addresses of a network are; getting and giving some |
//! | [`steer`] | what the datapath is told |
//! | [`forget`] | giving up on a host |

pub mod addresses;
pub mod agent;
pub mod endpoints;
pub mod etcd;
pub mod forget;
pub mod gossip;
pub mod ledger;
pub mod networks;
pub mod record;
pub mod space;
pub mod steer;
pub mod view;

use std::net::IpAddr;

use super::error::{Code, Error, Result};

/// How a host takes part in a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of this host, for people.
    pub host: String,
    /// The address that its tunnels end at.
    pub vtep: IpAddr,
    /// The source.
    pub gossip: gossip::Options,
}

/// Prepares what can be refused before anything is made.
///
/// # Errors
/// See [`gossip::prepare`].
pub async fn prepare(options: Option<&Options>) -> Result<Option<gossip::Prepared>> {
    let Some(options) = options else { return Ok(None) };
    let prepared = gossip::prepare(options.gossip.clone()).await;
    prepared.map(Some).map_err(|message| Error::new(Code::InvalidArgument, message))
}

/// The name of this host.
pub fn host_name() -> String {
    let system = nix::sys::utsname::uname();
    system.map(|system| system.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}
