//! `vswitch stats`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use vswitch_control::api::types::{self, PortStats};
use vswitch_frame::DropReason;

use super::client::Client;
use super::outcome::Outcome;
use super::print::{Json, print, print_json};
use super::table;

const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Cursor home, clear to the end of the screen (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show the counters of each port
///
/// Received is what came from the sandbox, sent is what went to it. A super-frame counts as one frame.
///
/// Example: vswitch stats --watch
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Stats {
    /// Show what each second brings, until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    json: Json,
}

impl Stats {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let mut stats: types::Stats = client.get("/stats").await?;
        if !self.watch {
            return self.show(&stats, None);
        }
        let mut tick = tokio::time::interval(WATCH_EVERY);
        tick.tick().await;
        loop {
            tick.tick().await;
            let before = std::mem::replace(&mut stats, client.get("/stats").await?);
            self.show(&stats, Some(&before))?;
        }
    }

    fn show(&self, stats: &types::Stats, before: Option<&types::Stats>) -> Outcome {
        if self.json.json {
            return print_json(stats);
        }
        let clear = if before.is_some() && std::io::stdout().is_terminal() { CLEAR } else { "" };
        print(&format!("{clear}{}", render(stats, before)));
        Ok(ExitCode::SUCCESS)
    }
}

/// The counters, or what they gained since `before`.
fn render(stats: &types::Stats, before: Option<&types::Stats>) -> String {
    let headings = [
        "SANDBOX",
        "NETWORK",
        "INTERFACE",
        "PORT",
        "RECEIVED FRAMES",
        "RECEIVED BYTES",
        "SENT FRAMES",
        "SENT BYTES",
        "DROPS",
        "NO FAULT",
    ];
    let rows: Vec<Vec<String>> = stats
        .ports
        .iter()
        .map(|port| {
            let same = |other: &&PortStats| {
                (&other.sandbox, &other.network, other.port) == (&port.sandbox, &port.network, port.port)
            };
            row(port, before.and_then(|before| before.ports.iter().find(same)))
        })
        .collect();
    let unit = if before.is_some() { "per second" } else { "since attached" };
    let types::DatapathStats { pid, restarts } = stats.datapath;
    format!(
        "datapath {pid}, restarted {restarts} times; counters {unit}\n{}",
        table::render(&headings, &rows)
    )
}

fn row(port: &PortStats, before: Option<&PortStats>) -> Vec<String> {
    let gained = |counter: fn(&PortStats) -> u64| {
        let old = before.map_or(0, counter);
        counter(port).checked_sub(old).unwrap_or_else(|| counter(port)).to_string()
    };
    let gain = |(reason, count): (&String, &u64)| {
        let old = before.and_then(|before| before.drops.get(reason)).copied().unwrap_or(0);
        let gain = count.checked_sub(old).unwrap_or(*count);
        (gain > 0).then(|| format!("{reason} {gain}"))
    };
    let drops = |are_faults: bool| {
        let shown = port.drops.iter().filter(move |(reason, _)| is_fault(reason) == are_faults);
        shown.filter_map(gain).collect::<Vec<_>>().join(", ")
    };
    vec![
        port.sandbox.clone(),
        port.network.clone(),
        port.interface.clone(),
        if port.gone { format!("{} (gone)", port.port) } else { port.port.to_string() },
        gained(|port| port.received_frames),
        gained(|port| port.received_bytes),
        gained(|port| port.sent_frames),
        gained(|port| port.sent_bytes),
        drops(true),
        drops(false),
    ]
}

/// Whether the reason of this name is a fault; one that is not known here may be.
fn is_fault(label: &str) -> bool {
    DropReason::ALL.iter().find(|reason| reason.label() == label).is_none_or(|reason| reason.is_fault())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(frames: u64, drops: u64) -> types::Stats {
        let port = PortStats {
            sandbox: "web".to_owned(),
            network: "bridge".to_owned(),
            interface: "eth0".to_owned(),
            port: 3,
            received_frames: frames,
            received_bytes: frames * 100,
            sent_frames: 0,
            sent_bytes: 0,
            coalesced: 0,
            split: 0,
            not_learned: 0,
            flows_displaced: 0,
            gone: false,
            drops: [("runt".to_owned(), drops), ("snooped".to_owned(), 2 * drops)].into(),
        };
        types::Stats { datapath: types::DatapathStats { pid: 7, restarts: 1 }, ports: vec![port] }
    }

    #[test]
    fn totals_and_gains_are_shown() {
        let words =
            |text: String| text.lines().nth(2).expect("row").split_whitespace().map(str::to_owned).collect();
        let total: Vec<String> = words(render(&stats(10, 2), None));
        assert_eq!(
            total,
            ["web", "bridge", "eth0", "3", "10", "1000", "0", "0", "runt", "2", "snooped", "4"]
        );
        let gained: Vec<String> = words(render(&stats(10, 2), Some(&stats(4, 2))));
        assert_eq!(gained, ["web", "bridge", "eth0", "3", "6", "600", "0", "0", "-", "-"]);
        let anew: Vec<String> = words(render(&stats(3, 0), Some(&stats(10, 2))));
        assert_eq!(anew[4], "3");
    }
}
