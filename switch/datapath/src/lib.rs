//! The confined process: the poll loop that moves every frame.
//!
//! # Theory of operation
//! Control starts this process with one end of a `SOCK_SEQPACKET` pair as standard input and sends it
//! [orders](vswitch_contract::order). The first says how to run; then the process confines itself
//! ([`vswitch_sys::confine`]) and enters the loop of [`turn`]. A port is a descriptor and a description, so a
//! new process that is told the same facts goes on where a dead one stopped.
//!
//! When control dies the loop goes on, and the next control finds the process by its socket, asks for the
//! facts, and goes on giving orders. A process without any port ends with its control: it keeps nothing
//! alive.
//!
//! | file | |
//! |---|---|
//! | [`turn`] | the loop: receive, decide, serve, transmit, rest |
//! | [`serve`] | guests of the gateway, in their order |
//! | [`worker`] | everything that one worker has to itself |
//! | [`ports`] [`ready`] | the egress of each port, and numbers of other descriptors |
//! | [`share`] | the order in which ports are served |
//! | [`transmit`] | coalesce, split and send what was decided |
//! | [`sorter`] | frames by the port they leave by |
//! | [`floods`] | frames for many, a piece at a time |
//! | [`uplink`] | the way out: the switch, the translator and the uplinks |
//! | [`tunnel`] | networks that span hosts: the switch, VXLAN and its sockets |
//! | [`errand`] | sends of tunnels, and what becomes of refused ones |
//! | [`relay`] | the proxy, and the sockets at which its clients come in |
//! | [`names`] | answers questions for names |
//! | [`speak`] | frames of the switch's own |
//! | [`rest`] | spin or sleep |
//! | [`desk`] | control's word: orders and facts |
//! | [`flows`] | pages of the translator's flows |
//! | [`stepped`] | the same loop, turned by somebody else |
//! | [`mirror`] | flows, written down for the next datapath |
#![forbid(unsafe_code)]

mod desk;
mod errand;
mod floods;
mod flows;
mod mirror;
mod names;
mod ports;
mod ready;
mod relay;
mod rest;
mod serve;
mod share;
mod sorter;
mod speak;
pub mod stepped;
mod transmit;
mod tunnel;
mod turn;
mod uplink;
mod worker;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit};
use vswitch_contract::counters::Counters;
use vswitch_contract::mirror::Mirror;
use vswitch_contract::order::{Options, Order, Reply};
use vswitch_contract::parts::{Arrived, Assembly};
use vswitch_proxy::limits::BUFFER_MIN;
use vswitch_sys::confine;
use vswitch_sys::memory;
use vswitch_sys::poll::Poller;
use vswitch_sys::seqpacket::{Channel, Listener, MESSAGE_BYTES_MAX};

use desk::line::Line;
use desk::memory::Desk;
use ready::CHANNEL;
use turn::Datapath;

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
    let (options, fds) = receive_start(&channel, &mut poller)?;
    let [listener, mirror, counters] = <[OwnedFd; 3]>::try_from(fds)
        .map_err(|fds| io::Error::other(format!("{} of 3 descriptors arrived", fds.len())))?;
    let listener = Listener::from_fd(listener);
    listener.listen()?;
    let (mirror, counters) = (Mirror::map(mirror)?, Counters::map(counters)?);
    let desk = Desk::new(Line::new(channel, listener, &poller)?, options);
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let mut datapath = Datapath::new(desk, options.seed, counters, mirror, poller, descriptors);
    memory::give_back_from(BUFFER_MIN)?;
    confine::enter()?;
    datapath.desk.reply(&Reply::Done);
    datapath.run()
}

/// Waits for the order that starts everything, and the descriptors that ride along.
fn receive_start(channel: &Channel, poller: &mut Poller) -> io::Result<(Options, Vec<OwnedFd>)> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let Some((length, fds)) = channel.receive_all(&mut buffer)? else {
            poller.wait(None, |_| {})?;
            continue;
        };
        let Ok(Arrived::Whole(text)) = Assembly::default().take(&buffer[..length]) else {
            return Err(io::Error::other("expected the order to start, got a part of a message"));
        };
        let order = serde_json::from_slice(&text)?;
        let Order::Start(options) = order else {
            return Err(io::Error::other(format!("expected the order to start, got {order:?}")));
        };
        return Ok((options, fds));
    }
}
