//! `vswitch sandbox`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::client::{Client, path};
use super::endpoint::EndpointArgs;
use super::{Json, Outcome, print, print_json, table};
use crate::control::api::types;
use crate::control::names::short_id;

/// Manage sandboxes
///
/// A sandbox is a network namespace with its endpoints: a container without the rest. "sandbox create"
/// makes one where no container runtime does; "vswitch attach" takes one that is there.
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment)]
pub(super) enum Sandbox {
    Create(Box<Create>),
    /// List sandboxes
    #[command(visible_alias = "list")]
    Ls(Json),
    /// Show all there is to know of sandboxes, as JSON
    ///
    /// Example: vswitch sandbox inspect web
    Inspect(Names),
    /// Remove sandboxes and their network namespaces
    ///
    /// Example: vswitch sandbox rm web
    #[command(visible_alias = "remove")]
    Rm(Names),
}

/// Create a sandbox
///
/// "ip netns exec NAME" finds it, too.
///
/// Examples:
///   vswitch sandbox create web
///   vswitch sandbox create db --network lan --ip 10.1.0.5 --network backup
///   vswitch sandbox create alone --network none
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Create {
    /// Its name
    name: String,
    /// Network to connect it to, or none; bridge if not given; may be repeated. The endpoint flags are
    /// for the first one
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// Its host name; its name if not given
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
pub(super) struct Names {
    /// Their names, or beginnings of their identifiers
    #[arg(required = true)]
    names: Vec<String>,
    /// Nothing: the output of inspect is JSON anyway
    #[arg(long, hide = true)]
    json: bool,
}

impl Sandbox {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        match self {
            Self::Create(create) => return create.run(client).await,
            Self::Ls(json) => return list(client, json).await,
            Self::Inspect(names) => {
                let mut sandboxes: Vec<types::Sandbox> = Vec::new();
                for name in names.names {
                    sandboxes.push(client.get(&path("/sandboxes/", &name, "")).await?);
                }
                return print_json(&sandboxes);
            }
            Self::Rm(names) => {
                for name in names.names {
                    client.delete(&path("/sandboxes/", &name, "")).await?;
                    print(&format!("{name}\n"));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    async fn run(self, client: &Client) -> Outcome {
        let body = types::SandboxCreate {
            name: self.name,
            hostname: self.hostname,
            networks: wishes(self.networks, self.endpoint.config()),
        };
        let sandbox: types::Sandbox = client.post("/sandboxes/create", &body).await?;
        if self.json.json {
            return print_json(&sandbox);
        }
        print(&format!("{}\n", sandbox.name));
        Ok(ExitCode::SUCCESS)
    }
}

/// The networks asked for; `none` stands for no network.
fn wishes(networks: Vec<String>, config: types::EndpointConfig) -> Option<Vec<types::NetworkWish>> {
    if networks.iter().any(|network| network == "none") && networks.len() == 1 {
        return Some(Vec::new());
    }
    let networks = if networks.is_empty() { vec!["bridge".to_owned()] } else { networks };
    let configs = std::iter::once(config).chain(std::iter::repeat_with(types::EndpointConfig::default));
    let wishes = networks.into_iter().zip(configs);
    Some(wishes.map(|(network, endpoint_config)| types::NetworkWish { network, endpoint_config }).collect())
}

async fn list(client: &Client, Json { json }: Json) -> Outcome {
    let sandboxes: Vec<types::Sandbox> = client.get("/sandboxes").await?;
    if json {
        return print_json(&sandboxes);
    }
    let rows: Vec<Vec<String>> = sandboxes.into_iter().map(row).collect();
    print(&table::render(&["SANDBOX ID", "NAME", "ORIGIN", "NETWORKS", "NETWORK NAMESPACE"], &rows));
    Ok(ExitCode::SUCCESS)
}

fn row(sandbox: types::Sandbox) -> Vec<String> {
    let networks: Vec<String> = sandbox.endpoints.into_iter().map(|endpoint| endpoint.network).collect();
    vec![short_id(&sandbox.id).to_owned(), sandbox.name, sandbox.origin, networks.join(", "), sandbox.netns]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_flags_are_for_the_first_network() {
        let config = types::EndpointConfig { aliases: vec!["x".to_owned()], ..Default::default() };
        let names = |networks: &[&str]| networks.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let shown = |networks: &[&str]| {
            let wishes = wishes(names(networks), config.clone()).expect("some");
            wishes
                .into_iter()
                .map(|wish| (wish.network, wish.endpoint_config.aliases.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&[]), [("bridge".to_owned(), 1)]);
        assert_eq!(shown(&["a", "b"]), [("a".to_owned(), 1), ("b".to_owned(), 0)]);
        assert_eq!(shown(&["none"]), []);
    }
}
