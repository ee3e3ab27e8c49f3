//! `vswitch network`.

mod create;
mod filters;
mod list;
mod prune;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use vswitch_control::api::types;

use super::client::{Client, path};
use super::each::each;
use super::endpoint::EndpointArgs;
use super::inspect::inspect;
use super::outcome::Outcome;

/// Manage networks
///
/// Sandboxes on one network reach each other; nothing passes between networks. The network "bridge" is
/// always there, and so are "host" and "none", which are no networks but ways to run a sandbox.
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment)]
pub(super) enum Network {
    Create(Box<create::Create>),
    #[command(visible_alias = "list")]
    Ls(list::List),
    /// Show all there is to know of networks, as JSON
    ///
    /// Example: vswitch network inspect bridge
    Inspect(Inspect),
    /// Remove networks that have no endpoints
    ///
    /// Example: vswitch network rm lan
    #[command(visible_alias = "remove")]
    Rm(Remove),
    Prune(prune::Prune),
    /// Connect a sandbox to a network
    ///
    /// Example: vswitch network connect lan web --ip 10.1.0.80
    Connect(Box<Connect>),
    /// Disconnect a sandbox from a network
    ///
    /// Example: vswitch network disconnect lan web
    Disconnect(Disconnect),
}

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Their names, or beginnings of their identifiers
    #[arg(required = true)]
    names: Vec<String>,
    /// Nothing: the output of inspect is JSON anyway
    #[arg(long, hide = true)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Their names, or beginnings of their identifiers
    #[arg(required = true)]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Connect {
    /// The network
    network: String,
    /// The sandbox
    sandbox: String,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

#[derive(Debug, Args)]
pub(super) struct Disconnect {
    /// The network
    network: String,
    /// The sandbox
    sandbox: String,
    /// As Docker has it: also when the sandbox's namespace is gone, which never hinders here
    #[arg(short, long)]
    force: bool,
}

impl Network {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::Ls(list) => list.run(client).await,
            Self::Inspect(Inspect { names, .. }) => inspect(client, "/networks/", &names).await,
            Self::Rm(Remove { names }) => {
                each(names, async |name| client.delete(&path("/networks/", name, "")).await).await
            }
            Self::Prune(prune) => prune.run(client).await,
            Self::Connect(connect) => {
                let body =
                    types::Connect { container: connect.sandbox, endpoint_config: connect.endpoint.config() };
                client.command(&path("/networks/", &connect.network, "/connect"), &body).await?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Disconnect(Disconnect { network, sandbox, force }) => {
                let body = types::Disconnect { container: sandbox, force };
                client.command(&path("/networks/", &network, "/disconnect"), &body).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
