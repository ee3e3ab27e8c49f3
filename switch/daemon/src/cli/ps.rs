//! `vswitch ps`.

use std::process::ExitCode;

use clap::Args;
use vswitch_control::api::types;

use super::client::Client;
use super::outcome::Outcome;
use super::print::{Json, print, print_json};
use super::{publish, table};

/// List endpoints: who is on which network, with which addresses
///
/// PORTS are those of the host that lead to it. A sandbox without endpoints has a line with its network mode.
/// With --json there are endpoints only.
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
        if self.json.json {
            return print_json(&client.get::<Vec<types::Endpoint>>("/endpoints").await?);
        }
        let sandboxes: Vec<types::Sandbox> = client.get("/sandboxes").await?;
        let headings = [
            "SANDBOX",
            "NETWORK",
            "INTERFACE",
            "MAC ADDRESS",
            "IPV4",
            "IPV6",
            "TYPE",
            "PORT",
            "STATUS",
            "PORTS",
        ];
        let rows: Vec<Vec<String>> = sandboxes.into_iter().flat_map(rows).collect();
        print(&table::render(&headings, &rows));
        Ok(ExitCode::SUCCESS)
    }
}

fn rows(sandbox: types::Sandbox) -> Vec<Vec<String>> {
    if sandbox.endpoints.is_empty() {
        let rest = std::iter::repeat_n(String::new(), 6);
        let ends = [status(sandbox.status, &sandbox.gone_since), publish::summary(&sandbox.ports)];
        return vec![[sandbox.name, sandbox.network_mode].into_iter().chain(rest).chain(ends).collect()];
    }
    sandbox.endpoints.into_iter().map(row).collect()
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
        status(endpoint.status, &endpoint.gone_since),
        publish::summary(&endpoint.ports),
    ]
}

/// `up`, or since when it is gone, to the second.
fn status(status: types::Status, gone_since: &str) -> String {
    match status {
        types::Status::Up => "up".to_owned(),
        types::Status::Gone => {
            format!("gone since {}Z", gone_since.split('.').next().unwrap_or_default())
        }
    }
}
