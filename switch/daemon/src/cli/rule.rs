//! `vswitch rule`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use vswitch_control::api::types;

use super::client::{Client, path};
use super::each::each;
use super::outcome::Outcome;
use super::print::{Json, print, print_json};
use super::table;

/// Rules: what may pass between containers
///
/// Rules are looked at in order, and the first that matches decides. What none matches passes. They judge the
/// first packet of a flow; an accepted flow and its replies go on until a new rule stops them. ARP,
/// neighbour discovery and what the host itself sends or gets are not their business.
///
/// Example: vswitch rule add --network lan --proto tcp --dport 5432 --from 10.1.0.80 --action accept
///          vswitch rule add --network lan --proto tcp --dport 5432 --action reject
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment)]
pub(super) enum Rule {
    Add(Add),
    /// List rules in order, with what they have decided about
    ///
    /// Example: vswitch rule ls
    #[command(verbatim_doc_comment)]
    Ls(Json),
    Rm(Remove),
}

/// Add a rule, and print its number
///
/// Example: vswitch rule add --from lan --to 10.9.0.0/16 --action drop
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Add {
    /// Only frames into or out of this network
    #[arg(long)]
    network: Option<String>,
    /// Only from this subnet, address, or network
    #[arg(long, value_name = "CIDR|NET")]
    from: Option<String>,
    /// Only to this subnet, address, or network
    #[arg(long, value_name = "CIDR|NET")]
    to: Option<String>,
    /// Only this protocol
    #[arg(long, value_enum)]
    proto: Option<Protocol>,
    /// Only from this port, or range of ports as in 8000-8080
    #[arg(long, value_name = "PORTS")]
    sport: Option<String>,
    /// Only to this port or range of ports
    #[arg(long, value_name = "PORTS")]
    dport: Option<String>,
    /// Only what begins a flow, or what belongs to one; what begins one if nothing is said
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Before the rule of this number; after all others if none is given
    #[arg(long, value_name = "ID")]
    before: Option<u32>,
    /// The fate of a packet that matches
    #[arg(long, value_enum)]
    action: Action,
}

/// Remove rules
///
/// Example: vswitch rule rm 3
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Remove {
    /// Their numbers
    #[arg(required = true)]
    ids: Vec<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Any,
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    New,
    Established,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    Accept,
    Drop,
    Reject,
}

/// The word that stands for a value.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Rule {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        match self {
            Self::Add(add) => {
                let rule: types::Rule = client.post("/rules", &add.body()).await?;
                print(&format!("{}\n", rule.id));
            }
            Self::Ls(json) => return list(client, json).await,
            Self::Rm(Remove { ids }) => {
                let remove = async |id: &u32| client.delete(&path("/rules/", &id.to_string(), "")).await;
                return each(ids, remove).await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Add {
    fn body(self) -> types::RuleCreate {
        types::RuleCreate {
            network: self.network,
            from: self.from,
            to: self.to,
            protocol: self.proto.map(word),
            source_port: self.sport,
            destination_port: self.dport,
            state: self.state.map(word),
            before: self.before,
            action: word(self.action),
        }
    }
}

async fn list(client: &Client, Json { json }: Json) -> Outcome {
    let rules: Vec<types::Rule> = client.get("/rules").await?;
    if json {
        return print_json(&rules);
    }
    let rows: Vec<Vec<String>> = rules.into_iter().map(row).collect();
    let headings =
        ["ID", "NETWORK", "FROM", "TO", "PROTO", "SPORT", "DPORT", "STATE", "ACTION", "FRAMES", "BYTES"];
    print(&table::render(&headings, &rows));
    Ok(ExitCode::SUCCESS)
}

fn row(rule: types::Rule) -> Vec<String> {
    let (id, frames, bytes) = (rule.id.to_string(), rule.frames.to_string(), rule.bytes.to_string());
    vec![
        id,
        rule.network,
        rule.from,
        rule.to,
        rule.protocol,
        rule.source_port,
        rule.destination_port,
        rule.state,
        rule.action,
        frames,
        bytes,
    ]
}
