//! `vswitch publish`, `vswitch unpublish` and `vswitch port`, and the flags of a new sandbox that publish.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use vswitch_control::api::types::{self, PortBinding, Ports};
use vswitch_control::publish::spec::shown;

use super::client::{Client, path};
use super::outcome::{Failure, Outcome};
use super::print::{Json, print, print_json};

const GRAMMAR: &str = "[ADDRESS:][HOSTPORT[-LAST]:]PORT[-LAST][/tcp|udp|sctp]";

#[derive(Debug, Args)]
#[command(next_help_heading = "Published ports")]
pub(super) struct PublishArgs {
    /// Publish ports, as in 8080:80, 127.0.0.1:53:53/udp or 80 alone for a free port; may be repeated
    #[arg(short = 'p', long = "publish", value_name = GRAMMAR)]
    pub(super) publish: Vec<String>,
    /// Note that it serves ports, as in 80/tcp; may be repeated
    #[arg(long, value_name = "PORT[-LAST][/PROTOCOL]")]
    pub(super) expose: Vec<String>,
    /// Publish what --expose names to free ports
    #[arg(short = 'P', long)]
    pub(super) publish_all: bool,
}

/// Publish ports of a running sandbox
///
/// Without a port of the host the kernel chooses a free one; a range on the host for one port is a pool to
/// choose from. Without an address it is every address of the host, IPv4 and IPv6. Prints all that the
/// sandbox publishes then.
///
/// Examples:
///   vswitch publish web 8080:80
///   vswitch publish web 127.0.0.1:5353:53/udp 8000-8010:8000-8010
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Publish {
    #[command(flatten)]
    specs: Specs,
    #[command(flatten)]
    json: Json,
}

/// End the publication of ports
///
/// What is not said may be anything: "unpublish web 80" ends all that lead to port 80. Their connections are
/// reset; with --drain they go on, and the port is held until the last has ended.
///
/// Examples:
///   vswitch unpublish web 8080:80
///   vswitch unpublish --drain web 8080:80
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Unpublish {
    /// Let connections end by themselves
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    specs: Specs,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
struct Specs {
    /// Its name, or the beginning of its identifier
    sandbox: String,
    /// The ports
    #[arg(required = true, value_name = GRAMMAR)]
    specs: Vec<String>,
}

/// List published ports of a sandbox
///
/// Examples:
///   vswitch port web
///   vswitch port web 80/tcp
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Port {
    /// Its name, or the beginning of its identifier
    sandbox: String,
    /// Only what leads to this port of it
    #[arg(value_name = "PORT[/PROTOCOL]")]
    private: Option<String>,
    #[command(flatten)]
    json: Json,
}

impl Publish {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let ports = self.specs.send(client, "/publish", false).await?;
        if self.json.json {
            return print_json(&ports);
        }
        print(&format!("{}\n", summary(&ports)));
        Ok(ExitCode::SUCCESS)
    }
}

impl Unpublish {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let ports = self.specs.send(client, "/unpublish", self.drain).await?;
        if self.json.json {
            return print_json(&ports);
        }
        print(&format!("{}\n", self.specs.sandbox));
        Ok(ExitCode::SUCCESS)
    }
}

impl Specs {
    /// Has them published or not; the ports that are published then.
    async fn send(&self, client: &Client, route: &str, drain: bool) -> Result<Ports, Failure> {
        let body = types::Specs { specs: self.specs.clone(), drain };
        client.post(&path("/sandboxes/", &self.sandbox, route), &body).await
    }
}

impl Port {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let ports: Ports = client.get(&path("/sandboxes/", &self.sandbox, "/ports")).await?;
        let Some(private) = self.private else {
            if self.json.json {
                return print_json(&ports);
            }
            print(&lines(&ports));
            return Ok(ExitCode::SUCCESS);
        };
        let private = if private.contains('/') { private.to_lowercase() } else { private + "/tcp" };
        let Some(Some(bindings)) = ports.get(&private) else {
            return Err(Failure(format!(
                "no public port '{private}' published for {}: see \"vswitch port {}\"",
                self.sandbox, self.sandbox
            )));
        };
        if self.json.json {
            return print_json(bindings);
        }
        bindings.iter().for_each(|binding| print(&format!("{}\n", at(binding))));
        Ok(ExitCode::SUCCESS)
    }
}

