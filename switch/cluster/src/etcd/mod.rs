//! The cluster's view kept in an etcd.
//!
//! # Theory of operation
//! Every record is a key of etcd, under `/vswitch/CLUSTER/records/`. Each host follows those that are no
//! endpoints, and the endpoints of networks that it subscribes to, and writes its own; what goes with a host
//! is written with the host's lease, and goes when the host is not heard of for as long. Names, numbers and
//! addresses are taken by transactions: who is first has them.
//!
//! | file | |
//! |---|---|
//! | [`address`] [`tls`] | the addresses of etcd, and how it is known to be the right one |
//! | [`transport`] [`wire`] [`client`] [`reading`] [`watch`] | the talk with it |
//! | [`feed`] [`layout`] | following ranges, whatever happens to connections; which ones they are |
//! | [`mirror`] [`table`] [`news`] | pure: records that are there and that shall be |
//! | [`shares`] | pure: addresses that are taken |
//! | [`lease`] | the leases that records are written with |
//! | [`acquire`] [`letters`] | getting addresses, also from another host |
//! | [`identity`] | the cluster it has |
//! | [`source`] [`prepared`] | the task that joins them, and all that it needs |
//! | [`error`] | its errors |

mod acquire;
pub mod address;
pub mod client;
pub mod error;
#[cfg(test)]
mod fake;
pub mod feed;
mod identity;
mod layout;
mod lease;
mod letters;
mod mirror;
mod news;
pub mod prepared;
mod reading;
mod shares;
mod source;
mod table;
#[cfg(test)]
mod tests;
pub mod tls;
mod transport;
pub mod watch;
pub mod wire;

use std::path::PathBuf;

use tokio::task::JoinHandle;

use super::record::HostId;
use super::view::Source;
use client::{Access, Client};
use identity::Memory;
use prepared::Prepared;
use source::Keeper;

/// Seconds without a sign of life after which a host's records go, unless something else is asked for.
pub const LEASE_S: u32 = 30;

/// Settings of a host that takes part.
#[derive(Clone, Debug)]
pub struct Options {
    /// The way to etcd, and who we are there.
    pub access: Access,
    /// The directory where the cluster's identifier is noted.
    pub state_dir: PathBuf,
    /// Seconds without a sign of life after which this host's records go.
    pub lease_s: u32,
}

/// Reads the files, and has a first look at etcd.
///
/// # Errors
/// One line: a file, a certificate, a password, or a cluster that is not ours. An etcd that cannot be reached
/// is no error: it is tried until it can.
pub async fn prepare(cluster: &str, options: Options) -> Result<Prepared, String> {
    let Options { access, state_dir, lease_s } = options;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if cluster.is_empty() || !cluster.bytes().all(is_plain) {
        return Err(format!(
            "{cluster:?} is no name of a cluster in etcd: use letters, digits, \"-\", \".\" and \"_\""
        ));
    }
    let prefix = format!("/vswitch/{cluster}/");
    let client = Client::new(&access)?;
    let mut memory = Memory::read(&state_dir)?;
    if let Some(error) = identity::look(&client, &mut memory, &prefix).await? {
        tracing::warn!("{error}: it is tried again until it is there");
    }
    Ok(Prepared { client, memory, prefix, lease_s })
}

impl Prepared {
    /// Takes part. The task that is returned ends after control's end of the source has gone, and takes this
    /// host's records with it.
    pub fn start(self, host: HostId, source: Source) -> JoinHandle<()> {
        tokio::spawn(Keeper::new(self, host, source.events).work(source.requests))
    }
}
