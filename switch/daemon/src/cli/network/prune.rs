//! `vswitch network prune`.

use std::process::ExitCode;

use clap::Args;
use vswitch_control::api::types::NetworksPruned;

use super::super::client::Client;
use super::super::key_value::key_value;
use super::super::outcome::Outcome;
use super::super::print::print;
use super::filters::with_filters;

/// Remove all networks that have no endpoints
///
/// Filters: label (KEY or KEY=VALUE), label! (the opposite), until (made before a moment as in
/// 2026-11-20T08:00:00Z, or longer ago than a duration as in 24h).
///
/// Example: vswitch network prune -f --filter until=24h
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(in super::super) struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Remove only what matches; may be repeated
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = key_value)]
    filters: Vec<(String, String)>,
}

impl Prune {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        // Docker's `label!=x` reads as the key `label!`, as it should.
        let route = with_filters("/networks/prune", &self.filters)?;
        if !self.force && !is_sure()? {
            return Ok(ExitCode::SUCCESS);
        }
        let pruned: NetworksPruned = client.post(&route, &()).await?;
        if !pruned.networks_deleted.is_empty() {
            print(&format!("Deleted Networks:\n{}\n", pruned.networks_deleted.join("\n")));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn is_sure() -> std::io::Result<bool> {
    print("This removes all networks without endpoints.\nAre you sure you want to continue? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
