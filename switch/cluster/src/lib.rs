//! The cluster: hosts that share networks.
//!
//! # Theory of operation
//! Each host tells the others what is its own, as versioned [`record`]s: itself, its endpoints, the networks
//! that were made on it and the addresses it owns. Records of the others arrive through the [`view`], whose
//! source is gossip or an etcd. Their use is not known here.
//!
//! | file | |
//! |---|---|
//! | [`record`] [`ledger`] | records, and of each key the newest |
//! | [`view`] | the talk between a host and a source |
//! | [`gossip`] | a source without a server |
//! | [`etcd`] | a source whose records are kept in an etcd |
//! | [`space`] | the owners of a network's addresses |
//! | [`id`] [`family`] | identifiers; addresses as numbers |
#![forbid(unsafe_code)]

pub mod etcd;
pub mod family;
pub mod gossip;
pub mod id;
pub mod ledger;
pub mod record;
pub mod space;
pub mod view;

use std::net::IpAddr;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use record::HostId;
use view::Source;

/// Settings of a host that takes part in a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of this host, for people.
    pub host: String,
    /// The cluster's name.
    pub name: String,
    /// The address that its tunnels end at.
    pub vtep: IpAddr,
    /// The source by which it hears of others.
    pub source: SourceOptions,
}

/// A source, with the settings it needs.
#[derive(Clone, Debug)]
pub enum SourceOptions {
    /// Gossip.
    Gossip(gossip::Options),
    /// An etcd.
    Etcd(etcd::Options),
}

/// A source that nothing stands in the way of any more.
#[derive(Debug)]
pub enum Prepared {
    /// Gossip.
    Gossip(gossip::Prepared),
    /// An etcd.
    Etcd(etcd::prepared::Prepared),
}

impl Prepared {
    /// Both ends of a view, as this source needs it.
    pub fn channel(&self) -> (view::View, UnboundedReceiver<view::Event>, Source) {
        let (view, events, source) = view::channel();
        match self {
            Self::Gossip(_) => (view, events, source),
            Self::Etcd(_) => (view.with_common_space(), events, source),
        }
    }

    /// Begins. Other hosts that this one knew before are named by where their tunnels end. The task ends when
    /// control's end of the view is gone and the others have been told.
    ///
    /// # Errors
    /// One line.
    pub async fn start(
        self,
        host: HostId,
        others: Vec<IpAddr>,
        source: Source,
    ) -> Result<JoinHandle<()>, String> {
        match self {
            Self::Gossip(gossip) => gossip.start(host, others, source),
            Self::Etcd(etcd) => Ok(etcd.start(host, source)),
        }
    }
}

/// Prepares what can be refused before anything is made.
///
/// # Errors
/// One line: a file, an address, or another cluster.
pub async fn prepare(options: Option<&Options>) -> Result<Option<Prepared>, String> {
    let Some(options) = options else { return Ok(None) };
    let prepared = match &options.source {
        SourceOptions::Gossip(gossip) => {
            gossip::prepare(&options.name, gossip.clone()).await.map(Prepared::Gossip)
        }
        SourceOptions::Etcd(etcd) => etcd::prepare(&options.name, etcd.clone()).await.map(Prepared::Etcd),
    };
    prepared.map(Some)
}

/// The name of this host.
pub fn host_name() -> String {
    let system = nix::sys::utsname::uname();
    system.map(|system| system.nodename().to_string_lossy().into_owned()).unwrap_or_default()
}
