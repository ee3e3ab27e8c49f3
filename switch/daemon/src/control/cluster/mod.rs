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

use tokio::task::JoinHandle;

use super::error::{Code, Error, Result};
use record::HostId;

/// How a host takes part in a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of this host, for people.
    pub host: String,
    /// The address that its tunnels end at.
    pub vtep: IpAddr,
    /// The source.
    pub source: SourceOptions,
}

/// Where a host hears of the others.
#[derive(Clone, Debug)]
pub enum SourceOptions {
    /// From the others.
    Gossip(gossip::Options),
    /// From an etcd.
    Etcd(etcd::Options),
}

impl SourceOptions {
    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        match self {
            Self::Gossip(options) => &options.cluster,
            Self::Etcd(options) => &options.cluster,
        }
    }
}

/// A source of which all that can be refused was not.
#[derive(Debug)]
pub enum Prepared {
    /// See [`gossip::Prepared`].
    Gossip(gossip::Prepared),
    /// See [`etcd::Prepared`].
    Etcd(etcd::Prepared),
}

/// Prepares what can be refused before anything is made.
///
/// # Errors
/// See [`gossip::prepare`] and [`etcd::prepare`].
pub async fn prepare(options: Option<&Options>) -> Result<Option<Prepared>> {
    let Some(options) = options else { return Ok(None) };
    let prepared = match options.source.clone() {
        SourceOptions::Gossip(options) => gossip::prepare(options).await.map(Prepared::Gossip),
        SourceOptions::Etcd(options) => etcd::prepare(options).await.map(Prepared::Etcd),
    };
    prepared.map(Some).map_err(|message| Error::new(Code::InvalidArgument, message))
}

impl Prepared {
    /// Both ends of a view, as this source needs it.
    pub fn channel(&self) -> (view::View, tokio::sync::mpsc::UnboundedReceiver<view::Event>, view::Source) {
        let (view, events, source) = view::channel();
        match self {
            Self::Gossip(_) => (view, events, source),
            Self::Etcd(_) => (view.with_common_space(), events, source),
        }
    }

    /// Takes part. `others` are hosts known from before. The task ends when it has left.
    ///
    /// # Errors
    /// One line.
    pub fn start(
        self,
        host: HostId,
        others: Vec<String>,
        source: view::Source,
    ) -> std::result::Result<JoinHandle<()>, String> {
        match self {
            Self::Gossip(prepared) => prepared.start(host, others, source),
            Self::Etcd(prepared) => Ok(prepared.start(host, source)),
        }
    }
}

/// The name of this host.
pub fn host_name() -> String {
    let system = nix::sys::utsname::uname();
    system.map(|system| system.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}
