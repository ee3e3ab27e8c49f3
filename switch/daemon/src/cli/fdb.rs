//! `vswitch fdb`.

use std::process::ExitCode;

use clap::Args;
use vswitch_control::api::types;

use super::client::{Client, path};
use super::outcome::Outcome;
use super::print::{Json, print, print_json};
use super::table;

/// Show forwarding tables: which MAC address is behind which port
///
/// Static addresses are those endpoints were given; the others were learned from frames, and are
/// forgotten 300 seconds after the last one.
///
/// Example: vswitch fdb bridge
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Fdb {
    /// Only of this network
    network: Option<String>,
    #[command(flatten)]
    json: Json,
}

impl Fdb {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let path =
            self.network.map_or_else(|| "/fdb".to_owned(), |network| path("/networks/", &network, "/fdb"));
        let entries: Vec<types::FdbEntry> = client.get(&path).await?;
        if self.json.json {
            return print_json(&entries);
        }
        print(&show(entries));
        Ok(ExitCode::SUCCESS)
    }
}

/// A forwarding table as people read it.
pub(super) fn show(entries: Vec<types::FdbEntry>) -> String {
    let rows: Vec<Vec<String>> = entries.into_iter().map(row).collect();
    table::render(&["NETWORK", "MAC ADDRESS", "SANDBOX", "INTERFACE", "PORT", "AGE"], &rows)
}

fn row(entry: types::FdbEntry) -> Vec<String> {
    let age = if entry.fixed { "static".to_owned() } else { format!("{} s", entry.age_ms / 1000) };
    let port = entry.port.to_string();
    vec![entry.network, entry.mac_address.to_string(), entry.sandbox, entry.interface, port, age]
}