/// The ports, one line for each, as Docker writes them, in the order of ports.
fn lines(ports: &Ports) -> String {
    let mut lines = String::new();
    for (_, _, key, bindings) in sorted(ports) {
        for binding in bindings.iter().flatten() {
            lines.push_str(&format!("{key} -> {}\n", at(binding)));
        }
    }
    lines
}

/// The ports in a few words, as `docker ps` has it: ranges where there are any.
pub(super) fn summary(ports: &Ports) -> String {
    /// Ports side by side that lead to ports side by side.
    struct Run<'a> {
        host: Option<&'a str>,
        host_port: u16,
        protocol: &'a str,
        container_port: u16,
        rest: u16,
    }
    let mut runs: Vec<Run<'_>> = Vec::new();
    for (container_port, protocol, _, bindings) in sorted(ports) {
        let on = |binding: &PortBinding| binding.host_port.parse().unwrap_or(0);
        let found: Vec<(Option<&str>, u16)> = match bindings {
            Some(bindings) => bindings.iter().map(|one| (Some(one.host_ip.as_str()), on(one))).collect(),
            None => vec![(None, container_port)],
        };
        for (host, host_port) in found {
            let follows = |run: &&mut Run<'_>| {
                let next = run.rest.saturating_add(1);
                (run.host, run.protocol) == (host, protocol)
                    && run.host_port.checked_add(next) == Some(host_port)
                    && run.container_port.checked_add(next) == Some(container_port)
            };
            match runs.iter_mut().rev().find(follows) {
                Some(run) => run.rest += 1,
                None => runs.push(Run { host, host_port, protocol, container_port, rest: 0 }),
            }
        }
    }
    let range = |first: u16, rest: u16| match rest {
        0 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(rest)),
    };
    let shown = runs.into_iter().map(|run| {
        let container = format!("{}/{}", range(run.container_port, run.rest), run.protocol);
        match run.host {
            Some(host) => format!("{}:{}->{container}", bracketed(host), range(run.host_port, run.rest)),
            None => container,
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Port and protocol of the container, both as one, and the bindings that lead there; in the order of ports.
fn sorted(ports: &Ports) -> Vec<(u16, &str, &str, &Option<Vec<PortBinding>>)> {
    let mut sorted: Vec<_> = ports
        .iter()
        .map(|(key, bindings)| {
            let (port, protocol) = key.split_once('/').unwrap_or((key, ""));
            (port.parse().unwrap_or(0), protocol, key.as_str(), bindings)
        })
        .collect();
    sorted.sort_by_key(|(port, protocol, ..)| (*port, *protocol));
    sorted
}

fn at(binding: &PortBinding) -> String {
    format!("{}:{}", bracketed(&binding.host_ip), binding.host_port)
}

fn bracketed(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_owned(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Ports {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn they_are_written_as_docker_writes_them() {
        let ports = ports(
            r#"{"443/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8443"}], "9/udp": null,
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}]}"#,
        );
        let expected = "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n443/tcp -> 127.0.0.1:8443\n";
        assert_eq!(lines(&ports), expected);
        let expected = "9/udp, 0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 127.0.0.1:8443->443/tcp";
        assert_eq!(summary(&ports), expected);
    }

    #[test]
    fn ranges_are_one_word() {
        let at = |port| {
            format!(
                r#"[{{"HostIp": "0.0.0.0", "HostPort": "{port}"}}, {{"HostIp": "::", "HostPort": "{port}"}}]"#
            )
        };
        let entries: Vec<String> =
            (8000..8010).map(|port| format!(r#""{}/tcp": {}"#, port - 1000, at(port))).collect();
        let summary = summary(&ports(&format!("{{{}}}", entries.join(","))));
        assert_eq!(summary, "0.0.0.0:8000-8009->7000-7009/tcp, [::]:8000-8009->7000-7009/tcp");
    }
}
