//! `vswitch rule`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use vswitch_control::api::types;

use super::client::{Client, path};
use super::each::each;
use super::outcome::{Failure, Outcome};
use super::print::{Json, print, print_json};
use super::table;

/// Rules: what may pass to, from and between containers
///
/// Your firewall's INPUT and FORWARD do not see this traffic, nor does DOCKER-USER: "vswitch rule" does.
///
/// Rules are looked at in order, and the first that matches decides. What none matches passes. They judge the
/// first packet of a flow; an accepted flow and its replies go on until a new rule stops them. ARP,
/// neighbour discovery and what the host itself sends or gets are not their business.
///
/// Examples, for what chains of iptables are mostly for:
///
///   A published port, from one subnet only:
///     vswitch rule add --published-port 8080 --proto tcp --from '!192.0.2.0/24' --action drop
///   Nothing from outside by an interface:
///     vswitch rule add --in-interface eth0 --action drop
///   No more than ten new connections in a second, twenty at once, to a port:
///     vswitch rule add --to web --proto tcp --dport 80 --limit 10/second --limit-burst 20 --action accept
///     vswitch rule add --to web --proto tcp --dport 80 --action drop
///   A way from one network into another:
///     vswitch rule add --from frontend --to backend --proto tcp --dport 5432 --action accept
///   A DOCKER-USER chain there was:
///     iptables-save | vswitch rule import -
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment)]
pub(super) enum Rule {
    Add(Box<Add>),
    Import(Import),
    /// List rules in order, with what they have decided about
    ///
    /// Example: vswitch rule ls
    #[command(verbatim_doc_comment)]
    Ls(Json),
    Rm(Remove),
}

/// Add a rule, and print its number
///
/// What is not said is not looked at. A value with a ! in front of it stands for all others: --from '!lan'.
///
/// An accept that names both ends, each by --from or --to with a network or a sandbox, or by the interface of
/// a network, opens a way between the two networks, unless one of them is internal. No other rule does.
///
/// Example: vswitch rule add --from lan --to 10.9.0.0/16 --action drop
///          vswitch rule add --network lan --proto tcp --dport 22,80,8000-8080 --action reject
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Add {
    /// Only frames into or out of this network
    #[arg(long)]
    network: Option<String>,
    /// Only from this interface of the host: an uplink, or a network's; eth+ is all that begin so
    #[arg(short, long, value_name = "IFACE")]
    in_interface: Option<String>,
    /// Only to this interface of the host
    #[arg(short, long, value_name = "IFACE")]
    out_interface: Option<String>,
    /// Only from this subnet, address, network, or sandbox
    #[arg(long, value_name = "CIDR|NET|SANDBOX")]
    from: Option<String>,
    /// Only to this subnet, address, network, or sandbox
    #[arg(long, value_name = "CIDR|NET|SANDBOX")]
    to: Option<String>,
    /// Only this protocol: tcp, udp, sctp, icmp or icmpv6
    #[arg(long, value_parser = protocol)]
    proto: Option<String>,
    /// Only from these ports, as in 22,80,8000-8080
    #[arg(long, value_name = "PORTS")]
    sport: Option<String>,
    /// Only to these ports; of a published one, the container's own
    #[arg(long, value_name = "PORTS")]
    dport: Option<String>,
    /// Only through these published ports of the host
    #[arg(long, value_name = "PORTS")]
    published_port: Option<String>,
    /// Only what begins a flow, or what belongs to one; what begins one if nothing is said
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only so many flows in a time, as in 10/second, 10/minute, 10/hour or 10/day
    #[arg(long, value_name = "FLOWS/TIME")]
    limit: Option<String>,
    /// As many flows at once, before the limit holds; 5 if nothing is said
    #[arg(long, value_name = "FLOWS")]
    limit_burst: Option<u32>,
    /// A word on it, which "vswitch rule ls" shows
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Before the rule of this number; after all others if none is given
    #[arg(long, value_name = "ID")]
    before: Option<u32>,
    /// The fate of a packet that matches
    #[arg(long, value_enum)]
    action: Action,
}

/// Import the DOCKER-USER chain that iptables-save or ip6tables-save printed, and print the rules' numbers
///
/// All of it, or nothing: each line that no rule can express is named. A line without --ctstate judges what
/// begins a flow, as every rule does: replies pass.
///
/// Example: iptables-save | vswitch rule import --dry-run -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Import {
    /// The file to read; - is standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Only show the rules
    #[arg(long)]
    dry_run: bool,
    /// Before the rule of this number; after all others if none is given
    #[arg(long, value_name = "ID")]
    before: Option<u32>,
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

/// A protocol, or all but one.
fn protocol(text: &str) -> Result<String, String> {
    const KNOWN: [&str; 6] = ["any", "tcp", "udp", "sctp", "icmp", "icmpv6"];
    let known = KNOWN.contains(&text.strip_prefix('!').unwrap_or(text));
    if known { Ok(text.to_owned()) } else { Err(format!("use one of {}", KNOWN.join(", "))) }
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
            Self::Import(wish) => return import(client, wish).await,
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
            in_interface: self.in_interface,
            out_interface: self.out_interface,
            protocol: self.proto,
            source_port: self.sport,
            destination_port: self.dport,
            published_port: self.published_port,
            state: self.state.map(word),
            limit: self.limit,
            limit_burst: self.limit_burst,
            comment: self.comment,
            before: self.before,
            action: word(self.action),
        }
    }
}

async fn import(client: &Client, Import { file, dry_run, before }: Import) -> Outcome {
    let read = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(&file)
    };
    let text = read.map_err(|error| Failure(format!("cannot read {}: {error}", file.display())))?;
    let rules: Vec<types::Rule> =
        client.post("/rules/import", &types::RuleImport { text, before, dry_run }).await?;
    if dry_run {
        print(&render(rules));
    } else {
        let numbers: String = rules.iter().map(|rule| format!("{}\n", rule.id)).collect();
        print(&numbers);
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, Json { json }: Json) -> Outcome {
    let rules: Vec<types::Rule> = client.get("/rules").await?;
    if json {
        return print_json(&rules);
    }
    print(&render(rules));
    Ok(ExitCode::SUCCESS)
}

/// A table of rules.
fn render(rules: Vec<types::Rule>) -> String {
    const HEADINGS: [&str; 17] = [
        "ID",
        "NETWORK",
        "IN",
        "OUT",
        "FROM",
        "TO",
        "PROTO",
        "SPORT",
        "DPORT",
        "PUBLISHED",
        "STATE",
        "LIMIT",
        "ACTION",
        "OPENS",
        "FRAMES",
        "BYTES",
        "COMMENT",
    ];
    let rows: Vec<Vec<String>> = rules.into_iter().map(row).collect();
    table::render(&HEADINGS, &rows)
}

fn row(rule: types::Rule) -> Vec<String> {
    let number = |number: u64| number.to_string();
    let limit = if rule.limit.is_empty() {
        String::new()
    } else {
        format!("{} burst {}", rule.limit, rule.limit_burst)
    };
    vec![
        if rule.id == 0 { String::new() } else { rule.id.to_string() },
        rule.network,
        rule.in_interface,
        rule.out_interface,
        rule.from,
        rule.to,
        rule.protocol,
        rule.source_port,
        rule.destination_port,
        rule.published_port,
        rule.state,
        limit,
        rule.action,
        if rule.opens { "yes" } else { "no" }.to_owned(),
        number(rule.frames),
        number(rule.bytes),
        rule.comment,
    ]
}
