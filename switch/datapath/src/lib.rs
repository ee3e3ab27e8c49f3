//! The confined process: the poll loop that moves every frame.
//!
//! # Theory of operation
//! Control starts this process with one end of a `SOCK_SEQPACKET` pair as standard input and sends it
//! [`vswitch_contract::command::Command`]s. The first give it a socket to listen on and say how to run; then the process
//! confines itself ([`vswitch_sys::confine`]) and enters the loop of [`turn`]. A port is a descriptor and
//! a description, so a new process that is told the same goes on where a dead one stopped.
//!
//! When control dies the loop goes on, and the next control finds the process by its socket, asks what it
//! has, and goes on commanding. A process without any port ends with its control: it keeps nothing alive.
//!
//! | file | |
//! |---|---|
//! | [`turn`] | the loop: receive, decide, transmit, rest |
//! | [`ports`] | the ports and which of them are ready |
//! | [`transmit`] | coalesce, split and send what was decided |
//! | [`wiring`] | the way out: the switch, the translator and the uplink |
//! | [`tunnels`] | networks that span hosts: the switch, VXLAN and its sockets |
//! | [`neighbours`] | who has which address on the uplink's link |
//! | [`relays`] | the proxy, and the sockets at which its clients come in |
//! | [`dns`] | answers questions for names |
//! | [`speak`] | frames of the switch's own |
//! | [`rest`] | spin or sleep |
//! | [`line`] | the connection to control, and where the next control comes in |
//! | [`admin`] | carries out control's commands between turns |
//! | [`tunnel_admin`] | those about tunnels |
//! | [`recall`] | tells the next control what the last one has told |
//! | [`claims`] | sockets kept for the next control |
//! | [`flows`] | pages of the translator's flows |
//! | [`mirror`] | flows, written down for the next datapath |

#![forbid(unsafe_code)]

mod admin;
mod claims;
mod dns;
mod flows;
mod line;
mod mirror;
mod neighbours;
mod ports;
mod recall;
mod relays;
mod rest;
mod speak;
mod transmit;
mod tunnel_admin;
mod tunnels;
mod turn;
mod wiring;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit};
use vswitch_sys::confine;
use vswitch_sys::poll::Poller;
use vswitch_sys::seqpacket::{Channel, Listener, MESSAGE_BYTES_MAX};

use line::Line;
use turn::Datapath;
use vswitch_contract::command::{Command, Options, Reply};
use vswitch_contract::counters::Counters;
use vswitch_contract::mirror::Mirror;

/// The number under which the channel to control is waited for; ports use their own.
const CHANNEL: usize = usize::MAX;
/// The number of the socket where the next control comes in.
const LISTENER: usize = usize::MAX - 1;
/// The number of the channel on which names are asked.
const RESOLVER: usize = usize::MAX - 2;
/// The number of the receiving socket of tunnels.
const TUNNEL_SOCKET: usize = usize::MAX - 3;

/// Runs the datapath until it is told to stop. Standard input is the channel to control.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vswitch datapath: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let channel = Channel::from_fd(io::stdin().as_fd().try_clone_to_owned()?);
    let mut poller = Poller::new()?;
    poller.add(channel.as_fd(), CHANNEL)?;
    let Start { listener, mirror, options, counters } = receive_start(&channel, &mut poller)?;
    let line = Line::new(channel, listener, &poller)?;
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let mut datapath = Datapath::new(options, counters, mirror, poller, line, descriptors);
    confine::enter()?;
    datapath.reply(&Reply::Done, None);
    datapath.run()
}

/// What a datapath starts with.
struct Start {
    listener: Listener,
    mirror: Mirror,
    options: Options,
    counters: Counters,
}

/// Waits for the commands that start everything.
fn receive_start(channel: &Channel, poller: &mut Poller) -> io::Result<Start> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let (mut listener, mut mirror) = (None, None);
    loop {
        let Some((length, fd)) = channel.receive(&mut buffer)? else {
            poller.wait(None, |_| {})?;
            continue;
        };
        match (serde_json::from_slice(&buffer[..length])?, fd, listener.take(), mirror.take()) {
            (Command::Listen, Some(fd), None, None) => {
                let bound = Listener::from_fd(fd);
                bound.listen()?;
                listener = Some(bound);
            }
            (Command::Mirror, Some(fd), Some(bound), None) => {
                (listener, mirror) = (Some(bound), Some(Mirror::map(fd)?));
            }
            (Command::Start(options), Some(fd), Some(listener), Some(mirror)) => {
                return Ok(Start { listener, mirror, options, counters: Counters::map(fd)? });
            }
            (command, ..) => {
                let message = format!("expected Listen, Mirror, then Start, got {command:?}");
                return Err(io::Error::other(message));
            }
        }
        channel.send(&serde_json::to_vec(&Reply::Done)?, &[])?;
    }
}
