//! `vswitch flows`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use hyper::Method;
use vswitch_control::api::types;

use super::client::{Client, query};
use super::outcome::Outcome;
use super::print::{Json, print, print_json};

/// Show flows that are translated: to the world, and to published ports
///
/// One line a flow, as "conntrack -L" has it: protocol, its number, seconds left, state; the packets of who
/// began it; the packets that come in answer, as they look before they are translated back; the sandbox that
/// it is charged to, and its network.
///
/// Examples:
///   vswitch flows --proto tcp --state ESTABLISHED --sandbox web
///   vswitch flows delete --sandbox web --dport 443
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Flows {
    /// End them, too. Nobody is told: who goes on with a connection that was ended is reset
    #[arg(value_enum, conflicts_with = "count")]
    action: Option<Action>,
    #[command(flatten)]
    filter: Filter,
    /// Show only how many there are
    #[arg(long, short = 'C')]
    count: bool,
    #[command(flatten)]
    json: Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    Delete,
}

/// The flows that are meant.
#[derive(Debug, Args)]
struct Filter {
    /// Only of this protocol: tcp, udp, icmp, icmpv6 or sctp
    #[arg(long, short)]
    proto: Option<String>,
    /// Only begun from this address or subnet
    #[arg(long, short)]
    src: Option<String>,
    /// Only begun to this address or subnet
    #[arg(long, short)]
    dst: Option<String>,
    /// Only begun from this port
    #[arg(long)]
    sport: Option<u16>,
    /// Only begun to this port
    #[arg(long)]
    dport: Option<u16>,
    /// Only in this state: one of TCP, as ESTABLISHED, or UNREPLIED or ASSURED
    #[arg(long)]
    state: Option<String>,
    /// Only of this sandbox
    #[arg(long)]
    sandbox: Option<String>,
    /// Only of this network
    #[arg(long)]
    network: Option<String>,
}

impl Filter {
    fn path(self) -> String {
        let port = |port: Option<u16>| port.map(|port| port.to_string());
        let words = [
            ("proto", self.proto),
            ("src", self.src),
            ("dst", self.dst),
            ("sport", port(self.sport)),
            ("dport", port(self.dport)),
            ("state", self.state),
            ("sandbox", self.sandbox),
            ("network", self.network),
        ];
        query("/flows", words)
    }
}

impl Flows {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        if self.count {
            let count: types::FlowCount = client.get("/flows/count").await?;
            if self.json.json {
                return print_json(&count);
            }
            print(&format!("{}\n", count.count));
            if count.refused > 0 {
                let types::FlowCount { refused, ports_claimed, ports_free, .. } = count;
                eprintln!(
                    "vswitch: {refused} flows did not begin for want of a port; {ports_free} of {ports_claimed} are \
                     free now: allow the daemon more descriptors (ulimit -n)"
                );
            }
            return Ok(ExitCode::SUCCESS);
        }
        let method = if self.action.is_some() { Method::DELETE } else { Method::GET };
        let path = self.filter.path();
        if self.json.json {
            let mut flows: Vec<types::Flow> = Vec::new();
            client.each(method, &path, |flow| flows.push(flow)).await?;
            return print_json(&flows);
        }
        client.each(method, &path, |flow: types::Flow| print(&line(&flow))).await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A flow as `conntrack -L` shows it.
fn line(flow: &types::Flow) -> String {
    let state = if flow.state.is_empty() { String::new() } else { format!("{} ", flow.state) };
    let unreplied = if flow.unreplied { "[UNREPLIED] " } else { "" };
    let assured = if flow.assured { "[ASSURED] " } else { "" };
    format!(
        "{:<8} {} {} {state}{} {unreplied}{} {assured}sandbox={} network={}\n",
        flow.protocol,
        flow.protocol_number,
        flow.timeout,
        side(&flow.original),
        side(&flow.reply),
        flow.sandbox,
        flow.network,
    )
}

fn side(side: &types::FlowSide) -> String {
    let named = match (side.icmp_type, side.icmp_id) {
        (Some(kind), Some(id)) => format!("type={kind} code=0 id={id}"),
        _ => format!("sport={} dport={}", side.source_port, side.destination_port),
    };
    let types::FlowSide { source, destination, frames, bytes, .. } = side;
    format!("src={source} dst={destination} {named} packets={frames} bytes={bytes}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_looks_as_conntrack_shows_it() {
        let ends = |source: [u8; 4], destination: [u8; 4], ports: (u16, u16)| types::FlowSide {
            source: source.into(),
            destination: destination.into(),
            source_port: ports.0,
            destination_port: ports.1,
            icmp_type: None,
            icmp_id: None,
            frames: 2,
            bytes: 120,
        };
        let mut flow = types::Flow {
            protocol: "tcp".to_owned(),
            protocol_number: 6,
            state: "ESTABLISHED".to_owned(),
            timeout: 7439,
            original: ends([10, 1, 0, 2], [192, 0, 2, 80], (5000, 443)),
            reply: ends([192, 0, 2, 80], [203, 0, 113, 2], (443, 61_000)),
            unreplied: false,
            assured: true,
            sandbox: "web".to_owned(),
            network: "lan".to_owned(),
        };
        assert_eq!(
            line(&flow),
            "tcp      6 7439 ESTABLISHED src=10.1.0.2 dst=192.0.2.80 sport=5000 dport=443 packets=2 bytes=120 \
             src=192.0.2.80 dst=203.0.113.2 sport=443 dport=61000 packets=2 bytes=120 [ASSURED] sandbox=web \
             network=lan\n"
        );
        let named = |kind| types::FlowSide {
            icmp_type: Some(kind),
            icmp_id: Some(7),
            ..ends([10, 1, 0, 2], [192, 0, 2, 80], (0, 0))
        };
        (flow.protocol, flow.protocol_number, flow.state) = ("icmp".to_owned(), 1, String::new());
        (flow.original, flow.reply, flow.unreplied, flow.assured) = (named(8), named(0), true, false);
        assert_eq!(
            line(&flow),
            "icmp     1 7439 src=10.1.0.2 dst=192.0.2.80 type=8 code=0 id=7 packets=2 bytes=120 [UNREPLIED] \
             src=10.1.0.2 dst=192.0.2.80 type=0 code=0 id=7 packets=2 bytes=120 sandbox=web network=lan\n"
        );
    }
}
