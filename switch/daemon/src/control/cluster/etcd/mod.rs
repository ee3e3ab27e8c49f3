//! The cluster's view kept in an etcd.
//!
//! # Theory of operation
//! Every record is a key of etcd, under `/vswitch/CLUSTER/records/`. Each host follows all of them, and writes
//! its own; what goes with a host is written with the host's lease, and goes when the host is not heard of for as
//! long. Names, numbers and addresses are taken by transactions: who is first has them.
//!
//! | file | |
//! |---|---|
//! | [`address`] [`tls`] | where etcd is, and how it is known to be the right one |
//! | [`transport`] [`wire`] [`client`] [`watch`] | how it is talked to |
//! | [`feed`] | following a prefix, whatever happens to connections |
//! | [`mirror`] [`shares`] | pure: what is there and what shall be; which addresses are taken |
//! | [`identity`] | which cluster it is |
//! | [`source`] | the task that joins them |
//! | [`error`] | what can be wrong |

pub mod address;
pub mod client;
pub mod error;
pub mod feed;
mod identity;
pub mod mirror;
mod shares;
mod source;
pub mod tls;
mod transport;
pub mod watch;
pub mod wire;

use std::path::PathBuf;

use super::record::{Clock, HostId};
use super::view::Source;
use client::{Access, Client};
use identity::Memory;
use mirror::Mirror;
use source::{Keeper, Trouble};

/// Seconds without a sign of life after which a host's records go, unless something else is asked for.
pub const LEASE_S: u32 = 30;

/// How a host takes part.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where etcd is, and who we are there.
    pub access: Access,
    /// The cluster's name.
    pub cluster: String,
    /// Where the cluster's identifier is noted.
    pub state_dir: PathBuf,
    /// Seconds without a sign of life after which this host's records go.
    pub lease_s: u32,
}

/// Takes part in a cluster. The task that is returned ends after control's end of the source has gone, and takes
/// this host's records with it.
///
/// # Errors
/// One line: a file, a certificate, a password, or a cluster that is not ours. An etcd that cannot be reached is no
/// error: it is tried until it can.
pub async fn start(
    host: HostId,
    options: Options,
    source: Source,
) -> Result<tokio::task::JoinHandle<()>, String> {
    let Options { access, cluster, state_dir, lease_s } = options;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if cluster.is_empty() || !cluster.bytes().all(is_name) {
        return Err(format!(
            "{cluster:?} is no name of a cluster: use letters, digits, \"-\", \".\" and \"_\""
        ));
    }
    let prefix = format!("/vswitch/{cluster}/");
    let mut keeper = Keeper {
        client: Client::new(&access)?,
        memory: Memory::read(&state_dir)?,
        lease_s,
        mirror: Mirror::new(host, format!("{prefix}records/")),
        prefix,
        clock: Clock::default(),
        leases: None,
        since: (0, 0),
        known: Err("etcd has not answered yet: try again".to_owned()),
        calls: Trouble::new("changes wait for etcd"),
        news: Trouble::new("nothing is heard of other hosts"),
    };
    keeper.first_look().await?;
    Ok(tokio::spawn(keeper.work(source)))
}
