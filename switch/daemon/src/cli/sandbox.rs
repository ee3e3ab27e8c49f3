//! `vswitch sandbox`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use vswitch_control::api::types;
use vswitch_control::names::short_id;
use vswitch_control::network::predefined::DEFAULT_NETWORK;

use super::client::{Client, path};
use super::each::each;
use super::endpoint::EndpointArgs;
use super::inspect::inspect;
use super::outcome::{Failure, Outcome};
use super::print::{Json, print, print_json};
use super::publish::PublishArgs;
use super::{network_flag, table};

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
///   vswitch sandbox create two --network name=lan,gw-priority=1 --network backup
///   vswitch sandbox create shop -p 8080:80 -p 8443:443
///   vswitch sandbox create alone --network none
///   vswitch sandbox create helper --network container:web
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Create {
    /// Its name
    name: String,
    /// Network to connect it to, bridge if not given; may be repeated. Options of the endpoint follow as in
    /// name=lan,ip=10.1.0.5,alias=db,gw-priority=1; the endpoint flags are for the first one. Or alone: none
    /// for loopback only, host for the host's own network, container:OTHER for that of another sandbox
    #[arg(long = "network", value_name = "NETWORK", value_parser = network_flag::parse)]
    networks: Vec<types::NetworkWish>,
    /// Its host name; its name if not given, and that of the host or of the sandbox whose network it uses
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    ports: PublishArgs,
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
            Self::Create(create) => create.run(client).await,
            Self::Ls(json) => list(client, json).await,
            Self::Inspect(Names { names, .. }) => inspect(client, "/sandboxes/", &names).await,
            Self::Rm(Names { names, .. }) => {
                each(names, async |name| client.delete(&path("/sandboxes/", name, "")).await).await
            }
        }
    }
}

impl Create {
    async fn run(self, client: &Client) -> Outcome {
        let body = types::SandboxCreate {
            name: self.name,
            hostname: self.hostname,
            networks: Some(wishes(self.networks, self.endpoint.config())?),
            publish: self.ports.publish,
            expose: self.ports.expose,
            publish_all: self.ports.publish_all,
        };
        let sandbox: types::Sandbox = client.post("/sandboxes/create", &body).await?;
        sandbox.warnings.iter().for_each(|warning| eprintln!("WARNING: {warning}"));
        if self.json.json {
            return print_json(&sandbox);
        }
        print(&format!("{}\n", sandbox.name));
        Ok(ExitCode::SUCCESS)
    }
}

/// The networks asked for, the first one with the endpoint flags.
fn wishes(
    mut networks: Vec<types::NetworkWish>,
    flags: types::EndpointConfig,
) -> Result<Vec<types::NetworkWish>, Failure> {
    let none = types::EndpointConfig::default();
    let Some(first) = networks.first_mut() else {
        return Ok(vec![types::NetworkWish { network: DEFAULT_NETWORK.to_owned(), endpoint_config: flags }]);
    };
    if first.endpoint_config == none {
        first.endpoint_config = flags;
    } else if flags != none {
        return Err(Failure(format!(
            "conflicting options: endpoint flags are for the first network, {}, whose --network has options: \
             write all of them there",
            first.network
        )));
    }
    Ok(networks)
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
    let networks = if networks.is_empty() { sandbox.network_mode } else { networks.join(", ") };
    vec![short_id(&sandbox.id).to_owned(), sandbox.name, sandbox.origin, networks, sandbox.netns]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_flags_are_for_the_first_network() {
        let config = types::EndpointConfig { aliases: vec!["x".to_owned()], ..Default::default() };
        let shown = |networks: &[&str]| {
            let networks = networks.iter().map(|text| network_flag::parse(text).expect("a network"));
            let wishes = wishes(networks.collect(), config.clone()).ok()?;
            let aliases = |wish: types::NetworkWish| (wish.network, wish.endpoint_config.aliases.concat());
            Some(wishes.into_iter().map(aliases).collect::<Vec<_>>())
        };
        let pairs = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(shown(&[]), pairs(&[("bridge", "x")]));
        assert_eq!(shown(&["a", "b"]), pairs(&[("a", "x"), ("b", "")]));
        assert_eq!(shown(&["a", "name=b,alias=y"]), pairs(&[("a", "x"), ("b", "y")]));
        assert_eq!(shown(&["name=b,alias=y"]), None);
    }
}
