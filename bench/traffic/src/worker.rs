//! The worker's side: the order it is given, and doing it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::{connections, flood, ping, ping_pong, queries, requests, tcp, udp};

/// The hidden subcommand; the one argument behind it is an [`Order`].
pub(crate) const SUBCOMMAND: &str = "traffic-worker";

/// An order to a worker.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    /// The network namespace to do it in.
    pub(crate) netns: PathBuf,
    /// The process whose end is the worker's end.
    pub(crate) parent: u32,
    pub(crate) job: Job,
}

/// A job that a worker does.
#[derive(Serialize, Deserialize)]
pub(crate) enum Job {
    TcpReceive { address: IpAddr, streams: usize },
    TcpSend { targets: Vec<SocketAddr>, duration: Duration },
    UdpReceive { address: IpAddr, flows: usize },
    UdpSend { targets: Vec<SocketAddr>, duration: Duration },
    Echo { address: IpAddr },
    PingPong { target: SocketAddr, duration: Duration },
    Serve { address: IpAddr, listeners: usize },
    Open { targets: Vec<SocketAddr>, duration: Duration },
    Answer { address: IpAddr },
    Ask { target: SocketAddr, duration: Duration },
    Ping { target: IpAddr, count: u16, wait: Duration },
    Probe { target: IpAddr, duration: Duration },
    Flood { kind: flood::Flood, gateway: Option<Ipv4Addr> },
    Query { server: SocketAddr, name: String, expected: Ipv4Addr, duration: Duration },
    Program { program: OsString, name: OsString, arguments: Vec<OsString> },
}

/// Runs a worker when that is what `arguments`, the program's own with its name first, ask for.
///
/// Answers `None` when they ask for something else. Call it before anything else, in a `main` that has
/// started no thread.
pub fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != SUBCOMMAND {
        return None;
    }
    let order = arguments.next().unwrap_or_default();
    match obey(order.as_encoded_bytes()) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn obey(order: &[u8]) -> io::Result<()> {
    let Order { netns, parent, job } = serde_json::from_slice(order)?;
    // A worker outlives nobody: SIGTERM lets programs that clean up after themselves do so.
    set_pdeathsig(Signal::SIGTERM)?;
    if parent_id() != parent {
        return Err(io::Error::other("the process that wanted this has ended"));
    }
    let file = File::open(&netns).map_err(|error| named(&netns, &error))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| named(&netns, &errno.into()))?;
    match job {
        Job::TcpReceive { address, streams } => say(&tcp::receive(address, streams, say_ports)?),
        Job::TcpSend { targets, duration } => say(&tcp::send(&targets, duration)?),
        Job::UdpReceive { address, flows } => say(&udp::receive(address, flows, say_ports)?),
        Job::UdpSend { targets, duration } => say(&udp::send(&targets, duration)?),
        Job::Echo { address } => say(&ping_pong::echo(address, say_ports)?),
        Job::PingPong { target, duration } => say(&ping_pong::initiate(target, duration)?),
        Job::Serve { address, listeners } => say(&connections::serve(address, listeners, say_ports)?),
        Job::Open { targets, duration } => say(&connections::open(&targets, duration)?),
        Job::Answer { address } => say(&requests::serve(address, say_ports)?),
        Job::Ask { target, duration } => say(&requests::ask(target, duration)?),
        Job::Ping { target, count, wait } => say(&ping::ping(target, count, wait)?),
        Job::Probe { target, duration } => say(&ping::probe(target, duration)?),
        Job::Flood { kind, gateway } => say(&flood::flood(kind, gateway, || say(&()))?),
        Job::Query { server, name, expected, duration } => {
            say(&queries::ask(server, &name, expected, duration)?)
        }
        Job::Program { program, name, arguments } => {
            let error = Command::new(&program).arg0(name).args(arguments).exec();
            Err(io::Error::new(error.kind(), format!("{}: {error}", program.display())))
        }
    }
}

fn named(netns: &std::path::Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("network namespace {}: {error}", netns.display()))
}

/// Says which ports a target listens on: from now on its source may start.
fn say_ports(ports: &[u16]) -> io::Result<()> {
    say(&ports)
}

/// Says one line.
fn say(what: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, what)?;
    out.write_all(b"\n")?;
    out.flush()
}
