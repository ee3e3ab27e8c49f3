//! `vswitch cluster`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use vswitch_cluster::gossip::seal;
use vswitch_control::api::types;
use vswitch_control::names::short_id;
use vswitch_sys::random;

use super::client::{Client, path};
use super::each::each;
use super::outcome::Outcome;
use super::print::{Json, print, print_json};
use super::table;

/// Look after the cluster: hosts that share networks
///
/// A host is in a cluster when its daemon was started with --advertise or --join (see "vswitch run --help").
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment)]
pub(super) enum Cluster {
    /// List the hosts of the cluster
    ///
    /// Example: vswitch cluster ls
    #[command(visible_alias = "list")]
    Ls(Json),
    /// Give up on hosts that do not come back
    ///
    /// What such a host said goes, and its addresses belong to the host where this is said. A host that is
    /// forgotten and comes back all the same has lost its addresses.
    ///
    /// Example: vswitch cluster forget host-c
    #[command(verbatim_doc_comment)]
    Forget(Forget),
    /// Write a new key, for --cluster-key-file; it needs no daemon
    ///
    /// Example: (umask 077; vswitch cluster key > /etc/vswitch.key)
    Key(Key),
}

#[derive(Debug, Args)]
pub(super) struct Forget {
    /// Their names, or beginnings of their identifiers
    #[arg(required = true)]
    hosts: Vec<String>,
    /// Even where this host does not reach most of the others, and may be the one that is cut off
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Key {}

impl Cluster {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        match self {
            Self::Ls(json) => list(client, json).await,
            Self::Forget(Forget { hosts, force }) => {
                let query = if force { "?force=true" } else { "" };
                each(hosts, async |host| client.delete(&path("/cluster/hosts/", host, query)).await).await
            }
            Self::Key(Key {}) => {
                print(&format!("{}\n", seal::show(random::bytes()?)));
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

async fn list(client: &Client, json: Json) -> Outcome {
    let cluster: types::Cluster = client.get("/cluster").await?;
    if json.json {
        return print_json(&cluster);
    }
    let rows: Vec<Vec<String>> = cluster
        .hosts
        .into_iter()
        .map(|host| {
            vec![short_id(&host.id).to_owned(), host.name, host.state, host.vtep, host.endpoints.to_string()]
        })
        .collect();
    print(&table::render(&["HOST ID", "NAME", "STATE", "VTEP", "ENDPOINTS"], &rows));
    Ok(ExitCode::SUCCESS)
}
