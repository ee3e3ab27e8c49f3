//! `vswitch version`.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use vswitch_control::api::types;

use super::client::Client;
use super::outcome::Outcome;
use super::print::{Json, print, print_json};

/// Show the version of this program and of the daemon
#[derive(Debug, Args)]
pub(super) struct Version {
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Both {
    client: String,
    server: Option<types::Version>,
}

impl Version {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let ours = env!("CARGO_PKG_VERSION");
        let server: Result<types::Version, _> = client.get("/version").await;
        if self.json.json {
            let (server, failure) =
                server.map_or_else(|failure| (None, Some(failure)), |server| (Some(server), None));
            print_json(&Both { client: ours.to_owned(), server })?;
            return failure.map_or(Ok(ExitCode::SUCCESS), Err);
        }
        print(&format!("Client: {ours}\n"));
        let types::Version { version, kernel_version, os, arch, warnings } = server?;
        print(&format!("Server: {version} on {os} {kernel_version} {arch}\n"));
        warnings.iter().for_each(|warning| print(&format!("Warning: {warning}\n")));
        Ok(ExitCode::SUCCESS)
    }
}
