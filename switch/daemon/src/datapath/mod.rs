//! The confined process: the poll loop that moves every frame.
//!
//! # Theory of operation
//! Control starts this process with one end of a `SOCK_SEQPACKET` pair as standard input and sends it
//! [`command::Command`]s. The first says how to run; then the process confines itself
//! ([`vswitch_sys::confine`]) and enters the loop of [`turn`]. A port is a descriptor and a description,
//! so a new process that is told the same goes on where a dead one stopped.
//!
//! | file | |
//! |---|---|
//! | [`turn`] | the loop: receive, decide, transmit, rest |
//! | [`ports`] | the ports and which of them are ready |
//! | [`transmit`] | coalesce, split and send what was decided |
//! | [`dns`] | answers questions for names |
//! | [`rest`] | spin or sleep |
//! | [`admin`] | carries out control's commands between turns |
//! | [`command`] | those commands |
//! | [`counters`] | what is counted |

mod admin;
pub mod command;
pub mod counters;
mod dns;
mod ports;
mod rest;
mod transmit;
mod turn;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

use vswitch_sys::confine;
use vswitch_sys::poll::Poller;
use vswitch_sys::seqpacket::{Channel, MESSAGE_BYTES_MAX};

use command::{Command, Options, Reply};
use counters::Counters;
use turn::Datapath;

/// The number under which the channel to control is waited for; ports use their own.
const CHANNEL: usize = usize::MAX;
/// The same for the channel on which names are asked.
const RESOLVER: usize = usize::MAX - 1;

/// Runs the datapath until control goes away. Standard input is the channel to control.
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
    let (options, counters) = receive_start(&channel, &mut poller)?;
    let mut datapath = Datapath::new(options, counters, poller, channel);
    confine::enter()?;
    datapath.reply(&Reply::Done);
    datapath.run()
}

/// Waits for the command that starts everything.
fn receive_start(channel: &Channel, poller: &mut Poller) -> io::Result<(Options, Counters)> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        if let Some((length, fd)) = channel.receive(&mut buffer)? {
            return match (serde_json::from_slice(&buffer[..length])?, fd) {
                (Command::Start(options), Some(fd)) => Ok((options, Counters::map(fd)?)),
                (command, _) => {
                    Err(io::Error::other(format!("expected Start with counters, got {command:?}")))
                }
            };
        }
        poller.wait(None, |_| {})?;
    }
}
