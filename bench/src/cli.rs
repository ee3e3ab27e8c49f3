//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::contender::{local, outside, overlay};
use crate::error::BenchError;
use crate::measurement::Measurement;
use crate::results::Results;
use crate::road::Road;
use crate::{attach, c2c, chart, cluster, endpoints, exhaustion, fairness, membership, names, ports, ratios};

/// Measures the switch beside the kernel's bridge and other peers, in one run.
///
/// Needs root. Everything happens in namespaces that vanish with the run, however it ends.
#[derive(Debug, Parser)]
#[command(name = "vswitch-bench", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Throughput and latency from container to container, the switch and its peers in turn
    ///
    /// Example: vswitch-bench c2c --peer bridge --peer docker-rules --json results.json
    C2c(c2c::Options),
    /// From a container to the world outside, the switch beside the kernel's MASQUERADE
    Masquerade(c2c::Rounds),
    /// From the world outside to a published port, the switch beside the kernel's DNAT
    Published(c2c::Rounds),
    /// From host to host, the switch beside the kernel's bridge and vxlan
    ///
    /// Example: vswitch-bench overlay --underlay udp-gso --only tcp1,udp1,pingpong
    Overlay {
        /// Offloads of the NICs between the hosts
        #[arg(long, value_enum, default_value_t)]
        underlay: Underlay,
        #[command(flatten)]
        rounds: c2c::Rounds,
    },
    /// From a program of the host to a port published on 127.0.0.1, the switch beside docker-proxy
    Proxy {
        /// The program docker-proxy [default: where packages put it]
        #[arg(long, value_name = "FILE")]
        docker_proxy: Option<PathBuf>,
        /// Measure requests, fifty at once, each on a new connection, in place of bulk
        #[arg(long)]
        new_connections: bool,
        #[command(flatten)]
        rounds: c2c::Rounds,
    },
    /// New TCP connections per second to a published port, then from a container to the world, beside the
    /// kernel
    Connrate(c2c::Rounds),
    /// More short flows to one destination than there are ports, from one container and from many, beside the
    /// kernel's MASQUERADE: how many fail
    PortsExhaustion {
        /// How many connections, and how many questions by UDP
        #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        count: u32,
    },
    /// Measure what others keep of throughput and round trip while one floods, beside the kernel's bridge
    ///
    /// Example: vswitch-bench fairness --ports 10 --flood broadcast,macs
    Fairness(fairness::Options),
    /// How long attaching a container takes through the control socket, the last like the first
    Attach {
        /// How many to attach, one after another
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=4000))]
        count: u16,
        /// Where the switch keeps its state, to have it wait for that disk; in memory if nothing is said
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Memory and processor time of the switch with many containers attached and nothing going on
    Footprint {
        /// How many to attach
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=4000))]
        count: u16,
        /// How long nothing goes on
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
        seconds: u64,
    },
    /// A large network: attaching its endpoints, a ping to each, and how long showing it takes
    Endpoints {
        /// How many to attach
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=4000))]
        count: u16,
    },
    /// How fast the name of a container is answered through the socket of another
    Names {
        /// How often to measure
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
        rounds: u16,
        /// How long each time
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
        seconds: u64,
    },
    /// How soon all hosts of a cluster know of a change to an endpoint
    Membership {
        /// Source by which they hear of it
        #[arg(long, value_enum, default_value_t)]
        source: membership::Source,
        /// How many hosts
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(2..=200))]
        hosts: u8,
        /// How many changes
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        changes: u32,
    },
    /// A cluster of many hosts, simulated: bytes, time and memory that gossip takes; twenty with sockets, too
    ///
    /// Example: vswitch-bench cluster --hosts 20,100,1000 --endpoints 100
    Cluster {
        /// How many hosts, one cluster after the other
        #[arg(long, value_delimiter = ',', default_values_t = [20, 100, 1000], value_parser = clap::value_parser!(u16).range(2..=4000))]
        hosts: Vec<u16>,
        /// How many endpoints each has
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        endpoints: u16,
    },
    /// Publishing a large range of ports, TCP and UDP: how long it takes, and the memory of both processes
    Ports {
        /// How many of each
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=40_000))]
        count: u16,
        /// How often
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
        rounds: u16,
    },
    /// Draw results as an SVG chart
    Chart {
        /// Results that c2c wrote with --json, or a list of ratios as docs/figures.json
        results: PathBuf,
        /// The file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Offloads of the NICs between two hosts.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Underlay {
    /// Segment what tunnels carry, and UDP
    #[default]
    TunnelGso,
    /// Segment UDP, but nothing inside it
    UdpGso,
    /// Neither
    Plain,
}

impl Underlay {
    fn road(self) -> Road {
        match self {
            Self::TunnelGso => Road::OverlayTunnelGso,
            Self::UdpGso => Road::OverlayUdpGso,
            Self::Plain => Road::OverlayPlain,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vswitch-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<(), BenchError> {
    match command {
        Command::C2c(options) => c2c::run(options),
        Command::Masquerade(rounds) => {
            rounds.run(&[Road::Masquerade], &Measurement::BULK, outside::contenders)
        }
        Command::Published(rounds) => rounds.run(&[Road::Published], &Measurement::BULK, outside::contenders),
        Command::Connrate(rounds) => {
            rounds.run(&[Road::Published, Road::Masquerade], &[Measurement::Connections], outside::contenders)
        }
        Command::Overlay { underlay, rounds } => {
            rounds.run(&[underlay.road()], &Measurement::BULK, overlay::contenders)
        }
        Command::Proxy { docker_proxy, new_connections, rounds } => {
            let requests = [Measurement::Requests];
            let measurements: &[_] = if *new_connections { &requests } else { &Measurement::BULK };
            rounds.run(&[Road::Proxy], measurements, |_| local::contenders(docker_proxy.as_deref()))
        }
        Command::PortsExhaustion { count } => exhaustion::run(*count as usize),
        Command::Fairness(options) => fairness::run(options),
        Command::Attach { count, state_dir } => attach::latency(usize::from(*count), state_dir.as_deref()),
        Command::Footprint { count, seconds } => attach::footprint(usize::from(*count), *seconds),
        Command::Endpoints { count } => endpoints::run(usize::from(*count)),
        Command::Names { rounds, seconds } => names::run(usize::from(*rounds), *seconds),
        Command::Membership { source, hosts, changes } => membership::run(*source, *hosts, *changes),
        Command::Cluster { hosts, endpoints } => cluster::run(hosts, *endpoints),
        Command::Ports { count, rounds } => ports::run(usize::from(*count), usize::from(*rounds)),
        Command::Chart { results, output } => {
            let drawn = draw(results)?;
            std::fs::write(output, drawn).map_err(|error| BenchError::File {
                file: output.display().to_string(),
                message: error.to_string(),
            })
        }
    }
}

/// The chart of a file: a list of ratios, or else results of c2c.
fn draw(file: &Path) -> Result<String, BenchError> {
    match ratios::read(file)? {
        Some(ratios) => Ok(ratios::draw(&ratios)),
        None => Results::read(file).map(|results| chart::draw(&results)),
    }
}
