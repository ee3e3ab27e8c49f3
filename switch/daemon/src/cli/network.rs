//! `vswitch network`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::client::{Client, path};
use super::endpoint::EndpointArgs;
use super::{Failure, Json, Outcome, key_value, print, print_json, table};
use crate::control::api::types;
use crate::control::names::short_id;

/// Manage networks
///
/// Sandboxes on one network reach each other; nothing passes between networks. The network "bridge" is
/// always there.
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment)]
pub(super) enum Network {
    Create(Box<Create>),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(Json),
    /// Show all there is to know of networks, as JSON
    ///
    /// Example: vswitch network inspect bridge
    Inspect(Names),
    /// Remove networks that have no endpoints
    ///
    /// Example: vswitch network rm lan
    #[command(visible_alias = "remove")]
    Rm(Names),
    /// Connect a sandbox to a network
    ///
    /// Example: vswitch network connect lan web --ip 10.1.0.80
    Connect(Box<Connect>),
    /// Disconnect a sandbox from a network
    ///
    /// Example: vswitch network disconnect lan web
    Disconnect(Disconnect),
}

/// Create a network
///
/// Examples:
///   vswitch network create lan
///   vswitch network create lan --subnet 10.1.0.0/16 --gateway 10.1.0.1 --subnet fd00:1::/64
///   vswitch network create quiet -o com.docker.network.bridge.enable_icc=false
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Create {
    /// Its name
    name: String,
    /// Driver
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Subnet, IPv4 or IPv6; a free private one if none is given; may be repeated
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<IpNet>,
    /// Gateway of a subnet; its first address if none is given; may be repeated
    #[arg(long = "gateway", value_name = "ADDRESS")]
    gateways: Vec<IpAddr>,
    /// Give IPv6 addresses, too, of a free private subnet unless one is given
    #[arg(long)]
    ipv6: bool,
    /// Without a default route
    #[arg(long)]
    internal: bool,
    /// Driver option: com.docker.network.bridge.enable_icc, com.docker.network.driver.mtu or
    /// com.docker.network.container_iface_prefix; may be repeated
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = key_value)]
    options: Vec<(String, String)>,
    /// Label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    labels: Vec<(String, String)>,
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
}

impl Network {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        match self {
            Self::Create(create) => {
                let created: types::NetworkCreated = client.post("/networks/create", &create.body()?).await?;
                print(&format!("{}\n", created.id));
            }
            Self::Ls(json) => return list(client, json).await,
            Self::Inspect(names) => {
                let mut networks: Vec<types::Network> = Vec::new();
                for name in names.names {
                    networks.push(client.get(&path("/networks/", &name, "")).await?);
                }
                return print_json(&networks);
            }
            Self::Rm(names) => {
                for name in names.names {
                    client.delete(&path("/networks/", &name, "")).await?;
                    print(&format!("{name}\n"));
                }
            }
            Self::Connect(connect) => {
                let body =
                    types::Connect { container: connect.sandbox, endpoint_config: connect.endpoint.config() };
                client.command(&path("/networks/", &connect.network, "/connect"), &body).await?;
            }
            Self::Disconnect(Disconnect { network, sandbox }) => {
                let body = types::Disconnect { container: sandbox };
                client.command(&path("/networks/", &network, "/disconnect"), &body).await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Create {
    fn body(self) -> Result<types::NetworkCreate, Failure> {
        Ok(types::NetworkCreate {
            name: self.name,
            driver: self.driver,
            enable_ipv4: None,
            enable_ipv6: self.ipv6.then_some(true),
            internal: self.internal,
            ipam: types::Ipam { driver: String::new(), config: pair(&self.subnets, &self.gateways)? },
            options: self.options.into_iter().collect(),
            labels: self.labels.into_iter().collect(),
        })
    }
}

/// Gives each subnet its gateway.
fn pair(subnets: &[IpNet], gateways: &[IpAddr]) -> Result<Vec<types::IpamConfig>, Failure> {
    let mut config: Vec<types::IpamConfig> = subnets
        .iter()
        .map(|subnet| types::IpamConfig { subnet: Some(*subnet), ..types::IpamConfig::default() })
        .collect();
    for gateway in gateways {
        let home =
            config.iter_mut().find(|entry| entry.subnet.is_some_and(|subnet| subnet.contains(gateway)));
        let home = home.ok_or_else(|| {
            Failure(format!("no matching subnet for gateway {gateway}: give --subnet, too"))
        })?;
        home.gateway = Some(*gateway);
    }
    Ok(config)
}

async fn list(client: &Client, Json { json }: Json) -> Outcome {
    let networks: Vec<types::Network> = client.get("/networks").await?;
    if json {
        return print_json(&networks);
    }
    let rows: Vec<Vec<String>> = networks.into_iter().map(row).collect();
    print(&table::render(&["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNETS"], &rows));
    Ok(ExitCode::SUCCESS)
}

fn row(network: types::Network) -> Vec<String> {
    let subnets = network.ipam.config.iter().filter_map(|config| config.subnet);
    let subnets: Vec<String> = subnets.map(|subnet| subnet.to_string()).collect();
    vec![short_id(&network.id).to_owned(), network.name, network.driver, network.scope, subnets.join(", ")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_find_their_subnets() {
        let subnets = ["10.1.0.0/16", "fd00:1::/64"].map(|text| text.parse().expect("net"));
        let gateways = ["fd00:1::9", "10.1.0.9"].map(|text| text.parse().expect("address"));
        let config = pair(&subnets, &gateways).expect("paired");
        assert_eq!(
            config.iter().map(|entry| entry.gateway).collect::<Vec<_>>(),
            [Some(gateways[1]), Some(gateways[0])]
        );
        let failure = pair(&subnets, &["10.2.0.1".parse().expect("address")]).expect_err("homeless");
        assert_eq!(failure.0, "no matching subnet for gateway 10.2.0.1: give --subnet, too");
    }
}
