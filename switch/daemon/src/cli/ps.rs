//! `vswitch ps`.

use std::process::ExitCode;

use clap::Args;

use super::client::Client;
use super::{Json, Outcome, print, print_json, table};
use crate::control::api::types;

/// List endpoints: who is on which network, with which addresses
///
/// Example: vswitch ps --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Ps {
    #[command(flatten)]
    json: Json,
}

impl Ps {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let endpoints: Vec<types::Endpoint> = client.get("/endpoints").await?;
        if self.json.json {
            return print_json(&endpoints);
        }
        let headings = ["SANDBOX", "NETWORK", "INTERFACE", "MAC ADDRESS", "IPV4", "IPV6", "TYPE", "PORT"];
        let rows: Vec<Vec<String>> = endpoints.into_iter().map(row).collect();
        print(&table::render(&headings, &rows));
        Ok(ExitCode::SUCCESS)
    }
}

fn row(endpoint: types::Endpoint) -> Vec<String> {
    let with_prefix =
        |address: String, prefix| if address.is_empty() { address } else { format!("{address}/{prefix}") };
    vec![
        endpoint.sandbox,
        endpoint.network,
        endpoint.interface,
        endpoint.mac_address.to_string(),
        with_prefix(endpoint.ip_address, endpoint.ip_prefix_len),
        with_prefix(endpoint.ipv6_address, endpoint.ipv6_prefix_len),
        endpoint.port_type,
        endpoint.port.to_string(),
    ]
}
