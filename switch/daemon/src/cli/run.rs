//! `vswitch run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use vswitch_contract::poll::PollMode;
use vswitch_contract::tunnel::UDP_PORT;
use vswitch_control::host::ways_out::Choice;
use vswitch_control::run::{self, RunOptions};

use super::join::Join;
use super::outcome::{Failure, Outcome};

/// Run the switch until it is told to stop
///
/// Says one line on standard error when it is ready. SIGTERM or Ctrl-C stops it and removes everything
/// it made: interfaces, namespaces, the socket. What there was is written down in the state directory, and
/// the next run makes it again. When it is killed instead, the switch goes on without it, and the next run
/// takes up with the switch. RUST_LOG=debug shows more of what it does.
///
/// Examples:
///   vswitch run --poll busy
///   vswitch run --advertise 192.0.2.1 --cluster-key-file /etc/vswitch.key
///   vswitch run --join 192.0.2.1 --cluster-key-file /etc/vswitch.key
///   vswitch run --cluster etcd://192.0.2.8:2379,192.0.2.9:2379
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Run {
    /// The directory where networks, sandboxes and endpoints are written down; one daemon to each
    #[arg(long, value_name = "DIR", default_value = "/var/lib/vswitch")]
    state_dir: PathBuf,
    /// The datapath's conduct without work: spin a moment, then sleep (adaptive); never sleep, take a
    /// core, answer fastest (busy); never spin (sleep)
    #[arg(long, value_enum, default_value_t)]
    poll: Poll,
    /// The interface that leads out of the host: that of the default route (auto), none, or by name; of
    /// several the host's routes choose, and what answers leaves by the one it was asked at
    #[arg(long, value_name = "auto|none|IFACE", value_delimiter = ',', default_value = "auto")]
    uplink: Vec<String>,
    /// The UDP port of networks that span hosts, the same on all of them
    #[arg(long, value_name = "PORT", default_value_t = UDP_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: u16,
    /// The file that names the host's name servers
    #[arg(long, value_name = "PATH", default_value = "/etc/resolv.conf", hide = true)]
    resolv_conf: PathBuf,
    #[command(flatten)]
    join: Join,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Poll {
    /// Spins for a moment after work, then sleeps
    #[default]
    Adaptive,
    /// Never sleeps: takes a core, answers fastest
    Busy,
    /// Never spins
    Sleep,
}

impl From<Poll> for PollMode {
    fn from(poll: Poll) -> Self {
        match poll {
            Poll::Adaptive => Self::Adaptive,
            Poll::Busy => Self::Busy,
            Poll::Sleep => Self::Sleep,
        }
    }
}

impl Run {
    pub(super) fn run(self, socket: PathBuf) -> Outcome {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .init();
        let Self { state_dir, poll, uplink, vxlan_port, resolv_conf, join } = self;
        let poll = poll.into();
        let uplink = Choice::parse(&uplink).map_err(Failure)?;
        let cluster = join.options(&state_dir)?;
        let outcome =
            run::run(&RunOptions { socket, state_dir, poll, resolv_conf, uplink, cluster, vxlan_port });
        outcome.map(|()| ExitCode::SUCCESS).map_err(|error| Failure(error.message))
    }
}
