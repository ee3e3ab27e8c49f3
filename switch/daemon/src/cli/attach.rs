//! `vswitch attach` and `vswitch detach`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use vswitch_control::api::types::{self, ForeignFd, Map};
use vswitch_sys::netns::named_path;

use super::client::{Client, path};
use super::each::each;
use super::endpoint::EndpointArgs;
use super::outcome::{Failure, Outcome};
use super::print::{Json, print, print_json};
use super::publish::PublishArgs;

/// Attach a container, or whatever else has a network namespace
///
/// Examples:
///   vswitch attach web --pid 4711
///   vswitch attach web --netns /run/docker/netns/1f2e3d --network lan --ip 10.1.0.80
///   vswitch attach vm --fd 4711:12 --network lan --mac 52:54:00:12:34:56
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Attach {
    /// The name it shall have here
    name: String,
    #[command(flatten)]
    target: Target,
    /// Network to connect it to
    #[arg(long, value_name = "NETWORK", default_value = "bridge")]
    network: String,
    #[command(flatten)]
    endpoint: EndpointArgs,
    #[command(flatten)]
    ports: PublishArgs,
    #[command(flatten)]
    json: Json,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Its network namespace: a path, or a name "ip netns" knows
    #[arg(long, value_name = "PATH|NAME")]
    netns: Option<PathBuf>,
    /// A process in its network namespace
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// A TAP or packet socket another process has open, as a virtual machine monitor has
    #[arg(long, value_name = "PID:FD", value_parser = foreign_fd)]
    fd: Option<ForeignFd>,
}

/// Detach what was attached
///
/// Example: vswitch detach web
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Detach {
    /// Their names, or beginnings of their identifiers
    #[arg(required = true)]
    names: Vec<String>,
}

impl Attach {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let body = types::Attach {
            name: self.name,
            netns: self.target.netns.as_deref().map(netns_path).transpose()?,
            pid: self.target.pid,
            fd: self.target.fd,
            network: Some(self.network),
            endpoint_config: self.endpoint.config(),
            publish: self.ports.publish,
            expose: self.ports.expose,
            publish_all: self.ports.publish_all,
        };
        let sandbox: types::Sandbox = client.post("/sandboxes/attach", &body).await?;
        sandbox.warnings.iter().for_each(|warning| eprintln!("WARNING: {warning}"));
        if self.json.json {
            return print_json(&sandbox);
        }
        print(&format!("{}\n", sandbox.name));
        Ok(ExitCode::SUCCESS)
    }
}

impl Detach {
    pub(super) async fn run(self, client: &Client) -> Outcome {
        let detach =
            async |name: &String| client.command(&path("/sandboxes/", name, "/detach"), &Map::new()).await;
        each(self.names, detach).await
    }
}

/// The path the daemon will find the namespace at.
fn netns_path(given: &Path) -> Result<String, Failure> {
    let is_name = given.components().count() == 1 && !given.is_absolute();
    let path = if is_name { named_path(&given.to_string_lossy()) } else { std::path::absolute(given)? };
    path.into_os_string()
        .into_string()
        .map_err(|path| Failure(format!("{path:?} is no UTF-8: use a link to it")))
}

fn foreign_fd(text: &str) -> Result<ForeignFd, String> {
    let parsed = text.split_once(':').and_then(|(pid, fd)| Some((pid.parse().ok()?, fd.parse().ok()?)));
    parsed.map(|(pid, fd)| ForeignFd { pid, fd }).ok_or_else(|| "write PID:FD, as in 4711:12".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_where_ip_netns_keeps_them() {
        assert_eq!(netns_path(Path::new("web")).expect("name"), "/run/netns/web");
        assert_eq!(netns_path(Path::new("/proc/1/ns/net")).expect("path"), "/proc/1/ns/net");
        assert!(netns_path(Path::new("./web")).expect("relative").ends_with("/web"));
    }

    #[test]
    fn descriptors_are_read() {
        let read = foreign_fd("12:3").expect("both");
        assert_eq!((read.pid, read.fd), (12, 3));
        for text in ["12", "12:", ":3", "a:b"] {
            assert!(foreign_fd(text).is_err(), "{text}");
        }
    }
}
