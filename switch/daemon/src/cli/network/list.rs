//! `vswitch network ls`.

use std::process::ExitCode;

use clap::Args;
use vswitch_control::api::types;
use vswitch_control::names::short_id;

use super::super::client::Client;
use super::super::key_value::key_value;
use super::super::outcome::Outcome;
use super::super::print::{Json, print, print_json};
use super::super::table;
use super::filters::with_filters;

/// List networks
///
/// Filters: name and id (a part of it), driver, label (KEY or KEY=VALUE), scope, type (custom or builtin),
/// dangling (true or false).
///
/// Example: vswitch network ls -f type=custom -f label=owner
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct List {
    /// Show only what matches; may be repeated
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = key_value)]
    filters: Vec<(String, String)>,
    /// Show identifiers only
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// Show identifiers in full
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    json: Json,
}

impl List {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let route = with_filters("/networks", &self.filters)?;
        let networks: Vec<types::Network> = client.get(&route).await?;
        if self.json.json {
            return print_json(&networks);
        }
        let id = |id: &str| if self.no_trunc { id.to_owned() } else { short_id(id).to_owned() };
        if self.quiet {
            let lines: Vec<String> = networks.iter().map(|network| id(&network.id) + "\n").collect();
            print(&lines.concat());
            return Ok(ExitCode::SUCCESS);
        }
        let rows: Vec<Vec<String>> = networks.iter().map(|network| row(id(&network.id), network)).collect();
        print(&table::render(&["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNETS"], &rows));
        Ok(ExitCode::SUCCESS)
    }
}

fn row(id: String, network: &types::Network) -> Vec<String> {
    let subnets = network.ipam.config.iter().filter_map(|config| config.subnet);
    let subnets: Vec<String> = subnets.map(|subnet| subnet.to_string()).collect();
    vec![id, network.name.clone(), network.driver.clone(), network.scope.clone(), subnets.join(", ")]
}
