//! The command line: `vswitch run` is the daemon, everything else a client of its control socket.
//!
//! Words and flags follow Docker's. A command exits with 0 when it did what it was asked, with 1 when it
//! was refused or failed (one line on standard error says what and how to mend it), with 2 when it was
//! not understood. One file per noun; [`client`] speaks HTTP, [`table`] lays out rows for people, and
//! [`outcome`] and [`print`](mod@print) are how every command ends.

mod attach;
mod client;
mod cluster;
mod demo;
mod each;
mod endpoint;
mod etcd;
mod exec;
mod fdb;
mod flows;
mod inspect;
mod join;
mod key_value;
mod network;
mod network_flag;
mod outcome;
mod print;
mod ps;
mod publish;
mod rule;
mod run;
mod sandbox;
mod stats;
mod table;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use client::Client;
use outcome::Outcome;

/// A userspace virtual switch for containers.
///
/// Start the daemon, make two sandboxes, and let one ping the other:
///
///   vswitch run &
///   vswitch sandbox create web
///   vswitch sandbox create db
///   vswitch ps
///   vswitch exec web -- ping -c 1 172.17.0.3
#[derive(Debug, Parser)]
#[command(name = "vswitch", version, verbatim_doc_comment, arg_required_else_help = true)]
struct Cli {
    /// The control socket of the daemon
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/vswitch/control.sock")]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Demo(demo::Demo),
    #[command(flatten)]
    Client(ClientCommand),
    /// The process that moves the frames; started by "vswitch run"
    #[command(hide = true)]
    Datapath,
}

/// A command that is asked of the daemon.
#[derive(Debug, Subcommand)]
enum ClientCommand {
    #[command(subcommand)]
    Network(network::Network),
    #[command(subcommand)]
    Sandbox(sandbox::Sandbox),
    Exec(exec::Exec),
    Attach(Box<attach::Attach>),
    Detach(attach::Detach),
    Publish(publish::Publish),
    Unpublish(publish::Unpublish),
    Port(publish::Port),
    Ps(ps::Ps),
    Fdb(fdb::Fdb),
    Flows(Box<flows::Flows>),
    #[command(subcommand)]
    Rule(rule::Rule),
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    Stats(stats::Stats),
    Version(version::Version),
}

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    // The demo's traffic generators are this very program, under a subcommand of their own.
    if let Some(code) = vswitch_traffic::dispatch(std::env::args_os()) {
        return code;
    }
    let Cli { socket, command } = Cli::parse();
    let outcome = match command {
        Command::Datapath => return vswitch_datapath::main(),
        Command::Run(run) => run.run(socket),
        Command::Demo(demo) => demo.run(),
        Command::Client(command) => talk(command, &Client::new(socket)),
    };
    outcome.unwrap_or_else(|failure| failure.complain())
}

/// Runs a command that talks to the daemon.
fn talk(command: ClientCommand, client: &Client) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            ClientCommand::Network(network) => network.run(client).await,
            ClientCommand::Sandbox(sandbox) => sandbox.run(client).await,
            ClientCommand::Exec(exec) => exec.run(client).await,
            ClientCommand::Attach(attach) => attach.run(client).await,
            ClientCommand::Detach(detach) => detach.run(client).await,
            ClientCommand::Publish(publish) => publish.run(client).await,
            ClientCommand::Unpublish(unpublish) => unpublish.run(client).await,
            ClientCommand::Port(port) => port.run(client).await,
            ClientCommand::Ps(ps) => ps.run(client).await,
            ClientCommand::Fdb(fdb) => fdb.run(client).await,
            ClientCommand::Flows(flows) => flows.run(client).await,
            ClientCommand::Rule(rule) => rule.run(client).await,
            ClientCommand::Cluster(cluster) => cluster.run(client).await,
            ClientCommand::Stats(stats) => stats.run(client).await,
            ClientCommand::Version(version) => version.run(client).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_every_command_is_explained() {
        let mut root = Cli::command();
        root.build();
        let mut commands: Vec<&clap::Command> = root.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            commands.extend(command.get_subcommands());
        }
    }
}
